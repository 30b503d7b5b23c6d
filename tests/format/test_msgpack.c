// SPDX-License-Identifier: Apache-2.0
// msgpack: bytes written by hand from the format's description, openpi's own bytes where ../shared has them, and messages that lie.
#include "golden/golden.h"

#include "format/msgpack.h"

#define BYTES(text) text, sizeof(text) - 1

// {"a": f32[2,2], "n": np.float32(1.25), "p": "hi"} as openpi's packer writes it
#define ARRAY_HEAD                        \
    "\x84\xc4\x0b__ndarray__\xc3\xc4\x04" \
    "data"
static const char message[] = "\x83\xa1"
                              "a" ARRAY_HEAD "\xc4\x10\0\0\x80\x3f\0\0\0\x40\0\0\x40\x40\0\0\x80\x40\xc4\x05"
                              "dtype\xa3<f4\xc4\x05shape\x92\x02\x02"
                              "\xa1n\x83\xc4\x0d__npgeneric__\xc3\xc4\x04"
                              "data\xcb\x3f\xf4\0\0\0\0\0\0\xc4\x05"
                              "dtype\xa3<f4"
                              "\xa1p\xa2hi";

static soma_arena arena;
static soma_error err;

static int reset(void **state) {
    soma__arena_free(&arena);
    err = (soma_error){0};
    return 0;
}

static const soma_msg *parse(const char *bytes, size_t size) {
    const soma_msg *value = NULL;
    return soma__msg_parse(&value, &arena, bytes, size, false, &err) ? NULL : value;
}

static void test_read(void **state) {
    const soma_msg *m = parse(BYTES(message)), *a = soma__msg_get(m, "a"), *n = soma__msg_get(m, "n");
    assert_non_null(m);
    assert_int_equal(a->kind, SOMA_MSG_NDARRAY);
    assert_string_equal(a->array->dtype, "<f4");
    assert_int_equal(a->array->n_dims, 2);
    assert_int_equal(soma__msg_n_numbers(a), 4);
    for (int i = 0; i < 4; i++) assert_true(soma__msg_number(a, i) == i + 1);
    assert_int_equal(n->kind, SOMA_MSG_SCALAR);
    assert_true(soma__msg_number(n, 0) == 1.25);
    assert_true(soma__msg_is_text(soma__msg_get(m, "p"), "hi"));
    assert_null(soma__msg_get(m, "q"));
    char text[200];
    assert_string_equal(soma__msg_describe(text, a), "an ndarray <f4 [2, 2]");
}

static void test_write(void **state) {
    const float a[4] = {1, 2, 3, 4};
    soma_str out = {0};
    soma__msg_put_map(&out, 1);
    soma__msg_put_str(&out, "a");
    soma__msg_put_ndarray(&out, "<f4", 2, (const int64_t[]){2, 2}, a, sizeof a);
    size_t len = 1 + 2 + sizeof ARRAY_HEAD - 1 + 2 + 16 + 7 + 4 + 7 + 3;
    assert_int_equal(out.len, len);
    assert_int_equal((unsigned char)out.text[0], 0x81);
    assert_memory_equal(out.text + 1, message + 1, len - 1);
    soma__str_free(&out);

    soma__msg_put(&out, parse(BYTES(message)));
    assert_int_equal(out.len, sizeof message - 1);
    assert_memory_equal(out.text, message, out.len);
    soma__str_free(&out);

    json_t *json = json_loads("{\"reset_pose\":[0,-1.5,true,null,\"x\"]}", 0, NULL);
    soma__msg_put_json(&out, json);
    assert_int_equal(out.len, 27);
    assert_memory_equal(out.text, "\x81\xaareset_pose\x95\0\xcb\xbf\xf8\0\0\0\0\0\0\xc3\xc0\xa1x", 27);
    json_decref(json);
    soma__str_free(&out);
}

// One value of each dtype: the message is the map that numpy's array of one number becomes.
static double one_number(const char *dtype, const char *data, size_t size) {
    soma_str out = {0};
    soma__msg_put_ndarray(&out, dtype, 0, NULL, data, size);
    const soma_msg *m = parse(out.text, out.len);
    assert_non_null(m);
    double value = soma__msg_number(m, 0);
    soma__str_free(&out);
    return value;
}

static void test_dtypes(void **state) {
    assert_true(one_number("|b1", BYTES("\x01")) == 1);
    assert_true(one_number("|i1", BYTES("\xfd")) == -3);
    assert_true(one_number("|u1", BYTES("\xfd")) == 253);
    assert_true(one_number("<i2", BYTES("\xfe\xff")) == -2);
    assert_true(one_number(">i2", BYTES("\xff\xfe")) == -2);
    assert_true(one_number("<u4", BYTES("\xff\xff\xff\xff")) == 4294967295.0);
    assert_true(one_number("<i8", BYTES("\xff\xff\xff\xff\xff\xff\xff\xff")) == -1);
    assert_true(one_number("<f2", BYTES("\x00\xc1")) == -2.5);
    assert_true(one_number("<f2", BYTES("\x01\x00")) == ldexp(1, -24));
    assert_true(isinf(one_number("<f2", BYTES("\x00\x7c"))));
    assert_true(one_number(">f4", BYTES("\x3f\x80\0\0")) == 1);
    assert_true(one_number("<f8", BYTES("\0\0\0\0\0\0\xf8\x3f")) == 1.5);
}

// ---- messages that lie: each gets a sentence with these words

static void refused(const char *bytes, size_t size, const char *words) {
    assert_null(parse(bytes, size));
    if (!strstr(err.text, words)) fail_msg("\"%s\" does not say \"%s\"", err.text, words);
    assert_int_equal(err.code, SOMA_BAD_INPUT);
}

#define ARRAY(data_part, dtype_part, shape_part)             \
    BYTES(ARRAY_HEAD data_part "\xc4\x05"                    \
                               "dtype" dtype_part "\xc4\x05" \
                               "shape" shape_part)

static void test_refused(void **state) {
    refused(BYTES(""), "ends inside");
    refused(BYTES("\xc1"), "no value starts");
    refused(BYTES("\x01\x02"), "1 bytes are left");
    refused(BYTES("\xdd\xff\xff\xff\xff"), "more than 65536 values");
    refused(BYTES("\xdf\xff\xff\xff\xff"), "more than 65536 values");
    refused(BYTES("\xdc\xff\xff"), "ends inside");
    refused(BYTES("\xc6\xff\xff\xff\xff"
                  "abc"),
            "ends inside");
    refused(BYTES("\xdb\xff\xff\xff\xff"
                  "abc"),
            "ends inside");
    refused(BYTES("\xc9\xff\xff\xff\xff"
                  "abc"),
            "extension");
    refused(BYTES("\xd4\x01"
                  "a"),
            "extension");
    refused(BYTES("\x81\x01\x02"), "neither str nor bin");
    char deep[64];
    memset(deep, 0x91, sizeof deep);
    refused(deep, sizeof deep, "nested deeper than 32");

    assert_non_null(parse(ARRAY("\xc4\x08"
                                "12345678",
                                "\xa3<f4", "\x91\x02")));
    refused(ARRAY("\xc4\x07"
                  "1234567",
                  "\xa3<f4", "\x91\x02"),
            "ndarray <f4 [2] with 7 bytes");
    refused(ARRAY("\xc4\x08"
                  "12345678",
                  "\xa3<f4", "\x91\xff"),
            "shape");
    refused(ARRAY("\xc4\x08"
                  "12345678",
                  "\xa3<f4", "\x91\xcf\x7f\xff\xff\xff\xff\xff\xff\xff"),
            "shape");
    refused(ARRAY("\xc4\x00", "\xa3<f4", "\x95\xce\x7f\xff\xff\xff\xce\x7f\xff\xff\xff\xce\x7f\xff\xff\xff\x02\x02"), "overflows");
    refused(ARRAY("\xc4\x08"
                  "12345678",
                  "\xa3<c8", "\x91\x01"),
            "dtype");
    refused(ARRAY("\xc4\x08"
                  "12345678",
                  "\xa2|O", "\x91\x01"),
            "dtype");
    refused(ARRAY("\xc4\x08"
                  "12345678",
                  "\xa3|f8", "\x91\x01"),
            "dtype");
    refused(ARRAY("\xc4\x08"
                  "12345678",
                  "\xa0", "\x91\x01"),
            "dtype");
    refused(ARRAY("\xc4\x08"
                  "12345678",
                  "\x08", "\x91\x01"),
            "numpy value needs");
    refused(ARRAY("\xa8"
                  "12345678",
                  "\xa3<f8", "\x91\x01"),
            "needs data of kind bin");
    refused(ARRAY("\xc4\x08"
                  "12345678",
                  "\xa3<f8", "\x01"),
            "needs data of kind bin");
    refused(ARRAY("\xc4\x08"
                  "12345678",
                  "\xa3<f8", "\x97\x01\x01\x01\x01\x01\x01\x01"),
            "more than 6");
    refused(BYTES("\x81\xc4\x0b__ndarray__\xc3"), "numpy value needs");
    assert_non_null(parse(ARRAY("\xc4\x00", "\xa3<f4", "\x92\x00\x07")));
}

// Every beginning of a good message is refused, and nothing reads behind its end (the sanitizers watch a copy of the exact size).
static void test_truncated(void **state) {
    for (size_t size = 0; size + 1 < sizeof message; size++) {
        char *part = malloc(size ? size : 1);
        memcpy(part, message, size);
        assert_null(parse(part, size));
        free(part);
    }
}

static void test_memory(void **state) {
    for (int n = 0;; n++) {
        reset(NULL);
        soma__alloc_fail_after(n);
        const soma_msg *m = parse(BYTES(message));
        soma__alloc_fail_after(-1);
        if (m) break;
        assert_int_equal(err.code, SOMA_NO_MEMORY);
        assert_true(n < 50);
    }
}

static void test_str_keys(void **state) {
    static const char bytes[] = "\x84\xab__ndarray__\xc3\xa4"
                                "data\xc4\x01\x07\xa5"
                                "dtype\xa3|u1\xa5shape\x91\x01";
    const soma_msg *m;
    assert_int_equal(parse(BYTES(bytes))->kind, SOMA_MSG_MAP);
    assert_int_equal(soma__msg_parse(&m, &arena, bytes, sizeof bytes - 1, true, &err), SOMA_OK);
    assert_int_equal(m->kind, SOMA_MSG_NDARRAY);
    assert_true(soma__msg_number(m, 0) == 7);
}

// ---- openpi's bytes and their description in wire.json

static void same_value(const soma_msg *m, const json_t *want, const char *where);

static void same_array(const soma_msg *m, const json_t *want, const char *where) {
    assert_int_equal(m->kind, SOMA_MSG_NDARRAY);
    assert_string_equal(m->array->dtype, json_string_value(json_object_get(want, "dtype")));
    const json_t *shape = json_object_get(want, "shape"), *values = json_object_get(want, "values"), *sum = json_object_get(want, "sum");
    assert_int_equal(m->array->n_dims, json_array_size(shape));
    for (int i = 0; i < m->array->n_dims; i++) assert_int_equal(m->array->shape[i], json_number_value(json_array_get(shape, (size_t)i)));
    if (!json_is_number(sum)) return;
    double total = 0;
    for (int64_t i = 0; i < soma__msg_n_numbers(m); i++) {
        double x = soma__msg_number(m, i);
        const json_t *value = json_array_get(values, (size_t)i);
        if (json_is_number(value) && x != json_number_value(value)) fail_msg("%s: %g is not %g", where, x, json_number_value(value));
        total += x;
    }
    double wanted = json_number_value(sum);
    if (fabs(total - wanted) > 1e-12 * m->array->n_values * fmax(1, fabs(wanted))) fail_msg("%s: sum %g, not %g", where, total, wanted);
}

static void same_plain(const soma_msg *m, const json_t *want, const char *where) {
    if (json_is_string(want) && m->kind == SOMA_MSG_REAL)
        assert_true(isinf(m->real)); // "inf"
    else if (json_is_string(want))
        assert_true(m->kind == SOMA_MSG_STR && soma__msg_is_text(m, json_string_value(want)));
    else if (json_is_real(want))
        assert_true(soma__msg_number(m, 0) == json_real_value(want));
    else if (json_is_boolean(want))
        assert_true(m->kind == SOMA_MSG_BOOL && m->flag == json_is_true(want));
    else
        assert_int_equal(m->kind, SOMA_MSG_NIL);
}

static void same_items(const soma_msg *m, const json_t *items, const char *where) {
    const char *key;
    json_t *item;
    size_t i;
    assert_int_equal(m->n, json_is_object(items) ? json_object_size(items) : json_array_size(items));
    json_object_foreach((json_t *)items, key, item) same_value(soma__msg_get(m, key), item, key);
    json_array_foreach(items, i, item) same_value(&m->items[i], item, where);
}

static void same_value(const soma_msg *m, const json_t *want, const char *where) {
    if (!m) fail_msg("%s is missing", where);
    const char *type = json_string_value(json_object_get(want, "t"));
    if (!strcmp(type, "map") || !strcmp(type, "array"))
        same_items(m, json_object_get(want, "items"), where);
    else if (!strcmp(type, "ndarray"))
        same_array(m, want, where);
    else if (!strcmp(type, "npgeneric"))
        same_plain(&m->scalar->value, json_object_get(want, "value"), where);
    else if (!strcmp(type, "bin"))
        assert_true(m->kind == SOMA_MSG_BIN && m->n * 2 == json_string_length(json_object_get(want, "hex")));
    else
        same_plain(m, json_object_get(want, "value"), where);
}

static void test_golden(void **state) {
    json_error_t problem;
    char path[SOMA_PATH_MAX], file[80];
    json_t *all = json_load_file(golden_path(path, "wire/wire.json"), JSON_DECODE_INT_AS_REAL, &problem); // 2^64-1 is one of the values
    assert_non_null(all);
    int n = 0;
    const char *name;
    json_t *entry;
    json_object_foreach(all, name, entry) {
        char *bytes;
        size_t size;
        snprintf(file, sizeof file, "wire/%s.msgpack", name);
        assert_int_equal(soma__file_read(&bytes, &size, golden_path(path, file), 1 << 24, &err), SOMA_OK);
        const soma_msg *m = parse(bytes, size);
        if (!m) fail_msg("%s: %s", name, err.text);
        same_value(m, json_object_get(entry, "decoded"), name);
        soma_str again = {0};
        soma__msg_put(&again, m);
        golden_same(file, "bytes", again.len == size && !memcmp(again.text, bytes, size));
        soma__str_free(&again);
        soma__free(bytes);
        n++;
    }
    assert_int_equal(n, 10);
    json_decref(all);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_read, reset, reset),      cmocka_unit_test_setup_teardown(test_write, reset, reset),
        cmocka_unit_test_setup_teardown(test_dtypes, reset, reset),    cmocka_unit_test_setup_teardown(test_refused, reset, reset),
        cmocka_unit_test_setup_teardown(test_truncated, reset, reset), cmocka_unit_test_setup_teardown(test_memory, reset, reset),
        cmocka_unit_test_setup_teardown(test_str_keys, reset, reset),  cmocka_unit_test_setup_teardown(test_golden, reset, reset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
