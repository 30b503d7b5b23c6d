// SPDX-License-Identifier: Apache-2.0
// Frames of an RLDS dataset. A record is held against its checksum once, by whoever reads it first; after that a frame costs a walk over
// the record's headers and, of a picture, its decoding.
#include "data/rlds/rlds.h"
#include "format/image.h"

struct soma_dataset_reader {
    const rlds *l;
    soma_example example; // of episode `known`
    int64_t known;        // -1: none
};

static soma_status reader_open(soma_dataset_reader **out, const soma_dataset *d, soma_error *err) {
    soma_dataset_reader *r = *out = soma__calloc(1, sizeof *r);
    if (!r) return soma__no_memory(err, "a dataset reader");
    r->l = (const rlds *)d;
    r->known = -1;
    return SOMA_OK;
}

static void reader_close(soma_dataset_reader *r) {
    if (!r) return;
    soma__example_free(&r->example);
    soma__free(r);
}

static bool present(const soma_dataset *d, int64_t episode, int feature) {
    (void)feature;
    return d->episodes[episode].present;
}

// The list of a feature in an episode's record; `where` names both in sentences.
static soma_status find_list(soma_dataset_reader *r, const soma_example_list **list, char where[SOMA_PATH_MAX + 100], int64_t episode,
                             int feature, soma_error *err) {
    const rlds *l = r->l;
    const rlds_place *p = &l->places[episode];
    rlds_name_record(where, l, episode);
    if (!l->episodes[episode].present) return soma__fail(err, SOMA_NOT_FOUND, "%s: is absent or damaged", where);
    if (!atomic_load_explicit(&l->checked[episode], memory_order_relaxed)) {
        SOMA_TRY(soma__tfrecord_check(&p->record, p->shard->map.data, where, err));
        atomic_store_explicit(&l->checked[episode], 1, memory_order_relaxed);
    }
    if (r->known != episode) {
        r->known = -1;
        SOMA_TRY(rlds_parse(&r->example, l, episode, err));
        r->known = episode;
    }
    *list = soma__example_find(&r->example, l->keys[feature]);
    return *list ? SOMA_OK : soma__fail(err, SOMA_NOT_FOUND, "%s: has no \"%s\"", where, l->keys[feature]);
}

static soma_status read_vectors(soma_dataset_reader *r, int64_t episode, int feature, float *out, soma_error *err) {
    const soma_feature *f = &r->l->features[feature];
    const soma_example_list *list;
    char where[SOMA_PATH_MAX + 100];
    SOMA_CHECK(f->kind == SOMA_FEATURE_VECTOR, "read_vectors reads vector features");
    SOMA_TRY(find_list(r, &list, where, episode, feature, err));
    SOMA_TRY(soma__example_floats(out, r->l->episodes[episode].n_frames * f->size, &r->example, list, where, err));
    return soma__dataset_check_finite(&r->l->d, r->l->places[episode].shard->name, episode, feature, out, err);
}

static soma_status read_image(soma_dataset_reader *r, int64_t episode, int64_t frame, int feature, uint8_t *out, soma_error *err) {
    const soma_feature *f = &r->l->features[feature];
    const soma_example_list *list;
    char where[SOMA_PATH_MAX + 100];
    soma_span bytes;
    SOMA_CHECK(f->kind == SOMA_FEATURE_IMAGE, "read_image reads image features");
    SOMA_CHECK(frame >= 0 && frame < r->l->episodes[episode].n_frames, "a frame lies within its episode");
    SOMA_TRY(find_list(r, &list, where, episode, feature, err));
    soma_status status = soma__example_bytes(&bytes, frame, &r->example, list, where, err);
    if (status == SOMA_OK) status = soma__image_decode(out, (int)f->shape[1], (int)f->shape[0], bytes.data, bytes.size, where, err);
    return status == SOMA_OK ? SOMA_OK : soma__fail_in(err, "frame %lld of %s", (long long)frame, f->name);
}

static soma_status source(char path[SOMA_PATH_MAX], double *start, const soma_dataset *d, int64_t episode, int feature, soma_error *err) {
    const rlds_place *p = &((const rlds *)d)->places[episode];
    (void)feature;
    *start = (double)p->record.offset;
    return soma__path_join(path, d->path, p->shard->name, err);
}

const soma_dataset_format soma__dataset_format_rlds = {
    .name = "rlds",
    .probe = rlds_probe,
    .open = rlds_open,
    .close = rlds_close,
    .reader_open = reader_open,
    .reader_close = reader_close,
    .present = present,
    .read_vectors = read_vectors,
    .read_image = read_image,
    .source = source,
};
