// SPDX-License-Identifier: Apache-2.0
// What the server's page shows of each robot: what it asked last, what it was sent, what its state has been since. Written by the policy's
// thread, read by the sockets'. Pictures are copied, as the policy sees them, only while somebody looks: one question keeps them coming for
// some seconds.
#ifndef SOMA_SERVE_LIVE_H
#define SOMA_SERVE_LIVE_H

#include "base/json.h"
#include "base/str.h"

#include <soma/soma.h>

typedef struct soma_live soma_live;

soma_status soma__live_new(soma_live **live, const soma_policy_info *info, soma_error *err); // info is borrowed
void soma__live_free(soma_live *live);                                                       // NULL allowed

// One picture as the policy sees it: rgb is u8 [height, width, 3], released with soma__free.
typedef struct soma_live_picture {
    uint8_t *rgb;
    int width, height;
} soma_live_picture;
typedef soma_status soma_live_look(void *ctx, const soma_image *image, soma_live_picture *out, soma_error *err);

// After a request was answered. `look` makes the pictures, NULL: they are shown as they came. Without memory less is shown.
typedef struct soma_live_exchange {
    int64_t client;
    const char *protocol, *peer;
    const soma_obs *obs;
    const soma_actions *actions;
    double seam; // below 0: none
    soma_live_look *look;
    void *look_ctx;
} soma_live_exchange;
void soma__live_saw(soma_live *live, const soma_live_exchange *exchange);
void soma__live_gone(soma_live *live, int64_t client);

// {"clients": [...], "client": {...} or null}: everybody in short, and `client` with its chunk, states and the names of its pictures.
// A new reference; NULL when memory is out.
json_t *soma__live_json(soma_live *live, int64_t client);
// Appends the bytes of a picture of soma__live_json's; false: there is none.
bool soma__live_picture_put(soma_live *live, int64_t client, int camera, soma_str *body);

#endif
