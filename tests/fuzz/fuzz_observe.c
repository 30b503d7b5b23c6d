// SPDX-License-Identifier: Apache-2.0
// Any bytes as a client's observation: a sentence, or an observation whose every pixel and number may be read.
#include "read_obs.h"
#include "serve/observe.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const cameras[] = {"scene", "wrist"};
    const soma_policy_info info = {.n_state = 3, .n_cameras = 2, .camera_names = cameras};
    soma_arena arena = {0};
    soma_error err = {0};
    soma_obs obs;
    const soma_msg *m;
    if (soma__msg_parse(&m, &arena, data, size, true, &err) == SOMA_OK && soma__observe(&obs, &info, m, &arena, &err) == SOMA_OK)
        read_obs(&obs);
    else if (!err.text[0])
        abort();
    soma__arena_free(&arena);
    return 0;
}
