// SPDX-License-Identifier: Apache-2.0
// A picture that is already [h, w, 3] u1 is used where it lies in the message; other layouts are copied once.
#include "serve/observe.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MAX_SIDE = 16384, MAX_PROMPT = 8192, MAX_STEPS = 1000000, MAX_KEYS = 256 /* so that searching them stays cheap */, KEY_SIZE = 256 };

// ---- pictures

static bool is_picture(const soma_msg *m) {
    return m->kind == SOMA_MSG_NDARRAY && m->array->n_dims == 3 && (m->array->type == 'u' || m->array->type == 'f');
}

static const soma_msg *find_camera(const soma_msg *message, const char *camera, char key[KEY_SIZE]) {
    static const char *const forms[] = {"observation/images/%s", "observation.images.%s", "observation/%s", "%s"};
    const soma_msg *m = soma__msg_get(soma__msg_get(message, "images"), camera);
    snprintf(key, KEY_SIZE, "images/%s", camera);
    for (size_t i = 0; !m && i < SOMA_COUNT(forms); i++) {
        snprintf(key, KEY_SIZE, forms[i], camera); // the forms are those above
        m = soma__msg_get(message, key);
    }
    return m;
}

static soma_status read_pixels(uint8_t *out, const soma_msg *m, bool planes, const char *key, soma_error *err) {
    const soma_msg_ndarray *a = m->array;
    int64_t n = a->n_values / 3;
    for (int64_t i = 0; i < n; i++)
        for (int64_t c = 0; c < 3; c++) {
            int64_t at = planes ? c * n + i : i * 3 + c;
            if (a->type == 'u') {
                out[i * 3 + c] = a->data[at];
                continue;
            }
            double x = soma__msg_number(m, at);
            if (!(x >= 0 && x <= 1)) return soma__fail(err, SOMA_BAD_INPUT, "\"%s\": pixels given as floats lie in 0..1, found %g", key, x);
            out[i * 3 + c] = (uint8_t)(a->item_size < 8 ? 255.0f * (float)x : 255 * x); // numpy's product has the array's precision
        }
    return SOMA_OK;
}

static soma_status read_image(soma_image *image, const soma_msg *m, const char *key, soma_arena *arena, soma_error *err) {
    char found[200];
    soma__msg_describe(found, m);
    const soma_msg_ndarray *a = is_picture(m) ? m->array : NULL;
    bool planes = a && a->shape[2] != 3;
    if (!a || (a->type == 'u' && a->item_size != 1) || (planes && a->shape[0] != 3))
        return soma__fail(err, SOMA_BAD_INPUT, "\"%s\": wanted an ndarray [h, w, 3] or [3, h, w] of |u1 or floats, found %s", key, found);
    image->height = (int)a->shape[planes ? 1 : 0];
    image->width = (int)a->shape[planes ? 2 : 1];
    if (image->height < 1 || image->width < 1 || image->height > MAX_SIDE || image->width > MAX_SIDE)
        return soma__fail(err, SOMA_BAD_INPUT, "\"%s\": wanted 1 to %d pixels on a side, found %s", key, MAX_SIDE, found);
    image->pixels = a->data;
    if (!planes && a->type == 'u') return SOMA_OK;
    uint8_t *pixels = soma__arena_alloc(arena, (size_t)a->n_values);
    if (!pixels) return soma__no_memory(err, key);
    image->pixels = pixels;
    return read_pixels(pixels, m, planes, key, err);
}

static bool known_camera(const soma_policy_info *info, const soma_msg *message, const soma_msg *picture) {
    char key[KEY_SIZE];
    for (int i = 0; i < info->n_cameras; i++)
        if (find_camera(message, info->camera_names[i], key) == picture) return true;
    for (int i = 0; i < info->n_ignored; i++)
        if (find_camera(message, info->ignored[i], key) == picture) return true;
    return false;
}

// A picture under a key that no camera has; its key in `key`.
static bool find_stray(const soma_policy_info *info, const soma_msg *message, const soma_msg *map, char key[KEY_SIZE]) {
    for (uint32_t i = 0; map && map->kind == SOMA_MSG_MAP && i < map->n; i++) {
        const soma_msg_pair *p = &map->pairs[i];
        if (!is_picture(&p->value) || known_camera(info, message, &p->value)) continue;
        snprintf(key, KEY_SIZE, "%s%.*s", map == message ? "" : "images/", (int)SOMA_MIN(p->key.n, 200u), p->key.bytes);
        return true;
    }
    return false;
}

static soma_status read_images(soma_obs *obs, const soma_policy_info *info, const soma_msg *message, soma_arena *arena, soma_error *err) {
    char key[KEY_SIZE];
    const char *missing = NULL;
    SOMA_CHECK(info->n_cameras <= SOMA_MAX_CAMERAS, "a policy has at most SOMA_MAX_CAMERAS cameras");
    for (int i = 0; i < info->n_cameras; i++) {
        const soma_msg *m = find_camera(message, info->camera_names[i], key);
        if (!m) {
            missing = info->camera_names[i];
            continue;
        }
        soma_image *image = &obs->images[obs->n_images++];
        image->camera = info->camera_names[i];
        SOMA_TRY(read_image(image, m, key, arena, err));
    }
    if (!missing) return SOMA_OK;
    if (find_stray(info, message, message, key) || find_stray(info, message, soma__msg_get(message, "images"), key))
        return soma__fail(err, SOMA_BAD_INPUT, "there is no picture for camera \"%s\" but one under \"%s\"; wanted \"observation/%s\"",
                          missing, key, missing);
    if (obs->n_images) return SOMA_OK;
    return soma__fail(err, SOMA_BAD_INPUT, "the observation has no picture; wanted \"observation/%s\"", missing);
}

// ---- state and prompt

static const soma_msg *find_part(const soma_msg *message, const char *part, char key[KEY_SIZE]) {
    static const char *const forms[] = {"%s", "observation/%s", "observation.%s"};
    const soma_msg *m = NULL;
    for (size_t i = 0; !m && i < SOMA_COUNT(forms); i++) {
        snprintf(key, KEY_SIZE, forms[i], part);
        m = soma__msg_get(message, key);
    }
    return m;
}

// The robot's parts of the state, or the whole under "state" where the message has none of them.
static int state_parts(const char *const **parts, const soma_policy_info *info, const soma_msg *message) {
    static const char *const whole[] = {"state"};
    char key[KEY_SIZE];
    *parts = info->state_keys;
    for (int i = 0; i < info->n_state_keys; i++)
        if (find_part(message, info->state_keys[i], key)) return info->n_state_keys;
    *parts = whole;
    return 1;
}

static soma_status read_state(soma_obs *obs, const soma_policy_info *info, const soma_msg *message, soma_arena *arena, soma_error *err) {
    const char *const *parts;
    char key[KEY_SIZE], found[200];
    int n = state_parts(&parts, info, message);
    if (info->n_state == 0 && !find_part(message, parts[0], key)) return SOMA_OK;
    float *state = soma__arena_alloc(arena, ((size_t)info->n_state + 1) * sizeof *state);
    if (!state) return soma__no_memory(err, "the state");
    int64_t filled = 0;
    for (int k = 0; k < n; k++) {
        const soma_msg *m = find_part(message, parts[k], key);
        if (!m)
            return soma__fail(err, SOMA_BAD_INPUT, "the observation has no state; wanted \"observation/%s\" with %s%d numbers", parts[k],
                              n > 1 ? "its part of " : "", info->n_state);
        int64_t size = soma__msg_n_numbers(m);
        if (size < 0 || filled + size > info->n_state || (k == n - 1 && filled + size != info->n_state))
            return soma__fail(err, SOMA_BAD_INPUT, "\"%s\": wanted %d numbers%s, found %s", key, info->n_state - (int)filled,
                              k < n - 1 ? " at most" : "", soma__msg_describe(found, m));
        for (int64_t i = 0; i < size; i++) {
            float x = state[filled++] = (float)soma__msg_number(m, i);
            if (!isfinite(x)) return soma__fail(err, SOMA_BAD_INPUT, "\"%s\" [%lld] is not a finite number", key, (long long)i);
        }
    }
    obs->state = state;
    obs->n_state = info->n_state;
    return SOMA_OK;
}

static soma_status read_prompt(soma_obs *obs, const soma_msg *message, soma_arena *arena, soma_error *err) {
    const soma_msg *m = soma__msg_get(message, "prompt");
    if (!m || m->kind == SOMA_MSG_NIL) return SOMA_OK;
    char found[200];
    if ((m->kind != SOMA_MSG_STR && m->kind != SOMA_MSG_BIN) || m->n > MAX_PROMPT)
        return soma__fail(err, SOMA_BAD_INPUT, "\"prompt\": wanted a str of at most %d bytes, found %s", MAX_PROMPT,
                          soma__msg_describe(found, m));
    json_t *valid = json_stringn(m->bytes, m->n); // refuses what is not UTF-8
    json_decref(valid);
    if (!valid || memchr(m->bytes, 0, m->n)) return soma__fail(err, SOMA_BAD_INPUT, "\"prompt\" is not UTF-8 text");
    char *prompt = soma__arena_alloc(arena, (size_t)m->n + 1);
    if (!prompt) return soma__no_memory(err, "the prompt");
    memcpy(prompt, m->bytes, m->n);
    obs->prompt = prompt;
    return SOMA_OK;
}

// Of clients that go on with one chunk while the next is made (soma_obs): numbers of control steps, absent for those that do not.
static soma_status read_steps(int *steps, const soma_msg *message, const char *key, soma_error *err) {
    const soma_msg *m = soma__msg_get(message, key);
    if (!m || m->kind == SOMA_MSG_NIL) return SOMA_OK;
    char found[200];
    const double n = soma__msg_n_numbers(m) == 1 ? soma__msg_number(m, 0) : -1;
    if (!(n >= 0 && n <= MAX_STEPS) || n != floor(n))
        return soma__fail(err, SOMA_BAD_INPUT, "\"%s\": wanted a whole number of control steps from 0 to %d, found %s", key, MAX_STEPS,
                          soma__msg_describe(found, m));
    *steps = (int)n;
    return SOMA_OK;
}

soma_status soma__observe(soma_obs *obs, const soma_policy_info *info, const soma_msg *message, soma_arena *arena, soma_error *err) {
    *obs = (soma_obs){0};
    if (message->kind != SOMA_MSG_MAP) {
        char found[200];
        return soma__fail(err, SOMA_BAD_INPUT, "an observation is a map, found %s", soma__msg_describe(found, message));
    }
    const soma_msg *images = soma__msg_get(message, "images");
    if (message->n > MAX_KEYS || (images && images->kind == SOMA_MSG_MAP && images->n > MAX_KEYS))
        return soma__fail(err, SOMA_BAD_INPUT, "an observation has at most %d keys", MAX_KEYS);
    SOMA_TRY(read_images(obs, info, message, arena, err));
    SOMA_TRY(read_state(obs, info, message, arena, err));
    SOMA_TRY(read_steps(&obs->executed, message, "executed", err));
    SOMA_TRY(read_steps(&obs->delay, message, "delay", err));
    return read_prompt(obs, message, arena, err);
}
