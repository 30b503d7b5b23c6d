// SPDX-License-Identifier: Apache-2.0
// Down, middle, up. The last block's norm has 8 groups whatever the others have: the original builds it so, and checkpoints are trained so.
#include "nn/unet.h"

#include <stdio.h>

typedef struct unet {
    const soma_scope *s;
    const soma_unet_config *c;
    soma_tensor *cond; // [B, step + G]
    const char *taps;
} unet;

static soma_tensor *tap(const unet *u, soma_tensor *x, const char *module) {
    return u->taps ? soma_tap_picture(x, "%s.%s", u->taps, module) : x;
}

static soma_tensor *conv_block(const unet *u, const soma_scope *s, const char *name, soma_tensor *x, int64_t out, int64_t groups) {
    const soma_scope *block = soma_scope_in(s, "%s.block", name);
    x = soma_conv_1d(block, "0", x, out, (int)u->c->kernel, 1, (int)(u->c->kernel / 2));
    return soma_apply(soma_group_norm(block, "1", x, groups, 1e-5f), SOMA_UNARY_MISH);
}

static soma_tensor *residual_block(const unet *u, const char *module, soma_tensor *x, int64_t out) {
    const soma_scope *s = soma_scope_in(u->s, "%s", module);
    const int64_t B = x->shape[0], in = x->shape[2];
    char name[64];
    soma_scope_block(u->s);
    soma_tensor *h = conv_block(u, s, "conv1", x, out, u->c->groups); // [B, T, out]
    snprintf(name, sizeof name, "%s.conv1", module);
    tap(u, h, name);
    soma_tensor *film =
        soma_linear(soma_scope_in(s, "cond_encoder"), "1", soma_apply(u->cond, SOMA_UNARY_MISH), u->c->scale ? 2 * out : out, true);
    if (u->taps) soma_tap(film, "%s.%s.cond_encoder", u->taps, module);
    film = soma_reshape(film, 3, (int64_t[]){B, 1, u->c->scale ? 2 * out : out});
    h = u->c->scale ? soma_add(soma_mul(h, soma_slice(film, 2, 0, out)), soma_slice(film, 2, out, out)) : soma_add(h, film);
    h = conv_block(u, s, "conv2", h, out, u->c->groups);
    if (in != out) x = soma_conv_1d(s, "residual_conv", x, out, 1, 1, 0);
    return tap(u, soma_add(h, x), module);
}

// 2 pi: the embedding's fastest sine turns once in that many steps.
static soma_tensor *embed_step(const unet *u, soma_tensor *step) {
    const double turn = 2 * 3.141592653589793;
    const soma_scope *s = soma_scope_in(u->s, "diffusion_step_encoder");
    soma_tensor *e = soma_time_embed(step, u->c->step_width, turn, turn * 10000);
    e = soma_apply(soma_linear(s, "1", e, 4 * u->c->step_width, true), SOMA_UNARY_MISH);
    e = soma_linear(s, "3", e, u->c->step_width, true);
    return u->taps ? soma_tap(e, "%s.diffusion_step_encoder", u->taps) : e;
}

soma_tensor *soma_unet(const soma_scope *s, soma_tensor *x, soma_tensor *step, soma_tensor *cond, const soma_unet_config *c,
                       const char *taps) {
    if (x->n_dims != 3 || x->shape[1] % (1 << (c->levels - 1)))
        return soma__mistake(s->graph, "a UNet of %d levels takes [B, T, A] with a T that %d divides", (int)c->levels,
                             1 << (c->levels - 1));
    unet u = {s, c, NULL, taps};
    const int64_t A = x->shape[2];
    soma_tensor *skips[SOMA_UNET_LEVELS];
    char name[48];
    u.cond = soma_concat((soma_tensor *[]){embed_step(&u, step), cond}, 2, 1);
    for (int i = 0; i < c->levels; i++) {
        for (int k = 0; k < 2; k++) {
            snprintf(name, sizeof name, "down_modules.%d.%d", i, k);
            x = residual_block(&u, name, x, c->widths[i]);
        }
        skips[i] = x;
        snprintf(name, sizeof name, "down_modules.%d.2", i);
        x = tap(&u, i + 1 < c->levels ? soma_conv_1d(s, name, x, c->widths[i], 3, 2, 1) : x, name);
    }
    for (int k = 0; k < 2; k++) {
        snprintf(name, sizeof name, "mid_modules.%d", k);
        x = residual_block(&u, name, x, c->widths[c->levels - 1]);
    }
    for (int i = 0; i + 1 < c->levels; i++) {
        const int64_t width = c->widths[c->levels - 2 - i];
        x = soma_concat((soma_tensor *[]){x, skips[c->levels - 1 - i]}, 2, 2);
        for (int k = 0; k < 2; k++) {
            snprintf(name, sizeof name, "up_modules.%d.%d", i, k);
            x = residual_block(&u, name, x, width);
        }
        snprintf(name, sizeof name, "up_modules.%d.2", i);
        x = tap(&u, soma_conv_1d_up(s, name, x, width, 4, 2, 1), name);
    }
    soma_scope_blocks_end(s);
    x = tap(&u, conv_block(&u, s, "final_conv.0", x, c->widths[0], 8), "final_conv.0");
    return soma_conv_1d(soma_scope_in(s, "final_conv"), "1", x, A, 1, 1, 0);
}
