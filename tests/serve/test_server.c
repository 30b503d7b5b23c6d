// SPDX-License-Identifier: Apache-2.0
// The real server and the real client in one process, and raw sockets for clients that misbehave. After each of them the server must serve.
// `test_server --serve PORT [--groot]` only serves the toy policy until its standard input ends (tools/openpi_client_check.py and
// tools/groot_client_check.py start it so).
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/file.h"
#include "format/wire.h"
#include "loopback.h"
#include "serve/raw_socket.h"
#include "serve/server.h"
#include "serve/toy_policy.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

// ---- one server per test

typedef struct fixture {
    soma_server *server;
    int port;
} fixture;

static soma_error err;
static soma_wire_opts quick = {.connect_timeout = 5, .answer_timeout = 10};

static int start_with(void **state, double message_timeout) {
    static fixture f;
    soma_server_opts o = soma__server_defaults();
    o.port = 0;
    o.max_clients = 8;
    o.message_timeout = message_timeout;
    err = (soma_error){0};
    n_opened = n_closed = n_acts = 0;
    if (soma__server_open(&f.server, &toy, &o, NULL, &err)) {
        print_message("%s\n", err.text);
        return -1;
    }
    f.port = soma__server_port(f.server);
    *state = &f;
    return 0;
}

static int start(void **state) { return start_with(state, 1); }
static int start_patient(void **state) { return start_with(state, 60); } // for 80 MB on a machine that has other work

static int stop(void **state) {
    fixture *f = *state;
    soma__server_close(f->server);
    return n_opened == n_closed ? 0 : -1; // every pilot was freed
}

static soma_wire *join(const fixture *f) {
    char address[64];
    soma_wire *w = NULL;
    snprintf(address, sizeof address, "127.0.0.1:%d", f->port);
    if (soma__wire_connect(&w, address, &quick, &err)) fail_msg("%s", err.text);
    return w;
}

static void asks_and_gets(soma_wire *w, int count) {
    soma_actions a;
    soma_obs obs = look("hello");
    if (soma__wire_infer(w, &obs, &a, &err)) fail_msg("%s", err.text);
    assert_int_equal(a.horizon, H);
    assert_int_equal(a.n_actions, A);
    assert_true(a.values[0] == 6.5f && a.values[1] == (float)count && a.values[2] == 40 && a.values[3] == 5);
    assert_true(a.model_ms == 1.5);
}

static void still_serves(const fixture *f) {
    soma_wire *w = join(f);
    asks_and_gets(w, 1);
    soma__wire_close(w);
}

// ---- decent clients

static void test_round_trip(void **state) {
    soma_wire *w = join(*state);
    const soma_msg *m = soma__wire_metadata(w);
    assert_true(soma__msg_is_text(soma__msg_get(m, "family"), "toy"));
    assert_true(soma__msg_number(soma__msg_get(m, "reset_pose"), 1) == -1.5);
    for (int i = 1; i <= 3; i++) asks_and_gets(w, i);
    soma__wire_close(w);
    still_serves(*state);
}

static void test_answer(void **state) {
    soma_wire *w = join(*state);
    soma_obs obs = look("x");
    soma_str request = {0};
    soma__wire_put_obs(&request, &obs);
    for (int i = 0; i < 2; i++) {
        const soma_msg *m;
        assert_int_equal(soma__wire_call(w, &request, &m, &err), SOMA_OK);
        static const char *const order[] = {"actions", "policy_timing", "server_timing"}; // as openpi's server writes them
        assert_int_equal(m->n, 3);
        for (int k = 0; k < 3; k++) assert_true(soma__msg_is_text(&m->pairs[k].key, order[k]));
        assert_string_equal(soma__msg_get(m, "actions")->array->dtype, "<f8");
        const soma_msg *timing = soma__msg_get(m, "server_timing");
        assert_int_equal(timing->n, 1 + i);
        assert_true(soma__msg_get(timing, "infer_ms")->real >= 0);
        if (i) assert_true(soma__msg_get(timing, "prev_total_ms")->real > 0);
    }
    soma__str_free(&request);
    soma__wire_close(w);
}

static void *many_asks(void *arg) {
    soma_wire *w = join(arg);
    for (int i = 1; i <= 20; i++) asks_and_gets(w, i);
    soma__wire_close(w);
    return NULL;
}

static void test_many_clients(void **state) {
    pthread_t threads[6];
    for (int i = 0; i < 6; i++) assert_int_equal(pthread_create(&threads[i], NULL, many_asks, *state), 0);
    for (int i = 0; i < 6; i++) pthread_join(threads[i], NULL);
    assert_int_equal(n_opened, 6);
    assert_int_equal(n_acts, 120);
}

static void test_policy_fails(void **state) {
    static const char *const prompts[] = {"fail", "nan"}, *const words[] = {"told to fail", "not a finite number, at step 2, dimension 1"};
    for (int i = 0; i < 2; i++) {
        soma_wire *w = join(*state);
        soma_actions a;
        soma_obs obs = look(prompts[i]);
        assert_int_equal(soma__wire_infer(w, &obs, &a, &err), SOMA_IO);
        if (!strstr(err.text, words[i])) fail_msg("%s", err.text);
        assert_int_not_equal(soma__wire_infer(w, &obs, &a, &err), SOMA_OK); // the first sentence again
        assert_non_null(strstr(err.text, words[i]));
        soma__wire_close(w);
    }
    still_serves(*state);
}

// ---- raw clients

static int raw_join(const fixture *f) {
    unsigned char bytes[4096];
    size_t len;
    int fd = raw_connect(f->port);
    assert_true(fd >= 0);
    assert_int_equal(raw_handshake(fd), 101);
    assert_int_equal(raw_next(fd, bytes, sizeof bytes, &len), RAW_BINARY); // the metadata
    return fd;
}

static soma_str packed(const char *prompt) {
    soma_obs obs = look(prompt);
    soma_str out = {0};
    soma__wire_put_obs(&out, &obs);
    return out;
}

// The next frames are the sentence and the close that openpi's clients know.
static void gets_sentence(const fixture *f, int fd, const char *words) {
    unsigned char bytes[4096];
    size_t len = 0;
    assert_int_equal(raw_next(fd, bytes, sizeof bytes - 1, &len), RAW_TEXT);
    bytes[len] = 0;
    if (!strstr((char *)bytes, words)) fail_msg("\"%s\" does not say \"%s\"", bytes, words);
    assert_int_equal(raw_next(fd, bytes, sizeof bytes - 1, &len), RAW_CLOSE);
    bytes[len] = 0;
    assert_int_equal(bytes[0] << 8 | bytes[1], 1011);
    assert_string_equal((char *)bytes + 2, "Internal server error. Traceback included in previous frame.");
    close(fd);
    still_serves(f);
}

static void test_garbage(void **state) {
    int fd = raw_join(*state);
    raw_frame(fd, 0x80 | RAW_BINARY, true, 5, "\xc1xxxx", 5);
    gets_sentence(*state, fd, "no value starts with this byte");

    fd = raw_join(*state);
    raw_frame(fd, 0x80 | RAW_BINARY, true, 0, "", 0);
    gets_sentence(*state, fd, "ends inside a value");

    fd = raw_join(*state);
    raw_frame(fd, 0x80 | RAW_BINARY, true, 1, "\x07", 1);
    gets_sentence(*state, fd, "an observation is a map, found an integer");

    fd = raw_join(*state);
    raw_frame(fd, 0x80 | RAW_TEXT, true, 5, "hello", 5);
    gets_sentence(*state, fd, "a text frame came");

    soma_str message = packed("x");
    fd = raw_join(*state);
    raw_frame(fd, 0x80 | RAW_BINARY, true, message.len - 7, message.text, message.len - 7);
    gets_sentence(*state, fd, "ends inside a value");
    soma__str_free(&message);
    assert_int_equal(n_acts, 5); // those of still_serves
}

static void test_half_message(void **state) {
    soma_str message = packed("x");
    int fd = raw_join(*state);
    raw_frame(fd, 0x80 | RAW_BINARY, true, message.len, message.text, message.len / 2); // the rest never comes
    gets_sentence(*state, fd, "not whole after 1 s");
    fd = raw_join(*state);
    raw_frame(fd, RAW_BINARY, true, message.len, message.text, message.len); // nor does the next fragment
    gets_sentence(*state, fd, "not whole after 1 s");
    fd = raw_join(*state);
    raw_frame(fd, 0x80 | RAW_BINARY, true, message.len, message.text, message.len / 2);
    close(fd);
    still_serves(*state);
    fd = raw_connect(((fixture *)*state)->port);
    raw_send(fd, "GET / HT", 8); // half a handshake
    still_serves(*state);
    close(fd);
    soma__str_free(&message);
}

static void test_huge_message(void **state) {
    int fd = raw_join(*state);
    raw_frame(fd, 0x80 | RAW_BINARY, true, UINT64_C(2) << 30, "", 0); // 2 GB announced, nothing sent
    gets_sentence(*state, fd, "this server takes at most 67108864");
    fd = raw_join(*state);
    char *part = calloc(1, 1 << 20);
    raw_frame(fd, 0x80 | RAW_BINARY, true, UINT64_C(2) << 30, part, 1000);
    gets_sentence(*state, fd, "at least 2147483648 bytes");
    fd = raw_join(*state); // in pieces of 1 MiB; the sentence must survive what is still on its way
    int n = 0;
    while (n < 80 && raw_frame(fd, n == 79 ? 0x80 : n ? 0 : RAW_BINARY, true, 1 << 20, part, 1 << 20)) n++;
    assert_int_equal(n, 80);
    gets_sentence(*state, fd, "this server takes at most 67108864");
    free(part);
}

static void test_fragments(void **state) {
    soma_str message = packed("x");
    unsigned char bytes[4096];
    size_t len, third = message.len / 3;
    int fd = raw_join(*state);
    raw_frame(fd, RAW_BINARY, true, third, message.text, third);
    raw_frame(fd, 0x80 | RAW_PING, true, 2, "hi", 2); // between fragments
    raw_frame(fd, 0, true, third, message.text + third, third);
    raw_frame(fd, 0x80, true, message.len - 2 * third, message.text + 2 * third, message.len - 2 * third);
    assert_int_equal(raw_next(fd, bytes, sizeof bytes, &len), RAW_PONG);
    assert_int_equal(raw_next(fd, bytes, sizeof bytes, &len), RAW_BINARY);
    close(fd);
    soma__str_free(&message);
}

// Two requests in one breath are answered one after the other; a third waits in the network.
static void test_impatient(void **state) {
    soma_str message = packed("x");
    unsigned char bytes[4096];
    size_t len;
    int fd = raw_join(*state);
    for (int i = 0; i < 4; i++) raw_frame(fd, 0x80 | RAW_BINARY, true, message.len, message.text, message.len);
    for (int i = 1; i <= 4; i++) {
        assert_int_equal(raw_next(fd, bytes, sizeof bytes, &len), RAW_BINARY);
        soma_arena arena = {0};
        const soma_msg *m;
        assert_int_equal(soma__msg_parse(&m, &arena, bytes, len, false, &err), SOMA_OK);
        assert_true(soma__msg_number(soma__msg_get(m, "actions"), 1) == i);
        soma__arena_free(&arena);
    }
    close(fd);
    soma__str_free(&message);
}

static double health(const fixture *f) {
    static const char ask[] = "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    char head[1024], body[4] = "";
    double begin = soma__seconds();
    int fd = raw_connect(f->port);
    assert_true(raw_send(fd, ask, sizeof ask - 1));
    assert_true(raw_read_head(fd, head, sizeof head));
    assert_memory_equal(head, "HTTP/1.1 200", 12);
    assert_non_null(strcasestr(head, "content-length: 3"));
    assert_true(raw_read(fd, body, 3));
    assert_string_equal(body, "OK\n");
    close(fd);
    return soma__seconds() - begin;
}

// While the policy works for 0.4 s, pings and health checks are answered at once.
static void test_not_held_up(void **state) {
    soma_str message = packed("slow");
    unsigned char bytes[4096];
    size_t len;
    int fd = raw_join(*state);
    double begin = soma__seconds();
    raw_frame(fd, 0x80 | RAW_BINARY, true, message.len, message.text, message.len);
    raw_frame(fd, 0x80 | RAW_PING, true, 2, "hi", 2);
    assert_int_equal(raw_next(fd, bytes, sizeof bytes, &len), RAW_PONG);
    assert_true(health(*state) < 0.3);
    assert_true(soma__seconds() - begin < 0.35);
    assert_int_equal(raw_next(fd, bytes, sizeof bytes, &len), RAW_BINARY);
    assert_true(soma__seconds() - begin >= 0.4);
    close(fd);
    soma__str_free(&message);
}

static void test_other_path(void **state) {
    static const char ask[] = "GET /other HTTP/1.1\r\nHost: x\r\n\r\n";
    char head[1024];
    int fd = raw_connect(((fixture *)*state)->port);
    raw_send(fd, ask, sizeof ask - 1);
    assert_true(raw_read_head(fd, head, sizeof head));
    assert_memory_equal(head, "HTTP/1.1 426", 12);
    close(fd);
}

static void test_leaves_early(void **state) {
    soma_str message = packed("slow");
    for (int i = 0; i < 3; i++) {
        int fd = raw_join(*state);
        raw_frame(fd, 0x80 | RAW_BINARY, true, message.len, message.text, message.len);
        usleep(20000);
        if (i == 1) { // a reset instead of an orderly end
            struct linger l = {1, 0};
            setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof l);
        }
        close(fd);
    }
    still_serves(*state);
    soma__str_free(&message);
}

static void test_too_many(void **state) {
    int fds[8];
    for (int i = 0; i < 8; i++) fds[i] = raw_join(*state);
    int fd = raw_connect(((fixture *)*state)->port);
    assert_int_equal(raw_handshake(fd), 503);
    close(fd);
    health(*state);
    soma_wire *w;
    char address[64];
    snprintf(address, sizeof address, "127.0.0.1:%d", ((fixture *)*state)->port);
    assert_int_equal(soma__wire_connect(&w, address, &quick, &err), SOMA_IO);
    assert_non_null(strstr(err.text, "503"));
    for (int i = 0; i < 8; i++) close(fds[i]);
    double until = soma__seconds() + 5; // the server learns of it when it looks
    while ((fd = raw_connect(((fixture *)*state)->port)) >= 0 && raw_handshake(fd) != 101 && soma__seconds() < until) close(fd);
    close(fd);
    usleep(50000);
    still_serves(*state);
}

// Closing the server while a client waits: the client is told, and nothing is lost or leaked (stop() counts the pilots).
static void test_close_while_busy(void **state) {
    fixture *f = *state;
    soma_str message = packed("slow");
    unsigned char bytes[4096];
    size_t len;
    int fd = raw_join(f), idle = raw_join(f);
    for (int i = 0; i < 2; i++) raw_frame(fd, 0x80 | RAW_BINARY, true, message.len, message.text, message.len);
    for (double until = soma__seconds() + 5; !n_acts && soma__seconds() < until;) usleep(1000); // the slow one is being answered
    soma__server_close(f->server);
    f->server = NULL;
    assert_int_equal(raw_next(idle, bytes, sizeof bytes, &len), RAW_CLOSE);
    assert_int_equal(bytes[0] << 8 | bytes[1], 1001);
    assert_int_equal(n_acts, 1);
    close(fd);
    close(idle);
    soma__str_free(&message);
}

// The n-th allocation of either side fails: someone gets a sentence, and the next client is served.
static void test_no_memory(void **state) {
    soma_obs obs = look("hello");
    for (int n = 0;; n++) {
        soma_wire *w = NULL;
        soma_actions a;
        char address[64];
        snprintf(address, sizeof address, "127.0.0.1:%d", ((fixture *)*state)->port);
        soma__alloc_fail_after(n);
        soma_status status = soma__wire_connect(&w, address, &quick, &err);
        if (!status) status = soma__wire_infer(w, &obs, &a, &err);
        soma__alloc_fail_after(-1);
        soma__wire_close(w);
        if (status) assert_true(strlen(err.text) > 10);
        still_serves(*state);
        assert_true(n < 100);
        if (!status && n > 40) break;
    }
}

static void test_open_refused(void **state) {
    fixture *f = *state;
    soma_server *second = NULL;
    soma_server_opts o = soma__server_defaults();
    o.port = f->port;
    assert_int_equal(soma__server_open(&second, &toy, &o, NULL, &err), SOMA_IO);
    assert_non_null(strstr(err.text, "is another server using the port?"));
    o.port = 70000;
    assert_int_equal(soma__server_open(&second, &toy, &o, NULL, &err), SOMA_BAD_INPUT);
    soma_server_policy p = toy;
    p.info.metadata_json = "[1]";
    o.port = 0;
    assert_int_equal(soma__server_open(&second, &p, &o, NULL, &err), SOMA_BAD_INPUT);
    assert_non_null(strstr(err.text, "not a JSON object"));
    for (int n = 0;; n++) {
        soma__alloc_fail_after(n);
        soma_status status = soma__server_open(&second, &toy, &o, NULL, &err);
        soma__alloc_fail_after(-1);
        if (!status) break;
        assert_true(n < 20 && strlen(err.text) > 10);
    }
    soma__server_close(second);
}

static int serve(const char *port, bool groot) {
    soma_server *server;
    soma_server_opts o = soma__server_defaults();
    o.port = atoi(port);
    o.groot_port = groot ? 0 : -1;
    if (soma__server_open(&server, &toy, &o, NULL, &err)) return 1;
    if (groot) printf("GR00T on tcp://127.0.0.1:%d\n", soma__server_groot_port(server));
    printf("listening on ws://127.0.0.1:%d\n", soma__server_port(server));
    fflush(stdout);
    while (getchar() != EOF) continue;
    soma__server_close(server);
    return 0;
}

int main(int argc, char **argv) {
    if (argc >= 3 && !strcmp(argv[1], "--serve")) return serve(argv[2], argc > 3 && !strcmp(argv[3], "--groot"));
#define SERVED(test) cmocka_unit_test_setup_teardown(test, start, stop)
    const struct CMUnitTest tests[] = {
        SERVED(test_round_trip),
        SERVED(test_answer),
        SERVED(test_many_clients),
        SERVED(test_policy_fails),
        SERVED(test_garbage),
        SERVED(test_half_message),
        cmocka_unit_test_setup_teardown(test_huge_message, start_patient, stop),
        SERVED(test_fragments),
        SERVED(test_impatient),
        SERVED(test_not_held_up),
        SERVED(test_other_path),
        SERVED(test_leaves_early),
        SERVED(test_too_many),
        SERVED(test_close_while_busy),
        SERVED(test_no_memory),
        SERVED(test_open_refused),
    };
    if (!loopback_ready()) {
        printf("[  SKIPPED ] %zu test(s): there is no loopback interface\n", SOMA_COUNT(tests));
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
