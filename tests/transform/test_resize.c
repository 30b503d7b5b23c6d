// SPDX-License-Identifier: Apache-2.0
// Resizing against Pillow (bit for bit) and torch (1e-5), and cases that can be worked out by hand.
#include "golden/golden.h"

#include "base/json.h"
#include "transform/resize.h"

static void test_solid(void **state) {
    static const struct {
        int w, h, left, top, right, bottom;
    } cases[] = {{640, 480, 0, 28, 224, 196}, {50, 100, 56, 0, 168, 224}, {224, 224, 0, 0, 224, 224}, {64, 64, 0, 0, 224, 224}};
    static uint8_t in[640 * 480 * 3], out[224 * 224 * 3];
    static float real[224 * 224 * 3];
    memset(in, 200, sizeof in);
    for (size_t i = 0; i < SOMA_COUNT(cases); i++)
        for (int rule = SOMA_RESIZE_PIL; rule <= SOMA_RESIZE_LEROBOT; rule++) {
            soma_resizer *r;
            soma_error err = {0};
            assert_int_equal(soma__resizer_new(&r, (soma_resize_rule)rule, cases[i].w, cases[i].h, 224, 224, &err), SOMA_OK);
            uint64_t made = soma__alloc_count();
            if (rule == SOMA_RESIZE_PIL) soma__resizer_u8(r, in, out);
            soma__resizer_f32(r, in, real);
            assert_true(made == soma__alloc_count());
            for (int y = 0; y < 224; y++)
                for (int x = 0; x < 224; x++) {
                    bool inside = x >= cases[i].left && x < cases[i].right && y >= cases[i].top && y < cases[i].bottom;
                    int at = (y * 224 + x) * 3;
                    float wanted = inside ? 200 / 255.0f * 2 - 1 : -1;
                    if (fabsf(real[at] - wanted) > 1e-6f || (rule == SOMA_RESIZE_PIL && out[at + 2] != (inside ? 200 : 0)))
                        fail_msg("case %zu, rule %d, (%d, %d): %g, %d", i, rule, x, y, real[at], out[at + 2]);
                }
            soma__resizer_free(r);
        }
}

// Two pixels to one: the antialiased filter averages, the plain one too (it reads at the middle); four to one tells them apart.
static void test_by_hand(void **state) {
    const uint8_t in[12] = {0, 10, 100, 40, 20, 200, 80, 30, 0, 240, 40, 100};
    uint8_t out[12];
    float real[12];
    soma_resizer *r;
    assert_int_equal(soma__resizer_new(&r, SOMA_RESIZE_PIL, 4, 4, 1, 1, NULL), SOMA_OK);
    uint8_t square[48];
    for (int i = 0; i < 4; i++) memcpy(square + 12 * i, in, 12);
    soma__resizer_u8(r, square, out);
    // triangle of half-width 4 at 2: weights 5/8, 7/8, 7/8, 5/8 over their sum 3
    assert_int_equal(out[0], (int)((5 * 0 + 7 * 40 + 7 * 80 + 5 * 240) / 24.0 + 0.5));
    assert_int_equal(out[2], (int)((5 * 100 + 7 * 200 + 7 * 0 + 5 * 100) / 24.0 + 0.5));
    soma__resizer_free(r);
    assert_int_equal(soma__resizer_new(&r, SOMA_RESIZE_TORCH, 4, 4, 1, 1, NULL), SOMA_OK);
    soma__resizer_f32(r, square, real);
    assert_float_equal(real[0], (40 + 80) / 2.0 / 255 * 2 - 1, 1e-6); // between the two middle ones, the rest is not seen
    soma__resizer_free(r);
}

static void test_refused(void **state) {
    static const int bad[][4] = {{0, 4, 8, 8}, {4, -1, 8, 8}, {4, 4, 0, 8}, {20000, 4, 8, 8}, {4, 4, 8, 1 << 30}, {5000, 1, 64, 64}};
    for (size_t i = 0; i < SOMA_COUNT(bad); i++) {
        soma_resizer *r = (soma_resizer *)1;
        soma_error err = {0};
        assert_int_equal(soma__resizer_new(&r, SOMA_RESIZE_PIL, bad[i][0], bad[i][1], bad[i][2], bad[i][3], &err), SOMA_BAD_INPUT);
        assert_null(r);
        assert_non_null(strstr(err.text, "picture of"));
    }
    for (int n = 0; n < 12; n++) {
        soma_resizer *r;
        soma__alloc_fail_after(n);
        soma_status made = soma__resizer_new(&r, SOMA_RESIZE_PIL, 64, 48, 32, 32, NULL);
        soma__alloc_fail_after(-1);
        assert_int_equal(made, n < 11 ? SOMA_NO_MEMORY : SOMA_OK);
        soma__resizer_free(r);
    }
}

static void test_to_f32(void **state) {
    uint8_t in[256];
    float out[256];
    for (int i = 0; i < 256; i++) in[i] = (uint8_t)i;
    for (size_t n = 0; n <= 256; n += 37) {
        for (int i = 0; i < 256; i++) out[i] = 9;
        soma__image_to_f32(out, in, n);
        for (size_t i = 0; i < 256; i++) assert_true(out[i] == (i < n ? (float)i / 255.0f * 2.0f - 1.0f : 9));
    }
    soma__image_to_f32(out, in, 256);
    assert_true(out[0] == -1 && out[255] == 1);
}

// ---- golden: inputs come from a generator whose checksum is given

static uint8_t *generate(const char *kind, int h, int w, uint64_t seed) {
    uint8_t *v = malloc((size_t)h * (size_t)w * 3);
    for (int y = 0, i = 0; y < h; y++)
        for (int x = 0; x < w; x++)
            for (int c = 0; c < 3; c++, i++) {
                uint64_t z = seed + (uint64_t)(i + 1) * 0x9e3779b97f4a7c15u;
                z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
                z = (z ^ z >> 27) * 0x94d049bb133111ebu;
                z ^= z >> 31;
                v[i] = kind[0] == 'n' ? (uint8_t)(z >> 56) : (uint8_t)(((x * 3 + y * 5 + c * 50) >> 1) ^ ((x >> 4) * (y >> 4) * 7));
            }
    return v;
}

static uint32_t crc32(const uint8_t *p, size_t n) {
    static uint32_t table[256];
    for (uint32_t i = 0; !table[255] && i < 256; i++) {
        table[i] = i;
        for (int k = 0; k < 8; k++) table[i] = table[i] >> 1 ^ (table[i] & 1 ? 0xedb88320u : 0);
    }
    uint32_t crc = ~0u;
    for (size_t i = 0; i < n; i++) crc = table[(crc ^ p[i]) & 255] ^ crc >> 8;
    return ~crc;
}

static int n_f32, n_pil, n_u8;

static bool has(char full[80], const soma_safetensors *st, const char *name, const char *suffix) {
    snprintf(full, 80, "%s.%s", name, suffix);
    return soma__safetensors_find(st, full);
}

static float *resized(soma_resize_rule rule, const uint8_t *in, int w, int h) {
    float *out = malloc(224 * 224 * 3 * sizeof *out);
    soma_resizer *r;
    assert_int_equal(soma__resizer_new(&r, rule, w, h, 224, 224, NULL), SOMA_OK);
    soma__resizer_f32(r, in, out);
    soma__resizer_free(r);
    return out;
}

static void hold_f32(const soma_safetensors *st, const char *name, soma_resize_rule rule, const char *suffix, const uint8_t *in, int w,
                     int h) {
    char full[80];
    if (!has(full, st, name, suffix)) return;
    float *out = resized(rule, in, w, h);
    golden_hold(st, full, "-", SOMA_F32, out, GOLDEN_MAX, 1e-5);
    n_f32++;
    free(out);
}

// torch's resize of bytes rounds what its resize of floats gives; padding is black in both.
static void hold_torch_u8(const soma_safetensors *st, const char *name, const uint8_t *in, int w, int h) {
    static uint8_t bytes[224 * 224 * 3];
    char full[80];
    if (!has(full, st, name, "torch_u8")) return;
    float *out = resized(SOMA_RESIZE_TORCH, in, w, h);
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)lrintf((out[i] + 1) * 127.5f);
    golden_hold(st, full, "-", SOMA_U8, bytes, GOLDEN_MAX, 1);
    n_u8++;
    free(out);
}

static void hold_pil(const soma_safetensors *st, const char *name, const uint8_t *in, int w, int h) {
    static uint8_t out[224 * 224 * 3];
    char full[80];
    soma_resizer *r;
    assert_true(has(full, st, name, "pil"));
    assert_int_equal(soma__resizer_new(&r, SOMA_RESIZE_PIL, w, h, 224, 224, NULL), SOMA_OK);
    soma__resizer_u8(r, in, out);
    golden_hold(st, full, "-", SOMA_U8, out, GOLDEN_MAX, 0);
    n_pil++;
    soma__resizer_free(r);
}

static void test_golden(void **state) {
    soma_safetensors *st = golden_open("preprocess/resize.safetensors");
    json_t *root, *c;
    soma_error err = {0};
    size_t i;
    char path[SOMA_PATH_MAX];
    if (soma__json_load(&root, golden_path(path, "preprocess/resize.json"), &err)) fail_msg("%s", err.text);
    json_array_foreach(json_object_get(root, "cases"), i, c) {
        const char *name = json_string_value(json_object_get(c, "name"));
        int h = (int)json_integer_value(json_object_get(c, "h")), w = (int)json_integer_value(json_object_get(c, "w"));
        uint8_t *in =
            generate(json_string_value(json_object_get(c, "kind")), h, w, (uint64_t)json_integer_value(json_object_get(c, "seed")));
        assert_int_equal(crc32(in, (size_t)h * (size_t)w * 3), json_integer_value(json_object_get(c, "crc32")));
        hold_pil(st, name, in, w, h);
        hold_f32(st, name, SOMA_RESIZE_TORCH, "torch_f32", in, w, h);
        hold_torch_u8(st, name, in, w, h);
        hold_f32(st, name, SOMA_RESIZE_LEROBOT, "lerobot_f32", in, w, h);
        free(in);
    }
    assert_true(n_pil == 18 && n_f32 == 12 && n_u8 == 18);
    json_decref(root);
    soma__safetensors_close(st);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_solid),  cmocka_unit_test(test_by_hand), cmocka_unit_test(test_refused),
        cmocka_unit_test(test_to_f32), cmocka_unit_test(test_golden),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
