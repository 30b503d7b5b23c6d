// SPDX-License-Identifier: Apache-2.0
// Frame-exact seeking on every real video at hand (H.264, AV1, MPEG-4 part 2): every 7th frame, the last one first, has the bits that it
// has when the file is decoded from its beginning. As a test the first frames of each file; with the argument `all` every frame.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/file.h"
#include "base/hash.h"
#include "format/video.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DATA SOMA_SOURCE_DIR "/../shared/data/lerobot"
enum { EVERY = 7, MOST = 1 << 20 };
static int64_t n_first = 80; // frames of each file
static int n_files, n_frames, n_seeks;

static uint64_t hash_of(const uint8_t *rgb, size_t size) { return soma__hash(SOMA_HASH_START, rgb, size); }

static void check_video(const char *path, double fps) {
    soma_video *v;
    soma_error err = {0};
    if (soma__video_open(&v, path, &err)) fail_msg("%s", err.text);
    size_t size = (size_t)soma__video_width(v) * (size_t)soma__video_height(v) * 3;
    uint8_t *rgb = malloc(size);
    uint64_t *hashes = malloc((size_t)n_first * sizeof *hashes);
    int64_t n = 0;
    while (n < n_first && !soma__video_read(v, (double)n / fps, 0.4 / fps, rgb, &err)) hashes[n++] = hash_of(rgb, size);
    assert_int_equal(soma__video_seeks(v), 0);
    assert_true(n > 40);
    for (int64_t f = (n - 1) / EVERY * EVERY; f >= 0; f -= EVERY) {
        if (soma__video_read(v, (double)f / fps, 0.4 / fps, rgb, &err)) fail_msg("frame %lld: %s", (long long)f, err.text);
        if (hash_of(rgb, size) != hashes[f]) fail_msg("%s: frame %lld is another one after a seek", path, (long long)f);
        n_frames++;
    }
    n_seeks += (int)soma__video_seeks(v);
    assert_true(soma__video_seeks(v) > 0);
    free(rgb);
    free(hashes);
    soma__video_close(v);
    n_files++;
}

static void walk(const char *dir, double fps) {
    char **names, path[SOMA_PATH_MAX];
    size_t n;
    if (soma__dir_list(&names, &n, dir, NULL)) return;
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(soma__path_join(path, dir, names[i], NULL), SOMA_OK);
        size_t len = strlen(path);
        if (soma__dir_exists(path)) walk(path, fps);
        if (len > 4 && !strcmp(path + len - 4, ".mp4")) check_video(path, fps);
    }
    soma__dir_list_free(names, n);
}

static void every_seventh(void **state) {
    walk(DATA "/gr1_sim_picknplace_v20/videos", 20);      // H.264
    walk(DATA "/unitree_g1_inspire_real_v21/videos", 30); // AV1
    walk(DATA "/dualarm_hands_real_v30/video", 30);       // MPEG-4 part 2
    if (!n_files) skip();
    print_message("%d files, %d frames compared, %d seeks\n", n_files, n_frames, n_seeks);
}

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "all")) n_first = MOST;
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_seventh)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
