// SPDX-License-Identifier: Apache-2.0
// Every camera of a sample, and every observation before it that the model looks at, gets the same draw: the scene stays one. Wrist cameras
// are neither cropped nor turned, as in openpi: their view is fixed to the hand.
#include "train/change.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// ---- options

static soma_status parse_augment(soma_changes *c, const char *text, soma_error *err) {
    static const char known[] = "openpi, crop=0.95,degrees=5,brightness=0.3,contrast=0.4,saturation=0.5 are possible, or some of these";
    const soma_augment_opts openpi = soma__augment_defaults();
    c->pictures = *text != 0;
    c->augment = (soma_augment_opts){.crop = 1};
    double *const values[] = {&c->augment.crop, &c->augment.degrees, &c->augment.brightness, &c->augment.contrast, &c->augment.saturation};
    static const char *const names[] = {"crop", "degrees", "brightness", "contrast", "saturation"};
    static const double most[] = {1, 180, 1, 1, 1};
    for (const char *p = text; *p; p += *p == ',') {
        size_t len = strcspn(p, ",="), k = 0;
        char *end = (char *)(uintptr_t)(p + len);
        if (len == 6 && !strncmp(p, "openpi", 6) && p[6] != '=') {
            c->augment = openpi;
            p += len;
            continue;
        }
        while (k < SOMA_COUNT(names) && (strlen(names[k]) != len || strncmp(names[k], p, len))) k++;
        bool named = k < SOMA_COUNT(names) && p[len] == '=';
        if (named) *values[k] = strtod(p + len + 1, &end);
        if (!named || end == p + len + 1 || (*end && *end != ',') || !(*values[k] >= 0 && *values[k] <= most[k]))
            return soma__fail(err, SOMA_BAD_INPUT, "--augment %.100s: %s", text, known);
        p = end;
    }
    return c->augment.crop > 0 ? SOMA_OK : soma__fail(err, SOMA_BAD_INPUT, "--augment %.100s: a crop is above 0", text);
}

soma_status soma__changes_parse(soma_changes *c, const soma_train_opts *o, soma_error *err) {
    *c = (soma_changes){.drop_camera = o->drop_camera, .drop_state = o->drop_state, .drop_prompt = o->drop_prompt};
    SOMA_TRY(parse_augment(c, o->augment, err));
    const double shares[] = {c->drop_camera, c->drop_state, c->drop_prompt};
    for (size_t i = 0; i < SOMA_COUNT(shares); i++)
        if (!(shares[i] >= 0 && shares[i] <= 1))
            return soma__fail(err, SOMA_BAD_INPUT, "--drop-camera, --drop-state and --drop-prompt are shares from 0 to 1, not %g",
                              shares[i]);
    if (strcmp(o->prompts, "first") && strcmp(o->prompts, "any"))
        return soma__fail(err, SOMA_BAD_INPUT, "--prompts %.40s: first or any are possible", o->prompts);
    c->any_prompt = !strcmp(o->prompts, "any");
    return SOMA_OK;
}

soma_status soma__changes_check(const soma_changes *c, const soma_robot *robot, const soma_model *model, soma_error *err) {
    if (c->drop_state > 0 && (!model->info.state_input || soma__prompt_has_state(soma__robot_prompt_form(robot, model))))
        return soma__fail(err, SOMA_BAD_INPUT, "--drop-state: %s is not given the state as numbers of its own", model->info.type);
    return SOMA_OK;
}

// ---- one observation

static bool chance(soma_rng *rng, double share) { return share > 0 && soma__rng_uniform(rng) < share; }

soma_change soma__change_draw(const soma_changes *c, soma_rng rng, const soma_robot *robot, uint32_t there) {
    enum { CAMERAS, STATE, PROMPT, WORDING, PICTURES }; // streams of their own: an option does not move what another draws
    soma_rng cameras = soma__rng_fold(&rng, CAMERAS), state = soma__rng_fold(&rng, STATE), prompt = soma__rng_fold(&rng, PROMPT),
             wording = soma__rng_fold(&rng, WORDING);
    soma_change change = {.pictures = c->pictures, .rng = soma__rng_fold(&rng, PICTURES)};
    for (int i = 0; i < robot->n_cameras; i++)
        if (chance(&cameras, c->drop_camera) && there >> i & 1) change.cameras |= 1u << i;
    if (there && (there & ~change.cameras) == 0) { // one of them stays
        uint32_t left = there;
        for (uint64_t skip = soma__rng_below(&cameras, (uint64_t)__builtin_popcount(there)); skip; skip--) left &= left - 1;
        change.cameras &= ~(left & -left);
    }
    change.state = chance(&state, c->drop_state);
    change.prompt = chance(&prompt, c->drop_prompt);
    change.wording = c->any_prompt ? soma__rng_u64(&wording) : 0;
    return change;
}

const char *soma__change_prompt(const soma_changes *c, const soma_change *change, const soma_episode *e) {
    uint64_t which = c->any_prompt ? change->wording % (1 + (uint64_t)e->n_others) : 0;
    return change->prompt ? "" : which ? e->others[which - 1] : e->task;
}

soma_status soma__change_room_new(soma_change_room *room, const soma_changes *c, const soma_model *model, soma_error *err) {
    const int height = (int)model->info.image_size, width = (int)soma__image_width(&model->info);
    *room = (soma_change_room){0};
    if (!c->pictures) return SOMA_OK;
    room->picture = soma__alloc((size_t)soma__image_pixels(&model->info) * 3 * sizeof *room->picture);
    room->scratch = soma__alloc(soma__augment_scratch(height, width));
    return room->picture && room->scratch ? SOMA_OK : soma__no_memory(err, "a picture");
}

void soma__change_room_free(soma_change_room *room) {
    soma__free(room->picture);
    soma__free(room->scratch);
    *room = (soma_change_room){0};
}

static void change_picture(const soma_augment *draw, soma_change_room *room, soma_rows *rows, int64_t slot) {
    const soma_model_info *info = &rows->model->info;
    const int height = (int)info->image_size, width = (int)soma__image_width(info);
    const int64_t n = soma__image_pixels(info);
    if (rows->batch.image_dtype == SOMA_U8) {
        uint8_t *rgb = (uint8_t *)rows->images + slot * n * 3;
        soma__augment_u8(draw, rgb, room->picture, height, width, room->scratch);
        for (int64_t i = 0; i < n * 3; i++) rgb[i] = (uint8_t)(SOMA_MAX(0, SOMA_MIN(room->picture[i] * 127.5f + 127.5f, 255)) + 0.5f);
        return;
    }
    float *planes = (float *)rows->images + slot * n * 3; // [3, height, width]
    for (int c = 0; c < 3; c++)
        for (int64_t i = 0; i < n; i++) room->picture[i * 3 + c] = planes[c * n + i];
    soma__augment_f32(draw, room->picture, height, width, room->scratch);
    for (int c = 0; c < 3; c++)
        for (int64_t i = 0; i < n; i++) planes[c * n + i] = room->picture[i * 3 + c];
}

void soma__change_row(const soma_changes *c, const soma_change *change, soma_change_room *room, const soma_robot *robot, soma_rows *rows,
                      int64_t row, uint32_t there) {
    const soma_model_info *info = &rows->model->info;
    for (int i = 0; i < robot->n_cameras && change->pictures; i++) {
        if (!((there & ~change->cameras) >> i & 1)) continue;
        soma_rng rng = change->rng;
        bool wrist = strstr(robot->cameras[i], "wrist") != NULL;
        soma_augment draw = soma__augment_draw(&c->augment, &rng, (int)info->image_size, (int)soma__image_width(info), wrist);
        change_picture(&draw, room, rows, row * info->n_cameras + robot->slots[i]);
    }
    if (change->state) memset(rows->state + row * info->state_dim, 0, (size_t)info->state_dim * sizeof *rows->state);
}
