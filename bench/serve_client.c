// SPDX-License-Identifier: Apache-2.0
// RFC 6455 as far as one well-behaved server needs it: a handshake, one masked frame out, one frame in; pings are answered by nobody,
// because a measurement is over before a server sends one.
#include "bench/serve_client.h"

#include "base/base.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { SECONDS = 10, MOST = 1 << 26, HEAD = 14 };

static soma_status lost(soma_error *err) { return soma__fail(err, SOMA_IO, "the server on loopback does not answer"); }

static soma_status send_all(int fd, const char *bytes, size_t size, soma_error *err) {
    for (ssize_t n; size; bytes += n, size -= (size_t)n)
        if ((n = send(fd, bytes, size, MSG_NOSIGNAL)) <= 0) return lost(err);
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
    SOMA_TRY(send_all(fd, ask, sizeof ask - 1, err));
    for (size_t n = 0; n < 4 || memcmp(head + n - 4, "\r\n\r\n", 4); n++) { // byte by byte: what follows belongs to the first frame
        if (n + 1 == sizeof head) return lost(err);
        SOMA_TRY(read_all(fd, head + n, 1, err));
    }
    return strstr(head, " 101 ") ? SOMA_OK : soma__fail(err, SOMA_IO, "the server on loopback says %.40s", head);
}

static soma_status make_room(char **buffer, size_t *room, size_t size, soma_error *err) {
    if (size <= *room) return SOMA_OK;
    soma__free(*buffer);
    *buffer = soma__alloc(size);
    *room = *buffer ? size : 0;
    return *buffer ? SOMA_OK : soma__no_memory(err, "a message");
}

static soma_status read_frame(soma_bench_client *c, soma_error *err) {
    unsigned char h[10];
    SOMA_TRY(read_all(c->fd, (char *)h, 2, err));
    uint64_t size = h[1] & 127;
    const int width = size == 126 ? 2 : size == 127 ? 8 : 0;
    if (width) size = 0;
    SOMA_TRY(read_all(c->fd, (char *)h + 2, (size_t)width, err));
    for (int i = 0; i < width; i++) size = size << 8 | h[2 + i];
    if (size > MOST) return lost(err);
    SOMA_TRY(make_room(&c->answer, &c->room[1], (size_t)size, err));
    SOMA_TRY(read_all(c->fd, c->answer, (size_t)size, err));
    if ((h[0] & 15) == 2) return SOMA_OK;
    return soma__fail(err, SOMA_IO, "the server says: %.*s", (int)SOMA_MIN(size, 300u), c->answer);
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
    return read_frame(c, err); // the metadata
}

void soma__bench_client_close(soma_bench_client *c) {
    if (c->fd >= 0) close(c->fd);
    soma__free(c->frame);
    soma__free(c->answer);
    c->fd = -1;
}

soma_status soma__bench_client_call(soma_bench_client *c, const soma_str *message, soma_error *err) {
    static const unsigned char mask[8] = {0x37, 0xfa, 0x21, 0x3d, 0x37, 0xfa, 0x21, 0x3d};
    const size_t size = message->len;
    SOMA_TRY(make_room(&c->frame, &c->room[0], HEAD + size, err));
    char *to = c->frame + HEAD;
    memcpy(c->frame, (const char[2]){(char)0x82, (char)(0x80 | 127)}, 2);
    for (int i = 0; i < 8; i++) c->frame[2 + i] = (char)(size >> 8 * (7 - i));
    memcpy(c->frame + 10, mask, 4);
    size_t i = 0;
    for (uint64_t word, key; i + 8 <= size; i += 8) {
        memcpy(&word, message->text + i, 8);
        memcpy(&key, mask, 8);
        word ^= key;
        memcpy(to + i, &word, 8);
    }
    for (; i < size; i++) to[i] = (char)(message->text[i] ^ mask[i & 7]);
    SOMA_TRY(send_all(c->fd, c->frame, HEAD + size, err));
    return read_frame(c, err);
}
