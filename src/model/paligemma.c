// SPDX-License-Identifier: Apache-2.0
// LeRobot knows PaliGemma's and the expert's sizes by name alone.
#include "model/paligemma.h"

#include "model/recognise.h"

static json_t *answer_fields(const soma_model_info *info) {
    const json_int_t most = info->answer.max;
    return json_pack("{s:I, s:I, s:I, s:s, s:s}", "max_action_tokens", most, "max_decoding_steps", most, "fast_skip_tokens",
                     (json_int_t)info->answer.skip, "text_tokenizer_name", SOMA_PALIGEMMA_TOKENIZER, "action_tokenizer_name",
                     SOMA_FAST_FOLDER);
}

json_t *soma__paligemma_lerobot(const soma_model *model, soma_dtype dtype, bool *own) {
    static const char *const sections[] = {"paligemma", "action_expert", "vision", "camera_order", "vocab_size"};
    const soma_model_info *info = &model->info;
    json_t *config = model->family->config(model);
    const char *language = soma__variant_of(config, "paligemma"), *expert = soma__variant_of(config, "action_expert");
    json_t *out = json_pack("{s:s, s:[I, I]}", "dtype", dtype == SOMA_F32 ? "float32" : "bfloat16", "image_resolution",
                            (json_int_t)info->image_size, (json_int_t)info->image_size);
    json_t *rest = info->answer.max ? answer_fields(info) : json_pack("{s:I}", "num_inference_steps", (json_int_t)info->n_steps);
    *own = !language || (!expert && !info->answer.max);
    bool failed = !config || !out || !rest || json_object_update(out, rest);
    if (!failed && !*own) failed = json_object_set_new(out, "paligemma_variant", json_string(language)) != 0;
    if (!failed && !*own && expert) failed = json_object_set_new(out, "action_expert_variant", json_string(expert)) != 0;
    for (size_t i = 0; *own && !failed && i < SOMA_COUNT(sections); i++)
        if (json_object_get(config, sections[i])) failed = json_object_set(out, sections[i], json_object_get(config, sections[i])) != 0;
    json_decref(config);
    json_decref(rest);
    if (!failed) return out;
    json_decref(out);
    return NULL;
}
