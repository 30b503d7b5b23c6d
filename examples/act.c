// SPDX-License-Identifier: Apache-2.0
// A control loop around a policy, with soma.h alone. The robot here is a stand-in: its state goes where the policy sends it.
//
//     act CHECKPOINT
#include <soma/soma.h>

#include <stdio.h>
#include <stdlib.h>

enum { WIDTH = 224, HEIGHT = 224, ACTS = 3 };

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: act CHECKPOINT\n");
        return 2;
    }
    soma_policy *policy = NULL;
    soma_pilot *pilot = NULL;
    soma_error err = {0};
    float *state = NULL;
    uint8_t *grey = NULL;
    int exit_code = 1;

    if (soma_policy_open(&policy, argv[1], NULL, &err)) goto done;
    soma_pilot_opts opts = soma_pilot_defaults();
    opts.seed = 7; // same seed, same machine: same actions
    if (soma_pilot_new(&pilot, policy, &opts, &err)) goto done;
    soma_policy_info info = soma_policy_describe(policy);
    printf("%s: %d cameras, %d state values in, %d x %d actions out\n", info.family, info.n_cameras, info.n_state, info.horizon,
           info.n_actions);

    state = calloc((size_t)info.n_state, sizeof *state);
    grey = calloc((size_t)WIDTH * HEIGHT, 3);
    if (!state || !grey) goto done;
    for (int i = 0; i < ACTS; i++) {
        soma_obs obs = {.prompt = "touch the red cube", .state = state, .n_state = info.n_state, .n_images = info.n_cameras};
        for (int c = 0; c < info.n_cameras; c++) obs.images[c] = (soma_image){info.camera_names[c], grey, WIDTH, HEIGHT};
        soma_actions plan;
        if (soma_pilot_act(pilot, &obs, &plan, &err)) goto done;
        const float *last = plan.values + (size_t)(plan.horizon - 1) * (size_t)plan.n_actions;
        for (int k = 0; k < info.n_state && k < plan.n_actions; k++) state[k] = last[k];
        printf("chunk %d: %.1f ms, first action %.4f\n", i, plan.model_ms, (double)plan.values[0]);
    }
    exit_code = 0;
done:
    if (err.text[0]) fprintf(stderr, "act: %s\n", err.text);
    free(grey);
    free(state);
    soma_pilot_free(pilot);
    soma_policy_close(policy);
    return exit_code;
}
