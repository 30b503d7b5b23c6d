// SPDX-License-Identifier: Apache-2.0
// Websocket frames by hand over a plain socket, for what a decent client or server would never send. Used by test_server and test_wire.
#ifndef TESTS_SERVE_RAW_SOCKET_H
#define TESTS_SERVE_RAW_SOCKET_H

#include <arpa/inet.h>
#include <libwebsockets.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum { RAW_TEXT = 1, RAW_BINARY = 2, RAW_CLOSE = 8, RAW_PING = 9, RAW_PONG = 10 };

static inline void raw_timeout(int fd, double seconds) {
    struct timeval t = {(time_t)seconds, (suseconds_t)((seconds - (double)(time_t)seconds) * 1e6)};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
}

// From 127.`host`: an address has ports for 28,000 connections a minute.
static inline int raw_connect_from(int port, unsigned host) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(127u << 24 | host)};
    if (bind(fd, (struct sockaddr *)&a, sizeof a)) {
        close(fd);
        return -1;
    }
    a.sin_port = htons((uint16_t)port);
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    raw_timeout(fd, 10);
    if (connect(fd, (struct sockaddr *)&a, sizeof a)) {
        close(fd);
        return -1;
    }
    return fd;
}

static inline int raw_connect(int port) { return raw_connect_from(port, 1); }

static inline bool raw_send(int fd, const void *bytes, size_t len) {
    for (const char *p = bytes; len;) {
        ssize_t n = send(fd, p, len, MSG_NOSIGNAL);
        if (n <= 0) return false;
        p += n;
        len -= (size_t)n;
    }
    return true;
}

static inline bool raw_read(int fd, void *bytes, size_t len) {
    for (char *p = bytes; len;) {
        ssize_t n = recv(fd, p, len, 0);
        if (n <= 0) return false;
        p += n;
        len -= (size_t)n;
    }
    return true;
}

// Reads up to and with the empty line that ends an HTTP head.
static inline bool raw_read_head(int fd, char *head, size_t room) {
    for (size_t n = 0; n + 1 < room;) {
        if (!raw_read(fd, head + n, 1)) return false;
        head[++n] = 0;
        if (n >= 4 && !memcmp(head + n - 4, "\r\n\r\n", 4)) return true;
    }
    return false;
}

// A client's handshake; the status of the answer, 101 when it went well.
static inline int raw_handshake(int fd) {
    static const char ask[] = "GET /any/path HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                              "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    char head[2048];
    int status = 0;
    if (raw_send(fd, ask, sizeof ask - 1) && raw_read_head(fd, head, sizeof head)) sscanf(head, "HTTP/1.%*d %d", &status);
    return status;
}

// A server's side of it.
static inline bool raw_accept(int fd) {
    char head[4096], both[200], accepted[64];
    unsigned char hash[20];
    if (!raw_read_head(fd, head, sizeof head)) return false;
    const char *key = strcasestr(head, "Sec-WebSocket-Key: ");
    if (!key) return false;
    snprintf(both, sizeof both, "%.24s258EAFA5-E914-47DA-95CA-C5AB0DC85B11", key + 19);
    lws_SHA1((unsigned char *)both, strlen(both), hash);
    lws_b64_encode_string((char *)hash, sizeof hash, accepted, sizeof accepted);
    snprintf(head, sizeof head,
             "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n", accepted);
    return raw_send(fd, head, strlen(head));
}

// A frame that announces `announced` bytes and carries `len` of them. `first`: 0x80 (last fragment) + opcode. Clients mask (with zeros).
static inline bool raw_frame(int fd, int first, bool mask, uint64_t announced, const void *bytes, size_t len) {
    unsigned char h[14] = {(unsigned char)first, (unsigned char)(mask ? 128 : 0)};
    size_t n = 2;
    if (announced < 126) {
        h[1] |= (unsigned char)announced;
    } else {
        int width = announced < 65536 ? 2 : 8;
        h[1] |= width == 2 ? 126 : 127;
        for (int i = width; i-- > 0;) h[n++] = (unsigned char)(announced >> 8 * i);
    }
    if (mask) n += 4;
    return raw_send(fd, h, n) && raw_send(fd, bytes, len);
}

// The next frame of a server; its opcode, -1 when the connection has ended. At most `room` bytes.
static inline int raw_next(int fd, unsigned char *bytes, size_t room, size_t *len) {
    unsigned char h[10];
    *len = 0;
    if (!raw_read(fd, h, 2)) return -1;
    uint64_t size = h[1] & 127;
    int width = size == 126 ? 2 : size == 127 ? 8 : 0;
    if (width && !raw_read(fd, h + 2, (size_t)width)) return -1;
    if (width) size = 0;
    for (int i = 0; i < width; i++) size = size << 8 | h[2 + i];
    if (size > room || !raw_read(fd, bytes, size)) return -1;
    *len = size;
    return h[0] & 15;
}

#endif
