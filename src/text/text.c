// SPDX-License-Identifier: Apache-2.0
// One door for both vocabularies: finds out which kind a file is and passes the work on.
#include "text/text.h"

#include "base/file.h"
#include "text/sentencepiece.h"
#include "text/words.h"

#include <string.h>

enum { MAX_FILE_SIZE = 64 << 20 }; // the largest known model, Gemma's 256 thousand pieces, has 4.2 MB

// exactly one of the two is set
struct soma_text {
    soma_words *words;
#ifdef SOMA_SENTENCEPIECE
    soma_sentencepiece *sp;
#endif
};

static bool is_json(const char *bytes, size_t size, const char *where) {
    size_t len = strlen(where);
    return (len >= 5 && !strcmp(where + len - 5, ".json")) || (size && bytes[0] == '{');
}

static soma_status open_model(soma_text *t, const void *bytes, size_t size, const char *where, soma_error *err) {
#ifdef SOMA_SENTENCEPIECE
    return soma__sentencepiece_open(&t->sp, bytes, size, where, err);
#else
    return soma__fail(err, SOMA_UNSUPPORTED, "%s: this soma was built without SentencePiece; install its headers and build again", where);
#endif
}

soma_status soma__text_open_bytes(soma_text **text, const void *bytes, size_t size, const char *where, soma_error *err) {
    *text = NULL;
    soma_text *t = soma__calloc(1, sizeof *t);
    if (!t) return soma__no_memory(err, "the tokenizer");
    soma_status status;
    if (is_json(bytes, size, where))
        status = soma__words_parse(&t->words, bytes, size, where, err);
    else
        status = open_model(t, bytes, size, where, err);
    if (status == SOMA_OK)
        *text = t;
    else
        soma__text_close(t);
    return status;
}

soma_status soma__text_open(soma_text **text, const char *path, soma_error *err) {
    static const char *const names[] = {"tokenizer.model", "paligemma_tokenizer.model", "vocab.json"};
    char inside[SOMA_PATH_MAX];
    *text = NULL;
    if (soma__dir_exists(path)) {
        bool found = false;
        for (size_t i = 0; i < SOMA_COUNT(names) && !found; i++) {
            SOMA_TRY(soma__path_join(inside, path, names[i], err));
            found = soma__file_exists(inside);
        }
        if (!found)
            return soma__fail(err, SOMA_NOT_FOUND, "%s: no tokenizer here: looked for %s, %s and %s", path, names[0], names[1], names[2]);
        path = inside;
    }
    char *bytes;
    size_t size;
    SOMA_TRY(soma__file_read(&bytes, &size, path, MAX_FILE_SIZE, err));
    soma_status status = soma__text_open_bytes(text, bytes, size, path, err);
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
    return soma__fail(err, SOMA_UNSUPPORTED, "%s: a SentencePiece model is not written by soma: copy its file", path);
}

void soma__text_close(soma_text *text) {
    if (!text) return;
    soma__words_free(text->words);
#ifdef SOMA_SENTENCEPIECE
    soma__sentencepiece_close(text->sp);
#endif
    soma__free(text);
}

int32_t soma__text_size(const soma_text *text) {
#ifdef SOMA_SENTENCEPIECE
    if (text->sp) return soma__sentencepiece_size(text->sp);
#endif
    return soma__words_size(text->words);
}

int32_t soma__text_id(const soma_text *text, const char *piece) {
#ifdef SOMA_SENTENCEPIECE
    if (text->sp) return soma__sentencepiece_id(text->sp, piece);
#endif
    return soma__words_id(text->words, piece);
}

soma_status soma__text_encode(const soma_text *text, const char *s, bool add_bos, int32_t *ids, size_t room, size_t *n_ids,
                              soma_error *err) {
#ifdef SOMA_SENTENCEPIECE
    if (text->sp) return soma__sentencepiece_encode(text->sp, s, add_bos, ids, room, n_ids, err);
#endif
    *n_ids = soma__words_encode(text->words, s, add_bos, ids, room);
    return SOMA_OK;
}

soma_status soma__text_decode(const soma_text *text, const int32_t *ids, size_t n_ids, soma_str *out, soma_error *err) {
#ifdef SOMA_SENTENCEPIECE
    if (text->sp) return soma__sentencepiece_decode(text->sp, ids, n_ids, out, err);
#endif
    return soma__words_decode(text->words, ids, n_ids, out, err);
}
