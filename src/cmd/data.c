// SPDX-License-Identifier: Apache-2.0
// `soma data`: what a dataset holds, what is wrong with it, and the same as LeRobot v3.0.
#include "base/progress.h"
#include "cmd/cmd_dataset.h"
#include "data/check.h"
#include "data/convert.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define DATA_OPTS(X)                                                                                                               \
    X(INT, rows, -1, "info: rows of the list of absent files; check: findings that are printed; 0: all; -1: 40")                   \
    X(INT, pictures, 8, "check: pictures of each camera and episode that are decoded, the first and the last among them; 0: none") \
    X(FLAG, strict, false, "check: warnings make it fail, too")                                                                    \
    X(TEXT, out, "", "convert: folder of the new dataset")                                                                         \
    X(TEXT, state_key, "", "convert: features that become the state, separated by commas; empty: observation.state, else state")   \
    X(TEXT, action_key, "", "convert: features that become the actions; empty: action, else actions")                              \
    X(TEXT, cameras, "", "convert: picture features, separated by commas; none: no pictures; empty: all that are there")           \
    X(REAL, fps, 0, "convert: frames per second; 0: what the dataset says")                                                        \
    X(FLAG, skip_bad, false, "convert: leave out episodes that cannot be read, instead of ending there")
SOMA_OPTS_DECLARE(data_opts, DATA_OPTS)
#define OPTS_TYPE data_opts
SOMA_OPTS_DEFINE_LOCAL(data_opts, DATA_OPTS, data_defaults)
#undef OPTS_TYPE

static void show(void *user, int64_t done, int64_t total) { soma__progress_show(user, done, NULL); }

// ---- info

static int info(const soma_cmd *cmd, const data_opts *o) { return soma__cmd_dataset_info(cmd, cmd->words[1], o->rows); }

// ---- check

enum { ABSENT_SHOWN = 5 };

static void print_check(const soma_check *c, const soma_dataset *d, int64_t rows) {
    int64_t n[SOMA_VERDICT_COUNT] = {0};
    if (rows < 0) rows = 40;
    for (int64_t e = 0; e < d->n_episodes; e++) n[c->verdicts[e]]++;
    int64_t shown = 0, absent = 0;
    for (size_t i = 0; i < c->n_findings; i++) { // many absent files must not hide the rest
        const soma_finding *f = &c->findings[i];
        bool many = rows && !strcmp(f->kind, "absent") && ++absent > ABSENT_SHOWN;
        if (many || (rows && shown >= rows)) continue;
        printf("%-8s %-11s %s\n", f->error ? "error" : "warning", f->kind, f->text);
        shown++;
    }
    if ((int64_t)c->n_findings > shown) printf("... and %" PRId64 " more (--rows 0 prints all)\n", (int64_t)c->n_findings - shown);
    printf("%s: %" PRId64 " errors, %" PRId64 " warnings, %" PRId64 " pictures looked at\nepisodes:", d->path, c->n_errors, c->n_warnings,
           c->n_pictures);
    for (int v = 0; v < SOMA_VERDICT_COUNT; v++) printf("%s %" PRId64 " %s", v ? "," : "", n[v], soma__verdict_names[v]);
    printf("\n");
    for (int v = SOMA_VERDICT_DOUBTFUL; v <= SOMA_VERDICT_BAD; v++) {
        if (!n[v]) continue;
        printf("%s:", soma__verdict_names[v]);
        shown = 0;
        for (int64_t e = 0; e < d->n_episodes; e++)
            if (c->verdicts[e] == (soma_verdict)v && shown++ < 100) printf(" %" PRId64, d->episodes[e].index);
        printf(shown > 100 ? " ...\n" : "\n");
    }
}

static int check(const soma_cmd *cmd, const data_opts *o) {
    soma_dataset *d;
    soma_check c;
    soma_error err = {0};
    if (soma__dataset_open(&d, cmd->words[1], &err)) return soma__cmd_fail(cmd, &err);
    soma_progress progress = soma__progress_start("check", d->n_episodes);
    soma_check_opts how = {.pictures = (int)o->pictures, .progress = show, .user = &progress};
    soma_status status = soma__dataset_check(&c, d, &how, &err);
    soma__progress_end(&progress, d->n_episodes, NULL);
    int code = SOMA_EXIT_OK;
    if (status != SOMA_OK) {
        code = soma__cmd_fail(cmd, &err);
    } else if (cmd->json) {
        code = soma__cmd_print_json(cmd, soma__check_json(&c, d));
    } else {
        print_check(&c, d, o->rows);
    }
    if (status == SOMA_OK && (c.n_errors || (o->strict && c.n_warnings))) code = SOMA_EXIT_FAILED;
    if (status == SOMA_OK) soma__check_free(&c);
    soma__dataset_close(d);
    return code;
}

// ---- convert

// Names separated by commas, or the first of two usual ones, as positions of features of this kind.
static soma_status find_features(int *out, int *n, int most, const soma_dataset *d, const char *names, const char *const usual[2],
                                 soma_feature_kind kind, soma_error *err) {
    char name[400];
    *n = 0;
    if (!*names) names = soma__dataset_feature(d, usual[0]) >= 0 ? usual[0] : usual[1];
    for (const char *p = names; *p; p += *p == ',') {
        size_t len = strcspn(p, ",");
        snprintf(name, sizeof name, "%.*s", (int)SOMA_MIN(len, sizeof name - 1), p);
        p += len;
        int f = soma__dataset_feature(d, name);
        if (f < 0 || d->features[f].kind != kind)
            return soma__fail(err, SOMA_NOT_FOUND, "%s: there is no %s feature \"%s\"; `soma data info` lists them", d->path,
                              kind == SOMA_FEATURE_IMAGE ? "picture" : "vector", name);
        if (*n == most) return soma__fail(err, SOMA_BAD_INPUT, "more than %d features are named", most);
        out[(*n)++] = f;
    }
    return SOMA_OK;
}

static soma_status choose(soma_convert_opts *how, const soma_dataset *d, const data_opts *o, soma_error *err) {
    static const char *const states[2] = {"observation.state", "state"}, *const actions[2] = {"action", "actions"},
                             *const none[2] = {"", ""};
    SOMA_TRY(find_features(how->states, &how->n_states, SOMA_CONVERT_VECTORS, d, o->state_key, states, SOMA_FEATURE_VECTOR, err));
    SOMA_TRY(find_features(how->actions, &how->n_actions, SOMA_CONVERT_VECTORS, d, o->action_key, actions, SOMA_FEATURE_VECTOR, err));
    if (!strcmp(o->cameras, "none")) return SOMA_OK;
    if (*o->cameras)
        return find_features(how->cameras, &how->n_cameras, SOMA_CONVERT_CAMERAS, d, o->cameras, none, SOMA_FEATURE_IMAGE, err);
    for (int f = 0; f < d->n_features; f++) {
        if (d->features[f].kind != SOMA_FEATURE_IMAGE || !soma__dataset_has(d, f)) continue;
        if (how->n_cameras == SOMA_CONVERT_CAMERAS)
            return soma__fail(err, SOMA_BAD_INPUT, "%s: has more than %d cameras: choose with --cameras", d->path, SOMA_CONVERT_CAMERAS);
        how->cameras[how->n_cameras++] = f;
    }
    return SOMA_OK;
}

static void tell_skipped(void *user, int64_t episode, const char *why) {
    soma__log(SOMA_LOG_WARN, "episode at position %lld is left out: %s", (long long)episode, why);
}

static int convert(const soma_cmd *cmd, const data_opts *o) {
    soma_dataset *d;
    soma_converted result;
    soma_error err = {0};
    if (!*o->out) return soma__cmd_usage(cmd, "--out names the folder of the new dataset");
    if (soma__dataset_open(&d, cmd->words[1], &err)) return soma__cmd_fail(cmd, &err);
    soma_progress progress = soma__progress_start("convert", d->n_episodes);
    soma_convert_opts how = {.fps = o->fps, .skip_bad = o->skip_bad, .progress = show, .skipped = tell_skipped, .user = &progress};
    soma_status status = d->n_faults && !o->skip_bad
                             ? soma__fail(&err, SOMA_BAD_INPUT, "%s (--skip-bad goes on without what is damaged)", d->faults[0])
                             : choose(&how, d, o, &err);
    if (status == SOMA_OK) status = soma__dataset_convert(&result, d, o->out, &how, &err);
    soma__progress_end(&progress, d->n_episodes, NULL);
    int64_t absent = d->n_episodes - d->episodes_present;
    soma__dataset_close(d);
    if (status != SOMA_OK) return soma__cmd_fail(cmd, &err);
    if (cmd->json)
        return soma__cmd_print_json(cmd, json_pack("{s:s, s:I, s:I, s:I, s:I}", "out", o->out, "episodes", (json_int_t)result.episodes,
                                                   "frames", (json_int_t)result.frames, "skipped", (json_int_t)result.skipped, "absent",
                                                   (json_int_t)absent));
    printf("%s: %" PRId64 " episodes, %" PRId64 " frames", o->out, result.episodes, result.frames);
    if (result.skipped) printf(", %" PRId64 " that cannot be read left out", result.skipped);
    if (absent) printf(", %" PRId64 " that are absent left out", absent);
    printf("\n");
    return SOMA_EXIT_OK;
}

// ---- the verb

static const struct {
    const char *name;
    int (*run)(const soma_cmd *cmd, const data_opts *o);
} actions[] = {{"info", info}, {"check", check}, {"convert", convert}};

static int run(int argc, char **argv) {
    data_opts o = data_defaults();
    soma_cmd cmd = {
        .usage = "info|check|convert PATH [options]",
        .about = "Datasets of any format that is known (LeRobot, RLDS, HDF5): info tells what one holds, check what is wrong with it,\n"
                 "with a verdict per episode; convert writes it as LeRobot v3.0.\n\n"
                 "Examples:\n"
                 "  soma data info bridge --json\n"
                 "  soma data check demo/data\n"
                 "  soma data convert bridge --fps 5 --out bridge_v30\n"
                 "  soma data convert lift.hdf5 --state-key observation.robot0_eef_pos,observation.robot0_gripper_qpos --out lift\n",
        .has_json = true,
        .min_words = 2,
        .max_words = 2,
        .groups = {{&data_opts_table, &o, "options"}}};
    int code;
    if (!soma__cmd_parse(&cmd, argc, argv, &code)) return code;
    size_t which = 0;
    while (which < SOMA_COUNT(actions) && strcmp(cmd.words[0], actions[which].name)) which++;
    if (which == SOMA_COUNT(actions)) return soma__cmd_usage(&cmd, "\"%s\" is none of info, check and convert", cmd.words[0]);
    if (o.pictures < 0 || o.pictures > 100000 || !(o.fps >= 0)) return soma__cmd_usage(&cmd, "--pictures and --fps are not negative");
    return actions[which].run(&cmd, &o);
}

const soma_verb soma__verb_data = {"data", "datasets: what one holds, what is wrong with it, the same as LeRobot v3.0", run};
