// SPDX-License-Identifier: Apache-2.0
// The weights of goldens that are too large to be kept: element i of a tensor is a splitmix64 hash of (seed, i), scaled, as the golden's
// config.json tells it.
#ifndef SOMA_TESTS_GOLDEN_GENERATOR_H
#define SOMA_TESTS_GOLDEN_GENERATOR_H

#include "base/json.h"
#include "golden/golden.h"

static inline float generator_value(uint64_t seed, uint64_t i, float scale, float offset) {
    uint64_t z = seed + (i + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    z ^= z >> 31;
    float v = (float)((int64_t)(z >> 40) - 8388608) * 0x1p-23f * scale;
    return offset != 0 ? v + offset : v;
}

// The tensor `name` of the list in config.json, as f32; the first values are held against those in the list. Release with free.
static inline float *generator_tensor(const json_t *config, const char *name, int64_t *n_values) {
    size_t i;
    const json_t *t;
    json_array_foreach(json_object_get(config, "tensors"), i, t) {
        if (strcmp(json_string_value(json_object_get(t, "name")), name)) continue;
        int64_t n = 1;
        size_t k;
        const json_t *v;
        json_array_foreach(json_object_get(t, "shape"), k, v) n *= json_integer_value(v);
        uint64_t seed = (uint64_t)json_integer_value(json_object_get(t, "seed"));
        float a = (float)json_number_value(json_object_get(t, "a")), offset = (float)json_number_value(json_object_get(t, "offset"));
        float *values = malloc(sizeof *values * (size_t)n);
        assert_non_null(values);
        for (int64_t e = 0; e < n; e++) values[e] = generator_value(seed, (uint64_t)e, a, offset);
        json_array_foreach(json_object_get(t, "first8"), k, v) assert_true(values[k] == (float)json_number_value(v));
        *n_values = n;
        return values;
    }
    fail_msg("the golden has no tensor %s", name);
    return NULL;
}

#endif
