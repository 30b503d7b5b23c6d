// SPDX-License-Identifier: Apache-2.0
// What the server's files share: a client, the line of requests, a protocol's part.
//
// A client belongs to one thread at a time: to the sockets' thread while it is idle, receives or is answered (`busy` false), to the
// policy's thread from soma__turns_submit until it lies in `done`. Meanwhile the sockets' thread touches only what is its own: the wsi, the
// incoming bytes, the complaint. A connection that ends marks the client `gone`; the policy's thread frees it, because the pilot lives
// there.
//
//     server.c      opening and closing, the sockets' thread
//     connection.c  a client from its first byte to its last, whatever the protocol: limits, complaints, answers
//     openpi.c, groot.c, http.c   protocols
//     turns.c       the line, the policy's thread, "busy", the watchdog
//     hold.c        pause and emergency stop
//     live.c        what the page shows
#ifndef SOMA_SERVE_INSIDE_H
#define SOMA_SERVE_INSIDE_H

#include "format/msgpack.h"
#include "format/zmtp.h"
#include "serve/access.h"
#include "serve/events.h"
#include "serve/groot_map.h"
#include "serve/metrics.h"
#include "serve/recording.h"
#include "serve/server.h"

#include <libwebsockets.h>
#include <pthread.h>

typedef struct soma_client soma_client;

// How one protocol differs from another. S: called by the sockets' thread, P: by the policy's.
typedef struct soma_protocol {
    int index; // in soma_metrics
    const char *name;
    // S: a whole message is parsed into c->message: answered with soma__client_answer, refused, or else it is for the policy
    soma_status (*take)(soma_server *s, soma_client *c, soma_error *err);
    // P: the observation in c->message
    soma_status (*observe)(soma_server *s, soma_client *c, soma_obs *obs, soma_error *err);
    // P: into c->answer, behind LWS_PRE bytes
    void (*put_actions)(soma_server *s, soma_client *c, const soma_actions *actions, double infer_ms);
    void (*put_sentence)(soma_str *answer, const char *sentence); // S
    void (*resume)(soma_server *s, soma_client *c);               // S: the message that waited has its turn; NULL: nothing is behind it
    bool forgives;                                                // a refused request leaves the connection open
    int (*write)(soma_client *c, const soma_str *message);        // S: hands one message to the network; nonzero: the connection ends
    int (*end)(soma_client *c, enum lws_close_status code, const char *reason); // S: what the callback returns to close it
} soma_protocol;

struct soma_client {
    soma_client *next;   // with a connection
    soma_client *queued; // in the line, in `leaving` or in `done`
    const soma_protocol *protocol;
    int64_t id; // counts from 1
    char peer[64];

    // the sockets' thread
    struct lws *wsi;
    soma_str incoming;
    soma_zmtp zmtp;         // GR00T's framing
    soma_str stash;         // GR00T: bytes behind a whole message that waits
    bool whole;             // incoming is a whole message that waits for its turn
    double started;         // of the incoming message; 0: none
    bool greeted, closing;  // metadata sent; complaint sent
    bool busy, answered;    // with the policy's thread; the answer is ready to be written
    bool text;              // the answer is a sentence
    double owed;            // since when the answer waits to be written
    char complaint[1000];   // why the connection ends; "": it does not
    bool midway;            // in a message
    double heard, patience; // when bytes came last; until when a refused client's bytes are still taken
    double prev_total_ms;   // of the request before, 0: none
    soma_bucket bucket;     // requests that it may still send
    unsigned char pong[64]; // GR00T: a command that answers one
    size_t pong_size;

    // handed over with the request
    void *pilot;
    soma_str request, answer; // answer: LWS_PRE bytes of room, then the message
    soma_arena arena;         // of `message`
    const soma_msg *message;  // points into request
    soma_groot_request groot;
    bool reset;       // a new episode begins with this request
    soma_error error; // instead of an answer
    double received;

    float *chunk; // P: what was last sent, [chunk_rows, n_actions]; NULL: nothing yet
    int chunk_rows;
    double chunk_sent;
    double seam; // of the chunk that was last sent, robot units; below 0: there was nothing to compare
    bool held;   // the answer holds the robot; it is not the policy's

    bool gone; // under the server's mutex
};

struct soma_server {
    soma_server_policy policy;
    soma_server_opts opts;
    const soma_events *events;
    struct lws_context *context;
    int port, groot_port;
    soma_str greeting; // openpi's metadata: LWS_PRE bytes of room, then the message
    json_t *metadata;  // the same
    soma_keys keys;
    soma_modality modality;
    soma_recording *recording; // NULL: none
    soma_live *live;
    atomic_bool held;
    soma_metrics metrics;
    pthread_t sockets, inference;
    bool has_sockets, has_inference;

    soma_client *clients; // with a connection; the sockets' thread only
    int64_t last_id;
    bool loopback;          // it listens on this machine alone
    bool draining, stalled; // stalled: the clients were told

    pthread_mutex_t mutex;
    pthread_cond_t work;
    soma_client *line, **line_end, *leaving, *done;
    int n_line, n_clients;          // n_clients: until they are freed
    bool paused;                    // no turn begins
    bool stop, finish;              // end of the sockets' thread; of the policy's
    double turn_started, turn_cost; // 0: none runs; soma_server_policy.cost of it
    double pace, spread;            // of turns: seconds per cost, smoothed, and how far they were from it; 0: unknown
};

// ---- turns.c

void soma__turns_begin(soma_server *s); // before the first
// SOMA_BUSY: the line is full, or the answer would come too late.
soma_status soma__turns_submit(soma_server *s, soma_client *c, soma_error *err);
void soma__turns_leave(soma_server *s, soma_client *c); // a client without a connection, to be freed
void *soma__turns_run(void *server);                    // the policy's thread
void soma__turns_free(soma_server *s);                  // after that thread: whoever is still in a list
double soma__turns_stalled(const soma_server *s);       // seconds of the turn that runs if they are above stall_timeout, else 0

void soma__server_take_done(soma_server *s); // S: those that the policy's thread is done with

// ---- hold.c (the policy's thread)

void soma__hold_sent(soma_server *s, soma_client *c, const soma_actions *actions); // of the policy
bool soma__server_paused(soma_server *s);
// Instead of the policy's answer, also when that has failed. SOMA_BUSY: nobody knows how.
soma_status soma__hold(soma_server *s, soma_client *c, const soma_obs *obs, soma_actions *actions, soma_error *err);

// ---- connection.c (the sockets' thread)

int soma__client_connected(soma_server *s, soma_client **session, struct lws *wsi, const soma_protocol *protocol);
void soma__client_disconnected(soma_server *s, soma_client *c);
bool soma__server_full(soma_server *s);
// The sentence is sent and the connection closed. What the client is still sending is taken and dropped before, for a while: a socket
// closed over unread bytes is reset, and the sentence would be lost with it.
void soma__client_complain(soma_server *s, soma_client *c, const char *format, ...) SOMA_PRINTF(3, 4);
bool soma__client_too_large(soma_server *s, soma_client *c, size_t announced); // complained when so
void soma__client_whole(soma_server *s, soma_client *c);                       // `incoming` is a whole message
void soma__client_answer(soma_server *s, soma_client *c, bool text);           // `answer` may be written
void soma__client_done(soma_server *s, soma_client *c);                        // back from the policy's thread
int soma__client_write(soma_server *s, soma_client *c);                        // the next frame; what the callback returns
void soma__client_tick(soma_server *s, soma_client *c);                        // now and then
void soma__answer_begin(soma_str *answer);                                     // empty but for LWS_PRE bytes
enum { SOMA_TICK_US = 500000 };

extern const unsigned char soma__serve_page[]; // page.html
extern const size_t soma__serve_page_size;

// ---- protocols

extern const soma_protocol soma__openpi, soma__groot;
int soma__openpi_event(struct lws *wsi, enum lws_callback_reasons reason, void *session, void *in, size_t len);
int soma__groot_event(struct lws *wsi, enum lws_callback_reasons reason, void *session, void *in, size_t len);
// A GET or POST on the websocket's port; what the callback returns.
int soma__http_request(soma_server *s, struct lws *wsi, const char *path);
// Whether the request that `wsi` begins with may go on; it was answered with 401 otherwise.
bool soma__http_allowed(soma_server *s, struct lws *wsi);
// Answers a request that goes no further with a sentence; what the callback returns.
int soma__http_refuse(struct lws *wsi, unsigned status, const char *sentence);

#endif
