// SPDX-License-Identifier: Apache-2.0
// A dataset small enough to train on inside a test: a dot that moves over a picture. Made in a folder of its own under the system's
// temporary folder.
#ifndef SOMA_TESTS_TRAIN_DOTS_H
#define SOMA_TESTS_TRAIN_DOTS_H

#include "base/file.h"
#include "toy_dataset.h"

#include <soma/opts.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SIDE = 32, EPISODES = 6, FRAMES = 20 };
static char root[] = "/tmp/soma_dots_XXXXXX"; // made by make_dots

// root/name; out has SOMA_OPT_TEXT bytes or more
static void path(char *out, const char *name) { snprintf(out, SOMA_OPT_TEXT, "%s/%s", root, name); }

static int dot_frames(int episode) { return FRAMES; }
static const char *dot_task(int episode) { return episode % 2 ? "follow the dot" : "chase the dot"; }

// A dot moves over the picture; the state is its place a step ago, the action where it goes.
static void dot(int episode, int frame, float *state, float *action, uint8_t *picture) {
    float x = sinf(0.3f * (float)frame + (float)episode), y = cosf(0.2f * (float)frame);
    int px = 16 + (int)(10 * x), py = 16 + (int)(10 * y);
    memset(picture, 40, SIDE * SIDE * 3);
    for (int i = -3; i < 3; i++)
        for (int j = -3; j < 3; j++) picture[((py + i) * SIDE + px + j) * 3 + episode % 3] = 250;
    state[0] = x, state[1] = y;
    action[0] = x + 0.1f, action[1] = y - 0.1f;
}

static void write_dots(const char *name) {
    char dir[SOMA_PATH_MAX];
    path(dir, name);
    static const char *const dims[] = {"x", "y"};
    const toy_dataset toy = {2, 2, SIDE, 10, dims, EPISODES, 0, dot_frames, dot_task, dot};
    soma_error err;
    if (write_toy_dataset(&toy, dir, &err)) fail_msg("%s", err.text);
}

// root, root/data and root/model.json (sizes of a few thousand weights)
static int make_dots(void **state) {
    if (!mkdtemp(root)) return 1;
    char file[SOMA_PATH_MAX];
    path(file, "model.json");
    const char *sizes =
        "{\"paligemma\": {\"width\": 32, \"depth\": 2, \"mlp_dim\": 32, \"num_heads\": 2, \"num_kv_heads\": 1, \"head_dim\": 16},"
        "\"action_expert\": {\"width\": 32, \"depth\": 2, \"mlp_dim\": 32, \"num_heads\": 2, \"num_kv_heads\": 1, \"head_dim\": 16},"
        "\"vision\": {\"hidden_size\": 32, \"num_hidden_layers\": 1, \"num_attention_heads\": 2, \"intermediate_size\": 32,"
        "\"patch_size\": 8, \"image_size\": 32}}";
    if (soma__file_write(file, sizes, strlen(sizes), NULL)) return 1;
    write_dots("data");
    return 0;
}

static int remove_dots(void **state) { return soma__dir_remove(root, NULL) != SOMA_OK; }

#endif
