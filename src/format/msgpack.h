// SPDX-License-Identifier: Apache-2.0
// msgpack with numpy's arrays inside, as openpi's clients and servers speak it: one message, parsed to a tree or written value by value.
//
// An ndarray is a map with the four keys bin"__ndarray__" (true), bin"data" (C-order bytes), bin"dtype" ("<f4"), bin"shape"; a numpy scalar
// is a map with bin"__npgeneric__", bin"data" (a plain value), bin"dtype". Everything else is plain msgpack: text is str, keys are str or
// bin, reals are float64. Parsing a message and writing the tree again gives the same bytes where the writer was openpi's.
//
// Messages come from strangers: nothing is allocated by a length that the bytes only claim. Refused: nesting deeper than 32, more than
// SOMA_MSG_MAX_VALUES values (pictures belong into ndarrays), extension types, keys that are neither str nor bin, bytes behind the value,
// ndarrays whose data is not exactly shape times dtype, dtypes other than bool, integers, floats and text ("|b1", "<f4", ">i8", "<U7").
#ifndef SOMA_FORMAT_MSGPACK_H
#define SOMA_FORMAT_MSGPACK_H

#include "base/arena.h"
#include "base/json.h"
#include "base/str.h"

enum { SOMA_MSG_MAX_VALUES = 65536 };

typedef enum soma_msg_kind {
    SOMA_MSG_NIL,
    SOMA_MSG_BOOL,
    SOMA_MSG_INT,  // what fits int64_t
    SOMA_MSG_UINT, // above INT64_MAX
    SOMA_MSG_REAL,
    SOMA_MSG_STR,
    SOMA_MSG_BIN,
    SOMA_MSG_ARRAY,
    SOMA_MSG_MAP,
    SOMA_MSG_NDARRAY,
    SOMA_MSG_SCALAR // numpy's
} soma_msg_kind;

typedef struct soma_msg soma_msg;
typedef struct soma_msg_pair soma_msg_pair;

typedef struct soma_msg_ndarray {
    const char *dtype; // numpy's name: "<f4"
    char type;         // numpy's kind: b i u f U
    bool big_endian;
    size_t item_size; // bytes per value
    int n_dims;       // 0: one value
    int64_t shape[SOMA_MAX_DIMS];
    int64_t n_values;
    const unsigned char *data; // n_values * item_size bytes, unaligned, inside the message
} soma_msg_ndarray;

struct soma_msg {
    soma_msg_kind kind;
    uint32_t n, room; // STR, BIN: bytes; ARRAY: values; MAP: pairs; room is the parser's
    union {
        bool flag;
        int64_t integer;
        uint64_t natural;
        double real;
        const char *bytes; // STR, BIN: not zero-terminated, inside the message
        const soma_msg *items;
        const soma_msg_pair *pairs;
        const soma_msg_ndarray *array;
        const soma_msg_pair *scalar; // key: the dtype's name (STR), value: the plain value
    };
};

struct soma_msg_pair {
    soma_msg key, value;
};

// Exactly one value of `size` bytes. The tree lives in `arena` and points into `data`: both must outlive it. `str_keys`: accept the four
// array keys as str too, which other languages send and openpi's own client does not recognise.
soma_status soma__msg_parse(const soma_msg **value, soma_arena *arena, const void *data, size_t size, bool str_keys, soma_error *err);

// The value of `key` in a map (of two equal keys the last, as in Python); NULL when absent, when `map` is no map or NULL.
const soma_msg *soma__msg_get(const soma_msg *map, const char *key);
bool soma__msg_is_text(const soma_msg *value, const char *text); // str or bin with just these bytes
// How many numbers `value` holds: an ndarray of numbers, an array of numbers, a scalar or a plain number (1). -1: something else.
int64_t soma__msg_n_numbers(const soma_msg *value);
double soma__msg_number(const soma_msg *value, int64_t i); // 0 <= i < soma__msg_n_numbers(value)
// What a sentence about `value` says was found: "an ndarray <f4 [3, 224, 224]", "a str of 5 bytes"; returns `out`.
const char *soma__msg_describe(char out[200], const soma_msg *value);

// ---- writing: values are appended in order; failure sticks to the string. A map is followed by n keys and values, an array by n values.
void soma__msg_put_map(soma_str *out, size_t n);
void soma__msg_put_array(soma_str *out, size_t n);
void soma__msg_put_str(soma_str *out, const char *text);
void soma__msg_put_int(soma_str *out, int64_t value);
void soma__msg_put_real(soma_str *out, double value);
void soma__msg_put_bin_head(soma_str *out, size_t size); // the caller appends the `size` bytes
// `dtype` as numpy names it, `data` of `size` bytes in C order.
void soma__msg_put_ndarray(soma_str *out, const char *dtype, int n_dims, const int64_t *shape, const void *data, size_t size);
void soma__msg_put(soma_str *out, const soma_msg *value); // a whole tree
void soma__msg_put_json(soma_str *out, const json_t *value);

#endif
