// SPDX-License-Identifier: Apache-2.0
// The answer of a policy that writes tokens: its ids, what is read out of whole and broken ones, and what may follow what.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "text/answer.h"

#include <stdlib.h>
#include <string.h>

enum { VOCAB = 100, SKIP = 5, N_CODES = 40 }; // codes have the ids 55 .. 94, code 0 is 94

static soma_text *text;
static soma_answer_form form, lerobot;

static int open_text(void **state) {
    const char *prompts[] = {"touch the red cube"};
    return soma__text_from_prompts(&text, prompts, 1, NULL) || soma__answer_form(&form, text, VOCAB, SKIP, N_CODES, false, NULL) ||
           soma__answer_form(&lerobot, text, VOCAB, SKIP, N_CODES, true, NULL);
}
static int close_text(void **state) {
    soma__text_close(text);
    return 0;
}

static void ids_from_the_end(void **state) {
    const int32_t codes[] = {0, 39, 7};
    int32_t ids[16];
    assert_int_equal(form.n_head, 2); // "action", ":"
    assert_int_equal(form.n_bar, 1);
    size_t n = soma__answer_write(&form, codes, 3, ids, 16);
    const int32_t want[] = {soma__text_id(text, "action"), soma__text_id(text, ":"), 94, 55, 87, soma__text_id(text, "|"), 1};
    assert_int_equal(n, 7);
    assert_memory_equal(ids, want, sizeof want);
    assert_int_equal(soma__answer_write(&lerobot, codes, 3, ids, 16), 8);
    assert_int_equal(ids[0], 2);
    assert_memory_equal(ids + 1, want, sizeof want);
    assert_int_equal(soma__answer_write(&form, codes, 3, ids, 2), 7); // what does not fit is counted
}

static void what_is_written_is_read(void **state) {
    for (int trial = 0; trial < 200; trial++) {
        int32_t codes[20], back[40], ids[40];
        size_t n = (size_t)(rand() % 20), found, len;
        for (size_t i = 0; i < n; i++) codes[i] = rand() % N_CODES;
        len = soma__answer_write(&form, codes, n, ids, 40);
        for (size_t i = len; i < 40; i++) ids[i] = 0; // PAD behind the end
        assert_int_equal(soma__answer_read(&form, ids, 40, back, &found), SOMA_ANSWER_FINE);
        assert_int_equal(found, n);
        assert_memory_equal(back, codes, n * sizeof *codes);
    }
}

static void flaws_are_told(void **state) {
    const int32_t a = form.head[0], c = form.head[1], bar = form.bar[0], eos = form.eos;
    const struct {
        int32_t ids[6];
        size_t n, found;
        soma_answer_flaw flaw;
    } rows[] = {
        {{a, c, 94, 93, bar, eos}, 6, 2, SOMA_ANSWER_FINE},
        {{a, c, 94, bar, 93, bar}, 6, 1, SOMA_ANSWER_FINE}, // up to the first bar
        {{a, c, bar}, 3, 0, SOMA_ANSWER_FINE},
        {{94, 93, bar, eos}, 4, 0, SOMA_ANSWER_NO_HEAD},
        {{a}, 1, 0, SOMA_ANSWER_NO_HEAD},
        {{0}, 0, 0, SOMA_ANSWER_NO_HEAD},
        {{a, c, 94, 95, 93, bar}, 6, 2, SOMA_ANSWER_FOREIGN}, // 95 is left free, no code
        {{a, c, 54, 94, bar}, 5, 1, SOMA_ANSWER_FOREIGN},
        {{a, c, -7, 94, bar}, 5, 1, SOMA_ANSWER_FOREIGN},
        {{a, c, 94, 93}, 4, 2, SOMA_ANSWER_NO_BAR},
        {{a, c, 94, eos, 93, bar}, 6, 1, SOMA_ANSWER_NO_BAR}, // over before the bar
    };
    for (size_t i = 0; i < SOMA_COUNT(rows); i++) {
        int32_t codes[6];
        size_t n;
        soma_answer_flaw flaw = soma__answer_read(&form, rows[i].ids, rows[i].n, codes, &n);
        if (flaw != rows[i].flaw || n != rows[i].found) fail_msg("row %zu: flaw %d, %zu codes", i, flaw, n);
        assert_true(!*soma__answer_flaw_text(flaw) == (flaw == SOMA_ANSWER_FINE));
    }
}

// Whatever is chosen among what may follow, the answer is read without a flaw.
static void allowed_ids_make_whole_answers(void **state) {
    for (int trial = 0; trial < 500; trial++) {
        int32_t ids[64], codes[64];
        size_t n = 0, found, n_codes = (size_t)(rand() % 50);
        for (;;) {
            soma_id_range next[2];
            int count = soma__answer_next(&form, ids, n, next);
            if (!count) break;
            bool coding = count == 2;
            const soma_id_range *r = &next[coding && n < n_codes + 2 ? 1 : 0];
            assert_true(r->from <= r->to);
            ids[n++] = r->from + rand() % (r->to - r->from + 1);
            assert_true(n < 64);
        }
        assert_int_equal(ids[n - 1], form.eos);
        assert_int_equal(soma__answer_read(&form, ids, n, codes, &found), SOMA_ANSWER_FINE);
        assert_int_equal(found, n_codes);
    }
}

static void codes_must_fit(void **state) {
    soma_answer_form f;
    soma_error err;
    const struct { int64_t vocab, skip, codes; } rows[] = {{100, 5, 0}, {100, 5, 95}, {100, 97, 1}, {30, 0, 28}, {40, 0, 35}};
    for (size_t i = 0; i < SOMA_COUNT(rows); i++) {
        assert_int_equal(soma__answer_form(&f, text, rows[i].vocab, rows[i].skip, rows[i].codes, false, &err), SOMA_BAD_INPUT);
        assert_non_null(strstr(err.text, "codes do not fit"));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_from_the_end), cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(flaws_are_told),   cmocka_unit_test(allowed_ids_make_whole_answers),
        cmocka_unit_test(codes_must_fit),
    };
    return cmocka_run_group_tests(tests, open_text, close_text);
}
