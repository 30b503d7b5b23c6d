// SPDX-License-Identifier: Apache-2.0
// Checkpoints as others write them: a model found by its tensors alone, under every spelling; configs that contradict them; and a list of
// everything that is wrong with a file, in one error.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/file.h"
#include "policy/published.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char dir[] = "/tmp/soma_test_published_XXXXXX", weights_path[128], config_path[128];
static const char *const tiny = "{\"model_type\": \"%s\", \"action_horizon\": 3, \"action_dim\": 5, \"vocab_size\": 24,"
                                " \"paligemma\": {\"width\": 8, \"depth\": 2, \"mlp_dim\": 12},"
                                " \"action_expert\": {\"width\": 6, \"depth\": 2, \"mlp_dim\": 10},"
                                " \"vision\": {\"hidden_size\": 16, \"num_hidden_layers\": 1, \"intermediate_size\": 12, \"patch_size\": 4,"
                                " \"image_size\": 8}}";

static void ok(soma_status status, const soma_error *err) {
    if (status != SOMA_OK) fail_msg("%s", err->text);
}

static int make_dir(void **state) {
    if (!mkdtemp(dir)) return 1;
    snprintf(weights_path, sizeof weights_path, "%s/model.safetensors", dir);
    snprintf(config_path, sizeof config_path, "%s/config.json", dir);
    return 0;
}
static int remove_dir(void **state) { return soma__dir_remove(dir, NULL) != SOMA_OK; }

static soma_model *model_of(const char *type) {
    char text[1024];
    json_t *json;
    soma_model *m;
    soma_error err = {0};
    snprintf(text, sizeof text, tiny, type);
    ok(soma__json_parse(&json, text, strlen(text), "tiny", &err), &err);
    ok(soma__model_new(&m, json, "tiny", &err), &err);
    json_decref(json);
    return m;
}

typedef const char *spelling_fn(char out[600], const char *name); // NULL: leave the tensor out

static const char *as_is(char out[600], const char *name) { return name; }
static const char *replaced(char out[600], const char *name, const char *from, const char *to) {
    const char *hit = strstr(name, from);
    if (!hit) return name;
    snprintf(out, 600, "%.*s%s%s", (int)(hit - name), name, to, hit + strlen(from));
    return out;
}
static const char *as_lerobot(char out[600], const char *name) {
    char rest[600];
    snprintf(out, 600, "model.%.590s", replaced(rest, name, "vision_tower.vision_model.", "vision_tower."));
    return out;
}
static const char *as_openpi(char out[600], const char *name) {
    return strstr(name, "gemma_expert.lm_head") ? NULL : replaced(out, name, "model.language_model.embed_tokens.", "lm_head.");
}
static const char *as_other_time(char out[600], const char *name) {
    return strncmp(name, "time_mlp_", 9) ? name : replaced(out, name, "time_mlp_", "action_time_mlp_");
}

// All tensors of a published file, in `dtype`, renamed; `extra` one more of them, `wrong` with an added dimension of 1.
static void write_weights(const char *type, soma_dtype dtype, spelling_fn *spell, const char *extra, const char *wrong) {
    soma_model *m = model_of(type);
    soma_error err = {0};
    soma_layout layout = {0};
    ok(soma__model_weights(&layout, m, true, &err), &err);
    soma_safetensor *t = calloc(layout.n_slots + 1, sizeof *t);
    char(*names)[600] = calloc(layout.n_slots + 1, sizeof *names);
    void *zeros = calloc(1, 1 << 20);
    size_t n = 0;
    for (size_t s = 0; s < layout.n_slots; s++) {
        const soma_slot *slot = &layout.slots[s];
        const char *name = spell(names[n], slot->name);
        if (!name) continue;
        t[n] = (soma_safetensor){.name = name, .dtype = dtype, .n_dims = slot->n_dims, .data = zeros};
        memcpy(t[n].shape, slot->shape, sizeof slot->shape);
        if (wrong && !strcmp(wrong, slot->name)) t[n].shape[t[n].n_dims++] = 1;
        n++;
    }
    if (extra) t[n++] = (soma_safetensor){.name = extra, .dtype = dtype, .n_dims = 1, .shape = {2}, .data = zeros};
    ok(soma__safetensors_write(weights_path, t, n, NULL, &err), &err);
    unlink(config_path);
    free(t);
    free(names);
    free(zeros);
    soma__layout_free(&layout);
    soma__model_free(m);
}

static void write_config(const char *text) { assert_int_equal(soma__file_write(config_path, text, strlen(text), NULL), SOMA_OK); }

static soma_status open_published(soma_published *p, soma_error *err) {
    soma_status status = soma__published_open(p, dir, err);
    return status == SOMA_OK ? soma__published_model(p, err) : status;
}

// The weights that acting uses are all there.
static soma_status used(const soma_published *p, soma_error *err) {
    soma_layout layout = {0};
    ok(soma__model_weights(&layout, p->model, false, err), err);
    soma_status status = soma__check_weights(&layout, &p->holds, p->model, p->weights, p->model->family->aliases, err);
    soma__layout_free(&layout);
    return status;
}

static void tensors_alone_make_a_model(void **state) {
    const struct {
        const char *type;
        soma_dtype dtype;
        spelling_fn *spell;
    } cases[] = {{"pi0", SOMA_BF16, as_is},        {"pi05", SOMA_BF16, as_is},    {"pi0", SOMA_F32, as_lerobot},
                 {"pi05", SOMA_F16, as_lerobot},   {"pi0", SOMA_BF16, as_openpi}, {"pi05", SOMA_F32, as_openpi},
                 {"pi05", SOMA_F32, as_other_time}};
    for (size_t i = 0; i < SOMA_COUNT(cases); i++) {
        soma_error err = {0};
        soma_published p;
        write_weights(cases[i].type, cases[i].dtype, cases[i].spell, NULL, NULL);
        ok(open_published(&p, &err), &err);
        const soma_model_info *info = &p.model->info;
        assert_string_equal(info->type, cases[i].type);
        assert_int_equal(info->action_dim, 5);
        assert_int_equal(info->vocab, 24);
        assert_int_equal(info->image_size, 8);
        assert_int_equal(info->horizon, 50); // in no tensor: base's
        ok(used(&p, &err), &err);
        soma__published_close(&p);
    }
}

static void a_config_adds_what_no_tensor_says(void **state) {
    soma_error err = {0};
    soma_published p;
    write_weights("pi05", SOMA_BF16, as_openpi, NULL, NULL);
    write_config("{\"action_dim\": 5, \"action_horizon\": 15, \"precision\": \"bfloat16\"}"); // openpi's converter names no type
    ok(open_published(&p, &err), &err);
    assert_string_equal(p.model->info.type, "pi05");
    assert_int_equal(p.model->info.horizon, 15);
    soma__published_close(&p);
    write_config("{\"type\": \"pi05\", \"chunk_size\": 12, \"max_action_dim\": 5, \"tokenizer_max_length\": 90}"); // LeRobot
    ok(open_published(&p, &err), &err);
    assert_int_equal(p.model->info.horizon, 12);
    assert_int_equal(p.model->info.max_tokens, 90);
    soma__published_close(&p);
}

static void refuse(const char *const *words) {
    soma_error err = {0};
    soma_published p;
    soma_status status = open_published(&p, &err);
    if (status == SOMA_OK) status = used(&p, &err);
    assert_int_not_equal(status, SOMA_OK);
    for (; *words; words++)
        if (!strstr(err.text, *words)) fail_msg("\"%s\" does not say %s", err.text, *words);
    soma__published_close(&p);
}
#define REFUSE(...) refuse((const char *const[]){__VA_ARGS__, NULL})

// What the released files hold, and what of it acting reads (facts of the published checkpoints).
static void released_sizes(void **state) {
    const struct {
        const char *type;
        size_t tensors;
        int64_t values, used;
    } released[] = {{"pi0", 777, 3501372176, 3238048528}, {"pi05", 812, 3616757520, 3353433872}};
    for (int i = 0; i < 2; i++) {
        soma_model *m;
        soma_error err = {0};
        json_t *config = json_pack("{s:s}", "model_type", released[i].type);
        ok(soma__model_new(&m, config, "released", &err), &err);
        int64_t values[2] = {0};
        for (int all = 0; all < 2; all++) {
            soma_layout layout = {0};
            ok(soma__model_weights(&layout, m, all, &err), &err);
            if (all) assert_int_equal(layout.n_slots, released[i].tensors);
            for (size_t s = 0; s < layout.n_slots; s++) values[all] += (int64_t)(layout.slots[s].size / sizeof(float));
            soma__layout_free(&layout);
        }
        assert_true(values[1] == released[i].values);
        // the prefix's last layer is cut after its keys and values: o_proj, the MLP, its norm, and the last norm are not read either
        const int64_t cut = 2048 * 2048 + 3 * (int64_t)16384 * 2048 + 2 * 2048;
        assert_true(values[0] == released[i].used - cut - 2048 * 2048);
        soma__model_free(m);
        json_decref(config);
    }
}

// The same weights in two files and an index, as LeRobot and transformers shard them.
static void an_index_of_files_is_read(void **state) {
    soma_error err = {0};
    soma_safetensors *whole;
    soma_published p;
    char part[160], index_path[160];
    write_weights("pi05", SOMA_BF16, as_lerobot, NULL, NULL);
    ok(soma__safetensors_open(&whole, weights_path, &err), &err);
    const size_t n = soma__safetensors_count(whole);
    json_t *index = json_pack("{s:{}, s:{}}", "metadata", "weight_map"), *map = json_object_get(index, "weight_map");
    soma_safetensor *t = calloc(n, sizeof *t);
    for (size_t i = 0; i < n; i++) t[i] = *soma__safetensors_at(whole, i);
    for (int k = 0; k < 2; k++) {
        const size_t from = k ? n / 2 : 0, to = k ? n : n / 2;
        snprintf(part, sizeof part, "model-0000%d-of-00002.safetensors", k + 1);
        for (size_t i = from; i < to; i++) json_object_set_new(map, t[i].name, json_string(part));
        char path[300];
        snprintf(path, sizeof path, "%s/%s", dir, part);
        ok(soma__safetensors_write(path, t + from, to - from, NULL, &err), &err);
    }
    snprintf(index_path, sizeof index_path, "%s/model.safetensors.index.json", dir);
    ok(soma__json_save(index, index_path, &err), &err);
    soma__safetensors_close(whole);
    json_decref(index);
    free(t);
    unlink(weights_path);
    write_config("{\"type\": \"pi05\", \"chunk_size\": 4}");
    ok(open_published(&p, &err), &err);
    assert_int_equal(p.model->info.horizon, 4);
    assert_int_equal(soma__safetensors_count(p.weights), n);
    ok(used(&p, &err), &err);
    soma__published_close(&p);
    snprintf(part, sizeof part, "%s/model-00002-of-00002.safetensors", dir);
    unlink(part);
    REFUSE("model-00002-of-00002.safetensors");
    unlink(index_path);
}

static void contradictions_are_named(void **state) {
    write_weights("pi05", SOMA_BF16, as_openpi, NULL, NULL);
    write_config("{\"model_type\": \"pi0\", \"action_dim\": 14, \"paligemma\": {\"depth\": 18}}");
    REFUSE("config.json contradicts the tensors", "\"model_type\" is \"pi0\"", "pi05", "\"action_dim\" is 14",
           "action_in_proj.weight says 5", "\"paligemma.depth\" is 18", "says 2");
    write_config("{\"type\": \"pi05\", \"max_action_dim\": 32}");
    REFUSE("\"max_action_dim\" is 32");
    write_config("{\"paligemma_variant\": \"gemma_2b_lora\"}");
    REFUSE("\"paligemma.width\" is 2048", "says 8");
    write_config("{\"model_type\": \"pi7\"}");
    REFUSE("pi7", "config.json");
    write_config("[]");
    REFUSE("config.json");
}

static const char *with_gaps(char out[600], const char *name) {
    return strstr(name, "state_proj.bias") || strstr(name, "mlp.up_proj") ? NULL : name;
}

static void everything_wrong_is_listed_at_once(void **state) {
    write_weights("pi0", SOMA_BF16, with_gaps, "normalize_inputs.buffer", "action_out_proj.weight");
    REFUSE(dir, "4 are missing", "1 have another shape", "1 tensors belong to no weight", "state_proj.bias [6]",
           "gemma_expert.model.layers.*.mlp.up_proj.weight [10, 6] (2 layers)", "language_model.layers.*.mlp.up_proj.weight [12, 8]",
           "action_out_proj.weight is [5, 6, 1], not [5, 6]", "normalize_inputs.buffer");
    write_weights("pi0", SOMA_BF16, as_openpi, NULL, NULL); // the expert's head may be absent: nobody reads it
    soma_error err = {0};
    soma_published p;
    ok(open_published(&p, &err), &err);
    ok(used(&p, &err), &err);
    soma__published_close(&p);
}

static void what_is_no_checkpoint_is_told(void **state) {
    soma_error err = {0};
    soma_published p;
    const float one = 1;
    const soma_safetensor t = {.name = "conv1.weight", .dtype = SOMA_F32, .n_dims = 1, .shape = {1}, .data = &one};
    unlink(config_path);
    ok(soma__safetensors_write(weights_path, &t, 1, NULL, &err), &err);
    REFUSE("model_type", "\"pi0\"");
    unlink(weights_path);
    REFUSE("neither model.safetensors nor model.safetensors.index.json");
    assert_int_equal(soma__published_open(&p, "nowhere", &err), SOMA_NOT_FOUND);
    soma__published_close(&p);
    assert_non_null(strstr(err.text, "nowhere"));
}

static void every_allocation_may_fail(void **state) {
    write_weights("pi05", SOMA_BF16, as_openpi, NULL, NULL);
    soma_status status = SOMA_NO_MEMORY;
    for (int64_t n = 0; status != SOMA_OK; n++) {
        soma_error err = {0};
        soma_published p;
        soma__alloc_fail_after(n);
        status = open_published(&p, &err);
        soma__alloc_fail_after(-1);
        soma__published_close(&p);
        assert_true(status == SOMA_OK || *err.text);
        assert_true(n < 20000);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tensors_alone_make_a_model),
        cmocka_unit_test(a_config_adds_what_no_tensor_says),
        cmocka_unit_test(released_sizes),
        cmocka_unit_test(an_index_of_files_is_read),
        cmocka_unit_test(contradictions_are_named),
        cmocka_unit_test(everything_wrong_is_listed_at_once),
        cmocka_unit_test(what_is_no_checkpoint_is_told),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
