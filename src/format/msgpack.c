// SPDX-License-Identifier: Apache-2.0
// The grammar is msgpack-c's: its parser template calls our callbacks, its packer writes. Its own object tree is not used, because that one
// allocates by the lengths which a message claims; here a container is charged to a budget of values before memory is taken for it.
#include "format/msgpack.h"

#include <math.h>
#include <msgpack/pack.h>
#include <msgpack/unpack.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- parsing: the callbacks of the template, in the order of msgpack's types

typedef struct reader {
    soma_arena *arena;
    bool str_keys;
    uint32_t n_values; // containers' places promised so far
    soma_error error;  // code SOMA_OK: the template's own complaint
} reader;

// Callbacks return a negative number to stop.
static int refuse(reader *r, const char *why) {
    soma__fail(&r->error, SOMA_BAD_INPUT, "%s", why);
    return -1;
}

static int no_room(reader *r) {
    soma__no_memory(&r->error, "a message");
    return -1;
}

static soma_msg on_root(reader *r) { return (soma_msg){0}; }

static int on_nil(reader *r, soma_msg *o) {
    *o = (soma_msg){.kind = SOMA_MSG_NIL};
    return 0;
}

static int set_flag(soma_msg *o, bool flag) {
    *o = (soma_msg){.kind = SOMA_MSG_BOOL, .flag = flag};
    return 0;
}
static int on_true(reader *r, soma_msg *o) { return set_flag(o, true); }
static int on_false(reader *r, soma_msg *o) { return set_flag(o, false); }

static int on_int64(reader *r, int64_t value, soma_msg *o) {
    *o = (soma_msg){.kind = SOMA_MSG_INT, .integer = value};
    return 0;
}
static int on_int8(reader *r, int8_t value, soma_msg *o) { return on_int64(r, value, o); }
static int on_int16(reader *r, int16_t value, soma_msg *o) { return on_int64(r, value, o); }
static int on_int32(reader *r, int32_t value, soma_msg *o) { return on_int64(r, value, o); }
static int on_uint8(reader *r, uint8_t value, soma_msg *o) { return on_int64(r, value, o); }
static int on_uint16(reader *r, uint16_t value, soma_msg *o) { return on_int64(r, value, o); }
static int on_uint32(reader *r, uint32_t value, soma_msg *o) { return on_int64(r, value, o); }
static int on_uint64(reader *r, uint64_t value, soma_msg *o) {
    if (value <= INT64_MAX) return on_int64(r, (int64_t)value, o);
    *o = (soma_msg){.kind = SOMA_MSG_UINT, .natural = value};
    return 0;
}

static int on_double(reader *r, double value, soma_msg *o) {
    *o = (soma_msg){.kind = SOMA_MSG_REAL, .real = value};
    return 0;
}
static int on_float(reader *r, float value, soma_msg *o) { return on_double(r, value, o); }

static int on_str(reader *r, const char *message, const char *bytes, uint32_t len, soma_msg *o) {
    *o = (soma_msg){.kind = SOMA_MSG_STR, .n = len, .bytes = len ? bytes : ""};
    return 0;
}
static int on_bin(reader *r, const char *message, const char *bytes, uint32_t len, soma_msg *o) {
    *o = (soma_msg){.kind = SOMA_MSG_BIN, .n = len, .bytes = len ? bytes : ""};
    return 0;
}
static int on_ext(reader *r, const char *message, const char *bytes, uint32_t len, soma_msg *o) {
    return refuse(r, "an extension type, which openpi's messages do not have");
}

static int open_container(reader *r, soma_msg_kind kind, uint32_t n, size_t item_size, soma_msg *o) {
    if (n > SOMA_MSG_MAX_VALUES - r->n_values)
        return refuse(r, "more than 65536 values: arrays of numbers and pictures are sent as numpy arrays, not as lists");
    r->n_values += n;
    void *items = soma__arena_alloc(r->arena, n * item_size);
    if (!items) return no_room(r);
    *o = (soma_msg){.kind = kind, .room = n};
    if (kind == SOMA_MSG_ARRAY)
        o->items = items;
    else
        o->pairs = items;
    return 0;
}
static int on_array(reader *r, uint32_t n, soma_msg *o) { return open_container(r, SOMA_MSG_ARRAY, n, sizeof(soma_msg), o); }
static int on_map(reader *r, uint32_t n, soma_msg *o) { return open_container(r, SOMA_MSG_MAP, n, sizeof(soma_msg_pair), o); }

static int on_array_item(reader *r, soma_msg *array, soma_msg item) {
    ((soma_msg *)array->items)[array->n++] = item;
    return 0;
}

static int close_map(reader *r, soma_msg *map);

static int on_map_item(reader *r, soma_msg *map, soma_msg key, soma_msg value) {
    if (key.kind != SOMA_MSG_STR && key.kind != SOMA_MSG_BIN) return refuse(r, "a key that is neither str nor bin");
    ((soma_msg_pair *)map->pairs)[map->n++] = (soma_msg_pair){key, value};
    return map->n == map->room ? close_map(r, map) : 0;
}

#define msgpack_unpack_struct(name) struct unpack##name
#define msgpack_unpack_func(ret, name) static ret unpack##name
#define msgpack_unpack_callback(name) on##name
#define msgpack_unpack_object soma_msg
#define msgpack_unpack_user reader
#include <msgpack/unpack_define.h>
#include <msgpack/unpack_template.h>

// ---- numpy's arrays and scalars, told from plain maps when the map's last pair has come

static bool same_text(const soma_msg *value, const char *text) { return value->n == strlen(text) && !memcmp(value->bytes, text, value->n); }

bool soma__msg_is_text(const soma_msg *value, const char *text) {
    return value && (value->kind == SOMA_MSG_STR || value->kind == SOMA_MSG_BIN) && same_text(value, text);
}

static const soma_msg *array_key(const reader *r, const soma_msg *map, const char *key) {
    for (uint32_t i = map->n; i-- > 0;) {
        const soma_msg_pair *p = &map->pairs[i];
        if ((p->key.kind == SOMA_MSG_BIN || r->str_keys) && same_text(&p->key, key)) return &p->value;
    }
    return NULL;
}

static bool is_number(const soma_msg *v) {
    return v->kind == SOMA_MSG_INT || v->kind == SOMA_MSG_UINT || v->kind == SOMA_MSG_REAL || v->kind == SOMA_MSG_BOOL;
}

// "<f4": byte order, kind, bytes per value ("U": characters of 4 bytes). False: not on the list.
static bool read_dtype(soma_msg_ndarray *a, const char *dtype) {
    static const char *const numbers[] = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"};
    if (!strchr("<>|=", dtype[0]) || !dtype[0]) return false;
    a->dtype = dtype;
    a->type = dtype[1];
    a->big_endian = dtype[0] == '>';
    if (a->type == 'U') {
        char *end;
        unsigned long n = dtype[2] >= '0' && dtype[2] <= '9' ? strtoul(dtype + 2, &end, 10) : 0;
        a->item_size = n * 4;
        return n > 0 && n <= SOMA_MSG_MAX_VALUES && !*end;
    }
    a->item_size = a->type ? (size_t)(dtype[2] - '0') : 0;
    for (size_t i = 0; i < SOMA_COUNT(numbers); i++)
        if (!strcmp(dtype + 1, numbers[i])) return a->item_size == 1 || dtype[0] != '|';
    return false;
}

static int read_shape(reader *r, soma_msg_ndarray *a, const soma_msg *shape, size_t data_size) {
    if (shape->n > SOMA_MAX_DIMS) return refuse(r, "an ndarray with more than 6 dimensions");
    a->n_dims = (int)shape->n;
    a->n_values = 1;
    bool empty = false;
    for (uint32_t i = 0; i < shape->n; i++) {
        const soma_msg *d = &shape->items[i];
        if (d->kind != SOMA_MSG_INT || d->integer < 0 || d->integer > INT32_MAX)
            return refuse(r, "an ndarray whose shape holds something other than sizes below 2^31");
        a->shape[i] = d->integer;
        empty |= d->integer == 0;
    }
    for (int i = 0; i < a->n_dims && !empty; i++)
        if (__builtin_mul_overflow(a->n_values, a->shape[i], &a->n_values)) return refuse(r, "an ndarray whose shape overflows");
    if (empty) a->n_values = 0;
    int64_t size;
    if (!__builtin_mul_overflow(a->n_values, (int64_t)a->item_size, &size) && (uint64_t)size == data_size) return 0;
    char text[200];
    soma__msg_describe(text, &(soma_msg){.kind = SOMA_MSG_NDARRAY, .array = a});
    soma__fail(&r->error, SOMA_BAD_INPUT, "%s with %zu bytes of data", text, data_size);
    return -1;
}

static int close_map(reader *r, soma_msg *map) {
    const soma_msg *array = array_key(r, map, "__ndarray__"), *scalar = array ? NULL : array_key(r, map, "__npgeneric__");
    if (!array && !scalar) return 0;
    const soma_msg *data = array_key(r, map, "data"), *dtype = array_key(r, map, "dtype"), *shape = array_key(r, map, "shape");
    if (!data || !dtype || dtype->kind != SOMA_MSG_STR || map->n != (array ? 4u : 3u))
        return refuse(r, "a numpy value needs the keys data, dtype (str) and, for an array, shape, and no others");
    char *name = soma__arena_alloc(r->arena, (size_t)dtype->n + 1);
    soma_msg_ndarray *a = soma__arena_alloc(r->arena, sizeof *a);
    if (!name || !a) return no_room(r);
    memcpy(name, dtype->bytes, dtype->n);
    if (!read_dtype(a, name)) {
        soma__fail(&r->error, SOMA_BAD_INPUT, "numpy's dtype \"%.20s\" is not supported: bool, integers, floats and text are", name);
        return -1;
    }
    if (scalar) {
        soma_msg_pair *pair = soma__arena_alloc(r->arena, sizeof *pair);
        if (!pair) return no_room(r);
        if (!is_number(data)) return refuse(r, "a numpy scalar whose data is not a number");
        *pair = (soma_msg_pair){*dtype, *data};
        *map = (soma_msg){.kind = SOMA_MSG_SCALAR, .scalar = pair};
        return 0;
    }
    if (data->kind != SOMA_MSG_BIN || !shape || shape->kind != SOMA_MSG_ARRAY)
        return refuse(r, "an ndarray needs data of kind bin and a shape of kind array");
    a->data = (const unsigned char *)data->bytes;
    *map = (soma_msg){.kind = SOMA_MSG_NDARRAY, .array = a};
    return read_shape(r, a, shape, data->n);
}

soma_status soma__msg_parse(const soma_msg **value, soma_arena *arena, const void *data, size_t size, bool str_keys, soma_error *err) {
    struct unpack_context ctx = {.user = {.arena = arena, .str_keys = str_keys}};
    unpack_init(&ctx);
    size_t used = 0;
    int result = unpack_execute(&ctx, size ? data : "", size, &used); // no message at all may be NULL
    reader *r = &ctx.user;
    if (r->error.code == SOMA_NO_MEMORY) return soma__no_memory(err, "a message");
    if (r->error.code) return soma__fail(err, SOMA_BAD_INPUT, "msgpack, byte %zu of %zu: %s", used, size, r->error.text);
    if (result == MSGPACK_UNPACK_NOMEM_ERROR)
        return soma__fail(err, SOMA_BAD_INPUT, "msgpack, byte %zu of %zu: nested deeper than %d", used, size, MSGPACK_EMBED_STACK_SIZE);
    if (result < 0) return soma__fail(err, SOMA_BAD_INPUT, "msgpack, byte %zu of %zu: no value starts with this byte", used, size);
    if (result == 0) return soma__fail(err, SOMA_BAD_INPUT, "msgpack: the message ends inside a value, after %zu bytes", size);
    if (used != size) return soma__fail(err, SOMA_BAD_INPUT, "msgpack: %zu bytes are left behind the value", size - used);
    soma_msg *root = soma__arena_alloc(arena, sizeof *root);
    if (!root) return soma__no_memory(err, "a message");
    *root = unpack_data(&ctx);
    *value = root;
    return SOMA_OK;
}

// ---- reading the tree

const soma_msg *soma__msg_get(const soma_msg *map, const char *key) {
    if (!map || map->kind != SOMA_MSG_MAP) return NULL;
    for (uint32_t i = map->n; i-- > 0;)
        if (same_text(&map->pairs[i].key, key)) return &map->pairs[i].value;
    return NULL;
}

int64_t soma__msg_n_numbers(const soma_msg *v) {
    if (is_number(v) || v->kind == SOMA_MSG_SCALAR) return 1;
    if (v->kind == SOMA_MSG_NDARRAY) return v->array->type == 'U' ? -1 : v->array->n_values;
    if (v->kind != SOMA_MSG_ARRAY) return -1;
    for (uint32_t i = 0; i < v->n; i++)
        if (!is_number(&v->items[i]) && v->items[i].kind != SOMA_MSG_SCALAR) return -1;
    return v->n;
}

// IEEE 754 half: 1 sign, 5 exponent, 10 fraction bits
static double half_number(uint64_t bits) {
    int exponent = (int)(bits >> 10 & 31);
    double fraction = (double)(bits & 1023);
    double size = exponent == 31 ? (fraction != 0 ? NAN : INFINITY)
                  : exponent     ? ldexp(fraction + 1024, exponent - 25)
                                 : ldexp(fraction, -24);
    return bits >> 15 ? -size : size;
}

static double array_number(const soma_msg_ndarray *a, int64_t i) {
    const unsigned char *p = a->data + (size_t)i * a->item_size;
    uint64_t bits = 0;
    for (size_t k = 0; k < a->item_size; k++) bits |= (uint64_t)p[a->big_endian ? a->item_size - 1 - k : k] << 8 * k;
    if (a->type == 'u') return (double)bits;
    if (a->type == 'b') return bits != 0;
    if (a->type == 'i') return (double)((int64_t)(bits << (64 - 8 * a->item_size)) >> (64 - 8 * a->item_size));
    if (a->item_size == 2) return half_number(bits);
    if (a->item_size == 4) {
        uint32_t low = (uint32_t)bits;
        float f;
        memcpy(&f, &low, sizeof f);
        return f;
    }
    double d;
    memcpy(&d, &bits, sizeof d);
    return d;
}

double soma__msg_number(const soma_msg *v, int64_t i) {
    switch (v->kind) {
    case SOMA_MSG_NDARRAY: return array_number(v->array, i);
    case SOMA_MSG_ARRAY: return soma__msg_number(&v->items[i], 0);
    case SOMA_MSG_SCALAR: return soma__msg_number(&v->scalar->value, 0);
    case SOMA_MSG_INT: return (double)v->integer;
    case SOMA_MSG_UINT: return (double)v->natural;
    case SOMA_MSG_BOOL: return v->flag;
    default: return v->real;
    }
}

const char *soma__msg_describe(char out[200], const soma_msg *v) {
    static const char *const words[] = {"nil", "a bool", "an integer", "an integer", "a number"};
    switch (v->kind) {
    case SOMA_MSG_STR:
    case SOMA_MSG_BIN: snprintf(out, 200, "a %s of %u bytes", v->kind == SOMA_MSG_STR ? "str" : "bin", v->n); break;
    case SOMA_MSG_ARRAY: snprintf(out, 200, "a list of %u", v->n); break;
    case SOMA_MSG_MAP: snprintf(out, 200, "a map of %u", v->n); break;
    case SOMA_MSG_SCALAR: snprintf(out, 200, "a numpy scalar %.*s", (int)SOMA_MIN(v->scalar->key.n, 20u), v->scalar->key.bytes); break;
    case SOMA_MSG_NDARRAY: {
        int len = snprintf(out, 200, "an ndarray %.20s [", v->array->dtype);
        for (int i = 0; i < v->array->n_dims; i++)
            len += snprintf(out + len, (size_t)(200 - len), "%s%lld", i ? ", " : "", (long long)v->array->shape[i]);
        snprintf(out + len, (size_t)(200 - len), "]");
        break;
    }
    default: snprintf(out, 200, "%s", words[v->kind]);
    }
    return out;
}

// ---- writing

static int append(void *out, const char *bytes, size_t len) {
    soma__str_add_bytes(out, bytes, len);
    return 0;
}

static msgpack_packer *packer(msgpack_packer *pk, soma_str *out) {
    msgpack_packer_init(pk, out, append);
    return pk;
}

void soma__msg_put_map(soma_str *out, size_t n) { msgpack_pack_map(packer(&(msgpack_packer){0}, out), n); }
void soma__msg_put_array(soma_str *out, size_t n) { msgpack_pack_array(packer(&(msgpack_packer){0}, out), n); }
void soma__msg_put_int(soma_str *out, int64_t value) { msgpack_pack_int64(packer(&(msgpack_packer){0}, out), value); }
void soma__msg_put_bin_head(soma_str *out, size_t size) { msgpack_pack_bin(packer(&(msgpack_packer){0}, out), size); }
void soma__msg_put_real(soma_str *out, double value) { msgpack_pack_double(packer(&(msgpack_packer){0}, out), value); }

static void put_bytes(soma_str *out, soma_msg_kind kind, const void *bytes, size_t len) {
    msgpack_packer pk;
    if (kind == SOMA_MSG_BIN)
        msgpack_pack_bin(packer(&pk, out), len);
    else
        msgpack_pack_str(packer(&pk, out), len);
    soma__str_add_bytes(out, bytes, len);
}

void soma__msg_put_str(soma_str *out, const char *text) { put_bytes(out, SOMA_MSG_STR, text, strlen(text)); }
static void put_key(soma_str *out, const char *key) { put_bytes(out, SOMA_MSG_BIN, key, strlen(key)); }

static void put_flag(soma_str *out, bool flag) {
    msgpack_packer pk;
    packer(&pk, out);
    if (flag)
        msgpack_pack_true(&pk);
    else
        msgpack_pack_false(&pk);
}

void soma__msg_put_ndarray(soma_str *out, const char *dtype, int n_dims, const int64_t *shape, const void *data, size_t size) {
    soma__msg_put_map(out, 4);
    put_key(out, "__ndarray__");
    put_flag(out, true);
    put_key(out, "data");
    put_bytes(out, SOMA_MSG_BIN, data, size);
    put_key(out, "dtype");
    soma__msg_put_str(out, dtype);
    put_key(out, "shape");
    soma__msg_put_array(out, (size_t)n_dims);
    for (int i = 0; i < n_dims; i++) soma__msg_put_int(out, shape[i]);
}

static void put_scalar(soma_str *out, const soma_msg_pair *scalar) {
    soma__msg_put_map(out, 3);
    put_key(out, "__npgeneric__");
    put_flag(out, true);
    put_key(out, "data");
    soma__msg_put(out, &scalar->value);
    put_key(out, "dtype");
    soma__msg_put(out, &scalar->key);
}

void soma__msg_put(soma_str *out, const soma_msg *v) {
    const soma_msg_ndarray *a;
    switch (v->kind) {
    case SOMA_MSG_NIL: msgpack_pack_nil(packer(&(msgpack_packer){0}, out)); break;
    case SOMA_MSG_BOOL: put_flag(out, v->flag); break;
    case SOMA_MSG_INT: soma__msg_put_int(out, v->integer); break;
    case SOMA_MSG_UINT: msgpack_pack_uint64(packer(&(msgpack_packer){0}, out), v->natural); break;
    case SOMA_MSG_REAL: soma__msg_put_real(out, v->real); break;
    case SOMA_MSG_STR:
    case SOMA_MSG_BIN: put_bytes(out, v->kind, v->bytes, v->n); break;
    case SOMA_MSG_ARRAY:
        soma__msg_put_array(out, v->n);
        for (uint32_t i = 0; i < v->n; i++) soma__msg_put(out, &v->items[i]);
        break;
    case SOMA_MSG_MAP:
        soma__msg_put_map(out, v->n);
        for (uint32_t i = 0; i < v->n; i++) {
            soma__msg_put(out, &v->pairs[i].key);
            soma__msg_put(out, &v->pairs[i].value);
        }
        break;
    case SOMA_MSG_NDARRAY:
        a = v->array;
        soma__msg_put_ndarray(out, a->dtype, a->n_dims, a->shape, a->data, (size_t)a->n_values * a->item_size);
        break;
    case SOMA_MSG_SCALAR: put_scalar(out, v->scalar); break;
    }
}

void soma__msg_put_json(soma_str *out, const json_t *value) {
    const char *key;
    json_t *item;
    size_t i;
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        soma__msg_put_map(out, json_object_size(value));
        json_object_foreach((json_t *)value, key, item) {
            soma__msg_put_str(out, key);
            soma__msg_put_json(out, item);
        }
        break;
    case JSON_ARRAY:
        soma__msg_put_array(out, json_array_size(value));
        json_array_foreach(value, i, item) soma__msg_put_json(out, item);
        break;
    case JSON_STRING: put_bytes(out, SOMA_MSG_STR, json_string_value(value), json_string_length(value)); break;
    case JSON_INTEGER: soma__msg_put_int(out, json_integer_value(value)); break;
    case JSON_REAL: soma__msg_put_real(out, json_real_value(value)); break;
    case JSON_TRUE:
    case JSON_FALSE: put_flag(out, json_is_true(value)); break;
    case JSON_NULL: soma__msg_put(out, &(soma_msg){.kind = SOMA_MSG_NIL}); break;
    }
}
