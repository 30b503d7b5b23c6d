// SPDX-License-Identifier: Apache-2.0
// The report: one HTML page with its tables, plots and pictures inside. It loads nothing, so it can be mailed and kept.
#ifndef SOMA_EVAL_PAGE_H
#define SOMA_EVAL_PAGE_H

#include "base/str.h"
#include "eval/openloop.h"
#include "eval/rollout.h"

// `result`: the JSON object of `r` with its "label". `compare`: result files of other runs, separated by commas, "" for none; they become
// further rows. `curves`: a policy's folder whose metrics.jsonl is drawn; ignored where there is none.
soma_status soma__page_rollouts(const char *path, const soma_rollouts *r, const json_t *result, const char *compare, const char *curves,
                                soma_error *err);

soma_status soma__page_openloop(const char *path, const soma_openloop *r, const char *dataset, soma_error *err);

#endif
