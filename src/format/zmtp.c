// SPDX-License-Identifier: Apache-2.0
// ZMTP 3.0, RFC 23. A frame is flags (1: more frames follow, 2: the length has 8 bytes, 4: a command), a length, and that many bytes.
#include "format/zmtp.h"

#include <string.h>

enum { GREETING = 64, MORE = 1, LONG = 2, COMMAND = 4, MAX_PING_CONTEXT = 16 };

// ---- what is whole

static soma_zmtp_found refuse(soma_zmtp *z, soma_error *err, const char *why) {
    z->stage = SOMA_ZMTP_FAILED;
    soma__fail(err, SOMA_BAD_INPUT, "ZeroMQ: %s", why);
    return SOMA_ZMTP_REFUSED;
}

static soma_zmtp_found on_greeting(soma_zmtp *z, soma_error *err) {
    static const char mechanism[20] = "NULL";
    if (memcmp(z->head + 12, mechanism, sizeof mechanism))
        return refuse(z, err, "only the mechanism NULL is spoken here (no CURVE, no PLAIN)");
    z->stage = SOMA_ZMTP_HANDSHAKE;
    z->n_head = 0;
    return SOMA_ZMTP_MORE;
}

// Fails as early as it can be known, so that what is no ZeroMQ at all is not waited for.
static soma_zmtp_found check_greeting(soma_zmtp *z, soma_error *err) {
    if (z->n_head >= 1 && z->head[0] != 0xff) return refuse(z, err, "the first bytes are not those of a ZeroMQ socket");
    if (z->n_head >= 10 && z->head[9] != 0x7f) return refuse(z, err, "the first bytes are not those of a ZeroMQ socket");
    if (z->n_head >= 11 && z->head[10] < 3) return refuse(z, err, "a version before 3.0, which libzmq spoke up to version 3");
    return z->n_head < GREETING ? SOMA_ZMTP_MORE : on_greeting(z, err);
}

// The value of a property in READY's list; NULL when it is absent or the list is torn.
static const unsigned char *property(const soma_zmtp *z, size_t at, const char *name, size_t *size) {
    while (at < z->n_head) {
        size_t n = z->head[at], value = at + 1 + n + 4;
        if (value > z->n_head) return NULL;
        const unsigned char *p = z->head + value - 4;
        *size = (size_t)p[0] << 24 | (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3];
        if (*size > z->n_head - value) return NULL;
        if (n == strlen(name) && !memcmp(z->head + at + 1, name, n)) return p + 4;
        at = value + *size;
    }
    return NULL;
}

static bool command_is(const soma_zmtp *z, const char *name) {
    size_t n = strlen(name);
    return z->n_head > n && z->head[0] == n && !memcmp(z->head + 1, name, n);
}

static soma_zmtp_found on_command(soma_zmtp *z, soma_error *err) {
    if (z->stage == SOMA_ZMTP_HANDSHAKE) {
        size_t size;
        const unsigned char *type = command_is(z, "READY") ? property(z, 6, "Socket-Type", &size) : NULL;
        if (!type) return refuse(z, err, "the greeting is not followed by READY with a Socket-Type");
        if ((size != 3 || memcmp(type, "REQ", 3)) && (size != 6 || memcmp(type, "DEALER", 6)))
            return refuse(z, err, "only sockets of type REQ and DEALER are answered");
        z->stage = SOMA_ZMTP_TRAFFIC;
        z->n_head = 0;
        return SOMA_ZMTP_MORE;
    }
    if (!command_is(z, "PING")) {
        z->n_head = 0; // commands that nobody here needs
        return SOMA_ZMTP_MORE;
    }
    size_t from = 7; // length, name, time to live
    if (z->n_head < from || z->n_head - from > MAX_PING_CONTEXT) return refuse(z, err, "a PING that is not one");
    memmove(z->head, z->head + from, z->n_head - from);
    z->n_head -= from;
    return SOMA_ZMTP_PING;
}

// ---- reading

static soma_zmtp_found begin_frame(soma_zmtp *z, soma_error *err) {
    unsigned flags = z->lead[0];
    if (flags & ~(unsigned)(MORE | LONG | COMMAND) || (flags & COMMAND && flags & MORE))
        return refuse(z, err, "no frame begins with this byte");
    z->left = z->lead[1];
    for (int i = 2; flags & LONG && i < 9; i++) z->left = z->left << 8 | z->lead[i];
    z->in_frame = true;
    if (flags & COMMAND) {
        z->n_head = 0;
        return z->left > sizeof z->head ? refuse(z, err, "a command of more than 512 bytes") : SOMA_ZMTP_MORE;
    }
    if (z->stage != SOMA_ZMTP_TRAFFIC) return refuse(z, err, "a message came before READY");
    if (!z->delimited && (!(flags & MORE) || z->left))
        return refuse(z, err, "a request begins with an empty frame, as a REQ socket sends it (a DEALER sends it itself)");
    if (z->delimited && flags & MORE) return refuse(z, err, "a request has one frame behind the empty one, not several");
    if (z->left <= z->max_message) return SOMA_ZMTP_MORE;
    z->stage = SOMA_ZMTP_FAILED;
    soma__fail(err, SOMA_BAD_INPUT, "a message of %llu bytes was announced; this server takes at most %zu", (unsigned long long)z->left,
               z->max_message);
    return SOMA_ZMTP_REFUSED;
}

static soma_zmtp_found end_frame(soma_zmtp *z, soma_error *err) {
    unsigned flags = z->lead[0];
    z->in_frame = false;
    z->n_lead = 0;
    if (flags & COMMAND) return on_command(z, err);
    z->delimited = !z->delimited;
    return z->delimited ? SOMA_ZMTP_MORE : SOMA_ZMTP_MESSAGE;
}

static void take(unsigned char *to, size_t *n, size_t wanted, const unsigned char **bytes, size_t *len) {
    size_t count = *n < wanted ? SOMA_MIN(wanted - *n, *len) : 0;
    memcpy(to + *n, *bytes, count);
    *n += count;
    *bytes += count;
    *len -= count;
}

static soma_zmtp_found feed_frame(soma_zmtp *z, const unsigned char **bytes, size_t *len, soma_str *body, soma_error *err) {
    if (!z->in_frame) {
        take(z->lead, &z->n_lead, 1, bytes, len);
        if (z->n_lead) take(z->lead, &z->n_lead, z->lead[0] & LONG ? 9 : 2, bytes, len);
        if (z->n_lead < 2 || (z->lead[0] & LONG && z->n_lead < 9)) return SOMA_ZMTP_MORE;
        soma_zmtp_found found = begin_frame(z, err);
        if (found) return found;
    }
    size_t count = (size_t)SOMA_MIN(z->left, (uint64_t)*len);
    if (z->lead[0] & COMMAND) {
        memcpy(z->head + z->n_head, *bytes, count);
        z->n_head += count;
    } else if (count) {
        soma__str_add_bytes(body, *bytes, count);
        if (body->failed) {
            z->stage = SOMA_ZMTP_FAILED;
            soma__no_memory(err, "a message");
            return SOMA_ZMTP_REFUSED;
        }
    }
    *bytes += count;
    *len -= count;
    z->left -= count;
    return z->left ? SOMA_ZMTP_MORE : end_frame(z, err);
}

soma_zmtp_found soma__zmtp_feed(soma_zmtp *z, const unsigned char **bytes, size_t *len, soma_str *body, soma_error *err) {
    if (z->stage == SOMA_ZMTP_FAILED) return refuse(z, err, "nothing can be read behind what was refused");
    while (*len) {
        soma_zmtp_found found;
        if (z->stage == SOMA_ZMTP_GREETING) {
            take(z->head, &z->n_head, GREETING, bytes, len);
            found = check_greeting(z, err);
        } else {
            found = feed_frame(z, bytes, len, body, err);
        }
        if (found) return found;
    }
    return SOMA_ZMTP_MORE;
}

bool soma__zmtp_midway(const soma_zmtp *z) { return z->n_lead > 0 || z->in_frame || z->delimited; }

// ---- writing

void soma__zmtp_put_greeting(soma_str *out, const char *socket_type) {
    static const unsigned char greeting[GREETING] = {0xff, [8] = 1, 0x7f, 3, 0, 'N', 'U', 'L', 'L'};
    size_t n = strlen(socket_type), size = 1 + 5 + 1 + 11 + 4 + n;
    soma__str_add_bytes(out, greeting, sizeof greeting);
    soma__str_add_bytes(out, (unsigned char[]){COMMAND, (unsigned char)size, 5}, 3);
    soma__str_add(out, "READY\x0bSocket-Type");
    soma__str_add_bytes(out, (unsigned char[]){0, 0, 0, (unsigned char)n}, 4);
    soma__str_add(out, socket_type);
}

size_t soma__zmtp_lead(unsigned char out[11], size_t size) {
    size_t from = size < 256 ? 7 : 0;
    out[from] = MORE;
    out[from + 1] = 0;
    out[from + 2] = size < 256 ? 0 : LONG;
    for (int i = 10; i > (int)from + 2; i--, size >>= 8) out[i] = (unsigned char)size;
    return from;
}

size_t soma__zmtp_pong(unsigned char out[64], const void *context, size_t size) {
    static const unsigned char name[] = {4, 'P', 'O', 'N', 'G'};
    SOMA_CHECK(size <= MAX_PING_CONTEXT, "a PING's context has at most 16 bytes");
    out[0] = COMMAND;
    out[1] = (unsigned char)(sizeof name + size);
    memcpy(out + 2, name, sizeof name);
    memcpy(out + 2 + sizeof name, context, size);
    return 2 + sizeof name + size;
}
