// SPDX-License-Identifier: Apache-2.0
// safetensors: round trip, goldens of other writers, every way in which a file can lie, every allocation and read that can fail.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/file.h"
#include "base/rng.h"
#include "format/safetensors.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char dir[] = "/tmp/soma_safetensors_XXXXXX";

static const char *in_dir(const char *name) {
    static char path[4][256];
    static int turn;
    turn = (turn + 1) % 4;
    snprintf(path[turn], sizeof path[0], "%s/%s", dir, name);
    return path[turn];
}

// The refusal must be a sentence that holds all of `words` (separated by '|').
static void refused(const char *path, const char *words) {
    soma_safetensors *st;
    soma_error err = {0};
    assert_int_not_equal(soma__safetensors_open(&st, path, &err), SOMA_OK);
    assert_null(st);
    char copy[256];
    snprintf(copy, sizeof copy, "%s", words);
    for (char *save, *word = strtok_r(copy, "|", &save); word; word = strtok_r(NULL, "|", &save))
        if (!strstr(err.text, word)) fail_msg("\"%s\" is not in: %s", word, err.text);
}

static void write_raw(const char *path, uint64_t header_len, const char *header, size_t data_size) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    for (int i = 0; i < 8; i++) fputc((int)(header_len >> 8 * i & 255), f);
    fputs(header, f);
    for (size_t i = 0; i < data_size; i++) fputc((int)i & 255, f);
    fclose(f);
}

static void refuse_header(const char *header, size_t data_size, const char *words) {
    const char *path = in_dir("lying.safetensors");
    write_raw(path, strlen(header), header, data_size);
    refused(path, "lying.safetensors");
    refused(path, words);
}

static void write_sample(const char *path) {
    static const float weight[6] = {1, -2, 3.5f, 0, 1e-30f, INFINITY};
    static const int64_t ids[2] = {-1, INT64_MAX};
    static const uint8_t flags[3] = {1, 0, 1};
    static const double pi = 3.141592653589793;
    soma_safetensor t[] = {
        {.name = "flags", .dtype = SOMA_BOOL, .n_dims = 1, .shape = {3}, .data = flags},
        {.name = "layer.weight", .dtype = SOMA_F32, .n_dims = 2, .shape = {2, 3}, .data = weight},
        {.name = "ids", .dtype = SOMA_I64, .n_dims = 1, .shape = {2}, .data = ids},
        {.name = "pi", .dtype = SOMA_F64, .data = &pi},
        {.name = "empty", .dtype = SOMA_F32, .n_dims = 2, .shape = {0, 4}, .data = NULL},
    };
    json_t *metadata = json_pack("{s:s, s:s}", "format", "pt", "note", "\"quoted\" \xc3\xa4");
    soma_error err = {0};
    assert_int_equal(soma__safetensors_write(path, t, SOMA_COUNT(t), metadata, &err), SOMA_OK);
    json_decref(metadata);
}

static void round_trip(void **state) {
    const char *path = in_dir("sample.safetensors");
    write_sample(path);
    soma_safetensors *st;
    soma_error err = {0};
    assert_int_equal(soma__safetensors_open(&st, path, &err), SOMA_OK);
    assert_int_equal(soma__safetensors_count(st), 5);
    assert_string_equal(soma__safetensors_path(st), path);
    assert_string_equal(soma__safetensors_metadata(st, "note"), "\"quoted\" \xc3\xa4");
    assert_null(soma__safetensors_metadata(st, "absent"));
    assert_null(soma__safetensors_find(st, "layer"));
    const soma_safetensor *w = soma__safetensors_find(st, "layer.weight");
    assert_non_null(w);
    assert_int_equal(w->dtype, SOMA_F32);
    assert_int_equal(w->n_dims, 2);
    assert_int_equal(w->shape[0], 2);
    assert_int_equal(w->shape[1], 3);
    assert_int_equal(w->n_values, 6);
    assert_float_equal(((const float *)w->data)[2], 3.5f, 0);
    char shape[160];
    assert_string_equal(soma__safetensor_shape(shape, w), "[2, 3]");
    for (size_t i = 0; i < 5; i++) {
        assert_true(soma__safetensor_aligned(soma__safetensors_at(st, i)));
        if (i) assert_true(strcmp(soma__safetensors_at(st, i - 1)->name, soma__safetensors_at(st, i)->name) < 0);
    }
    assert_int_equal(((const int64_t *)soma__safetensors_find(st, "ids")->data)[1], INT64_MAX);
    assert_int_equal(soma__safetensors_find(st, "pi")->n_values, 1);
    assert_int_equal(soma__safetensors_find(st, "empty")->n_values, 0);
    soma__safetensors_close(st);

    char *one, *two; // the same input gives the same bytes
    size_t n_one, n_two;
    write_sample(in_dir("again.safetensors"));
    assert_int_equal(soma__file_read(&one, &n_one, path, 1 << 20, &err), SOMA_OK);
    assert_int_equal(soma__file_read(&two, &n_two, in_dir("again.safetensors"), 1 << 20, &err), SOMA_OK);
    assert_int_equal(n_one, n_two);
    assert_memory_equal(one, two, n_one);
    soma__free(one);
    soma__free(two);
}

static void converts(void **state) {
    float out[8];
    uint16_t bf16[] = {0x3f80, 0xc040, 0x7f80};
    soma__to_f32(out, SOMA_BF16, bf16, 3);
    assert_true(out[0] == 1 && out[1] == -3 && isinf(out[2]));
    uint16_t f16[] = {0x3c00, 0xc000, 0x0001, 0x8000, 0x7c00, 0x7e00, 0x7bff};
    soma__to_f32(out, SOMA_F16, f16, 7);
    assert_true(out[0] == 1 && out[1] == -2 && out[2] == 0x1p-24f && out[3] == 0 && signbit(out[3]) && isinf(out[4]) && isnan(out[5]));
    assert_true(out[6] == 65504);
    unsigned char unaligned[1 + 16];
    double f64[2] = {0.1, -1e300};
    memcpy(unaligned + 1, f64, 16);
    soma__to_f32(out, SOMA_F64, unaligned + 1, 2);
    assert_true(out[0] == 0.1f && isinf(out[1]));
    int64_t i64[] = {-5, 1ll << 40};
    soma__to_f32(out, SOMA_I64, i64, 2);
    assert_true(out[0] == -5 && out[1] == 0x1p40f);
    int32_t i32[] = {-7};
    uint8_t u8[] = {255}, b[] = {1};
    soma__to_f32(out, SOMA_I32, i32, 1);
    soma__to_f32(out + 1, SOMA_U8, u8, 1);
    soma__to_f32(out + 2, SOMA_BOOL, b, 1);
    assert_true(out[0] == -7 && out[1] == 255 && out[2] == 1);
}

static void lies(void **state) {
#define F32(name, shape, offsets) "\"" name "\":{\"dtype\":\"F32\",\"shape\":" shape ",\"data_offsets\":" offsets "}"
    refuse_header("{" F32("a", "[2]", "[0,16]") "}", 8, "\"a\"|truncated");
    refuse_header("{" F32("a", "[2]", "[-8,0]") "}", 8, "\"a\"");
    refuse_header("{" F32("a", "[2]", "[8,0]") "}", 8, "\"a\"");
    refuse_header("{" F32("a", "[3]", "[0,8]") "}", 8, "\"a\"|[3]|12 bytes");
    refuse_header("{" F32("a", "[2]", "[0,8]") "," F32("b", "[2]", "[4,12]") "}", 12, "\"a\"|\"b\"|overlap");
    refuse_header("{" F32("a", "[2]", "[0,8]") "," F32("b", "[2]", "[12,20]") "}", 20, "\"b\"|no tensor");
    refuse_header("{" F32("a", "[2]", "[0,8]") "}", 12, "4 bytes|no tensor");
    refuse_header("{" F32("a", "[2]", "[0,8]") "," F32("a", "[2]", "[8,16]") "}", 16, "duplicate|a");
    refuse_header("{" F32("a", "[1,1,1,1,1,1,2]", "[0,8]") "}", 8, "\"a\"|7 dimensions");
    refuse_header("{" F32("a", "[4611686018427387904,4]", "[0,8]") "}", 8, "\"a\"|shape");
    refuse_header("{" F32("a", "[-2]", "[0,8]") "}", 8, "\"a\"|shape");
    refuse_header("{" F32("a", "[2.0]", "[0,8]") "}", 8, "\"a\"|shape");
    refuse_header("{" F32("a", "2", "[0,8]") "}", 8, "\"a\"|shape");
    refuse_header("{" F32("a", "[2]", "[0]") "}", 8, "\"a\"|data_offsets");
    refuse_header("{" F32("a", "[2]", "[0,8,9]") "}", 8, "\"a\"|data_offsets");
    refuse_header("{\"a\":{\"dtype\":\"Q4\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "\"a\"|\"Q4\"");
    refuse_header("{\"a\":{\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "\"a\"|dtype");
    refuse_header("{\"a\":7}", 0, "\"a\"|dtype");
    refuse_header("{\"__metadata__\":{\"x\":1}}", 0, "__metadata__|\"x\"");
    refuse_header("{\"__metadata__\":[]}", 0, "__metadata__");
    refuse_header("[]", 0, "object");
    refuse_header("{\"a\":", 0, "JSON");
    write_raw(in_dir("long.safetensors"), 1000, "{}", 0);
    refused(in_dir("long.safetensors"), "long.safetensors|1000|truncated");
    write_raw(in_dir("huge.safetensors"), UINT64_MAX, "{}", 0);
    refused(in_dir("huge.safetensors"), "huge.safetensors|not a safetensors file");
    refused(in_dir("absent.safetensors"), "absent.safetensors");
    refused(dir, "model.safetensors.index.json");
}

static void every_truncation(void **state) {
    write_sample(in_dir("whole.safetensors"));
    char *bytes;
    size_t size;
    soma_error err = {0};
    assert_int_equal(soma__file_read(&bytes, &size, in_dir("whole.safetensors"), 1 << 20, &err), SOMA_OK);
    soma_safetensors *st;
    for (size_t n = 0; n < size; n++) {
        char *exact = malloc(n + !n); // so that a sanitizer sees a read behind the end
        memcpy(exact, bytes, n);
        assert_int_not_equal(soma__safetensors_open_bytes(&st, exact, n, "cut.safetensors", &err), SOMA_OK);
        assert_non_null(strstr(err.text, "cut.safetensors"));
        free(exact);
    }
    // a flipped byte in the header is either refused or describes a file that can be read whole
    soma_rng rng = soma__rng(1);
    for (int round = 0; round < 3000; round++) {
        size_t at = (size_t)soma__rng_below(&rng, size);
        char kept = bytes[at];
        bytes[at] = (char)soma__rng_u64(&rng);
        if (!soma__safetensors_open_bytes(&st, bytes, size, "mutated", &err)) {
            for (size_t i = 0; i < soma__safetensors_count(st); i++) {
                const soma_safetensor *t = soma__safetensors_at(st, i);
                float *out = malloc((size_t)t->n_values * 4 + 1);
                soma__to_f32(out, t->dtype, t->data, t->n_values);
                free(out);
            }
            soma__safetensors_close(st);
        }
        bytes[at] = kept;
    }
    soma__free(bytes);
}

static void write_text(const char *path, const char *text) {
    soma_error err;
    assert_int_equal(soma__file_write(path, text, strlen(text), &err), SOMA_OK);
}

static void sharded(void **state) {
    soma_error err = {0};
    char folder[256];
    snprintf(folder, sizeof folder, "%s/sharded", dir);
    assert_int_equal(soma__dir_make(folder, &err), SOMA_OK);
    float one = 1, two = 2;
    soma_safetensor a = {.name = "a", .dtype = SOMA_F32, .data = &one}, b = {.name = "b", .dtype = SOMA_F32, .data = &two};
    assert_int_equal(soma__safetensors_write(in_dir("sharded/m-1.safetensors"), &a, 1, NULL, &err), SOMA_OK);
    assert_int_equal(soma__safetensors_write(in_dir("sharded/m-2.safetensors"), &b, 1, NULL, &err), SOMA_OK);
    const char *index = in_dir("sharded/model.safetensors.index.json");
    write_text(index, "{\"metadata\":{\"total_size\":8},\"weight_map\":{\"a\":\"m-1.safetensors\",\"b\":\"m-2.safetensors\"}}");
    soma_safetensors *st;
    assert_int_equal(soma__safetensors_open(&st, folder, &err), SOMA_OK);
    assert_int_equal(soma__safetensors_count(st), 2);
    assert_true(*(const float *)soma__safetensors_find(st, "b")->data == 2);
    soma__safetensors_close(st);

    write_text(index, "{\"weight_map\":{\"a\":\"m-1.safetensors\",\"c\":\"m-2.safetensors\"}}");
    refused(folder, "index.json|\"c\"|m-2");
    write_text(index, "{\"weight_map\":{\"a\":\"../m-1.safetensors\"}}");
    refused(folder, "index.json|\"a\"|same folder");
    write_text(index, "{\"weight_map\":{\"a\":\"m-3.safetensors\"}}");
    refused(folder, "m-3.safetensors");
    write_text(index, "{\"weight_map\":7}");
    refused(folder, "index.json|weight_map");
    assert_int_equal(soma__safetensors_write(in_dir("sharded/m-2.safetensors"), &a, 1, NULL, &err), SOMA_OK);
    write_text(index, "{\"weight_map\":{\"a\":\"m-1.safetensors\",\"b\":\"m-2.safetensors\"}}");
    refused(folder, "\"a\"|two files");
}

static void bad_writes(void **state) {
    float x = 1;
    soma_safetensor twice[] = {{.name = "a", .dtype = SOMA_F32, .data = &x}, {.name = "a", .dtype = SOMA_F32, .data = &x}};
    soma_error err = {0};
    assert_int_not_equal(soma__safetensors_write(in_dir("twice.safetensors"), twice, 2, NULL, &err), SOMA_OK);
    assert_false(soma__file_exists(in_dir("twice.safetensors")));
    assert_int_not_equal(soma__safetensors_write(in_dir("no/such/folder.safetensors"), twice, 1, NULL, &err), SOMA_OK);
}

static void *json_alloc(size_t size) { return soma__alloc(size); }

// The n-th allocation (ours or jansson's) or read fails, for every n: an error each time, nothing leaked (the sanitizer's part), then
// success.
static void every_failure(void **state) {
    json_set_alloc_funcs(json_alloc, free);
    const char *path = in_dir("fault.safetensors");
    soma_error err = {0};
    soma_safetensors *st;
    float x[2] = {1, 2};
    soma_safetensor t[] = {{.name = "a", .dtype = SOMA_F32, .n_dims = 1, .shape = {2}, .data = x},
                           {.name = "b", .dtype = SOMA_F32, .data = x}};
    json_t *metadata = json_pack("{s:s}", "k", "v");
    int64_t n = 0;
    for (; n < 2000; n++) {
        soma__alloc_fail_after(n);
        soma_status status = soma__safetensors_write(path, t, 2, metadata, &err);
        soma__alloc_fail_after(-1);
        if (!status) break;
        assert_false(soma__file_exists(path));
    }
    assert_in_range(n, 3, 1999);
    json_decref(metadata);
    soma_safetensors *good;
    assert_int_equal(soma__safetensors_open(&good, path, &err), SOMA_OK);
    assert_int_equal(soma__safetensors_find(good, "a")->n_dims, 1);
    soma__safetensors_close(good);
    for (n = 0; n < 2000; n++) {
        soma__alloc_fail_after(n);
        soma_status status = soma__safetensors_open(&st, path, &err);
        soma__alloc_fail_after(-1);
        if (!status) break;
        assert_null(st);
    }
    assert_in_range(n, 5, 1999);
    assert_int_equal(soma__safetensors_count(st), 2);
    soma__safetensors_close(st);
    soma__file_fail_after(0);
    assert_int_equal(soma__safetensors_open(&st, path, &err), SOMA_IO);
    soma__file_fail_after(-1);
    json_set_alloc_funcs(malloc, free);
}

static void differences(void **state) {
    const float a[] = {1, 2, 3, 4, 5, 60, 7, 8}, b[] = {1, 2, 3, 4, 5, 50, 7, 8};
    const uint8_t valid[] = {1, 1, 0, 1}, other[] = {1, 0, 1, 0};
    const soma_safetensor x = {.dtype = SOMA_F32, .n_dims = 3, .shape = {2, 2, 2}, .data = a},
                          y = {.dtype = SOMA_F32, .n_dims = 3, .shape = {2, 2, 2}, .data = b},
                          rows = {.dtype = SOMA_U8, .n_dims = 2, .shape = {2, 2}, .data = valid};
    soma_difference d = soma__safetensor_difference(&x, &y, NULL);
    assert_true(d.max_abs == 10 && d.each == 0.2);
    assert_float_equal(d.norm, sqrt(1 + 4 + 9 + 16 + 25 + 2500 + 49 + 64), 1e-12);
    assert_float_equal(d.relative, 10 / d.norm, 1e-12);
    d = soma__safetensor_difference(&x, &y, &rows); // row 2, the one with the 60, is masked
    assert_true(d.max_abs == 0 && d.relative == 0);
    // [B, H, S, D]: a row is masked in each head, b's first in the second half alone
    const soma_safetensor u = {.dtype = SOMA_F32, .n_dims = 4, .shape = {2, 2, 2, 1}, .data = a},
                          v = {.dtype = SOMA_F32, .n_dims = 4, .shape = {2, 2, 2, 1}, .data = b},
                          odd = {.dtype = SOMA_U8, .n_dims = 2, .shape = {2, 2}, .data = other};
    assert_true(soma__safetensor_difference(&u, &v, &odd).max_abs == 0);
    assert_true(soma__safetensor_difference(&u, &v, NULL).max_abs == 10);
    // a NaN stays the largest difference, whatever comes after it
    const double nans[] = {1, NAN, 3}, wide[] = {1, 2, 1e300};
    const soma_safetensor n = {.dtype = SOMA_F64, .n_dims = 1, .shape = {3}, .data = nans},
                          w = {.dtype = SOMA_F64, .n_dims = 1, .shape = {3}, .data = wide};
    d = soma__safetensor_difference(&n, &w, NULL);
    assert_true(isnan(d.max_abs) && isnan(d.each) && isnan(d.relative));
}

static void goldens(void **state) {
    const char *folder = SOMA_SOURCE_DIR "/../shared/golden/pi0_tiny";
    if (!soma__dir_exists(folder)) {
        print_message("skipped: ../shared/golden/pi0_tiny is absent\n");
        skip();
    }
    soma_safetensors *st;
    soma_error err = {0};
    assert_int_equal(soma__safetensors_open(&st, folder, &err), SOMA_OK);
    assert_int_equal(soma__safetensors_count(st), 141);
    const soma_safetensor *t = soma__safetensors_find(st, "action_in_proj.weight");
    assert_non_null(t);
    assert_int_equal(t->shape[0], 32);
    assert_string_equal(soma__safetensors_metadata(st, "paligemma_with_expert.paligemma.model.language_model.embed_tokens.weight"),
                        "paligemma_with_expert.paligemma.lm_head.weight");
    soma__safetensors_close(st);
    assert_int_equal(soma__safetensors_open(&st, SOMA_SOURCE_DIR "/../shared/golden/pi0_tiny/outputs.safetensors", &err), SOMA_OK);
    assert_int_equal(soma__safetensors_find(st, "prefix_position_ids")->dtype, SOMA_I64);
    assert_int_equal(((const int64_t *)soma__safetensors_find(st, "prefix_position_ids")->data)[1], 1);
    soma__safetensors_close(st);
}

int main(void) {
    if (!mkdtemp(dir)) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),       cmocka_unit_test(converts), cmocka_unit_test(lies),
        cmocka_unit_test(every_truncation), cmocka_unit_test(sharded),  cmocka_unit_test(bad_writes),
        cmocka_unit_test(every_failure),    cmocka_unit_test(goldens),  cmocka_unit_test(differences),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    soma__dir_remove(dir, NULL);
    return failed;
}
