// SPDX-License-Identifier: Apache-2.0
// What `soma fast stats` measures, and its picture.
#ifndef SOMA_CMD_CMD_FAST_H
#define SOMA_CMD_CMD_FAST_H

#include "base/json.h"
#include "base/pool.h"
#include "cmd/cmd_chunks.h"
#include "text/fast.h"

// How one tokenizer does on one dataset's chunks: {tokenizer, tokens: {mean, median, p99, max}, binned, ratio, error_rms (normalised),
// error: {rms: [A], max: [A]} in robot units, limits, refused}. A new reference.
soma_status soma__fast_measure(json_t **result, const soma_fast *fast, const char *name, const soma_chunks *chunks, soma_pool *pool,
                               soma_error *err);
// Error against tokens: fits a tokenizer for each scale and vocabulary and measures it. [{scale, vocab, tokens, error_rms}].
soma_status soma__fast_curve(json_t **result, const soma_chunks *chunks, soma_pool *pool, soma_error *err);
// A page with the tables and curves of `stats` (as --json prints it); it loads nothing.
soma_status soma__fast_page(const char *path, const json_t *stats, soma_error *err);

#endif
