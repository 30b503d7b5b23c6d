// SPDX-License-Identifier: Apache-2.0
// soma: train a policy on demonstrations.
#ifndef SOMA_TRAIN_H
#define SOMA_TRAIN_H

#include <soma/base.h>
#include <soma/opts.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SOMA_TRAIN_OPTS(X)                                                                                                           \
    X(TEXT, family, "pi0", "network family; pi05 is pi0 with adaptive norms")                                                        \
    X(TEXT, preset, "nano", "sizes to start from")                                                                                   \
    X(TEXT, model, "", "JSON file with sizes that differ from the preset's")                                                         \
    X(TEXT, init, "", "folder of a checkpoint to start from (ours, openpi's, LeRobot's); sizes and vocabulary are its own")          \
    X(TEXT, vlm, "", "checkpoint, of any family, whose vision and language weights to start from; the rest begins anew")             \
    X(TEXT, text_tokenizer, "", "tokenizer's file or folder; empty: the checkpoint's; words: a vocabulary of the data's prompts")    \
    X(TEXT, action_tokenizer, "", "of a family that writes tokens: FAST's folder (soma fast fit), or bins; empty: the checkpoint's") \
    X(TEXT, lora, "", "low-rank pairs: openpi, openpi_language, openpi_expert or peft; empty: all weights are trained")              \
    X(INT, lora_rank, 0, "rank of the pairs; 0: openpi's 16 (language) and 32 (expert), 16 of peft")                                 \
    X(REAL, lora_alpha, 0, "their scale is alpha / rank; 0: alpha is the rank")                                                      \
    X(FLAG, lora_stabilised, false, "their scale is alpha / sqrt(rank)")                                                             \
    X(TEXT, lora_targets, "", "peft: extended regular expression over whole names of linear layers; empty: LeRobot's")               \
    X(TEXT, freeze, "", "globs over weights that are not trained; published: what the recipe keeps")                                 \
    X(FLAG, recompute, false, "compute a block's intermediates again in the backward pass instead of keeping them")                  \
    X(TEXT, data, "", "folder of a dataset; of several, separated by commas, rows are mixed")                                        \
    X(TEXT, weights, "", "of several datasets: how often rows come from each, with commas; empty: by their frames")                  \
    X(FLAG, skip_bad, false, "leave out episodes that cannot be read (all are read and decoded once before)")                        \
    X(TEXT, out, "", "folder of the policy: weights, config, statistics, curves")                                                    \
    X(TEXT, state_key, "", "feature with the robot's state; empty: observation.state, else state")                                   \
    X(TEXT, action_key, "", "feature with the actions; empty: action, else actions")                                                 \
    X(TEXT, cameras, "", "picture features, separated by commas; empty: those of the dataset, as many as the model has")             \
    X(TEXT, normalise, "openpi_zscore", "openpi_zscore, openpi_quantile, lerobot_mean_std, lerobot_quantiles, lerobot_min_max")      \
    X(FLAG, delta, false, "actions are learned relative to the present state (grippers stay absolute)")                              \
    X(TEXT, robot, "", "a built-in robot or JSON file: conversions, relative actions; or one per dataset; empty: as they are")       \
    X(INT, horizon, 0, "actions in a chunk; 0: the model's")                                                                         \
    X(INT, steps, 2000, "optimiser steps")                                                                                           \
    X(INT, batch, 32, "observations in a step")                                                                                      \
    X(INT, accumulate, 1, "passes that a step's observations are split into")                                                        \
    X(INT, mean_steps, 0,                                                                                                            \
      "steps at the start that learn the mean chunk (no noise, time 1), before the flow; finds what to look at sooner")              \
    X(INT, draws, 1, "(noise, time) pairs per observation, which share one prefix")                                                  \
    X(REAL, lr, 5e-4, "peak learning rate")                                                                                          \
    X(REAL, lr_end, 0, "learning rate at the last step; 0: a tenth of the peak")                                                     \
    X(INT, warmup, 100, "steps of linear warm-up, cosine after")                                                                     \
    X(REAL, beta1, 0.9, "AdamW")                                                                                                     \
    X(REAL, beta2, 0.95, "AdamW")                                                                                                    \
    X(REAL, eps, 1e-8, "AdamW")                                                                                                      \
    X(REAL, weight_decay, 1e-10, "AdamW, decoupled")                                                                                 \
    X(REAL, clip, 1.0, "largest norm of the whole gradient; 0: none")                                                                \
    X(REAL, ema, 0.99, "moving average of the weights, which is what is served; 0: none")                                            \
    X(TEXT, augment, "", "pictures changed at random: openpi, or crop=0.95,degrees=5,brightness=0.3,contrast=0.4,saturation=0.5")    \
    X(REAL, drop_camera, 0, "share of the pictures that are left out, never all of a sample; the policy may then act without")       \
    X(REAL, drop_state, 0, "share of the samples whose state is left out (zero, which is its mean)")                                 \
    X(REAL, drop_prompt, 0, "share of the samples whose prompt is empty")                                                            \
    X(TEXT, prompts, "first", "of an episode with several instructions: first, or any at random")                                    \
    X(REAL, state_noise, 0, "standard deviation of noise on the normalised state")                                                   \
    X(INT, seed, 0, "initial weights, order of the data, noise")                                                                     \
    X(TEXT, holdout, "", "episodes kept out of training, separated by commas; empty: as many as --holdout-share says")               \
    X(REAL, holdout_share, 0.05, "share of the episodes kept out of training")                                                       \
    X(INT, eval_every, 250, "steps between two looks at the held-out episodes; the best weights are kept")                           \
    X(TEXT, keep, "best", "which look at the held-out episodes leaves its weights: best or last")                                    \
    X(INT, save_every, 500, "steps between two states that a run resumes from")                                                      \
    X(FLAG, resume, false, "go on from the last saved state in --out")                                                               \
    X(TEXT, dtype, "bf16", "matrix products in bf16 or f32; weights are f32")                                                        \
    X(TEXT, isa, "", "plain, avx2, neon ...; empty: the best there is")                                                              \
    X(INT, threads, 0, "threads; 0: as many as processors")                                                                          \
    X(INT, workers, 1, "threads that read the data")                                                                                 \
    X(REAL, cache, 0, "GiB of decoded pictures kept in memory; 0: half of the machine's")                                            \
    X(TEXT, cache_folder, "", "folder that decoded pictures are kept in from run to run, for other runs, too; empty: none")          \
    X(REAL, cache_disk, 64, "GiB that its files may take")
SOMA_OPTS_DECLARE(soma_train_opts, SOMA_TRAIN_OPTS)
soma_train_opts soma_train_defaults(void);

// What is told after every step; borrowed for the call. Return false to stop: the state is saved, soma_train returns SOMA_CANCELLED.
typedef struct soma_train_progress {
    int64_t step, steps;
    double loss, grad_norm, lr;
    double samples_per_second;
    double gflop_per_sample;
    double wait_share; // of the time since the first step: the trainer waited for data
    double eval_loss;  // NaN when no look at the held-out episodes was taken in this step
} soma_train_progress;
typedef bool soma_train_report(void *user, const soma_train_progress *progress);

// What a run would need; bytes unless said otherwise. Data is what the readers and decoded pictures may take at most, beside the rest.
typedef struct soma_train_need {
    int64_t values_trained, values_frozen;
    size_t trained, frozen;                  // f32 weights that are trained; weights that are only read, in their own dtype
    size_t gradients, moments, average;      // of what is trained
    size_t intermediates, inputs, workspace; // of the passes; of the largest kernel
    size_t graphs;                           // the passes' graphs themselves
    size_t total;                            // of the above
    size_t data;
    double gflop_per_step, gflop_per_second; // of matrix products and attention; what this machine makes of a matrix product
    double seconds_per_step;                 // the least: products at that speed and one look at every array
    int64_t steps;
} soma_train_need;
// Reads the dataset's and the checkpoint's tables, builds the graphs and plans them; trains nothing and writes nothing.
soma_status soma_train_plan(soma_train_need *need, const soma_train_opts *opts, soma_error *err);

// Trains and leaves the policy in opts->out. Every file is written whole or not at all; a run that was cut off goes on with `resume` and
// ends with the same bits as one that was not. report NULL: silence.
soma_status soma_train(const soma_train_opts *opts, soma_train_report *report, void *user, soma_error *err);

#ifdef __cplusplus
}
#endif
#endif
