// SPDX-License-Identifier: Apache-2.0
// Keys are compared in whole, all of them, so that the time tells nothing about how much of a guess was right.
#include "serve/access.h"

#include "base/file.h"

#include <string.h>
#include <sys/stat.h>

enum { MIN_KEY = 8, MAX_FILE = 1 << 20 };

static soma_status add_key(soma_keys *k, const char *line, size_t len, const char *path, int number, soma_error *err) {
    if (len < MIN_KEY || len >= SOMA_KEY_SIZE)
        return soma__fail(err, SOMA_BAD_INPUT, "%s, line %d: a key has %d to %d bytes, found %zu", path, number, MIN_KEY, SOMA_KEY_SIZE - 1,
                          len);
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)line[i] <= ' ' || line[i] == 127)
            return soma__fail(err, SOMA_BAD_INPUT, "%s, line %d: a key has no spaces and no control characters", path, number);
    if (k->n == SOMA_MAX_KEYS) return soma__fail(err, SOMA_BAD_INPUT, "%s: more than %d keys", path, SOMA_MAX_KEYS);
    memcpy(k->keys[k->n++], line, len);
    return SOMA_OK;
}

soma_status soma__keys_read(soma_keys *keys, const char *path, soma_error *err) {
    struct stat st;
    char *text;
    size_t size;
    if (!stat(path, &st) && st.st_mode & S_IROTH)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: everyone on this machine may read the keys; chmod o-r it", path);
    SOMA_TRY(soma__file_read(&text, &size, path, MAX_FILE, err));
    soma_status status = SOMA_OK;
    keys->keys = soma__calloc(SOMA_MAX_KEYS, sizeof *keys->keys);
    if (!keys->keys) status = soma__no_memory(err, "the keys");
    int number = 1;
    for (size_t at = 0; status == SOMA_OK && at < size; number++) {
        size_t len = 0;
        while (at + len < size && text[at + len] != '\n') len++;
        size_t used = len && text[at + len - 1] == '\r' ? len - 1 : len;
        if (used && text[at] != '#') status = add_key(keys, text + at, used, path, number, err);
        at += len + 1;
    }
    if (status == SOMA_OK && !keys->n) status = soma__fail(err, SOMA_BAD_INPUT, "%s: there is no key in it", path);
    explicit_bzero(text, size);
    soma__free(text);
    if (status) soma__keys_free(keys);
    return status;
}

void soma__keys_free(soma_keys *keys) {
    if (keys->keys) explicit_bzero(keys->keys, sizeof *keys->keys * SOMA_MAX_KEYS);
    soma__free(keys->keys);
    *keys = (soma_keys){0};
}

bool soma__keys_have(const soma_keys *keys, const char *key, size_t len) {
    char given[SOMA_KEY_SIZE] = {0};
    memcpy(given, key, SOMA_MIN(len, SOMA_KEY_SIZE - 1));
    unsigned found = keys->n == 0;
    for (int i = 0; i < keys->n; i++) {
        volatile unsigned differs = len != strlen(keys->keys[i]);
        for (int b = 0; b < SOMA_KEY_SIZE; b++) differs |= (unsigned char)given[b] ^ (unsigned char)keys->keys[i][b];
        found |= differs == 0;
    }
    return found;
}

bool soma__bucket_take(soma_bucket *b, double rate, double now) {
    if (!(rate > 0)) return true;
    double most = SOMA_MAX(rate, 1);
    b->tokens = b->filled > 0 ? SOMA_MIN(most, b->tokens + rate * (now - b->filled)) : most;
    b->filled = now;
    if (b->tokens < 1) return false;
    b->tokens -= 1;
    return true;
}
