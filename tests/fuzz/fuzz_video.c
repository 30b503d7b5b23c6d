// SPDX-License-Identifier: Apache-2.0
// Any bytes as a video file: frames at a few times, forwards and backwards, or a sentence that names the file.
#include "format/video.h"
#include "fuzz_file.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const double times[] = {0, 0.1, 0.5, 0.3, 0.7, 1e9};
    const char *path = fuzz_file("input.mp4", data, size);
    soma_video *video;
    soma_error err = {0};
    if (soma__video_open(&video, path, &err)) {
        if (video || !strstr(err.text, path)) abort();
        return 0;
    }
    int64_t width = soma__video_width(video), height = soma__video_height(video);
    if (width < 1 || height < 1) abort();
    uint8_t *rgb = width * height <= 1 << 22 ? malloc((size_t)(width * height * 3)) : NULL;
    for (size_t i = 0; rgb && i < sizeof times / sizeof *times; i++)
        if (soma__video_read(video, times[i], 0.04, rgb, &err) && !strstr(err.text, path)) abort();
    free(rgb);
    soma__video_close(video);
    return 0;
}
