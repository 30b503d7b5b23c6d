// SPDX-License-Identifier: Apache-2.0
// Any bytes at the real server's two ports, over real sockets: HTTP, websocket frames, ZeroMQ's frames. The first byte says which port, and
// whether the handshake is done first and the rest cut into well-formed frames; the server must go on answering others.
#include "../loopback.h"
#include "../serve/raw_socket.h"
#include "../serve/toy_policy.h"

#include "format/zmtp.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { GROOT = 1, HANDSHAKE = 2, FRAMES = 4, CHECK_EVERY = 200, FROM_ONE = 10000 /* connections from an address, then the next */ };

static soma_server *open_server(void) {
    soma_server *server = NULL;
    soma_error err = {0};
    soma_server_opts o = soma__server_defaults();
    o.port = o.groot_port = 0;
    o.max_message = 1 << 16;
    o.message_timeout = 0.5;
    o.max_clients = 1000;
    if (loopback_ready() && soma__server_open(&server, &toy, &o, NULL, &err)) abort();
    return server;
}

// Frames as a client makes them: per frame a byte for flags and opcode, one for the length, one that may lie about it, then the payload.
static void send_frames(int fd, const uint8_t *data, size_t size) {
    while (size >= 3) {
        size_t len = data[1];
        uint64_t announced = len;
        if (data[2] & 128) announced = (uint64_t)data[2] << (data[2] & 63); // anything from 128 bytes to 2^63
        if (len > size - 3) len = size - 3;
        if (!raw_frame(fd, data[0], true, announced, data + 3, len)) return;
        data += 3 + len;
        size -= 3 + len;
    }
}

static void greet_groot(int fd) {
    soma_str hello = {0};
    soma__zmtp_put_greeting(&hello, "REQ");
    raw_send(fd, hello.text, hello.len);
    soma__str_free(&hello);
}

// A message whose body is the input, framed as it should be.
static void send_message(int fd, const uint8_t *data, size_t size) {
    unsigned char lead[11];
    size_t from = soma__zmtp_lead(lead, size);
    raw_send(fd, lead + from, sizeof lead - from);
    raw_send(fd, data, size);
}

static void check(const soma_server *server) {
    static const char ask[] = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    char head[1024];
    int fd = raw_connect(soma__server_port(server));
    if (fd < 0 || !raw_send(fd, ask, sizeof ask - 1) || !raw_read_head(fd, head, sizeof head) || memcmp(head, "HTTP/1.1 200", 12)) abort();
    close(fd);
}

// The fuzzer's timer may interrupt a connection; a server that does not listen any more is a find.
static int join_server(int port, unsigned host) {
    for (int tries = 0; tries < 100; tries++) {
        const int fd = raw_connect_from(port, host);
        if (fd >= 0) return fd;
        usleep(10000);
    }
    perror("fuzz_websocket: the server cannot be reached");
    abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static soma_server *server;
    static bool opened;
    static int n;
    if (!opened) server = open_server();
    opened = true;
    if (!server || !size) return 0;
    int how = data[0];
    int fd = join_server(how & GROOT ? soma__server_groot_port(server) : soma__server_port(server), 1 + (unsigned)(n / FROM_ONE) % 200);
    data++;
    size--;
    if (how & GROOT) {
        if (how & HANDSHAKE) greet_groot(fd);
        if (how & FRAMES)
            send_message(fd, data, size);
        else
            raw_send(fd, data, size);
    } else if (!(how & HANDSHAKE) || raw_handshake(fd) == 101) {
        if (how & FRAMES)
            send_frames(fd, data, size);
        else
            raw_send(fd, data, size);
    }
    shutdown(fd, SHUT_WR);
    char answer[4096];
    raw_timeout(fd, 5);
    while (recv(fd, answer, sizeof answer, 0) > 0) continue;
    struct linger now = {1, 0}; // no port is kept waiting
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(fd);
    if (++n % CHECK_EVERY == 0) check(server);
    return 0;
}
