// SPDX-License-Identifier: Apache-2.0
// `soma inspect`: what is in a dataset, a checkpoint or a safetensors file, and what of it is missing.
#include "cmd/cmd_dataset.h"
#include "cmd/cmd_quant.h"
#include "base/file.h"
#include "policy/policy.h"
#include "policy/published.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INSPECT_OPTS(X)                                                                                                 \
    X(INT, rows, -1, "rows of the tensors' table and of the list of absent files; 0: all; -1: all tensors, 40 files")   \
    X(TEXT, policy, "", "a policy's folder, for the report")                                                            \
    X(FLAG, quantise_report, false, "what --dtype bf16, int8, int8w and int4w cost of precision: errors against f32")   \
    X(TEXT, obs, "", "the report's observation, as soma act takes it; empty: made up, which is for random weights")     \
    X(INT, episode, 0, "episode of the dataset")                                                                        \
    X(INT, frame, 0, "frame within the episode")                                                                        \
    X(REAL, outliers, 0, "make this share of the layers' output channels 30 times as large first, such as 0.001")       \
    X(INT, seed, 0, "of the report's noise, of what is made up, and of which channels are outliers")                    \
    X(TEXT, isa, "", "amx, avx512 ... neon or plain; empty: the best that this machine has")                            \
    X(INT, threads, 0, "threads; 0: as many as processors")                                                             \
    X(FLAG, verify, false, "hold the packed weights that a policy's folder keeps against its checkpoint, byte by byte") \
    X(TEXT, cache, "", "the folder that keeps them, as soma act takes it")                                              \
    X(TEXT, dtype, "bf16", "what they are packed for, as soma act takes it")
SOMA_OPTS_DECLARE(inspect_opts, INSPECT_OPTS)
#define OPTS_TYPE inspect_opts
SOMA_OPTS_DEFINE_LOCAL(inspect_opts, INSPECT_OPTS, inspect_defaults)
#undef OPTS_TYPE

// ---- datasets

static bool looks_like_dataset(const char *path) {
    for (int i = 0; soma__dataset_registry[i]; i++)
        if (soma__dataset_registry[i]->probe(path)) return true;
    return false;
}

// ---- checkpoints

typedef struct {
    const char *path;
    json_t *config;            // config.json beside the weights; NULL: none
    soma_safetensors *weights; // NULL: none
    int64_t n_values, size;    // of all tensors; bytes
    int64_t of_dtype[SOMA_DTYPE_COUNT];
    const char **words; // what each tensor is for; NULL where no family knows the checkpoint
    soma_faults faults;
    bool recognised;
    soma_error unknown; // why it is not
} checkpoint;

static void checkpoint_close(checkpoint *c) {
    json_decref(c->config);
    soma__safetensors_close(c->weights);
    soma__faults_free(&c->faults);
    soma__free(c->words);
}

static soma_status read_config(checkpoint *c, soma_error *err) {
    char path[SOMA_PATH_MAX];
    if (!soma__dir_exists(c->path)) return SOMA_OK;
    SOMA_TRY(soma__path_join(path, c->path, "config.json", err));
    return soma__file_exists(path) ? soma__json_load(&c->config, path, err) : SOMA_OK;
}

// What the tensors are for, and what is wrong with them, if a family knows them. (A file alone may be anything: then nothing is said.)
static soma_status explain(checkpoint *c, soma_error *err) {
    soma_published p = {0};
    soma_layout used = {0};
    soma_status status = soma__published_open(&p, c->path, &c->unknown);
    if (status == SOMA_OK) status = soma__published_model(&p, &c->unknown);
    if (status == SOMA_NO_MEMORY) return soma__no_memory(err, "a checkpoint's tensors");
    c->recognised = status == SOMA_OK;
    status = SOMA_OK;
    const size_t n = soma__safetensors_count(c->weights);
    if (c->recognised) {
        const soma_alias *aliases = p.model->family->aliases;
        c->words = soma__calloc(n + 1, sizeof *c->words);
        if (!c->words) status = soma__no_memory(err, "a checkpoint's tensors");
        for (size_t s = 0; s < p.holds.n_slots && status == SOMA_OK; s++) {
            const soma_safetensor *t = soma__find_weight(c->weights, p.holds.slots[s].name, aliases);
            if (t) c->words[t - soma__safetensors_at(c->weights, 0)] = soma__model_purpose(p.model, p.holds.slots[s].name);
        }
        if (status == SOMA_OK) status = soma__model_weights(&used, p.model, false, err);
        if (status == SOMA_OK) status = soma__find_faults(&c->faults, &used, &p.holds, p.model, c->weights, aliases, err);
    }
    soma__layout_free(&used);
    soma__published_close(&p);
    return status;
}

// A folder with a config and no weights is shown as such; a folder with neither is none of ours.
static soma_status checkpoint_open(checkpoint *c, const char *path, soma_error *err) {
    *c = (checkpoint){.path = path};
    SOMA_TRY(read_config(c, err));
    soma_status status = soma__safetensors_open(&c->weights, path, err);
    if (status == SOMA_NOT_FOUND && c->config) return SOMA_OK;
    if (status == SOMA_NOT_FOUND && soma__dir_exists(path))
        return soma__fail(err, SOMA_NOT_FOUND, "%s: neither a dataset (meta/info.json) nor a checkpoint (config.json, model.safetensors)",
                          path);
    if (status != SOMA_OK) return status;
    for (size_t i = 0; i < soma__safetensors_count(c->weights); i++) {
        const soma_safetensor *t = soma__safetensors_at(c->weights, i);
        c->n_values += t->n_values;
        c->size += t->n_values * (int64_t)soma_dtype_size(t->dtype);
        c->of_dtype[t->dtype] += t->n_values;
    }
    return explain(c, err);
}

static const char *const fault_kinds[] = {"missing", "misshapen", "extra"};
static const soma_str *fault_list(const checkpoint *c, size_t i) {
    return i == 0 ? &c->faults.missing : i == 1 ? &c->faults.misshapen : &c->faults.extra;
}

static json_t *tensor_json(const soma_safetensor *t, const char *words) {
    json_t *shape = json_array();
    for (int i = 0; i < t->n_dims; i++) json_array_append_new(shape, json_integer(t->shape[i]));
    return json_pack("{s:s, s:s, s:o, s:s*}", "name", t->name, "dtype", soma_dtype_name(t->dtype), "shape", shape, "purpose", words);
}

static json_t *checkpoint_json(const checkpoint *c) {
    json_t *o = json_pack("{s:s, s:b}", "path", c->path, "weights_present", c->weights != NULL);
    if (o && c->config) json_object_set(o, "config", c->config);
    if (!o || !c->weights) return o;
    json_t *tensors = json_array();
    for (size_t i = 0; i < soma__safetensors_count(c->weights); i++)
        json_array_append_new(tensors, tensor_json(soma__safetensors_at(c->weights, i), c->words ? c->words[i] : NULL));
    json_object_set_new(o, "parameters", json_integer(c->n_values));
    json_object_set_new(o, "size", json_integer(c->size));
    json_object_set(o, "metadata", (json_t *)soma__safetensors_metadata_all(c->weights));
    json_object_set_new(o, "tensors", tensors);
    if (!c->recognised) json_object_set_new(o, "not_recognised", json_string(c->unknown.text));
    for (size_t i = 0; i < SOMA_COUNT(fault_kinds); i++) {
        const soma_str *list = fault_list(c, i);
        if (list->text) json_object_set_new(o, fault_kinds[i], json_string(list->text));
    }
    return o;
}

// One line per key; what is nested is printed in JSON's compact form.
static void print_object(const char *title, const json_t *object) {
    const char *key;
    json_t *value;
    if (!json_object_size(object)) return;
    printf("%s\n", title);
    json_object_foreach((json_t *)object, key, value) {
        char *text = json_is_string(value) ? NULL : json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(6));
        printf("  %-24s %.200s\n", key, text ? text : json_is_string(value) ? json_string_value(value) : "");
        free(text);
    }
}

static void print_tensors(const checkpoint *c, int64_t rows) {
    size_t n = soma__safetensors_count(c->weights);
    printf("tensors\n");
    for (size_t i = 0; i < n && (rows <= 0 || (int64_t)i < rows); i++) {
        const soma_safetensor *t = soma__safetensors_at(c->weights, i);
        char shape[160];
        const char *words = c->words ? c->words[i] ? c->words[i] : "?" : "";
        printf("  %-5s %-18s %-*s %s\n", soma_dtype_name(t->dtype), soma__safetensor_shape(shape, t), *words ? 92 : 0, t->name, words);
    }
    if (rows > 0 && (int64_t)n > rows) printf("  ... and %zu more (--rows 0 lists all)\n", n - (size_t)rows);
    printf("%zu tensors, %" PRId64 " values, %.1f MB:", n, c->n_values, (double)c->size / 1e6);
    for (int d = 0; d < SOMA_DTYPE_COUNT; d++)
        if (c->of_dtype[d]) printf(" %s %" PRId64, soma_dtype_name((soma_dtype)d), c->of_dtype[d]);
    printf("\n");
    if (!c->recognised) printf("what the tensors are for is not known: %s\n", c->unknown.text);
    for (size_t i = 0; i < SOMA_COUNT(fault_kinds); i++)
        if (fault_list(c, i)->text) printf("%s: %s\n", fault_kinds[i], fault_list(c, i)->text);
}

static int inspect_checkpoint(const soma_cmd *cmd, const char *path, int64_t rows) {
    checkpoint c;
    soma_error err = {0};
    int code = SOMA_EXIT_OK;
    if (checkpoint_open(&c, path, &err))
        code = soma__cmd_fail(cmd, &err);
    else if (cmd->json)
        code = soma__cmd_print_json(cmd, checkpoint_json(&c));
    else {
        printf("%s\n", path);
        print_object("config.json", c.config);
        if (c.weights) print_object("metadata", soma__safetensors_metadata_all(c.weights));
        if (c.weights)
            print_tensors(&c, rows);
        else
            printf("no weights: model.safetensors is not there\n");
    }
    checkpoint_close(&c);
    return code;
}

// ---- packed weights

static int verify(const soma_cmd *cmd, const char *path, const inspect_opts *o) {
    soma_error err = {0};
    size_t n;
    soma_policy_opts p = soma_policy_defaults();
    p.threads = o->threads;
    snprintf(p.isa, sizeof p.isa, "%s", o->isa);
    snprintf(p.dtype, sizeof p.dtype, "%s", o->dtype);
    snprintf(p.cache, sizeof p.cache, "%s", o->cache);
    if (soma__policy_verify(&n, path, &p, &err)) return soma__cmd_fail(cmd, &err);
    if (cmd->json) return soma__cmd_print_json(cmd, json_pack("{s:I}", "same_weights", (json_int_t)n));
    printf("%s: %zu packed weights, all as the checkpoint gives them\n", path, n);
    return SOMA_EXIT_OK;
}

// ---- the verb

static int run(int argc, char **argv) {
    inspect_opts o = inspect_defaults();
    soma_cmd cmd = {.usage = "PATH | --policy DIR --quantise-report  [options]",
                    .about = "Shows what PATH holds: a dataset (format, robot, rate, episodes, features, what is missing on the disk), a\n"
                             "checkpoint's or policy's folder (config, metadata, tensors), or a .safetensors file.\n\n"
                             "Examples:\n  soma inspect demo/data\n  soma inspect demo/policy --rows 20\n"
                             "  soma inspect --policy demo/policy --quantise-report --obs demo/data\n",
                    .has_json = true,
                    .max_words = 1,
                    .groups = {{&inspect_opts_table, &o, "options"}}};
    int code;
    if (!soma__cmd_parse(&cmd, argc, argv, &code)) return code;
    if (o.quantise_report != !!*o.policy || cmd.n_words == o.quantise_report)
        return soma__cmd_usage(&cmd, "give a PATH, or --policy DIR with --quantise-report");
    if (!(o.outliers >= 0 && o.outliers <= 1)) return soma__cmd_usage(&cmd, "--outliers %g: 0 to 1 are possible", o.outliers);
    if (o.quantise_report)
        return soma__cmd_quant_report(&cmd, &(soma_cmd_quant){.policy = o.policy,
                                                              .obs = o.obs,
                                                              .episode = o.episode,
                                                              .frame = o.frame,
                                                              .seed = o.seed,
                                                              .threads = o.threads,
                                                              .outliers = o.outliers,
                                                              .isa = o.isa});
    const char *path = cmd.words[0];
    if (!soma__file_exists(path) && !soma__dir_exists(path)) {
        soma_error err = {0};
        soma__fail(&err, SOMA_NOT_FOUND, "%s: there is no such file or folder", path);
        return soma__cmd_fail(&cmd, &err);
    }
    if (o.verify) return verify(&cmd, path, &o);
    return looks_like_dataset(path) ? soma__cmd_dataset_info(&cmd, path, o.rows) : inspect_checkpoint(&cmd, path, o.rows);
}

const soma_verb soma__verb_inspect = {"inspect", "what is in a dataset, a checkpoint or a safetensors file", run};
