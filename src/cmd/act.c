// SPDX-License-Identifier: Apache-2.0
// `soma act`: one observation from a file or a dataset, one chunk of actions.
#include "cmd/cmd.h"
#include "cmd/cmd_obs.h"
#include "policy/policy.h"

#include <stdio.h>

#define ACT_OPTS(X)                                                                                                          \
    X(TEXT, policy, "", "folder of the policy")                                                                              \
    X(TEXT, obs, "", "the observation: a .safetensors file, a .msgpack message of openpi's protocol, or a dataset's folder") \
    X(TEXT, prompt, "", "the instruction; empty: the observation's own")                                                     \
    X(INT, episode, 0, "episode of the dataset")                                                                             \
    X(INT, frame, 0, "frame within the episode")
SOMA_OPTS_DECLARE(act_opts, ACT_OPTS)
#define OPTS_TYPE act_opts
SOMA_OPTS_DEFINE_LOCAL(act_opts, ACT_OPTS, act_defaults)
#undef OPTS_TYPE

// ---- the answer

static json_t *chunk_json(const soma_actions *a, const soma_policy_info *info, const char *prompt) {
    json_t *rows = json_array();
    for (int h = 0; h < a->horizon; h++) {
        json_t *row = json_array();
        for (int k = 0; k < a->n_actions; k++) json_array_append_new(row, json_real((double)a->values[(size_t)h * a->n_actions + k]));
        json_array_append_new(rows, row);
    }
    return json_pack("{s:s, s:s, s:i, s:i, s:f, s:f, s:s?, s:o}", "family", info->family, "prompt", prompt, "horizon", a->horizon,
                     "n_actions", a->n_actions, "rate", info->rate, "model_ms", a->model_ms, "flaw", a->flaw, "actions", rows);
}

static void print_chunk(const soma_actions *a, const soma_policy_info *info, const char *prompt) {
    printf("\"%s\": %d actions of %d values", prompt, a->horizon, a->n_actions);
    if (info->rate > 0) printf(", %g a second", info->rate);
    printf("; %.1f ms\n", a->model_ms);
    if (a->flaw) printf("the policy's answer is malformed: %s; this is what could be read of it\n", a->flaw);
    for (int h = 0; h < a->horizon; h++) {
        printf("%4d", h);
        for (int k = 0; k < a->n_actions; k++) printf(" %9.4f", (double)a->values[(size_t)h * a->n_actions + k]);
        printf("\n");
    }
}

static int act(const soma_cmd *cmd, const act_opts *o, const soma_policy_opts *po, const soma_pilot_opts *pilot_opts) {
    soma_error err = {0};
    soma_policy *policy = NULL;
    soma_pilot *pilot = NULL;
    soma_cmd_obs s = {0};
    soma_policy_info info = {0};
    soma_actions chunk;
    int code = SOMA_EXIT_OK;
    soma_status status = soma_policy_open(&policy, o->policy, po, &err);
    if (status == SOMA_OK) info = soma_policy_describe(policy);
    if (status == SOMA_OK) status = soma__cmd_obs_open(&s, o->obs, o->episode, o->frame, &info, &err);
    if (status == SOMA_OK && *o->prompt) s.obs.prompt = o->prompt;
    if (status == SOMA_OK) status = soma_pilot_new(&pilot, policy, pilot_opts, &err);
    if (status == SOMA_OK) status = soma_pilot_act(pilot, &s.obs, &chunk, &err);
    const char *prompt = s.obs.prompt ? s.obs.prompt : "";
    if (status != SOMA_OK)
        code = soma__cmd_fail(cmd, &err);
    else if (cmd->json)
        code = soma__cmd_print_json(cmd, chunk_json(&chunk, &info, prompt));
    else
        print_chunk(&chunk, &info, prompt);
    soma__cmd_obs_close(&s);
    soma_pilot_free(pilot);
    soma_policy_close(policy);
    return code;
}

static int run(int argc, char **argv) {
    act_opts o = act_defaults();
    soma_policy_opts po = soma_policy_defaults();
    soma_pilot_opts pilot = soma_pilot_defaults();
    soma_cmd cmd = {
        .usage = "--policy DIR --obs FILE|DATASET [options]",
        .about = "Gives one observation to a policy and prints the chunk of actions, in robot units.\n\n"
                 "The observation is a .safetensors file (state [n], image.<camera> U8 [height, width, 3], prompt in the metadata), a\n"
                 ".msgpack message as clients of openpi's protocol send it, or a frame of a dataset.\n\n"
                 "Examples:\n"
                 "  soma act --policy demo/policy --obs demo/data --episode 3 --frame 10\n"
                 "  soma act --policy demo/policy --obs observation.safetensors --prompt \"touch the red cube\" --json\n",
        .has_json = true,
        .groups = {{&act_opts_table, &o, "options"}, {&soma_policy_opts_table, &po, "policy"}, {&soma_pilot_opts_table, &pilot, "pilot"}}};
    int code;
    if (!soma__cmd_parse(&cmd, argc, argv, &code)) return code;
    if (!o.policy[0] || !o.obs[0]) return soma__cmd_usage(&cmd, "--policy DIR and --obs FILE are needed");
    return act(&cmd, &o, &po, &pilot);
}

const soma_verb soma__verb_act = {"act", "one observation in, one chunk of actions out", run};
