// SPDX-License-Identifier: Apache-2.0
// Any bytes as the metadata of a LeRobot dataset: up to the first zero meta/info.json, behind it meta/episodes.jsonl, and behind
// another zero meta/modality.json. It opens, its files absent, or is refused with a sentence.
#include "base/file.h"
#include "data/dataset.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char dir[] = "/tmp/soma_fuzz_XXXXXX";
static void clean(void) { soma__dir_remove(dir, NULL); }

static void put(const char *name, const void *bytes, size_t size) {
    char path[SOMA_PATH_MAX];
    if (soma__path_join(path, dir, name, NULL) || soma__file_write(path, bytes, size, NULL)) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static bool ready;
    char meta[SOMA_PATH_MAX];
    if (!ready) {
        if (!mkdtemp(dir) || soma__path_join(meta, dir, "meta/episodes", NULL) || soma__dir_make(meta, NULL)) abort();
        atexit(clean);
        ready = true;
    }
    size_t info = strnlen((const char *)data, size), lines = SOMA_MIN(info + 1, size);
    put("meta/info.json", data, info);
    size_t listed = strnlen((const char *)data + lines, size - lines), parts = SOMA_MIN(lines + listed + 1, size);
    put("meta/episodes.jsonl", data + lines, listed);
    put("meta/modality.json", parts < size ? data + parts : (const uint8_t *)"{}", parts < size ? size - parts : 2);
    soma_dataset *d;
    soma_error err = {0};
    if (soma__dataset_open(&d, dir, &err)) {
        if (d || !err.text[0]) abort();
        return 0;
    }
    for (int64_t e = 0; e < d->n_episodes; e++)
        if (!d->episodes[e].task || d->episodes[e].n_frames < 0) abort();
    for (int f = d->n_features; f < d->n_features + d->n_parts; f++) {
        const soma_feature *part = &d->features[f], *whole = &d->features[part->whole];
        if (part->whole < 0 || part->whole >= d->n_features || part->start < 0 || part->start + part->size > whole->size) abort();
    }
    json_decref(soma__dataset_info(d));
    soma__dataset_close(d);
    return 0;
}
