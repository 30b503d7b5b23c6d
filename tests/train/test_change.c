// SPDX-License-Identifier: Apache-2.0
// What training changes at random in an observation: shares, what is never left out, one draw for all cameras, the same again for the same
// stream; and a run with all of it that is stopped and goes on to the same weights.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "dots.h"
#include "train/change.h"
#include "train/trainer.h"

static soma_changes parse(const char *augment, double camera, double state, double prompt, const char *prompts) {
    soma_train_opts o = soma_train_defaults();
    soma_changes c;
    soma_error err = {0};
    snprintf(o.augment, sizeof o.augment, "%s", augment);
    snprintf(o.prompts, sizeof o.prompts, "%s", prompts);
    o.drop_camera = camera, o.drop_state = state, o.drop_prompt = prompt;
    if (soma__changes_parse(&c, &o, &err)) fail_msg("%s", err.text);
    return c;
}

static void refuse(const char *augment, double share, const char *prompts, const char *says) {
    soma_train_opts o = soma_train_defaults();
    soma_changes c;
    soma_error err = {0};
    snprintf(o.augment, sizeof o.augment, "%s", augment);
    snprintf(o.prompts, sizeof o.prompts, "%s", prompts);
    o.drop_camera = share;
    assert_int_equal(soma__changes_parse(&c, &o, &err), SOMA_BAD_INPUT);
    if (!strstr(err.text, says)) fail_msg("%s", err.text);
}

static void options_read(void **state) {
    soma_changes c = parse("", 0, 0, 0, "first");
    assert_false(c.pictures);
    c = parse("openpi", 0, 0, 0, "first");
    assert_true(c.pictures && c.augment.crop == 0.95 && c.augment.degrees == 5 && c.augment.saturation == 0.5);
    c = parse("crop=0.8", 0, 0, 0, "first");
    assert_true(c.augment.crop == 0.8 && c.augment.degrees == 0 && c.augment.contrast == 0);
    c = parse("openpi,degrees=0,contrast=0.1", 0, 0, 0, "any");
    assert_true(c.augment.crop == 0.95 && c.augment.degrees == 0 && c.augment.contrast == 0.1 && c.any_prompt);
    refuse("mirror", 0, "first", "openpi, crop=0.95");
    refuse("crop=2", 0, "first", "openpi, crop=0.95");
    refuse("crop=0", 0, "first", "a crop is above 0");
    refuse("crop", 0, "first", "openpi, crop=0.95");
    refuse("", 1.5, "first", "shares from 0 to 1");
    refuse("", 0, "second", "first or any");
}

static void shares(void **state) {
    enum { TRIES = 4000 };
    static const char *const others[] = {"b", "c"};
    const soma_episode episode = {.task = "a", .n_others = 2, .others = others};
    const soma_robot robot = {.n_cameras = 3};
    soma_changes c = parse("", 0.4, 0.25, 0.1, "any");
    soma_rng all = soma__rng(5);
    int cameras = 0, states = 0, empty = 0, words[3] = {0};
    for (int i = 0; i < TRIES; i++) {
        soma_rng rng = soma__rng_fold(&all, (uint64_t)i);
        soma_change change = soma__change_draw(&c, rng, &robot, 7), again = soma__change_draw(&c, rng, &robot, 7);
        assert_true(change.cameras == again.cameras && change.wording == again.wording && change.state == again.state);
        assert_true((7u & ~change.cameras) != 0); // one of them stays
        cameras += __builtin_popcount(change.cameras);
        states += change.state;
        const char *prompt = soma__change_prompt(&c, &change, &episode);
        empty += !*prompt;
        if (*prompt) words[*prompt - 'a']++;
        assert_int_equal(soma__change_draw(&c, rng, &robot, 2).cameras, 0); // the only one that is there
        assert_true((5u & ~soma__change_draw(&c, rng, &robot, 5).cameras) != 0);
    }
    // 3 x 0.4, less the one that stays where all would go (0.4^3)
    assert_float_equal((double)cameras / TRIES, 3 * 0.4 - 0.064, 0.06);
    assert_float_equal((double)states / TRIES, 0.25, 0.03);
    assert_float_equal((double)empty / TRIES, 0.1, 0.02);
    for (int w = 0; w < 3; w++) assert_float_equal((double)words[w] / TRIES, 0.3, 0.03);
    c = parse("", 0, 0, 0, "first");
    soma_change none = soma__change_draw(&c, all, &robot, 7);
    assert_true(!none.cameras && !none.state && !none.pictures && !strcmp(soma__change_prompt(&c, &none, &episode), "a"));
}

// ---- a run

static soma_train_opts options(const char *out) {
    soma_train_opts o = soma_train_defaults();
    path(o.data, "data");
    path(o.model, "model.json");
    path(o.out, out);
    o.horizon = 4, o.steps = 8, o.batch = 4, o.warmup = 2, o.eval_every = 4, o.save_every = 3, o.threads = 2;
    strcpy(o.augment, "openpi");
    o.drop_camera = o.drop_state = o.drop_prompt = 0.3;
    return o;
}

static bool stop(void *user, const soma_train_progress *p) { return p->step < 5; }

static void train(const soma_train_opts *o, soma_train_report *report, soma_status wanted) {
    soma_error err = {0};
    if (soma_train(o, report, NULL, &err) != wanted) fail_msg("%s", err.text);
}

static void read_weights(char **bytes, size_t *size, const char *folder) {
    char dir[SOMA_OPT_TEXT], file[SOMA_PATH_MAX];
    path(dir, folder);
    assert_int_equal(soma__path_join(file, dir, "model.safetensors", NULL), SOMA_OK);
    assert_int_equal(soma__file_read(bytes, size, file, 1 << 26, NULL), SOMA_OK);
}

static void stopped_and_resumed(void **state) {
    char *whole, *stopped, *plain;
    size_t size[3];
    soma_train_opts o = options("whole");
    train(&o, NULL, SOMA_OK);
    o = options("stopped");
    train(&o, stop, SOMA_CANCELLED);
    o.resume = true;
    o.threads = 1;
    train(&o, NULL, SOMA_OK);
    o = options("plain");
    o.augment[0] = 0;
    train(&o, NULL, SOMA_OK);
    read_weights(&whole, &size[0], "whole");
    read_weights(&stopped, &size[1], "stopped");
    read_weights(&plain, &size[2], "plain");
    assert_true(size[0] == size[1] && size[0] == size[2]);
    assert_memory_equal(whole, stopped, size[0]);
    assert_memory_not_equal(whole, plain, size[0]); // the pictures were changed
    soma__free(whole);
    soma__free(stopped);
    soma__free(plain);
}

// A picture is changed in place, the same for both scene cameras and other for the wrist's; a look at held-out episodes changes nothing.
static void pictures(void **state) {
    soma_trainer t;
    soma_error err = {0};
    soma_train_opts o = options("pictures");
    if (soma__trainer_prepare(&t, &o, true, NULL, &err)) fail_msg("%s", err.text);
    const int64_t n = soma__image_pixels(&t.model->info) * 3;
    soma_change_room room;
    uint8_t *before = malloc((size_t)n), images[2][SIDE * SIDE * 3];
    for (int64_t i = 0; i < n; i++) before[i] = (uint8_t)(i * 7 % 251);
    assert_int_equal(n, SIDE * SIDE * 3);
    assert_int_equal(soma__change_room_new(&room, &t.changes, t.model, &err), SOMA_OK);
    for (int wrist = 0; wrist < 2; wrist++) {
        soma_rows rows = {.model = t.model, .images = images[wrist], .batch.image_dtype = SOMA_U8};
        soma_robot robot = {.n_cameras = 1};
        strcpy(robot.cameras[0], wrist ? "left_wrist" : "scene");
        soma_change change = soma__change_draw(&t.changes, soma__rng(3), &robot, 1), none = {0};
        change.state = false;
        memcpy(images[wrist], before, (size_t)n);
        soma__change_row(&t.changes, &none, &room, &robot, &rows, 0, 1);
        assert_memory_equal(images[wrist], before, (size_t)n);
        soma__change_row(&t.changes, &change, &room, &robot, &rows, 0, 1);
        assert_memory_not_equal(images[wrist], before, (size_t)n);
    }
    assert_memory_not_equal(images[0], images[1], (size_t)n);
    soma__change_room_free(&room);
    free(before);
    soma__trainer_close(&t);
    strcpy(o.family, "pi05"); // is told the state in its prompt
    assert_int_equal(soma__trainer_prepare(&t, &o, true, NULL, &err), SOMA_BAD_INPUT);
    assert_non_null(strstr(err.text, "--drop-state"));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(options_read), cmocka_unit_test(shares), cmocka_unit_test(pictures),
                                       cmocka_unit_test(stopped_and_resumed)};
    return cmocka_run_group_tests(tests, make_dots, remove_dots);
}
