// SPDX-License-Identifier: Apache-2.0
// `soma eval`: a policy judged in the closed loop of a simulated task, or on a dataset's held-out episodes.
#include "cmd/cmd.h"
#include "base/progress.h"
#include "eval/film.h"
#include "eval/openloop.h"
#include "eval/page.h"
#include "eval/rollout.h"
#include "format/wire.h"
#include "policy/policy.h"
#include "serve/access.h"

#include <stdio.h>
#include <string.h>

#define EVAL_OPTS(X)                                                                                               \
    X(TEXT, policy, "", "a policy's folder (several with commas for --data); `expert` or `hold`: a baseline")      \
    X(TEXT, server, "", "drive through a server of openpi's protocol instead: ws://host:port, or wss://")          \
    X(TEXT, api_key_file, "", "a file with a key of the server in its first line")                                 \
    X(TEXT, tls_ca, "", "of wss: a PEM file with the certificates that are trusted; empty: the system's")          \
    X(TEXT, label, "", "what the result is called in tables; empty: the policy's name")                            \
    X(TEXT, out, "", "write the result as JSON to this file")                                                      \
    X(TEXT, report, "", "write a page with tables, plots and pictures to this file; it needs nothing but itself")  \
    X(TEXT, compare, "", "result files of earlier runs, separated by commas, that the page shows beside this one") \
    X(TEXT, curves, "", "the policy's folder whose training curves the page shows; empty: --policy")               \
    X(TEXT, video, "", "write the filmed episodes as an mp4, with the actions drawn under the cameras")
SOMA_OPTS_DECLARE(eval_opts, EVAL_OPTS)
#define OPTS_TYPE eval_opts
SOMA_OPTS_DEFINE_LOCAL(eval_opts, EVAL_OPTS, eval_defaults)
#undef OPTS_TYPE

typedef struct {
    eval_opts o;
    soma_keys keys;
    soma_rollout_opts rollout;
    soma_chunk_opts chunks;
    soma_openloop_opts openloop;
    soma_policy_opts policy;
    soma_pilot_opts pilot;
} options;

// ---- closed loop

static bool watch(void *user, int64_t done, int64_t successes) {
    char detail[60];
    snprintf(detail, sizeof detail, "%lld successes", (long long)successes);
    soma__progress_show(user, done, detail);
    return !soma__cmd_interrupted();
}

static soma_status make_driver(const options *p, const soma_task *task, soma_driver *driver, soma_policy **policy, soma_error *err) {
    int seats = (int)SOMA_MIN(p->rollout.seats, p->rollout.seeds);
    const char *who = p->o.policy;
    soma_wire_opts wire = soma__wire_defaults();
    if (p->keys.n) wire.api_key = p->keys.keys[0];
    if (p->o.tls_ca[0]) wire.tls_ca = p->o.tls_ca;
    if (p->o.server[0]) return soma__driver_server(driver, p->o.server, &wire, task, seats, err);
    if (!strcmp(who, "expert")) return soma__driver_expert(driver, task, seats, err);
    if (!strcmp(who, "hold")) return soma__driver_hold(driver, task, seats, err);
    SOMA_TRY(soma_policy_open(policy, who, &p->policy, err));
    return soma__driver_policy(driver, *policy, &p->pilot, task, seats, err);
}

// Names who was judged: --label, else the folder or address.
static const char *label_of(const options *p) {
    if (p->o.label[0]) return p->o.label;
    return p->o.policy[0] ? p->o.policy : p->o.server;
}

static soma_status write_pictures(const options *p, const soma_rollouts *r, const json_t *result, soma_error *err) {
    if (p->o.video[0]) SOMA_TRY(soma__film_write(p->o.video, r, err));
    if (!p->o.report[0]) return SOMA_OK;
    return soma__page_rollouts(p->o.report, r, result, p->o.compare, p->o.curves[0] ? p->o.curves : p->o.policy, err);
}

static void print_rate(const char *name, soma_rate r) {
    printf("%-12s %5.1f %%   (95 %%: %.1f to %.1f %%, n = %lld)\n", name, 100 * r.rate, 100 * r.low, 100 * r.high, (long long)r.n);
}

static void print_rollouts(const options *p, const soma_rollouts *r) {
    printf("%s: %s%s\n", label_of(p), r->task.name, r->opts.wrong_prompt ? ", the prompt names another object" : "");
    print_rate("success", r->success);
    print_rate("as prompted", r->prompted);
    print_rate("acted", r->acted);
    printf("%.1f steps per success, %.1f ms per chunk (%.1f in the model), %.1f s%s\n", r->mean_steps, r->act_ms, r->model_ms, r->seconds,
           r->stopped ? "; stopped early" : "");
}

static int closed_loop(soma_cmd *cmd, const options *p) {
    soma_error err = {0};
    soma_task task;
    soma_driver driver = {0};
    soma_policy *policy = NULL;
    soma_rollouts r = {0};
    json_t *result = NULL;
    int code;
    soma_progress progress = soma__progress_start("eval", p->rollout.seeds);
    soma_status status = soma__rollout_task(&task, &p->rollout, &err);
    if (status == SOMA_OK) status = make_driver(p, &task, &driver, &policy, &err);
    if (status == SOMA_OK) status = soma__rollouts_run(&r, &driver, &p->rollout, &p->chunks, watch, &progress, &err);
    if (status == SOMA_OK) {
        soma__progress_end(&progress, r.n, NULL);
        result = soma__rollouts_json(&r);
        if (!result || json_object_set_new(result, "label", json_string(label_of(p))) ||
            json_object_set_new(result, "driver", json_string(driver.name)))
            status = soma__no_memory(&err, "the result");
    }
    if (status == SOMA_OK && p->o.out[0]) status = soma__json_save(result, p->o.out, &err);
    if (status == SOMA_OK) status = write_pictures(p, &r, result, &err);
    if (status != SOMA_OK)
        code = soma__cmd_fail(cmd, &err);
    else if (cmd->json)
        code = soma__cmd_print_json(cmd, json_incref(result));
    else {
        print_rollouts(p, &r);
        code = SOMA_EXIT_OK;
    }
    json_decref(result);
    soma__rollouts_free(&r);
    soma__driver_close(&driver);
    soma_policy_close(policy);
    return code;
}

// ---- open loop

static bool watch_frames(void *user, int64_t done, int64_t total) {
    soma_progress *progress = user;
    progress->total = SOMA_MAX(total, done);
    soma__progress_show(progress, done, NULL);
    return !soma__cmd_interrupted();
}

static void print_error(const soma_openloop_error *e, int horizon) {
    printf("%-36s %8.3f", e->name, e->chunk);
    for (int i = 0; i < SOMA_OPENLOOP_POINTS; i++)
        if (soma__openloop_points[i] <= horizon) printf(" %8.3f", e->at[i]);
    printf("\n");
}

static void print_openloop(const soma_openloop *r) {
    printf("mean absolute error in standard deviations: %lld frames of %lld held-out episodes, %d dimensions%s", (long long)r->frames,
           (long long)r->episodes, r->n_dims, r->n_still ? "" : "\n");
    if (r->n_still) printf(" (%d that do not move are left out)\n", r->n_still);
    if (r->skipped) printf("%lld damaged parts of the dataset were left out\n", (long long)r->skipped);
    char chunk[30];
    snprintf(chunk, sizeof chunk, "1 to %d", r->horizon);
    printf("%-36s %8s", "step of the chunk", chunk);
    for (int i = 0; i < SOMA_OPENLOOP_POINTS; i++)
        if (soma__openloop_points[i] <= r->horizon) printf(" %8d", soma__openloop_points[i]);
    printf("\n");
    for (int i = 0; i < r->n_policies; i++) print_error(&r->policies[i], r->horizon);
    if (r->n_policies > 1) {
        print_error(&r->mean, r->horizon);
        print_error(&r->spread, r->horizon);
    }
    if (r->can_hold) print_error(&r->hold, r->horizon);
    print_error(&r->last, r->horizon);
    print_error(&r->average, r->horizon);
}

static int open_loop(soma_cmd *cmd, const options *p) {
    soma_error err = {0};
    soma_openloop r;
    soma_progress progress = soma__progress_start("eval", 1);
    soma_status status = soma__openloop(&r, p->o.policy, &p->openloop, &p->policy, &p->pilot, watch_frames, &progress, &err);
    if (status != SOMA_OK) return soma__cmd_fail(cmd, &err);
    soma__progress_end(&progress, r.frames * r.n_policies, NULL);
    json_t *result = soma__openloop_json(&r);
    if (!result) status = soma__no_memory(&err, "the result");
    if (status == SOMA_OK && p->o.out[0]) status = soma__json_save(result, p->o.out, &err);
    if (status == SOMA_OK && p->o.report[0]) status = soma__page_openloop(p->o.report, &r, p->openloop.data, &err);
    int code = SOMA_EXIT_OK;
    if (status != SOMA_OK)
        code = soma__cmd_fail(cmd, &err);
    else if (cmd->json)
        code = soma__cmd_print_json(cmd, json_incref(result));
    else
        print_openloop(&r);
    json_decref(result);
    return code;
}

// ---- the verb

static int run(int argc, char **argv) {
    options p = {.o = eval_defaults(),
                 .rollout = soma_rollout_defaults(),
                 .chunks = soma_chunk_defaults(),
                 .openloop = soma_openloop_defaults(),
                 .policy = soma_policy_defaults(),
                 .pilot = soma_pilot_defaults()};
    soma_cmd cmd = {
        .usage = "--policy DIR|expert|hold | --server ADDRESS | --policy DIR,DIR --data DIR --episodes 3,7  [options]",
        .about = "Closed loop: drives scenes that no recording has seen (seeds from 1000000 on), and reports the success rate with its\n"
                 "Wilson 95 % interval. With --wrong-prompt the prompt names another object: success is still judged by the goal, and\n"
                 "`as prompted` counts how often the named object came first, `acted` how often one object did, whichever was named.\n\n"
                 "Open loop (--data): the error of predicted chunks on held-out episodes, beside baselines that need no policy.\n\n"
                 "Examples:\n"
                 "  soma eval --policy run --task touch_color --seeds 100 --report report.html --video rollout.mp4\n"
                 "  soma eval --server ws://127.0.0.1:8000 --task touch_color --wrong-prompt --out result.json\n"
                 "  soma eval --policy run0,run1,run2 --data dataset --episodes 3,7\n",
        .has_json = true,
        .has_config = true,
        .groups = {{&eval_opts_table, &p.o, "options"},
                   {&soma_rollout_opts_table, &p.rollout, "closed loop"},
                   {&soma_chunk_opts_table, &p.chunks, "chunks"},
                   {&soma_openloop_opts_table, &p.openloop, "open loop"},
                   {&soma_policy_opts_table, &p.policy, "policy"},
                   {&soma_pilot_opts_table, &p.pilot, "pilot"}}};
    int code;
    soma_error err = {0};
    if (!soma__cmd_parse(&cmd, argc, argv, &code)) return code;
    if (!p.o.policy[0] == !p.o.server[0]) return soma__cmd_usage(&cmd, "either --policy or --server says who is judged");
    if (p.openloop.data[0] && p.o.server[0]) return soma__cmd_usage(&cmd, "--data judges policies in this process: --policy DIR");
    if (!p.o.video[0]) p.rollout.films = 0;
    if (p.o.api_key_file[0] && soma__keys_read(&p.keys, p.o.api_key_file, &err)) return soma__cmd_fail(&cmd, &err);
    soma__cmd_catch_interrupt();
    code = p.openloop.data[0] ? open_loop(&cmd, &p) : closed_loop(&cmd, &p);
    soma__keys_free(&p.keys);
    return code;
}

const soma_verb soma__verb_eval = {"eval", "success in simulation with its interval, or error on held-out episodes", run};
