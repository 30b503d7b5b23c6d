// SPDX-License-Identifier: Apache-2.0
// Pictures of a MuJoCo model without a screen: an OpenGL context of EGL (surfaceless) or OSMesa, one per environment.
#ifndef SOMA_ENV_RENDER_H
#define SOMA_ENV_RENDER_H

#include "base/base.h"

#include <mujoco/mujoco.h>

typedef struct soma_render soma_render;

// `model` is borrowed until close. The context is current only during a call, so that an environment may move between threads.
soma_status soma__render_open(soma_render **render, mjModel *model, int width, int height, soma_error *err);
void soma__render_close(soma_render *render); // NULL allowed
// What `camera` (an index of the model) sees: rgb [height, width, 3], rows from the top. `data` has been through mj_forward.
soma_status soma__render_camera(soma_render *render, mjData *data, int camera, uint8_t *rgb, soma_error *err);

#endif
