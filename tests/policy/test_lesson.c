// SPDX-License-Identifier: Apache-2.0
// What pi0-FAST learns from: prompt and answer in one text, what is there, who sees whom and what is learned, in openpi's layout (golden)
// and in LeRobot's, and an answer that is too long.
#include "golden/golden.h"

#include "base/json.h"
#include "model/family.h"
#include "policy/written.h"

enum { ROOM = 180, MOST = 20, T = 3, A = 2, N = T * A }; // bins make one id of each value: the six of the golden's answer

static const float chunk[N] = {-1, -0.5f, 0, 0.25f, 0.5f, 1};
static const int32_t prompt[] = {3, 4, 5, 6, 7};

typedef struct desk {
    soma_model model;
    soma_writing writing;
    soma_lesson lesson;
} desk;

// The stand-in text tokenizer of the golden makes 3 4 5 6 7 of every text; "|" with its EOS is the last of them.
static void open_desk(desk *d, bool lerobot, int64_t most) {
    soma_error err = {0};
    const soma_answer_form form = {.head = {3, 4, 5, 6, 7},
                                   .n_head = 5,
                                   .bar = {3, 4, 5, 6},
                                   .n_bar = 4,
                                   .bos = 2,
                                   .eos = 7,
                                   .first = 257152 - 1 - 128,
                                   .n_codes = 256,
                                   .lerobot = lerobot};
    *d = (desk){.model.info = {.horizon = T, .action_dim = A, .max_tokens = ROOM, .answer = {.max = most, .lerobot = lerobot}}};
    d->writing = (soma_writing){.model = &d->model, .form = form, .T = T, .A = A};
    if (soma__fast_bins(&d->writing.fast, 256, &err) || soma__lesson_new(&d->lesson, &d->writing, 1, &err)) fail_msg("%s", err.text);
    int32_t ids[ROOM + 1] = {0};
    uint8_t mask[ROOM + 1] = {0};
    memcpy(ids, prompt, sizeof prompt);
    memset(mask, 1, SOMA_COUNT(prompt) + lerobot); // a BOS is the last of LeRobot's prompt
    if (lerobot) ids[SOMA_COUNT(prompt)] = form.bos;
    if (soma__lesson_fill(&d->lesson, &d->writing, 0, ids, mask, chunk, &err)) fail_msg("%s", err.text);
}

static void close_desk(desk *d) {
    soma__lesson_free(&d->lesson);
    soma__writing_close(&d->writing);
}

static bool same(const json_t *layout, const char *key, const uint8_t *found, const uint8_t *there) {
    const json_t *list = json_object_get(layout, key);
    bool same = json_array_size(list) == ROOM + MOST;
    for (size_t i = 0; same && i < ROOM + MOST; i++) same = !there[i] || found[i] == json_integer_value(json_array_get(list, i));
    return same;
}

static void test_golden_layout(void **state) {
    static const char file[] = "preprocess/prompts.json";
    char path[SOMA_PATH_MAX];
    json_t *root;
    soma_error err = {0};
    uint8_t all[ROOM + MOST];
    if (soma__json_load(&root, golden_path(path, file), &err)) fail_msg("%s", err.text);
    const json_t *layout = json_object_get(root, "fast_layout");
    desk d;
    open_desk(&d, false, MOST);
    memset(all, 1, sizeof all);
    golden_same(file, "fast_layout.token_mask", same(layout, "token_mask", d.lesson.mask, all));
    golden_same(file, "fast_layout.ar_mask", same(layout, "ar_mask", d.lesson.causal, d.lesson.mask)); // padding sees and is seen by nobody
    golden_same(file, "fast_layout.loss_mask", same(layout, "loss_mask", d.lesson.learn, all));
    close_desk(&d);
    json_decref(root);
}

static void test_lerobot_layout(void **state) {
    desk d;
    open_desk(&d, true, MOST);
    const int P = SOMA_COUNT(prompt), end = P + 1 + 5 + N + 5;
    assert_int_equal(d.lesson.tokens[P], 2);
    for (int i = 0; i < ROOM + MOST; i++) {
        assert_int_equal(d.lesson.mask[i], i < end);
        assert_int_equal(d.lesson.learn[i], i > P && i < end); // the BOS is given
        if (i < end) assert_int_equal(d.lesson.causal[i], i >= P);
        if (i >= end) assert_int_equal(d.lesson.tokens[i], 0);
    }
    close_desk(&d);
}

static void test_too_long(void **state) {
    desk d;
    open_desk(&d, false, 8);
    assert_int_equal(d.lesson.n_cut, 1);
    for (int i = 0; i < ROOM + 8; i++) assert_int_equal(d.lesson.learn[i], i >= 5 && i < 5 + 8);
    close_desk(&d);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_golden_layout), cmocka_unit_test(test_lerobot_layout),
                                       cmocka_unit_test(test_too_long)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
