// SPDX-License-Identifier: Apache-2.0
// One training run from inside: what setup.c makes, batch.c fills, checkpoint.c saves, train.c drives.
#ifndef SOMA_TRAIN_TRAINER_H
#define SOMA_TRAIN_TRAINER_H

#include "base/opts.h"
#include "base/rng.h"
#include "base/str.h"
#include "base/file.h"
#include "data/loader.h"
#include "policy/adapter.h"
#include "policy/policy.h"
#include "policy/published.h"
#include "policy/written.h"
#include "train/change.h"
#include "train/mixture.h"
#include "train/optimiser.h"

#include <soma/train.h>

extern const soma_opt_table soma_train_opts_table;

// A graph with its memory: the training pass, or the look at held-out episodes (no gradients, averaged weights).
typedef struct soma_pass {
    int64_t n, draws; // observations, (noise, time) pairs for each
    bool mean;        // no noise, time 1: the velocity is then minus the mean chunk
    soma_graph *graph;
    soma_plan *plan;
    soma_frame *frame;
    soma_rows rows;
    soma_feed feed;
    float *actions, *noise, *time; // [n, S, A], [n draws, S, A], [n draws]
    soma_lesson lesson;            // where chunks are written as tokens
    soma_change_room room;
    uint8_t *pad; // [n, S]
} soma_pass;

// What is told of the long work before the first step: `what` is done, and how much of it, in frames or episodes.
typedef struct soma_train_watch {
    void (*show)(void *user, const char *what, int64_t done, int64_t total); // NULL: nobody wants to know
    void *user;
} soma_train_watch;

typedef struct soma_trainer {
    soma_train_opts o;
    soma_train_watch watch;
    soma_dataset *data;
    int state_feature, action_feature, camera_features[SOMA_MAX_CAMERAS];
    int64_t *training, *heldout; // episode numbers
    int64_t n_training, n_heldout;
    soma_model *model;
    soma_robot robot;
    soma_changes changes; // of observations, at random
    soma_writing writing; // where chunks are written as tokens
    soma_device *device;
    soma_adapter_set change; // what is trained of a checkpoint: pairs, and what is frozen
    soma_params *params;     // what is trained: the layout; the values lie in the optimiser
    soma_params *still;      // what is only read, where the checkpoint's file is mapped; NULL: nothing
    soma_optimiser *optimiser;
    soma_pass pass, look, mean_pass;
    soma_mixture rows, looks; // of training, of the held-out episodes
    struct soma_trainer
        *others;         // [n_others] further datasets: each with its data, features, episodes and robot, the rest borrowed or empty
    int n_others, place; // place: of this dataset in --data
    int64_t step;        // optimiser steps done
    double best;         // lowest held-out loss so far; infinite before the first
} soma_trainer;

// setup.c: the dataset, the robot, the model, what of it is trained; nothing is written.
// `run`: it will be trained, so what cannot be read is looked for where the options say that it is to be left out.
soma_status soma__trainer_prepare(soma_trainer *t, const soma_train_opts *opts, bool run, const soma_train_watch *watch, soma_error *err);
// Everything up to the first step. The folder `out` exists afterwards and holds config.json, norm_stats.json, vocab.json.
soma_status soma__trainer_open(soma_trainer *t, const soma_train_opts *opts, const soma_train_watch *watch, soma_error *err);
// soma_train, watched from the beginning. watch NULL: silence until the first step.
soma_status soma__train(const soma_train_opts *opts, const soma_train_watch *watch, soma_train_report *report, void *user, soma_error *err);
void soma__trainer_close(soma_trainer *t); // {0} and what a failed step left are allowed

// finetune.c: pairs and frozen weights, from the options and the model.
soma_status soma__trainer_adapt(soma_trainer *t, soma_error *err);
soma_build soma__trainer_build(const soma_trainer *t, int64_t n, int64_t draws);             // the training program
soma_status soma__trainer_graph(soma_graph **graph, const soma_trainer *t, soma_error *err); // of one observation, for its weights
// The part of opening that needs only model, device and o: parameters, optimiser, initial weights in "w" and "ema".
soma_status soma__trainer_weights(soma_trainer *t, soma_error *err);
int soma__trainer_picture_side(const soma_trainer *t); // of the pictures that the loaders keep; 0: as they are
// "w" or "ema" as model.safetensors, or what was trained of a checkpoint as an adapter's folder.
soma_status soma__trainer_publish(soma_trainer *t, const char *array, soma_error *err);

// batch.c: batch number `index` of the rows into a pass's inputs. The noise follows from (seed, index) alone.
soma_status soma__pass_fill(soma_trainer *t, soma_pass *pass, soma_mixture *rows, int64_t index, bool training, soma_error *err);
soma_status soma__pass_plan(soma_pass *pass, soma_trainer *t, int64_t n, int64_t draws, bool training, soma_error *err); // no memory yet
soma_status soma__pass_new(soma_pass *pass, soma_trainer *t, int64_t n, int64_t draws, bool training, soma_error *err);
void soma__pass_free(soma_pass *pass);

// checkpoint.c: all that a step changes, in one file that is written whole or not at all.
soma_status soma__trainer_save(soma_trainer *t, soma_error *err);
soma_status soma__trainer_resume(soma_trainer *t, soma_error *err);

// curves.c: metrics.jsonl beside the weights, and the page drawn from it.
soma_status soma__metrics_cut(const char *out, int64_t step, soma_error *err); // drops lines past `step`
soma_status soma__metrics_add(const char *out, const soma_train_progress *p, soma_error *err);
// Charts of the metrics.jsonl in `out`, appended to a page; for reports, too.
soma_status soma__curves_add(soma_str *page, const char *out, soma_error *err);
soma_status soma__curves_write(const char *out, const char *title, soma_error *err); // curves.html

#endif
