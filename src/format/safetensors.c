// SPDX-License-Identifier: Apache-2.0
// A safetensors file is u64 header length, JSON header {name: {dtype, shape, data_offsets}}, bytes. Everything is checked once at open;
// afterwards a lookup is a binary search. Refused: what the format's authors refuse (holes, overlaps, trailing bytes, headers above
// 100 MB), more than SOMA_MAX_DIMS dimensions, dtypes that soma has no use for.
//
// The file stays mapped: another program that truncates it while it is open ends this one (SIGBUS). Writers that rename, as ours, cannot.
#include "format/safetensors.h"
#include "base/hash.h"
#include "base/file.h"
#include "base/str.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { HEADER_MAX = 100000000, MAX_SHARDS = 10000 };

typedef struct shard {
    soma_file_map map; // size 0 when the bytes are the caller's
    json_t *header;
} shard;

struct soma_safetensors {
    char *path;
    shard *shards;
    size_t n_shards, shards_room;
    soma_safetensor *tensors;
    size_t n_tensors, tensors_room;
    json_t *metadata;
    uint64_t identity;
};

static int by_name(const void *a, const void *b) { return strcmp(((const soma_safetensor *)a)->name, ((const soma_safetensor *)b)->name); }

static int by_data(const void *a, const void *b) {
    const soma_safetensor *x = a, *y = b;
    uintptr_t p = (uintptr_t)x->data, q = (uintptr_t)y->data;
    if (p != q) return p < q ? -1 : 1;
    return x->n_values < y->n_values ? -1 : x->n_values > y->n_values;
}

static size_t size_of(const soma_safetensor *t) { return (size_t)t->n_values * soma_dtype_size(t->dtype); }

// ---- one tensor's entry

static soma_status read_dtype(soma_dtype *dtype, const char *word, const char *where, const char *name, soma_error *err) {
    for (int i = 0; i < SOMA_DTYPE_COUNT; i++)
        if (!strcmp(word, soma_dtype_name((soma_dtype)i))) {
            *dtype = (soma_dtype)i;
            return SOMA_OK;
        }
    return soma__fail(err, SOMA_UNSUPPORTED, "%s: tensor \"%s\" has the dtype \"%.40s\"; known are F32, BF16, F16, F64, I32, I64, U8, BOOL",
                      where, name, word);
}

static soma_status read_shape(soma_safetensor *t, const json_t *entry, const char *where, soma_error *err) {
    const json_t *shape = json_object_get(entry, "shape");
    if (!json_is_array(shape)) return soma__fail(err, SOMA_BAD_INPUT, "%s: tensor \"%s\" has no shape", where, t->name);
    size_t n = json_array_size(shape);
    if (n > SOMA_MAX_DIMS)
        return soma__fail(err, SOMA_UNSUPPORTED, "%s: tensor \"%s\" has %zu dimensions, at most %d are supported", where, t->name, n,
                          SOMA_MAX_DIMS);
    t->n_dims = (int)n;
    t->n_values = 1;
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(shape, i);
        int64_t extent = json_is_integer(v) ? (int64_t)json_integer_value(v) : -1;
        if (extent < 0 || __builtin_mul_overflow(t->n_values, extent, &t->n_values) || t->n_values > INT64_MAX / 8)
            return soma__fail(err, SOMA_BAD_INPUT, "%s: tensor \"%s\" has an impossible shape (dimension %zu)", where, t->name, i);
        t->shape[i] = extent;
    }
    return SOMA_OK;
}

// `data`, `size`: the byte buffer behind the header.
static soma_status read_entry(soma_safetensor *t, const json_t *entry, const unsigned char *data, size_t size, const char *where,
                              soma_error *err) {
    const char *word = json_string_value(json_object_get(entry, "dtype"));
    if (!word) return soma__fail(err, SOMA_BAD_INPUT, "%s: tensor \"%s\" has no dtype", where, t->name);
    SOMA_TRY(read_dtype(&t->dtype, word, where, t->name, err));
    SOMA_TRY(read_shape(t, entry, where, err));
    const json_t *offsets = json_object_get(entry, "data_offsets");
    const json_t *first = json_array_get(offsets, 0), *last = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(first) || !json_is_integer(last))
        return soma__fail(err, SOMA_BAD_INPUT, "%s: tensor \"%s\" has no data_offsets [begin, end]", where, t->name);
    int64_t begin = (int64_t)json_integer_value(first), end = (int64_t)json_integer_value(last);
    if (begin < 0 || end < begin || (uint64_t)end > size)
        return soma__fail(err, SOMA_BAD_INPUT,
                          "%s: tensor \"%s\" lies at bytes %lld to %lld of %zu; the file is truncated or its header lies", where, t->name,
                          (long long)begin, (long long)end, size);
    if (size_of(t) != (size_t)(end - begin)) {
        char shape[160];
        return soma__fail(err, SOMA_BAD_INPUT, "%s: tensor \"%s\" of %s %s needs %zu bytes but is given %lld", where, t->name, word,
                          soma__safetensor_shape(shape, t), size_of(t), (long long)(end - begin));
    }
    t->data = data + begin;
    return SOMA_OK;
}

// ---- one file

// The tensors of a shard, sorted by place, fill its bytes without hole or overlap.
static soma_status check_cover(soma_safetensor *tensors, size_t n, const unsigned char *data, size_t size, const char *where,
                               soma_error *err) {
    if (n) qsort(tensors, n, sizeof *tensors, by_data);
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        size_t begin = (size_t)((const unsigned char *)tensors[i].data - data);
        if (begin < at)
            return soma__fail(err, SOMA_BAD_INPUT, "%s: tensors \"%s\" and \"%s\" overlap", where, tensors[i - 1].name, tensors[i].name);
        if (begin > at)
            return soma__fail(err, SOMA_BAD_INPUT, "%s: %zu bytes before tensor \"%s\" belong to no tensor", where, begin - at,
                              tensors[i].name);
        at = begin + size_of(&tensors[i]);
    }
    if (at != size) return soma__fail(err, SOMA_BAD_INPUT, "%s: %zu bytes at the end belong to no tensor", where, size - at);
    return SOMA_OK;
}

static soma_status add_metadata(soma_safetensors *st, const json_t *map, const char *where, soma_error *err) {
    if (!map) return SOMA_OK;
    if (!json_is_object(map)) return soma__fail(err, SOMA_BAD_INPUT, "%s: __metadata__ must be a map of strings", where);
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)map, key, value) {
        if (!json_is_string(value)) return soma__fail(err, SOMA_BAD_INPUT, "%s: __metadata__ \"%s\" must be a string", where, key);
        if (!json_object_get(st->metadata, key) && json_object_set(st->metadata, key, value)) return soma__no_memory(err, where);
    }
    return SOMA_OK;
}

// Appends the tensors of one file. `s->header` belongs to the shard afterwards.
static soma_status add_bytes(soma_safetensors *st, shard *s, const unsigned char *bytes, size_t size, const char *where, soma_error *err) {
    if (size < 8) return soma__fail(err, SOMA_BAD_INPUT, "%s: %zu bytes are too few for a safetensors file", where, size);
    uint64_t len = 0;
    for (int i = 7; i >= 0; i--) len = len << 8 | bytes[i];
    if (len > HEADER_MAX)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: a header of %llu bytes; this is not a safetensors file", where,
                          (unsigned long long)len);
    if (len > size - 8)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: the header should have %llu bytes but the file ends after %zu; it is truncated", where,
                          (unsigned long long)len, size - 8);
    const int64_t told[] = {(int64_t)size, s->map.changed};
    st->identity = soma__hash(soma__hash(st->identity, bytes, 8 + (size_t)len), told, sizeof told);
    SOMA_TRY(soma__json_parse(&s->header, (const char *)bytes + 8, (size_t)len, where, err));
    if (!json_is_object(s->header)) return soma__fail(err, SOMA_BAD_INPUT, "%s: the header must be a JSON object", where);
    const unsigned char *data = bytes + 8 + len;
    size_t data_size = size - 8 - (size_t)len, before = st->n_tensors;
    const char *name;
    json_t *entry;
    json_object_foreach(s->header, name, entry) {
        if (!strcmp(name, "__metadata__")) {
            SOMA_TRY(add_metadata(st, entry, where, err));
            continue;
        }
        if (!SOMA_PUSH_ROOM(st->tensors, st->n_tensors, st->tensors_room)) return soma__no_memory(err, where);
        soma_safetensor *t = &st->tensors[st->n_tensors];
        *t = (soma_safetensor){.name = name}; // the key lives as long as the header
        SOMA_TRY(read_entry(t, entry, data, data_size, where, err));
        st->n_tensors++;
    }
    return check_cover(st->tensors + before, st->n_tensors - before, data, data_size, where, err);
}

static soma_status new_shard(soma_safetensors *st, shard **s, soma_error *err) {
    if (!SOMA_PUSH_ROOM(st->shards, st->n_shards, st->shards_room)) return soma__no_memory(err, st->path);
    *s = &st->shards[st->n_shards++];
    **s = (shard){0};
    return SOMA_OK;
}

static soma_status add_file(soma_safetensors *st, const char *path, soma_error *err) {
    shard *s;
    SOMA_TRY(new_shard(st, &s, err));
    SOMA_TRY(soma__file_map(&s->map, path, err));
    return add_bytes(st, s, s->map.data, s->map.size, path, err);
}

uint64_t soma__safetensors_identity(const soma_safetensors *st) { return st->identity; }

// ---- several files

static bool ends_with(const char *s, const char *end) {
    size_t n = strlen(s), m = strlen(end);
    return n >= m && !strcmp(s + n - m, end);
}

// Opens every file that the index names, then holds each of its lines against what was found.
static soma_status add_index(soma_safetensors *st, const char *path, const json_t *index, soma_error *err) {
    const json_t *map = json_object_get(index, "weight_map");
    if (!json_is_object(map)) return soma__fail(err, SOMA_BAD_INPUT, "%s: no weight_map of tensor names to files", path);
    const char *slash = strrchr(path, '/');
    char dir[SOMA_PATH_MAX] = ".";
    if (slash) snprintf(dir, sizeof dir, "%.*s", (int)(slash - path + 1), path);
    json_t *opened = json_object(); // file name -> true
    soma_status status = opened ? SOMA_OK : soma__no_memory(err, path);
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)map, name, value) {
        const char *file = json_string_value(value);
        if (status != SOMA_OK) break;
        if (!file || strchr(file, '/') || !ends_with(file, ".safetensors")) {
            status = soma__fail(err, SOMA_BAD_INPUT, "%s: tensor \"%s\" must name a .safetensors file of the same folder", path, name);
        } else if (!json_object_get(opened, file)) {
            char shard_path[SOMA_PATH_MAX];
            status = soma__path_join(shard_path, dir, file, err);
            if (status == SOMA_OK && st->n_shards >= MAX_SHARDS) status = soma__fail(err, SOMA_BAD_INPUT, "%s: too many files", path);
            if (status == SOMA_OK) status = add_file(st, shard_path, err);
            if (status == SOMA_OK && json_object_set_new(opened, file, json_true())) status = soma__no_memory(err, path);
        }
    }
    json_decref(opened);
    return status;
}

static soma_status check_index(const soma_safetensors *st, const char *path, const json_t *index, soma_error *err) {
    const char *name;
    json_t *value;
    json_object_foreach(json_object_get(index, "weight_map"), name, value) {
        if (!soma__safetensors_find(st, name))
            return soma__fail(err, SOMA_BAD_INPUT, "%s: tensor \"%s\" is not in %s", path, name, json_string_value(value));
    }
    return SOMA_OK;
}

// ---- opening

static soma_status start(soma_safetensors **out, const char *path, soma_error *err) {
    soma_safetensors *st = *out = soma__calloc(1, sizeof *st);
    if (!st) return soma__no_memory(err, path);
    st->path = soma__strdup(path);
    st->metadata = json_object();
    return st->path && st->metadata ? SOMA_OK : soma__no_memory(err, path);
}

static soma_status sort_names(soma_safetensors *st, soma_error *err) {
    if (st->n_tensors) qsort(st->tensors, st->n_tensors, sizeof *st->tensors, by_name);
    for (size_t i = 1; i < st->n_tensors; i++)
        if (!strcmp(st->tensors[i].name, st->tensors[i - 1].name))
            return soma__fail(err, SOMA_BAD_INPUT, "%s: tensor \"%s\" is in two files", st->path, st->tensors[i].name);
    return SOMA_OK;
}

static soma_status open_path(soma_safetensors *st, const char *path, soma_error *err) {
    char file[SOMA_PATH_MAX];
    if (soma__dir_exists(path)) {
        SOMA_TRY(soma__path_join(file, path, "model.safetensors", err));
        if (!soma__file_exists(file)) SOMA_TRY(soma__path_join(file, path, "model.safetensors.index.json", err));
        if (!soma__file_exists(file))
            return soma__fail(err, SOMA_NOT_FOUND, "%s: holds neither model.safetensors nor model.safetensors.index.json", path);
    } else {
        SOMA_TRY(soma__path_join(file, "", path, err));
    }
    if (!ends_with(file, ".json")) {
        SOMA_TRY(add_file(st, file, err));
        return sort_names(st, err);
    }
    json_t *index;
    SOMA_TRY(soma__json_load(&index, file, err));
    soma_status status = add_index(st, file, index, err);
    if (status == SOMA_OK) status = sort_names(st, err);
    if (status == SOMA_OK) status = check_index(st, file, index, err);
    json_decref(index);
    return status;
}

soma_status soma__safetensors_open(soma_safetensors **out, const char *path, soma_error *err) {
    soma_status status = start(out, path, err);
    if (status == SOMA_OK) status = open_path(*out, path, err);
    if (status == SOMA_OK) return SOMA_OK;
    soma__safetensors_close(*out);
    *out = NULL;
    return status;
}

soma_status soma__safetensors_open_bytes(soma_safetensors **out, const void *bytes, size_t size, const char *where, soma_error *err) {
    soma_status status = start(out, where, err);
    shard *s;
    if (status == SOMA_OK) status = new_shard(*out, &s, err);
    if (status == SOMA_OK) status = add_bytes(*out, s, bytes, size, where, err);
    if (status == SOMA_OK) status = sort_names(*out, err);
    if (status == SOMA_OK) return SOMA_OK;
    soma__safetensors_close(*out);
    *out = NULL;
    return status;
}

void soma__safetensors_close(soma_safetensors *st) {
    if (!st) return;
    for (size_t i = 0; i < st->n_shards; i++) {
        json_decref(st->shards[i].header);
        soma__file_unmap(&st->shards[i].map);
    }
    soma__free(st->shards);
    soma__free(st->tensors);
    soma__free(st->path);
    json_decref(st->metadata);
    soma__free(st);
}

// ---- reading

const char *soma__safetensors_path(const soma_safetensors *st) { return st->path; }
size_t soma__safetensors_count(const soma_safetensors *st) { return st->n_tensors; }

const soma_safetensor *soma__safetensors_at(const soma_safetensors *st, size_t i) {
    SOMA_CHECK(i < st->n_tensors, "a tensor's index is below soma__safetensors_count");
    return &st->tensors[i];
}

const soma_safetensor *soma__safetensors_find(const soma_safetensors *st, const char *name) {
    soma_safetensor key = {.name = name};
    return st->n_tensors ? bsearch(&key, st->tensors, st->n_tensors, sizeof key, by_name) : NULL;
}

const char *soma__safetensors_metadata(const soma_safetensors *st, const char *key) {
    return json_string_value(json_object_get(st->metadata, key));
}

const json_t *soma__safetensors_metadata_all(const soma_safetensors *st) { return st->metadata; }

void soma__safetensors_forget(const soma_safetensors *st, const void *data, size_t size) {
    for (size_t i = 0; i < st->n_shards; i++) {
        const soma_file_map *m = &st->shards[i].map;
        if (m->data && (uintptr_t)data >= (uintptr_t)m->data && (uintptr_t)data < (uintptr_t)m->data + m->size)
            soma__file_map_forget(m, (size_t)((const unsigned char *)data - m->data), size);
    }
}

bool soma__safetensor_aligned(const soma_safetensor *t) { return (uintptr_t)t->data % soma_dtype_size(t->dtype) == 0; }

const char *soma__safetensor_shape(char out[160], const soma_safetensor *t) {
    size_t len = 0;
    out[len++] = '[';
    for (int i = 0; i < t->n_dims; i++) len += (size_t)snprintf(out + len, 160 - len, "%s%lld", i ? ", " : "", (long long)t->shape[i]);
    snprintf(out + len, 160 - len, "]");
    return out;
}

static float f32_of_bits(uint32_t bits) {
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static float f32_of_f16(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exponent = h >> 10 & 31u, fraction = h & 0x3ffu;
    if (exponent == 31) return f32_of_bits(sign | 0x7f800000u | fraction << 13);
    if (exponent) return f32_of_bits(sign | (exponent + 112) << 23 | fraction << 13);
    float f = (float)fraction * 0x1p-24f; // zero and subnormals
    return sign ? -f : f;
}

void soma__to_f32(float *out, soma_dtype dtype, const void *data, int64_t n) {
    const unsigned char *p = data;
#define EACH(type, expression)                          \
    for (int64_t i = 0; i < n; i++) {                   \
        type v;                                         \
        memcpy(&v, p + (size_t)i * sizeof v, sizeof v); \
        out[i] = (expression);                          \
    }                                                   \
    break
    switch (dtype) {
    case SOMA_F32: memcpy(out, p, (size_t)n * sizeof *out); break;
    case SOMA_BF16: EACH(uint16_t, f32_of_bits((uint32_t)v << 16));
    case SOMA_F16: EACH(uint16_t, f32_of_f16(v));
    case SOMA_F64: EACH(double, (float)v);
    case SOMA_I64: EACH(int64_t, (float)v);
    case SOMA_I32: EACH(int32_t, (float)v);
    case SOMA_U8: EACH(uint8_t, (float)v);
    case SOMA_BOOL: EACH(uint8_t, v ? 1.0f : 0.0f);
    case SOMA_DTYPE_COUNT: break;
    }
#undef EACH
}

static int64_t count_values(const soma_safetensor *t) {
    int64_t n = 1;
    for (int i = 0; i < t->n_dims; i++) n *= t->shape[i];
    return n;
}

static double value_at(const soma_safetensor *t, int64_t i) {
    const char *at = (const char *)t->data + (size_t)i * soma_dtype_size(t->dtype);
    double v;
    float f;
    int64_t n;
    if (t->dtype == SOMA_F64) return memcpy(&v, at, sizeof v), v;
    if (t->dtype == SOMA_I64) return memcpy(&n, at, sizeof n), (double)n;
    soma__to_f32(&f, t->dtype, at, 1);
    return f;
}

soma_difference soma__safetensor_difference(const soma_safetensor *got, const soma_safetensor *want, const soma_safetensor *rows) {
    soma_difference d = {0};
    double off = 0, all = 0;
    const int64_t n = count_values(want), B = rows ? rows->shape[0] : 1, S = rows ? rows->shape[1] : 1;
    const int64_t D = want->n_dims > 2 ? want->shape[want->n_dims - 1] : 1;
    for (int64_t i = 0; i < n; i++) {
        if (rows && !((const uint8_t *)rows->data)[i / (n / B) * S + i / D % S]) continue;
        double x = value_at(got, i), y = value_at(want, i), apart = fabs(x - y), size = fmax(1, fabs(y));
        if (!(apart <= d.max_abs) && !isnan(d.max_abs)) d.max_abs = apart;
        if (!(apart / size <= d.each) && !isnan(d.each)) d.each = apart / size;
        off += apart * apart;
        all += y * y;
    }
    d.norm = sqrt(all);
    d.relative = sqrt(all > 0 ? off / all : off);
    return d;
}

// ---- writing

static int by_pointed_name(const void *a, const void *b) {
    return strcmp((*(const soma_safetensor *const *)a)->name, (*(const soma_safetensor *const *)b)->name);
}

static int by_layout(const void *a, const void *b) {
    const soma_safetensor *x = *(const soma_safetensor *const *)a, *y = *(const soma_safetensor *const *)b;
    size_t p = soma_dtype_size(x->dtype), q = soma_dtype_size(y->dtype);
    return p != q ? (p > q ? -1 : 1) : strcmp(x->name, y->name);
}

static void add_quoted(soma_str *out, const char *text) {
    soma__str_add(out, "\"");
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\' || c < 0x20) {
            soma__str_printf(out, "\\u%04x", c);
        } else {
            soma__str_add_bytes(out, text, 1);
        }
    }
    soma__str_add(out, "\"");
}

// The header for tensors in the order given. Written by hand: jansson's json_dumps overlooks some failed allocations and would leave pieces
// out.
static void header_of(soma_str *out, const soma_safetensor *const *order, size_t n, const json_t *metadata) {
    const char *comma = "{", *key;
    json_t *value;
    if (metadata) {
        soma__str_add(out, "{\"__metadata__\":");
        json_object_foreach((json_t *)metadata, key, value) {
            soma__str_add(out, comma);
            add_quoted(out, key);
            soma__str_add(out, ":");
            add_quoted(out, json_string_value(value));
            comma = ",";
        }
        soma__str_add(out, *comma == '{' ? "{}" : "}");
        comma = ",";
    }
    int64_t at = 0;
    for (size_t i = 0; i < n; i++) {
        const soma_safetensor *t = order[i];
        char shape[160];
        int64_t end = at + count_values(t) * (int64_t)soma_dtype_size(t->dtype);
        soma__str_add(out, comma);
        add_quoted(out, t->name);
        soma__str_printf(out, ":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%lld,%lld]}", soma_dtype_name(t->dtype),
                         soma__safetensor_shape(shape, t), (long long)at, (long long)end);
        comma = ",";
        at = end;
    }
    soma__str_add(out, *comma == '{' ? "{}" : "}");
}

typedef struct writing {
    const soma_safetensor *tensors, **order; // as given; as they lie in the file
    size_t n;
    soma_safetensor_make *make; // NULL: tensors have data
    void *user;
    void *piece; // room for what is made
} writing;

static soma_status put_tensor(soma_file_writer *w, const writing *o, const soma_safetensor *t, soma_error *err) {
    const int64_t n = count_values(t);
    const size_t size = soma_dtype_size(t->dtype);
    if (!o->make) return soma__file_writer_put(w, t->data, (size_t)n * size, err);
    for (int64_t at = 0, now; at < n; at += now) {
        now = SOMA_MIN(n - at, SOMA_SAFETENSORS_PIECE);
        SOMA_TRY(o->make(o->user, (size_t)(t - o->tensors), at, now, o->piece, err));
        SOMA_TRY(soma__file_writer_put(w, o->piece, (size_t)now * size, err));
    }
    return SOMA_OK;
}

static soma_status put_all(soma_file_writer *w, const soma_str *header, const writing *o, soma_error *err) {
    // spaces behind the header put the first tensor on a cache line of the mapped file
    size_t len = header->len, padded = ((8 + len + 63) & ~(size_t)63) - 8;
    unsigned char prefix[8];
    for (int i = 0; i < 8; i++) prefix[i] = (unsigned char)((uint64_t)padded >> 8 * i);
    SOMA_TRY(soma__file_writer_put(w, prefix, sizeof prefix, err));
    SOMA_TRY(soma__file_writer_put(w, header->text, len, err));
    SOMA_TRY(soma__file_writer_put(w, "                                                                ", padded - len, err));
    for (size_t i = 0; i < o->n; i++) SOMA_TRY(put_tensor(w, o, o->order[i], err));
    return SOMA_OK;
}

soma_status soma__safetensors_write_made(const char *path, const soma_safetensor *tensors, size_t n_tensors, const json_t *metadata,
                                         soma_safetensor_make *make, void *user, soma_error *err) {
    writing o = {.tensors = tensors, .n = n_tensors, .make = make, .user = user};
    o.order = soma__calloc(n_tensors + 1, sizeof *o.order);
    o.piece = make ? soma__alloc(SOMA_SAFETENSORS_PIECE * sizeof(double)) : NULL;
    soma_status status = o.order && (o.piece || !make) ? SOMA_OK : soma__no_memory(err, path);
    for (size_t i = 0; i < n_tensors && status == SOMA_OK; i++) o.order[i] = &tensors[i];
    if (status == SOMA_OK) qsort(o.order, n_tensors, sizeof *o.order, by_pointed_name);
    for (size_t i = 1; i < n_tensors && status == SOMA_OK; i++)
        if (!strcmp(o.order[i]->name, o.order[i - 1]->name))
            status = soma__fail(err, SOMA_BAD_INPUT, "%s: two tensors to be written have the name \"%s\"", path, o.order[i]->name);
    if (status == SOMA_OK) qsort(o.order, n_tensors, sizeof *o.order, by_layout);
    soma_str header = {0};
    soma_file_writer w = {0};
    if (status == SOMA_OK) header_of(&header, o.order, n_tensors, metadata);
    if (status == SOMA_OK && header.failed) status = soma__no_memory(err, path);
    if (status == SOMA_OK) status = soma__file_writer_open(&w, path, err);
    if (status == SOMA_OK) status = put_all(&w, &header, &o, err);
    if (status == SOMA_OK) status = soma__file_writer_commit(&w, err);
    soma__file_writer_close(&w);
    soma__str_free(&header);
    soma__free(o.piece);
    soma__free(o.order);
    return status;
}

soma_status soma__safetensors_write(const char *path, const soma_safetensor *tensors, size_t n_tensors, const json_t *metadata,
                                    soma_error *err) {
    return soma__safetensors_write_made(path, tensors, n_tensors, metadata, NULL, NULL, err);
}
