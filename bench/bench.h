// SPDX-License-Identifier: Apache-2.0
// What `soma bench` can measure. Each returns a JSON object (a new reference) with the machine, the figures and their spread, and the share
// of the limit that was measured in the same run; a table is printed from it.
#ifndef SOMA_BENCH_BENCH_H
#define SOMA_BENCH_BENCH_H

#include "base/json.h"
#include "base/opts.h"
#include "base/rng.h"
#include "device/cpu/peak.h"
#include "model/family.h"

#define SOMA_BENCH_OPTS(X)                                                                      \
    X(TEXT, family, "pi0", "network family")                                                    \
    X(TEXT, preset, "nano", "its sizes")                                                        \
    X(TEXT, model, "", "JSON file with sizes that differ from the preset's")                    \
    X(INT, batch, 32, "observations in a training step")                                        \
    X(INT, draws, 4, "(noise, time) pairs per observation")                                     \
    X(INT, repeats, 10, "timed repeats; the median is told, with the fastest and slowest")      \
    X(TEXT, dtype, "bf16", "matrix products in bf16 or f32; acting also in int8, int8w, int4w") \
    X(TEXT, isa, "", "plain, avx2, neon ... (docs/bench.md); empty: the best there is")         \
    X(INT, threads, 0, "threads; 0: as many as processors")
SOMA_OPTS_DECLARE(soma_bench_opts, SOMA_BENCH_OPTS)

#define SOMA_BENCH_FAST_OPTS(X)                                                                        \
    X(TEXT, tokenizer, "", "fast: folder of a FAST tokenizer")                                         \
    X(TEXT, data, "", "fast: datasets, separated by commas, to take chunks from; none: smooth motion") \
    X(INT, fit_chunks, 100000, "fast: chunks of 16x7 to fit a tokenizer to; 0: none")                  \
    X(TEXT, save, "", "fast: write the chunks into this folder, for tools/bench_fast.py")
SOMA_OPTS_DECLARE(soma_bench_fast_opts, SOMA_BENCH_FAST_OPTS)
extern const struct soma_opt_table soma_bench_fast_opts_table;
soma_bench_fast_opts soma__bench_fast_defaults(void);

#define SOMA_BENCH_TEXT_OPTS(X)                                                        \
    X(TEXT, text_tokenizer, "", "text: a text tokenizer's file, or a folder with one") \
    X(TEXT, text, "", "text: a file to encode")
SOMA_OPTS_DECLARE(soma_bench_text_opts, SOMA_BENCH_TEXT_OPTS)
extern const struct soma_opt_table soma_bench_text_opts_table;
soma_bench_text_opts soma__bench_text_defaults(void);

#define SOMA_BENCH_POLICY_OPTS(X)                                                                                            \
    X(FLAG, random, false, "policy: random weights of --family and --preset, made in memory")                                \
    X(TEXT, policy, "", "policy: a checkpoint's folder instead")                                                             \
    X(TEXT, cache, "", "policy: with --policy, a folder of packed weights to map; they are kept there where there are none") \
    X(INT, views, 2, "policy: cameras that are there")                                                                       \
    X(INT, tokens, 16, "policy: tokens of the prompt, at most the model's (in steps of 16)")                                 \
    X(INT, answer, 64, "policy: tokens that a family which writes its chunk as tokens writes")                               \
    X(FLAG, profile, false, "policy: where the time goes, by op and shape, too")                                             \
    X(TEXT, peer, "", "policy: figures of another program (tools/peer_torch.py) to set beside these")
SOMA_OPTS_DECLARE(soma_bench_policy_opts, SOMA_BENCH_POLICY_OPTS)
extern const struct soma_opt_table soma_bench_policy_opts_table;
soma_bench_policy_opts soma__bench_policy_defaults(void);

#define SOMA_BENCH_DATA_OPTS(X)                                                               \
    X(INT, rows, 1000000, "data: rows that statistics are taken of")                          \
    X(INT, width, 14, "data: numbers of a row")                                               \
    X(INT, horizon, 50, "data: actions of a chunk, for the statistics relative to the state") \
    X(INT, frames, 10000000, "data: frames of the dataset that is opened")                    \
    X(INT, limit, 256, "data: MiB of states and actions that the loader may keep")            \
    X(REAL, seconds, 6, "data: for which the loader is sampled")
SOMA_OPTS_DECLARE(soma_bench_data_opts, SOMA_BENCH_DATA_OPTS)
extern const struct soma_opt_table soma_bench_data_opts_table;
soma_bench_data_opts soma__bench_data_defaults(void);

#define SOMA_BENCH_LOADER_OPTS(X)                                                                       \
    X(TEXT, data, "", "loader: datasets with pictures, separated by commas; none: one that is made up") \
    X(INT, workers, 1, "loader: threads that read")                                                     \
    X(REAL, seconds, 3, "loader: of each measurement")                                                  \
    X(INT, steps, 30, "loader: of the trainer whose waiting is measured; 0: none")                      \
    X(TEXT, save, "", "loader: write the samples' order into this file, for tools/peer_loader.py")      \
    X(TEXT, scratch, "", "loader: folder for what is made and kept meanwhile; empty: /tmp")
SOMA_OPTS_DECLARE(soma_bench_loader_opts, SOMA_BENCH_LOADER_OPTS)
extern const struct soma_opt_table soma_bench_loader_opts_table;
soma_bench_loader_opts soma__bench_loader_defaults(void);

#define SOMA_BENCH_SERVE_OPTS(X)                                                                          \
    X(INT, requests, 500, "serve: requests of one client, for what the server adds to the policy's call") \
    X(INT, clients, 8, "serve: clients at once")                                                          \
    X(REAL, rate, 10, "serve: requests a second of each")                                                 \
    X(REAL, share, 0.8, "serve: of what batches could answer, asked for by the same clients; 0: not")     \
    X(REAL, seconds, 60, "serve: for so long; 0: only one client is measured")                            \
    X(REAL, deadline_ms, 100, "serve: from a request to its answer")
SOMA_OPTS_DECLARE(soma_bench_serve_opts, SOMA_BENCH_SERVE_OPTS)
extern const struct soma_opt_table soma_bench_serve_opts_table;
soma_bench_serve_opts soma__bench_serve_defaults(void);

#define SOMA_BENCH_RECORD_OPTS(X)                            \
    X(INT, cameras, 3, "record: cameras")                    \
    X(INT, camera_width, 640, "record: pixels, even")        \
    X(INT, camera_height, 480, "record: pixels, even")       \
    X(REAL, rate, 30, "record: pictures per second of each") \
    X(REAL, seconds, 3, "record: of filming at that rate")   \
    X(TEXT, scratch, "", "record: folder for what is recorded; empty: /tmp")
SOMA_OPTS_DECLARE(soma_bench_record_opts, SOMA_BENCH_RECORD_OPTS)
extern const struct soma_opt_table soma_bench_record_opts_table;
soma_bench_record_opts soma__bench_record_defaults(void);

typedef struct soma_spread {
    double median, low, high; // seconds
} soma_spread;
soma_spread soma__bench_spread(double *seconds, int64_t n); // sorts them
json_t *soma__bench_machine(const char *isa, int threads);  // {processor, isa, threads}

// Where a profiled plan's time goes (cpu_profile_start), a run's mean: rows {op, shape, steps, plain, ms, flops}, the longest first.
json_t *soma__bench_profile(const soma_plan *plan, int64_t runs);
void soma__bench_profile_print(const json_t *rows, double least_share); // rows of a smaller share of the whole are left out

// What the machine could do at best, for 1 thread to opts->threads.
enum { SOMA_BENCH_EXPERT = 623000000 };                   // bytes that a flow step of pi0 reads: its expert's weights in bf16
cpu_multiplied soma__bench_multiplied(const char *dtype); // what products of this --dtype multiply
soma_status soma__bench_peaks(json_t **out, const soma_bench_opts *opts, soma_error *err);
void soma__bench_peaks_print(const json_t *result);

// A policy's chunk beside the machine's limit.
soma_status soma__bench_policy(json_t **out, const soma_bench_opts *opts, const soma_bench_policy_opts *policy, soma_error *err);
void soma__bench_policy_print(const json_t *result);
// The same for each family and dtype of lists "pi0,pi05" and "bf16,int8", one after the other: {what: "policies", policies: [..]}. Of one
// of each, what soma__bench_policy gives.
soma_status soma__bench_policies(json_t **out, const soma_bench_opts *opts, const soma_bench_policy_opts *policy, soma_error *err);
void soma__bench_policies_print(const json_t *result);

soma_status soma__bench_train(json_t **out, const soma_bench_opts *opts, soma_error *err);   // one training step, op by op
soma_status soma__bench_kernels(json_t **out, const soma_bench_opts *opts, soma_error *err); // the ops that the time goes to
void soma__bench_kernels_print(const json_t *result);

// FAST: chunks one at a time, in batches, and fitting.
soma_status soma__bench_fast(json_t **out, const soma_bench_opts *opts, const soma_bench_fast_opts *fast, soma_error *err);
void soma__bench_fast_print(const json_t *result);

// Text to ids, a file and a prompt.
soma_status soma__bench_text(json_t **out, const soma_bench_opts *opts, const soma_bench_text_opts *text, soma_error *err);
void soma__bench_text_print(const json_t *result);

// A server of a policy's folder ("": a made-up one with three cameras) on loopback: what it adds, batches, many clients against a deadline.
soma_status soma__bench_serve(json_t **out, const soma_bench_opts *opts, const soma_bench_serve_opts *serve, const char *policy,
                              soma_error *err);
void soma__bench_serve_print(const json_t *result);

// Statistics of many rows, and a dataset of many frames.
soma_status soma__bench_data(json_t **out, const soma_bench_opts *opts, const soma_bench_data_opts *data, soma_error *err);
void soma__bench_data_print(const json_t *result);

// The loader: datasets' samples, and how long a trainer waits for them.
soma_status soma__bench_loader(json_t **out, const soma_bench_opts *opts, const soma_bench_loader_opts *loader, soma_error *err);
void soma__bench_loader_print(const json_t *result);
// A square that moves over a slope of colours, with a little noise: neither still nor noise alone, which no codec could do anything with.
void soma__bench_paint(uint8_t *rgb, int width, int height, int frame, int camera, soma_rng *rng);

// The recorder: cameras that film at their rate, and as fast as it goes.
soma_status soma__bench_record(json_t **out, const soma_bench_record_opts *record, soma_error *err);
void soma__bench_record_print(const json_t *result);

#endif
