// SPDX-License-Identifier: Apache-2.0
// GR00T's protocol: ZeroMQ's frames byte by byte, the map in both published forms, and clients that misbehave against the real server.
#include "serve/toy_server.h"

#include "base/file.h"
#include "format/npy.h"
#include "loopback.h"
#include "format/zmtp.h"
#include "serve/groot_map.h"

#include <stdlib.h>

static soma_arena arena;

// ---- frames

static soma_str greeting_of(const char *type) {
    soma_str out = {0};
    soma__zmtp_put_greeting(&out, type);
    return out;
}

static void add_message(soma_str *out, const void *body, size_t size) {
    unsigned char lead[11];
    size_t from = soma__zmtp_lead(lead, size);
    soma__str_add_bytes(out, lead + from, sizeof lead - from);
    soma__str_add_bytes(out, body, size);
}

static void test_frames(void **state) {
    soma_str in = greeting_of("REQ");
    assert_int_equal(in.len, 64 + 2 + 25);
    char large[300];
    memset(large, 'x', sizeof large);
    add_message(&in, "abc", 3);
    soma__str_add_bytes(&in, "\x04\x09\x04PING\x00\x0ahi", 11);
    add_message(&in, large, sizeof large);
    for (size_t step = 1; step < 400; step += step < 20 ? 1 : 37) { // however the bytes are cut
        soma_zmtp z = {.max_message = 300};
        soma_str body = {0};
        int n_messages = 0, n_pings = 0;
        for (size_t at = 0; at < in.len; at += step) {
            const unsigned char *p = (const unsigned char *)in.text + at;
            size_t len = SOMA_MIN(step, in.len - at);
            while (len) {
                soma_zmtp_found found = soma__zmtp_feed(&z, &p, &len, &body, &err);
                assert_int_not_equal(found, SOMA_ZMTP_REFUSED);
                if (found == SOMA_ZMTP_PING) {
                    n_pings++;
                    assert_int_equal(z.n_head, 2);
                    assert_memory_equal(z.head, "hi", 2);
                }
                if (found != SOMA_ZMTP_MESSAGE) continue;
                assert_int_equal(body.len, n_messages++ ? 300 : 3);
                body.len = 0;
            }
        }
        if (n_messages != 2) fail_msg("step %zu stage %d lead %zu left %lld", step, z.stage, z.n_lead, (long long)z.left);
        assert_int_equal(n_pings, 1);
        assert_false(soma__zmtp_midway(&z));
        soma__str_free(&body);
    }
    soma__str_free(&in);
}

static void refuses(const char *more, size_t len, bool greeted, const char *words) {
    soma_str in = {0}, body = {0};
    if (greeted) in = greeting_of("REQ");
    soma__str_add_bytes(&in, more, len);
    soma_zmtp z = {.max_message = 300};
    const unsigned char *p = (const unsigned char *)in.text;
    size_t left = in.len;
    assert_int_equal(soma__zmtp_feed(&z, &p, &left, &body, &err), SOMA_ZMTP_REFUSED);
    if (!strstr(err.text, words)) fail_msg("\"%s\" does not say \"%s\"", err.text, words);
    soma__str_free(&in);
    soma__str_free(&body);
}

static void test_bad_frames(void **state) {
    refuses("GET / HTTP/1.1\r\n", 16, false, "not those of a ZeroMQ socket");
    refuses("\xff\0\0\0\0\0\0\0\1\x7f\1", 11, false, "a version before 3.0");
    soma_str curve = greeting_of("REQ");
    memcpy(curve.text + 12, "CURVE", 5);
    refuses(curve.text, 64, false, "only the mechanism NULL");
    soma__str_free(&curve);
    soma_str sub = greeting_of("SUB");
    refuses(sub.text, sub.len, false, "only sockets of type REQ and DEALER");
    sub.text[66] = 9; // no READY
    refuses(sub.text, sub.len, false, "not followed by READY");
    sub.text[64] = 0; // a message instead
    refuses(sub.text, sub.len, false, "came before READY");
    soma__str_free(&sub);
    refuses("\0\3abc", 5, true, "begins with an empty frame");
    refuses("\1\0\1\3abc", 7, true, "one frame behind the empty one");
    refuses("\1\0\2\0\0\0\0\0\0\1\x2d", 11, true, "301 bytes was announced; this server takes at most 300");
    refuses("\1\0\2\xff\xff\xff\xff\xff\xff\xff\xff", 11, true, "takes at most 300");
    refuses("\x06\0\0\0\0\0\0\2\x01", 9, true, "a command of more than 512 bytes");
    refuses("\x88\0", 2, true, "no frame begins with this byte");
    refuses("\x04\x1a\x04PING\0\0xxxxxxxxxxxxxxxxxxx", 28, true, "a PING that is not one");
}

// ---- the map

static void put_npy(soma_str *out, soma_dtype dtype, int n_dims, const int64_t *shape, const void *data, size_t size) {
    char header[SOMA_NPY_HEADER];
    size_t n = soma__npy_header(header, dtype, shape, n_dims);
    soma__msg_put_map(out, 2);
    soma__msg_put_str(out, "__ndarray_class__");
    soma__msg_put(out, &(soma_msg){.kind = SOMA_MSG_BOOL, .flag = true});
    soma__msg_put_str(out, "as_npy");
    soma__msg_put_bin_head(out, n + size);
    soma__str_add_bytes(out, header, n);
    soma__str_add_bytes(out, data, size);
}

static void put_text(soma_str *out, int depth, const char *text) {
    for (int i = 0; i < depth; i++) soma__msg_put_array(out, 1);
    soma__msg_put_str(out, text);
}

// Both cameras (three time steps when flat), a state of `width` numbers of the last of two time steps, a prompt.
static soma_str request_of(bool nested, int64_t width) {
    soma_str m = {0};
    static const uint8_t steps[3 * SIDE * SIDE * 3] = {[2 * SIDE * SIDE * 3 + SIDE * 3 + 1] = 20};
    static const double states[2 * 64] = {0};
    double last[2 * 64];
    memcpy(last, states, sizeof last);
    for (int i = 0; i < 3; i++) last[width + i] = state3[i];
    soma__msg_put_map(&m, 2);
    soma__msg_put_str(&m, "endpoint");
    soma__msg_put_str(&m, "get_action");
    soma__msg_put_str(&m, "data");
    if (nested) {
        soma__msg_put_map(&m, 1);
        soma__msg_put_str(&m, "observation");
        soma__msg_put_map(&m, 3);
        soma__msg_put_str(&m, "video");
        soma__msg_put_map(&m, 2);
    } else {
        soma__msg_put_map(&m, 4);
    }
    for (int i = 0; i < 2; i++) {
        char key[40];
        snprintf(key, sizeof key, nested ? "%s" : "video.%s", cameras[i]);
        soma__msg_put_str(&m, key);
        put_npy(&m, SOMA_U8, nested ? 5 : 4, nested ? (int64_t[]){1, 3, SIDE, SIDE, 3} : (int64_t[]){3, SIDE, SIDE, 3}, steps,
                sizeof steps);
    }
    soma__msg_put_str(&m, nested ? "state" : "state.state");
    if (nested) {
        soma__msg_put_map(&m, 1);
        soma__msg_put_str(&m, "state");
    }
    put_npy(&m, SOMA_F64, nested ? 3 : 2, nested ? (int64_t[]){1, 2, width} : (int64_t[]){2, width}, last, 16 * (size_t)width);
    soma__msg_put_str(&m, nested ? "language" : "annotation.human.task_description");
    if (nested) {
        soma__msg_put_map(&m, 1);
        soma__msg_put_str(&m, "task");
    }
    put_text(&m, nested ? 2 : 1, "hello");
    return m;
}

static soma_status observe(soma_obs *obs, const soma_str *m, const soma_modality *modality) {
    const soma_msg *message;
    soma_groot_request r;
    if (soma__msg_parse(&message, &arena, m->text, m->len, true, &err)) return err.code;
    if (soma__groot_read(&r, message, &err)) return err.code;
    return soma__groot_observe(obs, modality, &toy.info, &r, &arena, &err);
}

static void test_forms(void **state) {
    soma_modality own;
    assert_int_equal(soma__modality_read(&own, &toy.info, "", &err), SOMA_OK);
    for (int nested = 0; nested < 2; nested++) {
        soma_str m = request_of(nested, N_STATE);
        soma_obs obs;
        if (observe(&obs, &m, &own)) fail_msg("%s", err.text);
        assert_int_equal(obs.n_images, 2);
        assert_int_equal(obs.images[1].pixels[SIDE * 3 + 1], 20); // of the last time step
        assert_memory_equal(obs.state, state3, sizeof state3);
        assert_string_equal(obs.prompt, "hello");
        soma__str_free(&m);
    }
    soma_str wide = request_of(false, N_STATE + 1);
    soma_obs obs;
    assert_int_equal(observe(&obs, &wide, &own), SOMA_BAD_INPUT);
    assert_non_null(strstr(err.text, "\"state.state\": wanted [T, 3] numbers"));
    soma__str_free(&wide);
    soma__arena_free(&arena);
}

static const soma_msg *part_of(const soma_str *m) {
    const soma_msg *message;
    if (soma__msg_parse(&message, &arena, m->text, m->len, false, &err)) fail_msg("%s", err.text);
    return message;
}

static void test_answers(void **state) {
    soma_modality own;
    assert_int_equal(soma__modality_read(&own, &toy.info, "", &err), SOMA_OK);
    float values[H * A];
    for (int i = 0; i < H * A; i++) values[i] = (float)i;
    soma_actions a = {.values = values, .horizon = H, .n_actions = A};
    for (int nested = 0; nested < 2; nested++) {
        soma_str out = {0};
        soma__groot_put_actions(&out, &own, &a, nested, 1);
        const soma_msg *m = part_of(&out);
        if (nested) assert_int_equal(m->n, 2);
        m = nested ? &m->items[0] : m;
        const soma_msg *bytes = soma__msg_get(soma__msg_get(m, nested ? "action" : "action.action"), "as_npy");
        soma_npy npy;
        if (soma__npy_parse(&npy, bytes->bytes, bytes->n, "answer", &err)) fail_msg("%s", err.text);
        assert_int_equal(npy.n_dims, 2 + nested);
        assert_int_equal(npy.shape[nested], H);
        assert_memory_equal(npy.data, values, sizeof values);
        soma__str_free(&out);
    }
    soma__arena_free(&arena);
}

static void test_modality(void **state) {
    char path[] = "/tmp/soma_modality_XXXXXX";
    close(mkstemp(path));
    static const struct {
        const char *json, *words; // NULL: taken
    } cases[] = {
        {"{\"state\": {\"arm\": {\"start\": 1, \"end\": 3}, \"hand\": {\"start\": 0, \"end\": 1}}, \"action\": {\"x\": {\"start\": 0, "
         "\"end\": 2}}, "
         "\"video\": {\"ego\": {\"original_key\": \"observation.images.scene\"}}}",
         NULL},
        {"{\"state\": {\"arm\": {\"start\": 0, \"end\": 2}}, \"action\": {}}", "have 2 numbers in all; the policy has 3"},
        {"{\"state\": {\"arm\": {\"start\": 0, \"end\": 3}, \"leg\": {\"start\": 2, \"end\": 4}}}", "two parts have number 2"},
        {"{\"state\": {\"arm\": {\"start\": 3, \"end\": 3}}}", "end"},
        {"{\"action\": {}}", "\"state\" have 0 numbers in all"},
        {"{\"state\": {\"a\\\"\": {\"start\": 0, \"end\": 3}}}", "cannot be the name"},
        {"{\"state\": {\"arm\": {\"start\": 0, \"end\": 3}}, \"action\": {\"x\": {\"start\": 0, \"end\": 2}}, \"video\": {\"ego\": "
         "{\"original_key\": \"observation.images.nose\"}}}",
         "camera \"nose\", which the policy does not have"}};
    for (size_t i = 0; i < SOMA_COUNT(cases); i++) {
        soma_modality m;
        assert_int_equal(soma__file_write(path, cases[i].json, strlen(cases[i].json), &err), SOMA_OK);
        soma_status status = soma__modality_read(&m, &toy.info, path, &err);
        if (cases[i].words && (status == SOMA_OK || !strstr(err.text, cases[i].words))) fail_msg("case %zu: \"%s\"", i, err.text);
        if (!cases[i].words && status) fail_msg("%s", err.text);
        if (cases[i].words) continue;
        assert_int_equal(m.n_states, 2);
        soma_str config = {0};
        soma__groot_put_config(&config, &m, H);
        assert_non_null(memmem(config.text, config.len, "[\"state.arm\",\"state.hand\"]", 26));
        assert_non_null(memmem(config.text, config.len, "{\"delta_indices\":[0,1,2,3],\"modality_keys\":[\"action.x\"]}", 56));
        soma__str_free(&config);
    }
    unlink(path);
}

// ---- against the server

static int join(const fixture *f) {
    int fd = raw_connect(f->groot_port);
    char theirs[64 + 2 + 25];
    soma_str hello = greeting_of("REQ");
    assert_true(raw_send(fd, hello.text, hello.len) && raw_read(fd, theirs, sizeof theirs));
    soma__str_free(&hello);
    return fd;
}

// The next message's tree.
static const soma_msg *next(int fd) {
    unsigned char lead[11];
    assert_true(raw_read(fd, lead, 4));
    assert_int_equal(lead[0] << 8 | lead[1], 0x100);
    size_t size = lead[3];
    if (lead[2] == 2) {
        assert_true(raw_read(fd, lead + 4, 7));
        for (int i = 4; i < 11; i++) size = size << 8 | lead[i];
    }
    char *body = soma__arena_alloc(&arena, size + 1);
    assert_true(raw_read(fd, body, size));
    return part_of(&(soma_str){.text = body, .len = size});
}

static void says(int fd, const char *words) {
    const soma_msg *error = soma__msg_get(next(fd), "error");
    assert_non_null(error);
    if (!memmem(error->bytes, error->n, words, strlen(words))) fail_msg("\"%.*s\" does not say \"%s\"", (int)error->n, error->bytes, words);
}

static void sends(int fd, const void *body, size_t size) {
    soma_str m = {0};
    add_message(&m, body, size);
    assert_true(raw_send(fd, m.text, m.len));
    soma__str_free(&m);
}

static void still_serves(const fixture *f) {
    int fd = join(f);
    soma_str m = request_of(false, N_STATE);
    for (int i = 1; i < 3; i++) {
        sends(fd, m.text, m.len);
        assert_non_null(soma__msg_get(next(fd), "action.action"));
    }
    soma__str_free(&m);
    close(fd);
}

static void test_server(void **state) {
    fixture f;
    soma_server_opts o = soma__server_defaults();
    o.groot_port = 0;
    o.message_timeout = 1;
    o.max_clients = 6;
    o.max_message = 1 << 20;
    toy_start(&f, o);
    still_serves(&f);
    int fd = join(&f);
    sends(fd,
          "\x81\xa8"
          "endpoint\xa4ping",
          15);
    assert_true(soma__msg_is_text(soma__msg_get(next(fd), "status"), "ok"));
    sends(fd,
          "\x81\xa8"
          "endpoint\xa4kill",
          15);
    says(fd, "a client cannot end this server");
    sends(fd, "\xc1", 1);
    says(fd, "no value starts with this byte"); // and the connection goes on
    sends(fd, "\x80", 1);
    says(fd, "get_action wants data");
    sends(fd, "\x80\x02}q\x00.", 6);
    says(fd, "runs code of the sender's choice");
    close(fd);
    fd = join(&f); // two in one breath, the second while the first is answered
    soma_str m = request_of(true, N_STATE), both = {0}, many_asks = {0};
    add_message(&both, m.text, m.len);
    add_message(&both,
                "\x81\xa8"
                "endpoint\xa4ping",
                15);
    assert_true(raw_send(fd, both.text, both.len));
    assert_int_equal(next(fd)->n, 2);
    assert_true(soma__msg_is_text(soma__msg_get(next(fd), "status"), "ok"));
    for (int i = 0; i < 5; i++) soma__str_add_bytes(&many_asks, both.text, both.len); // and ten, as a DEALER may
    assert_true(raw_send(fd, many_asks.text, many_asks.len));
    for (int i = 0; i < 5; i++) {
        assert_int_equal(next(fd)->n, 2);
        assert_true(soma__msg_is_text(soma__msg_get(next(fd), "status"), "ok"));
    }
    soma__str_free(&many_asks);
    close(fd);
    fd = join(&f);
    raw_send(fd, "\1\0\2\0\0\0\0\x40\0\0\0xxx", 14); // 1 GiB announced
    says(fd, "takes at most 1048576");
    close(fd);
    fd = join(&f);
    raw_send(fd, both.text, m.len / 2);
    says(fd, "not whole after 1 s");
    close(fd);
    fd = raw_connect(f.groot_port); // no greeting ever
    raw_send(fd, "\xff\0\0", 3);
    char rest[256];
    ssize_t n;
    while ((n = recv(fd, rest, sizeof rest, 0)) > 0) continue; // its own greeting, the sentence, the end
    assert_int_equal(n, 0);
    close(fd);
    int many[8];
    for (int i = 0; i < 8; i++) many[i] = raw_connect(f.groot_port);
    usleep(100000);
    for (int i = 0; i < 8; i++) close(many[i]);
    usleep(100000);
    still_serves(&f);
    soma_wire *w = toy_join(&f); // the other protocol, the same policy
    if (toy_ask(w, "hello")) fail_msg("%s", err.text);
    soma__wire_close(w);
    soma__str_free(&m);
    soma__str_free(&both);
    soma__arena_free(&arena);
    toy_stop(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_frames), cmocka_unit_test(test_bad_frames), cmocka_unit_test(test_forms),
                                       cmocka_unit_test(test_answers), cmocka_unit_test(test_modality)};
    const struct CMUnitTest networked[] = {cmocka_unit_test(test_server)};
    int failed = cmocka_run_group_tests_name("groot", tests, NULL, NULL);
    return failed + (loopback_ready() ? cmocka_run_group_tests_name("groot server", networked, NULL, NULL) : 0);
}
