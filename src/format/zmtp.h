// SPDX-License-Identifier: Apache-2.0
// ZeroMQ's wire protocol (ZMTP 3.0) as a server that replies speaks it: greeting, READY, then messages of an empty frame and one body.
//
// Written here, not linked: libzmq bounds the size of a frame and the number of messages that wait, but not the number of frames in a
// message, so that one client can fill the memory (libzmq 4.3 with ZMQ_MAXMSGSIZE 1 MiB and ZMQ_RCVHWM 1 took 250 MB of them). Here a
// message is held against its limit while it is announced. Clients are REQ and DEALER sockets of libzmq 4 or whatever speaks ZMTP 3.
//
// Refused: older versions, other mechanisms than NULL, other socket types, frames that are neither the empty one nor the body behind it.
#ifndef SOMA_FORMAT_ZMTP_H
#define SOMA_FORMAT_ZMTP_H

#include "base/str.h"

enum { SOMA_ZMTP_HEAD = 512 };

// What is read is in one place at a time: the greeting, a command, or a message's body.
typedef struct soma_zmtp {
    size_t max_message; // bytes of a body, set before the first feed
    enum { SOMA_ZMTP_GREETING, SOMA_ZMTP_HANDSHAKE, SOMA_ZMTP_TRAFFIC, SOMA_ZMTP_FAILED } stage;
    unsigned char head[SOMA_ZMTP_HEAD]; // the greeting or a command so far
    size_t n_head;
    unsigned char lead[9]; // flags and length of a frame
    size_t n_lead;
    bool in_frame, delimited; // the lead is whole; the empty frame has come
    uint64_t left;            // bytes of the frame that are still to come
} soma_zmtp;                  // {.max_message = ...} is ready

typedef enum soma_zmtp_found {
    SOMA_ZMTP_MORE,    // all bytes are used; nothing is whole yet
    SOMA_ZMTP_MESSAGE, // `body` is whole
    SOMA_ZMTP_PING,    // the connection asks for a sign of life: head holds the context, n_head its length
    SOMA_ZMTP_REFUSED, // a sentence stands in `err`; nothing more can be read
} soma_zmtp_found;

// Takes bytes from *bytes (both are moved on) until something is found. A body is appended to `body`.
soma_zmtp_found soma__zmtp_feed(soma_zmtp *z, const unsigned char **bytes, size_t *len, soma_str *body, soma_error *err);
bool soma__zmtp_midway(const soma_zmtp *z); // something has begun that is not whole

// ---- writing
void soma__zmtp_put_greeting(soma_str *out, const char *socket_type); // the greeting and READY: "REP", or "REQ" for a client
// Of a message whose body of `size` bytes follows: the empty frame and the body's flags and length, 11 bytes, with leading ones left out
// where the length is short; returns where in `out` they begin.
size_t soma__zmtp_lead(unsigned char out[11], size_t size);
size_t soma__zmtp_pong(unsigned char out[64], const void *context, size_t size); // a command; size at most 16

#endif
