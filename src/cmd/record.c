// SPDX-License-Identifier: Apache-2.0
// `soma record`: the scripted expert's demonstrations, or what a robot sends, as a LeRobot v3.0 dataset.
#include "cmd/cmd.h"
#include "base/progress.h"
#include "eval/record.h"
#include "serve/collect.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define COLLECT_OPTS(X)                                                                        \
    X(FLAG, server, false, "record what a robot sends over a websocket instead, until Ctrl-C") \
    X(REAL, fps, 0, "server: frames per second that are sent")                                 \
    X(TEXT, robot_type, "", "server: the robot's name in the dataset")                         \
    X(FLAG, resume, false, "server: go on with the recording in --out, if there is one")
SOMA_OPTS_DECLARE(collect_opts, COLLECT_OPTS)
#define OPTS_TYPE collect_opts
SOMA_OPTS_DEFINE_LOCAL(collect_opts, COLLECT_OPTS, collect_defaults)
#undef OPTS_TYPE

// ---- what a robot sends

static soma_status collect(soma_collector *collector, const soma_cmd *cmd, const soma_server_opts *so, soma_error *err) {
    soma_server_policy policy = soma__collector_policy(collector);
    soma_server *server;
    soma__cmd_catch_interrupt();
    SOMA_TRY(soma__server_open(&server, &policy, so, NULL, err));
    const char *scheme = *so->tls_cert ? "wss" : "ws";
    if (cmd->json)
        printf("{\"uri\": \"%s://%s:%d\"}\n", scheme, so->host, soma__server_port(server));
    else
        printf("listening on %s://%s:%d\n", scheme, so->host, soma__server_port(server));
    fflush(stdout);
    while (!soma__cmd_interrupted()) usleep(50000);
    soma__server_close(server);
    return SOMA_OK;
}

static int serve(const soma_cmd *cmd, const collect_opts *c, const char *out, const soma_server_opts *so) {
    soma_collector *collector = NULL;
    soma_error err = {0};
    soma_recorder_counts n;
    const soma_collect_opts o = {.path = out, .robot_type = c->robot_type, .fps = c->fps, .resume = c->resume};
    if (!*out) return soma__cmd_usage(cmd, "--out DIR is missing");
    soma_status status = soma__collector_open(&collector, &o, &err);
    if (status == SOMA_OK) status = collect(collector, cmd, so, &err);
    if (status == SOMA_OK) status = soma__collector_finish(collector, &n, &err);
    soma__collector_close(collector);
    if (status != SOMA_OK) return soma__cmd_fail(cmd, &err);
    if (cmd->json)
        return soma__cmd_print_json(cmd, json_pack("{s:s, s:I, s:I, s:I}", "dataset", out, "episodes", (json_int_t)n.episodes, "frames",
                                                   (json_int_t)n.frames, "left_out", (json_int_t)n.left_out));
    printf("%s: %lld episodes, %lld frames; %lld frames left out\n", out, (long long)n.episodes, (long long)n.frames,
           (long long)n.left_out);
    return SOMA_EXIT_OK;
}

// ---- demonstrations

static bool watch(void *user, const soma_record_result *so_far) {
    char detail[100];
    snprintf(detail, sizeof detail, "%lld frames, %lld dropped", (long long)so_far->frames, (long long)so_far->dropped);
    soma__progress_show(user, so_far->episodes, detail);
    return !soma__cmd_interrupted();
}

static int run(int argc, char **argv) {
    soma_record_opts o = soma_record_defaults();
    collect_opts c = collect_defaults();
    soma_server_opts so = soma__server_defaults();
    soma_cmd cmd = {
        .usage = "--task NAME --out DIR [options] | --server --fps HZ --out DIR [options]",
        .about = "Lets the scripted expert of a simulated task drive, and writes what it did as a LeRobot v3.0 dataset:\n"
                 "observation.state, action, observation.images.<camera> and the instruction.\n\n"
                 "The recorded action is the expert's; the executed one is disturbed by smooth noise and pushes, so that a policy\n"
                 "learns to recover. Episodes in which the expert does not succeed are dropped and counted. Seeds from 1000000 on\n"
                 "are never recorded: they are for evaluation. Ctrl-C ends with the episodes so far.\n\n"
                 "With --server it records what a robot sends over openpi's websocket instead: an observation and the action that the\n"
                 "robot was sent, frame by frame, encoded as they come. Each episode is on the disk when its end was told.\n\n"
                 "Examples:\n  soma record --task touch_color --episodes 400 --out demonstrations\n"
                 "  soma record --server --fps 30 --port 8001 --out recorded\n",
        .has_json = true,
        .has_config = true,
        .groups = {
            {&soma_record_opts_table, &o, "options"}, {&collect_opts_table, &c, "from a robot"}, {&soma_server_opts_table, &so, "server"}}};
    int code;
    if (!soma__cmd_parse(&cmd, argc, argv, &code)) return code;
    if (c.server) return serve(&cmd, &c, o.out, &so);
    soma__cmd_catch_interrupt();
    soma_error err = {0};
    soma_record_result r;
    soma_progress progress = soma__progress_start("record", o.episodes);
    if (soma__record(&r, &o, watch, &progress, &err)) return soma__cmd_fail(&cmd, &err);
    soma__progress_end(&progress, r.episodes, NULL);
    double rate = r.seconds > 0 ? (double)r.frames / r.seconds : 0;
    if (cmd.json) {
        return soma__cmd_print_json(&cmd,
                                    json_pack("{s:s, s:s, s:I, s:I, s:I, s:f, s:f, s:b}", "dataset", o.out, "task", o.task, "episodes",
                                              (json_int_t)r.episodes, "frames", (json_int_t)r.frames, "dropped", (json_int_t)r.dropped,
                                              "seconds", r.seconds, "frames_per_second", rate, "stopped", r.stopped));
    }
    printf("%s: %lld episodes, %lld frames in %.1f s (%.0f frames/s); %lld attempts dropped%s\n", o.out, (long long)r.episodes,
           (long long)r.frames, r.seconds, rate, (long long)r.dropped, r.stopped ? "; stopped early" : "");
    return SOMA_EXIT_OK;
}

const soma_verb soma__verb_record = {"record", "demonstrations of a simulated task's expert, or of a robot, as a dataset", run};
