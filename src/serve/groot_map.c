// SPDX-License-Identifier: Apache-2.0
// Pictures are used where they lie in the message; a part of the state is found by its name, wherever the client put it.
#include "serve/groot_map.h"

#include "format/npy.h"
#include "format/safetensors.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MAX_SIDE = 16384, MAX_PROMPT = 8192, MAX_KEYS = 256 };

static const char pickle_sentence[] = "this is a Python pickle (torch.save, as GR00T N1's clients send); reading one runs code of the "
                                      "sender's choice, so it is refused: send msgpack, as GR00T N1.5 and later do";

const char *soma__groot_pickle(const void *bytes, size_t size) {
    const unsigned char *p = bytes;
    // torch.save writes a zip archive; a bare pickle of protocol 2 to 5 begins with its number and ends with a full stop
    bool zip = size > 4 && !memcmp(p, "PK\x03\x04", 4);
    bool bare = size > 3 && p[0] == 0x80 && p[1] >= 2 && p[1] <= 5 && p[size - 1] == '.';
    return zip || bare ? pickle_sentence : NULL;
}

// ---- the request

soma_status soma__groot_read(soma_groot_request *r, const soma_msg *message, soma_error *err) {
    static const char *const names[] = {"ping", "kill", "get_action", "get_modality_config", "reset"};
    char found[200];
    *r = (soma_groot_request){.endpoint = SOMA_GROOT_ACT};
    if (message->kind != SOMA_MSG_MAP || message->n > MAX_KEYS)
        return soma__fail(err, SOMA_BAD_INPUT, "a request is a map {endpoint, data}, found %s", soma__msg_describe(found, message));
    const soma_msg *token = soma__msg_get(message, "api_token"), *endpoint = soma__msg_get(message, "endpoint");
    if (token && (token->kind == SOMA_MSG_STR || token->kind == SOMA_MSG_BIN)) {
        r->token = token->bytes;
        r->token_size = token->n;
    }
    r->data = soma__msg_get(message, "data");
    r->nested = soma__msg_get(r->data, "observation") != NULL;
    if (!endpoint) return SOMA_OK;
    for (size_t i = 0; i < SOMA_COUNT(names); i++) {
        if (!soma__msg_is_text(endpoint, names[i])) continue;
        r->endpoint = (soma_groot_endpoint)i;
        return SOMA_OK;
    }
    bool text = endpoint->kind == SOMA_MSG_STR;
    return soma__fail(err, SOMA_BAD_INPUT, "there is no endpoint \"%.*s\": ping, get_action, get_modality_config and reset are",
                      text ? (int)SOMA_MIN(endpoint->n, 60u) : 0, text ? endpoint->bytes : "");
}

// ---- arrays

static soma_status read_array(soma_npy *a, const soma_msg *m, const char *key, soma_error *err) {
    char found[200];
    const soma_msg *flag = soma__msg_get(m, "__ndarray_class__"), *bytes = soma__msg_get(m, "as_npy");
    if (!flag || !bytes || bytes->kind != SOMA_MSG_BIN)
        return soma__fail(err, SOMA_BAD_INPUT, "\"%s\": wanted an array {__ndarray_class__, as_npy}, found %s", key,
                          soma__msg_describe(found, m));
    const char *head = bytes->bytes;
    if (memmem(head, SOMA_MIN(bytes->n, 256u), "'|O'", 4))
        return soma__fail(err, SOMA_UNSUPPORTED, "\"%s\" is an array of objects: %s", key, pickle_sentence);
    return soma__npy_parse(a, head, bytes->n, key, err);
}

// A part "video", "state" or "annotation" of either form; `key` is what sentences call it.
static const soma_msg *find(const soma_groot_request *r, const char *group, const char *name, char key[160]) {
    const soma_msg *nested = soma__msg_get(r->data, "observation");
    snprintf(key, 160, "%s.%s", group, name);
    return nested ? soma__msg_get(soma__msg_get(nested, group), name) : soma__msg_get(r->data, key);
}

// ---- pictures

static soma_status read_video(soma_image *image, const soma_msg *m, const char *key, soma_error *err) {
    soma_npy a;
    SOMA_TRY(read_array(&a, m, key, err));
    const int64_t *s = a.shape;
    int d = a.n_dims;
    if (a.dtype != SOMA_U8 || d < 3 || d > 5 || s[d - 1] != 3 || a.n_values == 0 || (d == 5 && s[0] != 1))
        return soma__fail(err, SOMA_BAD_INPUT, "\"%s\": wanted u1 [T, H, W, 3] (or [1, T, H, W, 3]), found %d dimensions of %s%s", key, d,
                          soma_dtype_name(a.dtype), d == 5 && s[0] != 1 ? "; one robot per request" : "");
    int64_t h = s[d - 3], w = s[d - 2];
    if (h > MAX_SIDE || w > MAX_SIDE) return soma__fail(err, SOMA_BAD_INPUT, "\"%s\": wanted at most %d pixels on a side", key, MAX_SIDE);
    image->height = (int)h;
    image->width = (int)w;
    image->pixels = (const uint8_t *)a.data + a.n_values - h * w * 3; // the last time step
    return SOMA_OK;
}

static soma_status read_videos(soma_obs *obs, const soma_modality *m, const soma_groot_request *r, soma_error *err) {
    char key[160], missing[160] = "";
    for (int i = 0; i < m->n_videos; i++) {
        const soma_msg *v = find(r, "video", m->videos[i].name, key);
        if (!v) {
            memcpy(missing, key, sizeof missing);
            continue;
        }
        soma_image *image = &obs->images[obs->n_images++];
        image->camera = m->videos[i].camera;
        SOMA_TRY(read_video(image, v, key, err));
    }
    if (!missing[0]) return SOMA_OK;
    // a misspelt camera would drive the robot blind
    const soma_msg *nested = soma__msg_get(r->data, "observation"), *map = nested ? soma__msg_get(nested, "video") : r->data;
    int n = 0;
    for (uint32_t i = 0; map && map->kind == SOMA_MSG_MAP && i < map->n; i++)
        n += nested || (map->pairs[i].key.n > 6 && !memcmp(map->pairs[i].key.bytes, "video.", 6));
    if (n <= obs->n_images && obs->n_images) return SOMA_OK;
    return soma__fail(err, SOMA_BAD_INPUT, "there is no picture \"%s\"%s", missing,
                      n > obs->n_images ? ", but one under a name that the policy does not know" : "");
}

// ---- state and prompt

static soma_status read_part(float *state, int *filled, int n_state, const soma_modality_part *part, const soma_msg *v, const char *key,
                             soma_error *err) {
    soma_npy a;
    SOMA_TRY(read_array(&a, v, key, err));
    int64_t size = a.n_dims ? a.shape[a.n_dims - 1] : 1;
    int start = part->end ? part->start : *filled, wanted = part->end ? part->end - part->start : n_state - *filled;
    if (a.n_dims > 3 || a.n_values < size || size < 1 || size > wanted || (part->end && size != wanted) ||
        (a.n_dims == 3 && a.shape[0] != 1))
        return soma__fail(err, SOMA_BAD_INPUT, "\"%s\": wanted [T, %d] numbers (or [1, T, %d]), found %d dimensions, the last of %lld", key,
                          wanted, wanted, a.n_dims, (long long)size);
    const char *last = (const char *)a.data + (size_t)(a.n_values - size) * soma_dtype_size(a.dtype);
    soma__to_f32(state + start, a.dtype, last, size);
    for (int64_t i = 0; i < size; i++)
        if (!isfinite(state[start + i])) return soma__fail(err, SOMA_BAD_INPUT, "\"%s\" [%lld] is not a finite number", key, (long long)i);
    *filled += (int)size;
    return SOMA_OK;
}

static soma_status read_state(soma_obs *obs, const soma_modality *m, const soma_policy_info *info, const soma_groot_request *r,
                              soma_arena *arena, soma_error *err) {
    float *state = soma__arena_alloc(arena, ((size_t)info->n_state + 1) * sizeof *state);
    if (!state) return soma__no_memory(err, "the state");
    int filled = 0;
    char key[160];
    for (int i = 0; i < m->n_states; i++) {
        const soma_msg *v = find(r, "state", m->states[i].name, key);
        if (!v) return soma__fail(err, SOMA_BAD_INPUT, "the observation has no \"%s\"", key);
        SOMA_TRY(read_part(state, &filled, info->n_state, &m->states[i], v, key, err));
    }
    if (filled != info->n_state)
        return soma__fail(err, SOMA_BAD_INPUT, "the state has %d numbers in all, wanted %d", filled, info->n_state);
    obs->state = state;
    obs->n_state = info->n_state;
    return SOMA_OK;
}

// The first text in lists of lists.
static const soma_msg *first_text(const soma_msg *m) {
    while (m && m->kind == SOMA_MSG_ARRAY) m = m->n ? &m->items[0] : NULL;
    return m && m->kind == SOMA_MSG_STR ? m : NULL;
}

static soma_status read_prompt(soma_obs *obs, const soma_groot_request *r, soma_arena *arena, soma_error *err) {
    const soma_msg *nested = soma__msg_get(r->data, "observation"), *map = nested ? soma__msg_get(nested, "language") : r->data;
    for (uint32_t i = 0; map && map->kind == SOMA_MSG_MAP && i < map->n; i++) {
        const soma_msg_pair *p = &map->pairs[i];
        const soma_msg *text = first_text(&p->value);
        if (!text || (!nested && (p->key.n < 12 || memcmp(p->key.bytes, "annotation.", 11)))) continue;
        json_t *valid = text->n <= MAX_PROMPT ? json_stringn(text->bytes, text->n) : NULL; // refuses what is not UTF-8
        json_decref(valid);
        if (!valid || memchr(text->bytes, 0, text->n))
            return soma__fail(err, SOMA_BAD_INPUT, "\"%.*s\" is not UTF-8 text of at most %d bytes", (int)SOMA_MIN(p->key.n, 100u),
                              p->key.bytes, MAX_PROMPT);
        char *prompt = soma__arena_alloc(arena, (size_t)text->n + 1);
        if (!prompt) return soma__no_memory(err, "the prompt");
        memcpy(prompt, text->bytes, text->n);
        obs->prompt = prompt;
        return SOMA_OK;
    }
    return SOMA_OK;
}

soma_status soma__groot_observe(soma_obs *obs, const soma_modality *m, const soma_policy_info *info, const soma_groot_request *r,
                                soma_arena *arena, soma_error *err) {
    *obs = (soma_obs){0};
    char found[200];
    if (!r->data || r->data->kind != SOMA_MSG_MAP || r->data->n > MAX_KEYS)
        return soma__fail(err, SOMA_BAD_INPUT, "get_action wants data, a map with the observation; found %s",
                          r->data ? soma__msg_describe(found, r->data) : "none");
    SOMA_TRY(read_videos(obs, m, r, err));
    SOMA_TRY(read_state(obs, m, info, r, arena, err));
    return read_prompt(obs, r, arena, err);
}

// ---- answers

static void put_array(soma_str *out, int n_dims, const int64_t *shape, const float *rows, int64_t stride) {
    char header[SOMA_NPY_HEADER];
    size_t size = soma__npy_header(header, SOMA_F32, shape, n_dims);
    int64_t n = shape[n_dims - 2], width = shape[n_dims - 1];
    soma__msg_put_map(out, 2);
    soma__msg_put_str(out, "__ndarray_class__");
    soma__msg_put(out, &(soma_msg){.kind = SOMA_MSG_BOOL, .flag = true});
    soma__msg_put_str(out, "as_npy");
    soma__msg_put_bin_head(out, size + (size_t)(n * width) * sizeof *rows);
    soma__str_add_bytes(out, header, size);
    for (int64_t i = 0; i < n; i++) soma__str_add_bytes(out, rows + i * stride, (size_t)width * sizeof *rows);
}

void soma__groot_put_actions(soma_str *out, const soma_modality *m, const soma_actions *a, bool nested, double infer_ms) {
    char key[SOMA_MODALITY_NAME + 8];
    if (nested) soma__msg_put_array(out, 2);
    soma__msg_put_map(out, (size_t)m->n_actions);
    for (int i = 0; i < m->n_actions; i++) {
        const soma_modality_part *p = &m->actions[i];
        int64_t shape[3] = {1, a->horizon, p->end - p->start};
        snprintf(key, sizeof key, nested ? "%s" : "action.%s", p->name);
        soma__msg_put_str(out, key);
        put_array(out, nested ? 3 : 2, nested ? shape : shape + 1, a->values + p->start, a->n_actions);
    }
    if (!nested) return;
    soma__msg_put_map(out, 2);
    soma__msg_put_str(out, "model_ms");
    soma__msg_put_real(out, a->model_ms);
    soma__msg_put_str(out, "infer_ms");
    soma__msg_put_real(out, infer_ms);
}

void soma__groot_put_error(soma_str *out, const char *sentence) {
    soma__msg_put_map(out, 1);
    soma__msg_put_str(out, "error");
    soma__msg_put_str(out, sentence);
}

static void put_names(soma_str *text, const char *group, int i, const char *name) {
    soma__str_printf(text, "%s\"%s.%s\"", i ? "," : "", group, name); // names have neither quotes nor backslashes
}

// {"__ModalityConfig_class__": true, "as_json": text} per group
static void put_group(soma_str *out, const char *group, const soma_str *names, int n_steps) {
    soma_str text = {0};
    soma__str_add(&text, "{\"delta_indices\":[");
    for (int i = 0; i < n_steps; i++) soma__str_printf(&text, "%s%d", i ? "," : "", i);
    soma__str_printf(&text, "],\"modality_keys\":[%s]}", names->text ? names->text : "");
    out->failed |= text.failed || names->failed;
    soma__msg_put_str(out, group);
    soma__msg_put_map(out, 2);
    soma__msg_put_str(out, "__ModalityConfig_class__");
    soma__msg_put(out, &(soma_msg){.kind = SOMA_MSG_BOOL, .flag = true});
    soma__msg_put_str(out, "as_json");
    soma__msg_put_str(out, text.text ? text.text : "");
    soma__str_free(&text);
}

void soma__groot_put_config(soma_str *out, const soma_modality *m, int horizon) {
    soma_str names[4] = {0};
    for (int i = 0; i < m->n_videos; i++) put_names(&names[0], "video", i, m->videos[i].name);
    for (int i = 0; i < m->n_states; i++) put_names(&names[1], "state", i, m->states[i].name);
    for (int i = 0; i < m->n_actions; i++) put_names(&names[2], "action", i, m->actions[i].name);
    put_names(&names[3], "annotation", 0, "human.task_description");
    soma__msg_put_map(out, 4);
    put_group(out, "video", &names[0], 1);
    put_group(out, "state", &names[1], 1);
    put_group(out, "action", &names[2], horizon);
    put_group(out, "language", &names[3], 1);
    for (int i = 0; i < 4; i++) soma__str_free(&names[i]);
}
