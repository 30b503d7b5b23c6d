// SPDX-License-Identifier: Apache-2.0
// See fast_fit.h. What is learnt is written as a tokenizer.json and read back, so that there is one way to make a tokenizer.
#include "text/fast_fit.h"

#include "base/str.h"
#include "text/bpe_train.h"
#include "text/fast_dct.h"
#include "text/fast_impl.h"
#include "text/unicode.h"

#include <math.h>
#include <string.h>

enum { GROUP = 256 }; // chunks that one item of a parallel loop works on

typedef struct batch {
    int64_t first, n, codes; // chunks [n], codes in each; `first` in values
} batch;

struct soma_fast_fit {
    double scale;
    int16_t *values; // quantised, chunk after chunk
    size_t n_values, room_values;
    batch *batches;
    size_t n_batches, room_batches;
    int64_t n_chunks;
    soma_ranks *ranks;
};

soma_status soma__fast_fit_new(soma_fast_fit **fit, double scale, soma_ranks *ranks, soma_error *err) {
    *fit = NULL;
    if (!(scale > 0 && scale <= 1e9)) return soma__fail(err, SOMA_BAD_INPUT, "the scale is %g, but must be above 0 and at most 1e9", scale);
    soma_fast_fit *f = soma__calloc(1, sizeof *f);
    if (!f) return soma__no_memory(err, "the FAST tokenizer's corpus");
    f->scale = scale;
    f->ranks = ranks;
    *fit = f;
    return SOMA_OK;
}

void soma__fast_fit_free(soma_fast_fit *f) {
    if (!f) return;
    soma__free(f->values);
    soma__free(f->batches);
    soma__free(f);
}

// ---- coefficients

typedef struct quantising {
    const double *chunks;
    int16_t *out;
    int64_t n, T, A;
    double scale;
    soma_dct **plans; // [n_threads]
    double **buffers; // [n_threads][T A]
    int64_t *bad;     // [n_threads] the first chunk that cannot be taken
} quantising;

static void quantise_group(void *ctx, int64_t item, int thread) {
    quantising *q = ctx;
    int64_t size = q->T * q->A;
    for (int64_t i = item * GROUP; i < SOMA_MIN((item + 1) * GROUP, q->n); i++) {
        double *c = q->buffers[thread];
        bool bad = false;
        soma__dct_forward(q->plans[thread], q->chunks + i * size, c, q->A);
        for (int64_t k = 0; k < size; k++) {
            double v = (c[k] * q->scale + 0x1.8p52) - 0x1.8p52; // half to even
            bad |= !(v >= -32767 && v <= 32767);
            q->out[i * size + k] = (int16_t)(v >= -32767 && v <= 32767 ? v : 0);
        }
        if (bad) q->bad[thread] = SOMA_MIN(q->bad[thread], i);
    }
}

static soma_status quantise(soma_fast_fit *f, quantising *q, soma_pool *pool, soma_error *err) {
    int n_threads = soma__pool_threads(pool);
    q->plans = soma__calloc((size_t)n_threads, sizeof *q->plans);
    q->buffers = soma__calloc((size_t)n_threads, sizeof *q->buffers);
    q->bad = soma__alloc((size_t)n_threads * sizeof *q->bad);
    soma_status status = q->plans && q->buffers && q->bad ? SOMA_OK : soma__no_memory(err, "the corpus");
    for (int i = 0; i < n_threads && status == SOMA_OK; i++) {
        q->bad[i] = INT64_MAX;
        status = soma__dct_new(&q->plans[i], q->T, err);
        if (status == SOMA_OK) status = soma__dct_reserve(q->plans[i], q->A, err);
        q->buffers[i] = soma__alloc((size_t)(q->T * q->A) * sizeof **q->buffers);
        if (status == SOMA_OK && !q->buffers[i]) status = soma__no_memory(err, "the corpus");
    }
    if (status == SOMA_OK) {
        int64_t bad = INT64_MAX;
        soma__pool_run(pool, (q->n + GROUP - 1) / GROUP, quantise_group, q);
        for (int i = 0; i < n_threads; i++) bad = SOMA_MIN(bad, q->bad[i]);
        if (bad < INT64_MAX)
            status =
                soma__fail(err, SOMA_BAD_INPUT,
                           "chunk %lld holds a value that is not finite, or is not normalised (a coefficient beyond 32767 steps of 1/%g; "
                           "clipping at the limits helps)",
                           (long long)bad, q->scale);
    }
    for (int i = 0; i < n_threads; i++) {
        if (q->plans) soma__dct_free(q->plans[i]);
        if (q->buffers) soma__free(q->buffers[i]);
    }
    soma__free(q->plans);
    soma__free(q->buffers);
    soma__free(q->bad);
    return status;
}

soma_status soma__fast_fit_add(soma_fast_fit *f, const double *chunks, int64_t n, int64_t T, int64_t A, soma_pool *pool, soma_error *err) {
    if (n < 0 || T < 1 || A < 1 || T > SOMA_FAST_MAX_STEPS || A > SOMA_FAST_MAX_CODES / T)
        return soma__fail(err, SOMA_BAD_INPUT, "%lld chunks of %lld steps and %lld dimensions cannot be learnt from", (long long)n,
                          (long long)T, (long long)A);
    if (!n) return SOMA_OK;
    size_t needed = f->n_values + (size_t)(n * T * A);
    if (!soma__grow((void **)&f->values, &f->room_values, needed, sizeof *f->values) ||
        !SOMA_PUSH_ROOM(f->batches, f->n_batches, f->room_batches))
        return soma__no_memory(err, "the corpus");
    quantising q = {.chunks = chunks, .out = f->values + f->n_values, .n = n, .T = T, .A = A, .scale = f->scale};
    SOMA_TRY(quantise(f, &q, pool, err));
    f->batches[f->n_batches++] = (batch){(int64_t)f->n_values, n, T * A};
    f->n_values = needed;
    f->n_chunks += n;
    return SOMA_OK;
}

// ---- the corpus: codes to words to symbols

typedef struct group {
    int64_t first, n, codes; // chunks of one batch
    size_t at, size;         // their symbols
} group;

typedef struct building {
    const soma_fast_fit *fit;
    int32_t min, n_codes;    // codes 0 .. n_codes - 1
    unsigned char *class_of; // [n_codes]
    int64_t *used;           // [n_codes] how often
    int32_t symbol_of[256];  // the alphabet's id of a byte
    uint32_t *alphabet;      // characters by id
    int32_t n_alphabet;
    group *groups;
    size_t n_groups;
    int32_t **codes;   // [n_threads][longest chunk]
    uint16_t *symbols; // NULL: only sizes are wanted
} building;

// Words of one symbol have no pairs and are left out. Nothing is written behind what is counted: there another thread's group begins.
static size_t add_word(const building *b, const int32_t *c, size_t n, uint16_t *out) {
    size_t len = 0;
    if (n == 1 && c[0] < 0x80) return 0;
    for (size_t i = 0; i < n; i++) {
        if (c[i] < 0x80) {
            if (out) out[len] = (uint16_t)b->symbol_of[c[i]];
            len++;
            continue;
        }
        char utf8[4];
        size_t bytes = soma__utf8_encode((uint32_t)c[i], utf8);
        for (size_t k = 0; k < bytes && out; k++) out[len + k] = (uint16_t)b->symbol_of[(unsigned char)utf8[k]];
        len += bytes;
    }
    if (out) out[len] = SOMA_BPE_BREAK;
    return len + 1;
}

static void build_group(void *ctx, int64_t item, int thread) {
    building *b = ctx;
    group *g = &b->groups[item];
    int32_t *codes = b->codes[thread];
    size_t size = 0;
    for (int64_t i = 0; i < g->n; i++) {
        const int16_t *values = b->fit->values + g->first + i * g->codes;
        for (int64_t k = 0; k < g->codes; k++) codes[k] = values[k] - b->min;
        for (size_t at = 0, n = (size_t)g->codes, len; at < n; at += len) {
            len = soma__fast_word(b->class_of, b->n_codes, codes + at, n - at);
            size += add_word(b, codes + at, len, b->symbols ? b->symbols + g->at + size : NULL);
        }
    }
    g->size = size;
}

static bool make_groups(building *b, int n_threads) {
    int64_t longest = 1;
    size_t n = 0;
    for (size_t i = 0; i < b->fit->n_batches; i++) n += (size_t)((b->fit->batches[i].n + GROUP - 1) / GROUP);
    b->groups = soma__calloc(n + 1, sizeof *b->groups);
    b->codes = soma__calloc((size_t)n_threads, sizeof *b->codes);
    if (!b->groups || !b->codes) return false;
    for (size_t i = 0; i < b->fit->n_batches; i++) {
        const batch *from = &b->fit->batches[i];
        longest = SOMA_MAX(longest, from->codes);
        for (int64_t k = 0; k < from->n; k += GROUP)
            b->groups[b->n_groups++] = (group){from->first + k * from->codes, SOMA_MIN(from->n - k, GROUP), from->codes, 0, 0};
    }
    for (int i = 0; i < n_threads; i++)
        if (!(b->codes[i] = soma__alloc((size_t)longest * sizeof **b->codes))) return false;
    return true;
}

// Once for the sizes, once for the symbols.
static bool build_corpus(building *b, soma_bpe_corpus *corpus, soma_pool *pool) {
    if (!make_groups(b, soma__pool_threads(pool))) return false;
    soma__pool_run(pool, (int64_t)b->n_groups, build_group, b);
    for (size_t i = 0; i < b->n_groups; i++) {
        b->groups[i].at = corpus->n;
        corpus->n += b->groups[i].size;
    }
    corpus->symbols = b->symbols = soma__alloc((corpus->n + 1) * sizeof *corpus->symbols);
    if (!b->symbols) return false;
    soma__pool_run(pool, (int64_t)b->n_groups, build_group, b);
    return true;
}

// Every character from 0 to the largest code stands in the alphabet, whether or not text can hold it (a space cannot: it is written as
// U+0120), and those that the corpus's bytes are written with; ids by code point. So the published trainer does it.
static bool make_alphabet(building *b) {
    bool bytes[256] = {false};
    for (int32_t c = 0; c < b->n_codes; c++) {
        char utf8[4];
        for (size_t k = soma__utf8_encode((uint32_t)c, utf8); b->used[c] && k-- > 0;) bytes[(unsigned char)utf8[k]] = true;
    }
    bool in[0x144] = {false}; // characters of GPT-2's alphabet
    for (int i = 0; i < 256; i++) in[soma__fast_alphabet_char((unsigned char)i)] |= bytes[i];
    b->alphabet = soma__alloc(((size_t)b->n_codes + SOMA_COUNT(in)) * sizeof *b->alphabet);
    if (!b->alphabet) return false;
    for (uint32_t c = 0; c < (uint32_t)b->n_codes || c < SOMA_COUNT(in); c++) {
        if (c >= (uint32_t)b->n_codes && !in[c]) continue;
        int byte = soma__fast_alphabet_byte(c);
        if (byte >= 0) b->symbol_of[byte] = b->n_alphabet;
        b->alphabet[b->n_alphabet++] = c;
    }
    return true;
}

// Of the values of all ranks.
static void limits(const soma_fast_fit *f, int32_t *min, int32_t *max) {
    int32_t low = INT16_MAX, high = INT16_MIN;
    for (size_t i = 0; i < f->n_values; i++) {
        low = SOMA_MIN(low, f->values[i]);
        high = SOMA_MAX(high, f->values[i]);
    }
    int64_t most[] = {-low, high};
    soma__ranks_max(f->ranks, most, 2);
    *min = (int32_t)-most[0];
    *max = (int32_t)most[1];
}

soma_fast_fit_size soma__fast_fit_size(const soma_fast_fit *f) {
    int32_t min, max;
    int64_t sums[] = {f->n_chunks, (int64_t)f->n_values};
    limits(f, &min, &max);
    soma__ranks_sum(f->ranks, sums, 2);
    return (soma_fast_fit_size){sums[0], sums[1], sums[1] ? max - min : 0};
}

static soma_status measure(building *b, int64_t vocab, soma_error *err) {
    const soma_fast_fit *f = b->fit;
    int32_t min, max;
    limits(f, &min, &max);
    b->min = min;
    b->n_codes = max - min + 1;
    if (max - min > vocab)
        return soma__fail(err, SOMA_BAD_INPUT,
                          "the quantised coefficients range from %d to %d, more than a vocabulary of %lld can hold: a smaller scale, a "
                          "larger vocabulary, or chunks that are normalised (and clipped) help",
                          min, max, (long long)vocab);
    if (b->n_codes > 0xd800) return soma__fail(err, SOMA_BAD_INPUT, "%d different codes: there are no characters for so many", b->n_codes);
    b->class_of = soma__alloc((size_t)b->n_codes);
    b->used = soma__calloc((size_t)b->n_codes, sizeof *b->used);
    bool ok = b->class_of && b->used;
    SOMA_TRY(soma__ranks_agree(f->ranks, ok ? SOMA_OK : soma__no_memory(err, "the alphabet"), err));
    for (int32_t c = 0; c < b->n_codes; c++) b->class_of[c] = (unsigned char)soma__unicode_class((uint32_t)c);
    for (size_t i = 0; i < f->n_values; i++) b->used[f->values[i] - min]++;
    soma__ranks_sum(f->ranks, b->used, (size_t)b->n_codes);
    return make_alphabet(b) ? SOMA_OK : soma__no_memory(err, "the alphabet");
}

// ---- the file

static void add_char(soma_str *s, uint32_t c) {
    static const char short_escapes[] = "\bb\tt\nn\ff\rr\"\"\\\\";
    const char *e = c && c < 0x80 ? strchr(short_escapes, (int)c) : NULL;
    char utf8[4];
    if (e && (e - short_escapes) % 2 == 0)
        soma__str_printf(s, "\\%c", e[1]);
    else if (c < 0x20)
        soma__str_printf(s, "\\u%04x", c);
    else
        soma__str_add_bytes(s, utf8, soma__utf8_encode(c, utf8));
}

// The pieces as JSON text without quotes: of the alphabet by character, of merged ones by joining.
typedef struct pieces {
    soma_str text;
    size_t *offsets; // [n_tokens + 1]
} pieces;

static void add_quoted(soma_str *s, const pieces *p, int32_t id) {
    soma__str_add(s, "\"");
    soma__str_add_bytes(s, p->text.text + p->offsets[id], p->offsets[id + 1] - p->offsets[id]);
    soma__str_add(s, "\"");
}

static bool spell(pieces *p, const building *b, const soma_bpe_trained *t) {
    p->offsets = soma__calloc((size_t)t->n_tokens + 1, sizeof *p->offsets);
    if (!p->offsets) return false;
    int32_t id = 0;
    for (; id < b->n_alphabet; id++) {
        add_char(&p->text, b->alphabet[id]);
        p->offsets[id + 1] = p->text.len;
    }
    for (size_t i = 0; i < t->n_merges && !p->text.failed; i++) {
        const soma_merge *m = &t->merges[i];
        if (m->merged != id) continue; // a text that another merge made before
        int32_t halves[] = {m->left, m->right};
        for (int k = 0; k < 2; k++) {
            soma_str half = {0}; // apart from the text, which moves as it grows
            soma__str_add_bytes(&half, p->text.text + p->offsets[halves[k]], p->offsets[halves[k] + 1] - p->offsets[halves[k]]);
            soma__str_add_bytes(&p->text, half.text, half.len);
            p->text.failed |= half.failed;
            soma__str_free(&half);
        }
        p->offsets[++id] = p->text.len;
    }
    return !p->text.failed;
}

static bool write_json(soma_str *s, const building *b, const soma_bpe_trained *t) {
    static const char byte_level[] = "\"type\": \"ByteLevel\", \"add_prefix_space\": %s, \"trim_offsets\": %s, \"use_regex\": true},\n";
    pieces p = {0};
    bool ok = spell(&p, b, t);
    soma__str_add(s, "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n  \"added_tokens\": [],\n  "
                     "\"normalizer\": null,\n  \"pre_tokenizer\": {");
    soma__str_printf(s, byte_level, "false", "true");
    soma__str_add(s, "  \"post_processor\": {");
    soma__str_printf(s, byte_level, "true", "false");
    soma__str_add(s, "  \"decoder\": {");
    soma__str_printf(s, byte_level, "true", "true");
    soma__str_add(s, "  \"model\": {\n    \"type\": \"BPE\",\n    \"dropout\": null,\n    \"unk_token\": null,\n    "
                     "\"continuing_subword_prefix\": null,\n    \"end_of_word_suffix\": null,\n    \"fuse_unk\": false,\n    "
                     "\"byte_fallback\": false,\n    \"ignore_merges\": false,\n    \"vocab\": {");
    for (int32_t id = 0; ok && id < t->n_tokens; id++) {
        soma__str_add(s, id ? ",\n      " : "\n      ");
        add_quoted(s, &p, id);
        soma__str_printf(s, ": %d", id);
    }
    soma__str_add(s, "\n    },\n    \"merges\": [");
    for (size_t i = 0; ok && i < t->n_merges; i++) {
        soma__str_add(s, i ? ",\n      [" : "\n      [");
        add_quoted(s, &p, t->merges[i].left);
        soma__str_add(s, ", ");
        add_quoted(s, &p, t->merges[i].right);
        soma__str_add(s, "]");
    }
    soma__str_add(s, "\n    ]\n  }\n}\n");
    soma__str_free(&p.text);
    soma__free(p.offsets);
    return ok && !s->failed;
}

// ---- all of it

static soma_status learn(soma_fast **fast, building *b, soma_fast_fit *f, int64_t vocab, soma_pool *pool, soma_error *err) {
    soma_bpe_corpus corpus = {0};
    soma_bpe_trained trained = {0};
    soma_str json = {0}, config = {0};
    soma_status status = measure(b, vocab, err);
    if (status == SOMA_OK && !build_corpus(b, &corpus, pool)) status = soma__no_memory(err, "the corpus");
    status = soma__ranks_agree(f->ranks, status, err);
    soma__free(f->values); // the symbols hold all that is in them
    f->values = NULL;
    f->room_values = 0;
    if (status == SOMA_OK) status = soma__bpe_train(&trained, &corpus, b->n_alphabet, (int32_t)vocab, 2, pool, f->ranks, err);
    soma__free(corpus.symbols);
    if (status == SOMA_OK) {
        soma__str_printf(&config, "{\"scale\": %.17g, \"min_token\": %d}", f->scale, b->min);
        if (!write_json(&json, b, &trained) || config.failed) status = soma__no_memory(err, "tokenizer.json");
    }
    if (status == SOMA_OK) status = soma__fast_parse(fast, json.text, json.len, config.text, config.len, "the new tokenizer", err);
    status = soma__ranks_agree(f->ranks, status, err);
    if (status != SOMA_OK) {
        soma__fast_close(*fast);
        *fast = NULL;
    }
    soma__free(trained.merges);
    soma__str_free(&json);
    soma__str_free(&config);
    return status;
}

soma_status soma__fast_fit_run(soma_fast **fast, soma_fast_fit *f, int64_t vocab, soma_pool *pool, soma_error *err) {
    *fast = NULL;
    if (!soma__fast_fit_size(f).chunks) return soma__fail(err, SOMA_BAD_INPUT, "no chunks to learn a tokenizer from");
    if (vocab < 2 || vocab > SOMA_FAST_MAX_VOCAB)
        return soma__fail(err, SOMA_BAD_INPUT, "a vocabulary of %lld; 2 to %d are possible", (long long)vocab, SOMA_FAST_MAX_VOCAB);
    building b = {.fit = f};
    soma_status status = learn(fast, &b, f, vocab, pool, err);
    for (int i = 0; b.codes && i < soma__pool_threads(pool); i++) soma__free(b.codes[i]);
    soma__free(b.codes);
    soma__free(b.class_of);
    soma__free(b.used);
    soma__free(b.alphabet);
    soma__free(b.groups);
    return status;
}
