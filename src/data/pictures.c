// SPDX-License-Identifier: Apache-2.0
// Places are given out once, when the pictures are opened, in the order of the episodes: what does not fit is never swapped for what does,
// because samples come in random order and every swap would decode a whole episode for one picture.
#include "data/pictures.h"

#include "base/file.h"
#include "base/hash.h"
#include "format/npy.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { RECENT = 3600 }; // seconds in which a file counts as used by another process

typedef struct place {    // of one camera of one episode
    char *path;           // in the folder; NULL: it is not kept there
    soma_file_map map;    // of that file
    uint8_t *memory;      // or here
    const uint8_t *first; // picture 0 in either; NULL: decoded on demand
} place;

struct soma_pictures {
    const soma_dataset *d;
    soma_pictures_opts o;
    char *folder;
    int widths[SOMA_PICTURES_CAMERAS], heights[SOMA_PICTURES_CAMERAS];
    place *places; // [n_episodes, n_cameras]
};

static place *place_of(const soma_pictures *p, int64_t e, int camera) { return &p->places[e * p->o.n_cameras + camera]; }

static bool is_present(const soma_pictures *p, int64_t e, int camera) {
    return p->d->format->present(p->d, p->o.episodes[e], p->o.cameras[camera]);
}

int soma__pictures_width(const soma_pictures *p, int camera) { return p->widths[camera]; }
int soma__pictures_height(const soma_pictures *p, int camera) { return p->heights[camera]; }

size_t soma__pictures_size(const soma_pictures *p, int camera) { return (size_t)p->widths[camera] * (size_t)p->heights[camera] * 3; }

static size_t size_of(const soma_pictures *p, int64_t e, int camera) {
    return (size_t)p->d->episodes[p->o.episodes[e]].n_frames * soma__pictures_size(p, camera);
}

void soma__pictures_places(const soma_pictures *p, int64_t *disk, int64_t *memory, int64_t *on_demand) {
    *disk = *memory = *on_demand = 0;
    for (int64_t e = 0; e < p->o.n_episodes; e++)
        for (int c = 0; c < p->o.n_cameras; c++) {
            const place *at = place_of(p, e, c);
            int64_t n = is_present(p, e, c) ? p->d->episodes[p->o.episodes[e]].n_frames : 0;
            *(at->path ? disk : at->memory ? memory : on_demand) += n;
        }
}

// ---- the folder

typedef struct kept_file {
    char *path;
    int64_t size;
    time_t used;
} kept_file;

typedef struct kept_files {
    kept_file *files;
    size_t n, room, next; // those before `next` are gone
    uint64_t size;        // of all
} kept_files;

static bool is_ours(const char *name) {
    return !strncmp(name, "pictures-", 9) && strlen(name) > 13 && !strcmp(name + strlen(name) - 4, ".npy");
}

static int by_use(const void *a, const void *b) {
    const kept_file *x = a, *y = b;
    return x->used < y->used ? -1 : x->used > y->used;
}

static void forget(kept_files *k) {
    for (size_t i = 0; i < k->n; i++) soma__free(k->files[i].path);
    soma__free(k->files);
}

static soma_status look(kept_files *k, const char *folder, soma_error *err) {
    char **names, path[SOMA_PATH_MAX];
    size_t n;
    struct stat st;
    SOMA_TRY(soma__dir_make(folder, err));
    SOMA_TRY(soma__dir_list(&names, &n, folder, err));
    soma_status status = SOMA_OK;
    for (size_t i = 0; i < n && status == SOMA_OK; i++) {
        if (!is_ours(names[i])) continue;
        status = soma__path_join(path, folder, names[i], err);
        if (status != SOMA_OK || stat(path, &st)) continue; // gone since
        char *copy = soma__strdup(path);
        if (!copy || !SOMA_PUSH_ROOM(k->files, k->n, k->room)) {
            soma__free(copy);
            status = soma__no_memory(err, folder);
            continue;
        }
        k->files[k->n++] = (kept_file){copy, st.st_size, st.st_mtime};
        k->size += (uint64_t)st.st_size;
    }
    soma__dir_list_free(names, n);
    if (k->n) qsort(k->files, k->n, sizeof *k->files, by_use);
    return status;
}

// Removes what was not used lately until `size` more bytes fit. Whoever still has a removed file mapped keeps it until he is done.
static bool make_room(kept_files *k, uint64_t size, uint64_t limit) {
    while (k->size + size > limit && k->next < k->n && k->files[k->next].used < time(NULL) - RECENT) {
        kept_file *oldest = &k->files[k->next++];
        unlink(oldest->path);
        k->size -= (uint64_t)oldest->size;
    }
    return k->size + size <= limit;
}

// The path of a place's file; "" where the format cannot say what its pictures come from.
static soma_status name_file(char out[SOMA_PATH_MAX], const soma_pictures *p, int64_t e, int camera, soma_error *err) {
    char source[SOMA_PATH_MAX], *absolute, name[80];
    const soma_dataset_format *format = p->d->format;
    const int64_t episode = p->o.episodes[e];
    double start;
    struct stat st;
    out[0] = 0;
    if (!format->source) return SOMA_OK;
    SOMA_TRY(format->source(source, &start, p->d, episode, p->o.cameras[camera], err));
    if (!(absolute = realpath(source, NULL)) || stat(absolute, &st)) {
        free(absolute);
        return soma__fail(err, SOMA_NOT_FOUND, "%s: cannot be found any more", source);
    }
    const char *feature = p->d->features[p->o.cameras[camera]].name;
    const int64_t numbers[] = {(int64_t)st.st_size,
                               (int64_t)st.st_mtim.tv_sec,
                               (int64_t)st.st_mtim.tv_nsec,
                               p->d->episodes[episode].index,
                               p->d->episodes[episode].n_frames,
                               p->widths[camera],
                               p->heights[camera],
                               p->o.side};
    uint64_t key = soma__hash(SOMA_HASH_START, absolute, strlen(absolute) + 1);
    key = soma__hash(key, feature, strlen(feature) + 1);
    key = soma__hash(key, numbers, sizeof numbers);
    key = soma__hash(key, &start, sizeof start);
    free(absolute);
    snprintf(name, sizeof name, "pictures-%016llx.npy", (unsigned long long)key);
    return soma__path_join(out, p->folder, name, err);
}

static soma_status plan_file(soma_pictures *p, kept_files *k, int64_t e, int camera, soma_error *err) {
    char path[SOMA_PATH_MAX];
    const uint64_t size = size_of(p, e, camera) + SOMA_NPY_HEADER;
    SOMA_TRY(name_file(path, p, e, camera, err));
    if (!path[0]) return SOMA_OK;
    const bool there = soma__file_exists(path);
    if (!there && !make_room(k, size, p->o.disk)) return SOMA_OK;
    if (!(place_of(p, e, camera)->path = soma__strdup(path))) return soma__no_memory(err, "the decoded pictures of a dataset");
    if (there) utimensat(AT_FDCWD, path, NULL, 0); // in use
    if (!there) k->size += size;
    return SOMA_OK;
}

// What is there already is noted first, so that it is not removed to make room.
static soma_status plan_disk(soma_pictures *p, soma_error *err) {
    kept_files k = {0};
    char path[SOMA_PATH_MAX];
    soma_status status = soma__dir_make(p->folder, err);
    for (int64_t e = 0; e < p->o.n_episodes; e++)
        for (int c = 0; c < p->o.n_cameras && status == SOMA_OK; c++) {
            if (is_present(p, e, c)) status = name_file(path, p, e, c, err);
            if (status == SOMA_OK && is_present(p, e, c) && path[0]) utimensat(AT_FDCWD, path, NULL, 0);
        }
    if (status == SOMA_OK) status = look(&k, p->folder, err);
    for (int64_t e = 0; e < p->o.n_episodes; e++)
        for (int c = 0; c < p->o.n_cameras && status == SOMA_OK; c++)
            if (is_present(p, e, c)) status = plan_file(p, &k, e, c, err);
    forget(&k);
    return status;
}

static soma_status plan_memory(soma_pictures *p, soma_error *err) {
    size_t left = p->o.memory;
    for (int64_t e = 0; e < p->o.n_episodes; e++)
        for (int c = 0; c < p->o.n_cameras; c++) {
            place *at = place_of(p, e, c);
            const size_t size = size_of(p, e, c);
            if (at->path || !size || size > left || !is_present(p, e, c)) continue;
            if (!(at->memory = soma__alloc(size))) return soma__no_memory(err, "the decoded pictures of a dataset");
            left -= size;
        }
    return SOMA_OK;
}

// ---- opening

static soma_status start(soma_pictures *p, soma_error *err) {
    for (int c = 0; c < p->o.n_cameras; c++) {
        const soma_feature *f = &p->d->features[p->o.cameras[c]];
        p->widths[c] = p->o.side ? p->o.side : (int)f->shape[1];
        p->heights[c] = p->o.side ? p->o.side : (int)f->shape[0];
    }
    p->places = soma__calloc((size_t)(p->o.n_episodes * p->o.n_cameras) + 1, sizeof *p->places);
    if (!p->places) return soma__no_memory(err, "the decoded pictures of a dataset");
    const bool folder = p->o.folder && *p->o.folder;
    if (folder && !(p->folder = soma__strdup(p->o.folder))) return soma__no_memory(err, "the decoded pictures of a dataset");
    if (folder) SOMA_TRY(plan_disk(p, err));
    return plan_memory(p, err);
}

soma_status soma__pictures_new(soma_pictures **out, const soma_dataset *d, const soma_pictures_opts *o, soma_error *err) {
    soma_pictures *p = *out = soma__calloc(1, sizeof *p);
    if (!p) return soma__no_memory(err, "the decoded pictures of a dataset");
    p->d = d;
    p->o = *o;
    soma_status status = start(p, err);
    if (status == SOMA_OK) return SOMA_OK;
    soma__pictures_free(p);
    *out = NULL;
    return status;
}

void soma__pictures_free(soma_pictures *p) {
    if (!p) return;
    for (int64_t i = 0; p->places && i < p->o.n_episodes * p->o.n_cameras; i++) {
        soma__free(p->places[i].path);
        soma__free(p->places[i].memory);
        soma__file_unmap(&p->places[i].map);
    }
    soma__free(p->places);
    soma__free(p->folder);
    soma__free(p);
}

// ---- decoding

soma_status soma__pictures_hand_open(soma_pictures_hand *hand, const soma_pictures *p, soma_error *err) {
    *hand = (soma_pictures_hand){0};
    return p->d->format->reader_open(&hand->reader, p->d, err);
}

void soma__pictures_hand_close(soma_pictures_hand *hand, const soma_pictures *p) {
    if (hand->reader) p->d->format->reader_close(hand->reader);
    for (int c = 0; c < SOMA_PICTURES_CAMERAS; c++) soma__resizer_free(hand->resizers[c]);
    soma__free(hand->whole);
    *hand = (soma_pictures_hand){0};
}

// A resizer is made at its first picture, and room for the largest one.
static soma_status make_resizer(const soma_pictures *p, soma_pictures_hand *hand, int camera, soma_error *err) {
    const soma_feature *f = &p->d->features[p->o.cameras[camera]];
    size_t largest = 0;
    for (int c = 0; c < p->o.n_cameras; c++) largest = SOMA_MAX(largest, (size_t)p->d->features[p->o.cameras[c]].size);
    if (!hand->whole && !(hand->whole = soma__alloc(largest))) return soma__no_memory(err, "a picture");
    return soma__resizer_new(&hand->resizers[camera], SOMA_RESIZE_PIL, (int)f->shape[1], (int)f->shape[0], p->widths[camera],
                             p->heights[camera], err);
}

static soma_status decode(const soma_pictures *p, soma_pictures_hand *hand, int64_t e, int64_t frame, int camera, uint8_t *out,
                          soma_error *err) {
    const int feature = p->o.cameras[camera];
    const soma_feature *f = &p->d->features[feature];
    const bool same = f->shape[1] == p->widths[camera] && f->shape[0] == p->heights[camera];
    if (!same && !hand->resizers[camera]) SOMA_TRY(make_resizer(p, hand, camera, err));
    SOMA_TRY(p->d->format->read_image(hand->reader, p->o.episodes[e], frame, feature, same ? out : hand->whole, err));
    if (!same) soma__resizer_u8(hand->resizers[camera], hand->whole, out);
    return SOMA_OK;
}

// The mapped file of a place, if it is what it should be.
static bool map_file(soma_pictures *p, place *at, int64_t e, int camera) {
    const int64_t shape[] = {p->d->episodes[p->o.episodes[e]].n_frames, p->heights[camera], p->widths[camera], 3};
    soma_npy array;
    if (!soma__file_exists(at->path) || soma__file_map(&at->map, at->path, NULL)) return false;
    if (!soma__npy_parse(&array, at->map.data, at->map.size, at->path, NULL) && array.dtype == SOMA_U8 && array.n_dims == 4 &&
        !memcmp(array.shape, shape, sizeof shape)) {
        at->first = array.data;
        return true;
    }
    soma__file_unmap(&at->map);
    at->map = (soma_file_map){0};
    return false;
}

static soma_status write_file(soma_pictures *p, soma_pictures_hand *hand, const place *at, int64_t e, int camera, soma_error *err) {
    const int64_t n = p->d->episodes[p->o.episodes[e]].n_frames, shape[] = {n, p->heights[camera], p->widths[camera], 3};
    char header[SOMA_NPY_HEADER];
    uint8_t *picture = soma__alloc(soma__pictures_size(p, camera));
    soma_file_writer w = {0};
    soma_status status = picture ? soma__file_writer_open(&w, at->path, err) : soma__no_memory(err, "a picture");
    if (status == SOMA_OK) status = soma__file_writer_put(&w, header, soma__npy_header(header, SOMA_U8, shape, 4), err);
    for (int64_t i = 0; i < n && status == SOMA_OK; i++) {
        status = decode(p, hand, e, i, camera, picture, err);
        if (status == SOMA_OK) status = soma__file_writer_put(&w, picture, soma__pictures_size(p, camera), err);
    }
    if (status == SOMA_OK) status = soma__file_writer_commit(&w, err);
    soma__file_writer_close(&w);
    soma__free(picture);
    return status;
}

// Ranks that share the folder come by the same episode at different times, and find it there.
static soma_status fill_file(soma_pictures *p, soma_pictures_hand *hand, place *at, int64_t e, int camera, soma_error *err) {
    if (map_file(p, at, e, camera)) return SOMA_OK;
    SOMA_TRY(write_file(p, hand, at, e, camera, err));
    if (!map_file(p, at, e, camera)) soma__log(SOMA_LOG_WARN, "%s: is gone again; its pictures are decoded on demand", at->path);
    return SOMA_OK;
}

soma_status soma__pictures_fill(soma_pictures *p, soma_pictures_hand *hand, int64_t e, soma_error *err) {
    const int64_t n = p->d->episodes[p->o.episodes[e]].n_frames;
    for (int c = 0; c < p->o.n_cameras; c++) {
        place *at = place_of(p, e, c);
        if (at->first) continue;
        if (at->path) SOMA_TRY(fill_file(p, hand, at, e, c, err));
        for (int64_t i = 0; at->memory && i < n; i++)
            SOMA_TRY(decode(p, hand, e, i, c, at->memory + (size_t)i * soma__pictures_size(p, c), err));
        if (at->memory) at->first = at->memory;
    }
    return SOMA_OK;
}

soma_status soma__pictures_get(const soma_pictures *p, soma_pictures_hand *hand, int64_t e, int64_t frame, int camera, uint8_t *out,
                               soma_error *err) {
    const uint8_t *first = place_of(p, e, camera)->first;
    const size_t size = soma__pictures_size(p, camera);
    if (!first) return decode(p, hand, e, frame, camera, out, err);
    memcpy(out, first + (size_t)frame * size, size);
    return SOMA_OK;
}
