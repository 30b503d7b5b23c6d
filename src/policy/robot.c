// SPDX-License-Identifier: Apache-2.0
// Order on the way in: the state into the model's convention, normalised, padded; pictures resized; the prompt made and tokenised. On the
// way out: un-normalised, the state added where actions are relative, back into the robot's convention. Statistics of actions are those of
// the differences where `delta` is set. How a robot is told: robot_json.c.
#include "policy/robot.h"

#include "base/str.h"
#include "text/answer.h"
#include "transform/delta.h"

#include <math.h>
#include <string.h>

soma_dtype soma__robot_image_dtype(const soma_robot *r) { return r->resize == SOMA_RESIZE_PIL ? SOMA_U8 : SOMA_F32; }

soma_prompt_form soma__robot_prompt_form(const soma_robot *r, const soma_model *model) {
    return r->form != SOMA_PROMPT_MODEL ? r->form : model->info.form;
}

static soma_status find_norm(const soma_norm **norm, const soma_robot *r, const char *key, soma_norm_rule rule, int size, soma_error *err) {
    *norm = NULL;
    return rule == SOMA_NORM_IDENTITY || !size ? SOMA_OK : soma__norm_find(norm, r->stats, key, rule, size, err);
}

soma_status soma__robot_check(soma_robot *r, const soma_model *model, const char *where, soma_error *err) {
    const soma_model_info *info = &model->info;
    if (r->n_actions > info->action_dim || (info->state_input && r->n_state > info->state_dim))
        return soma__fail(err, SOMA_BAD_INPUT, "%s: the robot has %d state and %d action values, the model takes at most %lld and %lld",
                          where, r->n_state, r->n_actions, (long long)info->state_dim, (long long)info->action_dim);
    if (r->n_cameras && r->slots[r->n_cameras - 1] >= info->n_cameras)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: the robot has %d cameras, the model sees %d", where, r->slots[r->n_cameras - 1] + 1,
                          info->n_cameras);
    for (int i = 0; i < r->n_actions; i++)
        if (r->delta[i] && i >= r->n_state)
            return soma__fail(err, SOMA_BAD_INPUT, "%s: action %d is relative to a state value that the robot does not have", where, i);
    if (model->family && model->family->fits && soma__robot_image_dtype(r) != SOMA_U8)
        return soma__fail(err, SOMA_UNSUPPORTED, "%s: %s takes pictures at their cameras' size: \"resize\" is \"pil\"", where, info->type);
    if (info->max_tokens) SOMA_TRY(soma__text_limit(r->text, info->vocab, where, err));
    SOMA_TRY(find_norm(&r->state, r, "state", r->state_rule, r->n_state, err));
    return find_norm(&r->actions, r, "actions", r->action_rule, r->n_actions, err);
}

// ---- rows

soma_status soma__rows_new(soma_rows *rows, const soma_robot *r, const soma_model *model, int64_t n, soma_error *err) {
    const soma_model_info *info = &model->info;
    soma_dtype dtype = soma__robot_image_dtype(r);
    const size_t N = (size_t)(n * (1 + info->history)), C = (size_t)info->n_cameras, L = (size_t)soma__prompt_room(info),
                 picture = (size_t)soma__image_pixels(info) * 3;
    *rows = (soma_rows){.model = model, .n = n * (1 + info->history)};
    rows->images = soma__calloc(N * C, picture * soma_dtype_size(dtype));
    rows->picture = soma__calloc(dtype == SOMA_F32 ? picture : 1, sizeof *rows->picture);
    rows->image_mask = soma__calloc(N * C, 1);
    rows->tokens = soma__calloc(N * L + 1, sizeof *rows->tokens);
    rows->token_mask = soma__calloc(N * L + 1, 1);
    rows->state = soma__calloc(N * (size_t)info->state_dim, sizeof *rows->state);
    rows->prompts = soma__calloc(N, sizeof *rows->prompts);
    if (!rows->images || !rows->picture || !rows->image_mask || !rows->tokens || !rows->token_mask || !rows->state || !rows->prompts) {
        soma__rows_free(rows);
        return soma__no_memory(err, "a batch of observations");
    }
    rows->batch = (soma_batch){.n = n,
                               .image_dtype = dtype,
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
    soma__free(rows->picture);
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

static soma_status set_resizer(const soma_robot *r, soma_rows *rows, int width, int height, soma_error *err) {
    const int out_width = (int)soma__image_width(&rows->model->info), out_height = (int)rows->model->info.image_size;
    if (rows->resizer && rows->in_width == width && rows->in_height == height) return SOMA_OK;
    soma__resizer_free(rows->resizer);
    rows->resizer = NULL;
    SOMA_TRY(soma__resizer_new(&rows->resizer, r->resize, width, height, out_width, out_height, err));
    rows->in_width = width;
    rows->in_height = height;
    return SOMA_OK;
}

static soma_status put_picture(const soma_robot *r, soma_rows *rows, int64_t slot, const soma_image *image, soma_error *err) {
    const soma_model_info *info = &rows->model->info;
    const int64_t n = soma__image_pixels(info);
    if (!image->pixels || image->width < 1 || image->height < 1)
        return soma__fail(err, SOMA_BAD_INPUT, "camera \"%s\": a picture of %d x %d pixels", image->camera, image->width, image->height);
    if (rows->batch.image_dtype == SOMA_U8) {
        uint8_t *out = (uint8_t *)rows->images + slot * n * 3;
        if (image->width == soma__image_width(info) && image->height == info->image_size) {
            memcpy(out, image->pixels, (size_t)n * 3);
            return SOMA_OK;
        }
        SOMA_TRY(set_resizer(r, rows, image->width, image->height, err));
        soma__resizer_u8(rows->resizer, image->pixels, out);
        return SOMA_OK;
    }
    float *out = (float *)rows->images + slot * n * 3;
    SOMA_TRY(set_resizer(r, rows, image->width, image->height, err));
    soma__resizer_f32(rows->resizer, image->pixels, rows->picture);
    for (int c = 0; c < 3; c++)
        for (int64_t i = 0; i < n; i++) out[c * n + i] = rows->picture[i * 3 + c];
    return SOMA_OK;
}

soma_status soma__robot_look(uint8_t **rgb, const soma_robot *r, const soma_model *model, const soma_image *image, soma_error *err) {
    const int side = (int)model->info.image_size;
    const size_t n = (size_t)side * (size_t)side * 3;
    const bool bytes = soma__robot_image_dtype(r) == SOMA_U8;
    soma_resizer *resizer = NULL;
    float *values = soma__alloc((bytes ? 1 : n) * sizeof *values);
    *rgb = soma__alloc(n);
    soma_status status = *rgb && values ? SOMA_OK : soma__no_memory(err, "a picture");
    if (status == SOMA_OK) status = soma__resizer_new(&resizer, r->resize, image->width, image->height, side, side, err);
    if (status == SOMA_OK && bytes) soma__resizer_u8(resizer, image->pixels, *rgb);
    if (status == SOMA_OK && !bytes) {
        soma__resizer_f32(resizer, image->pixels, values);
        for (size_t i = 0; i < n; i++) (*rgb)[i] = (uint8_t)(SOMA_MAX(0, SOMA_MIN(values[i] * 127.5f + 127.5f, 255)) + 0.5f);
    }
    soma__resizer_free(resizer);
    soma__free(values);
    if (status == SOMA_OK) return SOMA_OK;
    soma__free(*rgb);
    *rgb = NULL;
    return status;
}

static void put_black(soma_rows *rows, int64_t slot) {
    const size_t n = (size_t)soma__image_pixels(&rows->model->info) * 3;
    if (rows->batch.image_dtype == SOMA_U8)
        memset((uint8_t *)rows->images + (size_t)slot * n, 0, n);
    else
        for (size_t i = 0; i < n; i++) ((float *)rows->images)[(size_t)slot * n + i] = -1;
}

static soma_status unknown_camera(const soma_robot *r, const char *name, soma_error *err) {
    soma_str known = {0};
    for (int i = 0; i < r->n_cameras; i++) soma__str_printf(&known, "%s\"%s\"", i ? ", " : "", r->cameras[i]);
    soma_status status =
        soma__fail(err, SOMA_BAD_INPUT, "camera \"%.60s\": this policy knows %s", name, known.len ? known.text : "no camera");
    soma__str_free(&known);
    return status;
}

static soma_status put_pictures(const soma_robot *r, soma_rows *rows, int64_t row, const soma_obs *obs, soma_error *err) {
    int64_t C = rows->model->info.n_cameras;
    uint8_t *mask = rows->image_mask + row * C;
    memset(mask, 0, (size_t)C);
    for (int i = 0; i < obs->n_images; i++) {
        int cam = 0;
        while (cam < r->n_cameras && strcmp(r->cameras[cam], obs->images[i].camera)) cam++;
        if (cam == r->n_cameras) return unknown_camera(r, obs->images[i].camera, err);
        SOMA_TRY(put_picture(r, rows, row * C + r->slots[cam], &obs->images[i], err));
        mask[r->slots[cam]] = 1;
    }
    if (r->n_cameras && !obs->n_images && !r->cameras_optional)
        return soma__fail(err, SOMA_BAD_INPUT, "the observation has no picture; this policy looks at %d cameras", r->n_cameras);
    for (int i = 0; i < r->n_cameras; i++)
        if (r->required[i] && !mask[r->slots[i]])
            return soma__fail(err, SOMA_BAD_INPUT, "the observation has no picture of \"%s\", without which this policy does not act",
                              r->cameras[i]);
    for (int64_t slot = 0; slot < C; slot++)
        if (!mask[slot]) {
            put_black(rows, row * C + slot);
            mask[slot] = r->absent_black;
        }
    return SOMA_OK;
}

// A row that is asked the same again keeps its tokens: a control loop then allocates nothing. Where the state is part of the text, it is
// new each time.
static soma_status put_prompt(const soma_robot *r, soma_rows *rows, int64_t row, const char *prompt, const double *state, soma_error *err) {
    const soma_model_info *info = &rows->model->info;
    if (!info->max_tokens) return SOMA_OK; // it reads no text
    soma_prompt_form form = soma__robot_prompt_form(r, rows->model);
    bool same = rows->prompts[row] && !strcmp(rows->prompts[row], prompt);
    if (same && !soma__prompt_has_state(form)) return SOMA_OK;
    size_t needed, len = (size_t)info->max_tokens;
    int32_t *ids = rows->tokens + row * soma__prompt_room(info);
    uint8_t *mask = rows->token_mask + row * soma__prompt_room(info);
    soma_status status = soma__prompt_encode(r->text, form, prompt, state, r->n_state, ids, mask, len, &needed, err);
    if (status == SOMA_OK && info->answer.lerobot) { // the answer's BOS; LeRobot puts it behind the padding, which is the same to the model
        const size_t end = SOMA_MIN(needed, len);
        ids[len] = SOMA_PROMPT_PAD;
        mask[len] = 0;
        ids[end] = soma__answer_bos(r->text);
        mask[end] = 1;
    }
    if (same && status == SOMA_OK) return SOMA_OK;
    soma__free(rows->prompts[row]); // a failure leaves a row without a prompt, so that its tokens are made anew
    rows->prompts[row] = NULL;
    SOMA_TRY(status);
    if (needed > len) soma__log(SOMA_LOG_WARN, "the prompt has %zu tokens, the model takes %zu: its end was cut off", needed, len);
    rows->prompts[row] = soma__strdup(prompt);
    return rows->prompts[row] ? SOMA_OK : soma__no_memory(err, "a prompt");
}

soma_status soma__robot_observe(const soma_robot *r, soma_rows *rows, int64_t row, const soma_obs *obs, soma_error *err) {
    const soma_model_info *info = &rows->model->info;
    if (obs->n_state != r->n_state)
        return soma__fail(err, SOMA_BAD_INPUT, "state: %d values given, this policy takes %d", obs->n_state, r->n_state);
    for (int i = 0; i < r->n_state; i++)
        if (!isfinite(obs->state[i])) return soma__fail(err, SOMA_BAD_INPUT, "state[%d] is not a finite number", i);
    double state[SOMA_ROBOT_MAX_DIMS];
    soma__robot_state(r, obs->state, state);
    if (r->state) soma__norm_apply(r->state, r->state_rule, state, 1, r->n_state);
    float *out = rows->state + row * info->state_dim;
    for (int64_t i = 0; i < info->state_dim; i++) out[i] = i < r->n_state ? (float)state[i] : 0;
    SOMA_TRY(put_pictures(r, rows, row, obs, err));
    return put_prompt(r, rows, row, obs->prompt ? obs->prompt : r->prompt, state, err);
}

// ---- state and actions

void soma__robot_state(const soma_robot *r, const float *state, double *out) {
    for (int i = 0; i < r->n_state; i++) out[i] = state[i];
    soma__form_state(r->state_forms, out, r->n_state);
}

void soma__robot_action(const soma_robot *r, const double *state, const float *action, double *out) {
    for (int i = 0; i < r->n_actions; i++) out[i] = action[i];
    soma__form_actions_in(r->action_forms, out, r->n_actions);
    soma__delta_apply(out, 1, r->n_actions, state, r->delta, SOMA_MIN(r->n_state, r->n_actions));
}

void soma__robot_convert(const soma_robot *r, float *states, float *actions, int64_t n) {
    double row[SOMA_ROBOT_MAX_DIMS];
    for (int64_t f = 0; f < n; f++) {
        soma__robot_state(r, states + f * r->n_state, row);
        for (int i = 0; i < r->n_state; i++) states[f * r->n_state + i] = (float)row[i];
        for (int i = 0; i < r->n_actions; i++) row[i] = actions[f * r->n_actions + i];
        soma__form_actions_in(r->action_forms, row, r->n_actions);
        for (int i = 0; i < r->n_actions; i++) actions[f * r->n_actions + i] = (float)row[i];
    }
}

void soma__robot_to_model(const soma_robot *r, const soma_model *model, const float *state, const float *values, float *out) {
    int64_t S = model->info.horizon, A = model->info.action_dim;
    double reference[SOMA_ROBOT_MAX_DIMS], action[SOMA_ROBOT_MAX_DIMS];
    soma__robot_state(r, state, reference);
    for (int64_t s = 0; s < S; s++) {
        soma__robot_action(r, reference, values + s * r->n_actions, action);
        if (r->actions) soma__norm_apply(r->actions, r->action_rule, action, 1, r->n_actions);
        for (int64_t i = 0; i < A; i++) out[s * A + i] = i < r->n_actions ? (float)action[i] : 0;
    }
}

void soma__robot_from_model(const soma_robot *r, const soma_model *model, const float *state, const float *values, float *out) {
    int64_t S = model->info.horizon, A = model->info.action_dim;
    double reference[SOMA_ROBOT_MAX_DIMS], action[SOMA_ROBOT_MAX_DIMS];
    soma__robot_state(r, state, reference);
    for (int64_t s = 0; s < S; s++) {
        for (int i = 0; i < r->n_actions; i++) action[i] = values[s * A + i];
        if (r->actions) soma__norm_undo(r->actions, r->action_rule, action, 1, r->n_actions);
        soma__delta_undo(action, 1, r->n_actions, reference, r->delta, SOMA_MIN(r->n_state, r->n_actions));
        soma__form_actions_out(r->action_forms, action, r->n_actions);
        for (int i = 0; i < r->n_actions; i++) out[s * r->n_actions + i] = (float)action[i];
    }
}

void soma__robot_anchor(const soma_robot *r, const soma_model *model, const float *from, const float *to, float *values, int64_t n) {
    const int64_t A = model->info.action_dim, dims = SOMA_MIN(r->n_state, r->n_actions);
    double was[SOMA_ROBOT_MAX_DIMS], is[SOMA_ROBOT_MAX_DIMS], action[SOMA_ROBOT_MAX_DIMS];
    soma__robot_state(r, from, was);
    soma__robot_state(r, to, is);
    for (int64_t s = 0; s < n; s++) {
        for (int i = 0; i < r->n_actions; i++) action[i] = values[s * A + i];
        if (r->actions) soma__norm_undo(r->actions, r->action_rule, action, 1, r->n_actions);
        soma__delta_undo(action, 1, r->n_actions, was, r->delta, dims);
        soma__delta_apply(action, 1, r->n_actions, is, r->delta, dims);
        if (r->actions) soma__norm_apply(r->actions, r->action_rule, action, 1, r->n_actions);
        for (int64_t i = 0; i < dims; i++)
            if (r->delta[i]) values[s * A + i] = (float)action[i];
    }
}
