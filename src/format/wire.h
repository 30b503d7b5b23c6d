// SPDX-License-Identifier: Apache-2.0
// A client of openpi's protocol: connect, read the server's metadata, then one observation out and one chunk of actions back.
//
// It speaks to soma's own server and to openpi's alike. The connection is served by a thread of its own, so that pings are answered while
// the caller simulates or moves the robot. A soma_wire belongs to one thread. Once a call has failed the connection is closed, because a
// late answer could be taken for the next one; later calls repeat the sentence. Refused: text frames (they are the server's errors and
// become ours), malformed answers, actions that are not finite, answers above 64 MiB.
//
// Only "busy: ..." (a server of ours whose line is full) leaves the connection as it is: SOMA_BUSY, and the next call may be answered.
#ifndef SOMA_FORMAT_WIRE_H
#define SOMA_FORMAT_WIRE_H

#include "format/msgpack.h"

#include <soma/soma.h>

typedef struct soma_wire soma_wire;

typedef struct soma_wire_opts {
    double connect_timeout; // seconds; a refused connection is tried again until then, so that a server may still be starting
    double answer_timeout;  // seconds from an observation to its actions
    const char *api_key;    // sent as "Authorization: Api-Key ..."; NULL: none
    const char *tls_ca;     // of wss: a PEM file with the certificates that are trusted; NULL: the system's
} soma_wire_opts;
soma_wire_opts soma__wire_defaults(void); // 10 and 120

// `address`: "ws://host:port/path", "wss://..." (encrypted), "host:port" or "host" (port 8000). NULL opts: defaults, whose texts are
// borrowed while the connection is open.
soma_status soma__wire_connect(soma_wire **wire, const char *address, const soma_wire_opts *opts, soma_error *err);
void soma__wire_close(soma_wire *wire);                     // NULL allowed
const soma_msg *soma__wire_metadata(const soma_wire *wire); // a map; borrowed until close

// Sends {"observation/<camera>": u1 [h, w, 3] ..., "observation/state": f4 [n], "prompt": str}, the names that openpi's servers use;
// `actions` is borrowed until the next call. model_ms is the server's policy_timing, 0 where it sends none.
soma_status soma__wire_infer(soma_wire *wire, const soma_obs *obs, soma_actions *actions, soma_error *err);
// Any message: `request` holds one packed map; the answer's tree is borrowed until the next call.
soma_status soma__wire_call(soma_wire *wire, const soma_str *request, const soma_msg **answer, soma_error *err);
// What soma__wire_infer sends, appended to `out`.
void soma__wire_put_obs(soma_str *out, const soma_obs *obs);

// libwebsockets' own messages go to soma's log; for whoever opens one of its contexts. Any thread, any number of times.
void soma__lws_setup(void);

#endif
