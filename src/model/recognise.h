// SPDX-License-Identifier: Apache-2.0
// What a family's `recognise` is made of: sizes that tensors tell go into the config where it is silent, and where the two contradict each
// other all contradictions become one sentence.
#ifndef SOMA_MODEL_RECOGNISE_H
#define SOMA_MODEL_RECOGNISE_H

#include "base/str.h"
#include "model/family.h"

#define SOMA_PALIGEMMA_VISION "paligemma_with_expert.paligemma.model.vision_tower.vision_model."
#define SOMA_PALIGEMMA_LANGUAGE "paligemma_with_expert.paligemma.model.language_model."

typedef struct soma_finding {
    json_t *config;
    const soma_shapes *tensors;
    soma_str wrong; // contradictions, all of them
} soma_finding;     // .config and .tensors are set; ends with soma__finding_end

// A dimension of a tensor is a size of the config. section "": the top; other: LeRobot's key or NULL.
enum { SOMA_SIZE_COUNT = -1 }; // as the dimension: how many there are of `name`, a format with one %d that counts from 0
typedef struct soma_size_row {
    const char *section, *key, *other, *name;
    int dim;
} soma_size_row;

bool soma__finding_has(const soma_finding *f, const char *tensor);
// `by` is what tells it, for the sentence.
void soma__finding_says(soma_finding *f, const char *section, const char *key, const char *other, int64_t value, const char *by);
void soma__finding_type(soma_finding *f, const char *type, const char *by);
void soma__finding_sizes(soma_finding *f, const soma_size_row *rows, size_t n);
void soma__finding_paligemma(soma_finding *f); // the sizes of tower and language stack, all but the table's
// openpi's name for a stack's sizes (models/gemma.py) under `key`; "_lora" behind it changes none.
void soma__finding_variant(soma_finding *f, const char *key, const char *section);
// The name of the sizes of a section of the config, or NULL: openpi has none.
const char *soma__variant_of(const json_t *config, const char *section);
soma_status soma__finding_end(soma_finding *f, const char *where, soma_error *err);

#endif
