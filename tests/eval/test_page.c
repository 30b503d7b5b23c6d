// SPDX-License-Identifier: Apache-2.0
// The report stands alone and escapes what it is given; the video has the frames that were filmed.
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/file.h"
#include "eval/film.h"
#include "eval/page.h"
#include "format/video.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SIDE = 16, N = 3, STEPS = 5, HORIZON = 4 };

static char dir[] = "/tmp/soma-page-XXXXXX";
static char path[SOMA_PATH_MAX], other[SOMA_PATH_MAX];

// A result as the loop leaves it, without a simulator.
static soma_rollouts rollouts(void) {
    const soma_task *t = soma__task_find("touch_color");
    soma_rollouts r = {.task = *t, .opts = soma_rollout_defaults(), .n = N, .success = soma__rate(1, N), .prompted = soma__rate(1, N)};
    r.opts.seeds = N;
    r.opts.image = SIDE;
    r.episodes = soma__calloc(N, sizeof *r.episodes);
    size_t picture = (size_t)SIDE * SIDE * 3 * t->n_cameras;
    for (int i = 0; i < N; i++) {
        soma_rollout *e = &r.episodes[i];
        e->seed = 1000000 + i;
        strcpy(e->prompt, "touch <the> \"red\" cube");
        e->outcome = (soma_env_outcome){.done = true, .success = i == 0, .prompted = i == 0, .steps = STEPS};
        e->first = soma__calloc(1, picture);
        e->last = soma__calloc(1, picture);
    }
    soma_film *f = r.episodes[0].film = soma__calloc(1, sizeof *f);
    *f = (soma_film){.n_steps = STEPS, .n_plans = 2, .horizon = HORIZON};
    f->pictures = soma__calloc(STEPS + 1, picture);
    f->states = soma__calloc((STEPS + 1) * t->n_state, sizeof(float));
    f->actions = soma__calloc(STEPS * t->n_actions, sizeof(float));
    f->plans = soma__calloc(2 * HORIZON * t->n_actions, sizeof(float));
    f->plan_step = soma__calloc(2, sizeof(int));
    f->plan_step[1] = 3;
    memset(f->pictures, 200, picture);
    for (int i = 0; i < STEPS * t->n_actions; i++) f->actions[i] = (float)sin(i);
    return r;
}

static void no_reference_leaves(const char *file) {
    char *text;
    size_t size;
    assert_int_equal(soma__file_read(&text, &size, file, 1 << 24, NULL), SOMA_OK);
    static const char *const never[] = {"http", "<link", "<script", "@import", "url(", "href", "<the>"};
    for (size_t i = 0; i < SOMA_COUNT(never); i++) {
        const char *at = strstr(text, never[i]);
        if (at) fail_msg("%s has %s: %.60s", file, never[i], at);
    }
    for (const char *at = text; (at = strstr(at, "src=")); at += 4) assert_true(!strncmp(at, "src='data:image/png;base64,", 27));
    soma__free(text);
}

static void report_stands_alone(void **state) {
    if (!soma__task_find("touch_color")) skip();
    soma_rollouts r = rollouts();
    json_t *result = soma__rollouts_json(&r);
    json_object_set_new(result, "label", json_string("<the> policy"));
    soma__path_join(other, dir, "other.json", NULL);
    soma__path_join(path, dir, "report.html", NULL);
    assert_int_equal(soma__json_save(result, other, NULL), SOMA_OK);
    assert_int_equal(soma__page_rollouts(path, &r, result, other, dir, NULL), SOMA_OK);
    no_reference_leaves(path);
    char *text;
    size_t size;
    assert_int_equal(soma__file_read(&text, &size, path, 1 << 24, NULL), SOMA_OK);
    int rows = 0, pictures = 0;
    for (const char *at = text; (at = strstr(at, "&lt;the&gt; policy")); at++) rows++;
    for (const char *at = text; (at = strstr(at, "<img")); at++) pictures++;
    assert_int_equal(rows, 4);             // two results, each in the table and over its strip
    assert_int_equal(pictures, N * 2 * 2); // first and last of two cameras
    assert_non_null(strstr(text, "33 %"));
    soma__free(text);
    json_decref(result);
    soma__rollouts_free(&r);
}

static void a_broken_comparison_names_the_file(void **state) {
    if (!soma__task_find("touch_color")) skip();
    soma_rollouts r = rollouts();
    json_t *result = soma__rollouts_json(&r);
    soma_error err = {0};
    soma__path_join(other, dir, "broken.json", NULL);
    soma__path_join(path, dir, "none.html", NULL);
    assert_int_equal(soma__file_write(other, "{\"success\": 1}", 14, NULL), SOMA_OK);
    assert_int_not_equal(soma__page_rollouts(path, &r, result, other, "", &err), SOMA_OK);
    assert_non_null(strstr(err.text, "broken.json"));
    assert_false(soma__file_exists(path));
    json_decref(result);
    soma__rollouts_free(&r);
}

static void video_shows_the_film(void **state) {
    if (!soma__task_find("touch_color")) skip();
    soma_rollouts r = rollouts();
    int width, height;
    assert_int_equal(soma__film_frame(&r, 0, 0, &width, &height, NULL, NULL), SOMA_OK);
    uint8_t *first = soma__alloc((size_t)width * height * 3), *last = soma__alloc((size_t)width * height * 3);
    soma__film_frame(&r, 0, 0, &width, &height, first, NULL);
    soma__film_frame(&r, 0, STEPS, &width, &height, last, NULL);
    size_t middle = ((size_t)(52 + 176) * width + 16 + 176) * 3; // of the first camera
    assert_true(first[middle] == 200 && last[middle] == 0);
    soma__path_join(path, dir, "film.mp4", NULL);
    assert_int_equal(soma__film_write(path, &r, NULL), SOMA_OK);
    soma_video *video;
    assert_int_equal(soma__video_open(&video, path, NULL), SOMA_OK);
    assert_int_equal(soma__video_width(video), width);
    assert_int_equal(soma__video_read(video, (STEPS + 20) / 20.0, 0.01, first, NULL), SOMA_OK); // the last of those that hold the outcome
    int64_t off = 0;
    for (int i = 0; i < width * height * 3; i++) off += abs(first[i] - last[i]);
    assert_true(off < 4LL * width * height * 3); // H.264 loses a little
    assert_int_not_equal(soma__video_read(video, (STEPS + 21) / 20.0, 0.01, first, NULL), SOMA_OK);
    soma__video_close(video);
    soma__free(first);
    soma__free(last);
    soma__rollouts_free(&r);
}

static void openloop_report_stands_alone(void **state) {
    soma_openloop r = {.episodes = 2, .frames = 10, .horizon = 6, .n_dims = 3, .n_policies = 1};
    r.policies[0] = (soma_openloop_error){"<the> policy", 0.5, {0.1, 0.2, NAN, NAN}};
    r.last = r.average = (soma_openloop_error){"last action", 0.7, {0.3, 0.4, NAN, NAN}};
    soma__path_join(path, dir, "open.html", NULL);
    assert_int_equal(soma__page_openloop(path, &r, "data/<the> set", NULL), SOMA_OK);
    no_reference_leaves(path);
}

static int set_up(void **state) { return mkdtemp(dir) ? 0 : -1; }
static int tear_down(void **state) { return soma__dir_remove(dir, NULL); }

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(report_stands_alone),
        cmocka_unit_test(a_broken_comparison_names_the_file),
        cmocka_unit_test(video_shows_the_film),
        cmocka_unit_test(openloop_report_stands_alone),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
