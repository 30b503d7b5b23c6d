// SPDX-License-Identifier: Apache-2.0
// Files are whole or absent; folders; reads that fail on demand; JSON with sentences that name file and key.
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/file.h"
#include "base/json.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char scratch[] = "/tmp/soma-test-XXXXXX";

static int make_scratch(void **state) { return mkdtemp(scratch) ? 0 : -1; }
static int remove_scratch(void **state) { return soma__dir_remove(scratch, NULL) == SOMA_OK ? 0 : -1; }

static const char *in_scratch(const char *name) {
    static char path[SOMA_PATH_MAX];
    assert_int_equal(soma__path_join(path, scratch, name, NULL), SOMA_OK);
    return path;
}

static void written_file_is_read_back(void **state) {
    const char *path = in_scratch("a.bin");
    char *data;
    size_t size;
    assert_int_equal(soma__file_write(path, "one\0two", 7, NULL), SOMA_OK);
    assert_int_equal(soma__file_read(&data, &size, path, 100, NULL), SOMA_OK);
    assert_int_equal(size, 7);
    assert_memory_equal(data, "one\0two", 8); // a zero behind the bytes
    soma__free(data);
    soma_file_map map;
    assert_int_equal(soma__file_map(&map, path, NULL), SOMA_OK);
    assert_int_equal(map.size, 7);
    assert_memory_equal(map.data, "one\0two", 7);
    soma__file_unmap(&map);
    assert_null(map.data);
    assert_int_equal(soma__file_write(path, "", 0, NULL), SOMA_OK);
    assert_int_equal(soma__file_map(&map, path, NULL), SOMA_OK);
    assert_null(map.data);
    assert_int_equal(map.size, 0);
    assert_int_equal(soma__file_read(&data, &size, path, 100, NULL), SOMA_OK);
    assert_string_equal(data, "");
    soma__free(data);
}

static void refusals_name_the_file(void **state) {
    soma_error err = {0};
    soma_file_map map;
    char *data;
    size_t size;
    assert_int_equal(soma__file_map(&map, in_scratch("absent"), &err), SOMA_NOT_FOUND);
    assert_non_null(strstr(err.text, "absent"));
    assert_int_equal(soma__file_map(&map, scratch, &err), SOMA_BAD_INPUT);
    assert_non_null(strstr(err.text, "not a regular file"));
    const char *path = in_scratch("large");
    assert_int_equal(soma__file_write(path, "0123456789", 10, NULL), SOMA_OK);
    assert_int_equal(soma__file_read(&data, &size, path, 9, &err), SOMA_BAD_INPUT);
    assert_non_null(strstr(err.text, "10 bytes"));
    assert_null(data);
    assert_int_not_equal(soma__file_write(in_scratch("no/such/folder"), "x", 1, &err), SOMA_OK);
    assert_non_null(strstr(err.text, "no/such/folder"));
}

static void every_read_can_fail(void **state) {
    const char *path = in_scratch("b.bin");
    soma_error err = {0};
    soma_file_map map;
    assert_int_equal(soma__file_write(path, "x", 1, NULL), SOMA_OK);
    soma__file_fail_after(1);
    assert_int_equal(soma__file_map(&map, path, &err), SOMA_OK);
    soma__file_unmap(&map);
    assert_int_equal(soma__file_map(&map, path, &err), SOMA_IO);
    assert_int_equal(soma__file_map(&map, path, &err), SOMA_OK); // once
    soma__file_unmap(&map);
    soma__file_fail_after(-1);
    soma__alloc_fail_after(0);
    char *data;
    size_t size;
    assert_int_equal(soma__file_read(&data, &size, path, 10, &err), SOMA_NO_MEMORY);
    soma__alloc_fail_after(-1);
}

static size_t names_in_scratch(void) {
    char **names;
    size_t n;
    assert_int_equal(soma__dir_list(&names, &n, scratch, NULL), SOMA_OK);
    soma__dir_list_free(names, n);
    return n;
}

static void abandoned_writer_leaves_the_old_file(void **state) {
    const char *path = in_scratch("c.bin");
    char *data;
    size_t size;
    assert_int_equal(soma__file_write(path, "old", 3, NULL), SOMA_OK);
    size_t before = names_in_scratch();
    soma_file_writer w;
    assert_int_equal(soma__file_writer_open(&w, path, NULL), SOMA_OK);
    assert_int_equal(soma__file_writer_put(&w, "new and longer", 14, NULL), SOMA_OK);
    soma__file_writer_close(&w);
    assert_int_equal(soma__file_read(&data, &size, path, 100, NULL), SOMA_OK);
    assert_string_equal(data, "old");
    soma__free(data);
    assert_int_equal(names_in_scratch(), before); // no temporary file stays
    soma_file_writer never = {0};
    soma__file_writer_close(&never);
    soma__file_writer_close(NULL);
}

static void full_disk_keeps_the_old_file(void **state) {
    if (access("/dev/full", W_OK)) skip();
    soma_file_writer w;
    const char *path = in_scratch("d.bin");
    assert_int_equal(soma__file_write(path, "old", 3, NULL), SOMA_OK);
    assert_int_equal(soma__file_writer_open(&w, path, NULL), SOMA_OK);
    assert_non_null(freopen("/dev/full", "wb", w.file)); // every write to it fails with "no space left"
    char block[100000] = {0};
    soma_error err = {0};
    soma_status status = soma__file_writer_put(&w, block, sizeof block, &err);
    if (status == SOMA_OK) status = soma__file_writer_commit(&w, &err);
    soma__file_writer_close(&w);
    assert_int_equal(status, SOMA_IO);
    char *data;
    size_t size;
    assert_int_equal(soma__file_read(&data, &size, path, 100, NULL), SOMA_OK);
    assert_string_equal(data, "old");
    soma__free(data);
}

static void folders_are_made_listed_removed(void **state) {
    char deep[SOMA_PATH_MAX], path[SOMA_PATH_MAX];
    soma_error err = {0};
    soma__path_join(deep, scratch, "x/y//z/", NULL);
    assert_int_equal(soma__dir_make(deep, NULL), SOMA_OK);
    assert_int_equal(soma__dir_make(deep, NULL), SOMA_OK);
    assert_true(soma__dir_exists(deep));
    assert_false(soma__file_exists(deep));
    static const char *const given[] = {"b", "a", "c"};
    for (int i = 0; i < 3; i++) {
        soma__path_join(path, deep, given[i], NULL);
        assert_int_equal(soma__file_write(path, "", 0, NULL), SOMA_OK);
        assert_true(soma__file_exists(path));
    }
    assert_int_equal(soma__dir_make(path, &err), SOMA_IO); // a file is in the way
    char **names;
    size_t n;
    assert_int_equal(soma__dir_list(&names, &n, deep, NULL), SOMA_OK);
    assert_int_equal(n, 3);
    assert_string_equal(names[0], "a");
    assert_string_equal(names[2], "c");
    soma__dir_list_free(names, n);
    soma__path_join(path, deep, "link", NULL);
    assert_int_equal(symlink(scratch, path), 0); // removal must not walk through it
    assert_int_equal(soma__dir_remove(in_scratch("x"), NULL), SOMA_OK);
    assert_false(soma__dir_exists(deep));
    assert_true(soma__dir_exists(scratch));
    assert_int_equal(soma__dir_remove(in_scratch("x"), NULL), SOMA_OK);
    assert_int_equal(soma__dir_list(&names, &n, deep, &err), SOMA_NOT_FOUND);
}

static void long_paths_are_refused(void **state) {
    static char longer[SOMA_PATH_MAX + 10], out[SOMA_PATH_MAX];
    memset(longer, 'p', sizeof longer - 1);
    soma_file_writer w;
    assert_int_equal(soma__path_join(out, "/tmp", longer, NULL), SOMA_BAD_INPUT);
    assert_int_equal(soma__file_writer_open(&w, longer, NULL), SOMA_BAD_INPUT);
    assert_int_equal(soma__dir_make(longer, NULL), SOMA_BAD_INPUT);
    assert_int_equal(soma__path_join(out, "", "name", NULL), SOMA_OK);
    assert_string_equal(out, "name");
    assert_int_equal(soma__path_join(out, "/", "name", NULL), SOMA_OK);
    assert_string_equal(out, "/name");
}

static json_t *parsed(const char *text) {
    json_t *value;
    soma_error err = {0};
    if (soma__json_parse(&value, text, strlen(text), "info.json", &err)) fail_msg("%s", err.text);
    return value;
}

static void json_getters_speak_in_sentences(void **state) {
    json_t *o = parsed("{\"fps\": 30, \"rate\": 29.5, \"name\": \"arm\", \"video\": true, \"big\": 9007199254740993, \"whole\": 4.0}");
    soma_error err = {0};
    int64_t i;
    double r;
    bool b;
    const char *s;
    assert_int_equal(soma__json_int(&i, o, "fps", 1, 1000, "info.json", &err), SOMA_OK);
    assert_int_equal(i, 30);
    assert_int_equal(soma__json_int(&i, o, "big", INT64_MIN, INT64_MAX, "info.json", &err), SOMA_OK);
    assert_true(i == 9007199254740993); // beyond what a double holds
    assert_int_equal(soma__json_int(&i, o, "whole", 0, 9, "info.json", &err), SOMA_OK);
    assert_int_equal(i, 4);
    assert_int_equal(soma__json_int(&i, o, "fps", 31, 1000, "info.json", &err), SOMA_BAD_INPUT);
    assert_string_equal(err.text, "info.json: \"fps\" is 30, allowed are 31 to 1000");
    assert_int_equal(soma__json_int(&i, o, "rate", 0, 99, "info.json", &err), SOMA_BAD_INPUT);
    assert_string_equal(err.text, "info.json: \"rate\" must be a whole number");
    assert_int_equal(soma__json_int(&i, o, "absent", 0, 99, "info.json", &err), SOMA_NOT_FOUND);
    assert_string_equal(err.text, "info.json: the key \"absent\" is missing");
    assert_int_equal(soma__json_real(&r, o, "fps", "info.json", &err), SOMA_OK);
    assert_int_equal(soma__json_real(&r, o, "name", "info.json", &err), SOMA_BAD_INPUT);
    assert_int_equal(soma__json_bool(&b, o, "video", "info.json", &err), SOMA_OK);
    assert_true(b);
    assert_int_equal(soma__json_bool(&b, o, "fps", "info.json", &err), SOMA_BAD_INPUT);
    assert_int_equal(soma__json_string(&s, o, "name", "info.json", &err), SOMA_OK);
    assert_string_equal(s, "arm");
    assert_int_equal(soma__json_string(&s, o, "fps", "info.json", &err), SOMA_BAD_INPUT);
    assert_string_equal(err.text, "info.json: \"fps\" must be a string");
    json_decref(o);
    o = parsed("[1]");
    assert_int_equal(soma__json_int(&i, o, "fps", 0, 1, "info.json", &err), SOMA_NOT_FOUND); // not even an object
    json_decref(o);
}

static void hostile_json_is_refused(void **state) {
    static char deep[100001];
    memset(deep, '[', sizeof deep - 1);
    static const char *const bad[] = {"",     "{", "{\"a\":1,\"a\":2}", "{\"a\":NaN}", "\"\\u0000\"", "\"\xff\"", "1e999", "[1,]",
                                      "{} x", deep};
    for (size_t i = 0; i < SOMA_COUNT(bad); i++) {
        json_t *value;
        soma_error err = {0};
        if (soma__json_parse(&value, bad[i], strlen(bad[i]), "evil.json", &err) == SOMA_OK) fail_msg("accepted: %.40s", bad[i]);
        assert_null(value);
        assert_int_equal(err.code, SOMA_BAD_INPUT);
        assert_non_null(strstr(err.text, "evil.json"));
    }
}

static void json_is_saved_exactly(void **state) {
    const char *path = in_scratch("v.json");
    json_t *o = json_pack("{s:f, s:I}", "x", 0.1 + 0.2, "n", (json_int_t)INT64_MAX), *back;
    assert_int_equal(soma__json_save(o, path, NULL), SOMA_OK);
    assert_int_equal(soma__json_load(&back, path, NULL), SOMA_OK);
    assert_true(json_equal(o, back));
    json_decref(back);
    json_decref(o);
    soma_error err = {0};
    assert_int_equal(soma__json_load(&back, in_scratch("none.json"), &err), SOMA_NOT_FOUND);
    assert_null(back);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(written_file_is_read_back),    cmocka_unit_test(refusals_name_the_file),
        cmocka_unit_test(every_read_can_fail),          cmocka_unit_test(abandoned_writer_leaves_the_old_file),
        cmocka_unit_test(full_disk_keeps_the_old_file), cmocka_unit_test(folders_are_made_listed_removed),
        cmocka_unit_test(long_paths_are_refused),       cmocka_unit_test(json_getters_speak_in_sentences),
        cmocka_unit_test(hostile_json_is_refused),      cmocka_unit_test(json_is_saved_exactly),
    };
    return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
