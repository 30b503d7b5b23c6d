// SPDX-License-Identifier: Apache-2.0
// Any bytes as adapter_config.json, beside a file of one pair and as a file of our own form: a sentence, or pairs that can be built.
#include "policy/adapter.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static soma_safetensors *one_pair(void) {
    static const char header[] =
        "{\"base_model.model.model.q_proj.lora_A.weight\":{\"dtype\":\"F32\",\"shape\":[1,2],\"data_offsets\":[0,8]}}";
    static char bytes[8 + sizeof header - 1 + 8];
    const uint64_t len = sizeof header - 1;
    memcpy(bytes, &len, sizeof len);
    memcpy(bytes + 8, header, sizeof header - 1);
    soma_safetensors *file;
    if (soma__safetensors_open_bytes(&file, bytes, sizeof bytes, "pair", NULL)) abort();
    return file;
}

static void check(const soma_adapter_set *set) {
    for (size_t i = 0; i < set->n_adapters; i++) {
        const soma_adapter *d = &set->adapters[i];
        if (!d->glob || d->rank < 1 || d->n_heads < 0 || d->form > SOMA_ADAPTER_OPENPI_FROM_HEADS) abort();
    }
    if (!soma__adapters_prefix(set)) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    json_t *root;
    soma_error err = {0};
    if (soma__json_parse(&root, (const char *)data, size, "bytes", &err)) return 0;
    soma_safetensors *file = one_pair();
    soma_adapter_set set = {0};
    if (soma__adapters_parse(&set, root, file, "bytes", &err) == SOMA_OK)
        check(&set);
    else if (!err.text[0])
        abort();
    soma__adapters_free(&set);
    soma__safetensors_close(file);
    json_decref(root);
    return 0;
}
