// SPDX-License-Identifier: Apache-2.0
// Errors, contract, dtypes, memory that fails on demand, the arena, growing text.
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/arena.h"
#include "base/hash.h"
#include "base/str.h"

#include <string.h>

static void error_names_and_prefixes(void **state) {
    soma_error err = {0};
    assert_int_equal(soma__fail(&err, SOMA_IO, "%s: gone", "file.bin"), SOMA_IO);
    assert_string_equal(err.text, "file.bin: gone");
    assert_int_equal(soma__fail_in(&err, "episode %d", 7), SOMA_IO);
    assert_string_equal(err.text, "episode 7: file.bin: gone");
    assert_int_equal(soma__fail(&err, SOMA_BAD_INPUT, "again: %s", err.text), SOMA_BAD_INPUT); // the text may be its own argument
    assert_string_equal(err.text, "again: episode 7: file.bin: gone");
    assert_int_equal(soma__fail(NULL, SOMA_BUSY, "nobody listens"), SOMA_BUSY);
    assert_int_equal(soma__no_memory(&err, "a table"), SOMA_NO_MEMORY);
    assert_string_equal(err.text, "out of memory for a table");
    assert_string_equal(soma_status_word(SOMA_NOT_FOUND), "not found");
    assert_non_null(soma_status_word((soma_status)999));
    assert_string_equal(soma_version(), SOMA_VERSION);
}

static void long_errors_are_cut_not_overrun(void **state) {
    soma_error err = {0};
    char longer[3000];
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = 0;
    soma__fail(&err, SOMA_IO, "%s", longer);
    assert_int_equal(strlen(err.text), sizeof err.text - 1);
    soma__fail_in(&err, "%s", longer);
    assert_int_equal(strlen(err.text), sizeof err.text - 1);
}

static jmp_buf broken;
static const char *said;
static void catch_check(const char *file, int line, const char *sentence) {
    said = sentence;
    longjmp(broken, 1);
}

static void contract_reaches_the_handler(void **state) {
    soma_check_set_handler(catch_check);
    said = NULL;
    if (!setjmp(broken)) soma_dtype_size((soma_dtype)99);
    assert_non_null(said);
    soma_check_set_handler(NULL);
    assert_int_equal(soma_dtype_size(SOMA_BF16), 2);
    assert_string_equal(soma_dtype_name(SOMA_F32), "F32");
}

static void log_text(void *user, soma_log_level level, const char *text) { strcpy(user, text); }

static void log_passes_one_callback(void **state) {
    char seen[64] = "";
    soma_log_set(log_text, seen);
    soma__log(SOMA_LOG_WARN, "%d episodes", 3);
    soma_log_set(NULL, NULL);
    soma__log(SOMA_LOG_WARN, "nobody hears this");
    assert_string_equal(seen, "3 episodes");
}

static void allocation_fails_once_where_asked(void **state) {
    for (int n = 0; n < 3; n++) {
        soma__alloc_fail_after(n);
        for (int i = 0; i < 5; i++) {
            void *p = soma__alloc(10);
            assert_true((p == NULL) == (i == n));
            soma__free(p);
        }
    }
    soma__alloc_fail_after(-1);
    uint64_t before = soma__alloc_count();
    void *p = soma__alloc(1);
    assert_int_equal((uintptr_t)p % 64, 0);
    p = soma__realloc(p, 1000);
    soma__free(p);
    assert_int_equal(soma__alloc_count() - before, 2);
    assert_null(soma__alloc(SIZE_MAX));
    assert_null(soma__calloc(SIZE_MAX / 2, 4));
    assert_null(soma__realloc(NULL, SIZE_MAX));
    assert_null(soma__strdup(NULL));
}

// Small and large, fresh and used before: every byte is zero, and none outside is touched.
static void zeroed_memory_is_zero(void **state) {
    const size_t sizes[] = {0, 1, 4095, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 5000001, 40 << 20};
    for (size_t i = 0; i < SOMA_COUNT(sizes); i++)
        for (int round = 0; round < 3; round++) {
            unsigned char *p = soma__alloc_zeroed(sizes[i]);
            assert_non_null(p);
            assert_int_equal((uintptr_t)p % 64, 0);
            size_t sum = 0;
            for (size_t k = 0; k < sizes[i]; k++) sum += p[k];
            assert_int_equal(sum, 0);
            memset(p, 0xff, sizes[i]);
            soma__memory_want(p, sizes[i]);
            soma__free(p);
        }
    unsigned char *p = soma__alloc_zeroed(9 << 20);
    assert_non_null(p);
    for (size_t k = 0; k < 9 << 20; k += 4099) p[k] = (unsigned char)(k / 4099);
    soma__memory_large(p + 5000, (9 << 20) - 5000); // pages that are there and pages that are not
    soma__memory_large(p, 100);
    for (size_t k = 0; k < 9 << 20; k++) assert_int_equal(p[k], k % 4099 ? 0 : k / 4099 % 256);
    soma__free(p);
    soma__alloc_fail_after(0);
    assert_null(soma__alloc_zeroed(1 << 21));
    soma__alloc_fail_after(-1);
}

static void growing_array_keeps_its_items(void **state) {
    int *items = NULL;
    size_t n = 0, room = 0;
    for (; n < 1000; n++) {
        assert_true(SOMA_PUSH_ROOM(items, n, room));
        items[n] = (int)n;
    }
    for (size_t i = 0; i < n; i++) assert_int_equal(items[i], i);
    size_t kept = room;
    soma__alloc_fail_after(0);
    assert_false(soma__grow((void **)&items, &room, room + 1, sizeof *items)); // refused: the array stays as it was
    soma__alloc_fail_after(-1);
    assert_int_equal(room, kept);
    assert_int_equal(items[999], 999);
    assert_false(soma__grow((void **)&items, &room, SIZE_MAX / 2, sizeof *items));
    soma__free(items);
}

static void arena_gives_zeroed_aligned_separate_memory(void **state) {
    soma_arena arena = {0};
    enum { N = 400 };
    unsigned char *parts[N];
    size_t sizes[N];
    for (size_t i = 0; i < N; i++) {
        sizes[i] = i % 50 == 49 ? 40000 : 1 + i * 7 % 300; // some are larger than a block
        parts[i] = soma__arena_alloc(&arena, sizes[i]);
        assert_non_null(parts[i]);
        assert_int_equal((uintptr_t)parts[i] % 16, 0);
        for (size_t k = 0; k < sizes[i]; k++) assert_int_equal(parts[i][k], 0);
        memset(parts[i], (int)(i & 255), sizes[i]);
    }
    for (size_t i = 0; i < N; i++)
        for (size_t k = 0; k < sizes[i]; k++) assert_int_equal(parts[i][k], i & 255);
    assert_null(soma__arena_alloc(&arena, SIZE_MAX));
    assert_null(soma__arena_alloc(&arena, SIZE_MAX - 3));
    assert_string_equal(soma__arena_strdup(&arena, "wrist"), "wrist");
    assert_string_equal(soma__arena_printf(&arena, "%s_%03d", "episode", 7), "episode_007");
    soma__arena_free(&arena);
    assert_null(arena.blocks);
    assert_non_null(soma__arena_alloc(&arena, 8)); // ready again
    soma__arena_free(&arena);
}

static void arena_uses_few_blocks_and_survives_refusal(void **state) {
    soma_arena arena = {0};
    uint64_t before = soma__alloc_count();
    assert_non_null(soma__arena_alloc(&arena, 5 << 20));
    for (int i = 0; i < 1000; i++) assert_non_null(soma__arena_alloc(&arena, 64));
    assert_in_range(soma__alloc_count() - before, 1, 4); // a large request does not make every later block large or lost
    assert_true(arena.size <= (size_t)1 << 20);
    soma__alloc_fail_after(0);
    assert_null(soma__arena_alloc(&arena, 3 << 20));
    assert_non_null(soma__arena_alloc(&arena, 16));
    soma__alloc_fail_after(-1);
    soma__arena_free(&arena);
}

static void text_grows_and_escapes(void **state) {
    soma_str s = {0};
    soma__str_add(&s, "a");
    soma__str_printf(&s, "%05.1f|", 2.25);
    soma__str_add_html(&s, "<b class=\"x\">'&'</b>");
    assert_false(s.failed);
    assert_string_equal(s.text, "a002.2|&lt;b class=&quot;x&quot;&gt;&#39;&amp;&#39;&lt;/b&gt;");
    assert_int_equal(s.len, strlen(s.text));
    soma__str_free(&s);
    for (int i = 0; i < 3000; i++) soma__str_add(&s, "0123456789");
    assert_int_equal(s.len, 30000);
    soma__str_free(&s);
}

// RFC 4648, section 10
static void base64_of_the_standard(void **state) {
    static const char *const pairs[][2] = {
        {"", ""}, {"f", "Zg=="}, {"fo", "Zm8="}, {"foo", "Zm9v"}, {"foob", "Zm9vYg=="}, {"fooba", "Zm9vYmE="}, {"foobar", "Zm9vYmFy"}};
    for (size_t i = 0; i < SOMA_COUNT(pairs); i++) {
        soma_str s = {0};
        soma__str_add_base64(&s, pairs[i][0], strlen(pairs[i][0]));
        assert_string_equal(s.text, pairs[i][1]);
        soma__str_free(&s);
    }
    soma_str s = {0};
    soma__str_add_base64(&s, "\xff\xfe\xfb", 3);
    assert_string_equal(s.text, "//77");
    soma__str_free(&s);
}

static void text_remembers_that_memory_was_out(void **state) {
    soma_str s = {0};
    soma__str_add(&s, "kept");
    soma__alloc_fail_after(0);
    for (int i = 0; i < 100; i++) soma__str_add(&s, "more");
    soma__alloc_fail_after(-1);
    assert_true(s.failed);
    soma__str_printf(&s, "%d", 1);
    soma__str_add_base64(&s, "abc", 3);
    assert_true(s.failed);
    soma__str_free(&s);
    assert_false(s.failed);
}

static void words_are_compared(void **state) {
    assert_int_equal(soma__str_distance("train", "train"), 0);
    assert_int_equal(soma__str_distance("trian", "train"), 2);
    assert_int_equal(soma__str_distance("", "abc"), 3);
    assert_int_equal(soma__str_distance("kitten", "sitting"), 3);
    assert_int_equal(soma__str_distance("a", "0123456789012345678901234567890123456789012345678901234567890123456789"), 64);
    assert_true(soma__str_near("trian", 2));
    assert_false(soma__str_near("xx", 4));
}

// Published FNV-1a values of "" and "a"
static void hash_is_fnv1a(void **state) {
    assert_true(soma__hash(SOMA_HASH_START, "", 0) == 0xcbf29ce484222325u);
    assert_true(soma__hash(SOMA_HASH_START, "a", 1) == 0xaf63dc4c8601ec8cu);
    assert_true(soma__hash(soma__hash(SOMA_HASH_START, "fo", 2), "obar", 4) == 0x85944171f73967e8u);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(error_names_and_prefixes),
        cmocka_unit_test(long_errors_are_cut_not_overrun),
        cmocka_unit_test(contract_reaches_the_handler),
        cmocka_unit_test(log_passes_one_callback),
        cmocka_unit_test(allocation_fails_once_where_asked),
        cmocka_unit_test(zeroed_memory_is_zero),
        cmocka_unit_test(growing_array_keeps_its_items),
        cmocka_unit_test(arena_gives_zeroed_aligned_separate_memory),
        cmocka_unit_test(arena_uses_few_blocks_and_survives_refusal),
        cmocka_unit_test(text_grows_and_escapes),
        cmocka_unit_test(base64_of_the_standard),
        cmocka_unit_test(text_remembers_that_memory_was_out),
        cmocka_unit_test(words_are_compared),
        cmocka_unit_test(hash_is_fnv1a),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
