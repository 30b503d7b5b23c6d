// SPDX-License-Identifier: Apache-2.0
// See bpe_train.h. The corpus is cut into blocks of whole words by shape alone; a merge replaces the pair in each block and counts the
// neighbours it had on the left and on the right, which is all that the counts of other pairs need. The queue of pairs is the trainer's: an
// entry keeps the count of when it was made, is put back with the true one when that has changed, and a pair may stand in it twice when a
// text is made in two ways.
#include "text/bpe_train.h"

#include "text/piece_map.h"

#include <string.h>

enum { BLOCK = 1 << 14, GIVE_UP = 24 }; // symbols of a block; symbols without a hit before the search goes in strides

typedef struct block {
    uint16_t *at;
    size_t n;
} block;

typedef struct pair_count {
    uint32_t pair; // left << 16 | right; UINT32_MAX: empty
    int64_t count;
} pair_count;

typedef struct entry {
    int64_t count;
    uint32_t pair;
} entry;

typedef struct trainer {
    soma_bpe_find_fn *find;
    block *blocks;
    size_t n_blocks, room_blocks;
    pair_count *counts; // hash table, a power of two, at most half full
    size_t n_slots, n_counts;
    entry *queue; // a heap
    size_t n_queue, room_queue;
    int64_t *left, *right; // [n_threads][most] neighbours of the pair that is being merged
    int64_t *sums;         // [2 most + 1] the same over threads and ranks; behind them, how many ranks failed
    size_t most;           // ids
    int n_threads;
    soma_ranks *ranks;
    int32_t vocab, n_tokens;
    uint32_t pair; // being merged
    uint16_t merged;
    soma_piece_map texts; // symbols of a token -> id
    struct {
        uint32_t offset, len; // in texts.bytes; len in symbols
    } * tokens;
    uint32_t *fresh; // [4 vocab] pairs that have grown in this merge
    size_t n_fresh;
} trainer;

// ---- counts and the queue

static pair_count *slot_of(const trainer *t, uint32_t pair) {
    size_t mask = t->n_slots - 1, i = (size_t)(pair * 0x9e3779b97f4a7c15u >> 32) & mask;
    while (t->counts[i].pair != UINT32_MAX && t->counts[i].pair != pair) i = (i + 1) & mask;
    return &t->counts[i];
}

static bool grow_counts(trainer *t, size_t n_slots) {
    pair_count *old = t->counts;
    size_t n_old = t->n_slots;
    t->counts = soma__alloc(n_slots * sizeof *t->counts);
    if (!t->counts) {
        t->counts = old;
        return false;
    }
    t->n_slots = n_slots;
    for (size_t i = 0; i < n_slots; i++) t->counts[i] = (pair_count){UINT32_MAX, 0};
    for (size_t i = 0; i < n_old; i++)
        if (old[i].pair != UINT32_MAX) *slot_of(t, old[i].pair) = old[i];
    soma__free(old);
    return true;
}

// NULL when memory is out.
static int64_t *count_of(trainer *t, uint32_t pair) {
    if (t->n_counts * 2 >= t->n_slots && !grow_counts(t, t->n_slots * 2)) return NULL;
    pair_count *slot = slot_of(t, pair);
    if (slot->pair == UINT32_MAX) {
        *slot = (pair_count){pair, 0};
        t->n_counts++;
    }
    return &slot->count;
}

static bool before(entry a, entry b) { return a.count > b.count || (a.count == b.count && a.pair < b.pair); }

static bool push(trainer *t, entry e) {
    if (!SOMA_PUSH_ROOM(t->queue, t->n_queue, t->room_queue)) return false;
    size_t i = t->n_queue++;
    for (; i > 0 && before(e, t->queue[(i - 1) / 2]); i = (i - 1) / 2) t->queue[i] = t->queue[(i - 1) / 2];
    t->queue[i] = e;
    return true;
}

static entry pop(trainer *t) {
    entry top = t->queue[0], last = t->queue[--t->n_queue];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < t->n_queue; i = child) {
        if (child + 1 < t->n_queue && before(t->queue[child + 1], t->queue[child])) child++;
        if (!before(t->queue[child], last)) break;
        t->queue[i] = t->queue[child];
    }
    t->queue[i] = last;
    return top;
}

// ---- a merge in one block

typedef uint16_t lanes __attribute__((vector_size(32)));

size_t soma__bpe_find_plain(const uint16_t *s, size_t i, size_t n, uint16_t left, uint16_t right) {
    lanes want_left = {0}, want_right = {0};
    want_left += left;
    want_right += right;
    for (; i + 17 <= n; i += 16) {
        lanes a, b;
        memcpy(&a, s + i, sizeof a);
        memcpy(&b, s + i + 1, sizeof b);
        lanes hit = (lanes)(a == want_left) & (lanes)(b == want_right);
        uint64_t words[4];
        memcpy(words, &hit, sizeof words);
        if (words[0] | words[1] | words[2] | words[3]) break;
    }
    while (i + 1 < n && (s[i] != left || s[i + 1] != right)) i++;
    return i;
}

static void merge_block(void *ctx, int64_t item, int thread) {
    trainer *t = ctx;
    block *b = &t->blocks[item];
    uint16_t *s = b->at, left = (uint16_t)(t->pair >> 16), right = (uint16_t)t->pair;
    int64_t *lefts = t->left + (size_t)thread * t->most, *rights = t->right + (size_t)thread * t->most;
    size_t n = b->n, i = t->find(s, 0, n, left, right), w = i, since = 0;
    while (i + 1 < n) {
        if (s[i] == left && s[i + 1] == right) {
            if (w && s[w - 1] != SOMA_BPE_BREAK) lefts[s[w - 1]]++;
            if (s[i + 2] != SOMA_BPE_BREAK) rights[s[i + 2]]++;
            s[w++] = t->merged;
            i += 2;
            since = 0;
        } else if (since++ < GIVE_UP)
            s[w++] = s[i++];
        else {
            size_t next = t->find(s, i, n, left, right);
            memmove(s + w, s + i, (next - i) * sizeof *s);
            w += next - i;
            i = next;
            since = 0;
        }
    }
    if (i < n) s[w++] = s[i];
    b->n = w;
}

// ---- one merge

static bool add(trainer *t, uint32_t left, uint32_t right, int64_t change) {
    int64_t *count = count_of(t, left << 16 | right);
    if (!count) return false;
    *count += change;
    if (change > 0) t->fresh[t->n_fresh++] = left << 16 | right;
    return true;
}

// What all threads of all ranks have counted. False: a rank failed, maybe this one (`ok`).
static bool sum_neighbours(trainer *t, bool ok) {
    for (size_t x = 0; x < t->most; x++) {
        int64_t before_it = 0, behind_it = 0;
        for (int i = 0; i < t->n_threads; i++) {
            int64_t *l = &t->left[(size_t)i * t->most + x], *r = &t->right[(size_t)i * t->most + x];
            before_it += *l;
            behind_it += *r;
            *l = *r = 0;
        }
        t->sums[x] = before_it;
        t->sums[t->most + x] = behind_it;
    }
    t->sums[2 * t->most] = !ok;
    soma__ranks_sum(t->ranks, t->sums, 2 * t->most + 1);
    return t->sums[2 * t->most] == 0;
}

// What the neighbours tell about the other pairs: (x, left) became (x, merged), (right, y) became (merged, y).
static bool count_neighbours(trainer *t) {
    uint32_t left = t->pair >> 16, right = t->pair & 0xffff, merged = t->merged, len = t->tokens[merged].len;
    t->n_fresh = 0;
    for (int32_t x = 0; x < t->n_tokens; x++) {
        int64_t before_it = t->sums[x], behind_it = t->sums[t->most + (size_t)x];
        bool counts = t->tokens[x].len + len < SOMA_BPE_MAX_TOKEN;
        if (before_it && !add(t, (uint32_t)x, left, -before_it)) return false;
        if (before_it && counts && !add(t, (uint32_t)x, merged, before_it)) return false;
        if (behind_it && !add(t, right, (uint32_t)x, -behind_it)) return false;
        if (behind_it && counts && !add(t, merged, (uint32_t)x, behind_it)) return false;
    }
    return true;
}

// One entry for each pair that has grown. (merged, merged) may have grown from both sides.
static bool queue_fresh(trainer *t) {
    uint32_t twice = (uint32_t)t->merged << 16 | t->merged;
    bool seen = false;
    for (size_t i = 0; i < t->n_fresh; i++) {
        if (t->fresh[i] == twice && seen) continue;
        seen |= t->fresh[i] == twice;
        int64_t count = slot_of(t, t->fresh[i])->count;
        if (count > 0 && !push(t, (entry){count, t->fresh[i]})) return false;
    }
    return true;
}

// The id of the text that both tokens make together: a new one, or the one that it has. -1: memory is out.
static int32_t token_for(trainer *t, uint32_t left, uint32_t right) {
    size_t len = ((size_t)t->tokens[left].len + t->tokens[right].len) * sizeof(uint16_t), first = t->tokens[left].len * sizeof(uint16_t);
    char *text = soma__alloc(len);
    if (!text) return -1;
    memcpy(text, t->texts.bytes.text + t->tokens[left].offset, first);
    memcpy(text + first, t->texts.bytes.text + t->tokens[right].offset, len - first);
    const soma_piece_slot *slot = soma__piece_map_put(&t->texts, text, len, t->n_tokens);
    soma__free(text);
    if (!slot) return -1;
    if (slot->value == t->n_tokens) {
        t->tokens[t->n_tokens].offset = slot->offset;
        t->tokens[t->n_tokens++].len = slot->len / (uint32_t)sizeof(uint16_t);
    }
    return slot->value;
}

// The pair that is merged next; false when there is none or, *ok false, memory is out.
static bool next_pair(trainer *t, int64_t min_frequency, bool *ok) {
    while (*ok && t->n_tokens < t->vocab && t->n_queue) {
        entry top = pop(t);
        int64_t count = slot_of(t, top.pair)->count;
        if (count == top.count) {
            t->pair = top.pair;
            return count >= min_frequency;
        }
        *ok = push(t, (entry){count, top.pair});
    }
    return false;
}

static bool add_merge(trainer *t, soma_bpe_trained *out, size_t *room) {
    uint32_t left = t->pair >> 16, right = t->pair & 0xffff;
    int32_t id = token_for(t, left, right);
    if (id < 0 || !SOMA_PUSH_ROOM(out->merges, out->n_merges, *room)) return false;
    out->merges[out->n_merges++] = (soma_merge){(int32_t)left, (int32_t)right, id};
    t->merged = (uint16_t)id;
    return true;
}

// A rank whose memory is out says so with its next counts; then all stop.
static soma_status learn(trainer *t, soma_bpe_trained *out, int64_t min_frequency, soma_pool *pool, soma_error *err) {
    size_t room = 0;
    bool ok = true;
    for (;;) {
        bool more = next_pair(t, min_frequency, &ok);
        if (more) ok = add_merge(t, out, &room);
        if (more && ok) soma__pool_run(pool, (int64_t)t->n_blocks, merge_block, t);
        if (!sum_neighbours(t, ok) || !more) break;
        ok = count_neighbours(t) && queue_fresh(t);
    }
    return ok ? SOMA_OK : soma__no_memory(err, "the merges");
}

// ---- the beginning

static bool cut_blocks(trainer *t, soma_bpe_corpus *corpus) {
    for (size_t from = 0, end; from < corpus->n; from = end) {
        end = SOMA_MIN(from + BLOCK, corpus->n);
        while (corpus->symbols[end - 1] != SOMA_BPE_BREAK) end++;
        if (!SOMA_PUSH_ROOM(t->blocks, t->n_blocks, t->room_blocks)) return false;
        t->blocks[t->n_blocks++] = (block){corpus->symbols + from, end - from};
    }
    return true;
}

typedef struct counting {
    const trainer *t;
    int64_t *there;             // [65536] how often a symbol stands in the corpus, over the ranks
    uint16_t *number, *symbols; // [65536] of a symbol among those that are there, and back
    size_t n;                   // of them
    int64_t *tables;            // [n_threads][n][n]
} counting;

static void count_block(void *ctx, int64_t item, int thread) {
    const counting *c = ctx;
    const block *b = &c->t->blocks[item];
    int64_t *table = c->tables + (size_t)thread * c->n * c->n;
    for (size_t i = 0; i + 1 < b->n; i++)
        if (b->at[i] != SOMA_BPE_BREAK && b->at[i + 1] != SOMA_BPE_BREAK) table[c->number[b->at[i]] * c->n + c->number[b->at[i + 1]]]++;
}

static soma_status number_symbols(counting *c, const soma_bpe_corpus *corpus, soma_ranks *ranks, soma_error *err) {
    c->there = soma__calloc(65536, sizeof *c->there);
    c->number = soma__calloc(65536, sizeof *c->number);
    c->symbols = soma__calloc(65536, sizeof *c->symbols);
    bool ok = c->there && c->number && c->symbols;
    SOMA_TRY(soma__ranks_agree(ranks, ok ? SOMA_OK : soma__no_memory(err, "the counts of symbols"), err));
    for (size_t i = 0; i < corpus->n; i++) c->there[corpus->symbols[i]]++;
    soma__ranks_sum(ranks, c->there, SOMA_BPE_BREAK);
    for (uint32_t s = 0; s < SOMA_BPE_BREAK; s++) {
        if (!c->there[s]) continue;
        c->symbols[c->n] = (uint16_t)s;
        c->number[s] = (uint16_t)c->n++;
    }
    if (c->n <= SOMA_BPE_MAX_SYMBOLS) return SOMA_OK;
    return soma__fail(err, SOMA_UNSUPPORTED, "a corpus of %zu different symbols; %d at most", c->n, SOMA_BPE_MAX_SYMBOLS);
}

static soma_status count_pairs(trainer *t, counting *c, const soma_bpe_corpus *corpus, soma_pool *pool, soma_error *err) {
    SOMA_TRY(number_symbols(c, corpus, t->ranks, err));
    size_t size = c->n * c->n;
    c->tables = soma__calloc((size_t)t->n_threads * size + 1, sizeof *c->tables);
    SOMA_TRY(soma__ranks_agree(t->ranks, c->tables ? SOMA_OK : soma__no_memory(err, "the counts of pairs"), err));
    soma__pool_run(pool, (int64_t)t->n_blocks, count_block, c);
    for (int k = 1; k < t->n_threads; k++)
        for (size_t i = 0; i < size; i++) c->tables[i] += c->tables[(size_t)k * size + i];
    soma__ranks_sum(t->ranks, c->tables, size);
    for (size_t i = 0; i < size; i++) {
        if (!c->tables[i]) continue;
        uint32_t pair = (uint32_t)c->symbols[i / c->n] << 16 | c->symbols[i % c->n];
        int64_t *count = count_of(t, pair);
        if (!count || !push(t, (entry){c->tables[i], pair})) return soma__no_memory(err, "the counts of pairs");
        *count = c->tables[i];
    }
    return SOMA_OK;
}

static bool make_trainer(trainer *t, int32_t n_alphabet, int32_t vocab, soma_pool *pool) {
    size_t most = t->most = (size_t)SOMA_MAX(n_alphabet, vocab) + 1;
    t->find = soma__bpe_find_plain;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2")) t->find = soma__bpe_find_avx2;
#endif
    t->n_threads = soma__pool_threads(pool);
    t->vocab = vocab;
    t->left = soma__calloc((size_t)t->n_threads * most, sizeof *t->left);
    t->right = soma__calloc((size_t)t->n_threads * most, sizeof *t->right);
    t->sums = soma__calloc(2 * most + 1, sizeof *t->sums);
    t->tokens = soma__calloc(most, sizeof *t->tokens);
    t->fresh = soma__alloc(2 * most * sizeof *t->fresh);
    if (!t->left || !t->right || !t->sums || !t->tokens || !t->fresh || !grow_counts(t, 1 << 12)) return false;
    for (t->n_tokens = 0; t->n_tokens < n_alphabet; t->n_tokens++) {
        uint16_t symbol = (uint16_t)t->n_tokens;
        const soma_piece_slot *slot = soma__piece_map_put(&t->texts, (const char *)&symbol, sizeof symbol, t->n_tokens);
        if (!slot) return false;
        t->tokens[t->n_tokens].offset = slot->offset;
        t->tokens[t->n_tokens].len = 1;
    }
    return true;
}

soma_status soma__bpe_train(soma_bpe_trained *out, soma_bpe_corpus *corpus, int32_t n_alphabet, int32_t vocab, int64_t min_frequency,
                            soma_pool *pool, soma_ranks *ranks, soma_error *err) {
    SOMA_CHECK(n_alphabet >= 0 && n_alphabet < SOMA_BPE_MAX_VOCAB && vocab <= SOMA_BPE_MAX_VOCAB && min_frequency >= 1,
               "a vocabulary's ids fit 16 bits, and a merge has been seen");
    SOMA_CHECK(!corpus->n || corpus->symbols[corpus->n - 1] == SOMA_BPE_BREAK, "every word has a break behind it");
    trainer t = {.ranks = ranks};
    counting c = {.t = &t};
    *out = (soma_bpe_trained){0};
    bool made = make_trainer(&t, n_alphabet, vocab, pool) && cut_blocks(&t, corpus);
    soma_status status = soma__ranks_agree(ranks, made ? SOMA_OK : soma__no_memory(err, "the trainer"), err);
    if (status == SOMA_OK) status = soma__ranks_agree(ranks, count_pairs(&t, &c, corpus, pool, err), err);
    if (status == SOMA_OK) status = soma__ranks_agree(ranks, learn(&t, out, min_frequency, pool, err), err);
    out->n_tokens = t.n_tokens;
    if (status != SOMA_OK) {
        soma__free(out->merges);
        *out = (soma_bpe_trained){0};
    }
    soma__free(c.there);
    soma__free(c.number);
    soma__free(c.symbols);
    soma__free(c.tables);
    soma__free(t.blocks);
    soma__free(t.counts);
    soma__free(t.queue);
    soma__free(t.left);
    soma__free(t.right);
    soma__free(t.sums);
    soma__free(t.tokens);
    soma__free(t.fresh);
    soma__piece_map_free(&t.texts);
    return status;
}
