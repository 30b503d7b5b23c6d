// SPDX-License-Identifier: Apache-2.0
// TFRecord files: records one after the other, each a length, a checksum of the length, the bytes, a checksum of the bytes. The file is in
// memory (a map); nothing is copied, and a length is believed only when its checksum agrees and the file is that long.
#ifndef SOMA_FORMAT_TFRECORD_H
#define SOMA_FORMAT_TFRECORD_H

#include "base/base.h"

enum { SOMA_TFRECORD_FRAME = 16 }; // bytes of a record beside its data: 12 before it, 4 behind

typedef struct soma_tfrecord {
    size_t offset; // of the record in the file; its data begin 12 bytes further
    size_t size;   // of its data
    size_t next;   // where the next record begins
} soma_tfrecord;

// The record that begins at byte `at` of file[size] (at < size). `where` names the file in sentences. The data are not looked at.
soma_status soma__tfrecord_at(soma_tfrecord *record, const unsigned char *file, size_t size, size_t at, const char *where, soma_error *err);
// Holds the data against their checksum.
soma_status soma__tfrecord_check(const soma_tfrecord *record, const unsigned char *file, const char *where, soma_error *err);

// CRC-32C of the bytes, masked as TFRecord stores it.
uint32_t soma__tfrecord_crc(const unsigned char *bytes, size_t size);

#endif
