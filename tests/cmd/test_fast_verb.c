// SPDX-License-Identifier: Apache-2.0
// `soma fast` from chunks to a tokenizer, to ids, and back; statistics and their page; what it refuses.
#include "cmd/program.h"

#include "base/file.h"
#include "base/json.h"
#include "base/rng.h"
#include "format/npy.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { N = 300, T = 10, A = 3 };

static char dir[] = "/tmp/soma_fast_verb_XXXXXX";
static double chunks[N * T * A];

// Runs in the folder of this test.
static int soma(const char *arguments) {
    char line[1900];
    snprintf(line, sizeof line, "%s 2>&1", arguments);
    return run_soma(dir, line);
}

static void must(const char *arguments) {
    if (soma(arguments) != 0) fail_msg("soma %s: %s", arguments, said);
}

static void read_array(const char *name, double *out) {
    char path[100], *bytes;
    size_t size;
    soma_npy a;
    soma_error err = {0};
    snprintf(path, sizeof path, "%s/%s", dir, name);
    if (soma__file_read(&bytes, &size, path, 1 << 24, &err)) fail_msg("%s", err.text);
    if (soma__npy_parse(&a, bytes, size, path, &err)) fail_msg("%s", err.text);
    assert_int_equal(a.n_values, N * T * A);
    assert_int_equal(a.dtype, SOMA_F64);
    memcpy(out, a.data, sizeof chunks);
    soma__free(bytes);
}

static int make_chunks(void **state) {
    soma_rng rng = soma__rng(2);
    int64_t shape[] = {N, T, A};
    char path[100];
    if (!mkdtemp(dir)) return 1;
    for (int i = 0; i < N; i++)
        for (int a = 0; a < A; a++) {
            double at = 0.4 * soma__rng_normal(&rng), speed = 0.05 * soma__rng_normal(&rng);
            for (int t = 0; t < T; t++, at += speed) chunks[(i * T + t) * A + a] = at;
        }
    snprintf(path, sizeof path, "%s/chunks.npy", dir);
    return soma__npy_write(path, SOMA_F64, shape, 3, chunks, NULL);
}

static int remove_folder(void **state) { return soma__dir_remove(dir, NULL); }

static void test_there_and_back(void **state) {
    static double back[N * T * A];
    must("fast fit --data chunks.npy --scale 20 --vocab 400 --out tokenizer");
    must("fast encode --tokenizer tokenizer --in chunks.npy --out ids.safetensors");
    assert_null(strstr(said, "refused"));
    must("fast decode --tokenizer tokenizer --in ids.safetensors --out back.npy");
    read_array("back.npy", back);
    for (int i = 0; i < N; i++) {
        double square = 0;
        for (int k = 0; k < T * A; k++) square += pow(back[i * T * A + k] - chunks[i * T * A + k], 2);
        assert_true(sqrt(square) <= 0.025 * sqrt(T * A) + 1e-9); // half a step of 1/20 for each coefficient
    }
    // the wrong shape: zeros and a count, or cut off and filled up
    must("fast decode --tokenizer tokenizer --in ids.safetensors --horizon 9 --out short.safetensors");
    assert_non_null(strstr(said, "300 do not decode to that shape"));
    must("fast decode --tokenizer tokenizer --in ids.safetensors --horizon 9 --relaxed --out short.safetensors");
    assert_null(strstr(said, "do not decode"));
    must("fast encode --bins 64 --in chunks.npy --out bins.safetensors");
    assert_non_null(strstr(said, "9000 tokens (30.0 each)"));
    must("fast decode --bins 64 --in bins.safetensors --out back.npy");
}

// The same tokenizer from one thread and from three.
static void test_same_file(void **state) {
    char a[100], b[100], *one, *three;
    size_t n_one, n_three;
    must("fast fit --data chunks.npy --scale 20 --vocab 400 --threads 1 --out one");
    must("fast fit --data chunks.npy --scale 20 --vocab 400 --threads 3 --out three");
    snprintf(a, sizeof a, "%s/one/tokenizer.json", dir);
    snprintf(b, sizeof b, "%s/three/tokenizer.json", dir);
    assert_int_equal(soma__file_read(&one, &n_one, a, 1 << 24, NULL), SOMA_OK);
    assert_int_equal(soma__file_read(&three, &n_three, b, 1 << 24, NULL), SOMA_OK);
    assert_int_equal(n_one, n_three);
    assert_memory_equal(one, three, n_one);
    soma__free(one);
    soma__free(three);
}

static void test_stats(void **state) {
    json_t *r;
    char path[100], *page;
    size_t size;
    must("fast stats --data chunks.npy --scale 20 --vocab 400 --json --out page.html");
    assert_int_equal(soma__json_parse(&r, said, strlen(said), "stats", NULL), SOMA_OK);
    const json_t *d = json_array_get(json_object_get(r, "datasets"), 0), *own = json_array_get(json_object_get(d, "tokenizers"), 0);
    assert_int_equal(json_integer_value(json_object_get(d, "chunks")), N);
    assert_int_equal(json_array_size(json_object_get(json_object_get(own, "error"), "rms")), A);
    assert_true(json_real_value(json_object_get(own, "ratio")) > 1);
    assert_true(json_real_value(json_object_get(own, "error_rms")) < 0.025);
    assert_int_equal(json_array_size(json_object_get(d, "tokenizers")), 2); // and the bins
    assert_true(json_array_size(json_object_get(d, "curve")) >= 10);
    json_decref(r);
    snprintf(path, sizeof path, "%s/page.html", dir);
    assert_int_equal(soma__file_read(&page, &size, path, 1 << 24, NULL), SOMA_OK);
    assert_non_null(strstr(page, "<svg"));
    assert_null(strstr(page, "nan"));
    assert_null(strstr(page, "http"));
    soma__free(page);
}

// A chunk far off ends a fit with a sentence; the statistics go on without a tokenizer of the dataset's own.
static void test_far_off(void **state) {
    int64_t shape[] = {2, 2, 1};
    char path[100];
    snprintf(path, sizeof path, "%s/far.npy", dir);
    assert_int_equal(soma__npy_write(path, SOMA_F64, shape, 3, (double[]){0, 1, 0, 1e6}, NULL), SOMA_OK);
    assert_int_equal(soma("fast fit --data far.npy --out far"), 1);
    assert_non_null(strstr(said, "far.npy: chunk 1 holds"));
    must("fast stats --data far.npy,chunks.npy --scale 20 --vocab 400");
    assert_non_null(strstr(said, "far.npy: no tokenizer can be fitted: chunk 1 holds"));
    assert_non_null(strstr(said, "256 bins"));
    assert_non_null(strstr(strstr(said, "chunks.npy"), "fitted"));
}

static void test_refused(void **state) {
    static const struct {
        const char *arguments, *says;
        int code;
    } cases[] = {
        {"fast", "an argument is missing", 2},
        {"fast squeeze", "none of fit, encode, decode and stats", 2},
        {"fast fit --out x", "--data", 1},
        {"fast fit --data chunks.npy", "--out", 1},
        {"fast fit --data chunks.npy --scale -1 --out x", "scale is -1", 1},
        {"fast fit --data chunks.npy --vocab 3 --out x", "more than a vocabulary of 3", 1},
        {"fast fit --data nowhere --out x", "nowhere", 1},
        {"fast encode --in chunks.npy --out x", "--tokenizer", 1},
        {"fast encode --tokenizer nowhere --in chunks.npy --out x", "nowhere/processor_config.json", 1},
        {"fast decode --bins 64 --in chunks.npy --out x", "chunks.npy", 1},
        {"fast stats --data chunks.npy --stride 0", "--stride is at least 1", 2},
    };
    for (size_t i = 0; i < SOMA_COUNT(cases); i++) {
        int code = soma(cases[i].arguments);
        if (code != cases[i].code || !strstr(said, cases[i].says)) fail_msg("soma %s: %d: %s", cases[i].arguments, code, said);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_there_and_back), cmocka_unit_test(test_same_file), cmocka_unit_test(test_stats),
        cmocka_unit_test(test_far_off),        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, make_chunks, remove_folder);
}
