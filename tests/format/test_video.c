// SPDX-License-Identifier: Apache-2.0
// Video: every frame of a file spells its number in bright and dark bars, so a frame read by time can be told from its neighbours.
// Sequential and random reading, the same bits either way; files that end early, are cut or are something else; failed allocations.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/file.h"
#include "base/rng.h"
#include "format/video.h"

#include <stdlib.h>
#include <string.h>

enum { W = 64, H = 48, FRAMES = 100 };
static char dir[] = "/tmp/soma_video_XXXXXX";
static const double FPS = 30;

static void in_dir(char out[SOMA_PATH_MAX], const char *name) { assert_int_equal(soma__path_join(out, dir, name, NULL), SOMA_OK); }

// Bit x/8 of the frame's number, dark or bright. A neighbour differs in at least one bar.
static int level_of(int frame, int x) { return frame >> x / 8 & 1 ? 200 : 50; }

static void write_video(const char *path, int frames, int gop, double fps) {
    soma_video_spec spec = {.width = W, .height = H, .fps = fps, .gop = gop, .crf = 18, .preset = "veryfast"};
    soma_video_writer *w;
    soma_error err = {0};
    if (soma__video_writer_open(&w, path, &spec, &err)) fail_msg("%s", err.text);
    uint8_t rgb[W * H * 3];
    for (int f = 0; f < frames; f++) {
        for (int i = 0; i < W * H * 3; i++) rgb[i] = (uint8_t)level_of(f, i / 3 % W);
        if (soma__video_writer_frame(w, rgb, &err)) fail_msg("%s", err.text);
    }
    if (soma__video_writer_commit(w, &err)) fail_msg("%s", err.text);
    soma__video_writer_close(w);
}

static soma_video *open_video(const char *path) {
    soma_video *v;
    soma_error err = {0};
    if (soma__video_open(&v, path, &err)) fail_msg("%s", err.text);
    return v;
}

static void read_frame(soma_video *v, int frame, double fps, uint8_t *rgb) {
    soma_error err = {0};
    if (soma__video_read(v, frame / fps, 0.4 / fps, rgb, &err)) fail_msg("%s", err.text);
    for (int bar = 0; bar < W / 8; bar++) {
        int level = rgb[(H / 2 * W + bar * 8 + 4) * 3 + 1];
        if (abs(level - level_of(frame, bar * 8)) > 20) fail_msg("frame %d: bar %d reads %d", frame, bar, level);
    }
}

static void exact_frames(void **state) {
    static uint8_t forward[FRAMES][W * H * 3], rgb[W * H * 3];
    const int gops[] = {2, 30};
    const double rates[] = {FPS, 29.97, 10};
    for (int g = 0; g < 2; g++)
        for (int r = 0; r < 3; r++) {
            char path[SOMA_PATH_MAX];
            in_dir(path, "it's 100%.mp4");
            write_video(path, FRAMES, gops[g], rates[r]);
            soma_video *v = open_video(path);
            assert_int_equal(soma__video_width(v), W);
            assert_int_equal(soma__video_height(v), H);
            for (int f = 0; f < FRAMES; f++) read_frame(v, f, rates[r], forward[f]);
            assert_int_equal(soma__video_seeks(v), 0);
            soma_rng rng = soma__rng(5);
            for (int i = 0; i < 150; i++) {
                int f = (int)soma__rng_below(&rng, FRAMES);
                read_frame(v, f, rates[r], rgb);
                assert_memory_equal(rgb, forward[f], sizeof rgb);
            }
            read_frame(v, 0, rates[r], rgb);
            read_frame(v, 0, rates[r], rgb); // the same one again
            soma__video_close(v);
        }
}

// libswscale works in blocks: widths that are none are whole to their last column, and nothing is written behind the picture.
static void any_width(void **state) {
    enum { GUARD = 256 };
    for (int width = 2; width <= 70; width += width < 36 ? 2 : 8)
        for (int height = 2; height <= 18; height += 16) {
            const size_t size = (size_t)(width * height) * 3;
            const soma_video_spec spec = {.width = width, .height = height, .fps = FPS, .gop = 2, .crf = 10, .preset = "veryfast"};
            soma_video_writer *w;
            soma_error err = {0};
            char path[SOMA_PATH_MAX];
            uint8_t *rgb = malloc(size + GUARD);
            in_dir(path, "width.mp4");
            memset(rgb, 180, size + GUARD);
            assert_int_equal(soma__video_writer_open(&w, path, &spec, &err), SOMA_OK);
            for (int f = 0; f < 2; f++) assert_int_equal(soma__video_writer_frame(w, rgb, &err), SOMA_OK);
            assert_int_equal(soma__video_writer_commit(w, &err), SOMA_OK);
            soma__video_writer_close(w);
            soma_video *v = open_video(path);
            memset(rgb, 0, size + GUARD);
            if (soma__video_read(v, 1 / FPS, 0.4 / FPS, rgb, &err)) fail_msg("%s", err.text);
            for (size_t i = 0; i < size; i++)
                if (abs(rgb[i] - 180) > 4) fail_msg("%d x %d: byte %zu is %d", width, height, i, rgb[i]);
            for (size_t i = size; i < size + GUARD; i++) assert_int_equal(rgb[i], 0);
            soma__video_close(v);
            free(rgb);
        }
}

static void refused_read(soma_video *v, double seconds, const char *word, const char *word2) {
    static uint8_t rgb[W * H * 3];
    soma_error err = {0};
    assert_int_equal(soma__video_read(v, seconds, 0.4 / FPS, rgb, &err), SOMA_BAD_INPUT);
    if (!strstr(err.text, word) || !strstr(err.text, word2)) fail_msg("%s", err.text);
}

static void ends_early(void **state) {
    char path[SOMA_PATH_MAX];
    static uint8_t rgb[W * H * 3];
    in_dir(path, "short.mp4");
    write_video(path, 20, 2, FPS);
    soma_video *v = open_video(path);
    refused_read(v, 25 / FPS, "short.mp4", "ends before the frame at 0.8333 s");
    read_frame(v, 19, FPS, rgb); // the decoder recovers
    refused_read(v, 20 / FPS, "its last frame is at 0.6333 s", "short.mp4");
    refused_read(v, 1000, "short.mp4", "ends before");
    read_frame(v, 3, FPS, rgb);
    refused_read(v, 3.5 / FPS, "no frame at", "short.mp4");
    refused_read(v, -1, "no frame at", "short.mp4");
    read_frame(v, 4, FPS, rgb);
    soma__video_close(v);
}

static void cut_files(void **state) {
    char path[SOMA_PATH_MAX], cut[SOMA_PATH_MAX], *bytes;
    size_t size;
    soma_error err = {0};
    soma_video *v;
    static uint8_t rgb[W * H * 3];
    in_dir(path, "whole.mp4");
    in_dir(cut, "cut.mp4");
    write_video(path, FRAMES, 2, FPS);
    assert_int_equal(soma__file_read(&bytes, &size, path, 1 << 24, &err), SOMA_OK);
    for (int part = 0; part < 8; part++) { // the index lies at the end: a cut file does not open
        assert_int_equal(soma__file_write(cut, bytes, size * (size_t)part / 8, &err), SOMA_OK);
        assert_int_not_equal(soma__video_open(&v, cut, &err), SOMA_OK);
        assert_null(v);
        assert_non_null(strstr(err.text, "cut.mp4"));
    }
    for (size_t i = size / 2; i < size / 2 + 200; i++) bytes[i] = (char)(i * 37); // frames and index are damaged, or not: never a crash
    assert_int_equal(soma__file_write(cut, bytes, size, &err), SOMA_OK);
    if (!soma__video_open(&v, cut, &err)) {
        for (int f = 0; f < FRAMES; f++) {
            err.text[0] = 0;
            if (soma__video_read(v, f / FPS, 0.4 / FPS, rgb, &err)) assert_non_null(strstr(err.text, "cut.mp4"));
        }
        soma__video_close(v);
    }
    soma__free(bytes);
    assert_int_equal(soma__file_write(cut, "#EXTM3U\nfile:///etc/passwd\n", 27, &err), SOMA_OK);
    assert_int_not_equal(soma__video_open(&v, cut, &err), SOMA_OK);
    in_dir(cut, "absent.mp4");
    assert_int_equal(soma__video_open(&v, cut, &err), SOMA_NOT_FOUND);
    assert_non_null(strstr(err.text, "absent.mp4"));
}

static void bad_specs(void **state) {
    char path[SOMA_PATH_MAX];
    soma_error err = {0};
    soma_video_writer *w;
    in_dir(path, "never.mp4");
    soma_video_spec spec = {.width = 63, .height = H, .fps = FPS, .gop = 2, .crf = 20, .preset = "veryfast"};
    assert_int_equal(soma__video_writer_open(&w, path, &spec, &err), SOMA_BAD_INPUT);
    assert_non_null(strstr(err.text, "even"));
    spec.width = W;
    spec.preset = "no such preset";
    assert_int_not_equal(soma__video_writer_open(&w, path, &spec, &err), SOMA_OK);
    assert_null(w);
    assert_non_null(strstr(err.text, "no such preset"));
    spec.preset = "veryfast";
    assert_int_equal(soma__video_writer_open(&w, path, &spec, &err), SOMA_OK);
    soma__video_writer_close(w); // without commit nothing is left behind
    char **names;
    size_t n, left = 0;
    assert_int_equal(soma__dir_list(&names, &n, dir, &err), SOMA_OK);
    for (size_t i = 0; i < n; i++) left += strstr(names[i], "never") != NULL;
    soma__dir_list_free(names, n);
    assert_int_equal(left, 0);
    in_dir(path, "no/such/folder.mp4");
    assert_int_not_equal(soma__video_writer_open(&w, path, &spec, &err), SOMA_OK);
    soma__alloc_fail_after(0);
    assert_int_equal(soma__video_writer_open(&w, path, &spec, &err), SOMA_NO_MEMORY);
    soma__alloc_fail_after(-1);
}

// One real file per codec: frame by frame and at random give the same bits.
static void real_codecs(void **state) {
    static const struct {
        const char *path;
        double fps;
    } files[] = {
        {"unitree_g1_inspire_real_v21/videos/chunk-000/observation.images.cam_high/episode_000002.mp4", 30}, // AV1
        {"gr1_sim_picknplace_v20/videos/chunk-000/observation.images.ego_view/episode_000000.mp4", 20},      // H.264
        {"dualarm_hands_real_v30/video/image/chunk-000/file-003.mp4", 30},                                   // MPEG-4 part 2
    };
    int read = 0;
    for (size_t k = 0; k < SOMA_COUNT(files); k++) {
        char path[SOMA_PATH_MAX];
        assert_int_equal(soma__path_join(path, SOMA_SOURCE_DIR "/../shared/data/lerobot", files[k].path, NULL), SOMA_OK);
        if (!soma__file_exists(path)) {
            print_message("skipped: %s is absent\n", path);
            continue;
        }
        enum { FIRST = 40, N = 30 };
        soma_video *v = open_video(path);
        soma_error err = {0};
        size_t size = (size_t)soma__video_width(v) * (size_t)soma__video_height(v) * 3;
        uint8_t *frames = malloc(size * N), *rgb = malloc(size);
        for (int f = 0; f < FIRST + N; f++)
            if (soma__video_read(v, f / files[k].fps, 0.4 / files[k].fps, frames + (size_t)(f < FIRST ? 0 : f - FIRST) * size, &err))
                fail_msg("%s", err.text);
        assert_int_equal(soma__video_seeks(v), 0);
        assert_memory_not_equal(frames, frames + size * (N - 1), size);
        for (int i = 0; i < 12; i++) {
            int f = (i * 17 + 5) % N;
            if (soma__video_read(v, (FIRST + f) / files[k].fps, 0.4 / files[k].fps, rgb, &err)) fail_msg("%s", err.text);
            assert_memory_equal(rgb, frames + (size_t)f * size, size);
        }
        assert_true(soma__video_seeks(v) > 0);
        free(frames);
        free(rgb);
        soma__video_close(v);
        read++;
    }
    if (!read) skip();
}

int main(void) {
    if (!mkdtemp(dir)) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exact_frames), cmocka_unit_test(any_width), cmocka_unit_test(ends_early),
        cmocka_unit_test(cut_files),    cmocka_unit_test(bad_specs), cmocka_unit_test(real_codecs),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    soma__dir_remove(dir, NULL);
    return failed;
}
