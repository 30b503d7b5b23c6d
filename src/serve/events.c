// SPDX-License-Identifier: Apache-2.0
// Events as sentences for people and as lines of JSON for programs.
#include "serve/events.h"

#include <stdio.h>
#include <time.h>

void soma__event(const soma_events *events, soma_log_level level, const char *name, json_t *fields, const char *format, ...) {
    char sentence[1200];
    va_list args;
    va_start(args, format);
    vsnprintf(sentence, sizeof sentence, format, args);
    va_end(args);
    json_t *empty = fields ? NULL : json_object();
    if (events)
        events->tell(events->user, level, name, fields ? fields : empty, sentence);
    else
        soma__log(level, "server: %s", sentence);
    json_decref(fields);
    json_decref(empty);
}

char *soma__event_line(soma_log_level level, const char *name, const json_t *fields, const char *sentence) {
    static const char *const levels[] = {"debug", "info", "warning", "error"};
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    json_t *line =
        json_pack("{s:f, s:s, s:s}", "time", (double)now.tv_sec + 1e-9 * (double)now.tv_nsec, "level", levels[level], "event", name);
    json_t *text = json_string(sentence);
    if (!text) text = json_string("(not UTF-8)");
    if (line && fields) json_object_update(line, (json_t *)fields);
    if (line) json_object_set(line, "text", text);
    char *result = line ? json_dumps(line, JSON_COMPACT | JSON_REAL_PRECISION(15)) : NULL;
    json_decref(line);
    json_decref(text);
    return result;
}
