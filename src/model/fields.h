// SPDX-License-Identifier: Apache-2.0
// A family's config as one table of fields, which reads config.json, writes it, and refuses what is misspelt. Keys are those of published
// configs where these have one; what a foreign config says at its top beyond the table is not looked at, but an unknown key inside a
// section of sizes is refused.
#ifndef SOMA_MODEL_FIELDS_H
#define SOMA_MODEL_FIELDS_H

#include "model/family.h"
#include "nn/paligemma.h"

typedef enum soma_field_kind { SOMA_FIELD_INT, SOMA_FIELD_REAL, SOMA_FIELD_BOOL } soma_field_kind; // int64_t, double, bool

typedef struct soma_field {
    const char *section, *key, *other; // section "": the top; other: another spelling of the key (LeRobot's) or NULL
    soma_field_kind kind;
    size_t offset;    // in the family's config
    int64_t min, max; // of integers
} soma_field;

#define SOMA_FIELDS_GEMMA(section, type, member)                                                      \
    {section, "width", NULL, SOMA_FIELD_INT, offsetof(type, member.width), 4, 1 << 16},               \
        {section, "depth", NULL, SOMA_FIELD_INT, offsetof(type, member.depth), 1, 512},               \
        {section, "mlp_dim", NULL, SOMA_FIELD_INT, offsetof(type, member.mlp), 1, 1 << 20},           \
        {section, "num_heads", NULL, SOMA_FIELD_INT, offsetof(type, member.n_heads), 1, 256},         \
        {section, "num_kv_heads", NULL, SOMA_FIELD_INT, offsetof(type, member.n_kv_heads), 1, 256}, { \
        section, "head_dim", NULL, SOMA_FIELD_INT, offsetof(type, member.head_dim), 2, 1024           \
    }
#define SOMA_FIELDS_VISION(section, type, member)                                                                  \
    {section, "hidden_size", NULL, SOMA_FIELD_INT, offsetof(type, member.width), 1, 1 << 16},                      \
        {section, "num_hidden_layers", NULL, SOMA_FIELD_INT, offsetof(type, member.depth), 1, SOMA_VIT_MAX_DEPTH}, \
        {section, "num_attention_heads", NULL, SOMA_FIELD_INT, offsetof(type, member.n_heads), 1, 256},            \
        {section, "intermediate_size", NULL, SOMA_FIELD_INT, offsetof(type, member.mlp), 1, 1 << 20},              \
        {section, "patch_size", NULL, SOMA_FIELD_INT, offsetof(type, member.patch), 1, 512}, {                     \
        section, "image_size", NULL, SOMA_FIELD_INT, offsetof(type, member.image), 1, 4096                         \
    }

#define SOMA_FIELDS_RESNET_STAGE(type, member, i)                                                        \
    {"backbone", "width_" #i, NULL, SOMA_FIELD_INT, offsetof(type, member.widths[i - 1]), 1, 1 << 14}, { \
        "backbone", "blocks_" #i, NULL, SOMA_FIELD_INT, offsetof(type, member.blocks[i - 1]), 1, 64      \
    }
#define SOMA_FIELDS_RESNET(type, member)                                                                                             \
    SOMA_FIELDS_RESNET_STAGE(type, member, 1), SOMA_FIELDS_RESNET_STAGE(type, member, 2), SOMA_FIELDS_RESNET_STAGE(type, member, 3), \
        SOMA_FIELDS_RESNET_STAGE(type, member, 4)

// What is absent keeps its value. `config` is the family's struct.
soma_status soma__fields_read(void *config, const soma_field *fields, size_t n, const json_t *json, const char *where, soma_error *err);
bool soma__fields_write(const void *config, const soma_field *fields, size_t n, json_t *out); // false when memory is out

// A family's config of `size` bytes, the model its first member, as `read` fills it from a copy of the object, to which it may add what
// follows from its keys; where that refuses nothing is left behind.
typedef soma_status soma_config_read(void *config, json_t *json, const char *where, soma_error *err);
soma_status soma__config_new(soma_model **model, size_t size, soma_config_read *read, const json_t *json, const char *where,
                             soma_error *err);
// Which of the family's presets, by its place in their list, "preset" names; "base" where it is not said.
soma_status soma__preset_read(size_t *which, const soma_family *family, const json_t *json, const char *where, soma_error *err);
// Type, preset, cameras and fields; a new reference, NULL when memory is out.
json_t *soma__config_json(const soma_model *model, const char *preset, const soma_field *fields, size_t n);

// The list "camera_order" into `names`, of which `info` then speaks. Absent: kept.
typedef char soma_camera_name[64];
soma_status soma__cameras_read(soma_camera_name names[SOMA_MODEL_CAMERAS], soma_model_info *info, const json_t *json, const char *where,
                               soma_error *err);
bool soma__cameras_write(const soma_model_info *info, json_t *out);

// SOMA_NOT_FOUND is no failure: the value that is there stays.
soma_status soma__optional(soma_status status, soma_error *err);
// The sizes of a tower and of a language stack that cannot be.
soma_status soma__check_vision(const soma_vit_config *c, const char *where, soma_error *err);
soma_status soma__check_gemma(const soma_gemma *c, const char *where, soma_error *err);

#endif
