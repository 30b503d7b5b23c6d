// SPDX-License-Identifier: Apache-2.0
// A small reader of protobuf's wire form, as far as tf.train.Example goes:
//   Example { Features features = 1 }   Features { map<string, Feature> feature = 1 }   Feature { BytesList 1 | FloatList 2 | Int64List 3 }
// and each list has its values in field 1, packed or one by one. Fields that are not known are passed over, as protobuf wants it.
#include "format/example.h"

#include <string.h>

typedef struct wire {
    const unsigned char *at, *end;
} wire;

typedef struct field {
    uint32_t number, type; // type 0: varint, 1: 8 bytes, 2: bytes, 5: 4 bytes
    uint64_t value;        // of a varint
    soma_span bytes;       // of the other types
} field;

enum { VARINT = 0, EIGHT = 1, BYTES = 2, FOUR = 5 };

static bool read_varint(wire *w, uint64_t *value) {
    *value = 0;
    for (int shift = 0; shift < 64 && w->at < w->end; shift += 7) {
        unsigned char byte = *w->at++;
        *value |= (uint64_t)(byte & 127) << shift;
        if (byte < 128) return true;
    }
    return false;
}

// The next field; false at a malformed one, with w->at where it broke.
static bool read_field(wire *w, field *f) {
    uint64_t tag, size = 0;
    const unsigned char *start = w->at;
    if (!read_varint(w, &tag)) return false;
    *f = (field){.number = (uint32_t)(tag >> 3), .type = (uint32_t)(tag & 7)};
    bool ok = tag >> 3 != 0 && tag >> 32 == 0;
    if (ok && f->type == VARINT) return read_varint(w, &f->value);
    if (ok && f->type == BYTES) ok = read_varint(w, &size);
    if (f->type == EIGHT) size = 8;
    if (f->type == FOUR) size = 4;
    ok = ok && (f->type == EIGHT || f->type == BYTES || f->type == FOUR) && size <= (uint64_t)(w->end - w->at);
    if (!ok) {
        w->at = start;
        return false;
    }
    f->bytes = (soma_span){w->at, (size_t)size};
    w->at += size;
    return true;
}

static soma_status fail_at(const soma_example *e, const unsigned char *at, const char *where, soma_error *err) {
    return soma__fail(err, SOMA_BAD_INPUT, "%s: byte %zu of its data is no part of a tf.train.Example", where, (size_t)(at - e->data));
}

static wire wire_of(soma_span s) { return (wire){s.data, s.size ? s.data + s.size : s.data}; } // an empty record has no bytes at all

// ---- the map

static soma_status parse_feature(soma_example *e, soma_example_list *list, soma_span bytes, const char *where, soma_error *err) {
    wire w = wire_of(bytes);
    field f;
    while (w.at < w.end) {
        if (!read_field(&w, &f)) return fail_at(e, w.at, where, err);
        if (f.number < 1 || f.number > 3 || f.type != BYTES) continue;
        list->kind = (soma_example_kind)f.number; // the numbers of the three lists are those of the kinds
        list->values = f.bytes;
    }
    return SOMA_OK;
}

static soma_status parse_entry(soma_example *e, soma_span bytes, const char *where, soma_error *err) {
    soma_example_list list = {0};
    wire w = wire_of(bytes);
    field f;
    while (w.at < w.end) {
        if (!read_field(&w, &f)) return fail_at(e, w.at, where, err);
        if (f.number == 1 && f.type == BYTES) list.name = f.bytes;
        if (f.number == 2 && f.type == BYTES) SOMA_TRY(parse_feature(e, &list, f.bytes, where, err));
    }
    if (!SOMA_PUSH_ROOM(e->lists, e->n_lists, e->room)) return soma__no_memory(err, where);
    e->lists[e->n_lists++] = list;
    return SOMA_OK;
}

static soma_status parse_features(soma_example *e, soma_span bytes, const char *where, soma_error *err) {
    wire w = wire_of(bytes);
    field f;
    while (w.at < w.end) {
        if (!read_field(&w, &f)) return fail_at(e, w.at, where, err);
        if (f.number == 1 && f.type == BYTES) SOMA_TRY(parse_entry(e, f.bytes, where, err));
    }
    return SOMA_OK;
}

soma_status soma__example_parse(soma_example *e, const unsigned char *data, size_t size, const char *where, soma_error *err) {
    e->data = data;
    e->n_lists = 0;
    wire w = {data, data + size};
    field f;
    while (w.at < w.end) {
        if (!read_field(&w, &f)) return fail_at(e, w.at, where, err);
        if (f.number == 1 && f.type == BYTES) SOMA_TRY(parse_features(e, f.bytes, where, err));
    }
    return SOMA_OK;
}

void soma__example_free(soma_example *e) {
    soma__free(e->lists);
    *e = (soma_example){0};
}

const soma_example_list *soma__example_find(const soma_example *e, const char *name) {
    size_t len = strlen(name);
    for (size_t i = e->n_lists; i-- > 0;)
        if (e->lists[i].name.size == len && !memcmp(e->lists[i].name.data, name, len)) return &e->lists[i];
    return NULL;
}

// ---- values

static bool is_wrong(const soma_example_list *l, const field *f) {
    uint32_t alone = l->kind == SOMA_EXAMPLE_FLOAT ? FOUR : l->kind == SOMA_EXAMPLE_INT ? VARINT : BYTES;
    if (f->type == BYTES && l->kind == SOMA_EXAMPLE_FLOAT) return f->bytes.size % 4 != 0;
    return f->type != alone && f->type != BYTES;
}

soma_status soma__example_count(int64_t *n, const soma_example *e, const soma_example_list *l, const char *where, soma_error *err) {
    wire w = wire_of(l->values);
    field f;
    *n = 0;
    while (w.at < w.end) {
        const unsigned char *start = w.at;
        if (!read_field(&w, &f)) return fail_at(e, w.at, where, err);
        if (f.number != 1) continue;
        if (is_wrong(l, &f)) return fail_at(e, start, where, err);
        if (f.type != BYTES || l->kind == SOMA_EXAMPLE_BYTES) {
            ++*n;
        } else if (l->kind == SOMA_EXAMPLE_FLOAT) {
            *n += (int64_t)(f.bytes.size / 4);
        } else {
            for (size_t i = 0; i < f.bytes.size; i++) *n += f.bytes.data[i] < 128; // each varint ends with such a byte
        }
    }
    return SOMA_OK;
}

// The values of one field into out[0 .. room); *taken is how many there are. False: malformed, or more than `room`.
static bool take_floats(float *out, int64_t room, int64_t *taken, const soma_example_list *l, const field *f) {
    wire w = wire_of(f->bytes);
    uint64_t value = f->value;
    *taken = 0;
    if (f->type == VARINT) {
        if (room) out[(*taken)++] = (float)(int64_t)value;
        return room > 0;
    }
    while (w.at < w.end && *taken < room) {
        if (l->kind == SOMA_EXAMPLE_FLOAT) {
            memcpy(out + (*taken)++, w.at, 4); // little-endian, as every machine that this runs on
            w.at += 4;
        } else {
            if (!read_varint(&w, &value)) return false;
            out[(*taken)++] = (float)(int64_t)value;
        }
    }
    return w.at == w.end;
}

soma_status soma__example_floats(float *out, int64_t n, const soma_example *e, const soma_example_list *l, const char *where,
                                 soma_error *err) {
    wire w = wire_of(l->values);
    field f;
    int64_t done = 0, taken;
    if (l->kind != SOMA_EXAMPLE_FLOAT && l->kind != SOMA_EXAMPLE_INT)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: \"%.*s\" is no list of numbers", where, (int)SOMA_MIN(l->name.size, 200),
                          (const char *)l->name.data);
    while (w.at < w.end) {
        const unsigned char *start = w.at;
        if (!read_field(&w, &f)) return fail_at(e, w.at, where, err);
        if (f.number != 1) continue;
        if (is_wrong(l, &f) || !take_floats(out + done, n - done, &taken, l, &f)) return fail_at(e, start, where, err);
        done += taken;
    }
    if (done == n) return SOMA_OK;
    return soma__fail(err, SOMA_BAD_INPUT, "%s: \"%.*s\" has %lld numbers, wanted are %lld", where, (int)SOMA_MIN(l->name.size, 200),
                      (const char *)l->name.data, (long long)done, (long long)n);
}

soma_status soma__example_bytes(soma_span *out, int64_t index, const soma_example *e, const soma_example_list *l, const char *where,
                                soma_error *err) {
    wire w = wire_of(l->values);
    field f;
    for (int64_t i = 0; w.at < w.end && l->kind == SOMA_EXAMPLE_BYTES;) {
        if (!read_field(&w, &f)) return fail_at(e, w.at, where, err);
        if (f.number != 1 || f.type != BYTES || i++ != index) continue;
        *out = f.bytes;
        return SOMA_OK;
    }
    return soma__fail(err, SOMA_BAD_INPUT, "%s: \"%.*s\" has no text or picture %lld", where, (int)SOMA_MIN(l->name.size, 200),
                      (const char *)l->name.data, (long long)index);
}
