// SPDX-License-Identifier: Apache-2.0
#include "serve/live.h"

#include <pthread.h>
#include <string.h>

enum { HISTORY = 256 };          // states of a client that are kept
static const double WATCHED = 3; // seconds for which one question keeps pictures coming

typedef struct chunk {
    double sent; // soma__seconds; 0: none
    int rows, n; // [rows, n]
    float *values;
} chunk;

typedef struct robot {
    struct robot *next;
    int64_t id, requests;
    char peer[64], prompt[512];
    const char *protocol;
    double asked, model_ms; // asked: soma__seconds
    double seam, seam_sum, seam_most;
    int64_t n_seams;
    chunk now, before;
    float *states;         // [HISTORY, n_state], a ring
    double times[HISTORY]; // of the states
    int64_t n_states;      // so far; the last is at (n_states - 1) % HISTORY
    int n_pictures;
    soma_live_picture pictures[SOMA_MAX_CAMERAS];
    char cameras[SOMA_MAX_CAMERAS][64];
} robot;

struct soma_live {
    const soma_policy_info *info;
    pthread_mutex_t mutex;
    double began, looked; // when somebody last asked; 0: never
    robot *robots;
};

soma_status soma__live_new(soma_live **out, const soma_policy_info *info, soma_error *err) {
    soma_live *l = *out = soma__calloc(1, sizeof *l);
    if (!l) return soma__no_memory(err, "the page's view");
    l->info = info;
    l->began = soma__seconds();
    pthread_mutex_init(&l->mutex, NULL);
    return SOMA_OK;
}

static void forget_pictures(robot *r) {
    for (int i = 0; i < r->n_pictures; i++) soma__free(r->pictures[i].rgb);
    r->n_pictures = 0;
}

static void free_robot(robot *r) {
    forget_pictures(r);
    soma__free(r->now.values);
    soma__free(r->before.values);
    soma__free(r->states);
    soma__free(r);
}

void soma__live_free(soma_live *l) {
    if (!l) return;
    for (robot *r = l->robots, *next; r; r = next) {
        next = r->next;
        free_robot(r);
    }
    pthread_mutex_destroy(&l->mutex);
    soma__free(l);
}

// ---- the policy's thread

static robot *find(soma_live *l, int64_t client) {
    robot *r = l->robots;
    while (r && r->id != client) r = r->next;
    return r;
}

static robot *add(soma_live *l, const soma_live_exchange *e) {
    robot *r = soma__calloc(1, sizeof *r);
    if (!r) return NULL;
    const size_t size = (size_t)SOMA_MAX(l->info->horizon * l->info->n_actions, 1) * sizeof(float);
    r->now.values = soma__alloc(size);
    r->before.values = soma__alloc(size);
    r->states = soma__calloc((size_t)(HISTORY * SOMA_MAX(l->info->n_state, 1)), sizeof *r->states);
    if (!r->now.values || !r->before.values || !r->states) {
        free_robot(r);
        return NULL;
    }
    r->id = e->client;
    r->protocol = e->protocol;
    snprintf(r->peer, sizeof r->peer, "%s", e->peer);
    robot **end = &l->robots;
    while (*end) end = &(*end)->next;
    return *end = r;
}

static soma_status copy_picture(void *ctx, const soma_image *in, soma_live_picture *out, soma_error *err) {
    size_t size = (size_t)in->width * (size_t)in->height * 3;
    *out = (soma_live_picture){soma__alloc(size), in->width, in->height};
    if (!out->rgb) return soma__no_memory(err, "a picture for the page");
    memcpy(out->rgb, in->pixels, size);
    return SOMA_OK;
}

static void keep_pictures(robot *r, const soma_live_exchange *e) {
    soma_live_look *look = e->look ? e->look : copy_picture;
    forget_pictures(r);
    for (int i = 0; i < e->obs->n_images; i++) {
        if (look(e->look_ctx, &e->obs->images[i], &r->pictures[r->n_pictures], NULL)) continue;
        snprintf(r->cameras[r->n_pictures++], sizeof r->cameras[0], "%s", e->obs->images[i].camera);
    }
}

void soma__live_saw(soma_live *l, const soma_live_exchange *e) {
    const soma_policy_info *info = l->info;
    pthread_mutex_lock(&l->mutex);
    robot *r = find(l, e->client);
    if (!r) r = add(l, e);
    if (r) {
        const soma_actions *a = e->actions;
        r->requests++;
        r->asked = soma__seconds();
        r->model_ms = a->model_ms;
        snprintf(r->prompt, sizeof r->prompt, "%s", e->obs->prompt ? e->obs->prompt : "");
        if (e->seam >= 0) {
            r->seam = e->seam;
            r->seam_sum += e->seam;
            r->seam_most = SOMA_MAX(r->seam_most, e->seam);
            r->n_seams++;
        }
        const chunk old = r->before;
        r->before = r->now;
        r->now = (chunk){r->asked, SOMA_MIN(a->horizon, info->horizon), info->n_actions, old.values};
        memcpy(r->now.values, a->values, (size_t)r->now.rows * (size_t)r->now.n * sizeof(float));
        int64_t at = r->n_states++ % HISTORY;
        r->times[at] = r->asked;
        for (int k = 0; k < info->n_state && k < e->obs->n_state; k++) r->states[at * info->n_state + k] = e->obs->state[k];
        if (l->looked > 0 && r->asked - l->looked < WATCHED) keep_pictures(r, e);
    }
    pthread_mutex_unlock(&l->mutex);
}

void soma__live_gone(soma_live *l, int64_t client) {
    pthread_mutex_lock(&l->mutex);
    for (robot **at = &l->robots; *at; at = &(*at)->next)
        if ((*at)->id == client) {
            robot *r = *at;
            *at = r->next;
            free_robot(r);
            break;
        }
    pthread_mutex_unlock(&l->mutex);
}

// ---- the sockets' thread

static json_t *numbers(const float *values, int n) {
    json_t *list = json_array();
    for (int i = 0; i < n; i++) json_array_append_new(list, json_real(values[i]));
    return list;
}

// Texts come from the network: what is no UTF-8 is not shown.
static json_t *text(const char *s) {
    json_t *t = json_string(s);
    return t ? t : json_string("(not UTF-8)");
}

static json_t *in_short(const soma_live *l, const robot *r) {
    return json_pack("{s:I, s:s, s:o, s:o, s:I, s:f, s:f}", "id", (json_int_t)r->id, "protocol", r->protocol, "peer", text(r->peer),
                     "prompt", text(r->prompt), "requests", (json_int_t)r->requests, "model_ms", r->model_ms, "asked_s",
                     r->asked - l->began);
}

static json_t *rows(const soma_live *l, const chunk *c) {
    json_t *list = json_array();
    for (int i = 0; c->sent > 0 && i < c->rows; i++) json_array_append_new(list, numbers(c->values + i * c->n, c->n));
    return json_pack("{s:f, s:o}", "s", c->sent - l->began, "rows", list);
}

static json_t *whole(const soma_live *l, const robot *r) {
    json_t *out = in_short(l, r), *states = json_array(), *pictures = json_array();
    for (int64_t i = SOMA_MAX(0, r->n_states - HISTORY); i < r->n_states; i++)
        json_array_append_new(states, json_pack("{s:f, s:o}", "s", r->times[i % HISTORY] - l->began, "values",
                                                numbers(r->states + i % HISTORY * l->info->n_state, l->info->n_state)));
    for (int i = 0; i < r->n_pictures; i++)
        json_array_append_new(pictures, json_pack("{s:o, s:i, s:i}", "camera", text(r->cameras[i]), "width", r->pictures[i].width, "height",
                                                  r->pictures[i].height));
    json_object_set_new(out, "seam",
                        json_pack("{s:I, s:f, s:f, s:f}", "n", (json_int_t)r->n_seams, "last", r->seam, "mean",
                                  r->n_seams ? r->seam_sum / (double)r->n_seams : 0, "max", r->seam_most));
    json_object_set_new(out, "chunk", rows(l, &r->now));
    json_object_set_new(out, "before", rows(l, &r->before));
    json_object_set_new(out, "states", states);
    json_object_set_new(out, "pictures", pictures);
    return out;
}

json_t *soma__live_json(soma_live *l, int64_t client) {
    json_t *clients = json_array(), *one = NULL;
    pthread_mutex_lock(&l->mutex);
    l->looked = soma__seconds();
    for (const robot *r = l->robots; r; r = r->next) {
        json_array_append_new(clients, in_short(l, r));
        if (r->id == client) one = whole(l, r);
    }
    pthread_mutex_unlock(&l->mutex);
    return json_pack("{s:o, s:o}", "clients", clients, "client", one ? one : json_null());
}

bool soma__live_picture_put(soma_live *l, int64_t client, int camera, soma_str *body) {
    pthread_mutex_lock(&l->mutex);
    const robot *r = find(l, client);
    bool there = r && camera >= 0 && camera < r->n_pictures;
    if (there) {
        const soma_live_picture *p = &r->pictures[camera];
        soma__str_add_bytes(body, p->rgb, (size_t)p->width * (size_t)p->height * 3);
    }
    pthread_mutex_unlock(&l->mutex);
    return there;
}
