// SPDX-License-Identifier: Apache-2.0
// A place is filled by whoever comes first: two threads that read the same episode at once keep one of the two copies, and nobody waits.
#include "data/vectors.h"

#include <stdatomic.h>

struct soma_vectors {
    const soma_dataset *d;
    soma_vectors_opts o;
    int64_t n_state, n_actions;
    int64_t n_places;       // the first episodes of the list
    float *_Atomic *places; // [n_places] states of an episode, and behind them its actions; NULL: not read yet
    _Atomic size_t held;
};

static const char subject[] = "the states and actions of a dataset";

static int64_t frames_of(const soma_vectors *r, int64_t e) { return r->d->episodes[r->o.episodes[e]].n_frames; }
static size_t size_of(const soma_vectors *r, int64_t e) { return (size_t)(frames_of(r, e) * (r->n_state + r->n_actions)) * sizeof(float); }

soma_status soma__vectors_new(soma_vectors **out, const soma_dataset *d, const soma_vectors_opts *o, soma_error *err) {
    soma_vectors *r = *out = soma__calloc(1, sizeof *r);
    if (!r) return soma__no_memory(err, subject);
    r->d = d;
    r->o = *o;
    r->n_state = d->features[o->state].size;
    r->n_actions = d->features[o->action].size;
    for (size_t left = o->memory; r->n_places < o->n_episodes && size_of(r, r->n_places) <= left; r->n_places++)
        left -= size_of(r, r->n_places);
    if ((r->places = soma__calloc((size_t)r->n_places + 1, sizeof *r->places))) return SOMA_OK;
    soma__vectors_free(r);
    *out = NULL;
    return soma__no_memory(err, subject);
}

void soma__vectors_free(soma_vectors *r) {
    if (!r) return;
    for (int64_t e = 0; r->places && e < r->n_places; e++) soma__free(r->places[e]);
    soma__free((void *)r->places);
    soma__free(r);
}

void soma__vectors_hand_close(soma_vectors_hand *hand) {
    soma__free(hand->values);
    *hand = (soma_vectors_hand){0};
}

bool soma__vectors_fit(const soma_vectors *r) { return r->n_places == r->o.n_episodes; }
size_t soma__vectors_held(const soma_vectors *r) { return r->held; }

static soma_status read_episode(const soma_vectors *r, soma_dataset_reader *reader, int64_t e, float *out, soma_error *err) {
    const int64_t position = r->o.episodes[e];
    SOMA_TRY(r->d->format->read_vectors(reader, position, r->o.state, out, err));
    return r->d->format->read_vectors(reader, position, r->o.action, out + frames_of(r, e) * r->n_state, err);
}

soma_status soma__vectors_fill(soma_vectors *r, soma_dataset_reader *reader, int64_t e, soma_error *err) {
    if (e >= r->n_places || !size_of(r, e) || r->places[e]) return SOMA_OK;
    float *none = NULL, *values = soma__alloc(size_of(r, e));
    soma_status status = values ? read_episode(r, reader, e, values, err) : soma__no_memory(err, subject);
    if (status == SOMA_OK && atomic_compare_exchange_strong(&r->places[e], &none, values))
        r->held += size_of(r, e);
    else
        soma__free(values);
    return status;
}

// What the same read of the file brings is taken along. A neighbour that cannot be read is told of when it is asked for itself.
static void fill_neighbours(soma_vectors *r, soma_dataset_reader *reader, int64_t e) {
    bool (*together)(const soma_dataset *, int64_t, int64_t) = r->d->format->together;
    for (int step = -1; step <= 1 && together; step += 2)
        for (int64_t i = e + step; i >= 0 && i < r->n_places && together(r->d, r->o.episodes[i], r->o.episodes[e]); i += step)
            if (soma__vectors_fill(r, reader, i, NULL)) break;
}

static soma_status read_own(const soma_vectors *r, soma_vectors_hand *hand, soma_dataset_reader *reader, int64_t e, soma_error *err) {
    if (hand->values && hand->episode == e) return SOMA_OK;
    if (hand->room < size_of(r, e)) {
        soma__vectors_hand_close(hand);
        if (!(hand->values = soma__alloc(size_of(r, e)))) return soma__no_memory(err, subject);
        hand->room = size_of(r, e);
    }
    hand->episode = -1; // until it is read
    SOMA_TRY(read_episode(r, reader, e, hand->values, err));
    hand->episode = e;
    return SOMA_OK;
}

soma_status soma__vectors_get(const float **state, const float **action, soma_vectors *r, soma_vectors_hand *hand,
                              soma_dataset_reader *reader, int64_t e, soma_error *err) {
    const float *values = e < r->n_places ? r->places[e] : NULL;
    if (!values && e < r->n_places) {
        SOMA_TRY(soma__vectors_fill(r, reader, e, err));
        fill_neighbours(r, reader, e);
        values = r->places[e];
    } else if (!values) {
        SOMA_TRY(read_own(r, hand, reader, e, err));
        values = hand->values;
    }
    *state = values;
    *action = values + frames_of(r, e) * r->n_state;
    return SOMA_OK;
}
