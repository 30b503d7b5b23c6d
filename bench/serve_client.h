// SPDX-License-Identifier: Apache-2.0
// A websocket client for measurements: libwebsockets masks what a client sends byte by byte, 0.8 ms for three pictures of 224 x 224, which
// would be counted as the server's, or taken from the processor that many clients share with it. This one masks eight bytes at a time, or
// once for all requests, and does nothing else.
#ifndef SOMA_BENCH_SERVE_CLIENT_H
#define SOMA_BENCH_SERVE_CLIENT_H

#include "base/str.h"

typedef struct soma_bench_client {
    int fd;
    char *answer; // the last one's payload
    size_t room;  // its bytes
} soma_bench_client;

// To a port of this machine; reads the server's metadata.
soma_status soma__bench_client_open(soma_bench_client *client, int port, soma_error *err);
void soma__bench_client_close(soma_bench_client *client); // {0} allowed when fd is -1
// A binary message as it is sent, made of what it says, in place.
void soma__bench_client_mask(soma_str *message);
// Sends a masked message and waits for the answer. SOMA_BUSY: the server says so; any other text frame is a failure with its sentence.
soma_status soma__bench_client_call(soma_bench_client *client, const soma_str *masked, soma_error *err);

#endif
