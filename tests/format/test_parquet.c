// SPDX-License-Identifier: Apache-2.0
// Parquet: round trip of every type and nesting, names that look like patterns, missing columns, damaged files, failed allocations.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/file.h"
#include "format/parquet.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static char dir[] = "/tmp/soma_parquet_XXXXXX";
static soma_parquet *pq;
enum { ROWS = 5000 }; // more than two of DuckDB's chunks

static void in_dir(char out[SOMA_PATH_MAX], const char *name) { assert_int_equal(soma__path_join(out, dir, name, NULL), SOMA_OK); }

static void write_sample(const char *path, int64_t rows) {
    int64_t *ids = malloc(sizeof *ids * ROWS);
    float *vectors = malloc(sizeof *vectors * ROWS * 3);
    double *nested = malloc(sizeof *nested * ROWS * 2 * 1 * 1);
    const char **texts = malloc(sizeof *texts * ROWS);
    for (int64_t i = 0; i < ROWS; i++) {
        ids[i] = i / 100;
        for (int k = 0; k < 3; k++) vectors[3 * i + k] = (float)i + 0.25f * (float)k;
        nested[2 * i] = 1e-3 * (double)i;
        nested[2 * i + 1] = -1;
        texts[i] = i % 2 ? "it's a \"long\" text \xc3\xa4 beyond twelve bytes" : "";
    }
    soma_parquet_field fields[] = {
        {"id", SOMA_PARQUET_I64, 0, {0}, ids},
        {"observation.state", SOMA_PARQUET_F32, 1, {3}, vectors},
        {"a \"nested\" one", SOMA_PARQUET_F64, 3, {2, 1, 1}, nested},
        {"task", SOMA_PARQUET_TEXT, 0, {0}, texts},
        {"tasks", SOMA_PARQUET_TEXT, 1, {1}, texts},
    };
    soma_error err = {0};
    if (soma__parquet_write(pq, path, fields, SOMA_COUNT(fields), rows, "pandas", "{\"it's\": 1}", &err)) fail_msg("%s", err.text);
    free(ids);
    free(vectors);
    free(nested);
    free(texts);
}

static soma_table *read_all(const char *path) {
    soma_table *t;
    soma_error err = {0};
    soma_parquet_query q = {.path = path, .limit = -1};
    if (soma__parquet_read(&t, pq, &q, &err)) fail_msg("%s", err.text);
    return t;
}

static void round_trip(void **state) {
    char path[SOMA_PATH_MAX];
    in_dir(path, "a=1 it's [x]*?.parquet"); // a hive-like, quoted, pattern-like name
    write_sample(path, ROWS);
    soma_table *t = read_all(path);
    assert_int_equal(t->n_rows, ROWS);
    assert_int_equal(t->n_columns, 5);
    const soma_column *v = soma__table_column(t, "observation.state"), *n = soma__table_column(t, "a \"nested\" one");
    const soma_column *s = soma__table_column(t, "task"), *l = soma__table_column(t, "tasks");
    assert_true(v->list && n->list && l->list && !s->list);
    assert_int_equal(s->kind, SOMA_COLUMN_TEXT);
    for (size_t r = 0; r < ROWS; r++) {
        assert_true(v->starts[r] == 3 * r && v->numbers[3 * r + 2] == (double)r + 0.5);
        assert_true(n->starts[r + 1] == 2 * r + 2 && n->numbers[2 * r] == 1e-3 * (double)r && n->numbers[2 * r + 1] == -1);
        assert_int_equal(s->texts[r].len, strlen(s->texts[r].data));
        assert_string_equal(s->texts[r].data, r % 2 ? "it's a \"long\" text \xc3\xa4 beyond twelve bytes" : "");
        assert_string_equal(l->texts[r].data, s->texts[r].data);
    }
    soma__table_free(t);

    const char *columns[] = {"observation.state", "id"};
    soma_parquet_query q = {.path = path, .columns = columns, .n_columns = 2, .where = "id", .equals = 7, .offset = 10, .limit = 5};
    soma_error err = {0};
    soma_parquet *second; // another thread's connection to the same database
    assert_int_equal(soma__parquet_open(&second, pq, &err), SOMA_OK);
    assert_int_equal(soma__parquet_read(&t, second, &q, &err), SOMA_OK);
    assert_int_equal(t->n_rows, 5);
    assert_true(t->columns[0].numbers[0] == 710 && t->columns[1].numbers[4] == 7);
    soma__table_free(t);
    soma__parquet_close(second);

    in_dir(path, "empty.parquet");
    write_sample(path, 0);
    t = read_all(path);
    assert_int_equal(t->n_rows, 0);
    assert_int_equal(t->n_columns, 5);
    soma__table_free(t);
}

static void refused(const soma_parquet_query *q, soma_status code, const char *word, const char *word2) {
    soma_table *t;
    soma_error err = {0};
    assert_int_equal(soma__parquet_read(&t, pq, q, &err), code);
    assert_null(t);
    if (!strstr(err.text, q->path) || !strstr(err.text, word) || !strstr(err.text, word2)) fail_msg("%s", err.text);
}

static void bad_files(void **state) {
    char path[SOMA_PATH_MAX];
    in_dir(path, "sample.parquet");
    write_sample(path, ROWS);
    const char *columns[] = {"id", "action"};
    soma_parquet_query q = {.path = path, .columns = columns, .n_columns = 2, .limit = -1};
    refused(&q, SOMA_NOT_FOUND, "\"action\" is missing", "observation.state");
    q = (soma_parquet_query){.path = path, .where = "episode_index", .limit = -1};
    refused(&q, SOMA_NOT_FOUND, "\"episode_index\" is missing", "task");

    char *bytes;
    size_t size;
    soma_error err = {0};
    assert_int_equal(soma__file_read(&bytes, &size, path, 1 << 24, &err), SOMA_OK);
    char cut[SOMA_PATH_MAX];
    in_dir(cut, "cut.parquet");
    q = (soma_parquet_query){.path = cut, .limit = -1};
    size_t lengths[] = {0, 3, 100, size / 2, size - 1};
    for (size_t i = 0; i < SOMA_COUNT(lengths); i++) {
        assert_int_equal(soma__file_write(cut, bytes, lengths[i], &err), SOMA_OK);
        refused(&q, SOMA_BAD_INPUT, "cut.parquet", "parquet");
    }
    for (size_t i = size / 3; i < size / 3 + 400; i++) bytes[i] = (char)0xff; // inside the pages: an error or numbers, never a crash
    assert_int_equal(soma__file_write(cut, bytes, size, &err), SOMA_OK);
    soma_table *t;
    if (!soma__parquet_read(&t, pq, &q, &err)) soma__table_free(t);
    soma__free(bytes);
    in_dir(cut, "absent.parquet");
    refused(&q, SOMA_NOT_FOUND, "absent.parquet", "");
    in_dir(cut, "no/such/folder.parquet");
    int64_t one = 1;
    soma_parquet_field field = {"id", SOMA_PARQUET_I64, 0, {0}, &one};
    assert_int_equal(soma__parquet_write(pq, cut, &field, 1, 1, NULL, NULL, &err), SOMA_IO);
    assert_non_null(strstr(err.text, "folder.parquet"));
}

static void every_allocation(void **state) {
    char path[SOMA_PATH_MAX];
    in_dir(path, "small.parquet");
    write_sample(path, 100);
    soma_parquet_query q = {.path = path, .limit = -1};
    soma_table *t;
    soma_error err = {0};
    int64_t n = 0;
    for (; n < 2000; n++) {
        soma__alloc_fail_after(n);
        soma_status status = soma__parquet_read(&t, pq, &q, &err);
        soma__alloc_fail_after(-1);
        if (status == SOMA_OK) break;
        assert_int_equal(status, SOMA_NO_MEMORY);
        assert_null(t);
    }
    assert_in_range(n, 10, 1999);
    soma__table_free(t);
}

static void real_picture_column(void **state) {
    const char *path = SOMA_SOURCE_DIR "/../shared/data/lerobot/pusht_v30/pusht_image_slice/data/chunk-000/file-000.parquet";
    if (!soma__file_exists(path)) {
        print_message("skipped: ../shared/data is absent\n");
        skip();
    }
    soma_table *t = read_all(path);
    assert_int_equal(t->n_rows, 420);
    const soma_column *image = soma__table_column(t, "observation.image"), *done = soma__table_column(t, "next.done");
    assert_int_equal(image->kind, SOMA_COLUMN_TEXT);
    assert_memory_equal(image->texts[0].data, "\x89PNG", 4);
    assert_true(done->numbers[0] == 0);
    soma__table_free(t);
}

int main(void) {
    soma_error err = {0};
    if (!mkdtemp(dir) || soma__parquet_open(&pq, NULL, &err)) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),
        cmocka_unit_test(bad_files),
        cmocka_unit_test(every_allocation),
        cmocka_unit_test(real_picture_column),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    soma__parquet_close(pq);
    soma__dir_remove(dir, NULL);
    return failed;
}
