// SPDX-License-Identifier: Apache-2.0
// `soma act`: one observation from a file or a dataset, one chunk of actions.
#include "cmd/cmd.h"
#include "base/file.h"
#include "data/dataset.h"
#include "format/safetensors.h"
#include "policy/policy.h"
#include "serve/observe.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define ACT_OPTS(X)                                                                                                          \
    X(TEXT, policy, "", "folder of the policy")                                                                              \
    X(TEXT, obs, "", "the observation: a .safetensors file, a .msgpack message of openpi's protocol, or a dataset's folder") \
    X(TEXT, prompt, "", "the instruction; empty: the observation's own")                                                     \
    X(INT, episode, 0, "episode of the dataset")                                                                             \
    X(INT, frame, 0, "frame within the episode")
SOMA_OPTS_DECLARE(act_opts, ACT_OPTS)
#define OPTS_TYPE act_opts
SOMA_OPTS_DEFINE_LOCAL(act_opts, ACT_OPTS, act_defaults)
#undef OPTS_TYPE

enum { OBS_FILE_MAX = 1 << 30 };

// What an observation points into.
typedef struct {
    soma_obs obs;
    soma_arena arena;
    char *message; // the bytes of a .msgpack file
    soma_safetensors *tensors;
    soma_dataset *data;
    soma_dataset_reader *reader;
} source;

static void source_close(source *s) {
    soma__arena_free(&s->arena);
    soma__free(s->message);
    soma__safetensors_close(s->tensors);
    if (s->reader) s->data->format->reader_close(s->reader);
    soma__dataset_close(s->data);
}

static bool ends_with(const char *s, const char *end) {
    size_t n = strlen(s), m = strlen(end);
    return n >= m && !strcmp(s + n - m, end);
}

// ---- the three kinds of source

// "state" [n] of any dtype, "image.<camera>" u8 [height, width, 3], "prompt" in the metadata.
static soma_status from_tensors(source *s, const char *path, soma_error *err) {
    SOMA_TRY(soma__safetensors_open(&s->tensors, path, err));
    soma_obs *o = &s->obs;
    const soma_safetensor *state = soma__safetensors_find(s->tensors, "state");
    char shape[160];
    if (!state || state->n_dims != 1)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: wanted a tensor \"state\" [n], found %s", path,
                          state ? soma__safetensor_shape(shape, state) : "none");
    float *values = soma__arena_alloc(&s->arena, (size_t)state->n_values * sizeof *values);
    if (!values) return soma__no_memory(err, "the state");
    soma__to_f32(values, state->dtype, state->data, state->n_values);
    o->state = values;
    o->n_state = (int)state->n_values;
    o->prompt = soma__safetensors_metadata(s->tensors, "prompt");
    for (size_t i = 0; i < soma__safetensors_count(s->tensors); i++) {
        const soma_safetensor *t = soma__safetensors_at(s->tensors, i);
        if (strncmp(t->name, "image.", 6)) continue;
        if (t->dtype != SOMA_U8 || t->n_dims != 3 || t->shape[2] != 3 || o->n_images == SOMA_MAX_CAMERAS)
            return soma__fail(err, SOMA_BAD_INPUT, "%s: \"%s\" is %s %s; wanted U8 [height, width, 3], and at most %d of them", path,
                              t->name, soma_dtype_name(t->dtype), soma__safetensor_shape(shape, t), SOMA_MAX_CAMERAS);
        o->images[o->n_images++] = (soma_image){t->name + 6, t->data, (int)t->shape[1], (int)t->shape[0]};
    }
    return SOMA_OK;
}

static soma_status from_message(source *s, const char *path, const soma_policy_info *info, soma_error *err) {
    size_t size;
    const soma_msg *message;
    SOMA_TRY(soma__file_read(&s->message, &size, path, OBS_FILE_MAX, err));
    if (soma__msg_parse(&message, &s->arena, s->message, size, true, err) || soma__observe(&s->obs, info, message, &s->arena, err))
        return soma__fail_in(err, "%s", path);
    return SOMA_OK;
}

static soma_status read_state(source *s, int64_t episode, int64_t frame, soma_error *err) {
    int f = soma__dataset_feature(s->data, "observation.state");
    if (f < 0) f = soma__dataset_feature(s->data, "state");
    if (f < 0) return soma__fail(err, SOMA_NOT_FOUND, "%s: no feature observation.state or state", s->data->path);
    size_t size = (size_t)s->data->features[f].size;
    float *all = soma__arena_alloc(&s->arena, (size_t)s->data->episodes[episode].n_frames * size * sizeof *all);
    if (!all) return soma__no_memory(err, "the state");
    SOMA_TRY(s->data->format->read_vectors(s->reader, episode, f, all, err));
    s->obs.state = all + (size_t)frame * size;
    s->obs.n_state = (int)size;
    return SOMA_OK;
}

static soma_status read_pictures(source *s, const soma_policy_info *info, int64_t episode, int64_t frame, soma_error *err) {
    const soma_dataset *d = s->data;
    for (int c = 0; c < info->n_cameras; c++) {
        for (int f = 0; f < d->n_features; f++) {
            const char *dot = strrchr(d->features[f].name, '.');
            if (d->features[f].kind != SOMA_FEATURE_IMAGE || strcmp(dot ? dot + 1 : d->features[f].name, info->camera_names[c])) continue;
            uint8_t *rgb = soma__arena_alloc(&s->arena, (size_t)d->features[f].size);
            if (!rgb) return soma__no_memory(err, "a picture");
            SOMA_TRY(d->format->read_image(s->reader, episode, frame, f, rgb, err));
            s->obs.images[s->obs.n_images++] =
                (soma_image){info->camera_names[c], rgb, (int)d->features[f].shape[1], (int)d->features[f].shape[0]};
            break;
        }
    }
    return SOMA_OK;
}

static soma_status from_dataset(source *s, const act_opts *o, const soma_policy_info *info, soma_error *err) {
    SOMA_TRY(soma__dataset_open(&s->data, o->obs, err));
    int64_t i = 0;
    while (i < s->data->n_episodes && s->data->episodes[i].index != o->episode) i++;
    if (i == s->data->n_episodes || !s->data->episodes[i].present)
        return soma__fail(err, SOMA_NOT_FOUND, "%s: episode %" PRId64 " is not there", o->obs, o->episode);
    const soma_episode *e = &s->data->episodes[i];
    if (o->frame < 0 || o->frame >= e->n_frames)
        return soma__fail(err, SOMA_NOT_FOUND, "%s: episode %" PRId64 " has frames 0 to %" PRId64 ", not %" PRId64, o->obs, o->episode,
                          e->n_frames - 1, o->frame);
    SOMA_TRY(s->data->format->reader_open(&s->reader, s->data, err));
    s->obs.prompt = e->task;
    SOMA_TRY(read_state(s, i, o->frame, err));
    return e->video_present ? read_pictures(s, info, i, o->frame, err) : SOMA_OK;
}

static soma_status source_open(source *s, const act_opts *o, const soma_policy_info *info, soma_error *err) {
    soma_status status;
    if (soma__dir_exists(o->obs))
        status = from_dataset(s, o, info, err);
    else if (ends_with(o->obs, ".safetensors"))
        status = from_tensors(s, o->obs, err);
    else if (ends_with(o->obs, ".msgpack"))
        status = from_message(s, o->obs, info, err);
    else
        status = soma__fail(err, SOMA_BAD_INPUT, "%s: wanted a .safetensors file, a .msgpack file or a dataset's folder", o->obs);
    if (o->prompt[0]) s->obs.prompt = o->prompt;
    return status;
}

// ---- the answer

static json_t *chunk_json(const soma_actions *a, const soma_policy_info *info, const char *prompt) {
    json_t *rows = json_array();
    for (int h = 0; h < a->horizon; h++) {
        json_t *row = json_array();
        for (int k = 0; k < a->n_actions; k++) json_array_append_new(row, json_real((double)a->values[(size_t)h * a->n_actions + k]));
        json_array_append_new(rows, row);
    }
    return json_pack("{s:s, s:s, s:i, s:i, s:f, s:f, s:s?, s:o}", "family", info->family, "prompt", prompt, "horizon", a->horizon,
                     "n_actions", a->n_actions, "rate", info->rate, "model_ms", a->model_ms, "flaw", a->flaw, "actions", rows);
}

static void print_chunk(const soma_actions *a, const soma_policy_info *info, const char *prompt) {
    printf("\"%s\": %d actions of %d values", prompt, a->horizon, a->n_actions);
    if (info->rate > 0) printf(", %g a second", info->rate);
    printf("; %.1f ms\n", a->model_ms);
    if (a->flaw) printf("the policy's answer is malformed: %s; this is what could be read of it\n", a->flaw);
    for (int h = 0; h < a->horizon; h++) {
        printf("%4d", h);
        for (int k = 0; k < a->n_actions; k++) printf(" %9.4f", (double)a->values[(size_t)h * a->n_actions + k]);
        printf("\n");
    }
}

static int act(const soma_cmd *cmd, const act_opts *o, const soma_policy_opts *po, const soma_pilot_opts *pilot_opts) {
    soma_error err = {0};
    soma_policy *policy = NULL;
    soma_pilot *pilot = NULL;
    source s = {0};
    soma_policy_info info = {0};
    soma_actions chunk;
    int code = SOMA_EXIT_OK;
    soma_status status = soma_policy_open(&policy, o->policy, po, &err);
    if (status == SOMA_OK) info = soma_policy_describe(policy);
    if (status == SOMA_OK) status = source_open(&s, o, &info, &err);
    if (status == SOMA_OK) status = soma_pilot_new(&pilot, policy, pilot_opts, &err);
    if (status == SOMA_OK) status = soma_pilot_act(pilot, &s.obs, &chunk, &err);
    const char *prompt = s.obs.prompt ? s.obs.prompt : "";
    if (status != SOMA_OK)
        code = soma__cmd_fail(cmd, &err);
    else if (cmd->json)
        code = soma__cmd_print_json(cmd, chunk_json(&chunk, &info, prompt));
    else
        print_chunk(&chunk, &info, prompt);
    source_close(&s);
    soma_pilot_free(pilot);
    soma_policy_close(policy);
    return code;
}

static int run(int argc, char **argv) {
    act_opts o = act_defaults();
    soma_policy_opts po = soma_policy_defaults();
    soma_pilot_opts pilot = soma_pilot_defaults();
    soma_cmd cmd = {
        .usage = "--policy DIR --obs FILE|DATASET [options]",
        .about = "Gives one observation to a policy and prints the chunk of actions, in robot units.\n\n"
                 "The observation is a .safetensors file (state [n], image.<camera> U8 [height, width, 3], prompt in the metadata), a\n"
                 ".msgpack message as clients of openpi's protocol send it, or a frame of a dataset.\n\n"
                 "Examples:\n"
                 "  soma act --policy demo/policy --obs demo/data --episode 3 --frame 10\n"
                 "  soma act --policy demo/policy --obs observation.safetensors --prompt \"touch the red cube\" --json\n",
        .has_json = true,
        .groups = {{&act_opts_table, &o, "options"}, {&soma_policy_opts_table, &po, "policy"}, {&soma_pilot_opts_table, &pilot, "pilot"}}};
    int code;
    if (!soma__cmd_parse(&cmd, argc, argv, &code)) return code;
    if (!o.policy[0] || !o.obs[0]) return soma__cmd_usage(&cmd, "--policy DIR and --obs FILE are needed");
    return act(&cmd, &o, &po, &pilot);
}

const soma_verb soma__verb_act = {"act", "one observation in, one chunk of actions out", run};
