// SPDX-License-Identifier: Apache-2.0
// MuJoCo's renderer, set up for small pictures: no shadows, no multisampling (20 times slower each, facts measured on Mesa's llvmpipe);
// edges are smoothed by drawing at twice the size and averaging four pixels, which also keeps sub-pixel positions visible.
#include "env/render.h"
#include "env/gl.h"

#include <pthread.h>
#include <string.h>

enum { SUPERSAMPLE = 2, MAX_SHAPES = 200 };

struct soma_render {
    mjModel *model;
    soma_gl *gl;
    mjvScene scene;
    mjvOption option;
    mjrContext context;
    int width, height; // of the picture given out
    uint8_t *drawn;    // [height*2, width*2, 3], rows from the bottom
};

// MuJoCo keeps the OpenGL entry points in globals that every new context fills again with the same values.
static pthread_mutex_t loading = PTHREAD_MUTEX_INITIALIZER;

soma_status soma__render_open(soma_render **out, mjModel *model, int width, int height, soma_error *err) {
    *out = NULL;
    soma_render *r = soma__calloc(1, sizeof *r);
    if (!r) return soma__no_memory(err, "the renderer");
    r->model = model, r->width = width, r->height = height;
    r->drawn = soma__alloc((size_t)width * height * SUPERSAMPLE * SUPERSAMPLE * 3);
    soma_status status = r->drawn ? soma__gl_open(&r->gl, err) : soma__no_memory(err, "a picture");
    if (status == SOMA_OK) status = soma__gl_enter(r->gl, err);
    if (status != SOMA_OK) {
        soma__gl_close(r->gl);
        soma__free(r->drawn);
        soma__free(r);
        return status;
    }
    model->vis.global.offwidth = width * SUPERSAMPLE;
    model->vis.global.offheight = height * SUPERSAMPLE;
    mjv_defaultOption(&r->option);
    mjv_makeScene(model, &r->scene, MAX_SHAPES);
    memset(r->scene.flags, 0, sizeof r->scene.flags);
    r->scene.flags[mjRND_CULL_FACE] = 1;
    pthread_mutex_lock(&loading);
    mjr_makeContext(model, &r->context, mjFONTSCALE_50);
    pthread_mutex_unlock(&loading);
    mjr_setBuffer(mjFB_OFFSCREEN, &r->context);
    bool offscreen = r->context.currentBuffer == mjFB_OFFSCREEN;
    soma__gl_leave(r->gl);
    *out = r;
    if (offscreen) return SOMA_OK;
    soma__render_close(r);
    *out = NULL;
    return soma__fail(err, SOMA_UNSUPPORTED, "%s gives no frame buffer of %d x %d", soma__gl_name(), width * SUPERSAMPLE,
                      height * SUPERSAMPLE);
}

void soma__render_close(soma_render *r) {
    if (!r) return;
    if (soma__gl_enter(r->gl, NULL) == SOMA_OK) {
        mjr_freeContext(&r->context);
        soma__gl_leave(r->gl);
    }
    mjv_freeScene(&r->scene);
    soma__gl_close(r->gl);
    soma__free(r->drawn);
    soma__free(r);
}

// Averages 2 x 2 pixels and turns the picture the right way up.
static void shrink(const soma_render *r, uint8_t *rgb) {
    size_t wide = (size_t)r->width * SUPERSAMPLE * 3;
    for (int y = 0; y < r->height; y++) {
        const uint8_t *top = r->drawn + (size_t)(r->height - 1 - y) * SUPERSAMPLE * wide, *bottom = top + wide;
        for (int x = 0; x < r->width; x++, top += 6, bottom += 6) {
            for (int c = 0; c < 3; c++) *rgb++ = (uint8_t)((top[c] + top[c + 3] + bottom[c] + bottom[c + 3] + 2) / 4);
        }
    }
}

soma_status soma__render_camera(soma_render *r, mjData *data, int camera, uint8_t *rgb, soma_error *err) {
    SOMA_TRY(soma__gl_enter(r->gl, err));
    mjrRect area = {0, 0, r->width * SUPERSAMPLE, r->height * SUPERSAMPLE};
    mjvCamera view;
    mjv_defaultCamera(&view);
    view.type = mjCAMERA_FIXED;
    view.fixedcamid = camera;
    mjv_updateScene(r->model, data, &r->option, NULL, &view, mjCAT_ALL, &r->scene);
    mjr_render(area, &r->scene, &r->context);
    mjr_readPixels(r->drawn, NULL, area, &r->context);
    soma__gl_leave(r->gl);
    shrink(r, rgb);
    return SOMA_OK;
}
