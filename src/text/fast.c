// SPDX-License-Identifier: Apache-2.0
// Chunk to ids and back. See fast.h for what is computed, fast_file.c for the files, fast_fit.c for making a tokenizer from data.
#include "text/fast_dct.h"
#include "text/fast_impl.h"
#include "text/unicode.h"

#include <math.h>
#include <string.h>

enum { PLANS = 4 };

struct soma_fast_work {
    const soma_fast *fast;
    struct {
        int64_t steps;
        soma_dct *dct;
    } plans[PLANS]; // the newest first
    double *values; // [room] coefficients
    int32_t *codes; // [room]
    int32_t *ids;   // [4 room]
    size_t room;
    soma_fast_bpe_work bpe;
    unsigned char *bytes; // of a decode that cannot go token by token
    size_t bytes_room;
};

soma_status soma__fast_work_new(soma_fast_work **work, const soma_fast *fast, soma_error *err) {
    *work = soma__calloc(1, sizeof **work);
    if (!*work) return soma__no_memory(err, "the FAST tokenizer's work");
    (*work)->fast = fast;
    return SOMA_OK;
}

void soma__fast_work_free(soma_fast_work *w) {
    if (!w) return;
    for (int i = 0; i < PLANS; i++) soma__dct_free(w->plans[i].dct);
    soma__fast_bpe_work_free(&w->bpe);
    soma__free(w->values);
    soma__free(w->codes);
    soma__free(w->ids);
    soma__free(w->bytes);
    soma__free(w);
}

// The plan for this many steps, moved to the front; the oldest makes room for a new one.
static soma_status plan_for(soma_fast_work *w, int64_t steps, int64_t width, soma_error *err) {
    int at = 0;
    while (at < PLANS - 1 && w->plans[at].steps != steps) at++;
    if (w->plans[at].steps != steps) {
        soma_dct *dct;
        SOMA_TRY(soma__dct_new(&dct, steps, err));
        soma__dct_free(w->plans[at].dct);
        w->plans[at].dct = dct;
        w->plans[at].steps = steps;
    }
    for (; at > 0; at--) {
        soma_dct *dct = w->plans[at].dct;
        w->plans[at] = w->plans[at - 1];
        w->plans[at - 1].dct = dct;
        w->plans[at - 1].steps = steps;
    }
    return soma__dct_reserve(w->plans[0].dct, width, err);
}

static soma_status prepare(soma_fast_work *w, int64_t T, int64_t A, soma_error *err) {
    if (T < 1 || A < 1 || T > SOMA_FAST_MAX_STEPS || A > SOMA_FAST_MAX_CODES / T)
        return soma__fail(
            err, SOMA_BAD_INPUT,
            "a chunk of %lld steps and %lld dimensions: 1 to %d steps and at least one dimension are needed, %d values at most",
            (long long)T, (long long)A, SOMA_FAST_MAX_STEPS, SOMA_FAST_MAX_CODES);
    size_t n = (size_t)(T * A);
    if (n > w->room) {
        soma__free(w->values);
        soma__free(w->codes);
        soma__free(w->ids);
        w->room = 0;
        w->values = soma__alloc(n * sizeof *w->values);
        w->codes = soma__alloc(n * sizeof *w->codes);
        w->ids = soma__alloc(4 * n * sizeof *w->ids);
        if (!w->values || !w->codes || !w->ids) return soma__no_memory(err, "a chunk's tokens");
        w->room = n;
    }
    if (w->fast->n_bins) return SOMA_OK;
    SOMA_TRY(soma__fast_bpe_reserve(&w->bpe, w->room, err));
    return plan_for(w, T, A, err);
}

// ---- encoding

// Rounded half to even, as a double holds whole numbers: what is added and taken away leaves no room for a fraction.
static double round_even(double v) { return (v + 0x1.8p52) - 0x1.8p52; }

// Names what is wrong with a chunk that quantise() has refused.
static soma_status refuse(const soma_fast_work *w, const double *chunk, int64_t T, int64_t A, soma_error *err) {
    for (int64_t i = 0; i < T * A; i++)
        if (!isfinite(chunk[i]))
            return soma__fail(err, SOMA_BAD_INPUT, "step %lld of dimension %lld of the chunk is not a finite number", (long long)(i / A),
                              (long long)(i % A));
    for (int64_t i = 0; i < T * A; i++) {
        double code = round_even(w->values[i] * w->fast->scale) - (double)w->fast->min_token;
        if (!(code <= 0x10ffff) || (code >= 0xd800 && code < 0xe000))
            return soma__fail(
                err, SOMA_BAD_INPUT,
                "the coefficient %.6g of frequency %lld, dimension %lld has no character (code %.0f): is the chunk normalised?",
                w->values[i], (long long)(i / A), (long long)(i % A), code);
    }
    return soma__fail(err, SOMA_BAD_INPUT, "the chunk cannot be quantised");
}

// Coefficients to codes; false where one has no character. *n_clipped counts those below min_token.
static bool quantise(soma_fast_work *w, size_t n, int64_t *n_clipped) {
    int32_t all, bad = 0;
    if (!soma__quantise(w->values, (int64_t)n, w->fast->scale, (int32_t)w->fast->min_token, w->codes, n_clipped, &all)) return false;
    for (size_t i = 0; i < n && all >= 0xd800; i++) bad |= w->codes[i] > 0x10ffff || (w->codes[i] >= 0xd800 && w->codes[i] < 0xe000);
    return !bad;
}

// How many characters of 's 't 're 've 'm 'll 'd stand at c; 0: none.
static size_t contraction(const int32_t *c, size_t n) {
    if (n < 2 || c[0] != '\'') return 0;
    if (c[1] == 's' || c[1] == 't' || c[1] == 'm' || c[1] == 'd') return 2;
    return n > 2 && ((c[1] == 'r' && c[2] == 'e') || (c[1] == 'v' && c[2] == 'e') || (c[1] == 'l' && c[2] == 'l')) ? 3 : 0;
}

static inline int class_at(const unsigned char *class_of, int32_t n_classes, int32_t c) {
    return c < n_classes ? class_of[c] : (int)soma__unicode_class((uint32_t)c);
}

size_t soma__fast_word(const unsigned char *class_of, int32_t n_classes, const int32_t *c, size_t n) {
    size_t len = contraction(c, n);
    if (len) return len;
    int space = class_at(class_of, n_classes, c[0]) == SOMA_CHAR_SPACE;
    size_t from = space && c[0] == ' ' && n > 1 && class_at(class_of, n_classes, c[1]) != SOMA_CHAR_SPACE;
    int kind = class_at(class_of, n_classes, c[from]);
    for (len = from + 1; len < n && class_at(class_of, n_classes, c[len]) == kind; len++) continue;
    return space && !from && len < n && len > 1 ? len - 1 : len;
}

static soma_status encode_text(soma_fast_work *w, size_t n, soma_fast_ids *out, soma_error *err) {
    const soma_fast *f = w->fast;
    for (size_t at = 0, len; at < n; at += len) {
        size_t got;
        len = soma__fast_word(f->class_of, SOMA_FAST_SMALL, w->codes + at, n - at);
        SOMA_TRY(soma__fast_bpe_encode(f->bpe, &w->bpe, w->codes + at, len, w->ids + out->n, &got, err));
        out->n += got;
    }
    return SOMA_OK;
}

static void encode_bins(soma_fast_work *w, const double *chunk, size_t n, soma_fast_ids *out) {
    double bins = (double)w->fast->n_bins;
    for (size_t i = 0; i < n; i++) {
        double bin = floor((chunk[i] + 1) * (bins / 2));
        out->n_clipped += chunk[i] < -1 || chunk[i] > 1;
        w->ids[i] = w->codes[i] = (int32_t)fmin(fmax(bin, 0), bins - 1);
    }
    out->n = n;
}

soma_status soma__fast_encode(soma_fast_work *w, const double *chunk, int64_t T, int64_t A, soma_fast_ids *out, soma_error *err) {
    *out = (soma_fast_ids){0};
    SOMA_TRY(prepare(w, T, A, err));
    const soma_fast *f = w->fast;
    size_t n = (size_t)(T * A);
    out->ids = w->ids;
    out->codes = w->codes;
    if (f->n_bins) {
        double sum = 0;
        for (size_t i = 0; i < n; i++) sum += chunk[i] * 0; // 0, or NaN where a value is not finite
        if (sum != 0) return refuse(w, chunk, T, A, err);
        encode_bins(w, chunk, n, out);
        return SOMA_OK;
    }
    soma__dct_forward(w->plans[0].dct, chunk, w->values, A);
    if (!quantise(w, n, &out->n_clipped)) return refuse(w, chunk, T, A, err);
    SOMA_TRY(encode_text(w, n, out, err));
    out->n_lost = soma__fast_bpe_lost(f->bpe, w->codes, n);
    return SOMA_OK;
}

// ---- decoding

// Codes of a text whose tokens are no whole characters: all bytes, then UTF-8 with U+FFFD for what is damaged. Returns how many there are;
// the first `room` are written.
static size_t decode_bytes(soma_fast_work *w, const int32_t *ids, size_t n_ids, size_t room) {
    const soma_fast *f = w->fast;
    size_t len = 0, n = 0;
    for (size_t i = 0; i < n_ids; i++) {
        if (ids[i] < 0 || ids[i] >= f->vocab || !f->tokens[ids[i]].bytes) continue;
        memcpy(w->bytes + len, f->tokens[ids[i]].bytes, f->tokens[ids[i]].len);
        len += f->tokens[ids[i]].len;
    }
    for (const char *s = (const char *)w->bytes, *end = s + len; s < end; n++) {
        uint32_t cp;
        s += soma__utf8_decode(s, end, &cp, NULL);
        if (n < room) w->codes[n] = (int32_t)cp;
    }
    return n;
}

// The same, token by token; false where one of them is no whole number of characters or is not in the vocabulary.
static bool decode_tokens(soma_fast_work *w, const int32_t *ids, size_t n_ids, size_t room, size_t *n_codes) {
    const soma_fast *f = w->fast;
    size_t n = 0;
    for (size_t i = 0; i < n_ids; i++) {
        if (ids[i] < 0 || ids[i] >= f->vocab) return false;
        const soma_fast_span *span = &f->spans[ids[i]];
        if (span->n < 0) return false;
        const int32_t *codes = f->codes + span->offset;
        size_t take = n < room ? SOMA_MIN((size_t)span->n, room - n) : 0;
        for (size_t j = 0; j < take; j++) w->codes[n + j] = codes[j];
        n += (size_t)span->n;
    }
    *n_codes = n;
    return true;
}

static soma_status bytes_for(soma_fast_work *w, const int32_t *ids, size_t n_ids, soma_error *err) {
    size_t len = 0;
    for (size_t i = 0; i < n_ids; i++)
        if (ids[i] >= 0 && ids[i] < w->fast->vocab) len += w->fast->tokens[ids[i]].len;
    return soma__grow((void **)&w->bytes, &w->bytes_room, len + 1, 1) ? SOMA_OK : soma__no_memory(err, "the text of the ids");
}

// w->values [T A] from w->codes[n]; returns how many rows have something in them.
static int64_t unquantise(soma_fast_work *w, size_t n, size_t n_values, int64_t A) {
    const soma_fast *f = w->fast;
    size_t last = 0;
    for (size_t i = 0; i < n; i++) {
        int32_t c = w->codes[i];
        w->values[i] = c < SOMA_FAST_SMALL ? f->value_of[c] : (double)(c + f->min_token) / f->scale;
        if (w->values[i] != 0) last = i + 1;
    }
    int64_t rows = ((int64_t)last + A - 1) / A;
    for (size_t i = n; i < SOMA_MIN((size_t)(rows * A), n_values); i++) w->values[i] = 0;
    return rows;
}

static soma_status decode_bins(soma_fast_work *w, const int32_t *ids, size_t n_ids, soma_fast_rule rule, size_t n, double *chunk,
                               soma_error *err) {
    double bins = (double)w->fast->n_bins;
    size_t at = 0;
    for (size_t i = 0; i < n_ids && at < n; i++)
        if (ids[i] >= 0 && ids[i] < w->fast->n_bins)
            chunk[at++] = (2 * (double)ids[i] + 1) / bins - 1;
        else if (rule == SOMA_FAST_STRICT)
            return soma__fail(err, SOMA_BAD_INPUT, "id %d at position %zu is outside the %lld bins", ids[i], i, (long long)w->fast->n_bins);
    if (rule == SOMA_FAST_STRICT && (at < n || n_ids > n))
        return soma__fail(err, SOMA_BAD_INPUT, "%zu ids where the chunk has %zu values", n_ids, n);
    return SOMA_OK;
}

soma_status soma__fast_decode(soma_fast_work *w, const int32_t *ids, size_t n_ids, soma_fast_rule rule, int64_t T, int64_t A, double *chunk,
                              soma_error *err) {
    const soma_fast *f = w->fast;
    SOMA_TRY(prepare(w, T, A, err));
    size_t n = (size_t)(T * A), n_codes;
    memset(chunk, 0, n * sizeof *chunk);
    if (f->n_bins) {
        soma_status status = decode_bins(w, ids, n_ids, rule, n, chunk, err);
        if (status != SOMA_OK) memset(chunk, 0, n * sizeof *chunk);
        return status;
    }
    if (!decode_tokens(w, ids, n_ids, n, &n_codes)) {
        for (size_t i = 0; i < n_ids && rule == SOMA_FAST_STRICT; i++)
            if (ids[i] < 0 || ids[i] >= f->vocab || !f->tokens[ids[i]].bytes)
                return soma__fail(err, SOMA_BAD_INPUT, "id %d at position %zu is not in the vocabulary of %lld", ids[i], i,
                                  (long long)f->vocab);
        SOMA_TRY(bytes_for(w, ids, n_ids, err));
        n_codes = decode_bytes(w, ids, n_ids, n);
    }
    if (rule == SOMA_FAST_STRICT && n_codes != n)
        return soma__fail(err, SOMA_BAD_INPUT, "the ids hold %zu coefficients; a chunk of %lld steps and %lld dimensions has %zu", n_codes,
                          (long long)T, (long long)A, n);
    int64_t rows = unquantise(w, SOMA_MIN(n_codes, n), n, A);
    soma__dct_inverse(w->plans[0].dct, w->values, chunk, A, rows);
    return SOMA_OK;
}

int64_t soma__fast_vocab(const soma_fast *fast) { return fast->vocab; }
double soma__fast_scale(const soma_fast *fast) { return fast->scale; }
int64_t soma__fast_min_token(const soma_fast *fast) { return fast->min_token; }
