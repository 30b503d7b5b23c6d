// SPDX-License-Identifier: Apache-2.0
// The trace of a family that writes its chunk as tokens, in the two forms of the reference's files:
//
//   LeRobot's  tokens [B, L] is the prompt and action_tokens [B, A], which begins with a BOS, the answer. To decode, a BOS is put behind
//   the
//              padded prompt; positions go on without a gap.
//   openpi's   tokens [B, T] is prompt and answer in one, and prompt_tokens [B, L] the prompt alone. All cameras are seen.
//
// The names of the tensors tell which form a file has, whatever the config says. Either may give decode.follow [B, G], the tokens to be
// written whatever is likeliest: then the logits of two implementations can be compared behind the same tokens.
#include "policy/decode.h"
#include "policy/trace_run.h"

#include <stdio.h>
#include <string.h>

enum { BOS = 2 }; // of PaliGemma's vocabulary and of ours

// ---- what goes in

// Columns of an input [B, n]; `fallback` where only names are asked for.
static soma_status columns(const soma_trace_run *r, int64_t *n, const char *name, int64_t fallback, soma_error *err) {
    *n = fallback;
    if (r->o->names_only) return SOMA_OK;
    const soma_safetensor *t = soma__safetensors_find(r->in, name);
    if (!t || t->n_dims != 2 || t->shape[0] < 1 || t->shape[1] < 1)
        return soma__fail(err, SOMA_NOT_FOUND, "%s: it has no tensor %s [B, ..]", soma__safetensors_path(r->in), name);
    *n = t->shape[1];
    return SOMA_OK;
}

static bool there(const soma_trace_run *r, const char *name) { return !r->o->names_only && soma__safetensors_find(r->in, name); }

// parts side by side: [B, n] and [B, m] to [B, n + m]
static void *beside(soma_trace_run *r, const void *a, int64_t n, const void *b, int64_t m, size_t size, soma_error *err) {
    int64_t B = r->batch.n;
    char *out = soma__trace_room(r, (size_t)(B * (n + m)) * size, err);
    for (int64_t i = 0; out && i < B; i++) {
        memcpy(out + (size_t)(i * (n + m)) * size, (const char *)a + (size_t)(i * n) * size, (size_t)n * size);
        memcpy(out + (size_t)(i * (n + m) + n) * size, (const char *)b + (size_t)(i * m) * size, (size_t)m * size);
    }
    return out;
}

static void *filled(soma_trace_run *r, int64_t n, const void *value, size_t size, soma_error *err) {
    char *out = soma__trace_room(r, (size_t)n * size, err);
    for (int64_t i = 0; out && i < n; i++) memcpy(out + (size_t)i * size, value, size);
    return out;
}

static soma_status lerobot_inputs(soma_trace_run *r, soma_error *err) {
    const soma_model_info *info = &r->model->info;
    soma_batch *b = &r->batch, *l = &r->lesson;
    int64_t L, A = 0, B = b->n;
    const int32_t *tokens, *answer = NULL, bos = BOS;
    const uint8_t *mask, *answer_mask = NULL, one = 1, zero = 0;
    SOMA_TRY(columns(r, &L, "tokens", info->max_tokens, err));
    SOMA_TRY(soma__trace_input(r, (const void **)&tokens, "tokens", SOMA_I32, 2, (int64_t[]){B, L}, err));
    SOMA_TRY(soma__trace_input(r, (const void **)&mask, "token_mask", SOMA_U8, 2, (int64_t[]){B, L}, err));
    const int32_t *boss = filled(r, B, &bos, sizeof bos, err);
    const uint8_t *ones = filled(r, B, &one, 1, err);
    if (!boss || !ones) return SOMA_NO_MEMORY;
    b->n_tokens = L + 1;
    b->tokens = beside(r, tokens, L, boss, 1, sizeof bos, err);
    b->token_mask = beside(r, mask, L, ones, 1, 1, err);
    if (!b->tokens || !b->token_mask) return SOMA_NO_MEMORY;
    if (!r->train) return SOMA_OK;
    SOMA_TRY(columns(r, &A, "action_tokens", info->answer.max, err));
    SOMA_TRY(soma__trace_input(r, (const void **)&answer, "action_tokens", SOMA_I32, 2, (int64_t[]){B, A}, err));
    SOMA_TRY(soma__trace_input(r, (const void **)&answer_mask, "action_token_mask", SOMA_U8, 2, (int64_t[]){B, A}, err));
    const uint8_t *none = filled(r, B * L, &zero, 1, err), *all = filled(r, B * A, &one, 1, err);
    uint8_t *learn = soma__trace_room(r, (size_t)(B * A), err);
    if (!none || !all || !learn) return SOMA_NO_MEMORY;
    for (int64_t i = 0; i < B * A; i++) learn[i] = i % A && answer_mask[i]; // the BOS is given
    l->n_tokens = L + A;
    l->tokens = beside(r, tokens, L, answer, A, sizeof *answer, err);
    l->token_mask = beside(r, mask, L, answer_mask, A, 1, err);
    l->token_causal = beside(r, none, L, all, A, 1, err);
    l->token_loss = beside(r, none, L, learn, A, 1, err);
    return l->tokens && l->token_mask && l->token_causal && l->token_loss ? SOMA_OK : SOMA_NO_MEMORY;
}

static soma_status openpi_inputs(soma_trace_run *r, soma_error *err) {
    const soma_model_info *info = &r->model->info;
    soma_batch *b = &r->batch, *l = &r->lesson;
    int64_t L, T, B = b->n;
    SOMA_TRY(columns(r, &L, "prompt_tokens", info->max_tokens, err));
    b->n_tokens = L;
    SOMA_TRY(soma__trace_input(r, (const void **)&b->tokens, "prompt_tokens", SOMA_I32, 2, (int64_t[]){B, L}, err));
    SOMA_TRY(soma__trace_input(r, (const void **)&b->token_mask, "prompt_mask", SOMA_U8, 2, (int64_t[]){B, L}, err));
    if (!r->train) return SOMA_OK;
    SOMA_TRY(columns(r, &T, "tokens", info->max_tokens, err));
    l->n_tokens = T;
    SOMA_TRY(soma__trace_input(r, (const void **)&l->tokens, "tokens", SOMA_I32, 2, (int64_t[]){B, T}, err));
    SOMA_TRY(soma__trace_input(r, (const void **)&l->token_mask, "token_mask", SOMA_U8, 2, (int64_t[]){B, T}, err));
    SOMA_TRY(soma__trace_input(r, (const void **)&l->token_causal, "token_ar_mask", SOMA_U8, 2, (int64_t[]){B, T}, err));
    return soma__trace_input(r, (const void **)&l->token_loss, "token_loss_mask", SOMA_U8, 2, (int64_t[]){B, T}, err);
}

soma_status soma__trace_written_inputs(soma_trace_run *r, soma_error *err) {
    soma_answer_rule *rule = &r->model->info.answer;
    soma_batch *b = &r->batch;
    bool openpi = r->o->names_only ? !rule->lerobot : there(r, "prompt_tokens");
    if (!openpi) rule->gap = 0;
    rule->lerobot = !openpi;
    r->train = r->o->names_only || there(r, openpi ? "tokens" : "action_tokens");
    if (r->precision.weight != SOMA_F32) r->train = false; // gradients need f32 weights
    b->n = b->draws = 1;
    const char *first = openpi ? "prompt_tokens" : "tokens";
    int64_t any;
    SOMA_TRY(columns(r, &any, first, 1, err));
    if (!r->o->names_only) b->n = soma__safetensors_find(r->in, first)->shape[0];
    if (r->o->names_only || there(r, "decode.follow"))
        SOMA_TRY(soma__trace_input(r, (const void **)&r->follow, "decode.follow", SOMA_I32, 2, (int64_t[]){b->n, rule->max}, err));
    SOMA_TRY(soma__trace_read_images(r, err));
    SOMA_TRY(openpi ? openpi_inputs(r, err) : lerobot_inputs(r, err));
    const uint8_t one = 1; // names alone: there is something to learn, so that its names can be told
    if (r->o->names_only && !(r->lesson.token_loss = filled(r, b->n * r->lesson.n_tokens, &one, 1, err))) return SOMA_NO_MEMORY;
    r->lesson.n = b->n;
    r->lesson.draws = 1;
    r->lesson.images = b->images;
    r->lesson.image_dtype = b->image_dtype;
    r->lesson.image_mask = b->image_mask;
    return SOMA_OK;
}

// ---- rows of a tensor that has more of them than the reference's

// `n` of the rows of from [B, N, D], from `start` on, under another name.
static soma_status take_rows(soma_trace_run *r, const soma_frame *f, const char *from, int64_t start, int64_t n, const char *name,
                             soma_error *err) {
    const soma_tensor *t = soma__plan_find(f->plan, from);
    if (!t) return soma__fail(err, SOMA_NOT_FOUND, "%s: the graph has no such output", from);
    int64_t B = t->shape[0], N = t->shape[1], D = t->n_dims > 2 ? t->shape[2] : 1;
    size_t size = soma_dtype_size(t->dtype), row = (size_t)D * size;
    void *data;
    SOMA_TRY(soma__trace_take(r, name, t->dtype, t->n_dims, (int64_t[]){B, n, D}, &data, err));
    if (!data) return SOMA_OK;
    char *whole = soma__alloc((size_t)(B * N) * row);
    if (!whole) return soma__no_memory(err, "a trace");
    soma_status status = soma__frame_get(f, from, whole, (size_t)(B * N) * row, err);
    for (int64_t b = 0; status == SOMA_OK && b < B; b++)
        memcpy((char *)data + (size_t)(b * n) * row, whole + (size_t)(b * N + start) * row, (size_t)n * row);
    soma__free(whole);
    return status;
}

// ---- decoding

typedef struct kept {
    float *logits; // [B, G, V]
    int64_t B, G, V;
} kept;

static void keep(void *user, int64_t step, const float *logits) {
    const kept *k = user;
    for (int64_t b = 0; k->logits && b < k->B; b++)
        memcpy(k->logits + (b * k->G + step) * k->V, logits + b * k->V, sizeof *logits * (size_t)k->V);
}

// names: ids, logits (NULL: not kept)
static soma_status decode(soma_trace_run *r, const soma_feed *feed, int32_t stop, const char *ids, const char *logits, soma_error *err) {
    const soma_model_info *info = &r->model->info;
    kept k = {.B = r->batch.n, .G = info->answer.max, .V = info->vocab};
    soma_trace_runner x = {0}, y = {0};
    void *out;
    SOMA_TRY(soma__trace_take(r, ids, SOMA_I32, 2, (int64_t[]){k.B, k.G}, &out, err));
    if (logits) SOMA_TRY(soma__trace_take(r, logits, SOMA_F32, 3, (int64_t[]){k.B, k.G, k.V}, (void **)&k.logits, err));
    int64_t *n = soma__trace_room(r, sizeof *n * (size_t)k.B, err);
    float *row = soma__trace_room(r, sizeof *row * (size_t)(k.B * k.V), err);
    if (!n || !row) return SOMA_NO_MEMORY;
    soma_status status = soma__trace_open(r, &x, r->encode, NULL, feed, err);
    if (status == SOMA_OK) status = soma__trace_open(r, &y, r->step, NULL, feed, err);
    soma_decode d = {
        .n_rows = k.B, .max = k.G, .vocab = k.V, .stop = stop, .ids = out, .n_ids = n, .logits = row, .step = keep, .user = &k};
    if (stop < 0) d.follow = r->follow;
    if (status == SOMA_OK && out) status = soma__decode(&d, x.frame, y.frame, (soma_feed *)feed, err);
    if (status == SOMA_OK && logits) status = soma__trace_take_taps(r, x.frame, "", true, err);
    if (status == SOMA_OK && logits && r->model->info.answer.lerobot)
        status = take_rows(r, x.frame, "text_embs", 0, r->batch.n_tokens - 1, "prompt_embs", err);
    soma__trace_close(&x);
    soma__trace_close(&y);
    return status;
}

// The same numbers under a second name: the reference has two ways to one result.
static soma_status again(soma_trace_run *r, const char *from, const char *name, soma_error *err) {
    const soma_safetensor *t = soma__trace_find(r->out, from);
    const soma_safetensor kept_t = *t; // the list may move
    size_t size = soma_dtype_size(t->dtype);
    void *data;
    for (int i = 0; i < t->n_dims; i++) size *= (size_t)t->shape[i];
    SOMA_TRY(soma__trace_take(r, name, kept_t.dtype, kept_t.n_dims, kept_t.shape, &data, err));
    if (data) memcpy(data, kept_t.data, size);
    return SOMA_OK;
}

// openpi shifts prompts to the right, so that all end in one column: positions as they stand there, and those of what is written.
static soma_status take_positions(soma_trace_run *r, const soma_feed *feed, soma_error *err) {
    const int32_t *k = soma__feed_find(feed, "k_block")->data, *pos = soma__feed_find(feed, "position")->data,
                  *next = soma__feed_find(feed, "cache.position")->data;
    int64_t B = r->batch.n, S = (int64_t)(soma__feed_find(feed, "position")->size / sizeof *pos) / B, G = r->model->info.answer.max;
    int32_t *prefix, *steps;
    SOMA_TRY(soma__trace_take(r, "decode.prefill_positions", SOMA_I32, 2, (int64_t[]){B, S}, (void **)&prefix, err));
    SOMA_TRY(soma__trace_take(r, "decode.step_positions", SOMA_I32, 2, (int64_t[]){B, G}, (void **)&steps, err));
    for (int64_t b = 0; prefix && b < B; b++) {
        int64_t to = S;
        for (int64_t i = S; i-- > 0;)
            if (k[b * S + i] != SOMA_BLOCK_NEVER) prefix[b * S + --to] = pos[b * S + i];
        while (to-- > 0) prefix[b * S + to] = -1;
        for (int64_t g = 0; g < G; g++) steps[b * G + g] = next[b] + (int32_t)g;
    }
    return SOMA_OK;
}

static soma_status decode_all(soma_trace_run *r, soma_error *err) {
    soma_feed feed = {0};
    bool lerobot = r->model->info.answer.lerobot;
    soma_status status = r->model->family->prepare(r->model, &r->batch, &feed, err);
    if (status == SOMA_OK && !lerobot) status = take_positions(r, &feed, err);
    if (status == SOMA_OK)
        status = decode(r, &feed, -1, lerobot ? "decode.kv_tokens" : "decode.tokens", lerobot ? "decode.kv_logits" : "decode.logits", err);
    if (status == SOMA_OK && lerobot) status = again(r, "decode.kv_tokens", "decode.safe_tokens", err);
    if (status == SOMA_OK && lerobot) status = again(r, "decode.kv_logits", "decode.logits", err);
    soma__feed_free(&feed);
    return status;
}

// The first row alone, until it writes stop_token.
static soma_status decode_until(soma_trace_run *all, soma_error *err) {
    soma_trace_run r = *all; // its weights, with graphs, states and memory of its own
    soma_feed feed = {0};
    char name[64];
    r.arena = (soma_arena){0};
    r.states = (soma_layout){0};
    r.state_memory = NULL;
    r.encode = r.step = NULL;
    r.batch.n = 1;
    soma_status status = soma__trace_build(&r, &r.encode, SOMA_PROGRAM_ENCODE, 1, false, err);
    if (status == SOMA_OK) status = soma__trace_build(&r, &r.step, SOMA_PROGRAM_DECODE, 1, false, err);
    if (status == SOMA_OK) status = soma__trace_states(&r, err);
    if (status == SOMA_OK) status = r.model->family->prepare(r.model, &r.batch, &feed, err);
    snprintf(name, sizeof name, "decode.b1_kv_stop_at_tok%lld", (long long)r.o->stop_token);
    if (status == SOMA_OK)
        status = decode(&r, &feed, (int32_t)r.o->stop_token, r.model->info.answer.lerobot ? name : "decode.b1_stop_tokens", NULL, err);
    soma__feed_free(&feed);
    soma_graph_free(r.encode);
    soma_graph_free(r.step);
    soma__layout_free(&r.states);
    if (r.state_memory) r.device->kind->free(r.device, r.state_memory);
    soma__arena_free(&r.arena);
    return status;
}

// ---- training

// Who is there, who sees whom, and where each token stands.
static soma_status take_masks(soma_trace_run *r, const soma_feed *feed, soma_error *err) {
    const int32_t *q = soma__feed_find(feed, "q_block")->data, *k = soma__feed_find(feed, "k_block")->data,
                  *p = soma__feed_find(feed, "position")->data;
    int64_t B = r->batch.n, S = (int64_t)(soma__feed_find(feed, "position")->size / sizeof *p) / B, *ids;
    uint8_t *pad, *sees;
    SOMA_TRY(soma__trace_take(r, "train.pad_masks", SOMA_U8, 2, (int64_t[]){B, S}, (void **)&pad, err));
    SOMA_TRY(soma__trace_take(r, "train.att_2d_masks", SOMA_U8, 3, (int64_t[]){B, S, S}, (void **)&sees, err));
    SOMA_TRY(soma__trace_take(r, "train.position_ids", SOMA_I64, 2, (int64_t[]){B, S}, (void **)&ids, err));
    for (int64_t i = 0; pad && i < B * S; i++) {
        const int32_t *row = k + i / S * S;
        pad[i] = k[i] != SOMA_BLOCK_NEVER;
        ids[i] = p[i];
        for (int64_t j = 0; j < S; j++) sees[i * S + j] = pad[i] && row[j] <= q[i];
    }
    return SOMA_OK;
}

// Which of the n rows from `start` on hold a token, or are followed by one.
static soma_status take_text_mask(soma_trace_run *r, int64_t start, int64_t n, int64_t ahead, const char *name, soma_error *err) {
    int64_t B = r->batch.n, L = r->lesson.n_tokens;
    uint8_t *mask;
    SOMA_TRY(soma__trace_take(r, name, SOMA_U8, 2, (int64_t[]){B, n}, (void **)&mask, err));
    for (int64_t i = 0; mask && i < B * n; i++) {
        const uint8_t *row = r->lesson.token_mask + i / n * L + start + i % n;
        mask[i] = row[0] && row[ahead];
    }
    return SOMA_OK;
}

// Minus the cross-entropy of the n rows from `start` on; the loss of each row of openpi's form.
static soma_status take_losses(soma_trace_run *r, const soma_frame *f, const soma_feed *feed, int64_t start, int64_t n, soma_error *err) {
    bool lerobot = r->model->info.answer.lerobot;
    const char *name = lerobot ? "train.token_logp" : "train.logp_target";
    int64_t B = r->batch.n, L = r->lesson.n_tokens;
    SOMA_TRY(take_rows(r, f, "train.cross_entropy", start, n, name, err));
    float *logp = (float *)soma__trace_find(r->out, name)->data;
    for (int64_t i = 0; logp && i < B * n; i++) logp[i] = -logp[i];
    if (lerobot) return soma__trace_take_as(r, f, "loss", "train.loss", err);
    float *loss;
    const float *weight = soma__feed_find(feed, "loss_weight")->data;
    SOMA_TRY(soma__trace_take(r, "train.loss", SOMA_F32, 1, &B, (void **)&loss, err));
    for (int64_t b = 0; loss && b < B; b++) {
        double sum = 0;
        for (int64_t i = 0; i < n; i++) sum -= (double)logp[b * n + i] * (double)weight[b * L + i] * (double)B;
        loss[b] = (float)sum;
    }
    return SOMA_OK;
}

static soma_status take_lesson(soma_trace_run *r, const soma_frame *f, const soma_feed *feed, soma_error *err) {
    bool lerobot = r->model->info.answer.lerobot;
    int64_t L = r->lesson.n_tokens, start = lerobot ? r->batch.n_tokens - 1 : 0, n = L - start; // LeRobot: of the answer alone
    SOMA_TRY(take_masks(r, feed, err));
    SOMA_TRY(soma__trace_take_as(r, f, "train.embs", "train.embs", err));
    SOMA_TRY(soma__trace_take_taps(r, f, "train.layer_out.", true, err));
    SOMA_TRY(soma__trace_take_as(r, f, "train.final_norm", "train.final_norm", err));
    SOMA_TRY(take_text_mask(r, start, lerobot ? n : n - 1, 0, "train.logit_masks", err));
    SOMA_TRY(take_rows(r, f, "train.logits", start, lerobot ? n : n - 1, "train.logits", err));
    SOMA_TRY(take_text_mask(r, start, n - 1, 1, "train.target_masks", err));
    return take_losses(r, f, feed, start, n - 1, err);
}

static soma_status train(soma_trace_run *r, soma_error *err) {
    soma_trace_runner x = {0};
    soma_feed feed = {0};
    void *grads = NULL;
    soma_status status = r->device->kind->alloc(r->device, &grads, r->params->layout.size, err);
    if (status == SOMA_OK) status = r->model->family->prepare(r->model, &r->lesson, &feed, err);
    if (status == SOMA_OK) status = soma__trace_open(r, &x, r->learn, grads, &feed, err);
    if (status == SOMA_OK) {
        soma__trace_run_plan(r, &x);
        status = take_lesson(r, x.frame, &feed, err);
    }
    if (status == SOMA_OK) status = soma__trace_take_norm(r, grads, err);
    if (status == SOMA_OK && r->o->grads) status = soma__trace_take_grads(r, grads, "", err);
    soma__trace_close(&x);
    soma__feed_free(&feed);
    if (grads) r->device->kind->free(r->device, grads);
    return status;
}

soma_status soma__trace_written(soma_trace_run *r, soma_error *err) {
    SOMA_TRY(decode_all(r, err));
    if (r->o->stop_token > 0) SOMA_TRY(decode_until(r, err));
    return r->train ? train(r, err) : SOMA_OK;
}
