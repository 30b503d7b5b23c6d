// SPDX-License-Identifier: Apache-2.0
// The client against servers that lie, fall silent or are not there. Its exchange with a good server is in tests/serve.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "format/wire.h"
#include "loopback.h"
#include "serve/raw_socket.h"

#include <math.h>
#include <pthread.h>

// ---- a server of one connection: sends `metadata`, waits for a message, sends `answer`

typedef struct frame {
    int first; // 0: send nothing; -1: end the connection
    uint64_t announced;
    const char *bytes;
    size_t len;
} frame;

typedef struct fake {
    int listener, port;
    bool handshake;
    frame metadata, answer;
    pthread_t thread;
} fake;

static bool send_frame(int fd, const frame *f) {
    if (f->first > 0) raw_frame(fd, f->first, false, f->announced, f->bytes, f->len);
    return f->first >= 0;
}

static void *run_fake(void *arg) {
    fake *f = arg;
    unsigned char byte, rest[256];
    int fd = accept(f->listener, NULL, NULL);
    raw_timeout(fd, 5);
    if (f->handshake && raw_accept(fd) && send_frame(fd, &f->metadata) && raw_read(fd, &byte, 1) && send_frame(fd, &f->answer))
        while (recv(fd, rest, sizeof rest, 0) > 0) continue; // until the client leaves
    if (!f->handshake) raw_send(fd, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", 45);
    close(fd);
    return NULL;
}

static void start(fake *f) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof a;
    f->listener = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(f->listener, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(f->listener, 1), 0);
    getsockname(f->listener, (struct sockaddr *)&a, &size);
    f->port = ntohs(a.sin_port);
    assert_int_equal(pthread_create(&f->thread, NULL, run_fake, f), 0);
}

static void stop(fake *f) {
    pthread_join(f->thread, NULL);
    close(f->listener);
}

#define BINARY(text) \
    { 0x80 | RAW_BINARY, sizeof(text) - 1, text, sizeof(text) - 1 }
#define TEXT(text) \
    { 0x80 | RAW_TEXT, sizeof(text) - 1, text, sizeof(text) - 1 }

static soma_error err;

// Connects and asks once; the error must say `words`.
static void says(frame metadata, frame answer, const char *words) {
    fake f = {.handshake = true, .metadata = metadata, .answer = answer};
    start(&f);
    char address[64];
    snprintf(address, sizeof address, "ws://127.0.0.1:%d", f.port);
    soma_wire *w = NULL;
    soma_wire_opts o = {.connect_timeout = 0.5, .answer_timeout = 0.3};
    soma_status status = soma__wire_connect(&w, address, &o, &err);
    if (status == SOMA_OK) {
        const float state[2] = {1, 2};
        const soma_obs obs = {.state = state, .n_state = 2};
        soma_actions a;
        status = soma__wire_infer(w, &obs, &a, &err);
        if (status) assert_int_not_equal(soma__wire_infer(w, &obs, &a, NULL), SOMA_OK); // it stays closed
    }
    assert_int_not_equal(status, SOMA_OK);
    if (!strstr(err.text, words)) fail_msg("\"%s\" does not say \"%s\"", err.text, words);
    soma__wire_close(w);
    stop(&f);
}

#define ACTIONS(data, dtype, shape)              \
    "\x81\xa7"                                   \
    "actions\x84\xc4\x0b__ndarray__\xc3\xc4\x04" \
    "data\xc4" data "\xc4\x05"                   \
    "dtype\xa3" dtype "\xc4\x05shape" shape

static void test_lies(void **state) {
    const frame none = {0}, ok = BINARY("\x80"), gone = {.first = -1};
    says(none, none, "no metadata within");
    says(gone, none, "closed the connection");
    says((frame)BINARY("\xc1"), none, "no value starts");
    says((frame)BINARY("\x91\x01"), none, "the metadata is not a map");
    says((frame)TEXT("we are full"), none, "the server says: we are full");
    static const char much[100000];
    says((frame){0x80 | RAW_BINARY, UINT64_C(2) << 30, "x", 1}, none, "no metadata within");
    says((frame){0x80 | RAW_BINARY, UINT64_C(2) << 30, much, sizeof much}, none, "announces a message of 2147483648 bytes");
    says(ok, none, "no answer within 0.3 s");
    says(ok, gone, "closed the connection");
    says(ok, (frame)TEXT("Traceback ...\nValueError: bad key\n"), "ValueError: bad key");
    says(ok,
         (frame)BINARY("\x82\xa1"
                       "a"),
         "ends inside a value");
    says(ok, (frame)BINARY("\x80"), "wanted an ndarray [horizon, actions], found nothing");
    says(ok,
         (frame)BINARY("\x81\xa7"
                       "actions\x92\x01\x02"),
         "found a list of 2");
    says(ok,
         (frame)BINARY(ACTIONS("\x04"
                               "abcd",
                               "<f8", "\x91\x01")),
         "[1] with 4 bytes of data");
    says(ok,
         (frame)BINARY(ACTIONS("\x04"
                               "abcd",
                               "<f4", "\x91\x01")),
         "found an ndarray <f4 [1]");
    says(ok, (frame)BINARY(ACTIONS("\x00", "<f4", "\x92\x00\x07")), "found an ndarray <f4 [0, 7]");
    says(ok, (frame)BINARY(ACTIONS("\x08\0\0\0\0\0\0\xc0\x7f", "<f4", "\x92\x01\x02")), "\"actions\" [0, 1] is not a finite number");
}

static void test_two_answers(void **state) {
    static const char two[] = "\x80\x82\x01\x80";                // an empty map, and behind it a second frame with another
    says((frame){0x80 | RAW_BINARY, 1, two, 4}, (frame){0}, ""); // "not asked for", or taken for an answer that lacks its actions
}

static void test_addresses(void **state) {
    static const char *const bad[] = {"", "ws://", "host:", "host:0", "host:70000", "host:12x", "ws://[::1"};
    soma_wire *w = NULL;
    for (size_t i = 0; i < SOMA_COUNT(bad); i++) {
        soma_wire_opts o = {.connect_timeout = 0, .answer_timeout = 1};
        assert_int_not_equal(soma__wire_connect(&w, bad[i], &o, &err), SOMA_OK);
        if (i < 6 && !strstr(err.text, "is not an address")) fail_msg("%s: %s", bad[i], err.text);
    }
    assert_int_equal(soma__wire_connect(&w, "wss://", NULL, &err), SOMA_BAD_INPUT);
    assert_null(w);
}

static void test_nobody(void **state) {
    fake f = {0};
    start(&f); // a port that was free a moment ago
    char address[64];
    snprintf(address, sizeof address, "127.0.0.1:%d", f.port);
    soma_wire *w = NULL;
    soma_wire_opts o = {.connect_timeout = 2, .answer_timeout = 1};
    assert_int_equal(soma__wire_connect(&w, address, &o, &err), SOMA_IO);
    assert_non_null(strstr(err.text, "HTTP status 404"));
    stop(&f);
    o.connect_timeout = 0.3;
    assert_int_equal(soma__wire_connect(&w, address, &o, &err), SOMA_IO);
    if (!strstr(err.text, "is the server running there?")) fail_msg("%s", err.text);
}

// A server that comes up while the client already tries
static void *late_fake(void *arg) {
    usleep(300000);
    fake *f = arg;
    assert_int_equal(listen(f->listener, 1), 0);
    return run_fake(f);
}

static void test_waits(void **state) {
    fake f = {.handshake = true,
              .metadata = BINARY("\x81\xa1"
                                 "a\x01")};
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof a;
    f.listener = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(f.listener, (struct sockaddr *)&a, sizeof a), 0);
    getsockname(f.listener, (struct sockaddr *)&a, &size);
    pthread_create(&f.thread, NULL, late_fake, &f);
    char address[64];
    snprintf(address, sizeof address, "127.0.0.1:%d", ntohs(a.sin_port));
    soma_wire *w = NULL;
    soma_wire_opts o = {.connect_timeout = 5, .answer_timeout = 1};
    if (soma__wire_connect(&w, address, &o, &err)) fail_msg("%s", err.text);
    assert_true(soma__msg_number(soma__msg_get(soma__wire_metadata(w), "a"), 0) == 1);
    soma__wire_close(w);
    stop(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lies),   cmocka_unit_test(test_two_answers), cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_nobody), cmocka_unit_test(test_waits),
    };
    if (!loopback_ready()) {
        printf("[  SKIPPED ] %zu test(s): there is no loopback interface\n", SOMA_COUNT(tests));
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
