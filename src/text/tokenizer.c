// SPDX-License-Identifier: Apache-2.0
// Encoding and decoding; opening makes the tables for it. Where merges never reach across the beginning of a "▁" run (Gemma, Llama 2), a
// text without a rule of cutting is cut there all the same: the ids are the same and words stay short.
#include "text/tokenizer.h"

#include "text/bpe.h"
#include "text/tokenizer_settings.h"

#include <stdio.h>
#include <string.h>

enum {
    LOCAL_IDS = 128, // a word up to this many symbols needs no memory
    MAX_ADDED_LEN = 255,
};

// Added tokens that are looked for in the same text: where one may begin, and which lengths there are, longest first.
typedef struct added_set {
    soma_piece_map map; // text -> place in json->added
    bool starts[256];
    uint8_t lengths[MAX_ADDED_LEN];
    int n_lengths;
} added_set;

struct soma_tokenizer {
    soma_tokenizer_json *json;
    soma_tokenizer_settings settings;
    soma_bpe bpe;
    added_set added[2];      // in the text as given, in the normalised text
    soma_piece_map words;    // the words that give one id
    int32_t symbols[2][256]; // the id of a byte, or of an ASCII character; [1] at a word's end, with the suffix; -1: none
    int32_t fallback[256];   // the ids of <0x00> .. <0xFF>; -1: none
    int32_t unknown;         // -1: what is unknown gives nothing
    int16_t byte_of[324];    // GPT-2's alphabet: the byte of a code point below 324; -1: none
};

// What one call of encode carries along.
typedef struct encoder {
    const soma_tokenizer *t;
    int32_t *ids;
    size_t room, n;
    soma_str normal[2], cut[2]; // buffers of the two places where a text changes
    soma_error *err;
} encoder;

// ---- GPT-2's alphabet: every byte is a printable character. The printable ones are themselves, the 68 others follow from U+0100 on.

static uint32_t letter_of(int byte) {
    static const int ranges[][2] = {{33, 126}, {161, 172}, {174, 255}};
    int others = 0; // bytes before this one that are not themselves
    for (int i = 0, b = 0; i <= 3; i++) {
        int from = i < 3 ? ranges[i][0] : 256;
        if (byte < from) return (uint32_t)(256 + others + byte - b);
        others += from - b;
        if (i < 3 && byte <= ranges[i][1]) return (uint32_t)byte;
        b = i < 3 ? ranges[i][1] + 1 : 256;
    }
    return 0;
}

// The bytes that a piece of that alphabet stands for; false when it has another character.
static bool piece_bytes(const soma_tokenizer *t, const char *piece, size_t len, soma_str *out) {
    out->len = 0;
    soma__str_add(out, "");
    for (const char *end = piece + len; piece < end;) {
        uint32_t cp;
        piece += soma__utf8_decode(piece, end, &cp, NULL);
        if (cp >= SOMA_COUNT(t->byte_of) || t->byte_of[cp] < 0) return false;
        char byte = (char)t->byte_of[cp];
        soma__str_add_bytes(out, &byte, 1);
    }
    return true;
}

// ---- words

static void emit(encoder *e, int32_t id) {
    if (e->n < e->room) e->ids[e->n] = id;
    e->n++;
}

// The id of one character, which at a word's end carries the suffix.
static int32_t symbol(const soma_tokenizer *t, const char *s, size_t len, bool last) {
    if (len == 1) return t->symbols[last][(unsigned char)*s];
    const char *suffix = last ? t->json->suffix : NULL;
    if (!suffix) return soma__piece_map_find(&t->json->map, s, len);
    char key[4 + 64];
    size_t n = strlen(suffix); // at most 64: checked when the tokenizer was opened
    memcpy(key, s, len);
    memcpy(key + len, suffix, n);
    return soma__piece_map_find(&t->json->map, key, len + n);
}

// A character that is no piece: its bytes where all of them are pieces.
static bool fall_back(const soma_tokenizer *t, const char *s, size_t len, int32_t *ids, size_t *n) {
    if (!t->json->byte_fallback) return false;
    for (size_t i = 0; i < len; i++)
        if (t->fallback[(unsigned char)s[i]] < 0) return false;
    for (size_t i = 0; i < len; i++) ids[(*n)++] = t->fallback[(unsigned char)s[i]];
    return true;
}

// The first ids of a word, at most one per byte. An unknown symbol waits for its neighbours where they are fused into one.
static size_t symbols_of(const soma_tokenizer *t, const char *s, size_t len, int32_t *ids) {
    size_t n = 0;
    bool waiting = false;
    for (const char *end = s + len; s < end;) {
        uint32_t cp;
        size_t size = t->settings.byte_level ? 1 : soma__utf8_decode(s, end, &cp, NULL);
        int32_t id = symbol(t, s, size, s + size == end);
        if (id >= 0) {
            if (waiting) ids[n++] = t->unknown;
            waiting = false;
            ids[n++] = id;
        } else if (!fall_back(t, s, size, ids, &n) && t->unknown >= 0) {
            if (waiting && !t->json->fuse_unknown) ids[n++] = t->unknown;
            waiting = true;
        }
        s += size;
    }
    if (waiting) ids[n++] = t->unknown;
    return n;
}

static soma_status encode_word(encoder *e, const char *s, size_t len) {
    int32_t id = soma__piece_map_find(&e->t->words, s, len);
    if (id >= 0) {
        emit(e, id);
        return SOMA_OK;
    }
    int32_t local[LOCAL_IDS], *ids = len <= LOCAL_IDS ? local : soma__alloc(len * sizeof *ids);
    if (!ids) return soma__no_memory(e->err, "a long word");
    size_t n = symbols_of(e->t, s, len, ids);
    soma_status status = soma__bpe_merge(&e->t->bpe, ids, &n, e->err);
    for (size_t i = 0; i < n && status == SOMA_OK; i++) emit(e, ids[i]);
    if (ids != local) soma__free(ids);
    return status;
}

// Cuts by the rule number k and what it leaves by the next.
static soma_status encode_words(encoder *e, int k, const char *s, size_t len) {
    if (k == e->t->settings.n_splits) return encode_word(e, s, len);
    for (const char *end = s + len; s < end;) {
        bool dropped;
        size_t n = soma__split_next(&e->t->settings.splits[k], s, end, &dropped);
        if (!dropped) SOMA_TRY(encode_words(e, k + 1, s, n));
        s += n;
    }
    return SOMA_OK;
}

// ---- added tokens

static size_t space_before(const char *s, size_t from, size_t at) {
    while (at > from) {
        size_t back = at - 1;
        while (back > from && ((unsigned char)s[back] & 0xc0) == 0x80) back--;
        uint32_t cp;
        soma__utf8_decode(s + back, s + at, &cp, NULL);
        if (soma__unicode_class(cp) != SOMA_CHAR_SPACE) break;
        at = back;
    }
    return at;
}

static size_t space_behind(const char *s, size_t at, size_t len) {
    uint32_t cp;
    for (size_t n; at < len; at += n) {
        n = soma__utf8_decode(s + at, s + len, &cp, NULL);
        if (soma__unicode_class(cp) != SOMA_CHAR_SPACE) break;
    }
    return at;
}

static bool stands_alone(const char *s, size_t from, size_t to, size_t len) {
    uint32_t cp;
    size_t back = from;
    if (to < len) {
        soma__utf8_decode(s + to, s + len, &cp, NULL);
        if (soma__unicode_word(cp)) return false;
    }
    if (!from) return true;
    do back--;
    while (back > 0 && ((unsigned char)s[back] & 0xc0) == 0x80);
    soma__utf8_decode(s + back, s + from, &cp, NULL);
    return !soma__unicode_word(cp);
}

// The first added token of s at or behind *at: the longest that begins there. Sets what it takes of the text; NULL when there is none.
static const soma_added_token *find_added(const soma_tokenizer *t, const added_set *set, const char *s, size_t done, size_t len,
                                          size_t *from, size_t *to) {
    for (size_t p = done; p < len && set->n_lengths; p++) {
        if (!set->starts[(unsigned char)s[p]]) continue;
        for (int i = 0; i < set->n_lengths; i++) {
            size_t n = set->lengths[i];
            int32_t k = n <= len - p ? soma__piece_map_find(&set->map, s + p, n) : -1;
            const soma_added_token *a = k < 0 ? NULL : &t->json->added[k];
            if (!a || (size_t)a->id >= t->json->n_pieces) continue;
            if (a->alone && !stands_alone(s, p, p + n, len)) {
                p += n - 1; // the reference goes on behind it
                break;
            }
            *from = a->left ? space_before(s, done, p) : p;
            *to = a->right ? space_behind(s, p + n, len) : p + n;
            return a;
        }
    }
    return NULL;
}

typedef soma_status encode_part(encoder *e, bool first, const char *s, size_t len);

// Cuts the added tokens out of s and gives what lies between to `part`.
static soma_status around_added(encoder *e, const added_set *set, bool first, const char *s, size_t len, encode_part *part) {
    size_t done = 0, from, to;
    const soma_added_token *a;
    while ((a = find_added(e->t, set, s, done, len, &from, &to)) != NULL) {
        if (from > done) SOMA_TRY(part(e, first && !done, s + done, from - done));
        emit(e, a->id);
        done = to;
    }
    return done < len ? part(e, first && !done, s + done, len - done) : SOMA_OK;
}

static soma_status cut(encoder *e, bool first, const char *s, size_t len) {
    const soma_tokenizer_settings *o = &e->t->settings;
    SOMA_TRY(soma__text_steps_run(o->cut, o->n_cut, first, e->cut, s, len, &s, &len, e->err));
    return encode_words(e, 0, s, len);
}

static soma_status normalise(encoder *e, bool first, const char *s, size_t len) {
    const soma_tokenizer_settings *o = &e->t->settings;
    SOMA_TRY(soma__text_steps_run(o->normal, o->n_normal, first, e->normal, s, len, &s, &len, e->err));
    return around_added(e, &e->t->added[1], first, s, len, cut);
}

static soma_status front(encoder *e) {
    const soma_tokenizer_settings *o = &e->t->settings;
    for (int i = 0; i < o->n_front; i++) emit(e, o->front[i]);
    if (o->n_front) return SOMA_OK;
    int32_t id = soma__tokenizer_id(e->t, "<bos>", 5);
    if (id < 0) return soma__fail(e->err, SOMA_UNSUPPORTED, "the tokenizer has no mark of a text's beginning");
    emit(e, id);
    return SOMA_OK;
}

soma_status soma__tokenizer_encode(const soma_tokenizer *t, const char *s, size_t len, int marks, int32_t *ids, size_t room, size_t *n_ids,
                                   soma_error *err) {
    encoder e = {.t = t, .ids = ids, .room = room, .err = err};
    soma_str repaired = {0};
    *n_ids = 0;
    if (marks & SOMA_MARKS_FRONT) SOMA_TRY(front(&e));
    if (!soma__utf8_valid(s, len)) {
        soma__utf8_repair(&repaired, s, len);
        s = repaired.text;
        len = repaired.len;
    }
    soma_status status = repaired.failed ? soma__no_memory(err, "a text") : around_added(&e, &t->added[0], true, s, len, normalise);
    if (marks & SOMA_MARKS_BACK)
        for (int i = 0; i < t->settings.n_back; i++) emit(&e, t->settings.back[i]);
    for (int i = 0; i < 2; i++) {
        soma__str_free(&e.normal[i]);
        soma__str_free(&e.cut[i]);
    }
    soma__str_free(&repaired);
    if (status == SOMA_OK) *n_ids = e.n;
    return status;
}

// ---- back to text

typedef struct decoder {
    const soma_tokenizer *t;
    soma_str text, piece, run; // run: bytes whose characters are not complete yet
} decoder;

// "<0x0A>" as a byte; -1 for other pieces.
static int fallback_byte(const soma_tokenizer *t, int32_t id) {
    for (int byte = 0; t->settings.fallback && byte < 256; byte++)
        if (t->fallback[byte] == id) return byte;
    return -1;
}

// A run of <0x..> pieces: text where it is UTF-8, else one U+FFFD per byte.
static void end_run(decoder *d) {
    if (soma__utf8_valid(d->run.text, d->run.len))
        soma__str_add_bytes(&d->text, d->run.text, d->run.len);
    else
        for (size_t i = 0; i < d->run.len; i++) soma__str_add(&d->text, "\xef\xbf\xbd");
    d->run.len = 0;
}

static void add_piece(decoder *d, const char *piece, size_t len, bool first) {
    const soma_tokenizer *t = d->t;
    const char *suffix = t->json->suffix;
    size_t n = suffix ? strlen(suffix) : 0;
    bool ends = n && len >= n && !memcmp(piece + len - n, suffix, n);
    if (ends) len -= n;
    for (int i = 0; i < t->settings.n_pieces; i++) {
        soma_text_step step = t->settings.pieces[i];
        soma_str buffers[2] = {{0}};
        if (step.off_first && first) step.to = "";
        if (soma__text_steps_run(&step, 1, first, buffers, piece, len, &piece, &len, NULL)) d->text.failed = true;
        if (buffers[0].text && piece == buffers[0].text) { // keep what the step made beyond its buffer
            d->piece.len = 0;
            soma__str_add_bytes(&d->piece, piece, len);
            piece = d->piece.text;
        }
        soma__str_free(&buffers[0]);
    }
    if (t->settings.bytes && piece_bytes(t, piece, len, &d->piece))
        soma__str_add_bytes(&d->text, d->piece.text, d->piece.len);
    else
        soma__str_add_bytes(&d->text, piece, len);
    if (ends) soma__str_add(&d->text, " ");
}

// The text as it leaves: without what is stripped, every damaged part replaced.
static void finish(decoder *d, soma_str *out) {
    const soma_tokenizer_settings *o = &d->t->settings;
    const char *s = d->text.text;
    size_t len = d->text.len;
    for (int i = 0; i < o->n_strip && len >= strlen(o->strip) && !memcmp(s, o->strip, strlen(o->strip)); i++) {
        s += strlen(o->strip);
        len -= strlen(o->strip);
    }
    while (d->t->json->suffix && len && s[len - 1] == ' ') len--;
    soma__utf8_repair(out, s, len);
}

soma_status soma__tokenizer_decode(const soma_tokenizer *t, const int32_t *ids, size_t n_ids, soma_str *out, soma_error *err) {
    decoder d = {.t = t};
    bool first = true;
    soma_status status = SOMA_OK;
    soma__str_add(&d.text, "");
    soma__str_add(&d.run, "");
    for (size_t i = 0; i < n_ids && status == SOMA_OK; i++) {
        size_t len;
        const char *piece = soma__tokenizer_json_piece(t->json, ids[i], &len);
        if (!piece) {
            status = soma__fail(err, SOMA_BAD_INPUT, "id %d at %zu is outside the vocabulary of %d", ids[i], i, soma__tokenizer_size(t));
            continue;
        }
        if (t->json->pieces[ids[i]].special) continue;
        int byte = fallback_byte(t, ids[i]);
        if (byte >= 0) {
            soma__str_add_bytes(&d.run, &(char){(char)byte}, 1);
        } else {
            end_run(&d);
            if (t->settings.spaced && !first) soma__str_add(&d.text, " ");
            add_piece(&d, piece, len, first);
        }
        first = false;
    }
    end_run(&d);
    bool failed = d.text.failed || d.piece.failed || d.run.failed;
    if (status == SOMA_OK && !failed) finish(&d, out);
    soma__str_free(&d.text);
    soma__str_free(&d.piece);
    soma__str_free(&d.run);
    return status != SOMA_OK ? status : failed || out->failed ? soma__no_memory(err, "the decoded text") : SOMA_OK;
}

// ---- opening

static soma_status add_to_set(soma_tokenizer *t, size_t k, const char *where, soma_error *err) {
    const soma_added_token *a = &t->json->added[k];
    const char *text = a->text;
    size_t len = a->len;
    soma_str buffers[2] = {{0}};
    added_set *set = &t->added[a->normalised];
    soma_status status = SOMA_OK;
    if (a->normalised) status = soma__text_steps_run(t->settings.normal, t->settings.n_normal, true, buffers, text, len, &text, &len, err);
    if (status == SOMA_OK && len > MAX_ADDED_LEN)
        status = soma__fail(err, SOMA_UNSUPPORTED, "%s: the added token \"%.60s\" has more than %d bytes", where, a->text, MAX_ADDED_LEN);
    if (status == SOMA_OK && len) {
        int i = 0;
        while (i < set->n_lengths && set->lengths[i] > len) i++;
        if (i == set->n_lengths || set->lengths[i] != len) {
            memmove(&set->lengths[i + 1], &set->lengths[i], (size_t)(set->n_lengths - i));
            set->lengths[i] = (uint8_t)len;
            set->n_lengths++;
        }
        set->starts[(unsigned char)*text] = true;
        // decoded as it was found, which is what the reference does from version 0.23 on
        const soma_piece_slot *slot = soma__piece_map_put(&t->json->map, text, len, a->id);
        if (!slot || !soma__piece_map_put(&set->map, text, len, (int32_t)k)) status = soma__no_memory(err, "the added tokens");
        if (slot) t->json->pieces[a->id] = (soma_piece){slot->offset, slot->len, a->special};
    }
    soma__str_free(&buffers[0]);
    soma__str_free(&buffers[1]);
    return status;
}

// The ids of bytes and ASCII characters, and of <0x00> to <0xFF>.
static soma_status fill_symbols(soma_tokenizer *t, const char *where, soma_error *err) {
    const soma_tokenizer_json *j = t->json;
    const char *suffix = j->suffix ? j->suffix : "";
    char key[4 + 64], name[8];
    if (strlen(suffix) > 64) return soma__fail(err, SOMA_UNSUPPORTED, "%s: an \"end_of_word_suffix\" of more than 64 bytes", where);
    memset(t->byte_of, -1, sizeof t->byte_of);
    for (int byte = 0; byte < 256; byte++) {
        uint32_t letter = letter_of(byte);
        t->byte_of[letter] = (int16_t)byte;
        size_t len = t->settings.byte_level ? soma__utf8_encode(letter, key) : 1;
        if (!t->settings.byte_level) key[0] = (char)byte; // above 127 never asked for
        memcpy(key + len, suffix, strlen(suffix));
        t->symbols[0][byte] = soma__piece_map_find(&j->map, key, len);
        t->symbols[1][byte] = soma__piece_map_find(&j->map, key, len + strlen(suffix));
        t->fallback[byte] = soma__piece_map_find(&j->map, name, (size_t)snprintf(name, sizeof name, "<0x%02X>", byte));
        if (t->settings.byte_level && j->byte_fallback && t->symbols[0][byte] < 0)
            return soma__fail(err, SOMA_UNSUPPORTED, "%s: byte fallback for a byte-level alphabet that lacks the byte %d", where, byte);
    }
    t->unknown = j->unknown ? soma__piece_map_find(&j->map, j->unknown, strlen(j->unknown)) : -1;
    if (j->unknown && t->unknown < 0)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: the unknown piece \"%.60s\" is not in the vocabulary", where, j->unknown);
    return SOMA_OK;
}

static const char mark[] = "\xe2\x96\x81"; // "▁", SentencePiece's space

// True when no merge joins something that ends in another character than "▁" with something that begins with "▁".
static bool words_begin_at_marks(const soma_tokenizer_json *j) {
    const size_t n = sizeof mark - 1;
    if (soma__piece_map_find(&j->map, mark, n) < 0) return false;
    for (size_t i = 0; i < j->n_merges; i++) {
        size_t left_len, right_len;
        const char *left = soma__tokenizer_json_piece(j, j->merges[i].left, &left_len);
        const char *right = soma__tokenizer_json_piece(j, j->merges[i].right, &right_len);
        bool ends = left_len >= n && !memcmp(left + left_len - n, mark, n), begins = right_len >= n && !memcmp(right, mark, n);
        if (begins && !ends) return false;
    }
    return true;
}

// Encodes every piece as a word and keeps those that come out as one id.
static soma_status remember_words(soma_tokenizer *t, soma_error *err) {
    const soma_tokenizer_json *j = t->json;
    const char *suffix = j->suffix ? j->suffix : "";
    soma_str bytes = {0};
    soma_status status = soma__piece_map_reserve(&t->words, j->map.n) ? SOMA_OK : soma__no_memory(err, "the words");
    soma_piece_map words = t->words;
    for (size_t id = 0; id < j->n_pieces && status == SOMA_OK; id++) {
        size_t len;
        const char *piece = soma__tokenizer_json_piece(j, (int32_t)id, &len);
        if (!piece) continue;
        bool whole = j->ignore_merges; // a word that is a piece is that piece, whatever the merges say
        if (!whole && len > strlen(suffix) && !memcmp(piece + len - strlen(suffix), suffix, strlen(suffix))) len -= strlen(suffix);
        if (t->settings.byte_level) {
            if (!piece_bytes(t, piece, len, &bytes)) continue;
            piece = bytes.text;
            len = bytes.len;
        }
        if (bytes.failed) status = soma__no_memory(err, "the words");
        int32_t only = (int32_t)id;
        if (!whole && status == SOMA_OK) {
            encoder e = {.t = t, .ids = &only, .room = 1, .err = err};
            t->words = (soma_piece_map){0}; // not from memory
            status = encode_word(&e, piece, len);
            t->words = words;
            if (e.n != 1) continue;
        }
        if (status == SOMA_OK && !soma__piece_map_put(&t->words, piece, len, only)) status = soma__no_memory(err, "the words");
        words = t->words;
    }
    soma__str_free(&bytes);
    return status;
}

static soma_status open_tables(soma_tokenizer *t, const char *where, soma_error *err) {
    SOMA_TRY(soma__tokenizer_settings_read(&t->settings, t->json, where, err));
    SOMA_TRY(fill_symbols(t, where, err));
    SOMA_TRY(soma__bpe_init(&t->bpe, t->json->merges, t->json->n_merges, err));
    for (size_t k = 0; k < t->json->n_added; k++) SOMA_TRY(add_to_set(t, k, where, err));
    soma_tokenizer_settings *o = &t->settings;
    if (!o->byte_level && !t->json->suffix && !t->json->ignore_merges && o->n_splits < SOMA_TOKENIZER_SPLITS &&
        words_begin_at_marks(t->json))
        o->splits[o->n_splits++] = soma__split_at_mark(SOMA_SPLIT_RUNS, mark);
    return remember_words(t, err);
}

soma_status soma__tokenizer_new(soma_tokenizer **out, soma_tokenizer_json *json, const char *where, soma_error *err) {
    soma_tokenizer *t = *out = soma__calloc(1, sizeof *t);
    if (!t) {
        soma__tokenizer_json_free(json);
        return soma__no_memory(err, "a tokenizer");
    }
    t->json = json;
    soma_status status = open_tables(t, where, err);
    if (status == SOMA_OK) return SOMA_OK;
    soma__tokenizer_free(t);
    *out = NULL;
    return status;
}

void soma__tokenizer_free(soma_tokenizer *t) {
    if (!t) return;
    soma__tokenizer_json_free(t->json);
    soma__tokenizer_settings_free(&t->settings);
    soma__bpe_free(&t->bpe);
    soma__piece_map_free(&t->words);
    for (int i = 0; i < 2; i++) soma__piece_map_free(&t->added[i].map);
    soma__free(t);
}

static bool is_added(const soma_tokenizer_json *j, size_t id) {
    for (size_t i = 0; i < j->n_added; i++)
        if ((size_t)j->added[i].id == id) return true;
    return false;
}

// The maps still hold such a token; what finds it there compares with n_pieces.
void soma__tokenizer_limit(soma_tokenizer *t, int64_t vocab) {
    soma_tokenizer_json *j = t->json;
    while ((int64_t)j->n_pieces > vocab && (!j->pieces[j->n_pieces - 1].len || is_added(j, j->n_pieces - 1))) j->n_pieces--;
}

int32_t soma__tokenizer_size(const soma_tokenizer *t) { return (int32_t)t->json->n_pieces; }
int32_t soma__tokenizer_id(const soma_tokenizer *t, const char *piece, size_t len) {
    int32_t id = soma__piece_map_find(&t->json->map, piece, len);
    return id < (int32_t)t->json->n_pieces ? id : -1;
}
