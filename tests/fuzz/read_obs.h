// SPDX-License-Identifier: Apache-2.0
// Looks at everything that an observation says it has.
#ifndef TESTS_FUZZ_READ_OBS_H
#define TESTS_FUZZ_READ_OBS_H

#include <soma/soma.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

static inline void read_obs(const soma_obs *obs) {
    unsigned sum = 0;
    for (int i = 0; i < obs->n_images; i++)
        for (int64_t p = 0; p < (int64_t)obs->images[i].width * obs->images[i].height * 3; p++) sum += obs->images[i].pixels[p];
    for (int i = 0; i < obs->n_state; i++)
        if (!isfinite(obs->state[i])) abort();
    if (obs->prompt) sum += (unsigned)strlen(obs->prompt);
    volatile unsigned keep = sum;
    (void)keep;
}

#endif
