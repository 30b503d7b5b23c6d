// SPDX-License-Identifier: Apache-2.0
// What happens to a server, one event at a time: clients that come and go, refusals, stalls, its own start and end. The server does not
// print; whoever opened it gets each event as a name and a JSON object, and one sentence that says the same.
#ifndef SOMA_SERVE_EVENTS_H
#define SOMA_SERVE_EVENTS_H

#include "base/json.h"

typedef struct soma_events {
    void *user;
    // Any thread; all borrowed for the call. `name`: "connected"; `fields`: {"client": 3, "peer": "127.0.0.1", "protocol": "openpi"}.
    void (*tell)(void *user, soma_log_level level, const char *name, const json_t *fields, const char *sentence);
} soma_events;

// `fields` is taken over, NULL (memory is out) becomes an empty object. `events` NULL: the sentence goes to soma's log.
void soma__event(const soma_events *events, soma_log_level level, const char *name, json_t *fields, const char *format, ...)
    SOMA_PRINTF(5, 6);
// One line of JSON without its newline, {"time": seconds since 1970, "level", "event", ...fields, "text"}; release with free. NULL: no
// memory.
char *soma__event_line(soma_log_level level, const char *name, const json_t *fields, const char *sentence);

#endif
