// SPDX-License-Identifier: Apache-2.0
// TFRecord framing and tf.train.Example: known checksums, packed and single values, files cut at every byte, wrong checksums, absurd
// lengths.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/rng.h"
#include "format/example.h"
#include "toy_rlds.h"

#include <stdlib.h>

static void checksums(void **state) {
    // RFC 3720 B.4: CRC-32C of 32 zeros is 0x8a9136aa, of 0 .. 31 it is 0x46dd794e; of "123456789" 0xe3069283
    static const struct {
        uint32_t crc;
        size_t size;
        int first, step;
    } known[] = {{0x8a9136aau, 32, 0, 0}, {0x46dd794eu, 32, 0, 1}, {0xe3069283u, 9, '1', 1}};
    for (size_t k = 0; k < SOMA_COUNT(known); k++) {
        unsigned char bytes[32];
        for (size_t i = 0; i < known[k].size; i++) bytes[i] = (unsigned char)(known[k].first + (int)i * known[k].step);
        uint32_t crc = known[k].crc;
        assert_int_equal(soma__tfrecord_crc(bytes, known[k].size), (uint32_t)((crc >> 15 | crc << 17) + 0xa282ead8u));
    }
}

static size_t make_file(unsigned char **out, const char *const *records, size_t n) {
    char *bytes = NULL;
    size_t size = 0;
    FILE *file = open_memstream(&bytes, &size);
    for (size_t i = 0; i < n; i++) put_record(file, records[i], strlen(records[i]));
    fclose(file);
    *out = (unsigned char *)bytes;
    return size;
}

static void framing(void **state) {
    static const char *const records[] = {"one", "", "a record of some length"};
    unsigned char *file;
    size_t size = make_file(&file, records, 3), at = 0;
    soma_tfrecord r;
    soma_error err = {0};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(soma__tfrecord_at(&r, file, size, at, "f", &err), SOMA_OK);
        assert_int_equal(r.size, strlen(records[i]));
        assert_memory_equal(file + r.offset + 12, records[i], r.size);
        assert_int_equal(soma__tfrecord_check(&r, file, "f", &err), SOMA_OK);
        at = r.next;
    }
    assert_int_equal(at, size);
    for (size_t cut = 1; cut < size; cut++) { // each cut is told, unless it falls between two records
        unsigned char *part = malloc(cut);
        memcpy(part, file, cut);
        soma_status status = SOMA_OK;
        for (at = 0; at < cut && !status; at = r.next) status = soma__tfrecord_at(&r, part, cut, at, "shard", &err);
        if (status) assert_non_null(strstr(err.text, "shard"));
        assert_int_equal(status, cut == 19 || cut == 35 ? SOMA_OK : SOMA_BAD_INPUT);
        free(part);
    }
    file[3] ^= 1; // the length of the first
    assert_int_equal(soma__tfrecord_at(&r, file, size, 0, "shard", &err), SOMA_BAD_INPUT);
    assert_non_null(strstr(err.text, "byte 0"));
    file[3] ^= 1;
    file[36 + 12] ^= 1; // the data of the last
    assert_int_equal(soma__tfrecord_at(&r, file, size, 35, "shard", &err), SOMA_OK);
    file[36 + 12] ^= 1;
    file[35 + 14] ^= 4;
    assert_int_equal(soma__tfrecord_check(&r, file, "shard", &err), SOMA_BAD_INPUT);
    assert_non_null(strstr(err.text, "byte 35"));
    free(file);
    // a length that its checksum agrees with and the file does not
    unsigned char head[16] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f};
    uint32_t crc = soma__tfrecord_crc(head, 8);
    for (int i = 0; i < 4; i++) head[8 + i] = (unsigned char)(crc >> 8 * i);
    assert_int_equal(soma__tfrecord_at(&r, head, 16, 0, "shard", &err), SOMA_BAD_INPUT);
    assert_non_null(strstr(err.text, "9223372036854775807"));
}

static soma_str make_example(void) {
    static const float floats[] = {1, -2.5f, 3};
    static const int64_t ints[] = {0, 300, -1, 1};
    soma_str features = {0}, example = {0}, texts = {0}, singles = {0};
    put_floats(&features, "floats", floats, 3);
    put_ints(&features, "ints", ints, 4);
    put_bytes(&texts, 1, "pick", 4);
    put_bytes(&texts, 1, "", 0);
    put_list(&features, "texts", 1, &texts);
    for (int i = 0; i < 3; i++) { // not packed, as old writers do
        put_varint(&singles, 1 << 3);
        put_varint(&singles, (uint64_t)i);
    }
    put_varint(&singles, 9 << 3); // a field of a later version
    put_varint(&singles, 77);
    put_list(&features, "singles", 3, &singles);
    put_bytes(&example, 1, features.text, features.len);
    soma__str_free(&features);
    return example;
}

// Reads all that an example has; the first error, or SOMA_OK.
static soma_status read_everything(const void *data, size_t size, soma_error *err) {
    soma_example e = {0};
    soma_status status = soma__example_parse(&e, data, size, "record", err);
    for (size_t i = 0; i < e.n_lists && status == SOMA_OK; i++) {
        int64_t n;
        soma_span bytes;
        status = soma__example_count(&n, &e, &e.lists[i], "record", err);
        float *values = status == SOMA_OK && n < 1000 ? malloc((size_t)n * 4 + 1) : NULL;
        if (values && e.lists[i].kind > SOMA_EXAMPLE_BYTES) status = soma__example_floats(values, n, &e, &e.lists[i], "record", err);
        if (values && e.lists[i].kind == SOMA_EXAMPLE_BYTES && n)
            status = soma__example_bytes(&bytes, n - 1, &e, &e.lists[i], "record", err);
        free(values);
    }
    soma__example_free(&e);
    return status;
}

static void examples(void **state) {
    soma_str text = make_example();
    soma_example e = {0};
    soma_error err = {0};
    float values[5];
    int64_t n;
    soma_span bytes;
    assert_int_equal(soma__example_parse(&e, (unsigned char *)text.text, text.len, "record 3", &err), SOMA_OK);
    assert_int_equal(e.n_lists, 4);
    assert_int_equal(soma__example_floats(values, 3, &e, soma__example_find(&e, "floats"), "r", &err), SOMA_OK);
    assert_true(values[0] == 1 && values[1] == -2.5f && values[2] == 3);
    assert_int_equal(soma__example_count(&n, &e, soma__example_find(&e, "ints"), "r", &err), SOMA_OK);
    assert_int_equal(n, 4);
    assert_int_equal(soma__example_floats(values, 4, &e, soma__example_find(&e, "ints"), "r", &err), SOMA_OK);
    assert_true(values[0] == 0 && values[1] == 300 && values[2] == -1 && values[3] == 1);
    assert_int_equal(soma__example_floats(values, 3, &e, soma__example_find(&e, "singles"), "r", &err), SOMA_OK);
    assert_true(values[0] == 0 && values[1] == 1 && values[2] == 2);
    assert_int_equal(soma__example_floats(values, 5, &e, soma__example_find(&e, "ints"), "r", &err), SOMA_BAD_INPUT);
    assert_non_null(strstr(err.text, "4 numbers, wanted are 5"));
    assert_int_equal(soma__example_floats(values, 2, &e, soma__example_find(&e, "ints"), "r", &err), SOMA_BAD_INPUT);
    assert_int_equal(soma__example_floats(values, 2, &e, soma__example_find(&e, "texts"), "r", &err), SOMA_BAD_INPUT);
    assert_int_equal(soma__example_bytes(&bytes, 0, &e, soma__example_find(&e, "texts"), "r", &err), SOMA_OK);
    assert_memory_equal(bytes.data, "pick", 4);
    assert_int_equal(soma__example_bytes(&bytes, 2, &e, soma__example_find(&e, "texts"), "r", &err), SOMA_BAD_INPUT);
    assert_int_equal(soma__example_bytes(&bytes, 0, &e, soma__example_find(&e, "floats"), "r", &err), SOMA_BAD_INPUT);
    assert_null(soma__example_find(&e, "float"));
    soma__alloc_fail_after(0);
    soma__example_free(&e);
    assert_int_equal(soma__example_parse(&e, (unsigned char *)text.text, text.len, "r", &err), SOMA_NO_MEMORY);
    soma__alloc_fail_after(-1);
    soma__example_free(&e);
    for (size_t cut = 1; cut < text.len; cut++) {
        unsigned char *part = malloc(cut);
        memcpy(part, text.text, cut);
        assert_int_equal(read_everything(part, cut, &err), SOMA_BAD_INPUT);
        assert_non_null(strstr(err.text, "record"));
        free(part);
    }
    soma_rng rng = soma__rng(5);
    for (int i = 0; i < 20000; i++) { // an error or values, never a crash
        char *at = text.text + soma__rng_below(&rng, text.len), kept = *at;
        *at = (char)soma__rng_u64(&rng);
        read_everything(text.text, text.len, &err);
        *at = kept;
    }
    soma__str_free(&text);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(checksums), cmocka_unit_test(framing), cmocka_unit_test(examples)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
