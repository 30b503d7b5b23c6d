// SPDX-License-Identifier: Apache-2.0
// `soma serve`: a policy behind openpi's websocket protocol, until Ctrl-C.
#include "cmd/cmd.h"
#include "policy/policy.h"
#include "serve/server.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SERVE_OPTS(X) X(TEXT, policy, "", "folder of the policy to serve")
SOMA_OPTS_DECLARE(serve_opts, SERVE_OPTS)
#define OPTS_TYPE serve_opts
SOMA_OPTS_DEFINE_LOCAL(serve_opts, SERVE_OPTS, serve_defaults)
#undef OPTS_TYPE

static const char about[] = "Serves a policy to robots and simulators: openpi's websocket protocol on any path of ws://HOST:PORT, and\n"
                            "GET /healthz. Every client has an episode of its own. Prints one line when it is ready; Ctrl-C ends it.\n"
                            "There is no password and no encryption: whoever reaches the port may use it.\n\n"
                            "Example:\n"
                            "  soma serve --policy checkpoints/touch --port 8000\n"
                            "  soma eval --server ws://127.0.0.1:8000 --task touch_color\n";

// The line that tells scripts where to connect.
static int announce(const soma_cmd *cmd, const soma_server_opts *o, int port, const soma_policy_info *info) {
    char uri[600];
    snprintf(uri, sizeof uri, strchr(o->host, ':') ? "ws://[%s]:%d" : "ws://%s:%d", o->host, port);
    if (!cmd->json) {
        printf("listening on %s\n", uri);
        return fflush(stdout) ? SOMA_EXIT_FAILED : SOMA_EXIT_OK;
    }
    json_t *line = json_pack("{s:s, s:i, s:s, s:i, s:i}", "uri", uri, "port", port, "family", info->family ? info->family : "", "horizon",
                             info->horizon, "n_actions", info->n_actions);
    char *text = line ? json_dumps(line, JSON_COMPACT) : NULL; // one line, unlike other verbs: the reader waits for its end
    json_decref(line);
    if (!text) return soma__cmd_fail(cmd, &(soma_error){SOMA_NO_MEMORY, "the result could not be written as JSON"});
    printf("%s\n", text);
    free(text);
    return fflush(stdout) ? SOMA_EXIT_FAILED : SOMA_EXIT_OK;
}

static int serve(const soma_cmd *cmd, const char *path, const soma_policy_opts *po, const soma_pilot_opts *pilot,
                 const soma_server_opts *so) {
    soma_error err = {0};
    soma_policy *policy = NULL;
    soma_server *server = NULL;
    int code = SOMA_EXIT_FAILED;
    if (soma_policy_open(&policy, path, po, &err)) return soma__cmd_fail(cmd, &err);
    soma_server_pilots pilots = {policy, *pilot};
    soma_server_policy served = soma__server_pilots(&pilots);
    soma__cmd_catch_interrupt(); // only now: loading may simply be ended
    if (soma__server_open(&server, &served, so, NULL, &err)) {
        code = soma__cmd_fail(cmd, &err);
        goto done;
    }
    code = announce(cmd, so, soma__server_port(server), &served.info);
    while (code == SOMA_EXIT_OK && !soma__cmd_interrupted()) usleep(50000);
done:
    soma__server_close(server);
    soma_policy_close(policy);
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
    int code;
    if (!soma__cmd_parse(&cmd, argc, argv, &code)) return code;
    if (!o.policy[0]) return soma__cmd_usage(&cmd, "--policy DIR is missing");
    return serve(&cmd, o.policy, &po, &pilot, &so);
}

const soma_verb soma__verb_serve = {"serve", "answers observations with actions over a websocket", run};
