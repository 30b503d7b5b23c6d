// SPDX-License-Identifier: Apache-2.0
// `soma fast`: action tokenizers. fit learns one from datasets, encode and decode turn chunks into ids and back, stats tells what a
// tokenizer does to a dataset before a policy is trained on it.
#include "cmd/cmd.h"
#include "base/file.h"
#include "base/pool.h"
#include "cmd/cmd_chunks.h"
#include "cmd/cmd_fast.h"
#include "format/npy.h"
#include "format/safetensors.h"
#include "mpi/mpi.h"
#include "text/fast_batch.h"
#include "text/fast_fit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE = 4096 }; // chunks that are floats at a time

#define FAST_OPTS(X)                                                                                                                     \
    X(TEXT, data, "", "folders of datasets, separated by commas; each is normalised by its own statistics")                              \
    X(TEXT, in, "", "encode: chunks as .safetensors (tensor \"chunks\"), .npy or a dataset; decode: ids as .safetensors")                \
    X(TEXT, out, "", "fit: folder of the new tokenizer; encode: .safetensors; decode: .safetensors or .npy; stats: a page (HTML)")       \
    X(TEXT, tokenizer, "", "folder with tokenizer.json and processor_config.json; stats: several with commas; none: fitted per dataset") \
    X(INT, bins, 0, "encode, decode: binning with so many bins instead of --tokenizer")                                                  \
    X(INT, horizon, 0, "steps of a chunk; 0: one second of a dataset; decode: what the ids' file says")                                  \
    X(INT, dims, 0, "decode: dimensions of a chunk; 0: what the ids' file says")                                                         \
    X(INT, stride, 1, "frames from the start of a chunk to that of the next")                                                            \
    X(INT, max_chunks, 0, "take about so many chunks of each dataset, evenly spread; 0: all")                                            \
    X(REAL, scale, 10, "steps of quantisation per unit of a coefficient")                                                                \
    X(INT, vocab, 1024, "tokens of a fitted vocabulary, at most")                                                                        \
    X(TEXT, action_key, "", "feature with the actions; empty: action, else actions")                                                     \
    X(FLAG, normalise, true, "datasets: the 1 % and 99 % quantiles of each dimension become -1 and 1")                                   \
    X(FLAG, clip, false, "values beyond -1 and 1 are set to the limit")                                                                  \
    X(FLAG, skip_bad, false, "datasets: leave out episodes that cannot be read, instead of ending there")                                \
    X(FLAG, relaxed, false, "decode: cut off or fill up what has the wrong length, pass over unknown ids")                               \
    X(FLAG, undo, false, "decode: back to robot units, where the ids' file has the statistics")                                          \
    X(FLAG, curve, true, "stats: the curve of error against tokens, over scales and vocabularies")                                       \
    X(INT, threads, 0, "threads; 0: as many as processors")
SOMA_OPTS_DECLARE(fast_opts, FAST_OPTS)
#define OPTS_TYPE fast_opts
SOMA_OPTS_DEFINE_LOCAL(fast_opts, FAST_OPTS, fast_defaults)
#undef OPTS_TYPE

// Where an action runs. Only `fit` runs over ranks.
typedef struct place {
    soma_pool *pool;
    soma_ranks *ranks; // NULL: alone
} place;

typedef soma_status action(json_t **result, const fast_opts *o, const place *at, soma_error *err);

static soma_status need(const char *value, const char *what, soma_error *err) {
    return *value ? SOMA_OK : soma__fail(err, SOMA_BAD_INPUT, "%s is missing", what);
}

static soma_chunk_opts chunk_opts(const fast_opts *o, soma_ranks *ranks) {
    return (soma_chunk_opts){o->horizon, o->stride, o->max_chunks, o->action_key, o->normalise, o->clip, ranks, o->skip_bad};
}

// The next part of a list with commas, cut off in place; NULL behind the last.
static char *next_part(char **list) {
    char *part = strsep(list, ",");
    while (part && !*part) part = strsep(list, ",");
    return part;
}

static soma_status open_tokenizer(soma_fast **fast, const fast_opts *o, soma_error *err) {
    if (o->bins) return soma__fast_bins(fast, o->bins, err);
    SOMA_TRY(need(o->tokenizer, "--tokenizer: the folder of a tokenizer (or --bins 256)", err));
    return soma__fast_open(fast, o->tokenizer, err);
}

static json_t *numbers(const double *values, int64_t n) {
    json_t *list = json_array();
    for (int64_t i = 0; i < n; i++) json_array_append_new(list, json_real(values[i]));
    return list;
}

// ---- fit

static json_t *source_json(const soma_chunks *c) {
    json_t *s = json_pack("{s:s,s:I,s:I,s:I,s:f,s:I,s:I,s:b}", "name", c->name, "chunks", (json_int_t)c->total, "steps", (json_int_t)c->T,
                          "dimensions", (json_int_t)c->A, "rate", c->rate, "still", (json_int_t)c->still, "skipped", (json_int_t)c->skipped,
                          "clipped", c->clipped);
    if (s && c->q01) {
        json_object_set_new(s, "q01", numbers(c->q01, c->A));
        json_object_set_new(s, "q99", numbers(c->q99, c->A));
    }
    return s;
}

// Piece by piece, so that only the fit's own copy of the chunks grows.
static soma_status add_chunks(soma_fast_fit *fit, const soma_chunks *c, const char *path, soma_pool *pool, soma_error *err) {
    soma_status status = SOMA_OK;
    double *piece = soma__alloc((size_t)(SOMA_MIN(c->n, PIECE) * c->T * c->A + 1) * sizeof *piece);
    if (!piece) return soma__no_memory(err, "the chunks");
    for (int64_t from = 0; from < c->n && status == SOMA_OK; from += PIECE) {
        int64_t n = SOMA_MIN(c->n - from, PIECE);
        soma__chunks_cut(c, from, n, piece);
        status = soma__fast_fit_add(fit, piece, n, c->T, c->A, pool, err);
        if (status != SOMA_OK && c->before + from)
            soma__fail_in(err, "%s, behind chunk %lld", path, (long long)(c->before + from));
        else if (status != SOMA_OK)
            soma__fail_in(err, "%s", path);
    }
    soma__free(piece);
    return status;
}

// `list`: the sources with commas, used up.
static soma_status add_sources(soma_fast_fit *fit, json_t *sources, char *list, const fast_opts *o, const place *at, soma_error *err) {
    soma_chunk_opts co = chunk_opts(o, at->ranks);
    for (char *path; (path = next_part(&list));) {
        soma_chunks c;
        SOMA_TRY(soma__chunks_open(&c, path, &co, err));
        soma_status status = add_chunks(fit, &c, path, at->pool, err);
        json_array_append_new(sources, source_json(&c));
        soma__chunks_free(&c);
        SOMA_TRY(soma__ranks_agree(at->ranks, status, err));
    }
    return SOMA_OK;
}

// What was learnt from what, beside the tokenizer; nothing reads it.
static soma_status save(const soma_fast *fast, const char *dir, const json_t *about, soma_error *err) {
    char path[SOMA_PATH_MAX];
    SOMA_TRY(soma__fast_save(fast, dir, err));
    SOMA_TRY(soma__path_join(path, dir, "metadata.json", err));
    return soma__json_save(about, path, err);
}

static soma_status learn(soma_fast **fast, soma_fast_fit_size *size, soma_fast_fit *f, json_t *sources, const fast_opts *o, const place *at,
                         soma_error *err) {
    char *list = soma__strdup(o->data);
    soma_status status = soma__ranks_agree(at->ranks, list && sources ? SOMA_OK : soma__no_memory(err, "the result"), err);
    if (status == SOMA_OK) status = add_sources(f, sources, list, o, at, err);
    soma__free(list);
    SOMA_TRY(status);
    *size = soma__fast_fit_size(f);
    if (soma__ranks_first(at->ranks) && size->range <= o->vocab && size->range + 100 > o->vocab)
        soma__log(SOMA_LOG_WARN, "the codes alone take %lld of %lld tokens; little is left for merges", (long long)size->range,
                  (long long)o->vocab);
    return soma__fast_fit_run(fast, f, o->vocab, at->pool, err);
}

static soma_status fit(json_t **result, const fast_opts *o, const place *at, soma_error *err) {
    soma_fast_fit *f;
    soma_fast_fit_size size;
    soma_fast *fast = NULL;
    SOMA_TRY(need(o->data, "--data: folders of datasets, or chunks as .safetensors or .npy", err));
    SOMA_TRY(need(o->out, "--out: a folder for the tokenizer", err));
    json_t *sources = json_array();
    double from = soma__seconds();
    soma_status status = soma__ranks_agree(at->ranks, soma__fast_fit_new(&f, o->scale, at->ranks, err), err);
    if (status == SOMA_OK) status = learn(&fast, &size, f, sources, o, at, err);
    soma__fast_fit_free(f);
    if (status == SOMA_OK) {
        *result = json_pack("{s:I,s:f,s:I,s:I,s:I,s:O}", "vocab", (json_int_t)soma__fast_vocab(fast), "scale", o->scale, "min_token",
                            (json_int_t)soma__fast_min_token(fast), "chunks", (json_int_t)size.chunks, "codes", (json_int_t)size.codes,
                            "sources", sources);
        if (!*result)
            status = soma__no_memory(err, "the result");
        else if (soma__ranks_first(at->ranks))
            status = save(fast, o->out, *result, err);
        status = soma__ranks_agree(at->ranks, status, err);
    }
    if (status == SOMA_OK) json_object_set_new(*result, "seconds", json_real(soma__seconds() - from));
    if (status == SOMA_OK) json_object_set_new(*result, "ranks", json_integer(at->ranks ? at->ranks->count : 1));
    json_decref(sources);
    soma__fast_close(fast);
    return status;
}

static void print_fit(const json_t *r, const fast_opts *o) {
    printf("%s: %lld tokens, min_token %lld, from %lld chunks in %.2f s\n", o->out,
           (long long)json_integer_value(json_object_get(r, "vocab")), (long long)json_integer_value(json_object_get(r, "min_token")),
           (long long)json_integer_value(json_object_get(r, "chunks")), json_real_value(json_object_get(r, "seconds")));
}

// ---- encode

static json_t *ids_metadata(const soma_chunks *c) {
    char steps[24], dims[24];
    snprintf(steps, sizeof steps, "%lld", (long long)c->T);
    snprintf(dims, sizeof dims, "%lld", (long long)c->A);
    json_t *m = json_pack("{s:s,s:s}", "T", steps, "A", dims);
    for (int i = 0; m && c->q01 && i < 2; i++) {
        json_t *list = numbers(i ? c->q99 : c->q01, c->A);
        char *text = json_dumps(list, JSON_COMPACT | JSON_REAL_PRECISION(17));
        if (text) json_object_set_new(m, i ? "q99" : "q01", json_string(text));
        free(text);
        json_decref(list);
    }
    return m;
}

static soma_status write_ids(const char *path, const soma_chunks *c, const soma_fast_rows *rows, soma_error *err) {
    int32_t *ok = soma__alloc(((size_t)rows->n + 1) * sizeof *ok);
    json_t *metadata = ids_metadata(c);
    soma_status status = ok && metadata ? SOMA_OK : soma__no_memory(err, "the ids");
    for (int64_t i = 0; ok && i < rows->n; i++) ok[i] = rows->ok[i];
    soma_safetensor tensors[] = {
        {.name = "token_ids", .dtype = SOMA_I32, .n_dims = 1, .shape = {rows->offsets[rows->n]}, .data = rows->ids},
        {.name = "offsets", .dtype = SOMA_I64, .n_dims = 1, .shape = {rows->n + 1}, .data = rows->offsets},
        {.name = "encode_ok", .dtype = SOMA_I32, .n_dims = 1, .shape = {rows->n}, .data = ok},
    };
    if (status == SOMA_OK) status = soma__safetensors_write(path, tensors, SOMA_COUNT(tensors), metadata, err);
    json_decref(metadata);
    soma__free(ok);
    return status;
}

static soma_status encode(json_t **result, const fast_opts *o, const place *at, soma_error *err) {
    soma_fast *fast = NULL;
    soma_chunks c = {0};
    soma_fast_rows rows = {0};
    soma_chunk_opts co = chunk_opts(o, NULL);
    SOMA_TRY(need(o->in, "--in: chunks as .safetensors, .npy or a dataset", err));
    SOMA_TRY(need(o->out, "--out: a .safetensors file for the ids", err));
    SOMA_TRY(open_tokenizer(&fast, o, err));
    soma_status status = soma__chunks_read(&c, o->in, &co, err);
    if (status == SOMA_OK) status = soma__fast_encode_batch(&rows, fast, c.values, c.n, c.T, c.A, at->pool, err);
    if (status == SOMA_OK && rows.n_refused)
        soma__log(SOMA_LOG_WARN, "%lld of %lld chunks have no ids; %s", (long long)rows.n_refused, (long long)rows.n, rows.first.text);
    if (status == SOMA_OK) status = write_ids(o->out, &c, &rows, err);
    if (status == SOMA_OK)
        *result = json_pack("{s:I,s:I,s:I,s:I,s:I}", "chunks", (json_int_t)rows.n, "steps", (json_int_t)c.T, "dimensions", (json_int_t)c.A,
                            "tokens", (json_int_t)rows.offsets[rows.n], "refused", (json_int_t)rows.n_refused);
    soma__fast_rows_free(&rows);
    soma__chunks_free(&c);
    soma__fast_close(fast);
    return status;
}

static void print_encode(const json_t *r, const fast_opts *o) {
    long long n = json_integer_value(json_object_get(r, "chunks")), tokens = json_integer_value(json_object_get(r, "tokens")),
              refused = json_integer_value(json_object_get(r, "refused"));
    printf("%s: %lld chunks, %lld tokens (%.1f each)", o->out, n, tokens, n ? (double)tokens / (double)n : 0.0);
    if (refused) printf(", %lld chunks refused", refused);
    printf("\n");
}

// ---- decode

typedef struct ids_file {
    soma_safetensors *st;
    const int32_t *ids;
    int64_t *offsets, n, T, A;
    int32_t *copy; // of ids that lie unaligned
} ids_file;

static int64_t metadata_int(const soma_safetensors *st, const char *key) {
    const char *text = soma__safetensors_metadata(st, key);
    return text ? strtoll(text, NULL, 10) : 0;
}

// The offsets rise from 0 to the number of ids; both dtypes that are in use are read.
static soma_status read_offsets(ids_file *f, const soma_safetensor *t, int64_t n_ids, const char *path, soma_error *err) {
    if (!t || t->n_dims != 1 || t->n_values < 1 || (t->dtype != SOMA_I32 && t->dtype != SOMA_I64))
        return soma__fail(err, SOMA_BAD_INPUT, "%s: the tensor \"offsets\" must be I32 or I64 [rows + 1]", path);
    f->n = t->n_values - 1;
    f->offsets = soma__alloc((size_t)t->n_values * sizeof *f->offsets);
    if (!f->offsets) return soma__no_memory(err, "the offsets");
    for (int64_t i = 0; i <= f->n; i++) {
        int32_t narrow;
        if (t->dtype == SOMA_I64)
            memcpy(&f->offsets[i], (const char *)t->data + i * 8, 8);
        else {
            memcpy(&narrow, (const char *)t->data + i * 4, 4);
            f->offsets[i] = narrow;
        }
        if (f->offsets[i] < (i ? f->offsets[i - 1] : 0) || f->offsets[i] > n_ids || (!i && f->offsets[i]))
            return soma__fail(err, SOMA_BAD_INPUT, "%s: offsets[%lld] is %lld: they must rise from 0 to %lld", path, (long long)i,
                              (long long)f->offsets[i], (long long)n_ids);
    }
    return SOMA_OK;
}

static soma_status read_ids(ids_file *f, const fast_opts *o, soma_error *err) {
    SOMA_TRY(soma__safetensors_open(&f->st, o->in, err));
    const soma_safetensor *ids = soma__safetensors_find(f->st, "token_ids"), *chunks = soma__safetensors_find(f->st, "chunks");
    if (!ids || ids->n_dims != 1 || ids->dtype != SOMA_I32)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: the tensor \"token_ids\" must be I32 with one dimension", o->in);
    SOMA_TRY(read_offsets(f, soma__safetensors_find(f->st, "offsets"), ids->n_values, o->in, err));
    f->ids = ids->data;
    if (!soma__safetensor_aligned(ids)) {
        f->ids = f->copy = soma__alloc((size_t)ids->n_values * sizeof *f->copy);
        if (!f->copy) return soma__no_memory(err, "the ids");
        memcpy(f->copy, ids->data, (size_t)ids->n_values * sizeof *f->copy);
    }
    bool shaped = chunks && chunks->n_dims == 3;
    f->T = o->horizon ? o->horizon : shaped ? chunks->shape[1] : metadata_int(f->st, "T");
    f->A = o->dims ? o->dims : shaped ? chunks->shape[2] : metadata_int(f->st, "A");
    if (f->T < 1 || f->A < 1 || f->T > SOMA_FAST_MAX_STEPS || f->A > SOMA_FAST_MAX_CODES / f->T || (f->n && f->T * f->A > INT32_MAX / f->n))
        return soma__fail(err, SOMA_BAD_INPUT, "%s: chunks of %lld steps and %lld dimensions; --horizon and --dims tell the shape", o->in,
                          (long long)f->T, (long long)f->A);
    return SOMA_OK;
}

static soma_status read_list(double *out, int64_t n, const ids_file *f, const char *key, const char *path, soma_error *err) {
    const char *text = soma__safetensors_metadata(f->st, key);
    json_t *list = NULL;
    if (!text)
        return soma__fail(err, SOMA_NOT_FOUND, "%s: the file has no statistics; --undo needs ids that were encoded from a dataset", path);
    SOMA_TRY(soma__json_parse(&list, text, strlen(text), path, err));
    bool ok = json_is_array(list) && (int64_t)json_array_size(list) == n;
    for (int64_t i = 0; ok && i < n; i++) out[i] = json_number_value(json_array_get(list, (size_t)i));
    json_decref(list);
    return ok ? SOMA_OK : soma__fail(err, SOMA_BAD_INPUT, "%s: \"%s\" is no list of %lld numbers", path, key, (long long)n);
}

static soma_status undo(double *chunks, const ids_file *f, const char *path, soma_error *err) {
    soma_chunks c = {.A = f->A, .q01 = soma__calloc((size_t)f->A, sizeof *c.q01), .q99 = soma__calloc((size_t)f->A, sizeof *c.q99)};
    soma_status status = c.q01 && c.q99 ? read_list(c.q01, f->A, f, "q01", path, err) : soma__no_memory(err, "the statistics");
    if (status == SOMA_OK) status = read_list(c.q99, f->A, f, "q99", path, err);
    if (status == SOMA_OK) {
        c.norm = (soma_norm){.key = "actions", .size = (int)f->A, .q01 = c.q01, .q99 = c.q99};
        soma__chunks_undo(&c, chunks, f->n * f->T);
    }
    soma__chunks_free(&c);
    return status;
}

static soma_status write_chunks(const char *path, const ids_file *f, const double *chunks, const int32_t *ok, soma_error *err) {
    size_t len = strlen(path);
    int64_t shape[] = {f->n, f->T, f->A};
    if (len >= 4 && !strcmp(path + len - 4, ".npy")) return soma__npy_write(path, SOMA_F64, shape, 3, chunks, err);
    soma_safetensor tensors[] = {
        {.name = "decoded", .dtype = SOMA_F64, .n_dims = 3, .shape = {f->n, f->T, f->A}, .data = chunks},
        {.name = "decode_ok", .dtype = SOMA_I32, .n_dims = 1, .shape = {f->n}, .data = ok},
    };
    return soma__safetensors_write(path, tensors, SOMA_COUNT(tensors), NULL, err);
}

static soma_status decode_rows(json_t **result, const fast_opts *o, const soma_fast *fast, const ids_file *f, soma_pool *pool,
                               soma_error *err) {
    double *chunks = soma__alloc(((size_t)(f->n * f->T * f->A) + 1) * sizeof *chunks);
    uint8_t *ok = soma__calloc((size_t)f->n + 1, 1);
    int32_t *wide = soma__alloc(((size_t)f->n + 1) * sizeof *wide);
    int64_t refused = 0;
    soma_status status = chunks && ok && wide ? SOMA_OK : soma__no_memory(err, "the decoded chunks");
    if (status == SOMA_OK)
        status = soma__fast_decode_batch(chunks, ok, fast, f->ids, f->offsets, f->n, o->relaxed ? SOMA_FAST_RELAXED : SOMA_FAST_STRICT,
                                         f->T, f->A, pool, err);
    for (int64_t i = 0; status == SOMA_OK && i < f->n; i++) {
        wide[i] = ok[i];
        refused += !ok[i];
    }
    if (status == SOMA_OK && o->undo) status = undo(chunks, f, o->in, err);
    if (status == SOMA_OK) status = write_chunks(o->out, f, chunks, wide, err);
    if (status == SOMA_OK)
        *result = json_pack("{s:I,s:I,s:I,s:I}", "chunks", (json_int_t)f->n, "steps", (json_int_t)f->T, "dimensions", (json_int_t)f->A,
                            "refused", (json_int_t)refused);
    soma__free(chunks);
    soma__free(ok);
    soma__free(wide);
    return status;
}

static soma_status decode(json_t **result, const fast_opts *o, const place *at, soma_error *err) {
    soma_fast *fast = NULL;
    ids_file f = {0};
    SOMA_TRY(need(o->in, "--in: ids as .safetensors", err));
    SOMA_TRY(need(o->out, "--out: a .safetensors or .npy file for the chunks", err));
    SOMA_TRY(open_tokenizer(&fast, o, err));
    soma_status status = read_ids(&f, o, err);
    if (status == SOMA_OK) status = decode_rows(result, o, fast, &f, at->pool, err);
    soma__free(f.offsets);
    soma__free(f.copy);
    soma__safetensors_close(f.st);
    soma__fast_close(fast);
    return status;
}

static void print_decode(const json_t *r, const fast_opts *o) {
    long long refused = json_integer_value(json_object_get(r, "refused"));
    printf("%s: %lld chunks of %lld steps and %lld dimensions", o->out, (long long)json_integer_value(json_object_get(r, "chunks")),
           (long long)json_integer_value(json_object_get(r, "steps")), (long long)json_integer_value(json_object_get(r, "dimensions")));
    if (refused) printf("; %lld do not decode to that shape and are zero", refused);
    printf("\n");
}

// ---- stats

static soma_status measure_into(json_t *list, const soma_fast *fast, const char *name, const soma_chunks *c, soma_pool *pool,
                                soma_error *err) {
    json_t *one;
    SOMA_TRY(soma__fast_measure(&one, fast, name, c, pool, err));
    return json_array_append_new(list, one) ? soma__no_memory(err, "the statistics") : SOMA_OK;
}

// A tokenizer of the dataset's own, with --scale and --vocab. Chunks that none can be learnt from are told; the other rows stand.
static soma_status measure_own(json_t *list, const soma_chunks *c, const fast_opts *o, soma_pool *pool, soma_error *err) {
    soma_fast_fit *f;
    soma_fast *fast = NULL;
    SOMA_TRY(soma__fast_fit_new(&f, o->scale, NULL, err));
    soma_status status = soma__fast_fit_add(f, c->values, c->n, c->T, c->A, pool, err);
    if (status == SOMA_OK) status = soma__fast_fit_run(&fast, f, o->vocab, pool, err);
    if (status == SOMA_OK)
        status = measure_into(list, fast, "fitted", c, pool, err);
    else if (status == SOMA_BAD_INPUT) {
        soma__log(SOMA_LOG_WARN, "%s: no tokenizer can be fitted: %s", c->name, err->text);
        status = SOMA_OK;
    }
    soma__fast_close(fast);
    soma__fast_fit_free(f);
    return status;
}

static soma_status measure_given(json_t *list, const soma_chunks *c, const fast_opts *o, soma_pool *pool, soma_error *err) {
    char *dirs = soma__strdup(o->tokenizer), *rest = dirs;
    soma_status status = dirs ? SOMA_OK : soma__no_memory(err, "the tokenizers' names");
    for (char *dir; status == SOMA_OK && (dir = next_part(&rest));) {
        soma_fast *fast;
        status = soma__fast_open(&fast, dir, err);
        const char *slash = strrchr(dir, '/');
        if (status == SOMA_OK) status = measure_into(list, fast, slash && slash[1] ? slash + 1 : dir, c, pool, err);
        soma__fast_close(fast);
    }
    soma__free(dirs);
    return status;
}

static soma_status measure_bins(json_t *list, const soma_chunks *c, soma_pool *pool, soma_error *err) {
    soma_fast *bins;
    SOMA_TRY(soma__fast_bins(&bins, 256, err));
    soma_status status = measure_into(list, bins, "256 bins", c, pool, err);
    soma__fast_close(bins);
    return status;
}

static soma_status measure_dataset(json_t *datasets, const char *path, const fast_opts *o, soma_pool *pool, soma_error *err) {
    soma_chunks c;
    soma_chunk_opts co = chunk_opts(o, NULL);
    SOMA_TRY(soma__chunks_read(&c, path, &co, err));
    json_t *one = source_json(&c), *list = json_array(), *curve = NULL;
    soma_status status = one && list ? SOMA_OK : soma__no_memory(err, "the statistics");
    if (status == SOMA_OK && !c.n)
        status = soma__fail(err, SOMA_BAD_INPUT, "%s: no episode on the disk has %lld steps", path, (long long)c.T);
    if (status == SOMA_OK) status = *o->tokenizer ? measure_given(list, &c, o, pool, err) : measure_own(list, &c, o, pool, err);
    if (status == SOMA_OK) status = measure_bins(list, &c, pool, err);
    if (status == SOMA_OK && o->curve) status = soma__fast_curve(&curve, &c, pool, err);
    if (status == SOMA_OK) {
        json_object_set(one, "tokenizers", list);
        if (curve) json_object_set(one, "curve", curve);
        json_array_append(datasets, one);
    }
    json_decref(one);
    json_decref(list);
    json_decref(curve);
    soma__chunks_free(&c);
    return status;
}

static soma_status stats(json_t **result, const fast_opts *o, const place *at, soma_error *err) {
    SOMA_TRY(need(o->data, "--data: folders of datasets, or chunks as .safetensors or .npy", err));
    json_t *datasets = json_array();
    char *list = soma__strdup(o->data), *rest = list;
    soma_status status = datasets && list ? SOMA_OK : soma__no_memory(err, "the statistics");
    for (char *path; status == SOMA_OK && (path = next_part(&rest));) status = measure_dataset(datasets, path, o, at->pool, err);
    soma__free(list);
    *result = json_pack("{s:o}", "datasets", datasets);
    if (status == SOMA_OK && !*result) status = soma__no_memory(err, "the statistics");
    if (status == SOMA_OK && *o->out) status = soma__fast_page(o->out, *result, err);
    return status;
}

static void print_stats(const json_t *r, const fast_opts *o) {
    size_t i, k;
    json_t *d, *m;
    printf("%-32s %4s %5s %6s %7s  %-12s %7s %7s %6s %7s %6s %8s %7s %8s\n", "dataset", "dims", "Hz", "steps", "chunks", "tokenizer",
           "tokens", "median", "p99", "binned", "ratio", "error", "limits", "refused");
    json_array_foreach(json_object_get(r, "datasets"), i, d) {
        json_array_foreach(json_object_get(d, "tokenizers"), k, m) {
            const json_t *t = json_object_get(m, "tokens");
            printf("%-32s %4lld %5.3g %6lld %7lld  %-12s %7.1f %7.1f %6lld %7lld %6.2f %8.5f %6.2f%% %8lld\n",
                   json_string_value(json_object_get(d, "name")), (long long)json_integer_value(json_object_get(d, "dimensions")),
                   json_real_value(json_object_get(d, "rate")), (long long)json_integer_value(json_object_get(d, "steps")),
                   (long long)json_integer_value(json_object_get(d, "chunks")), json_string_value(json_object_get(m, "tokenizer")),
                   json_real_value(json_object_get(t, "mean")), json_real_value(json_object_get(t, "median")),
                   (long long)json_integer_value(json_object_get(t, "p99")), (long long)json_integer_value(json_object_get(m, "binned")),
                   json_real_value(json_object_get(m, "ratio")), json_real_value(json_object_get(m, "error_rms")),
                   100 * json_real_value(json_object_get(m, "limits")), (long long)json_integer_value(json_object_get(m, "refused")));
        }
    }
    if (*o->out) printf("%s: tables, errors per dimension in robot units, and curves\n", o->out);
}

// ---- the verb

typedef struct named_action {
    const char *name;
    action *run;
    void (*print)(const json_t *result, const fast_opts *o);
} named_action;

static const named_action actions[] = {
    {"fit", fit, print_fit}, {"encode", encode, print_encode}, {"decode", decode, print_decode}, {"stats", stats, print_stats}};

static int report(const soma_cmd *cmd, const named_action *a, const fast_opts *o, soma_status status, json_t *result,
                  const soma_error *err) {
    if (status != SOMA_OK) return soma__cmd_fail(cmd, err);
    if (cmd->json) return soma__cmd_print_json(cmd, json_incref(result));
    a->print(result, o);
    return SOMA_EXIT_OK;
}

static int run(int argc, char **argv) {
    fast_opts o = fast_defaults();
    soma_cmd cmd = {.usage = "fit|encode|decode|stats [options]",
                    .about = "FAST action tokenizers: chunks of actions as a few ids, the same ids as the published processor's.\n"
                             "fit learns one; encode and decode go both ways; stats tells tokens and errors per dataset.\n\n"
                             "Examples:\n"
                             "  soma fast fit --data demo/data --horizon 50 --scale 10 --vocab 1024 --out tokenizer\n"
                             "  soma fast encode --tokenizer tokenizer --in demo/data --horizon 50 --out ids.safetensors\n"
                             "  soma fast decode --tokenizer tokenizer --in ids.safetensors --undo --out chunks.npy\n"
                             "  soma fast stats --data demo/data --tokenizer tokenizer --out fast.html\n"
                             "  mpirun -n 4 soma fast fit --data one,two --out tokenizer\n",
                    .has_json = true,
                    .has_config = true,
                    .min_words = 1,
                    .max_words = 1,
                    .groups = {{&fast_opts_table, &o, "options"}}};
    int code;
    if (!soma__cmd_parse(&cmd, argc, argv, &code)) return code;
    size_t which = 0;
    while (which < SOMA_COUNT(actions) && strcmp(cmd.words[0], actions[which].name)) which++;
    if (which == SOMA_COUNT(actions)) return soma__cmd_usage(&cmd, "\"%s\" is none of fit, encode, decode and stats", cmd.words[0]);
    if (o.horizon < 0 || o.stride < 1 || o.max_chunks < 0 || o.dims < 0 || o.threads < 0 || o.threads > 1024)
        return soma__cmd_usage(&cmd, "--horizon, --max-chunks, --dims and --threads are not negative, --stride is at least 1");
    soma_error err = {0};
    place at = {0};
    json_t *result = NULL;
    if (soma__mpi_open(&at.ranks, &err)) return soma__cmd_fail(&cmd, &err);
    soma_status status = at.ranks && actions[which].run != fit
                             ? soma__fail(&err, SOMA_UNSUPPORTED, "%s runs in one process; only fit runs over ranks", cmd.words[0])
                             : soma__pool_new(&at.pool, (int)o.threads, &err);
    status = soma__ranks_agree(at.ranks, status, &err);
    if (status == SOMA_OK) status = actions[which].run(&result, &o, &at, &err);
    soma__pool_free(at.pool);
    if (status == SOMA_OK && !result) status = soma__no_memory(&err, "the result");
    code = status == SOMA_OK ? SOMA_EXIT_OK : SOMA_EXIT_FAILED;
    if (soma__ranks_first(at.ranks)) code = report(&cmd, &actions[which], &o, status, result, &err);
    json_decref(result);
    soma__mpi_close(at.ranks);
    return code;
}

const soma_verb soma__verb_fast = {"fast", "action tokenizers: learn one, encode and decode with it, see what it does to a dataset", run};
