// SPDX-License-Identifier: Apache-2.0
// Any bytes as a request of a GR00T client: a sentence, or an observation whose every pixel and number may be read.
#include "read_obs.h"
#include "serve/groot_map.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const cameras[] = {"scene", "wrist"}, *const keys[] = {"arm", "hand"};
    soma_policy_info info = {.horizon = 2, .n_actions = 2, .n_state = 3, .n_cameras = 2, .camera_names = cameras};
    soma__groot_pickle(data, size);
    for (int parts = 0; parts < 2; parts++) { // the state in one part, and in two of whatever length
        soma_arena arena = {0};
        soma_error err = {0};
        soma_obs obs;
        soma_modality modality;
        soma_groot_request request;
        const soma_msg *m;
        info.n_state_keys = parts * 2;
        info.state_keys = keys;
        if (soma__modality_read(&modality, &info, "", &err)) abort();
        if (soma__msg_parse(&m, &arena, data, size, true, &err) == SOMA_OK && soma__groot_read(&request, m, &err) == SOMA_OK &&
            soma__groot_observe(&obs, &modality, &info, &request, &arena, &err) == SOMA_OK)
            read_obs(&obs);
        else if (!err.text[0])
            abort();
        soma__arena_free(&arena);
    }
    return 0;
}
