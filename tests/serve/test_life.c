// SPDX-License-Identifier: Apache-2.0
// A server's life: who may ask, encryption, what GET tells, "busy", a policy that stalls, the end with requests in the line.
#include "serve/toy_server.h"

#include "base/file.h"
#include "data/dataset.h"
#include "loopback.h"
#include "serve/access.h"
#include "serve/events.h"
#include "serve/metrics.h"
#include "serve/toy_tls.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/stat.h>

static char folder[] = "/tmp/soma_life_XXXXXX";

static void write_file(char path[SOMA_OPT_TEXT], const char *name, const char *text, mode_t mode) {
    snprintf(path, SOMA_OPT_TEXT, "%s/%s", folder, name);
    assert_int_equal(soma__file_write(path, text, strlen(text), &err), SOMA_OK);
    chmod(path, mode);
}

// ---- keys

static void test_keys(void **state) {
    static const struct {
        const char *text;
        mode_t mode;
        const char *words;
    } bad[] = {{"", 0600, "there is no key in it"},
               {"# only a remark\n\n", 0600, "there is no key in it"},
               {"short\n", 0600, "line 1: a key has 8 to 255 bytes"},
               {"# x\nwith a space in it\n", 0600, "line 2: a key has no spaces"},
               {"abcdefgh\n", 0644, "everyone on this machine may read the keys"}};
    soma_keys keys = {0};
    char path[SOMA_OPT_TEXT];
    assert_true(soma__keys_have(&keys, "", 0)); // nobody needs one
    for (size_t i = 0; i < SOMA_COUNT(bad); i++) {
        write_file(path, "keys", bad[i].text, bad[i].mode);
        assert_int_not_equal(soma__keys_read(&keys, path, &err), SOMA_OK);
        if (!strstr(err.text, bad[i].words)) fail_msg("\"%s\" does not say \"%s\"", err.text, bad[i].words);
    }
    write_file(path, "keys", "# robots\nfirst-key-1\r\n\nsecond-key", 0640);
    if (soma__keys_read(&keys, path, &err)) fail_msg("%s", err.text);
    assert_int_equal(keys.n, 2);
    assert_true(soma__keys_have(&keys, "first-key-1", 11) && soma__keys_have(&keys, "second-key", 10));
    static const char *const wrong[] = {"", "first-key-", "first-key-12", "First-key-1", "# robots"};
    for (size_t i = 0; i < SOMA_COUNT(wrong); i++) assert_false(soma__keys_have(&keys, wrong[i], strlen(wrong[i])));
    char padded[300] = "first-key-1";
    assert_false(soma__keys_have(&keys, padded, 255)); // the padding is not part of a key
    memset(padded, 'x', sizeof padded);
    assert_false(soma__keys_have(&keys, padded, sizeof padded));
    soma__keys_free(&keys);
}

// With keys nothing but health answers to who has none, or a wrong one.
static void test_locked(void **state) {
    fixture f;
    soma_server_opts o = soma__server_defaults();
    soma_wire *w;
    char text[8192];
    write_file(o.api_key_file, "keys", "the-right-key\n", 0600);
    o.groot_port = 0;
    toy_start(&f, o);
    assert_int_equal(toy_get(f.port, "/healthz", "", text, sizeof text), 200);
    static const char *const paths[] = {"/metadata", "/metrics", "/", "/other"}, *const headers[] = {
                                                                                     "",
                                                                                     "Authorization: Api-Key the-wrong-key\r\n",
                                                                                     "Authorization: Api-Key \r\n",
                                                                                     "Authorization: Bearer the-right-key\r\n",
                                                                                     "Authorization: Api-Key the-right-keys\r\n",
                                                                                     "Authorization: Api-Key the-right-ke\r\n"};
    for (size_t i = 0; i < SOMA_COUNT(paths); i++)
        for (size_t k = 0; k < SOMA_COUNT(headers); k++) {
            assert_int_equal(toy_get(f.port, paths[i], headers[k], text, sizeof text), 401);
            assert_null(strstr(text, "toy"));
        }
    assert_int_equal(toy_get(f.port, "/metadata", "Authorization: Api-Key the-right-key\r\n", text, sizeof text), 200);
    assert_non_null(strstr(text, "\"family\":\"toy\""));
    assert_int_equal(toy_try(&w, &f, "ws"), SOMA_IO);
    assert_non_null(strstr(err.text, "401"));
    quick.api_key = "the-wrong-key";
    assert_int_equal(toy_try(&w, &f, "ws"), SOMA_IO);
    quick.api_key = "the-right-key";
    w = toy_join(&f);
    if (toy_ask(w, "hello")) fail_msg("%s", err.text);
    soma__wire_close(w);
    quick.api_key = NULL;
    assert_int_equal(toy_get(f.port, "/metrics", "Authorization: Api-Key the-right-key\r\n", text, sizeof text), 200);
    assert_non_null(strstr(text, "soma_errors_total{why=\"key\"} 26\n"));
    toy_stop(&f);
}

// ---- encryption

static void test_encrypted(void **state) {
    fixture f;
    soma_server_opts o = soma__server_defaults();
    soma_wire *w;
    char text[2000];
    write_file(o.tls_cert, "cert.pem", toy_cert, 0600);
    write_file(o.tls_key, "key.pem", toy_key, 0600);
    toy_start(&f, o);
    quick.tls_ca = o.tls_cert;
    if (toy_try(&w, &f, "wss")) fail_msg("%s", err.text);
    for (int i = 0; i < 3; i++)
        if (toy_ask(w, "hello")) fail_msg("%s", err.text);
    soma__wire_close(w);
    quick.connect_timeout = 0.5;
    quick.tls_ca = NULL; // nobody vouches for it
    assert_int_equal(toy_try(&w, &f, "wss"), SOMA_IO);
    assert_int_equal(toy_try(&w, &f, "ws"), SOMA_IO); // not in the clear
    assert_int_not_equal(toy_get(f.port, "/healthz", "", text, sizeof text), 200);
    quick.connect_timeout = 5;
    toy_stop(&f);
    soma_server *server;
    o.tls_key[0] = 0;
    assert_int_equal(soma__server_open(&server, &toy, &o, NULL, &err), SOMA_BAD_INPUT);
    assert_non_null(strstr(err.text, "go together"));
    snprintf(o.tls_key, sizeof o.tls_key, "%s/nowhere", folder);
    assert_int_equal(soma__server_open(&server, &toy, &o, NULL, &err), SOMA_NOT_FOUND);
    write_file(o.tls_key, "wrong.pem", toy_cert, 0600);
    assert_int_equal(soma__server_open(&server, &toy, &o, NULL, &err), SOMA_IO);
    write_file(o.tls_key, "key.pem", toy_key, 0600);
    strcpy(o.host, "0.0.0.0");
    o.groot_port = 0;
    assert_int_equal(soma__server_open(&server, &toy, &o, NULL, &err), SOMA_BAD_INPUT);
    assert_non_null(strstr(err.text, "on the loopback address alone"));
}

// ---- what GET tells

static void test_pages(void **state) {
    fixture f;
    char text[16384];
    toy_start(&f, soma__server_defaults());
    soma_wire *w = toy_join(&f);
    for (int i = 0; i < 5; i++) assert_int_equal(toy_ask(w, "hello"), SOMA_OK);
    assert_int_equal(toy_get(f.port, "/metadata", "", text, sizeof text), 200);
    json_t *json = json_loads(strstr(text, "\r\n\r\n") + 4, 0, NULL);
    assert_int_equal(json_integer_value(json_object_get(json, "horizon")), H);
    assert_string_equal(json_string_value(json_array_get(json_object_get(json, "cameras"), 1)), "wrist");
    assert_int_equal(json_integer_value(json_object_get(json_object_get(json, "metadata"), "state_dim")), 3);
    json_decref(json);
    assert_int_equal(toy_get(f.port, "/metrics", "", text, sizeof text), 200);
    static const char *const lines[] = {"\nsoma_requests_total{protocol=\"openpi\"} 5\n",
                                        "\nsoma_answers_total{protocol=\"openpi\"} 5\n",
                                        "\nsoma_clients{protocol=\"openpi\"} 1\n",
                                        "\nsoma_request_seconds_bucket{le=\"+Inf\"} 5\n",
                                        "\nsoma_request_seconds_count 5\n",
                                        "\nsoma_turns_total 5\n",
                                        "\n# TYPE soma_inference_seconds histogram\n"};
    for (size_t i = 0; i < SOMA_COUNT(lines); i++)
        if (!strstr(text, lines[i])) fail_msg("%s is not in\n%s", lines[i], text);
    soma__wire_close(w);
    toy_stop(&f);
}

static void test_quantiles(void **state) {
    soma_histogram h = {0};
    assert_true(soma__histogram_quantile(&h, 0.5) == 0);
    for (int i = 0; i < 100; i++) soma__histogram_add(&h, i < 90 ? 0.0015 : 0.15);
    double median = soma__histogram_quantile(&h, 0.5), tail = soma__histogram_quantile(&h, 0.99);
    assert_true(median > 0.001 && median < 0.002 && tail > 0.1 && tail <= 0.2);
}

static void test_events(void **state) {
    json_t *fields = json_pack("{s:i}", "client", 3);
    char *line = soma__event_line(SOMA_LOG_WARN, "refused", fields, "client 3 was \"refused\"");
    json_t *read = json_loads(line, 0, NULL);
    assert_null(strchr(line, '\n'));
    assert_string_equal(json_string_value(json_object_get(read, "event")), "refused");
    assert_string_equal(json_string_value(json_object_get(read, "level")), "warning");
    assert_int_equal(json_integer_value(json_object_get(read, "client")), 3);
    assert_true(json_real_value(json_object_get(read, "time")) > 1.6e9);
    json_decref(read);
    json_decref(fields);
    free(line);
}

// ---- busy

typedef struct asker {
    const fixture *f;
    const char *prompt;
    soma_status status;
    double seconds;
    soma_error error;
} asker;

static void *ask_once(void *arg) {
    asker *a = arg;
    char address[64];
    soma_wire *w = NULL;
    soma_actions actions;
    soma_obs obs = look(a->prompt);
    snprintf(address, sizeof address, "127.0.0.1:%d", a->f->port);
    a->status = soma__wire_connect(&w, address, &quick, &a->error);
    double begin = soma__seconds();
    if (!a->status) a->status = soma__wire_infer(w, &obs, &actions, &a->error);
    a->seconds = soma__seconds() - begin;
    soma__wire_close(w);
    return NULL;
}

static void ask_all(asker *askers, pthread_t *threads, int n, const fixture *f, const char *prompt) {
    for (int i = 0; i < n; i++) {
        askers[i] = (asker){.f = f, .prompt = prompt};
        assert_int_equal(pthread_create(&threads[i], NULL, ask_once, &askers[i]), 0);
        usleep(20000);
    }
    for (int i = 0; i < n; i++) pthread_join(threads[i], NULL);
}

static int count(const asker *askers, int n, soma_status status) {
    int found = 0;
    for (int i = 0; i < n; i++) found += askers[i].status == status;
    return found;
}

// A line of two: of five who ask while the policy works for 0.4 s, three are answered and two told at once.
static void test_line_full(void **state) {
    fixture f;
    asker askers[5];
    pthread_t threads[5];
    soma_server_opts o = soma__server_defaults();
    o.max_queue = 2;
    toy_start(&f, o);
    ask_all(askers, threads, 5, &f, "slow");
    assert_int_equal(count(askers, 5, SOMA_OK), 3);
    assert_int_equal(count(askers, 5, SOMA_BUSY), 2);
    for (int i = 0; i < 5; i++) {
        if (askers[i].status == SOMA_OK) continue;
        assert_true(askers[i].seconds < 0.3);
        assert_non_null(strstr(askers[i].error.text, "2 requests already wait for the policy"));
    }
    toy_stop(&f);
}

// Whose answer would come too late is told so, now or when it has waited that long.
static void test_wait(void **state) {
    fixture f;
    asker askers[4];
    pthread_t threads[4];
    soma_server_opts o = soma__server_defaults();
    o.max_wait = 0.9; // two of 0.4 s
    toy_start(&f, o);
    soma_wire *w = toy_join(&f);
    assert_int_equal(toy_ask(w, "slow"), SOMA_OK); // so that the server knows how long it takes
    ask_all(askers, threads, 4, &f, "slow");
    int answered = count(askers, 4, SOMA_OK);
    assert_true(answered >= 1 && answered <= 3); // 2, where the machine has no other work
    assert_int_equal(count(askers, 4, SOMA_BUSY), 4 - answered);
    soma__wire_close(w);
    toy_stop(&f);
}

static void test_rate(void **state) {
    fixture f;
    soma_server_opts o = soma__server_defaults();
    o.max_rate = 0.5;
    toy_start(&f, o);
    soma_wire *w = toy_join(&f), *other = toy_join(&f);
    assert_int_equal(toy_ask(w, "x"), SOMA_OK);
    assert_int_equal(toy_ask(w, "x"), SOMA_BUSY);
    assert_non_null(strstr(err.text, "a client may send 0.5 requests a second"));
    assert_int_equal(toy_ask(other, "x"), SOMA_OK); // per client
    usleep(2100000);
    assert_int_equal(toy_ask(w, "x"), SOMA_OK); // the same connection
    soma__wire_close(w);
    soma__wire_close(other);
    toy_stop(&f);
}

static void test_images(void **state) {
    fixture f;
    soma_server_opts o = soma__server_defaults();
    o.max_image = SIDE - 1;
    toy_start(&f, o);
    soma_wire *w = toy_join(&f);
    assert_int_equal(toy_ask(w, "x"), SOMA_IO);
    assert_non_null(strstr(err.text, "has 8 x 8 pixels; this server takes at most 7 on a side"));
    soma__wire_close(w);
    toy_stop(&f);
}

// ---- stalls, and the end

// The policy works for 1.5 s and is given up after 0.1: the client is told, health says so, and all is well again afterwards.
static void test_stall(void **state) {
    fixture f;
    asker askers[2];
    pthread_t threads[2];
    char text[2000];
    soma_server_opts o = soma__server_defaults();
    o.stall_timeout = 0.1;
    toy_start(&f, o);
    for (int i = 0; i < 2; i++) {
        askers[i] = (asker){.f = &f, .prompt = "slower"};
        assert_int_equal(pthread_create(&threads[i], NULL, ask_once, &askers[i]), 0);
    }
    for (int i = 0; i < 500 && !soma__server_stalled(f.server); i++) usleep(10000);
    assert_true(soma__server_stalled(f.server));
    assert_int_equal(toy_get(f.port, "/healthz", "", text, sizeof text), 503);
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(askers[i].status, SOMA_IO);
        assert_non_null(strstr(askers[i].error.text, "the policy has not answered for"));
    }
    for (int i = 0; i < 500 && soma__server_stalled(f.server); i++) usleep(20000);
    assert_int_equal(toy_get(f.port, "/healthz", "", text, sizeof text), 200);
    soma_wire *w = toy_join(&f);
    assert_int_equal(toy_ask(w, "x"), SOMA_OK);
    soma__wire_close(w);
    toy_stop(&f);
}

static void *end_server(void *arg) {
    soma__server_close(((fixture *)arg)->server);
    return NULL;
}

// Told to end while one request runs and two wait: all three are answered, nobody new is.
static void test_drain(void **state) {
    fixture f;
    asker askers[3];
    pthread_t threads[3], end;
    toy_start(&f, soma__server_defaults());
    soma_wire *idle = toy_join(&f);
    for (int i = 0; i < 3; i++) {
        askers[i] = (asker){.f = &f, .prompt = "slower"};
        assert_int_equal(pthread_create(&threads[i], NULL, ask_once, &askers[i]), 0);
    }
    char text[16384] = "";
    for (int i = 0; i < 500 && !strstr(text, "\nsoma_waiting 2\n"); i++, usleep(5000)) toy_get(f.port, "/metrics", "", text, sizeof text);
    assert_int_equal(pthread_create(&end, NULL, end_server, &f), 0);
    usleep(100000);
    assert_int_equal(toy_ask(idle, "x"), SOMA_IO);
    assert_non_null(strstr(err.text, "the server ends"));
    soma__wire_close(idle);
    for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
    pthread_join(end, NULL);
    for (int i = 0; i < 3; i++)
        if (askers[i].status) fail_msg("%s", askers[i].error.text);
    assert_int_equal(n_opened, n_closed);
}

// ---- the recording

static void test_record(void **state) {
    fixture f;
    soma_server_opts o = soma__server_defaults();
    snprintf(o.record, sizeof o.record, "%s/recording", folder);
    o.record_fps = 5;
    for (int round = 0; round < 2; round++) { // the second goes on where the first ended
        toy_start(&f, o);
        soma_wire *a = toy_join(&f), *b = toy_join(&f);
        for (int i = 0; i < 3; i++) assert_int_equal(toy_ask(a, "one"), SOMA_OK);
        for (int i = 0; i < 2; i++) assert_int_equal(toy_ask(b, "two"), SOMA_OK);
        assert_int_equal(toy_ask(a, "three"), SOMA_OK); // another task, another episode
        soma__wire_close(a);
        soma__wire_close(b);
        toy_stop(&f);
    }
    soma_dataset *d;
    if (soma__dataset_open(&d, o.record, &err)) fail_msg("%s", err.text);
    assert_int_equal(d->episodes_present, 6);
    assert_int_equal(d->frames_present, 12);
    assert_true(d->fps == 5);
    int n[3] = {0};
    for (int64_t e = 0; e < d->n_episodes; e++) {
        n[0] += !strcmp(d->episodes[e].task, "one") && d->episodes[e].n_frames == 3;
        n[1] += !strcmp(d->episodes[e].task, "two") && d->episodes[e].n_frames == 2;
        n[2] += !strcmp(d->episodes[e].task, "three") && d->episodes[e].n_frames == 1;
    }
    assert_true(n[0] == 2 && n[1] == 2 && n[2] == 2);
    soma_dataset_reader *reader;
    float values[3 * A];
    assert_int_equal(d->format->reader_open(&reader, d, &err), SOMA_OK);
    int64_t e = 0;
    while (strcmp(d->episodes[e].task, "one")) e++;
    assert_int_equal(d->format->read_vectors(reader, e, soma__dataset_feature(d, "action"), values, &err), SOMA_OK);
    for (int i = 0; i < 3; i++) assert_true(values[i * A] == 6.5f && values[i * A + 1] == (float)(i + 1)); // what the toy policy answered
    d->format->reader_close(reader);
    soma__dataset_close(d);
    toy_start(&f, soma__server_defaults());
    toy_stop(&f);
    soma_server *server;
    snprintf(o.record, sizeof o.record, "%s/keys/below", folder); // a file stands in the way
    assert_int_not_equal(soma__server_open(&server, &toy, &o, NULL, &err), SOMA_OK);
}

static int make_folder(void **state) { return mkdtemp(folder) ? 0 : -1; }
static int remove_folder(void **state) { return soma__dir_remove(folder, NULL); }

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_keys), cmocka_unit_test(test_quantiles), cmocka_unit_test(test_events)};
    const struct CMUnitTest networked[] = {cmocka_unit_test(test_locked),    cmocka_unit_test(test_encrypted), cmocka_unit_test(test_pages),
                                           cmocka_unit_test(test_line_full), cmocka_unit_test(test_wait),      cmocka_unit_test(test_rate),
                                           cmocka_unit_test(test_images),    cmocka_unit_test(test_stall),     cmocka_unit_test(test_drain),
                                           cmocka_unit_test(test_record)};
    bool network = loopback_ready();
    if (make_folder(NULL)) return 1;
    int failed = cmocka_run_group_tests_name("life", tests, NULL, NULL);
    if (network) failed += cmocka_run_group_tests_name("life server", networked, NULL, NULL);
    return failed + (remove_folder(NULL) != 0);
}
