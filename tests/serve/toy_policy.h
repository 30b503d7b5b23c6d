// SPDX-License-Identifier: Apache-2.0
// A policy for tests of the server: its actions tell what it was given, and its prompt what it is to do.
#ifndef TESTS_SERVE_TOY_POLICY_H
#define TESTS_SERVE_TOY_POLICY_H

#include "serve/server.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

enum { H = 4, A = 2, N_STATE = 3, SIDE = 8 };

typedef struct toy_pilot {
    float actions[H * A];
    int n_acts;
} toy_pilot;

static atomic_int n_opened, n_closed, n_acts;

static inline soma_status toy_open(void *ctx, void **pilot, soma_error *err) {
    *pilot = soma__calloc(1, sizeof(toy_pilot));
    if (!*pilot) return soma__no_memory(err, "a toy pilot");
    atomic_fetch_add(&n_opened, 1);
    return SOMA_OK;
}

static inline void toy_close(void *pilot) {
    atomic_fetch_add(&n_closed, 1);
    soma__free(pilot);
}

// action[0] = sum of the state, action[1] = this pilot's count, action[2] = a pixel of each camera, action[3] = length of the prompt
static inline soma_status toy_act_one(void *pilot, const soma_obs *obs, soma_actions *actions, soma_error *err) {
    toy_pilot *p = pilot;
    const char *prompt = obs->prompt ? obs->prompt : "";
    atomic_fetch_add(&n_acts, 1);
    if (!strcmp(prompt, "fail")) return soma__fail(err, SOMA_BAD_INPUT, "the toy policy was told to fail");
    if (!strcmp(prompt, "slow")) usleep(400000);
    if (!strcmp(prompt, "slower")) usleep(1500000);
    memset(p->actions, 0, sizeof p->actions);
    for (int i = 0; i < obs->n_state; i++) p->actions[0] += obs->state[i];
    p->actions[1] = (float)++p->n_acts;
    for (int i = 0; i < obs->n_images; i++) p->actions[2] += obs->images[i].pixels[obs->images[i].width * 3 + 1]; // row 1, column 0, green
    p->actions[3] = (float)strlen(prompt);
    if (!strcmp(prompt, "nan")) p->actions[5] = NAN;
    *actions = (soma_actions){.values = p->actions, .horizon = H, .n_actions = A, .model_ms = 1.5};
    return SOMA_OK;
}

static inline void toy_act(void *ctx, int n, void *const *pilots, const soma_obs *obs, soma_actions *actions, soma_error *errors) {
    for (int i = 0; i < n; i++) toy_act_one(pilots[i], &obs[i], &actions[i], &errors[i]);
}

static const char *const cameras[] = {"scene", "wrist"};
static const soma_server_policy toy = {
    .info = {.family = "toy",
             .horizon = H,
             .n_actions = A,
             .n_state = N_STATE,
             .n_cameras = 2,
             .camera_names = cameras,
             .metadata_json = "{\"family\": \"toy\", \"cameras\": [\"scene\", \"wrist\"], \"state_dim\": 3, \"reset_pose\": [0, -1.5]}"},
    .open = toy_open,
    .act = toy_act,
    .close = toy_close};

// ---- an observation for it

static const uint8_t pixels[SIDE * SIDE * 3] = {[SIDE * 3 + 1] = 20};
static const float state3[N_STATE] = {1, 2, 3.5f};

static inline soma_obs look(const char *prompt) {
    return (soma_obs){.prompt = prompt,
                      .state = state3,
                      .n_state = N_STATE,
                      .n_images = 2,
                      .images = {{"scene", pixels, SIDE, SIDE}, {"wrist", pixels, SIDE, SIDE}}};
}

#endif
