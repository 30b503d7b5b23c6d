// SPDX-License-Identifier: Apache-2.0
// RFC 6455 as far as one well-behaved server needs it: a handshake, one masked frame out, one frame in.
#include "bench/serve_client.h"

#include "base/base.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { SECONDS = 10, MOST = 1 << 26, BINARY = 2, PING = 9 };
static const unsigned char mask[8] = {0x37, 0xfa, 0x21, 0x3d, 0x37, 0xfa, 0x21, 0x3d}; // twice the key, for words

static soma_status lost(soma_error *err) { return soma__fail(err, SOMA_IO, "the server on loopback does not answer"); }

static soma_status send_all(int fd, const char *bytes, size_t size, int flags, soma_error *err) {
    for (ssize_t n; size; bytes += n, size -= (size_t)n)
        if ((n = send(fd, bytes, size, MSG_NOSIGNAL | flags)) <= 0) return lost(err);
    return SOMA_OK;
}

static soma_status read_all(int fd, char *bytes, size_t size, soma_error *err) {
    for (ssize_t n; size; bytes += n, size -= (size_t)n)
        if ((n = recv(fd, bytes, size, 0)) <= 0) return lost(err);
    return SOMA_OK;
}

static soma_status handshake(int fd, soma_error *err) {
    static const char ask[] = "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                              "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    char head[2048] = "";
    SOMA_TRY(send_all(fd, ask, sizeof ask - 1, 0, err));
    for (size_t n = 0; n < 4 || memcmp(head + n - 4, "\r\n\r\n", 4); n++) { // byte by byte: what follows belongs to the first frame
        if (n + 1 == sizeof head) return lost(err);
        SOMA_TRY(read_all(fd, head + n, 1, err));
    }
    return strstr(head, " 101 ") ? SOMA_OK : soma__fail(err, SOMA_IO, "the server on loopback says %.40s", head);
}

static soma_status make_room(soma_bench_client *c, size_t size, soma_error *err) {
    if (size <= c->room) return SOMA_OK;
    soma__free(c->answer);
    c->answer = soma__alloc(size);
    c->room = c->answer ? size : 0;
    return c->answer ? SOMA_OK : soma__no_memory(err, "an answer");
}

static soma_status read_frame(soma_bench_client *c, int *opcode, size_t *len, soma_error *err) {
    unsigned char h[10];
    SOMA_TRY(read_all(c->fd, (char *)h, 2, err));
    uint64_t size = h[1] & 127;
    const int width = size == 126 ? 2 : size == 127 ? 8 : 0;
    if (width) size = 0;
    SOMA_TRY(read_all(c->fd, (char *)h + 2, (size_t)width, err));
    for (int i = 0; i < width; i++) size = size << 8 | h[2 + i];
    if (size > MOST) return lost(err);
    SOMA_TRY(make_room(c, (size_t)size, err));
    *opcode = h[0] & 15;
    *len = (size_t)size;
    return read_all(c->fd, c->answer, *len, err);
}

// A ping is answered on the way, empty: the server counts that one came.
static soma_status read_answer(soma_bench_client *c, soma_error *err) {
    static const char pong[6] = {(char)0x8a, (char)0x80}, busy[] = "busy: ";
    for (int opcode;;) {
        size_t len;
        SOMA_TRY(read_frame(c, &opcode, &len, err));
        if (opcode == BINARY) return SOMA_OK;
        if (opcode == PING)
            SOMA_TRY(send_all(c->fd, pong, sizeof pong, 0, err));
        else
            return soma__fail(err, len > 6 && !memcmp(c->answer, busy, 6) ? SOMA_BUSY : SOMA_IO, "the server says: %.*s",
                              (int)SOMA_MIN(len, 300u), c->answer);
    }
}

soma_status soma__bench_client_open(soma_bench_client *c, int port, soma_error *err) {
    const struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const struct timeval patience = {SECONDS, 0};
    const int now = 1;
    *c = (soma_bench_client){.fd = socket(AF_INET, SOCK_STREAM, 0)};
    if (c->fd < 0 || connect(c->fd, (const struct sockaddr *)&a, sizeof a)) return lost(err);
    setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &now, sizeof now);
    SOMA_TRY(handshake(c->fd, err));
    return read_answer(c, err); // the metadata
}

void soma__bench_client_close(soma_bench_client *c) {
    if (c->fd >= 0) close(c->fd);
    soma__free(c->answer);
    c->fd = -1;
}

void soma__bench_client_mask(soma_str *message) {
    size_t i = 0;
    for (uint64_t word, key; i + 8 <= message->len; i += 8) {
        memcpy(&word, message->text + i, 8);
        memcpy(&key, mask, 8);
        word ^= key;
        memcpy(message->text + i, &word, 8);
    }
    for (; i < message->len; i++) message->text[i] = (char)(message->text[i] ^ mask[i & 7]);
}

soma_status soma__bench_client_call(soma_bench_client *c, const soma_str *masked, soma_error *err) {
    char head[14] = {(char)0x82, (char)(0x80 | 127)};
    for (int i = 0; i < 8; i++) head[2 + i] = (char)(masked->len >> 8 * (7 - i));
    memcpy(head + 10, mask, 4);
    SOMA_TRY(send_all(c->fd, head, sizeof head, MSG_MORE, err));
    SOMA_TRY(send_all(c->fd, masked->text, masked->len, 0, err));
    return read_answer(c, err);
}
