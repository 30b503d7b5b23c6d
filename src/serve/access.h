// SPDX-License-Identifier: Apache-2.0
// Who may ask, and how often: keys from a file, and a bucket of tokens per client.
#ifndef SOMA_SERVE_ACCESS_H
#define SOMA_SERVE_ACCESS_H

#include "base/base.h"

enum { SOMA_MAX_KEYS = 1000, SOMA_KEY_SIZE = 256 };

typedef struct soma_keys {
    int n;
    char (*keys)[SOMA_KEY_SIZE]; // padded with zeros
} soma_keys;                     // {0}: nobody needs one

// One key per line; empty lines and lines that begin with '#' do not count. Refused: a file without a key, one that others than its owner
// and group may read, keys shorter than 8 or longer than 255 bytes or with spaces.
soma_status soma__keys_read(soma_keys *keys, const char *path, soma_error *err);
void soma__keys_free(soma_keys *keys); // {0} allowed
// Whether `key` of `len` bytes is one of them, in a time that depends on neither; true where there are none to have.
bool soma__keys_have(const soma_keys *keys, const char *key, size_t len);

typedef struct soma_bucket {
    double tokens, filled; // filled: soma__seconds, 0: never
} soma_bucket;
// Takes a token of a bucket that gets `rate` a second and holds a second's worth, at least one. False: it is empty. Rate 0: always true.
bool soma__bucket_take(soma_bucket *bucket, double rate, double now);

#endif
