// SPDX-License-Identifier: Apache-2.0
// Two ways to the same ids. A short word keeps the rank of every pair beside it and looks for the smallest again after each merge: words
// are short, and scanning eight ranks is cheaper than any queue. A long one has its ids in a linked list and its pairs in a heap, in which
// entries grow stale and are recognised when they come out.
#include "text/bpe.h"

#include <string.h>

// ---- pairs

static size_t slot_of(const soma_bpe *bpe, int32_t left, int32_t right) {
    uint64_t h = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * 0x9e3779b97f4a7c15u;
    size_t i = (size_t)(h >> 32 ^ h >> 12) & (bpe->n_slots - 1);
    while (bpe->slots[i].rank >= 0 && (bpe->slots[i].left != left || bpe->slots[i].right != right)) i = (i + 1) & (bpe->n_slots - 1);
    return i;
}

soma_status soma__bpe_init(soma_bpe *bpe, const soma_merge *merges, size_t n_merges, soma_error *err) {
    *bpe = (soma_bpe){0};
    size_t n_slots = 2;
    while (n_slots < n_merges * 2) n_slots *= 2;
    bpe->slots = soma__alloc(n_slots * sizeof *bpe->slots);
    if (!bpe->slots) return soma__no_memory(err, "the merges");
    bpe->n_slots = n_slots;
    for (size_t i = 0; i < n_slots; i++) bpe->slots[i] = (soma_bpe_slot){.rank = -1};
    for (size_t i = 0; i < n_merges; i++) {
        const soma_merge *m = &merges[i];
        bpe->slots[slot_of(bpe, m->left, m->right)] = (soma_bpe_slot){m->left, m->right, (int32_t)i, m->merged};
    }
    return SOMA_OK;
}

void soma__bpe_free(soma_bpe *bpe) {
    soma__free(bpe->slots);
    *bpe = (soma_bpe){0};
}

// INT32_MAX: the two are not joined.
static int32_t rank_of(const soma_bpe *bpe, int32_t left, int32_t right, int32_t *merged) {
    const soma_bpe_slot *slot = &bpe->slots[slot_of(bpe, left, right)];
    *merged = slot->merged;
    return slot->rank < 0 ? INT32_MAX : slot->rank;
}

int32_t soma__bpe_rank(const soma_bpe *bpe, int32_t left, int32_t right) {
    int32_t merged;
    return rank_of(bpe, left, right, &merged);
}

// ---- short words

static size_t merge_short(const soma_bpe *bpe, int32_t *ids, size_t n) {
    int32_t ranks[SOMA_BPE_SHORT], merged[SOMA_BPE_SHORT]; // of the pair that begins at i
    for (size_t i = 0; i + 1 < n; i++) ranks[i] = rank_of(bpe, ids[i], ids[i + 1], &merged[i]);
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (ranks[i] < ranks[best]) best = i;
        if (ranks[best] == INT32_MAX) break;
        ids[best] = merged[best];
        n--;
        for (size_t i = best + 1; i < n; i++) { // short loops: a call to memmove costs more
            ids[i] = ids[i + 1];
            ranks[i - 1] = ranks[i];
            merged[i - 1] = merged[i];
        }
        if (best + 1 < n) ranks[best] = rank_of(bpe, ids[best], ids[best + 1], &merged[best]);
        if (best > 0) ranks[best - 1] = rank_of(bpe, ids[best - 1], ids[best], &merged[best - 1]);
    }
    return n;
}

// ---- long words

typedef struct heap {
    uint64_t *items; // rank << 32 | position: the order in which pairs are joined
    size_t n;
} heap;

static void heap_push(heap *h, uint64_t item) {
    size_t i = h->n++;
    for (; i > 0 && h->items[(i - 1) / 2] > item; i = (i - 1) / 2) h->items[i] = h->items[(i - 1) / 2];
    h->items[i] = item;
}

static uint64_t heap_pop(heap *h) {
    uint64_t top = h->items[0], last = h->items[--h->n];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < h->n; i = child) {
        if (child + 1 < h->n && h->items[child + 1] < h->items[child]) child++;
        if (h->items[child] >= last) break;
        h->items[i] = h->items[child];
    }
    h->items[i] = last;
    return top;
}

typedef struct word {
    const soma_bpe *bpe;
    int32_t *ids;          // -1 where an id was taken into the one before it
    uint32_t *next, *prev; // positions; [n] is the end of both directions
    size_t n;
    heap pairs;
} word;

static void push_pair(word *w, size_t at) {
    int32_t merged;
    if (w->next[at] == w->n) return;
    int32_t rank = rank_of(w->bpe, w->ids[at], w->ids[w->next[at]], &merged);
    if (rank != INT32_MAX) heap_push(&w->pairs, (uint64_t)rank << 32 | at);
}

static void merge_long(word *w) {
    for (size_t i = 0; i < w->n; i++) {
        w->next[i] = (uint32_t)i + 1;
        w->prev[i] = i ? (uint32_t)i - 1 : (uint32_t)w->n;
    }
    for (size_t i = 0; i < w->n; i++) push_pair(w, i);
    while (w->pairs.n) {
        uint64_t top = heap_pop(&w->pairs);
        size_t at = (uint32_t)top, right;
        int32_t merged;
        if (w->ids[at] < 0 || (right = w->next[at]) == w->n) continue;
        if (rank_of(w->bpe, w->ids[at], w->ids[right], &merged) != (int32_t)(top >> 32)) continue; // stale
        w->ids[at] = merged;
        w->ids[right] = -1;
        w->next[at] = w->next[right];
        if (w->next[at] < w->n) w->prev[w->next[at]] = (uint32_t)at;
        push_pair(w, at);
        if (w->prev[at] < w->n) push_pair(w, w->prev[at]);
    }
}

soma_status soma__bpe_merge(const soma_bpe *bpe, int32_t *ids, size_t *n, soma_error *err) {
    if (*n < 2 || !bpe->n_slots) return SOMA_OK;
    if (*n <= SOMA_BPE_SHORT) {
        *n = merge_short(bpe, ids, *n);
        return SOMA_OK;
    }
    if (*n > INT32_MAX) return soma__fail(err, SOMA_BAD_INPUT, "a word of %zu symbols", *n);
    // at most one entry per pair to begin with and two per merge
    uint64_t *memory = soma__alloc(*n * (3 * sizeof(uint64_t) + 2 * sizeof(uint32_t)));
    if (!memory) return soma__no_memory(err, "a long word");
    uint32_t *links = (uint32_t *)(memory + 3 * *n);
    word w = {bpe, ids, links, links + *n, *n, {memory, 0}};
    merge_long(&w);
    soma__free(memory);
    size_t kept = 0;
    for (size_t i = 0; i < *n; i++)
        if (ids[i] >= 0) ids[kept++] = ids[i];
    *n = kept;
    return SOMA_OK;
}
