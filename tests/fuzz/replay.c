// SPDX-License-Identifier: Apache-2.0
// Feeds every file of the folders named on the command line to a fuzz target, as libFuzzer would, plus each file cut short at a few places.
#include "base/file.h"

#include <stdio.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

// The bytes are copied to memory of exactly their size, so that the address sanitizer sees a read behind them.
static int feed(const char *bytes, size_t size) {
    uint8_t *copy = soma__alloc(size);
    if (!copy) return 1;
    for (size_t i = 0; i < size; i++) copy[i] = (uint8_t)bytes[i];
    LLVMFuzzerTestOneInput(copy, size);
    soma__free(copy);
    return 0;
}

static int replay(const char *path) {
    char *bytes;
    size_t size;
    soma_error err = {0};
    if (soma__file_read(&bytes, &size, path, 64 << 20, &err)) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    int status = feed(bytes, size);
    for (int part = 1; part < 8 && status == 0; part++) status = feed(bytes, size * (size_t)part / 8);
    soma__free(bytes);
    return status;
}

int main(int argc, char **argv) {
    int n_files = 0;
    for (int i = 1; i < argc; i++) {
        char **names, path[SOMA_PATH_MAX];
        size_t n;
        soma_error err = {0};
        if (soma__dir_list(&names, &n, argv[i], &err)) {
            fprintf(stderr, "%s\n", err.text);
            return 1;
        }
        for (size_t k = 0; k < n; k++) {
            if (soma__path_join(path, argv[i], names[k], &err) || replay(path)) return 1;
            n_files++;
        }
        soma__dir_list_free(names, n);
    }
    feed("", 0);
    printf("%d files replayed\n", n_files);
    return n_files == 0; // an empty corpus tests nothing
}
