// SPDX-License-Identifier: Apache-2.0
// tf.train.Example: a map from names to lists of bytes, floats or integers, in protobuf's wire form. The bytes stay where they are: parsing
// notes where each list lies, and values are read when they are wanted. Nothing is allocated by a number that the bytes claim.
#ifndef SOMA_FORMAT_EXAMPLE_H
#define SOMA_FORMAT_EXAMPLE_H

#include "base/base.h"

typedef enum soma_example_kind { SOMA_EXAMPLE_EMPTY, SOMA_EXAMPLE_BYTES, SOMA_EXAMPLE_FLOAT, SOMA_EXAMPLE_INT } soma_example_kind;

typedef struct soma_span {
    const unsigned char *data;
    size_t size;
} soma_span;

typedef struct soma_example_list {
    soma_span name; // not zero-terminated
    soma_example_kind kind;
    soma_span values; // the list's message
} soma_example_list;

typedef struct soma_example {
    const unsigned char *data; // where the record's data begin: sentences count from here
    soma_example_list *lists;
    size_t n_lists, room;
} soma_example; // {0} is empty and ready

// Notes the lists of data[size], which outlives `example`. `where` names the record in sentences. Reusable; release with
// soma__example_free.
soma_status soma__example_parse(soma_example *example, const unsigned char *data, size_t size, const char *where, soma_error *err);
void soma__example_free(soma_example *example);
const soma_example_list *soma__example_find(const soma_example *example, const char *name); // NULL when absent; of two, the last

// How many values a list has; of floats this looks at no value.
soma_status soma__example_count(int64_t *n, const soma_example *example, const soma_example_list *list, const char *where, soma_error *err);
// All values of a list of floats or integers; there must be n.
soma_status soma__example_floats(float *out, int64_t n, const soma_example *example, const soma_example_list *list, const char *where,
                                 soma_error *err);
// Value `index` of a list of bytes, borrowed from the record.
soma_status soma__example_bytes(soma_span *out, int64_t index, const soma_example *example, const soma_example_list *list,
                                const char *where, soma_error *err);

#endif
