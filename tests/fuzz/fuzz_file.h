// SPDX-License-Identifier: Apache-2.0
// For parsers that want a file: the input's bytes in one, which goes when the process ends.
#ifndef SOMA_TESTS_FUZZ_FILE_H
#define SOMA_TESTS_FUZZ_FILE_H

#include "base/file.h"

#include <stdio.h>
#include <stdlib.h>

static char fuzz_dir[] = "/tmp/soma_fuzz_XXXXXX";
static void fuzz_clean(void) { soma__dir_remove(fuzz_dir, NULL); }

static const char *fuzz_file(const char *name, const uint8_t *data, size_t size) {
    static char path[SOMA_PATH_MAX];
    if (!path[0]) {
        if (!mkdtemp(fuzz_dir) || soma__path_join(path, fuzz_dir, name, NULL)) abort();
        atexit(fuzz_clean);
    }
    FILE *file = fopen(path, "wb"); // not soma__file_write, whose sync would take most of the time
    if (!file || fwrite(data, 1, size, file) != size || fclose(file)) abort();
    return path;
}

#endif
