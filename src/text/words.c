// SPDX-License-Identifier: Apache-2.0
// A word vocabulary: an arena of words in id order and an index sorted by bytes, searched by halving (some hundred words; a hash table
// would not be faster to read or to run). Refuses words that the splitting below can never produce, since their embedding would be dead
// weight.
#include "text/words.h"

#include "base/arena.h"
#include "base/json.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_WORDS = 1 << 20 };

struct soma_words {
    soma_arena arena;
    const char **words; // [n] in id order
    int32_t *index;     // [n] positions in `words`, sorted by the words' bytes
    size_t n;
};

static const char *const special_words[SOMA_WORDS_SPECIAL] = {"<pad>", "<eos>", "<bos>", "<unk>"};

// What the prompt forms of prompt.h are made of, beside the task itself: always in a vocabulary that is built here.
static const char form_pieces[] = "task state action 0 1 2 3 4 5 6 7 8 9 : , ; - | \n";

// ---- splitting

static bool is_letter(unsigned char c) { return isalpha(c) || c >= 0x80; }

// The length of the next word at *s, which is moved to its first byte; 0 at the end. Locale plays no part: the program never sets one.
static size_t next_word(const char **s) {
    const unsigned char *p = (const unsigned char *)*s;
    while (*p == ' ' || (*p != '\n' && isspace(*p))) p++;
    *s = (const char *)p;
    size_t len = 0;
    while (is_letter(p[len])) len++;
    return len ? len : *p != 0;
}

// Compares `len` bytes of a text, lower-cased, with a word.
static int compare(const char *text, size_t len, const char *word) {
    for (size_t i = 0; i < len; i++) {
        unsigned char a = (unsigned char)text[i], b = (unsigned char)word[i];
        if (a < 0x80) a = (unsigned char)tolower(a);
        if (a != b) return a < b ? -1 : 1; // also where the word ends first: b is 0 then
    }
    return word[len] ? -1 : 0;
}

static int32_t lookup(const soma_words *w, const char *text, size_t len) {
    size_t low = 0, high = w->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int c = compare(text, len, w->words[w->index[middle]]);
        if (c == 0) return SOMA_WORDS_SPECIAL + w->index[middle];
        if (c < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return SOMA_WORDS_UNK;
}

// True when splitting gives back exactly this word: lower case, one word, nothing around it.
static bool is_word(const char *word) {
    const char *start = word;
    size_t len = next_word(&start);
    return len && start == word && !word[len] && compare(word, len, word) == 0;
}

// ---- building

typedef struct indexed {
    const char *word;
    int32_t at;
} indexed;

static int by_word(const void *a, const void *b) { return strcmp(((const indexed *)a)->word, ((const indexed *)b)->word); }

// Sorts w->index over w->words; *twice is a word that occurs more than once, or NULL.
static bool build_index(soma_words *w, const char **twice) {
    *twice = NULL;
    indexed *sorted = soma__alloc(w->n * sizeof *sorted);
    w->index = soma__arena_alloc(&w->arena, (w->n + 1) * sizeof *w->index);
    if (!sorted || !w->index) {
        soma__free(sorted);
        return false;
    }
    for (size_t i = 0; i < w->n; i++) sorted[i] = (indexed){w->words[i], (int32_t)i};
    qsort(sorted, w->n, sizeof *sorted, by_word);
    for (size_t i = 0; i < w->n; i++) {
        w->index[i] = sorted[i].at;
        if (i && !strcmp(sorted[i - 1].word, sorted[i].word)) *twice = sorted[i].word;
    }
    soma__free(sorted);
    return true;
}

static soma_status fill_from_json(soma_words *w, const json_t *root, const char *where, soma_error *err) {
    const char *type;
    const json_t *list;
    SOMA_TRY(soma__json_string(&type, root, "type", where, err));
    if (strcmp(type, "words"))
        return soma__fail(err, SOMA_UNSUPPORTED, "%s: \"type\" is \"%.40s\"; only a vocabulary of type \"words\" can be read", where, type);
    SOMA_TRY(soma__json_get(&list, root, "words", where, err));
    if (!json_is_array(list) || json_array_size(list) > MAX_WORDS)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: \"words\" must be a list of at most %d words", where, MAX_WORDS);
    w->n = json_array_size(list);
    w->words = soma__arena_alloc(&w->arena, (w->n + 1) * sizeof *w->words);
    if (!w->words) return soma__no_memory(err, "the vocabulary");
    for (size_t i = 0; i < w->n; i++) {
        const char *word = json_string_value(json_array_get(list, i));
        if (!word) return soma__fail(err, SOMA_BAD_INPUT, "%s: words[%zu] is not a string", where, i);
        if (!is_word(word))
            return soma__fail(err, SOMA_BAD_INPUT, "%s: words[%zu] is \"%.40s\": not one lower-case word, digit or mark", where, i, word);
        w->words[i] = soma__arena_strdup(&w->arena, word);
        if (!w->words[i]) return soma__no_memory(err, "the vocabulary");
    }
    const char *twice;
    if (!build_index(w, &twice)) return soma__no_memory(err, "the vocabulary");
    if (twice) return soma__fail(err, SOMA_BAD_INPUT, "%s: the word \"%.40s\" stands twice in \"words\"", where, twice);
    return SOMA_OK;
}

soma_status soma__words_parse(soma_words **words, const char *json, size_t len, const char *where, soma_error *err) {
    *words = NULL;
    json_t *root;
    SOMA_TRY(soma__json_parse(&root, json, len, where, err));
    soma_words *w = soma__calloc(1, sizeof *w);
    soma_status status = w ? fill_from_json(w, root, where, err) : soma__no_memory(err, "the vocabulary");
    json_decref(root);
    if (status == SOMA_OK)
        *words = w;
    else
        soma__words_free(w);
    return status;
}

// Adds the words of `text` to the growing list; the list may hold a word many times.
static soma_status collect(soma_words *w, size_t *room, const char *text, soma_error *err) {
    for (size_t len; (len = next_word(&text)) > 0; text += len) {
        char *word = soma__arena_alloc(&w->arena, len + 1);
        if (!word || !SOMA_PUSH_ROOM(w->words, w->n, *room)) return soma__no_memory(err, "the vocabulary");
        for (size_t i = 0; i < len; i++) word[i] = (unsigned char)text[i] < 0x80 ? (char)tolower((unsigned char)text[i]) : text[i];
        w->words[w->n++] = word;
    }
    return SOMA_OK;
}

static int by_bytes(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

static soma_status fill_from_prompts(soma_words *w, const char ***list, const char *const *prompts, size_t n, soma_error *err) {
    size_t room = 0, kept = 0;
    soma_status status = collect(w, &room, form_pieces, err);
    for (size_t i = 0; i < n && status == SOMA_OK; i++) {
        json_t *utf8 = json_string(prompts[i]); // jansson refuses what is no UTF-8, and could not save it later
        json_decref(utf8);
        if (!utf8)
            status = soma__fail(err, SOMA_BAD_INPUT, "prompt %zu is not UTF-8: \"%.80s\"", i, prompts[i]);
        else
            status = collect(w, &room, prompts[i], err);
    }
    *list = w->words;
    SOMA_TRY(status);
    qsort(w->words, w->n, sizeof *w->words, by_bytes);
    for (size_t i = 0; i < w->n; i++)
        if (!kept || strcmp(w->words[kept - 1], w->words[i])) w->words[kept++] = w->words[i];
    w->n = kept;
    if (kept > MAX_WORDS) return soma__fail(err, SOMA_BAD_INPUT, "the prompts hold %zu different words, more than %d", kept, MAX_WORDS);
    w->words = soma__arena_alloc(&w->arena, kept * sizeof *w->words);
    const char *twice;
    if (!w->words) return soma__no_memory(err, "the vocabulary");
    memcpy(w->words, *list, kept * sizeof *w->words);
    return build_index(w, &twice) ? SOMA_OK : soma__no_memory(err, "the vocabulary");
}

soma_status soma__words_from_prompts(soma_words **words, const char *const *prompts, size_t n_prompts, soma_error *err) {
    *words = NULL;
    soma_words *w = soma__calloc(1, sizeof *w);
    if (!w) return soma__no_memory(err, "the vocabulary");
    const char **list = NULL;
    soma_status status = fill_from_prompts(w, &list, prompts, n_prompts, err);
    soma__free(list);
    if (status == SOMA_OK)
        *words = w;
    else
        soma__words_free(w);
    return status;
}

soma_status soma__words_save(const soma_words *w, const char *path, soma_error *err) {
    json_t *list = json_array();
    bool ok = list != NULL;
    for (size_t i = 0; ok && i < w->n; i++) ok = json_array_append_new(list, json_string(w->words[i])) == 0;
    json_t *root = json_pack("{s:s, s:o}", "type", "words", "words", list); // takes `list` over, also where it fails
    soma_status status = ok && root ? soma__json_save(root, path, err) : soma__no_memory(err, "the vocabulary's JSON");
    json_decref(root);
    return status;
}

void soma__words_free(soma_words *w) {
    if (!w) return;
    soma__arena_free(&w->arena);
    soma__free(w);
}

// ---- use

int32_t soma__words_size(const soma_words *w) { return SOMA_WORDS_SPECIAL + (int32_t)w->n; }

int32_t soma__words_id(const soma_words *w, const char *word) {
    for (int32_t i = 0; i < SOMA_WORDS_SPECIAL; i++)
        if (!strcmp(word, special_words[i])) return i;
    int32_t id = is_word(word) ? lookup(w, word, strlen(word)) : SOMA_WORDS_UNK;
    return id == SOMA_WORDS_UNK ? -1 : id;
}

size_t soma__words_encode(const soma_words *w, const char *s, bool add_bos, int32_t *ids, size_t room) {
    size_t n = 0;
    if (add_bos && n++ < room) ids[0] = SOMA_WORDS_BOS;
    for (size_t len; (len = next_word(&s)) > 0; s += len, n++)
        if (n < room) ids[n] = lookup(w, s, len);
    return n;
}

soma_status soma__words_decode(const soma_words *w, const int32_t *ids, size_t n_ids, soma_str *out, soma_error *err) {
    bool first = true;
    for (size_t i = 0; i < n_ids; i++) {
        if (ids[i] < 0 || ids[i] >= soma__words_size(w))
            return soma__fail(err, SOMA_BAD_INPUT, "id %d at %zu is outside the vocabulary of %d", ids[i], i, soma__words_size(w));
        if (ids[i] < SOMA_WORDS_UNK) continue;
        if (!first) soma__str_add(out, " ");
        first = false;
        soma__str_add(out, ids[i] == SOMA_WORDS_UNK ? special_words[SOMA_WORDS_UNK] : w->words[ids[i] - SOMA_WORDS_SPECIAL]);
    }
    return out->failed ? soma__no_memory(err, "the decoded text") : SOMA_OK;
}
