// SPDX-License-Identifier: Apache-2.0
// Two passes over the text: the first finds where the values lie (their order in the file is free), the second reads pieces, then merges,
// which need the pieces. The settings are small and go to jansson. What is refused: another kind of model, an id or a piece given twice,
// an id beyond four million, a merge of pieces that are not in the vocabulary, and settings that change the ids and are not known here.
#include "text/tokenizer_json.h"

#include "base/file.h"
#include "text/json_scan.h"

#include <string.h>

enum {
    MAX_FILE_SIZE = 128 << 20, // Gemma 3's, the largest known, has 33 MB
    MAX_PIECES = 1 << 22,
    MAX_MERGES = 1 << 23,
};

// Finds the values of the keys that are listed; other keys are passed over.
static soma_status find_values(soma_json_scan *s, const char *const *names, soma_json_slice *values, size_t n) {
    SOMA_TRY(soma__scan_open(s, '{'));
    for (bool more;;) {
        SOMA_TRY(soma__scan_next(s, '}', &more));
        if (!more) return SOMA_OK;
        SOMA_TRY(soma__scan_key(s));
        soma_json_slice *slice = NULL;
        for (size_t i = 0; i < n; i++)
            if (!strcmp(s->text.text, names[i])) slice = &values[i];
        if (slice && slice->text) return soma__scan_fail(s, "the key \"%s\" stands twice", s->text.text);
        SOMA_TRY(soma__scan_skip(s, slice));
    }
}

// Reads on at a slice; the lines of its errors stay those of the file.
static soma_json_scan at_slice(const soma_json_scan *file, soma_json_slice slice) {
    soma_json_scan s = soma__scan_new(file->start, 0, file->where, file->err);
    s.at = slice.text;
    s.end = slice.text + slice.len;
    return s;
}

// ---- pieces

static soma_status add_piece(soma_tokenizer_json *j, soma_json_scan *s, size_t *room, const char *piece, size_t len, int32_t id) {
    if (!len) return soma__scan_fail(s, "a piece without characters (id %d)", id);
    const soma_piece_slot *slot = soma__piece_map_put(&j->map, piece, len, id);
    if (!slot || !soma__grow((void **)&j->pieces, room, (size_t)id + 1, sizeof *j->pieces)) return soma__no_memory(s->err, "a vocabulary");
    if (slot->value != id) return soma__scan_fail(s, "the piece \"%.60s\" has the ids %d and %d", piece, slot->value, id);
    if ((size_t)id >= j->n_pieces) {
        memset(j->pieces + j->n_pieces, 0, ((size_t)id + 1 - j->n_pieces) * sizeof *j->pieces);
        j->n_pieces = (size_t)id + 1;
    }
    soma_piece *p = &j->pieces[id];
    if (p->len && p->offset != slot->offset)
        return soma__scan_fail(s, "the id %d is given to \"%.*s\" and to \"%.60s\"", id, SOMA_MIN((int)p->len, 60),
                               j->map.bytes.text + p->offset, piece);
    *p = (soma_piece){slot->offset, slot->len, p->special};
    return SOMA_OK;
}

static soma_status read_vocab(soma_tokenizer_json *j, soma_json_scan *s, size_t *room) {
    SOMA_TRY(soma__scan_open(s, '{'));
    for (bool more;;) {
        SOMA_TRY(soma__scan_next(s, '}', &more));
        if (!more) break;
        int64_t id;
        SOMA_TRY(soma__scan_key(s));
        SOMA_TRY(soma__scan_int(s, 0, MAX_PIECES - 1, &id));
        size_t known = j->map.n;
        SOMA_TRY(add_piece(j, s, room, s->text.text, s->text.len, (int32_t)id));
        if (j->map.n == known) return soma__scan_fail(s, "the piece \"%.60s\" stands twice", s->text.text);
    }
    return j->map.n ? SOMA_OK : soma__scan_fail(s, "a vocabulary without pieces");
}

// ---- merges

static soma_status add_merge(soma_tokenizer_json *j, soma_json_scan *s, size_t *room, const char *pair, size_t left, size_t len) {
    soma_merge m = {soma__piece_map_find(&j->map, pair, left), soma__piece_map_find(&j->map, pair + left, len - left),
                    soma__piece_map_find(&j->map, pair, len)};
    if (m.left < 0 || m.right < 0 || m.merged < 0)
        return soma__scan_fail(s, "merge %zu joins \"%.*s\" and \"%.*s\": %s is not in the vocabulary", j->n_merges,
                               (int)SOMA_MIN(left, (size_t)60), pair, (int)SOMA_MIN(len - left, (size_t)60), pair + left,
                               m.left < 0    ? "the first"
                               : m.right < 0 ? "the second"
                                             : "the result");
    if (j->n_merges == MAX_MERGES) return soma__scan_fail(s, "more than %d merges", MAX_MERGES);
    if (!SOMA_PUSH_ROOM(j->merges, j->n_merges, *room)) return soma__no_memory(s->err, "the merges");
    j->merges[j->n_merges++] = m;
    return SOMA_OK;
}

static soma_status read_pair(soma_json_scan *s, soma_str *pair, size_t *left) {
    bool more;
    pair->len = 0;
    SOMA_TRY(soma__scan_open(s, '['));
    for (int i = 0; i < 2; i++) {
        SOMA_TRY(soma__scan_next(s, ']', &more));
        if (!more) return soma__scan_fail(s, "a merge is a pair of pieces");
        SOMA_TRY(soma__scan_string(s));
        if (i == 1) *left = pair->len;
        soma__str_add_bytes(pair, s->text.text, s->text.len);
    }
    SOMA_TRY(soma__scan_next(s, ']', &more));
    if (more) return soma__scan_fail(s, "a merge is a pair of pieces");
    return pair->failed ? soma__no_memory(s->err, "a merge") : SOMA_OK;
}

// "a b": exactly one space, around which both pieces stand.
static soma_status read_words(soma_json_scan *s, soma_str *pair, size_t *left) {
    SOMA_TRY(soma__scan_string(s));
    const char *text = s->text.text, *space = memchr(text, ' ', s->text.len);
    *left = space ? (size_t)(space - text) : 0;
    size_t right = s->text.len - *left;
    if (!*left || right < 2 || memchr(space + 1, ' ', right - 1))
        return soma__scan_fail(s, "the merge \"%.60s\" is not two pieces with a space between them", text);
    pair->len = 0;
    soma__str_add_bytes(pair, text, *left);
    soma__str_add_bytes(pair, space + 1, right - 1);
    return pair->failed ? soma__no_memory(s->err, "a merge") : SOMA_OK;
}

static soma_status read_merges(soma_tokenizer_json *j, soma_json_scan *s, soma_str *pair) {
    size_t room = 0;
    SOMA_TRY(soma__scan_open(s, '['));
    for (bool more;;) {
        SOMA_TRY(soma__scan_next(s, ']', &more));
        if (!more) return SOMA_OK;
        size_t left = 0;
        SOMA_TRY(soma__scan_peek(s) == '[' ? read_pair(s, pair, &left) : read_words(s, pair, &left));
        SOMA_TRY(add_merge(j, s, &room, pair->text, left, pair->len));
    }
}

// ---- the model

static soma_status read_text(soma_tokenizer_json *j, const soma_json_scan *file, soma_json_slice slice, char **text) {
    if (!slice.text) return SOMA_OK;
    soma_json_scan s = at_slice(file, slice);
    if (soma__scan_null(&s)) return SOMA_OK;
    soma_status status = soma__scan_string(&s);
    if (status == SOMA_OK && s.text.len) {
        *text = soma__arena_strdup(&j->arena, s.text.text);
        if (!*text) status = soma__no_memory(file->err, "a tokenizer");
    }
    soma__scan_free(&s);
    return status;
}

static soma_status read_flag(const soma_json_scan *file, soma_json_slice slice, bool *flag) {
    if (!slice.text) return SOMA_OK;
    soma_json_scan s = at_slice(file, slice);
    return soma__scan_null(&s) ? SOMA_OK : soma__scan_bool(&s, flag);
}

static soma_status read_model(soma_tokenizer_json *j, soma_json_scan *file, soma_json_slice model, size_t *room) {
    enum { TYPE, VOCAB, MERGES, UNKNOWN, PREFIX, SUFFIX, DROPOUT, FALLBACK, FUSE, IGNORE, N };
    static const char *const names[N] = {
        "type",    "vocab",         "merges",   "unk_token",    "continuing_subword_prefix", "end_of_word_suffix",
        "dropout", "byte_fallback", "fuse_unk", "ignore_merges"};
    soma_json_slice v[N] = {{0}};
    char *type = NULL, *prefix = NULL;
    soma_json_scan s = at_slice(file, model);
    soma_status status = find_values(&s, names, v, N);
    soma__scan_free(&s);
    SOMA_TRY(status);
    SOMA_TRY(read_text(j, file, v[TYPE], &type));
    if (type && strcmp(type, "BPE"))
        return soma__fail(file->err, SOMA_UNSUPPORTED,
                          "%s: a tokenizer of type \"%.40s\": only BPE can be read; where the model came with a SentencePiece file "
                          "(tokenizer.model), give that one",
                          file->where, type);
    if (!v[VOCAB].text || !v[MERGES].text)
        return soma__fail(file->err, SOMA_BAD_INPUT, "%s: \"model\" has no \"%s\": this is no BPE tokenizer", file->where,
                          v[VOCAB].text ? "merges" : "vocab");
    SOMA_TRY(read_text(j, file, v[PREFIX], &prefix));
    if (prefix)
        return soma__fail(file->err, SOMA_UNSUPPORTED, "%s: \"continuing_subword_prefix\" is \"%.40s\"; only an empty one can be read",
                          file->where, prefix);
    if (v[DROPOUT].text && v[DROPOUT].text[0] != 'n' && strspn(v[DROPOUT].text, "0.") < v[DROPOUT].len)
        return soma__fail(file->err, SOMA_UNSUPPORTED, "%s: \"dropout\" is set: ids would be random; set it to null", file->where);
    SOMA_TRY(read_text(j, file, v[UNKNOWN], &j->unknown));
    SOMA_TRY(read_text(j, file, v[SUFFIX], &j->suffix));
    SOMA_TRY(read_flag(file, v[FALLBACK], &j->byte_fallback));
    SOMA_TRY(read_flag(file, v[FUSE], &j->fuse_unknown));
    SOMA_TRY(read_flag(file, v[IGNORE], &j->ignore_merges));

    s = at_slice(file, v[VOCAB]);
    status = read_vocab(j, &s, room);
    soma__scan_free(&s);
    SOMA_TRY(status);
    soma_str pair = {0};
    s = at_slice(file, v[MERGES]);
    status = read_merges(j, &s, &pair);
    soma__str_free(&pair);
    soma__scan_free(&s);
    return status;
}

// ---- added tokens and settings

static soma_status read_added(soma_tokenizer_json *j, soma_json_scan *s, size_t *room, const json_t *list) {
    const json_t *entry;
    size_t i;
    if (!json_is_array(list)) return soma__scan_fail(s, "\"added_tokens\" is no list");
    j->added = soma__arena_alloc(&j->arena, (json_array_size(list) + 1) * sizeof *j->added);
    if (!j->added) return soma__no_memory(s->err, "the added tokens");
    json_array_foreach(list, i, entry) {
        const char *text;
        int64_t id;
        soma_added_token *a = &j->added[j->n_added++];
        SOMA_TRY(soma__json_string(&text, entry, "content", s->where, s->err));
        SOMA_TRY(soma__json_int(&id, entry, "id", 0, MAX_PIECES - 1, s->where, s->err));
        const struct {
            const char *key;
            bool *flag;
        } flags[] = {{"single_word", &a->alone},
                     {"lstrip", &a->left},
                     {"rstrip", &a->right},
                     {"normalized", &a->normalised},
                     {"special", &a->special}};
        for (size_t k = 0; k < SOMA_COUNT(flags); k++)
            if (json_object_get(entry, flags[k].key)) SOMA_TRY(soma__json_bool(flags[k].flag, entry, flags[k].key, s->where, s->err));
        a->id = (int32_t)id;
        a->text = soma__arena_strdup(&j->arena, text);
        if (!a->text) return soma__no_memory(s->err, "the added tokens");
        a->len = strlen(text);
        SOMA_TRY(add_piece(j, s, room, a->text, a->len, a->id));
        j->pieces[a->id].special |= a->special;
    }
    return SOMA_OK;
}

static soma_status read_setting(const soma_json_scan *file, soma_json_slice slice, const char *key, char open, json_t **value) {
    if (!slice.text || slice.text[0] == 'n') return SOMA_OK;
    if (slice.text[0] != open)
        return soma__fail(file->err, SOMA_BAD_INPUT, "%s: \"%s\" is neither null nor %s", file->where, key,
                          open == '{' ? "an object" : "a list");
    if (soma__json_parse(value, slice.text, slice.len, key, file->err)) return soma__fail_in(file->err, "%s", file->where);
    return SOMA_OK;
}

static soma_status read_file(soma_tokenizer_json *j, soma_json_scan *s) {
    enum { MODEL, ADDED, NORMALIZER, PRE, POST, DECODER, N };
    static const char *const names[N] = {"model", "added_tokens", "normalizer", "pre_tokenizer", "post_processor", "decoder"};
    soma_json_slice v[N] = {{0}};
    json_t **settings[N] = {[NORMALIZER] = &j->normalizer, [PRE] = &j->pre_tokenizer, [POST] = &j->post_processor, [DECODER] = &j->decoder};
    json_t *added = NULL;
    size_t room = 0;
    SOMA_TRY(find_values(s, names, v, N));
    SOMA_TRY(soma__scan_end(s));
    if (!v[MODEL].text || v[MODEL].text[0] != '{')
        return soma__fail(s->err, SOMA_BAD_INPUT, "%s: no object \"model\": this is no tokenizer.json", s->where);
    for (int i = NORMALIZER; i < N; i++) SOMA_TRY(read_setting(s, v[i], names[i], '{', settings[i]));
    SOMA_TRY(read_model(j, s, v[MODEL], &room));
    SOMA_TRY(read_setting(s, v[ADDED], names[ADDED], '[', &added));
    s->at = v[ADDED].text ? v[ADDED].text : s->at; // where errors are said to be
    soma_status status = added ? read_added(j, s, &room, added) : SOMA_OK;
    json_decref(added);
    return status;
}

soma_status soma__tokenizer_json_parse(soma_tokenizer_json **out, const void *bytes, size_t size, const char *where, soma_error *err) {
    *out = NULL;
    soma_tokenizer_json *j = soma__calloc(1, sizeof *j);
    if (!j) return soma__no_memory(err, "a tokenizer");
    soma_json_scan s = soma__scan_new(bytes, size, where, err);
    soma_status status = read_file(j, &s);
    soma__scan_free(&s);
    if (status == SOMA_OK)
        *out = j;
    else
        soma__tokenizer_json_free(j);
    return status;
}

soma_status soma__tokenizer_json_load(soma_tokenizer_json **out, const char *path, soma_error *err) {
    char *bytes;
    size_t size;
    *out = NULL;
    SOMA_TRY(soma__file_read(&bytes, &size, path, MAX_FILE_SIZE, err));
    soma_status status = soma__tokenizer_json_parse(out, bytes, size, path, err);
    soma__free(bytes);
    return status;
}

void soma__tokenizer_json_free(soma_tokenizer_json *j) {
    if (!j) return;
    soma__piece_map_free(&j->map);
    soma__free(j->pieces);
    soma__free(j->merges);
    json_decref(j->normalizer);
    json_decref(j->pre_tokenizer);
    json_decref(j->post_processor);
    json_decref(j->decoder);
    soma__arena_free(&j->arena);
    soma__free(j);
}

const char *soma__tokenizer_json_piece(const soma_tokenizer_json *j, int32_t id, size_t *len) {
    if (id < 0 || (size_t)id >= j->n_pieces || !j->pieces[id].len) return NULL;
    *len = j->pieces[id].len;
    return j->map.bytes.text + j->pieces[id].offset;
}
