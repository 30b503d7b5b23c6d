// SPDX-License-Identifier: Apache-2.0
// From logits to a chunk: the answer is written by policy/decode.c, read by text/answer.c, and its codes are FAST's.
#include "policy/written.h"

#include "base/file.h"

#include <stdio.h>
#include <string.h>

enum { BINS = 256 }; // as RT-2 and OpenVLA cut each value

static bool holds(const char *dir, char path[SOMA_PATH_MAX]) {
    return soma__path_join(path, dir, "processor_config.json", NULL) == SOMA_OK && soma__file_exists(path);
}

soma_status soma__writing_find(char folder[SOMA_PATH_MAX], const char *dir, soma_error *err) {
    static const char *const places[] = {"fast", "action_tokenizer", ""};
    char path[SOMA_PATH_MAX];
    for (size_t i = 0; i < SOMA_COUNT(places); i++) {
        if (*places[i])
            SOMA_TRY(soma__path_join(folder, dir, places[i], err));
        else
            snprintf(folder, SOMA_PATH_MAX, "%s", dir);
        if (holds(folder, path)) return SOMA_OK;
    }
    return soma__fail(err, SOMA_NOT_FOUND,
                      "%s: no action tokenizer: put tokenizer.json and processor_config.json of the one it was trained with (the released "
                      "pi0-FAST: physical-intelligence/fast) into %s/fast, or name a folder with --action-tokenizer",
                      dir, dir);
}

soma_status soma__writing_open(soma_writing *w, const char *dir, const char *given, const soma_robot *robot, const soma_model *model,
                               soma_error *err) {
    const soma_model_info *info = &model->info;
    char folder[SOMA_PATH_MAX];
    *w = (soma_writing){.model = model, .T = info->horizon, .A = robot->n_actions};
    if (!*given) SOMA_TRY(soma__writing_find(folder, dir, err));
    SOMA_TRY(!strcmp(given, "bins") ? soma__fast_bins(&w->fast, BINS, err) : soma__fast_open(&w->fast, *given ? given : folder, err));
    return soma__answer_form(&w->form, robot->text, info->vocab, info->answer.skip, soma__fast_vocab(w->fast), info->answer.lerobot, err);
}

void soma__writing_close(soma_writing *w) {
    soma__fast_close(w->fast);
    *w = (soma_writing){0};
}

soma_status soma__writing_work_new(soma_writing_work *k, const soma_writing *w, int64_t n, soma_error *err) {
    const soma_model_info *info = &w->model->info;
    size_t N = (size_t)n, G = (size_t)info->answer.max;
    *k = (soma_writing_work){.n = n,
                             .rngs = soma__calloc(N, sizeof *k->rngs),
                             .ids = soma__calloc(N * G, sizeof *k->ids),
                             .codes = soma__calloc(G, sizeof *k->codes),
                             .n_ids = soma__calloc(N, sizeof *k->n_ids),
                             .logits = soma__calloc(N * (size_t)info->vocab, sizeof *k->logits),
                             .chunk = soma__calloc((size_t)(w->T * w->A), sizeof *k->chunk),
                             .flaws = soma__calloc(N, sizeof *k->flaws)};
    if (!k->rngs || !k->ids || !k->codes || !k->n_ids || !k->logits || !k->chunk || !k->flaws)
        return soma__no_memory(err, "a policy's answers");
    return soma__fast_work_new(&k->fast, w->fast, err);
}

void soma__writing_work_free(soma_writing_work *k) {
    void *all[] = {k->rngs, k->ids, k->codes, k->n_ids, k->logits, k->chunk, k->flaws};
    for (size_t i = 0; i < SOMA_COUNT(all); i++) soma__free(all[i]);
    soma__fast_work_free(k->fast);
    *k = (soma_writing_work){0};
}

// One answer to x [horizon, action_dim]. Without a head nothing is read: zeros, the middle of the robot's range.
static void read_chunk(const soma_writing *w, soma_writing_work *k, int64_t row, float *x) {
    const soma_model_info *info = &w->model->info;
    size_t n;
    soma_answer_flaw flaw = soma__answer_read(&w->form, k->ids + row * info->answer.max, (size_t)k->n_ids[row], k->codes, &n);
    memset(x, 0, sizeof *x * (size_t)(info->horizon * info->action_dim));
    k->flaws[row] = flaw;
    if (flaw == SOMA_ANSWER_NO_HEAD) return;
    soma_fast_rule rule = info->answer.lerobot ? SOMA_FAST_RELAXED : SOMA_FAST_STRICT;
    soma_status status = soma__fast_decode(k->fast, k->codes, n, rule, w->T, w->A, k->chunk, NULL);
    if (status != SOMA_OK && flaw == SOMA_ANSWER_FINE) k->flaws[row] = SOMA_ANSWER_LENGTH;
    for (int64_t i = 0; status == SOMA_OK && i < w->T * w->A; i++) x[i / w->A * info->action_dim + i % w->A] = (float)k->chunk[i];
}

soma_status soma__write_chunks(const soma_writing *w, soma_writing_work *k, double temperature, bool constrain, soma_frame *encode,
                               soma_frame *decode, soma_feed *feed, float *x, soma_error *err) {
    const soma_model_info *info = &w->model->info;
    soma_decode d = {.n_rows = k->n,
                     .max = info->answer.max,
                     .vocab = info->vocab,
                     .stop = info->answer.lerobot ? w->form.bar[w->form.n_bar - 1] : w->form.eos,
                     .form = constrain ? &w->form : NULL,
                     .temperature = temperature,
                     .rngs = k->rngs,
                     .ids = k->ids,
                     .n_ids = k->n_ids,
                     .logits = k->logits};
    SOMA_TRY(soma__decode(&d, encode, decode, feed, err));
    for (int64_t i = 0; i < k->n; i++) read_chunk(w, k, i, x + i * info->horizon * info->action_dim);
    return SOMA_OK;
}

// ---- learning

soma_status soma__lesson_new(soma_lesson *k, const soma_writing *w, int64_t n, soma_error *err) {
    const soma_model_info *info = &w->model->info;
    int64_t L = info->max_tokens + info->answer.max;
    size_t N = (size_t)(n * L);
    *k = (soma_lesson){.n = n,
                       .L = L,
                       .tokens = soma__calloc(N, sizeof *k->tokens),
                       .mask = soma__calloc(N, 1),
                       .causal = soma__calloc(N, 1),
                       .learn = soma__calloc(N, 1),
                       .chunk = soma__calloc((size_t)(w->T * w->A), sizeof *k->chunk)};
    if (!k->tokens || !k->mask || !k->causal || !k->learn || !k->chunk) return soma__no_memory(err, "answers to learn from");
    return soma__fast_work_new(&k->fast, w->fast, err);
}

void soma__lesson_free(soma_lesson *k) {
    void *all[] = {k->tokens, k->mask, k->causal, k->learn, k->chunk};
    for (size_t i = 0; i < SOMA_COUNT(all); i++) soma__free(all[i]);
    soma__fast_work_free(k->fast);
    *k = (soma_lesson){0};
}

soma_status soma__lesson_fill(soma_lesson *k, const soma_writing *w, int64_t i, const int32_t *prompt, const uint8_t *mask, const float *x,
                              soma_error *err) {
    const soma_model_info *info = &w->model->info;
    const int64_t G = info->answer.max;
    int32_t *tokens = k->tokens + i * k->L;
    uint8_t *there = k->mask + i * k->L, *causal = k->causal + i * k->L, *learn = k->learn + i * k->L;
    soma_fast_ids ids;
    for (int64_t j = 0; j < w->T * w->A; j++) k->chunk[j] = (double)x[j / w->A * info->action_dim + j % w->A];
    SOMA_TRY(soma__fast_encode(k->fast, k->chunk, w->T, w->A, &ids, err));
    int64_t P = 0;
    while (P < soma__prompt_room(info) && mask[P]) P++;
    P -= info->answer.lerobot;                          // its BOS is the answer's here
    memcpy(tokens, prompt, sizeof *prompt * (size_t)P); // without a gap: the first token is learned from the prompt's last
    int64_t n = (int64_t)soma__answer_write(&w->form, ids.ids, ids.n, tokens + P, (size_t)G), end = P + SOMA_MIN(n, G);
    if (n > G && !k->n_cut++)
        soma__log(SOMA_LOG_WARN, "an answer has %lld tokens, the model writes at most %lld (max_decoding_steps): its end is not learned",
                  (long long)n, (long long)G);
    for (int64_t j = 0; j < k->L; j++) {
        if (j >= end) tokens[j] = SOMA_PROMPT_PAD;
        there[j] = j < end;
        causal[j] = j >= P;
        learn[j] = j >= P && j < end && !(info->answer.lerobot && j == P); // LeRobot's BOS is given
    }
    return SOMA_OK;
}
