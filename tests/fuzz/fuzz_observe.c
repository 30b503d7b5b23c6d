// SPDX-License-Identifier: Apache-2.0
// Any bytes as a client's observation: a sentence, or an observation whose every pixel and number may be read.
#include "serve/observe.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_all(const soma_obs *obs) {
    unsigned sum = 0;
    for (int i = 0; i < obs->n_images; i++)
        for (int64_t p = 0; p < (int64_t)obs->images[i].width * obs->images[i].height * 3; p++) sum += obs->images[i].pixels[p];
    for (int i = 0; i < obs->n_state; i++)
        if (!isfinite(obs->state[i])) abort();
    if (obs->prompt) sum += (unsigned)strlen(obs->prompt);
    volatile unsigned keep = sum;
    (void)keep;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const cameras[] = {"scene", "wrist"};
    const soma_policy_info info = {.n_state = 3, .n_cameras = 2, .camera_names = cameras};
    soma_arena arena = {0};
    soma_error err = {0};
    soma_obs obs;
    const soma_msg *m;
    if (soma__msg_parse(&m, &arena, data, size, true, &err) == SOMA_OK && soma__observe(&obs, &info, m, &arena, &err) == SOMA_OK)
        read_all(&obs);
    else if (!err.text[0])
        abort();
    soma__arena_free(&arena);
    return 0;
}
