// SPDX-License-Identifier: Apache-2.0
// `soma init`: a checkpoint of random weights in openpi's layout, of any size, to try a machine with before anything is downloaded.
//
// The folder appears whole or not at all: it is written under another name beside its place, and renamed.
#include "cmd/cmd.h"
#include "cmd/cmd_init.h"

#include "base/file.h"
#include "base/progress.h"
#include "policy/params.h"
#include "policy/robot.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define INIT_OPTS(X)                                                          \
    X(TEXT, family, "pi0", "network family; pi05 is pi0 with adaptive norms") \
    X(TEXT, preset, "base", "sizes to start from; base: as released")         \
    X(TEXT, model, "", "JSON file with sizes that differ from the preset's")  \
    X(INT, seed, 0, "same seed, same weights")                                \
    X(TEXT, dtype, "bf16", "bf16 or f32")                                     \
    X(TEXT, out, "", "folder to make")
SOMA_OPTS_DECLARE(init_opts, INIT_OPTS)
#define OPTS_TYPE init_opts
SOMA_OPTS_DEFINE_LOCAL(init_opts, INIT_OPTS, init_defaults)
#undef OPTS_TYPE

enum { ROBOT_DIMS = 14 }; // state and actions of the robot that is made up beside the weights: two arms, as ALOHA

// ---- what a policy needs beside its weights: a robot whose units are the model's own

static soma_status make_robot(soma_robot *r, const soma_model *model, soma_error *err) {
    static const double zeros[ROBOT_DIMS] = {0};
    static const char *const prompts[] = {"pick up the red cube and place it in the bowl"};
    double ones[ROBOT_DIMS];
    for (int i = 0; i < ROBOT_DIMS; i++) ones[i] = 1;
    const soma_model_info *info = &model->info;
    r->n_actions = (int)SOMA_MIN(ROBOT_DIMS, info->action_dim);
    r->n_state = (int)SOMA_MIN(ROBOT_DIMS, info->state_dim);
    r->n_cameras = info->n_cameras;
    for (int i = 0; i < info->n_cameras; i++) {
        snprintf(r->cameras[i], sizeof r->cameras[i], "%s", info->cameras[i]);
        r->slots[i] = i;
    }
    r->cameras_optional = true;
    r->resize = info->resize;
    SOMA_TRY(soma__norm_rule_parse(&r->state_rule, "identity", err));
    SOMA_TRY(soma__norm_rule_parse(&r->action_rule, "identity", err));
    const soma_norm norms[] = {{.key = "state", .size = r->n_state, .mean = zeros, .std = ones},
                               {.key = "actions", .size = r->n_actions, .mean = zeros, .std = ones}};
    SOMA_TRY(soma__norm_stats_new(&r->stats, norms, 2, "the random checkpoint", err));
    return soma__text_from_prompts(&r->text, prompts, 1, err);
}

static soma_status write_sides(const soma_robot *r, const soma_model *model, const char *dir, soma_error *err) {
    char path[SOMA_PATH_MAX];
    json_t *config = model->family->config(model), *robot = soma__robot_json(r);
    soma_status status = config && robot && !json_object_set(config, "robot", robot) ? SOMA_OK : soma__no_memory(err, "the config");
    if (status == SOMA_OK) status = soma__path_join(path, dir, "config.json", err);
    if (status == SOMA_OK) status = soma__json_save(config, path, err);
    if (status == SOMA_OK) status = soma__path_join(path, dir, "norm_stats.json", err);
    if (status == SOMA_OK) status = soma__norm_stats_write(r->stats, path, err);
    if (status == SOMA_OK) status = soma__path_join(path, dir, "vocab.json", err);
    if (status == SOMA_OK) status = soma__text_save(r->text, path, err);
    json_decref(config);
    json_decref(robot);
    return status;
}

// ---- the weights

static bool show(void *user, int64_t done, int64_t total) {
    soma_progress *p = user;
    p->total = total;
    soma__progress_show(p, done, "values");
    return !soma__cmd_interrupted();
}

static soma_status write_weights(const soma_layout *layout, const soma_model *model, const init_opts *o, const char *dir, soma_dtype dtype,
                                 soma_error *err) {
    char path[SOMA_PATH_MAX];
    SOMA_TRY(soma__path_join(path, dir, "model.safetensors", err));
    soma_progress p = soma__progress_start("writing", 0);
    soma_status status = soma__params_write_random(layout, model->family->aliases, (uint64_t)o->seed, dtype, path, show, &p, err);
    soma__progress_end(&p, status == SOMA_OK ? p.total : 0, "values");
    return status;
}

static soma_status write_folder(const soma_layout *layout, const soma_model *model, const init_opts *o, soma_dtype dtype, soma_error *err) {
    char part[SOMA_PATH_MAX + 32];
    size_t len = strlen(o->out);
    while (len > 1 && o->out[len - 1] == '/') len--;
    snprintf(part, sizeof part, "%.*s.part-%ld", (int)len, o->out, (long)getpid());
    soma_robot robot = {0};
    soma_status status = soma__dir_make(part, err);
    if (status == SOMA_OK) status = make_robot(&robot, model, err);
    if (status == SOMA_OK) status = write_sides(&robot, model, part, err);
    if (status == SOMA_OK) status = write_weights(layout, model, o, part, dtype, err);
    if (status == SOMA_OK && rename(part, o->out))
        status = soma__fail(err, SOMA_IO, "%s: cannot give the folder its name: %s", o->out, strerror(errno));
    if (status != SOMA_OK) soma__dir_remove(part, NULL);
    soma__robot_close(&robot);
    return status;
}

soma_status soma__cmd_init_random(const char *out, const char *family, const char *preset, const char *model, int64_t seed,
                                  soma_error *err) {
    init_opts o = init_defaults();
    soma_model *made = NULL;
    soma_layout layout = {0};
    snprintf(o.out, sizeof o.out, "%s", out);
    snprintf(o.family, sizeof o.family, "%s", family);
    snprintf(o.preset, sizeof o.preset, "%s", preset);
    snprintf(o.model, sizeof o.model, "%s", model);
    o.seed = seed;
    soma_status status = soma__model_preset(&made, o.family, o.preset, o.model, err);
    if (status == SOMA_OK) status = soma__model_weights(&layout, made, true, err);
    if (status == SOMA_OK) status = write_folder(&layout, made, &o, SOMA_BF16, err);
    soma__layout_free(&layout);
    soma__model_free(made);
    return status;
}

static int init(const soma_cmd *cmd, const init_opts *o, soma_dtype dtype) {
    soma_error err = {0};
    soma_model *model = NULL;
    soma_layout layout = {0};
    soma_status status = soma__model_preset(&model, o->family, o->preset, o->model, &err);
    if (status == SOMA_OK) status = soma__model_weights(&layout, model, true, &err);
    if (status == SOMA_OK) status = write_folder(&layout, model, o, dtype, &err);
    int64_t values = 0;
    for (size_t i = 0; i < layout.n_slots; i++) values += (int64_t)(layout.slots[i].size / soma_dtype_size(layout.slots[i].dtype));
    if (status == SOMA_OK && !cmd->json)
        printf("%s: %zu tensors, %lld values, %.2f GB of %s\n", o->out, layout.n_slots, (long long)values,
               (double)values * (double)soma_dtype_size(dtype) / 1e9, soma_dtype_name(dtype));
    int code = status != SOMA_OK ? soma__cmd_fail(cmd, &err) : SOMA_EXIT_OK;
    if (status == SOMA_OK && cmd->json)
        code = soma__cmd_print_json(cmd, json_pack("{s:s, s:I, s:I, s:I}", "path", o->out, "tensors", (json_int_t)layout.n_slots, "values",
                                                   (json_int_t)values, "size", (json_int_t)(values * (int64_t)soma_dtype_size(dtype))));
    soma__layout_free(&layout);
    soma__model_free(model);
    return code;
}

static int run(int argc, char **argv) {
    init_opts o = init_defaults();
    soma_cmd cmd = {
        .usage = "--out DIR [options]",
        .about = "Makes a checkpoint of random weights, with every tensor that a released one has, and beside it a robot whose units\n"
                 "are the model's own: memory, time and formats can be tried before anything is downloaded.\n\n"
                 "Examples:\n"
                 "  soma init --family pi0 --preset base --seed 1 --out random    # 7 GB\n"
                 "  soma init --family pi05 --preset nano --out small\n"
                 "  soma init --family smolvla --out random                       # 0.9 GB\n",
        .has_json = true,
        .groups = {{&init_opts_table, &o, "options"}}};
    int code;
    if (!soma__cmd_parse(&cmd, argc, argv, &code)) return code;
    if (!*o.out) return soma__cmd_usage(&cmd, "--out DIR is missing");
    const bool f32 = !strcmp(o.dtype, "f32");
    if (!f32 && strcmp(o.dtype, "bf16")) return soma__cmd_usage(&cmd, "--dtype \"%.20s\": bf16 or f32 are possible", o.dtype);
    if (soma__dir_exists(o.out) || soma__file_exists(o.out)) {
        soma_error err = {0};
        soma__fail(&err, SOMA_BAD_INPUT, "%s: it is there already; remove it or name another folder", o.out);
        return soma__cmd_fail(&cmd, &err);
    }
    soma__cmd_catch_interrupt();
    return init(&cmd, &o, f32 ? SOMA_F32 : SOMA_BF16);
}

const soma_verb soma__verb_init = {"init", "make a checkpoint of random weights", run};
