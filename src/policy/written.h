// SPDX-License-Identifier: Apache-2.0
// Policies that write their chunk as tokens: the action tokenizer beside the checkpoint, the loop that writes an answer, and reading the
// chunk out of it.
#ifndef SOMA_POLICY_WRITTEN_H
#define SOMA_POLICY_WRITTEN_H

#include "policy/decode.h"
#include "policy/robot.h"
#include "text/fast.h"

// A policy's, const after opening.
typedef struct soma_writing {
    const soma_model *model; // borrowed
    soma_fast *fast;
    soma_answer_form form;
    int64_t T, A; // of the chunk that is written: the model's horizon, the robot's actions
} soma_writing;

// The folder with the action tokenizer of the checkpoint in `dir`.
soma_status soma__writing_find(char folder[SOMA_PATH_MAX], const char *dir, soma_error *err);
// `given`: a folder with the tokenizer; "bins": 256 bins per value and step; "": looked for in the checkpoint's folder, its fast/ and its
// action_tokenizer/.
soma_status soma__writing_open(soma_writing *writing, const char *dir, const char *given, const soma_robot *robot, const soma_model *model,
                               soma_error *err);
void soma__writing_close(soma_writing *writing); // {0} allowed

// A runner's: what n rows need.
typedef struct soma_writing_work {
    soma_fast_work *fast;
    int64_t n;
    soma_rng *rngs;          // [n]; set before each call
    int32_t *ids, *codes;    // [n, G]; [G]
    int64_t *n_ids;          // [n]
    float *logits;           // [n, V]
    double *chunk;           // [T, A]
    soma_answer_flaw *flaws; // [n]; out
} soma_writing_work;
soma_status soma__writing_work_new(soma_writing_work *work, const soma_writing *writing, int64_t n, soma_error *err);
void soma__writing_work_free(soma_writing_work *work); // {0} allowed

// Writes n answers and reads them: x [n, horizon, action_dim] of the model, zeros beyond the robot's actions. A malformed answer is no
// error: what can be read of it is decoded, the rest is zeros (in openpi's form the whole chunk, as openpi does), and its flaw is told.
soma_status soma__write_chunks(const soma_writing *writing, soma_writing_work *work, double temperature, bool constrain, soma_frame *encode,
                               soma_frame *decode, soma_feed *feed, float *x, soma_error *err);

// ---- learning: prompt and answer of n demonstrations in one text [n, L]
typedef struct soma_lesson {
    soma_fast_work *fast;
    int64_t n, L;                   // L: soma_build's for TRAIN
    int32_t *tokens;                // [n, L]
    uint8_t *mask, *causal, *learn; // [n, L], as soma_batch has them
    double *chunk;                  // [T, A]
    int64_t n_cut;                  // answers that were longer than the model's: their end is not learned
} soma_lesson;
soma_status soma__lesson_new(soma_lesson *lesson, const soma_writing *writing, int64_t n, soma_error *err);
void soma__lesson_free(soma_lesson *lesson); // {0} allowed
// Row i: the prompt's tokens and mask [soma__prompt_room], then the answer for x [horizon, action_dim] of the model.
soma_status soma__lesson_fill(soma_lesson *lesson, const soma_writing *writing, int64_t i, const int32_t *prompt, const uint8_t *mask,
                              const float *x, soma_error *err);

#endif
