// SPDX-License-Identifier: Apache-2.0
// One line on standard error that tells how far long work has come: a bar on a terminal, a plain line now and then elsewhere.
#ifndef SOMA_BASE_PROGRESS_H
#define SOMA_BASE_PROGRESS_H

#include "base/base.h"

typedef struct soma_progress {
    const char *label;
    int64_t total;
    int64_t first; // what was done before `started`, by an earlier run
    double started, shown;
    bool terminal, quiet;
} soma_progress;

soma_progress soma__progress_start(const char *label, int64_t total); // label is borrowed
// `detail` (NULL allowed) is printed behind the bar: "loss 0.12  310 samples/s".
void soma__progress_show(soma_progress *p, int64_t done, const char *detail);
void soma__progress_end(soma_progress *p, int64_t done, const char *detail);

#endif
