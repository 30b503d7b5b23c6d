// SPDX-License-Identifier: Apache-2.0
// The files of a FAST tokenizer, as the published processor keeps them: tokenizer.json (kept as it was read, so that saving changes
// nothing) and processor_config.json. Refused: a tokenizer.json of another kind, with the name of what is wrong with it.
#include "text/fast_impl.h"
#include "text/unicode.h"

#include "base/file.h"
#include "base/json.h"

#include <math.h>
#include <string.h>

enum { MAX_TOKENIZER = 128 << 20, MAX_CONFIG = 1 << 20 };

// ---- GPT-2's alphabet: printable bytes are themselves, the 68 others follow from U+0100 on

static bool printable(unsigned b) { return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174; }

uint32_t soma__fast_alphabet_char(unsigned char byte) {
    if (printable(byte)) return byte;
    return 0x100u + (byte <= 32 ? byte : byte <= 160 ? 33u + byte - 127u : 67u);
}

int soma__fast_alphabet_byte(uint32_t cp) {
    if (cp < 0x100) return printable(cp) ? (int)cp : -1;
    uint32_t i = cp - 0x100;
    return i <= 32 ? (int)i : i <= 66 ? (int)(i + 94) : i == 67 ? 173 : -1;
}

// ---- from tokenizer.json

// The bytes of a piece. Where a character is not of the alphabet the reference takes the piece as it stands; such a piece is `foreign`.
static uint32_t piece_bytes(const char *piece, size_t len, unsigned char *out, bool *foreign) {
    uint32_t n = 0;
    *foreign = false;
    for (const char *s = piece, *end = piece + len; s < end;) {
        uint32_t cp;
        s += soma__utf8_decode(s, end, &cp, NULL);
        int byte = soma__fast_alphabet_byte(cp);
        if (byte < 0) {
            *foreign = true;
            memcpy(out, piece, len);
            return (uint32_t)len;
        }
        out[n++] = (unsigned char)byte;
    }
    return n;
}

static bool is_type(const json_t *object, const char *type) {
    const char *t = json_string_value(json_object_get(object, "type"));
    return t && !strcmp(t, type);
}

static soma_status check_kind(const soma_tokenizer_json *j, const char *where, soma_error *err) {
    const char *wrong = NULL;
    if (!is_type(j->pre_tokenizer, "ByteLevel"))
        wrong = "its pre_tokenizer is not ByteLevel";
    else if (json_is_true(json_object_get(j->pre_tokenizer, "add_prefix_space")))
        wrong = "its pre_tokenizer adds a space in front";
    else if (json_is_false(json_object_get(j->pre_tokenizer, "use_regex")))
        wrong = "its pre_tokenizer does not split by GPT-2's rule";
    else if (j->decoder && !is_type(j->decoder, "ByteLevel"))
        wrong = "its decoder is not ByteLevel";
    else if (j->normalizer)
        wrong = "it has a normalizer";
    else if (j->unknown || j->suffix || j->byte_fallback || j->ignore_merges)
        wrong = "its model has an unknown token, a word suffix, byte fallback or ignores merges";
    else if (j->n_added)
        wrong = "it has added tokens";
    if (!wrong) return SOMA_OK;
    return soma__fail(err, SOMA_UNSUPPORTED, "%s: tokenizer.json is not one of FAST's: %s", where, wrong);
}

static soma_status read_tokens(soma_fast *f, const soma_tokenizer_json *j, const char *where, soma_error *err) {
    size_t n = j->n_pieces, size = 0, used = 0;
    for (size_t i = 0; i < n; i++) size += j->pieces[i].len;
    f->vocab = (int64_t)n;
    f->tokens = soma__calloc(n + 1, sizeof *f->tokens);
    f->bytes = soma__alloc(size + 1);
    soma_fast_token *encoded = soma__calloc(n + 1, sizeof *encoded); // without those that encoding never gives
    if (!f->tokens || !f->bytes || !encoded) {
        soma__free(encoded);
        return soma__no_memory(err, "the vocabulary");
    }
    for (size_t i = 0; i < n; i++) {
        size_t len;
        bool foreign;
        const char *piece = soma__tokenizer_json_piece(j, (int32_t)i, &len);
        if (!piece) continue;
        f->tokens[i] = (soma_fast_token){f->bytes + used, piece_bytes(piece, len, f->bytes + used, &foreign)};
        used += f->tokens[i].len;
        if (!foreign) encoded[i] = f->tokens[i];
    }
    soma_status status = soma__fast_bpe_new(&f->bpe, encoded, n, j->merges, j->n_merges, where, err);
    soma__free(encoded);
    return status;
}

// What every token decodes to, where it is whole characters, and the tables of small characters.
static soma_status make_tables(soma_fast *f, soma_error *err) {
    size_t n = 0, size = 0;
    for (int64_t i = 0; i < f->vocab; i++) size += f->tokens[i].len;
    f->spans = soma__calloc((size_t)f->vocab + 1, sizeof *f->spans);
    f->codes = soma__alloc((size + 1) * sizeof *f->codes);
    if (!f->spans || !f->codes) return soma__no_memory(err, "the vocabulary");
    for (int64_t i = 0; i < f->vocab; i++) {
        const char *s = (const char *)f->tokens[i].bytes;
        f->spans[i] = (soma_fast_span){(uint32_t)n, -1};
        if (!s || !soma__utf8_valid(s, f->tokens[i].len)) continue;
        const char *end = s + f->tokens[i].len;
        for (uint32_t cp; s < end; f->codes[n++] = (int32_t)cp) s += soma__utf8_decode(s, end, &cp, NULL);
        f->spans[i].n = (int32_t)(n - f->spans[i].offset);
    }
    for (int c = 0; c < SOMA_FAST_SMALL; c++) {
        f->class_of[c] = (unsigned char)soma__unicode_class((uint32_t)c);
        f->value_of[c] = (double)(c + f->min_token) / f->scale;
    }
    return soma__unicode_need("the FAST tokenizer", err);
}

static soma_status read_tokenizer(soma_fast *f, const char *text, size_t len, const char *where, soma_error *err) {
    soma_tokenizer_json *j;
    f->json = soma__alloc(len + 1);
    if (!f->json) return soma__no_memory(err, "tokenizer.json");
    memcpy(f->json, text, len);
    f->json_len = len;
    SOMA_TRY(soma__tokenizer_json_parse(&j, text, len, where, err));
    soma_status status = check_kind(j, where, err);
    if (status == SOMA_OK) status = read_tokens(f, j, where, err);
    soma__tokenizer_json_free(j);
    return status == SOMA_OK ? make_tables(f, err) : status;
}

// ---- processor_config.json

static soma_status read_config(soma_fast *f, const char *text, size_t len, bool bins, const char *where, soma_error *err) {
    json_t *config;
    SOMA_TRY(soma__json_parse(&config, text, len, where, err));
    soma_status status;
    if (bins)
        status = soma__json_int(&f->n_bins, config, "bins", 2, 1 << 16, where, err);
    else {
        status = soma__json_real(&f->scale, config, "scale", where, err);
        if (status == SOMA_OK) status = soma__json_int(&f->min_token, config, "min_token", -0x10ffff, 0x10ffff, where, err);
        if (status == SOMA_OK && !(f->scale > 0 && f->scale <= 1e9))
            status = soma__fail(err, SOMA_BAD_INPUT, "%s: \"scale\" is %g, but must be above 0 and at most 1e9", where, f->scale);
    }
    json_decref(config);
    if (bins) f->vocab = f->n_bins;
    return status;
}

soma_status soma__fast_parse(soma_fast **fast, const char *tokenizer, size_t tokenizer_len, const char *config, size_t config_len,
                             const char *where, soma_error *err) {
    soma_fast *f = *fast = soma__calloc(1, sizeof *f);
    if (!f) return soma__no_memory(err, "the FAST tokenizer");
    soma_status status = read_config(f, config, config_len, !tokenizer, where, err);
    if (status == SOMA_OK && tokenizer) status = read_tokenizer(f, tokenizer, tokenizer_len, where, err);
    if (status == SOMA_OK) return SOMA_OK;
    soma__fast_close(f);
    *fast = NULL;
    return status;
}

soma_status soma__fast_bins(soma_fast **fast, int64_t n_bins, soma_error *err) {
    *fast = NULL;
    if (n_bins < 2 || n_bins > 1 << 16) return soma__fail(err, SOMA_BAD_INPUT, "%lld bins; 2 to 65536 are possible", (long long)n_bins);
    soma_fast *f = *fast = soma__calloc(1, sizeof *f);
    if (!f) return soma__no_memory(err, "the binning tokenizer");
    f->n_bins = f->vocab = n_bins;
    return SOMA_OK;
}

void soma__fast_close(soma_fast *f) {
    if (!f) return;
    soma__fast_bpe_free(f->bpe);
    soma__free(f->json);
    soma__free(f->tokens);
    soma__free(f->bytes);
    soma__free(f->spans);
    soma__free(f->codes);
    soma__free(f);
}

// ---- the folder

// tokenizer.json of this folder, or of bpe_tokenizer/ in it, where some versions of the reference put it; "" when there is none.
static soma_status find_tokenizer(char path[SOMA_PATH_MAX], const char *dir, soma_error *err) {
    static const char *const names[] = {"tokenizer.json", "bpe_tokenizer/tokenizer.json"};
    for (size_t i = 0; i < SOMA_COUNT(names); i++) {
        SOMA_TRY(soma__path_join(path, dir, names[i], err));
        if (soma__file_exists(path)) return SOMA_OK;
    }
    path[0] = 0;
    return SOMA_OK;
}

soma_status soma__fast_open(soma_fast **fast, const char *dir, soma_error *err) {
    char config_path[SOMA_PATH_MAX], tokenizer_path[SOMA_PATH_MAX], *config, *tokenizer = NULL;
    size_t config_len, tokenizer_len = 0;
    *fast = NULL;
    SOMA_TRY(soma__path_join(config_path, dir, "processor_config.json", err));
    SOMA_TRY(find_tokenizer(tokenizer_path, dir, err));
    SOMA_TRY(soma__file_read(&config, &config_len, config_path, MAX_CONFIG, err));
    soma_status status = SOMA_OK;
    if (tokenizer_path[0]) status = soma__file_read(&tokenizer, &tokenizer_len, tokenizer_path, MAX_TOKENIZER, err);
    if (status == SOMA_OK) status = soma__fast_parse(fast, tokenizer, tokenizer_len, config, config_len, dir, err);
    soma__free(config);
    soma__free(tokenizer);
    return status;
}

static soma_status save_json(const char *dir, const char *name, json_t *value, soma_error *err) {
    char path[SOMA_PATH_MAX];
    soma_status status = value ? soma__path_join(path, dir, name, err) : soma__no_memory(err, name);
    if (status == SOMA_OK) status = soma__json_save(value, path, err);
    json_decref(value);
    return status;
}

soma_status soma__fast_save(const soma_fast *f, const char *dir, soma_error *err) {
    char path[SOMA_PATH_MAX];
    SOMA_TRY(soma__dir_make(dir, err));
    if (f->n_bins)
        return save_json(dir, "processor_config.json",
                         json_pack("{s:I,s:I}", "bins", (json_int_t)f->n_bins, "vocab_size", (json_int_t)f->n_bins), err);
    SOMA_TRY(soma__path_join(path, dir, "tokenizer.json", err));
    SOMA_TRY(soma__file_write(path, f->json, f->json_len, err));
    // with the clean-up that is the default elsewhere, " ." would become "." and a chunk would lose a coefficient
    SOMA_TRY(save_json(dir, "tokenizer_config.json",
                       json_pack("{s:{},s:b,s:s}", "added_tokens_decoder", "clean_up_tokenization_spaces", 0, "tokenizer_class",
                                 "PreTrainedTokenizerFast"),
                       err));
    json_t *scale = floor(f->scale) == f->scale ? json_integer((json_int_t)f->scale) : json_real(f->scale);
    return save_json(dir, "processor_config.json",
                     json_pack("{s:n,s:{s:s},s:I,s:s,s:o,s:n,s:I}", "action_dim", "auto_map", "AutoProcessor",
                               "processing_action_tokenizer.UniversalActionProcessor", "min_token", (json_int_t)f->min_token,
                               "processor_class", "UniversalActionProcessor", "scale", scale, "time_horizon", "vocab_size",
                               (json_int_t)f->vocab),
                     err);
}
