// SPDX-License-Identifier: Apache-2.0
// A ring of prepared observations: the place of the oldest, which the next chunk would not look at any more, takes the newest.
#include "policy/history.h"

#include <string.h>

soma_status soma__history_new(soma_history *h, const soma_robot *robot, const soma_model *model, soma_error *err) {
    *h = (soma_history){.views = 1 + model->info.history};
    return h->views > 1 ? soma__rows_new(&h->rows, robot, model, 1, err) : SOMA_OK;
}

void soma__history_free(soma_history *h) {
    soma__rows_free(&h->rows);
    *h = (soma_history){0};
}

void soma__history_forget(soma_history *h) { h->count = 0; }

soma_status soma__history_see(soma_history *h, const soma_robot *robot, const soma_obs *obs, soma_error *err) {
    const int64_t place = (h->newest + 1) % h->views;
    h->count = SOMA_MIN(h->count, h->views - 1);
    SOMA_TRY(soma__robot_observe(robot, &h->rows, place, obs, err));
    h->newest = place;
    h->count++;
    return SOMA_OK;
}

void soma__history_put(const soma_history *h, soma_rows *rows, int64_t i) {
    const soma_model_info *info = &h->rows.model->info;
    const size_t pictures = (size_t)(info->n_cameras * soma__image_pixels(info)) * 3 * soma_dtype_size(rows->batch.image_dtype),
                 masks = (size_t)info->n_cameras, state = sizeof(float) * (size_t)info->state_dim;
    for (int64_t k = 0; k < h->views; k++) {
        const int64_t age = SOMA_MIN(h->views - 1 - k, h->count - 1);
        const size_t from = (size_t)((h->newest - age + h->views) % h->views), to = (size_t)(i * h->views + k);
        memcpy((char *)rows->images + to * pictures, (const char *)h->rows.images + from * pictures, pictures);
        memcpy(rows->image_mask + to * masks, h->rows.image_mask + from * masks, masks);
        memcpy((char *)rows->state + to * state, (const char *)h->rows.state + from * state, state);
    }
}
