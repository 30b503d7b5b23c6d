// SPDX-License-Identifier: Apache-2.0
// A success rate and what it is worth: the Wilson score interval.
#ifndef SOMA_EVAL_RATE_H
#define SOMA_EVAL_RATE_H

#include "base/json.h"

typedef struct soma_rate {
    double rate, low, high; // of 1; the 95 % interval
    int64_t n;
} soma_rate;

// `hits` of `n`. n = 0: nothing is known, 0 to 1.
soma_rate soma__rate(int64_t hits, int64_t n);
json_t *soma__rate_json(soma_rate rate); // {rate, low, high, n}; a new reference, NULL when memory is out
// Reads it back from a result file; `where` is the file's name.
soma_status soma__rate_read(soma_rate *rate, const json_t *object, const char *key, const char *where, soma_error *err);

#endif
