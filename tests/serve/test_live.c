// SPDX-License-Identifier: Apache-2.0
// The server's page and its buttons: what /live tells, pictures that are kept only while somebody looks, pause, emergency stop, who may
// press it, and the page itself in headless Chromium where that is installed.
#include "serve/toy_server.h"

#include "base/file.h"
#include "base/json.h"

#include <pthread.h>
#include <stdlib.h>

static fixture f;

// The status of a request, and its body in `text`.
static int ask(const char *method, const char *path, const char *headers, char *text, size_t room) {
    char request[800];
    int status = 0, n = snprintf(request, sizeof request, "%s %s HTTP/1.1\r\n%sConnection: close\r\n\r\n", method, path, headers);
    int fd = raw_connect(f.port);
    size_t len = 0;
    raw_send(fd, request, (size_t)n);
    for (ssize_t got; len + 1 < room && (got = recv(fd, text + len, room - len - 1, 0)) > 0;) len += (size_t)got;
    text[len] = 0;
    close(fd);
    sscanf(text, "HTTP/1.%*d %d", &status);
    char *body = strstr(text, "\r\n\r\n");
    if (body) memmove(text, body + 4, len - (size_t)(body + 4 - text) + 1);
    return status;
}

#define HERE "Host: localhost\r\n"
#define BUTTON HERE "X-Soma: 1\r\nContent-Length: 0\r\n"

static void press(const char *path) {
    char text[2000];
    assert_int_equal(ask("POST", path, BUTTON, text, sizeof text), 200);
}

static json_t *live(int64_t client) {
    static char path[64], text[1 << 16];
    json_t *all;
    snprintf(path, sizeof path, "/live?client=%lld", (long long)client);
    assert_int_equal(ask("GET", path, HERE, text, sizeof text), 200);
    if (soma__json_parse(&all, text, strlen(text), path, &err)) fail_msg("%s: %s", err.text, text);
    return all;
}

static const char *string_at(const json_t *o, const char *key) {
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

static soma_server_opts quiet(void) { return soma__server_defaults(); }

// The toy's robot: action 0 is the state's first number, action 1 what was last sent.
static bool toy_hold(void *ctx, const soma_obs *obs, const float *last, float *action) {
    action[0] = obs->state[0];
    if (last) action[1] = last[1];
    return last != NULL;
}

static void begin(bool knows_hold) {
    soma_server_policy policy = toy;
    soma_server_opts o = quiet();
    o.port = 0;
    if (knows_hold) policy.hold = toy_hold;
    n_opened = n_closed = n_acts = 0;
    if (soma__server_open(&f.server, &policy, &o, NULL, &err)) fail_msg("%s", err.text);
    f.port = soma__server_port(f.server);
}

static soma_status infer(soma_wire *w, const char *prompt, soma_actions *a) {
    soma_obs obs = look(prompt);
    return soma__wire_infer(w, &obs, a, &err);
}

// ---- what is shown

static void test_live(void **state) {
    static char bytes[4096];
    begin(false);
    soma_wire *w = toy_join(&f), *other = toy_join(&f);
    json_t *all = live(-1);
    assert_true(json_is_null(json_object_get(all, "client")) && !json_array_size(json_object_get(all, "clients")));
    assert_string_equal(string_at(json_object_get(all, "policy"), "family"), "toy");
    json_decref(all);
    assert_int_equal(toy_ask(w, "touch \"it\""), SOMA_OK);
    assert_int_equal(toy_ask(other, "wait"), SOMA_OK);
    assert_int_equal(toy_ask(other, "wait"), SOMA_OK);
    all = live(1);
    const json_t *clients = json_object_get(all, "clients"), *c = json_object_get(all, "client");
    assert_int_equal(json_array_size(clients), 2);
    assert_int_equal(json_integer_value(json_object_get(json_array_get(clients, 1), "requests")), 2);
    assert_string_equal(string_at(c, "prompt"), "touch \"it\"");
    assert_string_equal(string_at(c, "protocol"), "openpi");
    const json_t *rows = json_object_get(json_object_get(c, "chunk"), "rows");
    assert_int_equal(json_array_size(rows), H);
    assert_true(json_number_value(json_array_get(json_array_get(rows, 0), 0)) == 6.5);
    assert_int_equal(json_array_size(json_object_get(json_object_get(c, "before"), "rows")), 0);
    assert_int_equal(json_array_size(json_object_get(c, "states")), 1);
    assert_int_equal(json_array_size(json_object_get(c, "pictures")), 2); // somebody has looked
    assert_int_equal(json_integer_value(json_object_get(all, "answers")), 3);
    json_decref(all);
    assert_int_equal(ask("GET", "/live/picture?client=1&camera=1", HERE, bytes, sizeof bytes), 200);
    assert_memory_equal(bytes, pixels, sizeof pixels);
    assert_int_equal(ask("GET", "/live/picture?client=1&camera=2", HERE, bytes, sizeof bytes), 404);
    assert_int_equal(ask("GET", "/live/picture?client=x", HERE, bytes, sizeof bytes), 404);
    all = live(2);
    rows = json_object_get(json_object_get(json_object_get(all, "client"), "before"), "rows");
    assert_true(json_number_value(json_array_get(json_array_get(rows, 0), 1)) == 1); // its first chunk
    json_decref(all);
    soma__wire_close(other);
    for (int i = 0; i < 100; i++) { // it takes the server a moment to see that the client has gone
        all = live(1);
        size_t n = json_array_size(json_object_get(all, "clients"));
        json_decref(all);
        if (n == 1) break;
        assert_true(i < 99);
        usleep(20000);
    }
    soma__wire_close(w);
    toy_stop(&f);
}

static void test_no_pictures_unwatched(void **state) {
    begin(false);
    soma_wire *w = toy_join(&f);
    assert_int_equal(toy_ask(w, "alone"), SOMA_OK);
    json_t *all = live(1);
    assert_int_equal(json_array_size(json_object_get(json_object_get(all, "client"), "pictures")), 0);
    json_decref(all);
    soma__wire_close(w);
    toy_stop(&f);
}

static void test_who_may(void **state) {
    static char text[1 << 16];
    begin(false);
    assert_int_equal(ask("GET", "/live", "Host: 127.0.0.1:8000\r\n", text, sizeof text), 200);
    assert_int_equal(ask("GET", "/live", "Host: robot.example:8000\r\n", text, sizeof text), 403);
    assert_int_equal(ask("POST", "/hold", HERE "Content-Length: 0\r\n", text, sizeof text), 403);
    assert_int_equal(ask("POST", "/hold", "Host: robot.example\r\nX-Soma: 1\r\nContent-Length: 0\r\n", text, sizeof text), 403);
    assert_int_equal(ask("GET", "/hold", HERE "X-Soma: 1\r\n", text, sizeof text), 405);
    assert_int_equal(ask("POST", "/live", BUTTON, text, sizeof text), 405);
    json_t *all = live(-1);
    assert_true(json_is_false(json_object_get(all, "held")));
    json_decref(all);
    assert_int_equal(ask("GET", "/", HERE, text, sizeof text), 200);
    assert_non_null(strstr(text, "EMERGENCY STOP"));
    toy_stop(&f);
}

static void test_keys(void **state) {
    static char text[1 << 16], path[] = "/tmp/soma_live_XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0 && write(fd, "sesame42\n", 9) == 9);
    close(fd);
    soma_server_opts o = quiet();
    strcpy(o.api_key_file, path);
    toy_start(&f, o);
    const char *const paths[] = {"/", "/live", "/live/picture?client=1", "/metrics", "/metadata", "/nothing"};
    for (size_t i = 0; i < SOMA_COUNT(paths); i++) assert_int_equal(ask("GET", paths[i], HERE, text, sizeof text), 401);
    assert_int_equal(ask("POST", "/hold", BUTTON, text, sizeof text), 401);
    assert_int_equal(ask("GET", "/healthz", HERE, text, sizeof text), 200);
    assert_int_equal(ask("GET", "/", HERE "Authorization: Api-Key sesame42\r\n", text, sizeof text), 200);
    assert_int_equal(ask("GET", "/", HERE "Authorization: Basic bWU6c2VzYW1lNDI=\r\n", text, sizeof text), 200); // me:sesame42
    assert_int_equal(ask("GET", "/", HERE "Authorization: Basic bWU6c2VzYW1lNDM=\r\n", text, sizeof text), 401);
    assert_int_equal(ask("GET", "/", HERE "Authorization: Basic %%%\r\n", text, sizeof text), 401);
    toy_stop(&f);
    unlink(path);
}

// ---- the buttons

static void test_hold(void **state) {
    soma_actions a;
    begin(true);
    soma_wire *w = toy_join(&f);
    press("/hold");
    assert_int_equal(infer(w, "go", &a), SOMA_BUSY); // action 1 keeps what was last sent, and nothing was
    assert_non_null(strstr(err.text, "emergency stop"));
    press("/release");
    assert_int_equal(infer(w, "go", &a), SOMA_OK);
    assert_true(a.values[0] == 6.5f && a.values[1] == 1);
    press("/hold");
    press("/pause"); // a stop is stronger
    for (int i = 0; i < 2; i++) {
        assert_int_equal(infer(w, "go", &a), SOMA_OK);
        for (int row = 0; row < H; row++) assert_true(a.values[row * A] == state3[0] && a.values[row * A + 1] == 1);
    }
    assert_int_equal(n_acts, 1); // the policy was not asked
    press("/resume");
    press("/release");
    assert_int_equal(infer(w, "go", &a), SOMA_OK);
    assert_true(a.values[0] == 6.5f && a.values[1] == 2);
    soma__wire_close(w);
    toy_stop(&f);
}

static void test_hold_unknown(void **state) {
    soma_actions a;
    begin(false);
    soma_wire *w = toy_join(&f);
    assert_int_equal(infer(w, "go", &a), SOMA_OK);
    press("/hold");
    assert_int_equal(infer(w, "go", &a), SOMA_BUSY);
    assert_non_null(strstr(err.text, "\"hold\""));
    press("/release");
    assert_int_equal(infer(w, "go", &a), SOMA_OK); // the connection went on
    soma__wire_close(w);
    toy_stop(&f);
}

typedef struct question {
    soma_wire *wire;
    const char *prompt;
    soma_status status;
    float first;
} question;

static void *question_run(void *arg) {
    question *q = arg;
    soma_actions a;
    soma_obs obs = look(q->prompt);
    q->status = soma__wire_infer(q->wire, &obs, &a, NULL);
    if (q->status == SOMA_OK) q->first = a.values[0];
    return NULL;
}

static void wait_for(const char *key) { // until the request waits in the paused line
    for (int i = 0;; i++) {
        static char text[1 << 16];
        assert_int_equal(ask("GET", "/metrics", HERE, text, sizeof text), 200);
        if (strstr(text, key)) return;
        assert_true(i < 200);
        usleep(20000);
    }
}

static void test_pause(void **state) {
    begin(true);
    pthread_t thread;
    question q = {.wire = toy_join(&f), .prompt = "go"};
    press("/pause");
    assert_int_equal(pthread_create(&thread, NULL, question_run, &q), 0);
    wait_for("soma_waiting 1\n");
    usleep(50000);
    assert_int_equal(n_acts, 0);
    press("/resume");
    pthread_join(thread, NULL);
    assert_int_equal(q.status, SOMA_OK);
    assert_int_equal(n_acts, 1);
    soma__wire_close(q.wire);
    toy_stop(&f);
}

// The stop is pressed while the policy computes: what it then says is not sent.
static void test_hold_midway(void **state) {
    soma_actions a;
    begin(true);
    pthread_t thread;
    question q = {.wire = toy_join(&f), .prompt = "slow"};
    assert_int_equal(infer(q.wire, "go", &a), SOMA_OK);
    assert_int_equal(pthread_create(&thread, NULL, question_run, &q), 0);
    while (n_acts < 2) usleep(5000);
    press("/hold");
    pthread_join(thread, NULL);
    assert_int_equal(q.status, SOMA_OK);
    assert_true(q.first == state3[0]);
    soma__wire_close(q.wire);
    toy_stop(&f);
}

// ---- the page in a browser

static void test_chromium(void **state) {
    static char text[1 << 17];
    char command[400];
    if (system("command -v chromium >/dev/null 2>&1")) {
        print_message("chromium is not installed\n");
        skip();
    }
    begin(true);
    soma_wire *w = toy_join(&f);
    json_decref(live(1)); // somebody looks, so pictures are kept
    assert_int_equal(toy_ask(w, "touch <b>it</b>"), SOMA_OK);
    press("/hold");
    snprintf(
        command, sizeof command,
        "timeout 60 chromium --headless --no-sandbox --disable-gpu --virtual-time-budget=4000 --dump-dom http://127.0.0.1:%d/ 2>/dev/null",
        f.port);
    FILE *page = popen(command, "r");
    assert_non_null(page);
    text[fread(text, 1, sizeof text - 1, page)] = 0;
    pclose(page);
    static const char *const shown[] = {"class=\"held\">held</span>",
                                        "touch &lt;b&gt;it&lt;/b&gt;",
                                        "toy: 4 x 2 actions",
                                        "class=\"on\">Release",
                                        "scene, 8 x 8",
                                        "wrist, 8 x 8",
                                        "127.0.0.1 openpi"};
    if (!strstr(text, "</html>")) {
        print_message("chromium did not start here\n");
        soma__wire_close(w);
        toy_stop(&f);
        skip();
    }
    for (size_t i = 0; i < SOMA_COUNT(shown); i++)
        if (!strstr(text, shown[i])) fail_msg("the page does not show \"%s\": %s", shown[i], text);
    soma__wire_close(w);
    toy_stop(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_live),     cmocka_unit_test(test_no_pictures_unwatched),
        cmocka_unit_test(test_who_may),  cmocka_unit_test(test_keys),
        cmocka_unit_test(test_hold),     cmocka_unit_test(test_hold_unknown),
        cmocka_unit_test(test_pause),    cmocka_unit_test(test_hold_midway),
        cmocka_unit_test(test_chromium),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
