// SPDX-License-Identifier: Apache-2.0
// Order on the way in: state normalised and padded, pictures resized, prompt tokenised. On the way out: un-normalised, then the state is
// added where actions are relative. Statistics of actions are those of the differences where `delta` is set.
#include "policy/robot.h"

#include "base/file.h"
#include "text/prompt.h"
#include "transform/delta.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static soma_status read_cameras(soma_robot *r, const json_t *robot, const char *where, soma_error *err) {
    const json_t *list;
    SOMA_TRY(soma__json_get(&list, robot, "cameras", where, err));
    size_t n = json_array_size(list);
    if (!json_is_array(list) || n > SOMA_MAX_CAMERAS)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: \"cameras\" is a list of at most %d names", where, SOMA_MAX_CAMERAS);
    for (size_t i = 0; i < n; i++) {
        const char *name = json_string_value(json_array_get(list, i));
        if (!name || strlen(name) >= sizeof r->cameras[i])
            return soma__fail(err, SOMA_BAD_INPUT, "%s: \"cameras\"[%zu] is not a name of at most %zu bytes", where, i,
                              sizeof r->cameras[i] - 1);
        strcpy(r->cameras[i], name);
    }
    r->n_cameras = (int)n;
    return SOMA_OK;
}

static soma_status read_robot(soma_robot *r, const json_t *robot, const char *where, soma_error *err) {
    int64_t n_state, n_actions;
    const char *rule;
    SOMA_TRY(soma__json_int(&n_state, robot, "n_state", 0, SOMA_ROBOT_MAX_DIMS, where, err));
    SOMA_TRY(soma__json_int(&n_actions, robot, "n_actions", 1, SOMA_ROBOT_MAX_DIMS, where, err));
    SOMA_TRY(soma__json_real(&r->rate, robot, "rate", where, err));
    SOMA_TRY(soma__json_string(&rule, robot, "normalise", where, err));
    SOMA_TRY(soma__norm_rule_parse(&r->rule, rule, err));
    r->n_state = (int)n_state;
    r->n_actions = (int)n_actions;
    const json_t *delta;
    SOMA_TRY(soma__json_get(&delta, robot, "delta", where, err));
    if (json_array_size(delta) != (size_t)n_actions)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: \"delta\" is a list of %d true or false", where, r->n_actions);
    for (int i = 0; i < r->n_actions; i++) r->delta[i] = json_is_true(json_array_get(delta, (size_t)i));
    if (json_object_get(robot, "cameras_optional")) SOMA_TRY(soma__json_bool(&r->cameras_optional, robot, "cameras_optional", where, err));
    return read_cameras(r, robot, where, err);
}

soma_status soma__robot_open(soma_robot *r, const json_t *config, const char *dir, const char *text_path, const soma_model *model,
                             soma_error *err) {
    *r = (soma_robot){0};
    char where[SOMA_PATH_MAX], path[SOMA_PATH_MAX];
    SOMA_TRY(soma__path_join(where, dir, "config.json", err));
    SOMA_TRY(soma__path_join(path, dir, "norm_stats.json", err));
    const json_t *robot = json_object_get(config, "robot");
    if (!robot)
        return soma__fail(err, SOMA_NOT_FOUND,
                          "%s: no \"robot\" object (sizes, cameras, normalisation): this is not a policy that soma trained", where);
    soma_status status = read_robot(r, robot, where, err);
    if (status == SOMA_OK) status = soma__norm_stats_read(&r->stats, path, err);
    if (status == SOMA_OK) status = soma__text_open(&r->text, *text_path ? text_path : dir, err);
    if (status == SOMA_OK) status = soma__robot_check(r, model, where, err);
    if (status != SOMA_OK) soma__robot_close(r);
    return status;
}

void soma__robot_close(soma_robot *r) {
    soma__norm_stats_free(r->stats);
    soma__text_close(r->text);
    *r = (soma_robot){0};
}

json_t *soma__robot_json(const soma_robot *r) {
    json_t *delta = json_array(), *cameras = json_array();
    for (int i = 0; i < r->n_actions; i++) json_array_append_new(delta, json_boolean(r->delta[i]));
    for (int i = 0; i < r->n_cameras; i++) json_array_append_new(cameras, json_string(r->cameras[i]));
    return json_pack("{s:i, s:i, s:f, s:s, s:o, s:o, s:b}", "n_state", r->n_state, "n_actions", r->n_actions, "rate", r->rate, "normalise",
                     soma__norm_rule_name(r->rule), "delta", delta, "cameras", cameras, "cameras_optional", r->cameras_optional);
}

soma_status soma__robot_check(soma_robot *r, const soma_model *model, const char *where, soma_error *err) {
    const soma_model_info *info = &model->info;
    if (r->n_actions > info->action_dim || (info->state_input && r->n_state > info->state_dim))
        return soma__fail(err, SOMA_BAD_INPUT, "%s: the robot has %d state and %d action values, the model takes at most %lld and %lld",
                          where, r->n_state, r->n_actions, (long long)info->state_dim, (long long)info->action_dim);
    if (r->n_cameras > info->n_cameras)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: the robot has %d cameras, the model sees %d", where, r->n_cameras, info->n_cameras);
    for (int i = 0; i < r->n_actions; i++)
        if (r->delta[i] && i >= r->n_state)
            return soma__fail(err, SOMA_BAD_INPUT, "%s: action %d is relative to a state value that the robot does not have", where, i);
    if (soma__text_size(r->text) > info->vocab)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: the vocabulary has %d entries, the model's table %lld", where, soma__text_size(r->text),
                          (long long)info->vocab);
    SOMA_TRY(soma__norm_find(&r->state, r->stats, "state", r->rule, r->n_state, err));
    return soma__norm_find(&r->actions, r->stats, "actions", r->rule, r->n_actions, err);
}

// ---- rows

soma_status soma__rows_new(soma_rows *rows, const soma_model *model, int64_t n, soma_error *err) {
    const soma_model_info *info = &model->info;
    size_t N = (size_t)n, C = (size_t)info->n_cameras, L = (size_t)info->max_tokens;
    *rows = (soma_rows){.model = model, .n = n};
    rows->images = soma__calloc(N * C, (size_t)(info->image_size * info->image_size) * 3);
    rows->image_mask = soma__calloc(N, C);
    rows->tokens = soma__calloc(N * L, sizeof *rows->tokens);
    rows->token_mask = soma__calloc(N, L);
    rows->state = soma__calloc(N * (size_t)info->state_dim, sizeof *rows->state);
    rows->prompts = soma__calloc(N, sizeof *rows->prompts);
    if (!rows->images || !rows->image_mask || !rows->tokens || !rows->token_mask || !rows->state || !rows->prompts) {
        soma__rows_free(rows);
        return soma__no_memory(err, "a batch of observations");
    }
    rows->batch = (soma_batch){.n = n,
                               .image_dtype = SOMA_U8,
                               .images = rows->images,
                               .image_mask = rows->image_mask,
                               .tokens = rows->tokens,
                               .token_mask = rows->token_mask,
                               .state = info->state_input ? rows->state : NULL,
                               .draws = 1};
    return SOMA_OK;
}

void soma__rows_free(soma_rows *rows) {
    soma__free(rows->images);
    soma__free(rows->image_mask);
    soma__free(rows->tokens);
    soma__free(rows->token_mask);
    soma__free(rows->state);
    for (int64_t i = 0; rows->prompts && i < rows->n; i++) soma__free(rows->prompts[i]);
    soma__free(rows->prompts);
    soma__resizer_free(rows->resizer);
    *rows = (soma_rows){0};
}

// ---- observation in

static soma_status put_picture(soma_rows *rows, uint8_t *out, const soma_image *image, soma_error *err) {
    int side = (int)rows->model->info.image_size;
    if (!image->pixels || image->width < 1 || image->height < 1)
        return soma__fail(err, SOMA_BAD_INPUT, "camera \"%s\": a picture of %d x %d pixels", image->camera, image->width, image->height);
    if (image->width == side && image->height == side) {
        memcpy(out, image->pixels, (size_t)side * (size_t)side * 3);
        return SOMA_OK;
    }
    if (!rows->resizer || rows->in_width != image->width || rows->in_height != image->height) {
        soma__resizer_free(rows->resizer);
        rows->resizer = NULL;
        SOMA_TRY(soma__resizer_new(&rows->resizer, SOMA_RESIZE_PIL, image->width, image->height, side, side, err));
        rows->in_width = image->width;
        rows->in_height = image->height;
    }
    soma__resizer_u8(rows->resizer, image->pixels, out);
    return SOMA_OK;
}

static soma_status put_pictures(const soma_robot *r, soma_rows *rows, int64_t row, const soma_obs *obs, soma_error *err) {
    int64_t C = rows->model->info.n_cameras, size = rows->model->info.image_size * rows->model->info.image_size * 3;
    memset(rows->image_mask + row * C, 0, (size_t)C);
    for (int i = 0; i < obs->n_images; i++) {
        int cam = 0;
        while (cam < r->n_cameras && strcmp(r->cameras[cam], obs->images[i].camera)) cam++;
        if (cam == r->n_cameras)
            return soma__fail(err, SOMA_BAD_INPUT, "camera \"%.60s\": this policy knows \"%s\"%s%s%s", obs->images[i].camera, r->cameras[0],
                              r->n_cameras > 1 ? ", \"" : "", r->n_cameras > 1 ? r->cameras[1] : "", r->n_cameras > 1 ? "\"" : "");
        SOMA_TRY(put_picture(rows, rows->images + (row * C + cam) * size, &obs->images[i], err));
        rows->image_mask[row * C + cam] = 1;
    }
    if (r->n_cameras && !obs->n_images && !r->cameras_optional)
        return soma__fail(err, SOMA_BAD_INPUT, "the observation has no picture; this policy looks at %d cameras", r->n_cameras);
    for (int64_t cam = 0; cam < C; cam++)
        if (!rows->image_mask[row * C + cam]) memset(rows->images + (row * C + cam) * size, 0, (size_t)size);
    return SOMA_OK;
}

// A row that is asked the same again keeps its tokens: a control loop then allocates nothing. Where the state is part of the text, it is
// new each time.
static soma_status put_prompt(const soma_robot *r, soma_rows *rows, int64_t row, const char *prompt, const double *state, soma_error *err) {
    const soma_model_info *info = &rows->model->info;
    if (info->state_input && rows->prompts[row] && !strcmp(rows->prompts[row], prompt)) return SOMA_OK;
    soma__free(rows->prompts[row]);
    rows->prompts[row] = NULL;
    size_t needed, len = (size_t)info->max_tokens;
    SOMA_TRY(soma__prompt_encode(r->text, info->state_input ? SOMA_PROMPT_PI0 : SOMA_PROMPT_PI05, prompt, state, r->n_state,
                                 rows->tokens + row * info->max_tokens, rows->token_mask + row * info->max_tokens, len, &needed, err));
    if (needed > len) soma__log(SOMA_LOG_WARN, "the prompt has %zu tokens, the model takes %zu: its end was cut off", needed, len);
    rows->prompts[row] = soma__strdup(prompt);
    return rows->prompts[row] ? SOMA_OK : soma__no_memory(err, "a prompt");
}

soma_status soma__robot_observe(const soma_robot *r, soma_rows *rows, int64_t row, const soma_obs *obs, soma_error *err) {
    const soma_model_info *info = &rows->model->info;
    if (obs->n_state != r->n_state)
        return soma__fail(err, SOMA_BAD_INPUT, "state: %d values given, this policy takes %d", obs->n_state, r->n_state);
    double state[SOMA_ROBOT_MAX_DIMS];
    for (int i = 0; i < r->n_state; i++) {
        if (!isfinite(obs->state[i])) return soma__fail(err, SOMA_BAD_INPUT, "state[%d] is not a finite number", i);
        state[i] = obs->state[i];
    }
    soma__norm_apply(r->state, r->rule, state, 1, r->n_state);
    float *out = rows->state + row * info->state_dim;
    for (int64_t i = 0; i < info->state_dim; i++) out[i] = i < r->n_state ? (float)state[i] : 0;
    SOMA_TRY(put_pictures(r, rows, row, obs, err));
    return put_prompt(r, rows, row, obs->prompt ? obs->prompt : "", state, err);
}

// ---- actions

void soma__robot_to_model(const soma_robot *r, const soma_model *model, const float *state, const float *values, float *out) {
    int64_t S = model->info.horizon, A = model->info.action_dim;
    for (int64_t s = 0; s < S; s++) {
        float *row = out + s * A;
        memset(row, 0, sizeof *row * (size_t)A);
        memcpy(row, values + s * r->n_actions, sizeof *row * (size_t)r->n_actions);
        soma__delta_apply_f32(row, 1, (int)A, state, r->delta, SOMA_MIN(r->n_state, r->n_actions));
        soma__norm_apply_f32(r->actions, r->rule, row, 1, r->n_actions);
    }
}

void soma__robot_from_model(const soma_robot *r, const soma_model *model, const float *state, const float *values, float *out) {
    int64_t S = model->info.horizon, A = model->info.action_dim;
    for (int64_t s = 0; s < S; s++) {
        float *row = out + s * r->n_actions;
        memcpy(row, values + s * A, sizeof *row * (size_t)r->n_actions);
        soma__norm_undo_f32(r->actions, r->rule, row, 1, r->n_actions);
        soma__delta_undo_f32(row, 1, r->n_actions, state, r->delta, SOMA_MIN(r->n_state, r->n_actions));
    }
}
