// SPDX-License-Identifier: Apache-2.0
// Reads all that will be used, once, on several threads. It costs a look at everything, and buys that nothing fails in the middle of a run.
#include "data/screen.h"

#include <string.h>

typedef struct hand { // a thread's
    float *values;
    uint8_t *rgb;
    size_t values_room, rgb_room;
} hand;

typedef struct screening {
    soma_dataset *d;
    const soma_screen *s;
    const int64_t *episodes;
    hand *hands;
    soma_error found[SOMA_SWEEP_BLOCK]; // what is wrong with an episode that is not settled; code SOMA_OK: nothing
    int64_t skipped;
} screening;

static soma_status look(screening *k, hand *h, soma_dataset_reader *reader, int64_t e, int f, soma_error *err) {
    const soma_feature *feature = &k->d->features[f];
    const soma_dataset_format *format = k->d->format;
    int64_t n = k->d->episodes[e].n_frames;
    if (feature->kind == SOMA_FEATURE_VECTOR) {
        if (!soma__grow((void **)&h->values, &h->values_room, (size_t)(n * feature->size) + 1, sizeof *h->values))
            return soma__no_memory(err, "an episode's values");
        return format->read_vectors(reader, e, f, h->values, err);
    }
    if (feature->kind != SOMA_FEATURE_IMAGE || !format->present(k->d, e, f)) return SOMA_OK;
    if (!soma__grow((void **)&h->rgb, &h->rgb_room, (size_t)feature->size, 1)) return soma__no_memory(err, "a picture");
    for (int64_t t = 0; t < n; t++) SOMA_TRY(format->read_image(reader, e, t, f, h->rgb, err));
    return SOMA_OK;
}

static soma_status visit(void *user, soma_dataset_reader *reader, int64_t place, int thread, soma_error *err) {
    screening *k = user;
    soma_error *found = &k->found[place % SOMA_SWEEP_BLOCK];
    int64_t e = k->episodes[place];
    found->code = SOMA_OK;
    for (int i = 0; i < k->s->n_features && k->d->episodes[e].present && found->code == SOMA_OK; i++)
        look(k, &k->hands[thread], reader, e, k->s->features[i], found);
    return found->code == SOMA_NO_MEMORY ? soma__no_memory(err, found->text) : SOMA_OK;
}

static void settle(void *user, int64_t place) {
    screening *k = user;
    const soma_error *found = &k->found[place % SOMA_SWEEP_BLOCK];
    soma_episode *e = (soma_episode *)(uintptr_t)&k->d->episodes[k->episodes[place]]; // the dataset is not shared yet
    if (found->code == SOMA_OK) return;
    e->present = e->video_present = false;
    k->d->episodes_present--;
    k->d->frames_present -= e->n_frames;
    k->skipped++;
    if (k->s->told) k->s->told(k->s->user, found->text);
    if (!k->s->told) soma__log(SOMA_LOG_WARN, "episode %lld is left out: %s", (long long)e->index, found->text);
}

static soma_status screen_all(screening *k, soma_error *err) {
    const soma_screen *s = k->s;
    int64_t *listed = NULL;
    soma_sweep sweep = {k->d, s->episodes, s->n_episodes, NULL, visit, settle, s->progress, k, s->user};
    SOMA_TRY(soma__pool_new(&sweep.pool, s->threads, err));
    int threads = soma__pool_threads(sweep.pool);
    k->hands = soma__calloc((size_t)threads, sizeof *k->hands);
    if (!s->episodes) listed = soma__alloc(((size_t)k->d->n_episodes + 1) * sizeof *listed);
    for (int64_t e = 0; listed && e < k->d->n_episodes; e++)
        if (k->d->episodes[e].present) listed[sweep.n++] = e;
    if (listed) sweep.episodes = listed;
    k->episodes = sweep.episodes;
    soma_status status = k->hands && sweep.episodes ? soma__dataset_sweep(&sweep, err) : soma__no_memory(err, "a look at all episodes");
    for (int i = 0; k->hands && i < threads; i++) {
        soma__free(k->hands[i].values);
        soma__free(k->hands[i].rgb);
    }
    soma__free(k->hands);
    soma__free(listed);
    soma__pool_free(sweep.pool);
    return status;
}

soma_status soma__dataset_screen(int64_t *skipped, soma_dataset *d, const soma_screen *s, soma_error *err) {
    if (skipped) *skipped = 0;
    if (!s->skip_bad)
        return d->n_faults ? soma__fail(err, SOMA_BAD_INPUT, "%s (--skip-bad goes on without what is damaged)", d->faults[0]) : SOMA_OK;
    screening *k = soma__calloc(1, sizeof *k);
    if (!k) return soma__no_memory(err, "a look at all episodes");
    k->d = d;
    k->s = s;
    soma_status status = screen_all(k, err);
    if (skipped) *skipped = k->skipped + d->n_faults;
    soma__free(k);
    return status;
}
