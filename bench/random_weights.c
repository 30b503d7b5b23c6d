// SPDX-License-Identifier: Apache-2.0
// A checkpoint of random weights that is nowhere on a disk: a header in memory, and behind it one block of random bf16, as large as the
// largest weight, that is mapped again and again to the length of all. What a device packs of it is in memory as often as there are
// weights; what it reads in place costs the block alone.
#include "bench/random_weights.h"

#include "base/str.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { LEAST = 64 << 20, PAGE = 4096 };

void soma__bench_random_close(soma_bench_random *r) {
    if (r->bytes) munmap(r->bytes, r->size);
    *r = (soma_bench_random){0};
}

// Either sign, 2^-7 to 2^-5: sums over thousands of products stay near one.
static void fill(uint16_t *block, size_t size) {
    uint64_t x = 0x9e3779b97f4a7c15u;
    for (size_t i = 0; i < size / sizeof *block; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        block[i] = (uint16_t)((x >> 32 & 0x80ff) | 0x3c00);
    }
}

// values: of all weights; largest: of one.
static bool write_header(soma_str *text, const soma_layout *layout, size_t *values, size_t *largest) {
    *values = *largest = 0;
    soma__str_add(text, "{");
    for (size_t i = 0; i < layout->n_slots; i++) {
        const soma_slot *slot = &layout->slots[i];
        size_t n = 1;
        soma__str_printf(text, "%s\"%s\":{\"dtype\":\"BF16\",\"shape\":[", i ? "," : "", slot->name);
        for (int d = 0; d < slot->n_dims; d++) {
            n *= (size_t)slot->shape[d];
            soma__str_printf(text, "%s%lld", d ? "," : "", (long long)slot->shape[d]);
        }
        soma__str_printf(text, "],\"data_offsets\":[%zu,%zu]}", 2 * *values, 2 * (*values + n));
        *values += n;
        *largest = SOMA_MAX(*largest, n);
    }
    soma__str_add(text, "}");
    while ((text->len + 8) % PAGE && !text->failed) soma__str_add(text, " "); // the weights begin on a page
    return !text->failed;
}

static bool map_blocks(char *to, size_t size, size_t each) {
    const int file = memfd_create("random", 0);
    if (file < 0) return false;
    bool ok = !ftruncate(file, (off_t)each);
    uint16_t *block = ok ? mmap(NULL, each, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0) : MAP_FAILED;
    ok = block != MAP_FAILED;
    if (ok) {
        fill(block, each);
        munmap(block, each);
    }
    for (size_t at = 0; ok && at < size; at += each)
        ok = mmap(to + at, SOMA_MIN(each, size - at), PROT_READ, MAP_SHARED | MAP_FIXED, file, 0) != MAP_FAILED;
    close(file);
    return ok;
}

soma_status soma__bench_random_open(soma_bench_random *r, soma_safetensors **file, const soma_layout *layout, soma_error *err) {
    soma_str header = {0};
    size_t values, largest;
    *r = (soma_bench_random){0};
    *file = NULL;
    bool ok = write_header(&header, layout, &values, &largest);
    const size_t data = (2 * values + PAGE - 1) / PAGE * PAGE;
    void *bytes =
        ok ? mmap(NULL, 8 + header.len + data, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) : MAP_FAILED;
    ok = bytes != MAP_FAILED;
    if (ok) {
        r->bytes = bytes;
        r->size = 8 + header.len + data;
        const uint64_t len = header.len;
        memcpy(r->bytes, &len, 8); // little-endian, as all that soma runs on
        memcpy(r->bytes + 8, header.text, header.len);
        ok = map_blocks(r->bytes + 8 + header.len, data, SOMA_MAX((2 * largest + PAGE - 1) / PAGE * PAGE, (size_t)LEAST));
    }
    soma_status status = ok ? soma__safetensors_open_bytes(file, r->bytes, 8 + header.len + 2 * values, "random weights", err)
                            : soma__no_memory(err, "random weights");
    if (status != SOMA_OK) soma__bench_random_close(r);
    soma__str_free(&header);
    return status;
}
