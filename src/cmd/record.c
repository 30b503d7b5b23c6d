// SPDX-License-Identifier: Apache-2.0
// `soma record`: the scripted expert's demonstrations as a LeRobot v3.0 dataset.
#include "cmd/cmd.h"
#include "base/progress.h"
#include "eval/record.h"

#include <stdio.h>

static bool watch(void *user, const soma_record_result *so_far) {
    char detail[100];
    snprintf(detail, sizeof detail, "%lld frames, %lld dropped", (long long)so_far->frames, (long long)so_far->dropped);
    soma__progress_show(user, so_far->episodes, detail);
    return !soma__cmd_interrupted();
}

static int run(int argc, char **argv) {
    soma_record_opts o = soma_record_defaults();
    soma_cmd cmd = {.usage = "--task NAME --out DIR [options]",
                    .about =
                        "Lets the scripted expert of a simulated task drive, and writes what it did as a LeRobot v3.0 dataset:\n"
                        "observation.state, action, observation.images.<camera> and the instruction.\n\n"
                        "The recorded action is the expert's; the executed one is disturbed by smooth noise and pushes, so that a policy\n"
                        "learns to recover. Episodes in which the expert does not succeed are dropped and counted. Seeds from 1000000 on\n"
                        "are never recorded: they are for evaluation. Ctrl-C ends with the episodes so far.\n\n"
                        "Example:\n  soma record --task touch_color --episodes 400 --out demonstrations\n",
                    .has_json = true,
                    .has_config = true,
                    .groups = {{&soma_record_opts_table, &o, "options"}}};
    int code;
    if (!soma__cmd_parse(&cmd, argc, argv, &code)) return code;
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

const soma_verb soma__verb_record = {"record", "demonstrations of a simulated task by its scripted expert", run};
