// SPDX-License-Identifier: Apache-2.0
// Any bytes as a picture of either kind: a sentence, or pixels of exactly the size that was asked for.
#include "format/image.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    int width, height;
    soma_error err = {0};
    if (soma__jpeg_size(&width, &height, data, size, "bytes", &err)) {
        if (!strstr(err.text, "bytes")) abort();
        return 0;
    }
    if (width < 1 || height < 1) abort();
    if ((int64_t)width * height > 1 << 18) return 0; // a dataset's own size is what is asked for, never the file's
    uint8_t *rgb = malloc((size_t)width * (size_t)height * 3);
    if (soma__image_decode(rgb, width, height, data, size, "bytes", &err) && !strstr(err.text, "bytes")) abort();
    if (!soma__image_decode(rgb, width, height + 1, data, size, "bytes", &err)) abort();
    free(rgb);
    return 0;
}
