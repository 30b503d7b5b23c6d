// SPDX-License-Identifier: Apache-2.0
// PNG: round trip to the bit, pictures of other kinds made here byte by byte, cut and mutated files, failed allocations. JPEG: close to
// what was coded, padded, cut and mutated ones.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/rng.h"
#include "format/image.h"
#include "toy_jpeg.h"

#include <png.h>
#include <stdlib.h>
#include <string.h>

enum { W = 37, H = 21 };

static void fill(uint8_t *rgb) {
    for (int i = 0; i < W * H * 3; i++) rgb[i] = (uint8_t)(i * 7 + i / 5);
}

static void round_trip(void **state) {
    uint8_t rgb[W * H * 3], back[W * H * 3];
    void *png;
    size_t size;
    int width, height;
    soma_error err = {0};
    fill(rgb);
    assert_int_equal(soma__png_encode(&png, &size, rgb, W, H, &err), SOMA_OK);
    assert_int_equal(soma__png_size(&width, &height, png, size, "p", &err), SOMA_OK);
    assert_true(width == W && height == H);
    assert_int_equal(soma__png_decode(back, W, H, png, size, "p", &err), SOMA_OK);
    assert_memory_equal(rgb, back, sizeof rgb);
    assert_int_equal(soma__png_decode(back, H, W, png, size, "the picture of row 3", &err), SOMA_BAD_INPUT);
    assert_non_null(strstr(err.text, "the picture of row 3"));
    assert_non_null(strstr(err.text, "37 x 21"));
    for (size_t n = 0; n < size; err.text[0] = 0, n += n < 60 ? 1 : 41) {
        uint8_t *cut = malloc(n + 1);
        memcpy(cut, png, n);
        // libpng does without the end marker once all pixels are there
        if (!soma__png_decode(back, W, H, cut, n, "cut", &err)) assert_memory_equal(rgb, back, sizeof rgb);
        if (n < size / 2) assert_non_null(strstr(err.text, "cut"));
        free(cut);
    }
    soma_rng rng = soma__rng(3);
    for (int i = 0; i < 2000; i++) { // an error or a picture, never a crash
        uint8_t *at = (uint8_t *)png + soma__rng_below(&rng, size), kept = *at;
        *at = (uint8_t)soma__rng_u64(&rng);
        if (soma__png_decode(back, W, H, png, size, "mutated", &err)) assert_non_null(strstr(err.text, "mutated"));
        *at = kept;
    }
    soma__free(png);
    soma__alloc_fail_after(0);
    assert_int_equal(soma__png_encode(&png, &size, rgb, W, H, &err), SOMA_NO_MEMORY);
    soma__alloc_fail_after(-1);
}

// Other pixel formats through libpng's own writer.
static void other_kinds(void **state) {
    uint8_t grey[4] = {0, 100, 200, 255}, rgba[16] = {10, 20, 30, 255, 40, 50, 60, 128, 70, 80, 90, 255, 1, 2, 3, 0}, out[12], png[2000];
    soma_error err = {0};
    png_image image = {.version = PNG_IMAGE_VERSION, .width = 2, .height = 2, .format = PNG_FORMAT_GRAY};
    png_alloc_size_t size = sizeof png;
    assert_true(png_image_write_to_memory(&image, png, &size, 0, grey, 0, NULL));
    assert_int_equal(soma__png_decode(out, 2, 2, png, size, "grey", &err), SOMA_OK);
    for (int i = 0; i < 12; i++) assert_int_equal(out[i], grey[i / 3]);
    image = (png_image){.version = PNG_IMAGE_VERSION, .width = 2, .height = 2, .format = PNG_FORMAT_RGBA};
    size = sizeof png;
    assert_true(png_image_write_to_memory(&image, png, &size, 0, rgba, 0, NULL));
    assert_int_equal(soma__png_decode(out, 2, 2, png, size, "rgba", &err), SOMA_OK);
    for (int i = 0; i < 12; i++) assert_int_equal(out[i], rgba[i / 3 * 4 + i % 3]);
    soma__alloc_fail_after(0);
    assert_int_equal(soma__png_decode(out, 2, 2, png, size, "rgba", &err), SOMA_NO_MEMORY);
    soma__alloc_fail_after(-1);
}

static void jpeg(void **state) {
    uint8_t rgb[W * H * 3], back[W * H * 3];
    unsigned char *bytes;
    unsigned long size;
    int width, height;
    soma_error err = {0};
    for (int i = 0; i < W * H * 3; i++) rgb[i] = (uint8_t)(i / 3 % W * 3 + i / (3 * W) * 5 + i % 3 * 20);
    make_jpeg(&bytes, &size, rgb, W, H);
    assert_int_equal(soma__image_size(&width, &height, bytes, size, "p", &err), SOMA_OK);
    assert_true(width == W && height == H);
    assert_int_equal(soma__image_decode(back, W, H, bytes, size, "p", &err), SOMA_OK);
    for (int i = 0; i < W * H * 3; i++) assert_true(abs(back[i] - rgb[i]) <= 3);
    assert_int_equal(soma__image_decode(back, H, W, bytes, size, "the picture of row 3", &err), SOMA_BAD_INPUT);
    assert_non_null(strstr(err.text, "the picture of row 3"));
    assert_non_null(strstr(err.text, "37 x 21"));
    uint8_t *padded = calloc(size + 100, 1), again[W * H * 3];
    memcpy(padded, bytes, size);
    assert_int_equal(soma__image_decode(again, W, H, padded, size + 100, "padded", &err), SOMA_OK);
    assert_memory_equal(again, back, sizeof again);
    for (size_t cut = 0; cut + 2 < size; cut++) { // all but the end marker are needed
        uint8_t *part = malloc(cut + 1);
        memcpy(part, bytes, cut);
        assert_int_equal(soma__image_decode(back, W, H, part, cut, "cut", &err), SOMA_BAD_INPUT);
        assert_non_null(strstr(err.text, "cut"));
        free(part);
    }
    soma_rng rng = soma__rng(4);
    for (int i = 0; i < 2000; i++) { // an error or a picture, never a crash
        size_t at = (size_t)soma__rng_below(&rng, size);
        padded[at] = (uint8_t)soma__rng_u64(&rng);
        if (soma__image_decode(back, W, H, padded, size, "mutated", &err)) assert_non_null(strstr(err.text, "mutated"));
        padded[at] = bytes[at];
    }
    free(padded);
    free(bytes);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(round_trip), cmocka_unit_test(other_kinds), cmocka_unit_test(jpeg)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
