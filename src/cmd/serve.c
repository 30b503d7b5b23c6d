// SPDX-License-Identifier: Apache-2.0
// `soma serve`: a policy behind the protocols of openpi and GR00T, until Ctrl-C or SIGTERM.
#include "cmd/cmd.h"
#include "cmd/cmd_notify.h"
#include "base/str.h"
#include "policy/policy.h"
#include "serve/events.h"
#include "serve/server.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SERVE_OPTS(X)                                                                                                          \
    X(TEXT, policy, "", "folder of the policy to serve")                                                                       \
    X(INT, batch, 8,                                                                                                           \
      "requests of several clients that are answered together where that is faster, at most; measured at the start; 1: never") \
    X(TEXT, log, "text", "on standard error: text, warnings as sentences; all, every event; json, every event as a line of JSON")
SOMA_OPTS_DECLARE(serve_opts, SERVE_OPTS)
#define OPTS_TYPE serve_opts
SOMA_OPTS_DEFINE_LOCAL(serve_opts, SERVE_OPTS, serve_defaults)
#undef OPTS_TYPE

static const char about[] =
    "Serves a policy to robots and simulators: openpi's websocket protocol on any path of ws://HOST:PORT; with --groot-port\n"
    "GR00T's ZeroMQ protocol; and GET /healthz, /metadata and /metrics (for Prometheus). Every client has an episode of its own.\n"
    "http://HOST:PORT/ is a page for a browser: what each robot sees and is sent, how long it takes, pause and an emergency stop.\n"
    "Prints one line when it is ready; Ctrl-C or SIGTERM answers what waits and ends it.\n\n"
    "It listens on this machine alone unless --host says otherwise. Beyond it, give it keys (--api-key-file) and a certificate\n"
    "(--tls-cert, --tls-key): without them whoever reaches the port may use it.\n\n"
    "Examples:\n"
    "  soma serve --policy checkpoints/touch --port 8000\n"
    "  soma serve --policy checkpoints/gr1 --groot-port 5555 --modality meta/modality.json\n"
    "  soma eval --server ws://127.0.0.1:8000 --task touch_color\n";

// ---- the log

enum { LOG_TEXT, LOG_ALL, LOG_JSON };
static const char *const log_forms[] = {"text", "all", "json"};

static void tell(void *user, soma_log_level level, const char *name, const json_t *fields, const char *sentence) {
    int form = *(const int *)user;
    if (form == LOG_JSON) {
        char *line = soma__event_line(level, name, fields, sentence);
        if (line) fprintf(stderr, "%s\n", line);
        free(line);
    } else if (form == LOG_ALL || level >= SOMA_LOG_WARN) {
        fprintf(stderr, "soma serve: %s\n", sentence);
    }
}

static void tell_log(void *user, soma_log_level level, const char *text) {
    if (level != SOMA_LOG_DEBUG) tell(user, level, "log", NULL, text);
}

// The lines that tell people and scripts where to connect.
static int announce(const soma_cmd *cmd, const soma_server_opts *o, const soma_server *server, const soma_policy_info *info) {
    char uri[600];
    int port = soma__server_port(server), groot = soma__server_groot_port(server);
    bool colon = strchr(o->host, ':');
    snprintf(uri, sizeof uri, colon ? "%s://[%s]:%d" : "%s://%s:%d", o->tls_cert[0] ? "wss" : "ws", o->host, port);
    if (!cmd->json) {
        if (groot) printf(colon ? "GR00T on tcp://[%s]:%d\n" : "GR00T on tcp://%s:%d\n", o->host, groot);
        printf("listening on %s\n", uri);
        return fflush(stdout) ? SOMA_EXIT_FAILED : SOMA_EXIT_OK;
    }
    json_t *line = json_pack("{s:s, s:i, s:i, s:s, s:i, s:i}", "uri", uri, "port", port, "groot_port", groot, "family",
                             info->family ? info->family : "", "horizon", info->horizon, "n_actions", info->n_actions);
    char *text = line ? json_dumps(line, JSON_COMPACT) : NULL; // one line, unlike other verbs: the reader waits for its end
    json_decref(line);
    if (!text) return soma__cmd_fail(cmd, &(soma_error){SOMA_NO_MEMORY, "the result could not be written as JSON"});
    printf("%s\n", text);
    free(text);
    return fflush(stdout) ? SOMA_EXIT_FAILED : SOMA_EXIT_OK;
}

// Until a signal comes. systemd gets its signs of life while the policy answers, so that it restarts one that has stalled.
static void wait_for_signal(const soma_server *server) {
    double watchdog = soma__cmd_watchdog(), next = 0;
    soma__cmd_notify("READY=1");
    while (!soma__cmd_interrupted()) {
        if (watchdog > 0 && soma__seconds() >= next && !soma__server_stalled(server)) {
            soma__cmd_notify("WATCHDOG=1");
            next = soma__seconds() + watchdog / 2;
        }
        usleep(50000);
    }
    soma__cmd_notify("STOPPING=1");
}

static int serve(const soma_cmd *cmd, const serve_opts *o, const soma_policy_opts *po, const soma_pilot_opts *pilot,
                 const soma_server_opts *so, int form) {
    soma_error err = {0};
    soma_policy *policy = NULL;
    soma_server *server = NULL;
    soma_events events = {&form, tell};
    int code = SOMA_EXIT_FAILED;
    soma_log_set(tell_log, &form);
    if (soma_policy_open(&policy, o->policy, po, &err)) return soma__cmd_fail(cmd, &err);
    soma_server_pilots pilots = {policy, *pilot};
    soma_server_policy served = soma__server_pilots(&pilots);
    const soma_status measured = o->batch > 1 ? soma__server_pilots_measure(&pilots, (int)SOMA_MIN(o->batch, INT32_MAX), &err) : SOMA_OK;
    soma__cmd_catch_interrupt(); // only now: loading may simply be ended
    if (measured || soma__server_open(&server, &served, so, &events, &err)) {
        code = soma__cmd_fail(cmd, &err);
        goto done;
    }
    code = announce(cmd, so, server, &served.info);
    if (code == SOMA_EXIT_OK) wait_for_signal(server);
done:
    soma__server_close(server);
    soma_policy_close(policy);
    soma_log_set(NULL, NULL); // `form` ends here
    return code;
}

static int run(int argc, char **argv) {
    serve_opts o = serve_defaults();
    soma_server_opts so = soma__server_defaults();
    soma_policy_opts po = soma_policy_defaults();
    soma_pilot_opts pilot = soma_pilot_defaults();
    soma_cmd cmd = {.usage = "--policy DIR [options]",
                    .about = about,
                    .has_json = true,
                    .groups = {{&serve_opts_table, &o, "options"},
                               {&soma_server_opts_table, &so, "server"},
                               {&soma_policy_opts_table, &po, "policy"},
                               {&soma_pilot_opts_table, &pilot, "pilot"}}};
    int code, form;
    soma_error err = {0};
    if (!soma__cmd_parse(&cmd, argc, argv, &code)) return code;
    if (!o.policy[0]) return soma__cmd_usage(&cmd, "--policy DIR is missing");
    if (soma__name_parse(&form, log_forms, SOMA_COUNT(log_forms), o.log, "form of the log", &err))
        return soma__cmd_usage(&cmd, "%s", err.text);
    return serve(&cmd, &o, &po, &pilot, &so, form);
}

const soma_verb soma__verb_serve = {"serve", "answers robots' observations with actions, over openpi's or GR00T's protocol", run};
