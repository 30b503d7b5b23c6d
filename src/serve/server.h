// SPDX-License-Identifier: Apache-2.0
// A server of openpi's websocket protocol: any path of ws://host:port, one client is one pilot; GET /healthz answers "OK".
//
// After connecting a client gets the policy's metadata; then every binary message is an observation (serve/observe.h) and is answered with
// {"actions": f8 [H, A], "policy_timing": {"infer_ms"}, "server_timing": {"infer_ms", "prev_total_ms" from the second on}}. What cannot be
// answered gets a text frame with one sentence, and the connection is closed with code 1011; the server goes on.
//
// Two threads: one serves all sockets, one runs the policy, request after request. So pings, health checks and other clients' bytes are
// never held up by inference. A client may send its next observation before the answer to the last; what follows waits in the network.
#ifndef SOMA_SERVE_SERVER_H
#define SOMA_SERVE_SERVER_H

#include "base/opts.h"

#include <soma/soma.h>

#define SOMA_SERVER_OPTS(X)                                                                               \
    X(TEXT, host, "127.0.0.1", "address to listen on; 0.0.0.0: every network, for anyone who reaches it") \
    X(INT, port, 8000, "0: a free one, told when ready")                                                  \
    X(INT, max_clients, 16, "connections at a time; further ones get HTTP 503")                           \
    X(INT, max_message, 67108864, "bytes; larger announcements are refused before memory is taken")       \
    X(REAL, message_timeout, 10, "seconds from a message's first byte to its last")
SOMA_OPTS_DECLARE(soma_server_opts, SOMA_SERVER_OPTS)
soma_server_opts soma__server_defaults(void);
extern const soma_opt_table soma_server_opts_table;

// What is served. open, act and close are called from one thread only, the server's second. A test may serve a function of its own.
typedef struct soma_server_policy {
    void *ctx;
    soma_policy_info info;                                                                        // borrowed while the server runs
    soma_status (*open)(void *ctx, void **pilot, soma_error *err);                                // at a client's first observation
    soma_status (*act)(void *pilot, const soma_obs *obs, soma_actions *actions, soma_error *err); // as soma_pilot_act
    void (*close)(void *pilot);
} soma_server_policy;

// The usual case: every client gets a pilot of `policy` made with `opts`, all with the same seed. `pilots` must outlive the server.
typedef struct soma_server_pilots {
    const soma_policy *policy;
    soma_pilot_opts opts;
} soma_server_pilots;
soma_server_policy soma__server_pilots(soma_server_pilots *pilots);

typedef struct soma_server soma_server;

// Listens and serves when it returns. NULL opts: defaults.
soma_status soma__server_open(soma_server **server, const soma_server_policy *policy, const soma_server_opts *opts, soma_error *err);
int soma__server_port(const soma_server *server);
// Tells the clients (code 1001), waits for the inference that is running, frees everything. NULL allowed.
void soma__server_close(soma_server *server);

#endif
