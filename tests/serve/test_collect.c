// SPDX-License-Identifier: Apache-2.0
// A robot sends frames over the websocket: episodes that end, that are dropped, that nobody ended; a second client; frames that do not fit.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/file.h"
#include "data/dataset.h"
#include "format/wire.h"
#include "loopback.h"
#include "serve/collect.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { W = 32, H = 16 };
static char root[] = "/tmp/soma_collect_XXXXXX", path[SOMA_PATH_MAX];
static soma_wire_opts quick = {.connect_timeout = 5, .answer_timeout = 10};
static soma_error err;

typedef struct fixture {
    soma_collector *collector;
    soma_server *server;
    char address[64];
} fixture;

static fixture start(bool resume) {
    fixture f;
    soma_server_opts o = soma__server_defaults();
    o.port = 0;
    if (soma__collector_open(&f.collector, &(soma_collect_opts){path, "toy", 20, resume}, &err)) fail_msg("%s", err.text);
    soma_server_policy policy = soma__collector_policy(f.collector);
    if (soma__server_open(&f.server, &policy, &o, NULL, &err)) fail_msg("%s", err.text);
    snprintf(f.address, sizeof f.address, "127.0.0.1:%d", soma__server_port(f.server));
    return f;
}

static soma_recorder_counts stop(fixture *f) {
    soma_recorder_counts n;
    soma__server_close(f->server);
    if (soma__collector_finish(f->collector, &n, &err)) fail_msg("%s", err.text);
    soma__collector_close(f->collector);
    return n;
}

static soma_wire *join(const fixture *f) {
    soma_wire *w;
    if (soma__wire_connect(&w, f->address, &quick, &err)) fail_msg("%s", err.text);
    return w;
}

// Frame f of episode e, `word` ("end", "drop" or NULL) beside it.
static void pack_frame(soma_str *out, int e, int f, int width, const char *word) {
    uint8_t picture[W * H * 3];
    const float state[] = {(float)e, (float)f, 0.5f};
    const double action[] = {10 * e + f, -f};
    memset(picture, 30 + 20 * e + 10 * f, sizeof picture);
    soma__msg_put_map(out, word ? 5 : 4);
    soma__msg_put_str(out, "observation/images/front");
    soma__msg_put_ndarray(out, "|u1", 3, (int64_t[]){H, width, 3}, picture, (size_t)(H * width * 3));
    soma__msg_put_str(out, "observation/state");
    soma__msg_put_ndarray(out, "<f4", 1, (int64_t[]){3}, state, sizeof state);
    soma__msg_put_str(out, "actions");
    soma__msg_put_ndarray(out, "<f8", 1, (int64_t[]){2}, action, sizeof action);
    soma__msg_put_str(out, "prompt");
    soma__msg_put_str(out, e % 2 ? "close the box" : "open the box");
    if (!word) return;
    soma__msg_put_str(out, word);
    soma__msg_put(out, &(soma_msg){.kind = SOMA_MSG_BOOL, .flag = true});
}

static void pack_word(soma_str *out, const char *word) {
    soma__msg_put_map(out, 1);
    soma__msg_put_str(out, word);
    soma__msg_put(out, &(soma_msg){.kind = SOMA_MSG_BOOL, .flag = true});
}

static soma_status call(soma_wire *w, soma_str *request, int64_t episodes, int64_t frames) {
    const soma_msg *answer;
    soma_status status = soma__wire_call(w, request, &answer, &err);
    soma__str_free(request);
    if (status) return status;
    assert_true(soma__msg_number(soma__msg_get(answer, "episodes"), 0) == (double)episodes);
    assert_true(soma__msg_number(soma__msg_get(answer, "frames"), 0) == (double)frames);
    assert_true(soma__msg_number(soma__msg_get(answer, "left_out"), 0) == 0);
    return SOMA_OK;
}

// An episode of 4 frames, as number `before` of the dataset; ended with its last frame or by itself.
static void send_episode(soma_wire *w, int e, int64_t before, bool by_itself) {
    for (int f = 0; f < 4; f++) {
        soma_str request = {0};
        const bool end = f == 3 && !by_itself;
        pack_frame(&request, e, f, W, end ? "end" : NULL);
        if (call(w, &request, before + end, end ? 0 : f + 1)) fail_msg("%s", err.text);
    }
    soma_str request = {0};
    if (by_itself) pack_word(&request, "end");
    if (by_itself && call(w, &request, before + 1, 0)) fail_msg("%s", err.text);
}

static void check(const int *numbers, int n_episodes) {
    soma_dataset *d;
    soma_dataset_reader *r;
    if (soma__dataset_open(&d, path, &err)) fail_msg("%s", err.text);
    assert_int_equal(d->n_episodes, n_episodes);
    assert_int_equal(d->n_frames, 4 * n_episodes);
    assert_true(d->fps == 20);
    assert_string_equal(d->robot_type, "toy");
    assert_int_equal(d->format->reader_open(&r, d, &err), SOMA_OK);
    for (int e = 0; e < n_episodes; e++) {
        float state[4 * 3], action[4 * 2];
        uint8_t rgb[W * H * 3];
        assert_string_equal(d->episodes[e].task, numbers[e] % 2 ? "close the box" : "open the box");
        assert_int_equal(d->format->read_vectors(r, e, soma__dataset_feature(d, "observation.state"), state, &err), SOMA_OK);
        assert_int_equal(d->format->read_vectors(r, e, soma__dataset_feature(d, "action"), action, &err), SOMA_OK);
        for (int f = 0; f < 4; f++) {
            assert_true(state[3 * f] == (float)numbers[e] && state[3 * f + 1] == (float)f && state[3 * f + 2] == 0.5f);
            assert_true(action[2 * f] == (float)(10 * numbers[e] + f) && action[2 * f + 1] == (float)-f);
            if (d->format->read_image(r, e, f, soma__dataset_feature(d, "observation.images.front"), rgb, &err)) fail_msg("%s", err.text);
            assert_in_range(rgb[300] + 3 - (30 + 20 * numbers[e] + 10 * f), 0, 6);
        }
    }
    d->format->reader_close(r);
    soma__dataset_close(d);
}

static void episodes(void **state) {
    fixture f = start(false);
    soma_wire *w = join(&f), *other = join(&f);
    soma_str request = {0};
    assert_true(soma__msg_get(soma__wire_metadata(w), "records")->flag);
    send_episode(w, 0, 0, false);
    pack_frame(&request, 5, 0, W, NULL);
    assert_int_equal(call(w, &request, 1, 1), SOMA_OK);
    pack_word(&request, "drop");
    assert_int_equal(call(w, &request, 1, 0), SOMA_OK);
    send_episode(w, 1, 1, true);
    check((int[]){0, 1}, 2); // on the disk while the server goes on

    pack_frame(&request, 5, 0, W, NULL);
    assert_int_equal(call(other, &request, 0, 0), SOMA_BUSY);
    pack_frame(&request, 5, 0, W, NULL);
    assert_int_equal(call(w, &request, 2, 1), SOMA_OK);
    soma__wire_close(w); // in the middle of an episode
    for (int i = 0; i < 100; i++) {
        usleep(50000);
        pack_frame(&request, 2, 0, W, NULL);
        soma_status status = call(other, &request, 2, 1);
        if (status == SOMA_OK) break;
        assert_int_equal(status, SOMA_BUSY);
        assert_in_range(i, 0, 98);
    }
    pack_word(&request, "drop");
    assert_int_equal(call(other, &request, 2, 0), SOMA_OK);
    send_episode(other, 2, 2, false);
    soma__wire_close(other);
    soma_recorder_counts n = stop(&f);
    assert_true(n.episodes == 3 && n.frames == 12);
    check((int[]){0, 1, 2}, 3);

    assert_int_equal(soma__collector_open(&f.collector, &(soma_collect_opts){path, "toy", 20, false}, &err), SOMA_BAD_INPUT);
    f = start(true);
    w = join(&f);
    send_episode(w, 3, 3, false);
    soma__wire_close(w);
    n = stop(&f);
    assert_true(n.episodes == 4 && n.frames == 16);
    check((int[]){0, 1, 2, 3}, 4);
}

// Each is answered with a sentence that names what is wrong.
static void misfits(void **state) {
    fixture f = start(true);
    soma_str request = {0};
    soma_wire *w = join(&f);
    soma__msg_put_map(&request, 1);
    soma__msg_put_str(&request, "prompt");
    soma__msg_put_str(&request, "no frame at all");
    assert_int_not_equal(call(w, &request, 0, 0), SOMA_OK);
    assert_non_null(strstr(err.text, "state"));
    soma__wire_close(w);

    w = join(&f);
    pack_word(&request, "end");
    assert_int_not_equal(call(w, &request, 0, 0), SOMA_OK);
    assert_non_null(strstr(err.text, "no frame"));
    soma__wire_close(w);

    w = join(&f);
    pack_frame(&request, 4, 0, W, NULL);
    assert_int_equal(call(w, &request, 4, 1), SOMA_OK);
    pack_frame(&request, 4, 1, W / 2, NULL);
    assert_int_not_equal(call(w, &request, 0, 0), SOMA_OK);
    assert_non_null(strstr(err.text, "front"));
    soma__wire_close(w);
    soma_recorder_counts n = stop(&f);
    assert_true(n.episodes == 4 && n.frames == 16);
    check((int[]){0, 1, 2, 3}, 4);

    assert_int_equal(soma__collector_open(&f.collector, &(soma_collect_opts){root, "", 0, true}, &err), SOMA_BAD_INPUT);
    assert_non_null(strstr(err.text, "rate"));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(episodes), cmocka_unit_test(misfits)};
    if (!loopback_ready()) {
        printf("[  SKIPPED ] %zu test(s): there is no loopback interface\n", SOMA_COUNT(tests));
        return 0;
    }
    if (!mkdtemp(root)) return 1;
    snprintf(path, sizeof path, "%s/recorded", root);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    soma__dir_remove(root, NULL);
    return failed;
}
