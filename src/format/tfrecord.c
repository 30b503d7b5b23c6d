// SPDX-License-Identifier: Apache-2.0
// Framing of TFRecord files. The checksum is CRC-32C (Castagnoli), eight bytes at a time over tables that are made once.
#include "format/tfrecord.h"

#include <pthread.h>
#include <string.h>

enum { HEAD = 12 };

static uint32_t tables[8][256];

static void make_tables(void) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t crc = i;
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
        tables[0][i] = crc;
    }
    for (uint32_t i = 0; i < 256; i++)
        for (int t = 1; t < 8; t++) tables[t][i] = tables[t - 1][i] >> 8 ^ tables[0][tables[t - 1][i] & 255];
}

static uint32_t read_u32(const unsigned char *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

uint32_t soma__tfrecord_crc(const unsigned char *p, size_t size) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_tables);
    uint32_t crc = ~0u;
    for (; size >= 8; p += 8, size -= 8) {
        uint32_t low = read_u32(p) ^ crc, high = read_u32(p + 4);
        crc = tables[7][low & 255] ^ tables[6][low >> 8 & 255] ^ tables[5][low >> 16 & 255] ^ tables[4][low >> 24] ^ tables[3][high & 255] ^
              tables[2][high >> 8 & 255] ^ tables[1][high >> 16 & 255] ^ tables[0][high >> 24];
    }
    for (; size; p++, size--) crc = crc >> 8 ^ tables[0][(crc ^ *p) & 255];
    crc = ~crc;
    return (crc >> 15 | crc << 17) + 0xa282ead8u; // a checksum over bytes that hold checksums is weak: hence the mask
}

soma_status soma__tfrecord_at(soma_tfrecord *r, const unsigned char *file, size_t size, size_t at, const char *where, soma_error *err) {
    SOMA_CHECK(at < size, "a record begins within the file");
    if (size - at < SOMA_TFRECORD_FRAME)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: ends within the record at byte %zu (%zu bytes are left)", where, at, size - at);
    const unsigned char *head = file + at;
    if (soma__tfrecord_crc(head, 8) != read_u32(head + 8))
        return soma__fail(err, SOMA_BAD_INPUT,
                          "%s: the checksum of the length of the record at byte %zu is wrong; no TFRecord file, or damaged", where, at);
    uint64_t length = (uint64_t)read_u32(head) | (uint64_t)read_u32(head + 4) << 32;
    if (length > size - at - SOMA_TFRECORD_FRAME)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: the record at byte %zu has %llu bytes of data, the file only %zu more", where, at,
                          (unsigned long long)length, size - at - SOMA_TFRECORD_FRAME);
    *r = (soma_tfrecord){.offset = at, .size = (size_t)length, .next = at + SOMA_TFRECORD_FRAME + (size_t)length};
    return SOMA_OK;
}

soma_status soma__tfrecord_check(const soma_tfrecord *r, const unsigned char *file, const char *where, soma_error *err) {
    const unsigned char *data = file + r->offset + HEAD;
    if (soma__tfrecord_crc(data, r->size) == read_u32(data + r->size)) return SOMA_OK;
    return soma__fail(err, SOMA_BAD_INPUT, "%s: the checksum of the record at byte %zu (%zu bytes of data) is wrong; the file is damaged",
                      where, r->offset, r->size);
}
