// SPDX-License-Identifier: Apache-2.0
// A server of one policy to many robots. Protocols are files of their own over one line of requests and one pilot per client:
//
//     openpi.c   openpi's websocket, any path of ws://host:port: metadata first, then observation in, chunk of actions out
//     groot.c    GR00T's ZeroMQ + msgpack on a port of its own, where one is given
//     http.c     on the websocket's port: /healthz, /metadata, /metrics, and a page (page.html) with pictures, chunks and an emergency stop
//
// Two threads: one serves all sockets, one runs the policy, turn after turn. So pings, health checks and other clients' bytes are never
// held up by inference. A client has at most one request in the line; what it sends meanwhile waits in the network. Reading order:
// inside.h.
#ifndef SOMA_SERVE_SERVER_H
#define SOMA_SERVE_SERVER_H

#include "base/opts.h"
#include "format/msgpack.h"

#include "serve/live.h"

#include <soma/soma.h>

#define SOMA_SERVER_OPTS(X)                                                                                                     \
    X(TEXT, host, "127.0.0.1", "address to listen on; 0.0.0.0: every network, for anyone who reaches it")                       \
    X(INT, port, 8000, "of openpi's websocket and of HTTP; 0: a free one, told when ready")                                     \
    X(INT, groot_port, -1, "of GR00T's ZeroMQ, which its clients expect at 5555; 0: a free one; -1: none")                      \
    X(TEXT, modality, "", "GR00T's modality.json: which part of state and action has which name; empty: one part each")         \
    X(TEXT, tls_cert, "", "PEM file with the certificate chain; with it the websocket and HTTP are encrypted (wss, https)")     \
    X(TEXT, tls_key, "", "PEM file with the certificate's private key")                                                         \
    X(TEXT, api_key_file, "", "file with one key per line; without one of them nothing but /healthz answers")                   \
    X(INT, max_clients, 16, "connections at a time; further ones are refused")                                                  \
    X(INT, max_message, 67108864, "bytes; larger announcements are refused before memory is taken")                             \
    X(INT, max_image, 4096, "pixels on a side of a picture")                                                                    \
    X(REAL, max_rate, 0, "requests a second that one client may send, answered with \"busy\" beyond; 0: any")                   \
    X(INT, max_queue, 64, "requests that wait for the policy; further ones are answered with \"busy\"")                         \
    X(REAL, max_wait, 0, "seconds that an answer may take; a request that would wait longer is answered with \"busy\"; 0: any") \
    X(REAL, message_timeout, 10, "seconds from a message's first byte to its last, and for an answer to be taken")              \
    X(REAL, stall_timeout, 60, "seconds after which the policy is said to have stalled: its clients are told, /healthz is 503") \
    X(REAL, drain_timeout, 10, "seconds that requests in the line still have when the server is told to end")                   \
    X(TEXT, record, "", "folder for a LeRobot v3.0 dataset of every exchange")                                                  \
    X(REAL, record_fps, 0, "frames per second that the dataset declares; 0: the policy's rate, or 10")
SOMA_OPTS_DECLARE(soma_server_opts, SOMA_SERVER_OPTS)
soma_server_opts soma__server_defaults(void);
extern const soma_opt_table soma_server_opts_table;

enum { SOMA_SERVER_TURN = 64 }; // requests of a turn, at most

// What is served. All but `cost` are called from one thread only, the server's second. A test may serve a function of its own.
typedef struct soma_server_policy {
    void *ctx;
    soma_policy_info info;                                         // borrowed while the server runs
    soma_status (*open)(void *ctx, void **pilot, soma_error *err); // at a client's first observation
    // Seconds, as far as measured, for answering `waiting` requests in the turns that are best for them. *first: how many of them go first,
    // such that their turn takes at most `left`; 1 in any case. 0, or NULL: not measured, one at a time. Any thread.
    double (*cost)(const void *ctx, int waiting, double left, int *first);
    // One turn: obs[i] of pilots[i], all different, into actions[i] (borrowed until pilots[i]'s next turn), or a sentence into errors[i],
    // whose code is SOMA_OK when called. The failure of one must not be the failure of another.
    void (*act)(void *ctx, int n, void *const *pilots, const soma_obs *obs, soma_actions *actions, soma_error *errors);
    // In act's place: any message of openpi's websocket, and an answer of its own, packed into `answer`. NULL: messages are observations.
    soma_status (*message)(void *ctx, void *pilot, const soma_msg *message, soma_arena *arena, soma_str *answer, soma_error *err);
    void (*reset)(void *pilot); // a new episode; NULL: nothing to forget
    // The action [n_actions] that holds the robot of `obs` where it is; `last`: what it was last sent, NULL: nothing yet. False, or NULL:
    // it is not known how.
    bool (*hold)(void *ctx, const soma_obs *obs, const float *last, float *action);
    soma_live_look *look; // with ctx: a picture as the policy sees it (serve/live.h); NULL: as it came
    void (*close)(void *pilot);
} soma_server_policy;

// The usual case: every client gets a pilot of `policy` made with `opts`, all with the same seed. `pilots` must outlive the server.
typedef struct soma_server_pilots {
    const soma_policy *policy;
    soma_pilot_opts opts;
    int largest;                          // requests that are worth answering together, at most; 0, 1: one at a time
    double seconds[SOMA_SERVER_TURN + 1]; // of a turn of n requests; INFINITY: smaller turns are faster
} soma_server_pilots;
soma_server_policy soma__server_pilots(soma_server_pilots *pilots);
// Measures what up to `most` requests cost together, as far as that pays: larger turns must take less than their parts, and a quarter of a
// second at most. Without it requests are answered one at a time.
soma_status soma__server_pilots_measure(soma_server_pilots *pilots, int most, soma_error *err);

typedef struct soma_server soma_server;

// Listens and serves when it returns. NULL opts: defaults. What happens is told event by event through `events` (serve/events.h, NULL: to
// the log as sentences).
struct soma_events;
soma_status soma__server_open(soma_server **server, const soma_server_policy *policy, const soma_server_opts *opts,
                              const struct soma_events *events, soma_error *err);
int soma__server_port(const soma_server *server);
int soma__server_groot_port(const soma_server *server); // 0: none
// The emergency stop: while held, every request is answered at once with actions that hold the robot, or with a sentence. While paused,
// requests wait in the line. Any thread.
void soma__server_hold(soma_server *server, bool held);
void soma__server_pause(soma_server *server, bool paused);
bool soma__server_stalled(const soma_server *server); // the turn that runs has taken longer than stall_timeout
// Takes no new clients and no new requests, answers those in the line, tells the clients (code 1001), frees everything. NULL allowed.
void soma__server_close(soma_server *server);

#endif
