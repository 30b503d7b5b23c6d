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

static bool show(void *user, const soma_train_progress *p) {
    report *r = user;
    if (!r->started) {
        r->progress = soma__progress_start("train", p->steps);
        r->started = true;
    }
    r->last = *p;
    if (!isnan(p->eval_loss)) r->eval_loss = p->eval_loss;
    char detail[160];
    snprintf(detail, sizeof detail, "loss %.4f  held out %.4f  lr %.2e  %.0f samples/s  %.1f GFLOP/s", p->loss, r->eval_loss, p->lr,
             p->samples_per_second, p->samples_per_second * p->gflop_per_sample);
    if (p->step == p->steps)
        soma__progress_end(&r->progress, p->step, detail);
    else
        soma__progress_show(&r->progress, p->step, detail);
    return !soma__cmd_interrupted();
}

static int run(int argc, char **argv) {
    soma_train_opts o = soma_train_defaults();
    soma_cmd cmd = {
        .usage = "--data DIR --out DIR [options]",
        .about = "Trains a policy on a dataset of demonstrations. The policy's folder holds the weights (model.safetensors, the average\n"
                 "of the best held-out look), config.json, norm_stats.json, the vocabulary, train_config.json with every option as it\n"
                 "was, metrics.jsonl and curves.html, and training_state.safetensors for --resume.\n\n"
                 "Example:\n  soma train --family pi0 --preset nano --data demo/data --out demo/policy\n",
        .has_json = true,
        .has_config = true,
        .groups = {{&soma_train_opts_table, &o, "options"}}};
    int code;
    if (!soma__cmd_parse(&cmd, argc, argv, &code)) return code;
    soma__cmd_catch_interrupt();
    soma_error err = {0};
    report r = {.eval_loss = NAN};
    double started = soma__seconds();
    if (soma_train(&o, show, &r, &err)) return soma__cmd_fail(&cmd, &err);
    double seconds = soma__seconds() - started;
    if (cmd.json)
        return soma__cmd_print_json(&cmd,
                                    json_pack("{s:s, s:I, s:f, s:f, s:f, s:f, s:f}", "policy", o.out, "steps", (json_int_t)o.steps, "loss",
                                              r.last.loss, "eval_loss", isnan(r.eval_loss) ? 0 : r.eval_loss, "samples_per_second",
                                              r.last.samples_per_second, "gflop_per_sample", r.last.gflop_per_sample, "seconds", seconds));
    printf("%s: %lld steps in %.1f s, loss %.4f, held out %.4f, %.3f GFLOP per sample, %.0f samples/s\n", o.out, (long long)o.steps,
           seconds, r.last.loss, r.eval_loss, r.last.gflop_per_sample, r.last.samples_per_second);
    return SOMA_EXIT_OK;
}

const soma_verb soma__verb_train = {"train", "train a policy on demonstrations", run};
