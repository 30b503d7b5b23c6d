// SPDX-License-Identifier: Apache-2.0
// soma train: demonstrations in, a policy out.
#include "base/progress.h"
#include "cmd/cmd.h"
#include "train/trainer.h"

#include <math.h>

typedef struct {
    soma_progress progress;
    soma_train_progress last;
    double eval_loss; // the latest
    bool started;
} report;

static int digits(double rate) { return rate < 10 ? 3 : 0; } // a large model takes a minute per sample

static bool show(void *user, const soma_train_progress *p) {
    report *r = user;
    if (!r->started) {
        r->progress = soma__progress_start("train", p->steps);
        r->progress.first = p->step; // the clock starts behind this step
        r->started = true;
    }
    r->last = *p;
    if (!isnan(p->eval_loss)) r->eval_loss = p->eval_loss;
    char detail[200];
    snprintf(detail, sizeof detail, "loss %.4f  held out %.4f  lr %.2e  %.*f samples/s  %.1f GFLOP/s  %.1f %% waiting for data", p->loss,
             r->eval_loss, p->lr, digits(p->samples_per_second), p->samples_per_second, p->samples_per_second * p->gflop_per_sample,
             100 * p->wait_share);
    if (p->step == p->steps)
        soma__progress_end(&r->progress, p->step, detail);
    else
        soma__progress_show(&r->progress, p->step, detail);
    return !soma__cmd_interrupted();
}

// Work before the first step: a bar where it takes a while.
static void show_preparing(void *user, const char *what, int64_t done, int64_t total) {
    report *r = user;
    if (r->progress.label != what || r->progress.total != total) {
        r->progress = soma__progress_start(what, total);
        r->progress.shown = r->progress.started;
    }
    soma__progress_show(&r->progress, done, NULL);
    if (done == total && r->progress.shown > r->progress.started) soma__progress_end(&r->progress, done, NULL);
}

#define PLAN_OPTS(X) X(FLAG, plan, false, "print the memory and time that the run would need, and start nothing")
SOMA_OPTS_DECLARE(plan_opts, PLAN_OPTS)
#define OPTS_TYPE plan_opts
SOMA_OPTS_DEFINE_LOCAL(plan_opts, PLAN_OPTS, plan_defaults)
#undef OPTS_TYPE

static int print_plan(const soma_cmd *cmd, const soma_train_opts *o) {
    soma_error err = {0};
    soma_train_need n;
    if (soma_train_plan(&n, o, &err)) return soma__cmd_fail(cmd, &err);
    const struct {
        const char *name, *what;
        size_t size;
    } rows[] = {{"trained", "weights, f32", n.trained},
                {"frozen", "weights that are only read, where the file is mapped if it has them in this dtype", n.frozen},
                {"gradients", "f32", n.gradients},
                {"moments", "AdamW's two, f32", n.moments},
                {"average", "f32; --ema 0 keeps none", n.average},
                {"intermediates", "--recompute keeps fewer", n.intermediates},
                {"inputs", "a batch, as it comes and as the graph has it", n.inputs},
                {"workspace", "packed factors of matrix products", n.workspace},
                {"graphs", "the passes' graphs themselves", n.graphs},
                {"total", "", n.total},
                {"data", "decoded pictures (--cache), states and actions kept, at most, beside the total", n.data}};
    if (cmd->json) {
        json_t *out = json_object();
        for (size_t i = 0; i < SOMA_COUNT(rows); i++) json_object_set_new(out, rows[i].name, json_integer((json_int_t)rows[i].size));
        json_object_set_new(out, "values_trained", json_integer(n.values_trained));
        json_object_set_new(out, "values_frozen", json_integer(n.values_frozen));
        json_object_set_new(out, "gflop_per_step", json_real(n.gflop_per_step));
        json_object_set_new(out, "gflop_per_second", json_real(n.gflop_per_second));
        json_object_set_new(out, "seconds_per_step", json_real(n.seconds_per_step));
        return soma__cmd_print_json(cmd, out);
    }
    printf("%lld values trained, %lld frozen\n", (long long)n.values_trained, (long long)n.values_frozen);
    for (size_t i = 0; i < SOMA_COUNT(rows); i++)
        printf("  %-14s %10.3f GB%s%s\n", rows[i].name, 1e-9 * (double)rows[i].size, *rows[i].what ? "  " : "", rows[i].what);
    printf("a step: %.1f GFLOP, %.2f s at this machine's %.0f GFLOP/s of matrix products; %lld steps: %.2f hours or more\n",
           n.gflop_per_step, n.seconds_per_step, n.gflop_per_second, (long long)n.steps, n.seconds_per_step * (double)n.steps / 3600);
    return SOMA_EXIT_OK;
}

static int run(int argc, char **argv) {
    soma_train_opts o = soma_train_defaults();
    plan_opts plan = plan_defaults();
    soma_cmd cmd = {
        .usage = "--data DIR --out DIR [options]",
        .about = "Trains a policy on a dataset of demonstrations. The policy's folder holds the weights (model.safetensors, the average\n"
                 "of the best held-out look), config.json, norm_stats.json, the vocabulary, train_config.json with every option as it\n"
                 "was, metrics.jsonl and curves.html, and training_state.safetensors for --resume.\n\n"
                 "Example:\n  soma train --family pi0 --preset nano --data demo/data --out demo/policy\n",
        .has_json = true,
        .has_config = true,
        .groups = {{&soma_train_opts_table, &o, "options"}, {&plan_opts_table, &plan, "before it starts"}}};
    int code;
    if (!soma__cmd_parse(&cmd, argc, argv, &code)) return code;
    if (plan.plan) return print_plan(&cmd, &o);
    soma__cmd_catch_interrupt();
    soma_error err = {0};
    report r = {.eval_loss = NAN};
    const soma_train_watch watch = {show_preparing, &r};
    double started = soma__seconds();
    if (soma__train(&o, &watch, show, &r, &err)) return soma__cmd_fail(&cmd, &err);
    double seconds = soma__seconds() - started;
    if (cmd.json)
        return soma__cmd_print_json(
            &cmd, json_pack("{s:s, s:I, s:f, s:f, s:f, s:f, s:f, s:f}", "policy", o.out, "steps", (json_int_t)o.steps, "loss", r.last.loss,
                            "eval_loss", isnan(r.eval_loss) ? 0 : r.eval_loss, "samples_per_second", r.last.samples_per_second,
                            "gflop_per_sample", r.last.gflop_per_sample, "wait_share", r.last.wait_share, "seconds", seconds));
    printf(
        "%s: %lld steps in %.1f s, loss %.4f, held out %.4f, %.3f GFLOP per sample, %.*f samples/s, %.1f %% of the time waiting for data\n",
        o.out, (long long)o.steps, seconds, r.last.loss, r.eval_loss, r.last.gflop_per_sample, digits(r.last.samples_per_second),
        r.last.samples_per_second, 100 * r.last.wait_share);
    return SOMA_EXIT_OK;
}

const soma_verb soma__verb_train = {"train", "train a policy on demonstrations", run};
