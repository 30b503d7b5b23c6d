// SPDX-License-Identifier: Apache-2.0
// One door for all vocabularies: finds out which kind a file is and passes the work on.
#include "text/text.h"

#include "text/json_scan.h"
#include "text/sentencepiece.h"
#include "text/tokenizer.h"
#include "text/tokenizer_pair.h"
#include "text/words.h"

#include <string.h>

enum { MAX_FILE_SIZE = 128 << 20 }; // Gemma 3's tokenizer.json, the largest known, has 33 MB

// exactly one of them is set
struct soma_text {
    soma_words *words;
    soma_tokenizer *tokenizer;
#ifdef SOMA_SENTENCEPIECE
    soma_sentencepiece *sp;
#endif
};

typedef enum file_kind {
    KIND_MODEL,     // SentencePiece
    KIND_TOKENIZER, // tokenizer.json
    KIND_WORDS,     // a list of words, or JSON of no known kind: the reader of words has the sentence
    KIND_PIECES,    // {"piece": id, ..}, to which merges.txt belongs
    KIND_MERGES,    // CLIP's
} file_kind;

// Reads as many of a JSON object's members as it takes to tell what it is.
static soma_status json_kind(file_kind *kind, const char *bytes, size_t size, soma_error *err) {
    soma_json_scan s = soma__scan_new(bytes, size, "", NULL);
    bool known = soma__scan_open(&s, '{') != SOMA_OK, more;
    *kind = KIND_WORDS;
    while (!known && soma__scan_next(&s, '}', &more) == SOMA_OK && more && soma__scan_key(&s) == SOMA_OK) {
        const char *key = s.text.text;
        bool words = !strcmp(key, "type") || !strcmp(key, "words"), tokenizer = !strcmp(key, "model") || !strcmp(key, "version");
        bool piece = soma__scan_peek(&s) == '0';
        known = !piece && (words || tokenizer);
        *kind = piece ? KIND_PIECES : known && tokenizer ? KIND_TOKENIZER : KIND_WORDS;
        if (!known && soma__scan_skip(&s, NULL)) break;
    }
    bool failed = s.text.failed;
    soma__scan_free(&s);
    return failed ? soma__no_memory(err, "the tokenizer") : SOMA_OK;
}

static soma_status kind_of(file_kind *kind, const char *bytes, size_t size, const char *where, soma_error *err) {
    size_t len = strlen(where);
    if ((len >= 5 && !strcmp(where + len - 5, ".json")) || (size && bytes[0] == '{')) return json_kind(kind, bytes, size, err);
    *kind = memmem(bytes, SOMA_MIN(size, (size_t)80), "#version", 8) ? KIND_MERGES : KIND_MODEL;
    return SOMA_OK;
}

static soma_status open_model(soma_text *t, const void *bytes, size_t size, const char *where, soma_error *err) {
#ifdef SOMA_SENTENCEPIECE
    return soma__sentencepiece_open(&t->sp, bytes, size, where, err);
#else
    return soma__fail(err, SOMA_UNSUPPORTED, "%s: this soma was built without SentencePiece; install its headers and build again", where);
#endif
}

// A file beside `path`; absent: no bytes, and no error. Release text with soma__free.
static soma_status read_beside(soma_bytes *out, const char *path, const char *name, soma_error *err) {
    char dir[SOMA_PATH_MAX], beside[SOMA_PATH_MAX], *bytes;
    const char *slash = strrchr(path, '/');
    *out = (soma_bytes){0};
    snprintf(dir, sizeof dir, "%.*s", slash ? (int)(slash - path + 1) : 1, slash ? path : ".");
    SOMA_TRY(soma__path_join(beside, dir, name, err));
    if (!soma__file_exists(beside)) return SOMA_OK;
    SOMA_TRY(soma__file_read(&bytes, &out->size, beside, MAX_FILE_SIZE, err));
    out->text = bytes;
    return SOMA_OK;
}

static soma_status open_pieces(soma_tokenizer_json **json, soma_bytes vocab, const char *path, soma_error *err) {
    soma_bytes merges = {0}, config = {0};
    soma_status status = read_beside(&merges, path, "merges.txt", err);
    if (status == SOMA_OK && !merges.text)
        status = soma__fail(err, SOMA_NOT_FOUND, "%s: a vocabulary whose merges.txt should lie beside it and does not", path);
    if (status == SOMA_OK) status = read_beside(&config, path, "tokenizer_config.json", err);
    if (status == SOMA_OK) status = soma__tokenizer_pair_parse(json, vocab, merges, config, path, err);
    soma__free((char *)merges.text);
    soma__free((char *)config.text);
    return status;
}

// `path`: where the bytes come from and others may lie beside them; NULL: they stand alone.
static soma_status open_any(soma_text *t, soma_bytes b, const char *path, const char *where, soma_error *err) {
    soma_tokenizer_json *json = NULL;
    file_kind kind;
    SOMA_TRY(kind_of(&kind, b.text, b.size, where, err));
    switch (kind) {
    case KIND_MODEL: return open_model(t, b.text, b.size, where, err);
    case KIND_TOKENIZER: SOMA_TRY(soma__tokenizer_json_parse(&json, b.text, b.size, where, err)); break;
    case KIND_MERGES: SOMA_TRY(soma__tokenizer_pair_parse(&json, (soma_bytes){0}, b, (soma_bytes){0}, where, err)); break;
    case KIND_PIECES:
        if (path) {
            SOMA_TRY(open_pieces(&json, b, path, err));
            break;
        } // fallthrough
    default: return soma__words_parse(&t->words, b.text, b.size, where, err);
    }
    return soma__tokenizer_new(&t->tokenizer, json, where, err);
}

static soma_status open_bytes(soma_text **text, soma_bytes b, const char *path, const char *where, soma_error *err) {
    *text = NULL;
    soma_text *t = soma__calloc(1, sizeof *t);
    if (!t) return soma__no_memory(err, "the tokenizer");
    soma_status status = open_any(t, b, path, where, err);
    if (status == SOMA_OK)
        *text = t;
    else
        soma__text_close(t);
    return status;
}

soma_status soma__text_open_bytes(soma_text **text, const void *bytes, size_t size, const char *where, soma_error *err) {
    return open_bytes(text, (soma_bytes){bytes, size}, NULL, where, err);
}

// The processor_config.json of an action tokenizer lies beside its tokenizer.json, which is then no text tokenizer.
static bool is_action_tokenizer(const char *path, const char *name) {
    soma_bytes b = {0};
    json_t *config = NULL;
    if (strcmp(name, "tokenizer.json") || read_beside(&b, path, "processor_config.json", NULL) || !b.text) return false;
    bool is = soma__json_parse(&config, b.text, b.size, path, NULL) == SOMA_OK && json_object_get(config, "min_token");
    json_decref(config);
    soma__free((char *)b.text);
    return is;
}

soma_status soma__text_find(char path[SOMA_PATH_MAX], const char *dir, soma_error *err) {
    static const char *const folders[] = {"", "tokenizer", "assets"};
    static const char *const names[] = {"tokenizer.model", "paligemma_tokenizer.model", "tokenizer.json", "vocab.json"};
    char folder[SOMA_PATH_MAX];
    for (size_t f = 0; f < SOMA_COUNT(folders); f++)
        for (size_t i = 0; i < SOMA_COUNT(names); i++) {
            SOMA_TRY(soma__path_join(folder, dir, folders[f], err));
            SOMA_TRY(soma__path_join(path, f ? folder : dir, names[i], err));
            if (soma__file_exists(path) && !is_action_tokenizer(path, names[i])) return SOMA_OK;
        }
    return soma__fail(
        err, SOMA_NOT_FOUND,
        "%s: no text tokenizer here, in tokenizer/ or in assets/ (looked for %s, %s, %s and %s). Released pi0 checkpoints come "
        "without it: fetch PaliGemma's, which is gs://big_vision/paligemma_tokenizer.model (4.2 MB), or tokenizer.model or "
        "tokenizer.json of google/paligemma-3b-pt-224 once its licence is accepted there; put it into this folder or name it "
        "with --text-tokenizer",
        dir, names[0], names[1], names[2], names[3]);
}

// The file itself and its bytes, which are released with soma__free. `path` is `from` or lies in that folder.
static soma_status read_text(char path[SOMA_PATH_MAX], char **bytes, size_t *size, const char *from, soma_error *err) {
    if (soma__dir_exists(from))
        SOMA_TRY(soma__text_find(path, from, err));
    else if (snprintf(path, SOMA_PATH_MAX, "%s", from) >= SOMA_PATH_MAX)
        return soma__fail(err, SOMA_BAD_INPUT, "the path of the text tokenizer is longer than %d bytes", SOMA_PATH_MAX);
    return soma__file_read(bytes, size, path, MAX_FILE_SIZE, err);
}

soma_status soma__text_open(soma_text **text, const char *from, soma_error *err) {
    char path[SOMA_PATH_MAX], *bytes;
    size_t size;
    *text = NULL;
    SOMA_TRY(read_text(path, &bytes, &size, from, err));
    soma_status status = open_bytes(text, (soma_bytes){bytes, size}, path, path, err);
    soma__free(bytes);
    return status;
}

static soma_status write_in(const char *dir, const char *name, soma_bytes b, soma_error *err) {
    char path[SOMA_PATH_MAX];
    if (!b.text) return SOMA_OK;
    SOMA_TRY(soma__path_join(path, dir, name, err));
    return soma__file_write(path, b.text, b.size, err);
}

soma_status soma__text_copy(const char *from, const char *dir, soma_error *err) {
    static const char *const names[] = {
        [KIND_MODEL] = "tokenizer.model", [KIND_TOKENIZER] = "tokenizer.json", [KIND_WORDS] = "vocab.json", [KIND_PIECES] = "vocab.json"};
    static const char *const others[] = {"merges.txt", "tokenizer_config.json"};
    char path[SOMA_PATH_MAX], *bytes;
    size_t size;
    file_kind kind;
    SOMA_TRY(read_text(path, &bytes, &size, from, err));
    soma_status status = kind_of(&kind, bytes, size, path, err);
    if (status == SOMA_OK && kind == KIND_MERGES)
        status = soma__fail(err, SOMA_UNSUPPORTED, "%s: no policy's tokenizer is of this kind; give its tokenizer.json", path);
    if (status == SOMA_OK) status = write_in(dir, names[kind], (soma_bytes){bytes, size}, err);
    for (size_t i = 0; i < SOMA_COUNT(others) && status == SOMA_OK && kind == KIND_PIECES; i++) {
        soma_bytes b;
        status = read_beside(&b, path, others[i], err);
        if (status == SOMA_OK) status = write_in(dir, others[i], b, err);
        soma__free((char *)b.text);
    }
    soma__free(bytes);
    return status;
}

soma_status soma__text_from_prompts(soma_text **text, const char *const *prompts, size_t n_prompts, soma_error *err) {
    *text = NULL;
    soma_text *t = soma__calloc(1, sizeof *t);
    if (!t) return soma__no_memory(err, "the tokenizer");
    soma_status status = soma__words_from_prompts(&t->words, prompts, n_prompts, err);
    if (status == SOMA_OK)
        *text = t;
    else
        soma__text_close(t);
    return status;
}

soma_status soma__text_save(const soma_text *text, const char *path, soma_error *err) {
    if (text->words) return soma__words_save(text->words, path, err);
    return soma__fail(err, SOMA_UNSUPPORTED, "%s: only a vocabulary of words is written by soma: copy the tokenizer's file", path);
}

void soma__text_close(soma_text *text) {
    if (!text) return;
    soma__words_free(text->words);
    soma__tokenizer_free(text->tokenizer);
#ifdef SOMA_SENTENCEPIECE
    soma__sentencepiece_close(text->sp);
#endif
    soma__free(text);
}

soma_status soma__text_limit(soma_text *text, int64_t vocab, const char *where, soma_error *err) {
    if (text->tokenizer) soma__tokenizer_limit(text->tokenizer, vocab);
    if (soma__text_size(text) <= vocab) return SOMA_OK;
    return soma__fail(err, SOMA_BAD_INPUT, "%s: the vocabulary has %d entries, the model's table %lld", where, soma__text_size(text),
                      (long long)vocab);
}

int32_t soma__text_size(const soma_text *text) {
#ifdef SOMA_SENTENCEPIECE
    if (text->sp) return soma__sentencepiece_size(text->sp);
#endif
    return text->tokenizer ? soma__tokenizer_size(text->tokenizer) : soma__words_size(text->words);
}

int32_t soma__text_id(const soma_text *text, const char *piece) {
#ifdef SOMA_SENTENCEPIECE
    if (text->sp) return soma__sentencepiece_id(text->sp, piece);
#endif
    if (text->tokenizer) return soma__tokenizer_id(text->tokenizer, piece, strlen(piece));
    return soma__words_id(text->words, piece);
}

soma_status soma__text_encode(const soma_text *text, const char *s, bool add_bos, int32_t *ids, size_t room, size_t *n_ids,
                              soma_error *err) {
#ifdef SOMA_SENTENCEPIECE
    if (text->sp) return soma__sentencepiece_encode(text->sp, s, add_bos, ids, room, n_ids, err);
#endif
    int marks = add_bos ? SOMA_MARKS_FRONT : SOMA_MARKS_NONE;
    if (text->tokenizer) return soma__tokenizer_encode(text->tokenizer, s, strlen(s), marks, ids, room, n_ids, err);
    *n_ids = soma__words_encode(text->words, s, add_bos, ids, room);
    return SOMA_OK;
}

soma_status soma__text_decode(const soma_text *text, const int32_t *ids, size_t n_ids, soma_str *out, soma_error *err) {
#ifdef SOMA_SENTENCEPIECE
    if (text->sp) return soma__sentencepiece_decode(text->sp, ids, n_ids, out, err);
#endif
    if (text->tokenizer) return soma__tokenizer_decode(text->tokenizer, ids, n_ids, out, err);
    return soma__words_decode(text->words, ids, n_ids, out, err);
}
