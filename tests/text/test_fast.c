// SPDX-License-Identifier: Apache-2.0
// FAST without files of others: the transform against its definition, the encoder against merging, the bound of a round trip, and all that
// a caller or a file can do wrong.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/rng.h"
#include "base/str.h"
#include "text/fast.h"
#include "text/fast_bpe.h"
#include "text/fast_dct.h"
#include "text/fast_impl.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CONFIG "{\"scale\": 10, \"min_token\": -60, \"vocab_size\": 0, \"action_dim\": null, \"time_horizon\": null}"

static void add_piece(soma_str *s, uint32_t c) {
    char utf8[4];
    if (c == '"' || c == '\\')
        soma__str_printf(s, "\\%c", (char)c);
    else if (c < 0x80)
        soma__str_printf(s, "%c", (char)c);
    else
        soma__str_add_bytes(s, utf8, c < 0x800 ? (utf8[0] = (char)(0xc0 | c >> 6), utf8[1] = (char)(0x80 | (c & 0x3f)), 2) : 0);
}

// All 256 bytes, then `n_merges` random joins of what is there: a vocabulary in the order in which a trainer would list it, with merges
// that contradict one another as often as they like.
static void random_tokenizer(soma_str *s, soma_rng *rng, int n_merges, int n_symbols, bool pairs) {
    char pieces[600][64];
    int n = 0;
    soma__str_add(s, "{\"version\":\"1.0\",\"added_tokens\":[],\"normalizer\":null,\"pre_tokenizer\":{\"type\":\"ByteLevel\","
                     "\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":true},\"post_processor\":null,\"decoder\":{\"type\":"
                     "\"ByteLevel\"},\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":null,\"vocab\":{");
    soma_str merges = {0};
    for (; n < 256; n++) {
        soma_str piece = {0};
        add_piece(&piece, soma__fast_alphabet_char((unsigned char)n));
        snprintf(pieces[n], sizeof pieces[n], "%.*s", (int)piece.len, piece.text);
        soma__str_free(&piece);
        soma__str_printf(s, "%s\"%s\":%d", n ? "," : "", pieces[n], n);
    }
    for (int tries = 0; n < 256 + n_merges && tries < 20000; tries++) {
        int pool = n_symbols + (n - 256), a = (int)soma__rng_below(rng, (uint64_t)pool), b = (int)soma__rng_below(rng, (uint64_t)pool);
        a = a < n_symbols ? 60 + a : a - n_symbols + 256;
        b = b < n_symbols ? 60 + b : b - n_symbols + 256;
        char joined[160];
        snprintf(joined, sizeof joined, "%s%s", pieces[a], pieces[b]);
        bool known = strlen(joined) > 40;
        for (int i = 256; i < n && !known; i++) known = !strcmp(pieces[i], joined);
        if (known) continue;
        memcpy(pieces[n], joined, strlen(joined) + 1);
        soma__str_printf(s, ",\"%s\":%d", joined, n++);
        soma__str_printf(&merges, pairs ? "%s[\"%s\",\"%s\"]" : "%s\"%s %s\"", merges.len ? "," : "", pieces[a], pieces[b]);
    }
    soma__str_printf(s, "},\"merges\":[%s]}}", merges.text ? merges.text : "");
    soma__str_free(&merges);
}

static soma_fast *parse(const soma_str *json) {
    soma_fast *fast;
    soma_error err = {0};
    if (soma__fast_parse(&fast, json->text, json->len, CONFIG, strlen(CONFIG), "random", &err)) fail_msg("%s", err.text);
    return fast;
}

// A tokenizer without merges: every code is its bytes.
static soma_fast *plain_tokenizer(void) {
    soma_rng rng = soma__rng(1);
    soma_str json = {0};
    random_tokenizer(&json, &rng, 0, 4, true);
    soma_fast *fast = parse(&json);
    soma__str_free(&json);
    return fast;
}

// ---- the transform

static void test_transform(void **state) {
    static const int lengths[] = {1, 2, 3, 4, 5, 7, 16, 50, 97, 200, 256, 257, 300, 512, 1000};
    soma_rng rng = soma__rng(3);
    for (size_t i = 0; i < SOMA_COUNT(lengths); i++)
        for (int A = 1; A <= 9; A += 4) {
            int T = lengths[i];
            soma_dct *dct;
            double *x = malloc((size_t)(T * A) * sizeof *x), *c = malloc((size_t)(T * A) * sizeof *c);
            for (int j = 0; j < T * A; j++) x[j] = soma__rng_range(&rng, -1, 1);
            assert_int_equal(soma__dct_new(&dct, T, NULL), SOMA_OK);
            assert_int_equal(soma__dct_reserve(dct, A, NULL), SOMA_OK);
            soma__dct_forward(dct, x, c, A);
            for (int k = 0; k < T; k++) {
                double sum = 0, size = sqrt((k ? 2.0 : 1.0) / T);
                for (int n = 0; n < T; n++) sum += x[n * A] * cos(acos(-1) * ((2 * n + 1) * k % (4 * T)) / (2.0 * T));
                if (!(fabs(c[k * A] - size * sum) < 1e-12)) fail_msg("T %d, frequency %d: %.17g and %.17g", T, k, c[k * A], size * sum);
            }
            soma__dct_inverse(dct, c, c, A, T); // in place
            for (int j = 0; j < T * A; j++)
                if (!(fabs(c[j] - x[j]) < 1e-12)) fail_msg("T %d, A %d: value %d", T, A, j);
            soma__dct_free(dct);
            free(x);
            free(c);
        }
}

// ---- the encoder against merging

static void check_same(const soma_fast *fast, soma_rng *rng, int n_symbols, soma_fast_bpe_work *work) {
    int32_t chars[64], ids[256], merged[256];
    size_t n = 1 + soma__rng_below(rng, 40), n_ids, n_merged;
    soma_error err = {0};
    for (size_t i = 0; i < n; i++) chars[i] = (int32_t)(60 + soma__rng_below(rng, (uint64_t)n_symbols));
    assert_int_equal(soma__fast_bpe_encode(fast->bpe, work, chars, n, ids, &n_ids, &err), SOMA_OK);
    assert_int_equal(soma__fast_bpe_merge(fast->bpe, work, chars, n, merged, &n_merged, &err), SOMA_OK);
    if (n_ids != n_merged || memcmp(ids, merged, n_ids * sizeof *ids)) fail_msg("%zu ids, merging gives %zu", n_ids, n_merged);
}

// Merges that cross one another in every way, over few symbols: what the search says is what merging says.
static void test_same_as_merging(void **state) {
    soma_rng rng = soma__rng(5);
    for (int round = 0; round < 120; round++) {
        int n_symbols = 2 + round % 5;
        soma_str json = {0};
        random_tokenizer(&json, &rng, 3 + round % 90, n_symbols, round % 2);
        soma_fast *fast = parse(&json);
        soma_fast_bpe_work work = {0};
        assert_int_equal(soma__fast_bpe_reserve(&work, 64, NULL), SOMA_OK);
        for (int i = 0; i < 200; i++) check_same(fast, &rng, n_symbols, &work);
        soma__fast_bpe_work_free(&work);
        soma__fast_close(fast);
        soma__str_free(&json);
    }
}

// ---- round trips

static void check_round_trip(soma_fast_work *work, soma_rng *rng, int T, int A) {
    soma_error err = {0};
    soma_fast_ids out;
    size_t n = (size_t)(T * A);
    double *x = malloc(n * sizeof *x), *y = malloc(n * sizeof *y), spread = 0.4 * soma__rng_uniform(rng), square = 0;
    for (size_t i = 0; i < n; i++) x[i] = spread * soma__rng_normal(rng);
    if (soma__fast_encode(work, x, T, A, &out, &err)) fail_msg("%dx%d: %s", T, A, err.text);
    assert_int_equal(out.n_lost, 0);
    if (out.n_clipped == 0) {
        int32_t *ids = malloc((out.n + 1) * sizeof *ids);
        memcpy(ids, out.ids, out.n * sizeof *ids);
        if (soma__fast_decode(work, ids, out.n, SOMA_FAST_STRICT, T, A, y, &err)) fail_msg("%dx%d: %s", T, A, err.text);
        free(ids);
        // half a step per coefficient; the transform keeps lengths, so it bounds the whole chunk
        for (size_t i = 0; i < n; i++) square += (x[i] - y[i]) * (x[i] - y[i]);
        double bound = 0.05 * sqrt((double)n) * (1 + 1e-9);
        if (!(sqrt(square) <= bound)) fail_msg("%dx%d: the error is %.6g, at most %.6g is possible", T, A, sqrt(square), bound);
        // and each coefficient of what came back is a whole number of steps, nearest to what went in
        soma_dct *dct;
        assert_int_equal(soma__dct_new(&dct, T, NULL), SOMA_OK);
        assert_int_equal(soma__dct_reserve(dct, A, NULL), SOMA_OK);
        soma__dct_forward(dct, x, x, A);
        soma__dct_forward(dct, y, y, A);
        for (size_t i = 0; i < n; i++)
            if (!(fabs(x[i] - y[i]) <= 0.05 + 1e-9)) fail_msg("%dx%d: coefficient %zu is %.9g off", T, A, i, fabs(x[i] - y[i]));
        soma__dct_free(dct);
    }
    free(x);
    free(y);
}

// Random chunks of 1 to 200 steps and 1 to 64 dimensions, in random order: no shape sticks.
static void test_round_trip(void **state) {
    soma_rng rng = soma__rng(7);
    soma_str json = {0};
    random_tokenizer(&json, &rng, 80, 6, true);
    soma_fast *fast = parse(&json);
    soma_fast_work *work;
    assert_int_equal(soma__fast_work_new(&work, fast, NULL), SOMA_OK);
    for (int i = 0; i < 150; i++) check_round_trip(work, &rng, 1 + (int)soma__rng_below(&rng, 200), 1 + (int)soma__rng_below(&rng, 64));
    check_round_trip(work, &rng, 1, 1);
    check_round_trip(work, &rng, 1, 64);
    check_round_trip(work, &rng, 200, 1);
    soma__fast_work_free(work);
    soma__fast_close(fast);
    soma__str_free(&json);
}

static void test_bins(void **state) {
    soma_fast *fast;
    soma_fast_work *work;
    soma_fast_ids out;
    double x[] = {-1, 1, 0, 0.9921875, -3, 0.2}, y[6];
    assert_int_equal(soma__fast_bins(&fast, 256, NULL), SOMA_OK);
    assert_int_equal(soma__fast_vocab(fast), 256);
    assert_int_equal(soma__fast_work_new(&work, fast, NULL), SOMA_OK);
    assert_int_equal(soma__fast_encode(work, x, 2, 3, &out, NULL), SOMA_OK);
    static const int32_t wanted[] = {0, 255, 128, 255, 0, 153};
    assert_int_equal(out.n, 6);
    assert_int_equal(out.n_clipped, 1);
    assert_memory_equal(out.ids, wanted, sizeof wanted);
    assert_int_equal(soma__fast_decode(work, wanted, 6, SOMA_FAST_STRICT, 2, 3, y, NULL), SOMA_OK);
    for (int i = 0; i < 6; i++)
        if (i != 4) assert_true(fabs(x[i] - y[i]) <= 1.0 / 256 + 1e-12);
    assert_int_equal(soma__fast_decode(work, wanted, 5, SOMA_FAST_STRICT, 2, 3, y, NULL), SOMA_BAD_INPUT);
    assert_int_equal(soma__fast_decode(work, wanted, 5, SOMA_FAST_RELAXED, 2, 3, y, NULL), SOMA_OK);
    assert_true(y[5] == 0 && y[0] != 0);
    static const int32_t wrong[] = {0, 256, 1, 1, 1, 1};
    assert_int_equal(soma__fast_decode(work, wrong, 6, SOMA_FAST_STRICT, 2, 3, y, NULL), SOMA_BAD_INPUT);
    assert_true(y[0] == 0);
    soma__fast_work_free(work);
    soma__fast_close(fast);
    assert_int_equal(soma__fast_bins(&fast, 1, NULL), SOMA_BAD_INPUT);
}

// ---- what can be wrong

static void expect(soma_status status, const soma_error *err, const char *says) {
    if (status == SOMA_OK || !strstr(err->text, says)) fail_msg("status %d, \"%s\" lacks \"%s\"", (int)status, err->text, says);
}

static void test_bad_chunks(void **state) {
    soma_fast *fast = plain_tokenizer();
    soma_fast_work *work;
    soma_fast_ids out;
    soma_error err = {0};
    double x[12] = {0};
    assert_int_equal(soma__fast_work_new(&work, fast, NULL), SOMA_OK);
    expect(soma__fast_encode(work, x, 0, 3, &out, &err), &err, "0 steps and 3 dimensions");
    expect(soma__fast_encode(work, x, 4, 0, &out, &err), &err, "4 steps and 0 dimensions");
    expect(soma__fast_encode(work, x, SOMA_FAST_MAX_STEPS + 1, 1, &out, &err), &err, "65537 steps");
    expect(soma__fast_encode(work, x, 2, INT64_MAX, &out, &err), &err, "dimensions");
    x[7] = NAN;
    expect(soma__fast_encode(work, x, 4, 3, &out, &err), &err, "step 2 of dimension 1 of the chunk is not a finite number");
    x[7] = -INFINITY;
    expect(soma__fast_encode(work, x, 4, 3, &out, &err), &err, "not a finite number");
    x[7] = 1e300;
    expect(soma__fast_encode(work, x, 4, 3, &out, &err), &err, "is the chunk normalised?");
    // a chunk of one step is its own transform: 10 x + 60 = 0xd800 is the first code that no character has
    x[0] = (0xd800 - 60) / 10.0;
    expect(soma__fast_encode(work, x, 1, 1, &out, &err), &err, "code 55296");
    x[0] = (0xd7ff - 60) / 10.0;
    assert_int_equal(soma__fast_encode(work, x, 1, 1, &out, &err), SOMA_OK);
    assert_int_equal(out.codes[0], 0xd7ff);
    x[0] = (0x10ffff - 60) / 10.0;
    assert_int_equal(soma__fast_encode(work, x, 1, 1, &out, &err), SOMA_OK);
    double back;
    int32_t ids[8];
    size_t n = out.n;
    memcpy(ids, out.ids, n * sizeof *ids);
    assert_int_equal(soma__fast_decode(work, ids, n, SOMA_FAST_STRICT, 1, 1, &back, &err), SOMA_OK);
    assert_true(fabs(back - x[0]) < 1e-6);
    x[0] = -100; // below min_token: clipped, counted, decoded as the least value
    assert_int_equal(soma__fast_encode(work, x, 1, 1, &out, &err), SOMA_OK);
    assert_int_equal(out.n_clipped, 1);
    assert_int_equal(out.codes[0], 0);
    soma__fast_work_free(work);
    soma__fast_close(fast);
}

static void test_bad_ids(void **state) {
    soma_fast *fast = plain_tokenizer();
    soma_fast_work *work;
    soma_error err = {0};
    double y[4];
    assert_int_equal(soma__fast_work_new(&work, fast, NULL), SOMA_OK);
    static const int32_t good[] = {70, 60, 60, 61}, beyond[] = {70, 256, 60, 60, 61}, below[] = {70, -1, 60, 60, 61},
                         torn[] = {0xc4, 60, 60};
    assert_int_equal(soma__fast_decode(work, good, 4, SOMA_FAST_STRICT, 2, 2, y, &err), SOMA_OK);
    assert_true(fabs(y[0] - sqrt(0.5)) < 1e-12); // q 10, 0, 0, 1 at scale 10
    expect(soma__fast_decode(work, beyond, 5, SOMA_FAST_STRICT, 2, 2, y, &err), &err, "id 256 at position 1 is not in the vocabulary");
    assert_true(y[0] == 0);
    expect(soma__fast_decode(work, below, 5, SOMA_FAST_STRICT, 2, 2, y, &err), &err, "id -1 at position 1");
    assert_int_equal(soma__fast_decode(work, beyond, 5, SOMA_FAST_RELAXED, 2, 2, y, &err), SOMA_OK); // passed over
    assert_true(fabs(y[0] - sqrt(0.5)) < 1e-12);
    expect(soma__fast_decode(work, good, 3, SOMA_FAST_STRICT, 2, 2, y, &err), &err, "hold 3 coefficients");
    expect(soma__fast_decode(work, good, 0, SOMA_FAST_STRICT, 2, 2, y, &err), &err, "hold 0 coefficients");
    expect(soma__fast_decode(work, good, 4, SOMA_FAST_STRICT, 1, 2, y, &err), &err, "hold 4 coefficients");
    assert_int_equal(soma__fast_decode(work, good, 0, SOMA_FAST_RELAXED, 2, 2, y, &err), SOMA_OK);
    assert_true(y[0] == 0 && y[3] == 0);
    assert_int_equal(soma__fast_decode(work, torn, 3, SOMA_FAST_STRICT, 3, 1, y, &err), SOMA_OK); // half a character is U+FFFD
    assert_true(y[0] > 1000);
    expect(soma__fast_decode(work, good, 4, SOMA_FAST_RELAXED, 0, 2, y, &err), &err, "0 steps");
    soma__fast_work_free(work);
    soma__fast_close(fast);
}

static void test_bad_files(void **state) {
    static const struct {
        const char *from, *to, *says;
    } cases[] = {
        {"\"type\":\"BPE\"", "\"type\":\"Unigram\"", "Unigram"},
        {"\"normalizer\":null", "\"normalizer\":{\"type\":\"NFC\"}", "normalizer"},
        {"\"use_regex\":true", "\"use_regex\":false", "GPT-2's rule"},
        {"\"add_prefix_space\":false", "\"add_prefix_space\":true", "adds a space"},
        {"\"pre_tokenizer\":{\"type\":\"ByteLevel\"", "\"pre_tokenizer\":{\"type\":\"Whitespace\"", "not ByteLevel"},
        {"\"decoder\":{\"type\":\"ByteLevel\"}", "\"decoder\":{\"type\":\"Metaspace\"}", "decoder"},
        {"\"merges\":[", "\"merges\":[\"no such\",", "not in the vocabulary"},
        {"\"version\"", "{", "random"},
    };
    soma_rng rng = soma__rng(9);
    soma_str json = {0};
    soma_error err = {0};
    soma_fast *fast;
    random_tokenizer(&json, &rng, 5, 3, true);
    for (size_t i = 0; i < SOMA_COUNT(cases); i++) {
        const char *at = strstr(json.text, cases[i].from);
        assert_non_null(at);
        soma_str changed = {0};
        soma__str_add_bytes(&changed, json.text, (size_t)(at - json.text));
        soma__str_add(&changed, cases[i].to);
        soma__str_add(&changed, at + strlen(cases[i].from));
        expect(soma__fast_parse(&fast, changed.text, changed.len, CONFIG, strlen(CONFIG), "random", &err), &err, cases[i].says);
        assert_null(fast);
        soma__str_free(&changed);
    }
    static const char *const configs[] = {"{}", "[]", "{\"scale\": 0, \"min_token\": 1}", "{\"scale\": 10}",
                                          "{\"scale\": \"x\", \"min_token\": 1}"};
    for (size_t i = 0; i < SOMA_COUNT(configs); i++)
        expect(soma__fast_parse(&fast, json.text, json.len, configs[i], strlen(configs[i]), "random", &err), &err, "random");
    expect(soma__fast_parse(&fast, NULL, 0, "{\"bins\": 1}", 11, "b", &err), &err, "b");
    expect(soma__fast_open(&fast, "/nonexistent", &err), &err, "/nonexistent");
    soma__str_free(&json);
}

// The folder and back: the same bytes, the same ids; the binning tokenizer, too.
static void test_save(void **state) {
    char dir[] = "/tmp/soma_fast_XXXXXX", path[64];
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/new/fast", dir);
    soma_rng rng = soma__rng(11);
    soma_str json = {0};
    soma_error err = {0};
    random_tokenizer(&json, &rng, 60, 4, false);
    soma_fast *fast = parse(&json), *again, *bins;
    if (soma__fast_save(fast, path, &err)) fail_msg("%s", err.text);
    if (soma__fast_open(&again, path, &err)) fail_msg("%s", err.text);
    assert_int_equal(again->json_len, json.len);
    assert_memory_equal(again->json, json.text, json.len);
    assert_true(soma__fast_scale(again) == 10 && soma__fast_min_token(again) == -60);
    soma__fast_close(again);
    soma__fast_close(fast);
    soma__str_free(&json);
    snprintf(path, sizeof path, "%s/bins", dir);
    assert_int_equal(soma__fast_bins(&bins, 100, &err), SOMA_OK);
    assert_int_equal(soma__fast_save(bins, path, &err), SOMA_OK);
    if (soma__fast_open(&again, path, &err)) fail_msg("%s", err.text);
    assert_int_equal(soma__fast_vocab(again), 100);
    soma__fast_close(again);
    soma__fast_close(bins);
    assert_int_equal(soma__dir_remove(dir, &err), SOMA_OK);
}

// Each allocation fails once: a code, nothing half-made, no crash. A shape seen before needs none.
static void test_no_memory(void **state) {
    soma_rng rng = soma__rng(13);
    soma_str json = {0};
    random_tokenizer(&json, &rng, 20, 3, true);
    int failed = 0;
    double x[12] = {0.3, 0.1}, y[12];
    for (int n = 0; n < 200; n++) {
        soma_fast *fast = NULL;
        soma_fast_work *work = NULL;
        soma_fast_ids out;
        soma_error err = {0};
        soma__alloc_fail_after(n);
        soma_status status = soma__fast_parse(&fast, json.text, json.len, CONFIG, strlen(CONFIG), "random", &err);
        assert_true((status == SOMA_OK) == (fast != NULL));
        if (status == SOMA_OK) status = soma__fast_work_new(&work, fast, &err);
        if (status == SOMA_OK) status = soma__fast_encode(work, x, 4, 3, &out, &err);
        if (status == SOMA_OK) status = soma__fast_decode(work, out.ids, out.n, SOMA_FAST_STRICT, 4, 3, y, &err);
        soma__alloc_fail_after(-1);
        if (status != SOMA_OK && status != SOMA_NO_MEMORY) fail_msg("%s", err.text);
        failed += status != SOMA_OK;
        if (status == SOMA_OK) {
            uint64_t before = soma__alloc_count();
            assert_int_equal(soma__fast_encode(work, x, 4, 3, &out, &err), SOMA_OK);
            assert_int_equal(soma__alloc_count(), before);
        }
        soma__fast_work_free(work);
        soma__fast_close(fast);
    }
    assert_in_range(failed, 15, 190);
    soma__str_free(&json);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_transform),  cmocka_unit_test(test_same_as_merging),
        cmocka_unit_test(test_round_trip), cmocka_unit_test(test_bins),
        cmocka_unit_test(test_bad_chunks), cmocka_unit_test(test_bad_ids),
        cmocka_unit_test(test_bad_files),  cmocka_unit_test(test_save),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
