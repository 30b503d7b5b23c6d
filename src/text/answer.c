// SPDX-License-Identifier: Apache-2.0
// Writing, reading and constraining an answer, all on ids.
#include "text/answer.h"

#include <string.h>

static soma_status pieces_of(int32_t *ids, int *n, const soma_text *text, const char *s, soma_error *err) {
    size_t needed;
    SOMA_TRY(soma__text_encode(text, s, false, ids, SOMA_ANSWER_PIECES, &needed, err));
    if (needed < 1 || needed > SOMA_ANSWER_PIECES)
        return soma__fail(err, SOMA_UNSUPPORTED, "\"%s\" takes %zu tokens of this vocabulary; 1 to %d are possible", s, needed,
                          SOMA_ANSWER_PIECES);
    *n = (int)needed;
    return SOMA_OK;
}

static int32_t special(const soma_text *text, const char *name, int32_t usual) {
    int32_t id = soma__text_id(text, name);
    return id < 0 ? usual : id;
}

int32_t soma__answer_bos(const soma_text *text) { return special(text, "<bos>", 2); }

static bool is_code(const soma_answer_form *f, int32_t id) { return id <= f->first && id > f->first - f->n_codes; }

soma_status soma__answer_form(soma_answer_form *f, const soma_text *text, int64_t vocab, int64_t skip, int64_t n_codes, bool lerobot,
                              soma_error *err) {
    *f = (soma_answer_form){.lerobot = lerobot, .eos = special(text, "<eos>", 1), .bos = soma__answer_bos(text)};
    SOMA_TRY(pieces_of(f->head, &f->n_head, text, "Action: ", err));
    SOMA_TRY(pieces_of(f->bar, &f->n_bar, text, "|", err));
    f->first = (int32_t)(vocab - 1 - skip);
    f->n_codes = (int32_t)n_codes;
    bool clash = n_codes < 1 || n_codes > f->first - 3 || is_code(f, f->eos) || is_code(f, f->bos);
    for (int i = 0; i < f->n_head && !clash; i++) clash = is_code(f, f->head[i]);
    for (int i = 0; i < f->n_bar && !clash; i++) clash = is_code(f, f->bar[i]);
    if (clash)
        return soma__fail(err, SOMA_BAD_INPUT, "%lld action codes do not fit into a vocabulary of %lld of which %lld at the end stay free",
                          (long long)n_codes, (long long)vocab, (long long)skip);
    return SOMA_OK;
}

// ---- writing

typedef struct writer {
    int32_t *ids;
    size_t n, room;
} writer;

static void put(writer *w, int32_t id) {
    if (w->n < w->room) w->ids[w->n] = id;
    w->n++;
}

size_t soma__answer_write(const soma_answer_form *f, const int32_t *codes, size_t n, int32_t *ids, size_t room) {
    writer w = {ids, 0, room};
    if (f->lerobot) put(&w, f->bos);
    for (int i = 0; i < f->n_head; i++) put(&w, f->head[i]);
    for (size_t i = 0; i < n; i++) {
        SOMA_CHECK(codes[i] >= 0 && codes[i] < f->n_codes, "a code lies within its tokenizer's vocabulary");
        put(&w, f->first - codes[i]);
    }
    for (int i = 0; i < f->n_bar; i++) put(&w, f->bar[i]);
    put(&w, f->eos);
    return w.n;
}

// ---- reading

const char *soma__answer_flaw_text(soma_answer_flaw flaw) {
    switch (flaw) {
    case SOMA_ANSWER_FINE: return "";
    case SOMA_ANSWER_NO_HEAD: return "it does not begin with \"Action: \"";
    case SOMA_ANSWER_FOREIGN: return "among the codes there are ids that are none";
    case SOMA_ANSWER_NO_BAR: return "it does not end with \"|\"";
    case SOMA_ANSWER_LENGTH: return "its codes are not those of one chunk";
    }
    return "";
}

static bool begins(const int32_t *ids, size_t n, const int32_t *with, int n_with) {
    return n >= (size_t)n_with && !memcmp(ids, with, sizeof *ids * (size_t)n_with);
}

soma_answer_flaw soma__answer_read(const soma_answer_form *f, const int32_t *ids, size_t n, int32_t *codes, size_t *n_codes) {
    *n_codes = 0;
    if (!begins(ids, n, f->head, f->n_head)) return SOMA_ANSWER_NO_HEAD;
    soma_answer_flaw flaw = SOMA_ANSWER_FINE;
    for (size_t i = (size_t)f->n_head; i < n; i++) {
        if (begins(ids + i, n - i, f->bar, f->n_bar)) return flaw;
        if (ids[i] == f->eos) break;
        if (is_code(f, ids[i]))
            codes[(*n_codes)++] = f->first - ids[i];
        else
            flaw = SOMA_ANSWER_FOREIGN;
    }
    return flaw == SOMA_ANSWER_FINE ? SOMA_ANSWER_NO_BAR : flaw;
}

// ---- constraining

int soma__answer_next(const soma_answer_form *f, const int32_t *ids, size_t n, soma_id_range next[2]) {
    const size_t head = (size_t)f->n_head, bar = (size_t)f->n_bar;
    if (n < head) {
        next[0] = (soma_id_range){f->head[n], f->head[n]};
        return 1;
    }
    size_t end = head; // where the codes end
    while (end < n && is_code(f, ids[end])) end++;
    size_t of_bar = n - end;
    if (of_bar > bar) return 0;
    int32_t then = of_bar < bar ? f->bar[of_bar] : f->eos;
    next[0] = (soma_id_range){then, then};
    next[1] = (soma_id_range){f->first - f->n_codes + 1, f->first};
    return of_bar ? 1 : 2;
}
