// SPDX-License-Identifier: Apache-2.0
// A websocket client for one measurement: libwebsockets masks what a client sends byte by byte, 0.8 ms for three pictures of 224 x 224,
// which would be counted as the server's. This one masks eight bytes at a time and does nothing else.
#ifndef SOMA_BENCH_SERVE_CLIENT_H
#define SOMA_BENCH_SERVE_CLIENT_H

#include "base/str.h"

typedef struct soma_bench_client {
    int fd;
    char *frame, *answer; // as sent; the last answer's payload
    size_t room[2];       // bytes that the two have
} soma_bench_client;

// To a port of this machine; reads the server's metadata.
soma_status soma__bench_client_open(soma_bench_client *client, int port, soma_error *err);
void soma__bench_client_close(soma_bench_client *client); // {0} allowed when fd is -1
// Sends one binary message and waits for the answer; a text frame is a failure with the server's sentence.
soma_status soma__bench_client_call(soma_bench_client *client, const soma_str *message, soma_error *err);

#endif
