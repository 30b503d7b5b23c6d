// SPDX-License-Identifier: Apache-2.0
// RLDS files that a test makes up: a small writer of protobuf's wire form, of tf.train.Example and of TFRecord framing.
#ifndef SOMA_TESTS_TOY_RLDS_H
#define SOMA_TESTS_TOY_RLDS_H

#include "base/file.h"
#include "base/str.h"
#include "format/tfrecord.h"

#include <stdio.h>
#include <string.h>

static void put_varint(soma_str *s, uint64_t v) {
    do {
        uint8_t byte = (uint8_t)((v & 127) | (v > 127 ? 128 : 0));
        soma__str_add_bytes(s, &byte, 1);
    } while (v >>= 7);
}

static void put_bytes(soma_str *s, int field, const void *data, size_t size) {
    put_varint(s, (uint64_t)field << 3 | 2);
    put_varint(s, size);
    soma__str_add_bytes(s, data, size);
}

// An entry of the map, around the list's message; frees `values`. list: 1 bytes, 2 floats, 3 integers.
static void put_list(soma_str *features, const char *name, int list, soma_str *values) {
    soma_str feature = {0}, entry = {0};
    put_bytes(&feature, list, values->text ? values->text : "", values->len);
    put_bytes(&entry, 1, name, strlen(name));
    put_bytes(&entry, 2, feature.text, feature.len);
    put_bytes(features, 1, entry.text, entry.len);
    soma__str_free(&feature);
    soma__str_free(&entry);
    soma__str_free(values);
}

static void put_floats(soma_str *features, const char *name, const float *values, size_t n) {
    soma_str list = {0};
    put_bytes(&list, 1, values, n * 4);
    put_list(features, name, 2, &list);
}

static void put_ints(soma_str *features, const char *name, const int64_t *values, size_t n) {
    soma_str list = {0}, packed = {0};
    for (size_t i = 0; i < n; i++) put_varint(&packed, (uint64_t)values[i]);
    put_bytes(&list, 1, packed.text ? packed.text : "", packed.len);
    soma__str_free(&packed);
    put_list(features, name, 3, &list);
}

static void put_record(FILE *file, const void *data, size_t size) {
    uint8_t head[12];
    for (int i = 0; i < 8; i++) head[i] = (uint8_t)((uint64_t)size >> 8 * i);
    uint32_t crc = soma__tfrecord_crc(head, 8);
    for (int i = 0; i < 4; i++) head[8 + i] = (uint8_t)(crc >> 8 * i);
    fwrite(head, 1, 12, file);
    fwrite(data, 1, size, file);
    crc = soma__tfrecord_crc(data, size);
    for (int i = 0; i < 4; i++) head[i] = (uint8_t)(crc >> 8 * i);
    fwrite(head, 1, 4, file);
}

#endif
