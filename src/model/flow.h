// SPDX-License-Identifier: Apache-2.0
// What families share that denoise a chunk along a flow while looking at a prefix of pictures and prompt: the ends of their graphs (what
// goes in, one step, the loss), and of a batch who is there, who counts, and the pairs to learn from.
//
// x_t = t noise + (1 - t) actions, and the net learns the velocity noise - actions. Time runs from 1 (noise) to 0 (actions).
#ifndef SOMA_MODEL_FLOW_H
#define SOMA_MODEL_FLOW_H

#include "model/family.h"
#include "nn/paligemma.h"

// ---- graphs

// Times of a row: one, or of a net that learns to continue a chunk (soma_model_info.given_max) one for each action, 0 where it is given.
static inline int64_t soma__flow_each(const soma_model_info *info) { return info->given_max ? info->horizon : 1; }

// TRAIN: inputs "actions", "noise", "time", "loss_weight"; R rows for each of the B observations.
typedef struct soma_flow_lesson {
    soma_tensor *x_t, *time, *velocity; // [B R, S, A], [B R] or [B R S], what is learned [B R, S, A]
    soma_tensor *weight;                // [B R, S, A]; sums to one
} soma_flow_lesson;
soma_flow_lesson soma__flow_lesson(soma_graph *g, const soma_model_info *info, int64_t B, int64_t R);
void soma__flow_loss(const soma_flow_lesson *lesson, soma_tensor *v); // v [B R, S, A]: the output "loss"

// DENOISE: inputs "x_t" and "dt" (negative), and "time" f32 [B] or, where something is saved, "step" i32 [B]; the other is NULL. Both are
// [B S] where each action has a time.
typedef struct soma_flow_step {
    soma_tensor *x_t, *time, *step, *dt; // [B, S, A], [B], [B], [1]
} soma_flow_step;
soma_flow_step soma__flow_step(soma_graph *g, const soma_model_info *info, const soma_saving *saving, int64_t B);
void soma__flow_step_end(const soma_flow_step *s, soma_tensor *v); // the outputs "v_t" and "x_next"

// What SCHEDULE keeps of the times' embeddings: [steps, D], f32.
soma_tensor *soma__flow_times(soma_graph *g, int64_t steps, int64_t D);
// Actions and time together, through action_in_proj and action_time_mlp_{in,out}: x_t [N, S, A], emb [N, D] -> [N, S, D]
soma_tensor *soma__flow_tokens(const soma_scope *root, soma_tensor *x_t, soma_tensor *emb, int64_t D);
// The velocity at the tokens h [N, S, D]: [N, S, A], f32.
soma_tensor *soma__flow_velocity(const soma_scope *root, soma_tensor *h, int64_t A);
// A stream's inputs "<name>.position" and "<name>.q_block" [B, T], "<name>.k_block" [B, keys].
void soma__flow_mask(soma_graph *g, soma_stream *s, const char *name, int64_t B, int64_t T, int64_t keys);

// ---- batches

typedef struct soma_flow_rows {
    int32_t *pos, *q_block, *k_block;
} soma_flow_rows;
// Room for those inputs; names [3] are kept. False when memory is out.
bool soma__flow_rows(soma_flow_rows *rows, soma_feed *feed, const char *const names[3], int64_t n, int64_t T, int64_t keys);
// Who of pictures (`each` tokens a camera) and prompt is there, in one row: block 0, or SOMA_BLOCK_NEVER.
void soma__flow_prefix(int32_t *k_block, const soma_model_info *info, const soma_batch *b, int64_t row, int64_t each);
// The state; and of a batch to learn from actions, noise, times and the loss's weights, which are equal over what counts.
soma_status soma__flow_feed(soma_feed *feed, const soma_model_info *info, const soma_batch *b, soma_error *err);

#endif
