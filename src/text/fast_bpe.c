// SPDX-License-Identifier: Apache-2.0
// See fast_bpe.h for why this is right. Two details make it fast: most of FAST's characters are two bytes long and are one step of the trie
// ("unit"), and whether two tokens get along is decided by walking down the edges at which they touch, then remembered.
#include "text/fast_bpe.h"

#include "text/unicode.h"

#include <string.h>

enum { NEIGHBOUR_BITS = 16, MAX_TOKENS = 1 << 15, MAX_NODES = 1 << 20, UNIT_BITS = 12, SMALL = 1 << 11 };
#define UNKNOWN UINT32_MAX
#define MIX 0x9e3779b97f4a7c15u

typedef struct entry {
    uint32_t len;    // bytes
    int32_t shorter; // the longest other token that this one begins with; -1: none
} entry;

// How merging makes a token, and a glance at what it may be joined with: bit hash(right) for each merge that has it on the left.
typedef struct maker {
    int32_t left, right, rank; // rank -1: a byte, -2: merging never gives it
    uint64_t joins;
} maker;

typedef struct node {
    uint32_t key;    // the edge that leads here: parent << UNIT_BITS | unit
    int32_t longest; // token that the way to this node begins with; -1: none
    bool halves;     // a token goes on with the first byte of a character and ends there
} node;

struct soma_fast_bpe {
    soma_bpe merges;
    entry *tokens; // [n_tokens]
    maker *makers; // [n_tokens]
    size_t n_tokens;
    uint32_t units_of[SMALL]; // the unit of a character, and above it the one that begins at its second byte; UNKNOWN
    int32_t byte_token[256];  // -1: the vocabulary lacks it
    bool complete;            // it lacks none
    bool plain;               // a merge is listed before one that its halves need: merge, do not search
    // The trie: nodes by number, 0 the root, and a hash table of the nodes by the edge that leads to them; 0: empty.
    node *nodes;
    size_t n_nodes;
    uint32_t *children;
    int shift;                   // 64 - log2 of the table's size
    uint32_t first[256 + SMALL]; // the root's children, by unit
};

// ---- units: a byte, or both bytes of a character from U+0080 to U+07FF

static bool is_pair(const unsigned char *b) { return b[0] >= 0xc2 && b[0] <= 0xdf && (b[1] & 0xc0) == 0x80; }
static uint16_t unit_of(const unsigned char *b) { return (uint16_t)(256 + ((b[0] & 0x1f) << 6 | (b[1] & 0x3f)) - 0x80); }
static unsigned lead_of(uint16_t unit) { return 0xc0 | (unit - 256u + 0x80u) >> 6; }

// ---- the trie

// The place of this edge, or the empty one where it belongs.
static inline size_t child_slot(const soma_fast_bpe *b, uint32_t key) {
    size_t mask = ((size_t)1 << (64 - b->shift)) - 1, i = (size_t)(key * MIX >> b->shift);
    while (b->children[i] && b->nodes[b->children[i]].key != key) i = (i + 1) & mask;
    return i;
}

// 0: there is no such edge.
static inline uint32_t step(const soma_fast_bpe *b, uint32_t from, uint16_t unit) {
    return b->children[child_slot(b, from << UNIT_BITS | unit)];
}

static bool make_table(soma_fast_bpe *b, size_t n_edges) {
    int bits = 4;
    while (((size_t)1 << bits) < 2 * n_edges) bits++;
    soma__free(b->children);
    b->shift = 64 - bits;
    b->children = soma__calloc((size_t)1 << bits, sizeof *b->children);
    return b->children;
}

static void add_token(soma_fast_bpe *b, const soma_fast_token *t, int32_t id) {
    uint32_t at = 0;
    for (uint32_t i = 0; i < t->len;) {
        bool both = i + 1 < t->len && is_pair(t->bytes + i);
        uint32_t key = at << UNIT_BITS | (both ? unit_of(t->bytes + i) : t->bytes[i]);
        uint32_t *child = &b->children[child_slot(b, key)];
        if (!*child) {
            *child = (uint32_t)b->n_nodes++;
            b->nodes[*child] = (node){key, -1, false};
        }
        at = *child;
        i += both ? 2 : 1;
    }
    b->nodes[at].longest = id; // nodes where no token ends get theirs from finish_nodes
}

// Gives every node its `longest`, and every token the next shorter one. A parent comes before its children; a token may end inside a node's
// last character.
static void finish_nodes(soma_fast_bpe *b) {
    for (uint32_t i = 1; i < b->n_nodes; i++) {
        node *n = &b->nodes[i], *parent = &b->nodes[n->key >> UNIT_BITS];
        uint16_t unit = n->key & ((1 << UNIT_BITS) - 1);
        uint32_t inside = unit >= 256 ? step(b, n->key >> UNIT_BITS, (uint16_t)lead_of(unit)) : 0;
        int32_t before = inside && b->nodes[inside].longest >= 0 ? b->nodes[inside].longest : parent->longest;
        if (n->longest < 0)
            n->longest = before;
        else
            b->tokens[n->longest].shorter = before;
        if (unit >= 0xc0 && unit < 256) parent->halves = true;
    }
    for (uint32_t unit = 0; unit < SOMA_COUNT(b->first); unit++) b->first[unit] = step(b, 0, (uint16_t)unit);
}

static soma_status make_trie(soma_fast_bpe *b, const soma_fast_token *tokens, const char *where, soma_error *err) {
    uint64_t most = 1;
    for (size_t i = 0; i < b->n_tokens; i++)
        if (b->makers[i].rank >= -1) most += tokens[i].len;
    if (most > MAX_NODES) return soma__fail(err, SOMA_UNSUPPORTED, "%s: the tokens hold more than %d bytes", where, MAX_NODES);
    b->nodes = soma__alloc((size_t)most * sizeof *b->nodes);
    if (!b->nodes || !make_table(b, (size_t)most)) return soma__no_memory(err, "the tokenizer's trie");
    b->nodes[0] = (node){UNKNOWN, -1, false};
    b->n_nodes = 1;
    for (size_t i = 0; i < b->n_tokens; i++)
        if (b->makers[i].rank >= -1) add_token(b, &tokens[i], (int32_t)i);
    // most tokens share their beginnings; what remains is small enough to stay near the processor
    node *tight = soma__realloc(b->nodes, b->n_nodes * sizeof *b->nodes);
    if (tight) b->nodes = tight;
    if (!make_table(b, b->n_nodes)) return soma__no_memory(err, "the tokenizer's trie");
    for (uint32_t i = 1; i < b->n_nodes; i++) b->children[child_slot(b, b->nodes[i].key)] = i;
    finish_nodes(b);
    return SOMA_OK;
}

// ---- which tokens get along

static uint64_t glance(int32_t right) { return (uint64_t)1 << ((uint32_t)right * MIX >> 58); }

// Whether a merge crosses the border of `left` and `right` when the two are encoded as one text. The symbols that touch at the border are
// the right edge of how `left` is made and the left edge of how `right` is; each lives from the rank that makes it to the rank that takes
// it. A pair crosses when both live at its rank; of equal ranks the left one comes first. skip_whole leaves out the two tokens themselves.
static bool crosses(const soma_fast_bpe *b, int32_t left, int32_t right, bool skip_whole) {
    int32_t until_left = INT32_MAX, until_right = INT32_MAX;
    for (bool whole = true;; whole = false) {
        const maker *l = &b->makers[left], *r = &b->makers[right];
        if (l->joins & glance(right) && !(whole && skip_whole)) {
            int32_t rank = soma__bpe_rank(&b->merges, left, right);
            if (rank < until_left && rank <= until_right) return true;
        }
        if (l->rank < 0 && r->rank < 0) return false;
        if (l->rank >= r->rank) {
            until_left = l->rank;
            left = l->right;
        } else {
            until_right = r->rank;
            right = r->left;
        }
    }
}

static inline bool get_along(const soma_fast_bpe *b, soma_fast_bpe_work *w, int32_t left, int32_t right) {
    uint32_t pair = (uint32_t)left << 15 | (uint32_t)right, *known = &w->neighbours[pair * MIX >> (64 - NEIGHBOUR_BITS)];
    if (*known >> 1 != pair) *known = pair << 1 | !crosses(b, left, right, false);
    return *known & 1;
}

// Finds which merges are ever used and so how each token is made: a token alone must encode to itself. In the order of the ranks, the
// halves of a merge are known before it; a file in which they are not is encoded by merging.
static void find_makers(soma_fast_bpe *b, const soma_merge *merges, size_t n_merges) {
    for (size_t i = 0; i < n_merges; i++) {
        const soma_merge *m = &merges[i];
        maker *t = &b->makers[m->merged];
        if (soma__bpe_rank(&b->merges, m->left, m->right) != (int32_t)i) continue; // listed again later
        if (b->makers[m->left].rank < -1 || b->makers[m->right].rank < -1 || crosses(b, m->left, m->right, true)) continue;
        if (t->rank >= -1) b->plain = true; // a byte that is the result of a merge: not a vocabulary of bytes
        t->left = m->left;
        t->right = m->right;
        t->rank = (int32_t)i;
    }
    for (size_t i = 0; i < n_merges; i++) {
        const soma_merge *m = &merges[i];
        if (b->makers[m->left].rank >= (int32_t)i || b->makers[m->right].rank >= (int32_t)i) b->plain = true;
    }
}

// ---- making one

static soma_status fill(soma_fast_bpe *b, const soma_fast_token *tokens, const soma_merge *merges, size_t n_merges, const char *where,
                        soma_error *err) {
    memset(b->byte_token, 0xff, sizeof b->byte_token);
    for (size_t i = 0; i < b->n_tokens; i++) {
        b->tokens[i] = (entry){tokens[i].len, -1};
        b->makers[i] = (maker){-1, -1, -2, 0};
        if (!tokens[i].bytes || tokens[i].len != 1) continue;
        b->byte_token[*tokens[i].bytes] = (int32_t)i;
        b->makers[i].rank = -1;
    }
    b->complete = true;
    for (int i = 0; i < 256; i++) b->complete &= b->byte_token[i] >= 0;
    for (uint32_t c = 0; c < SMALL; c++) {
        unsigned char utf8[4];
        bool two = soma__utf8_encode(c, (char *)utf8) == 2, known = b->byte_token[utf8[0]] >= 0 && (!two || b->byte_token[utf8[1]] >= 0);
        b->units_of[c] = !known ? UNKNOWN : two ? unit_of(utf8) | (uint32_t)utf8[1] << 16 : utf8[0];
    }
    soma_merge *kept = soma__alloc((n_merges + 1) * sizeof *kept);
    if (!kept) return soma__no_memory(err, "the merges");
    size_t n = 0;
    for (size_t i = 0; i < n_merges; i++) {
        const soma_merge *m = &merges[i];
        if (!tokens[m->left].bytes || !tokens[m->right].bytes || !tokens[m->merged].bytes) continue;
        kept[n++] = *m;
        b->makers[m->left].joins |= glance(m->right);
    }
    soma_status status = soma__bpe_init(&b->merges, kept, n, err);
    if (status == SOMA_OK) {
        find_makers(b, kept, n);
        status = make_trie(b, tokens, where, err);
    }
    soma__free(kept);
    return status;
}

soma_status soma__fast_bpe_new(soma_fast_bpe **bpe, const soma_fast_token *tokens, size_t n_tokens, const soma_merge *merges,
                               size_t n_merges, const char *where, soma_error *err) {
    *bpe = NULL;
    if (n_tokens > MAX_TOKENS)
        return soma__fail(err, SOMA_UNSUPPORTED, "%s: %zu tokens; FAST takes vocabularies of up to %d", where, n_tokens, MAX_TOKENS);
    soma_fast_bpe *b = *bpe = soma__calloc(1, sizeof *b);
    if (!b) return soma__no_memory(err, "the tokenizer");
    b->n_tokens = n_tokens;
    b->tokens = soma__alloc((n_tokens + 1) * sizeof *b->tokens);
    b->makers = soma__alloc((n_tokens + 1) * sizeof *b->makers);
    soma_status status = b->tokens && b->makers ? fill(b, tokens, merges, n_merges, where, err) : soma__no_memory(err, "the tokenizer");
    if (status == SOMA_OK) return SOMA_OK;
    soma__fast_bpe_free(b);
    *bpe = NULL;
    return status;
}

void soma__fast_bpe_free(soma_fast_bpe *b) {
    if (!b) return;
    soma__bpe_free(&b->merges);
    soma__free(b->tokens);
    soma__free(b->makers);
    soma__free(b->children);
    soma__free(b->nodes);
    soma__free(b);
}

// ---- encoding

soma_status soma__fast_bpe_reserve(soma_fast_bpe_work *w, size_t n_chars, soma_error *err) {
    if (!w->neighbours) {
        w->neighbours = soma__alloc(sizeof *w->neighbours << NEIGHBOUR_BITS);
        if (!w->neighbours) return soma__no_memory(err, "the encoder");
        memset(w->neighbours, 0xff, sizeof *w->neighbours << NEIGHBOUR_BITS);
    }
    if (n_chars <= w->room) return SOMA_OK;
    soma__free(w->units);
    soma__free(w->dead);
    soma__free(w->bytes);
    w->room = 0;
    w->units = soma__alloc((4 * n_chars + 2) * sizeof *w->units);
    w->dead = soma__alloc(4 * n_chars + 1);
    w->bytes = soma__alloc(4 * n_chars + 1);
    if (!w->units || !w->dead || !w->bytes) return soma__no_memory(err, "the encoder");
    w->room = n_chars;
    return SOMA_OK;
}

void soma__fast_bpe_work_free(soma_fast_bpe_work *w) {
    soma__free(w->neighbours);
    soma__free(w->units);
    soma__free(w->dead);
    soma__free(w->bytes);
    *w = (soma_fast_bpe_work){0};
}

// The bytes of the text that the vocabulary has.
static size_t known_bytes(const soma_fast_bpe *b, const int32_t *chars, size_t n_chars, unsigned char *bytes) {
    size_t len = 0;
    for (size_t i = 0; i < n_chars; i++) {
        char utf8[4];
        size_t n = soma__utf8_encode((uint32_t)chars[i], utf8);
        for (size_t j = 0; j < n; j++)
            if (b->byte_token[(unsigned char)utf8[j]] >= 0) bytes[len++] = (unsigned char)utf8[j];
    }
    return len;
}

// The unit that begins at each byte; 0 units come back when a character is not of one or two known bytes, for the careful way.
static size_t quick_units(const soma_fast_bpe *b, const int32_t *chars, size_t n_chars, uint16_t *units) {
    size_t len = 0;
    for (size_t i = 0; i < n_chars; i++) {
        uint32_t c = (uint32_t)chars[i], both = c < SMALL ? b->units_of[c] : UNKNOWN;
        if (both == UNKNOWN) return 0;
        units[len] = (uint16_t)both;
        units[len + 1] = (uint16_t)(both >> 16); // of no meaning behind a character of one byte; overwritten by the next
        len += 1 + (c >= 0x80);
    }
    return len;
}

static size_t careful_units(const soma_fast_bpe *b, soma_fast_bpe_work *w, const int32_t *chars, size_t n_chars) {
    size_t len = known_bytes(b, chars, n_chars, w->bytes);
    w->bytes[len] = 0;
    for (size_t i = 0; i < len; i++) w->units[i] = is_pair(w->bytes + i) ? unit_of(w->bytes + i) : w->bytes[i];
    return len;
}

static inline int32_t longest_at(const soma_fast_bpe *b, const uint16_t *units, size_t at, size_t len) {
    if (at == len) return -1;
    uint32_t n = 0, next = b->first[units[at]];
    while (next) {
        n = next;
        at += units[at] >= 256 ? 2 : 1;
        if (at == len) return b->nodes[n].longest;
        next = step(b, n, units[at]);
    }
    if (b->nodes[n].halves && units[at] >= 256 && (next = step(b, n, (uint16_t)lead_of(units[at])))) n = next;
    return b->nodes[n].longest;
}

soma_status soma__fast_bpe_encode(const soma_fast_bpe *b, soma_fast_bpe_work *w, const int32_t *chars, size_t n_chars, int32_t *ids,
                                  size_t *n_ids, soma_error *err) {
    if (b->plain) return soma__fast_bpe_merge(b, w, chars, n_chars, ids, n_ids, err);
    size_t len = quick_units(b, chars, n_chars, w->units), n = 0, at = 0;
    if (!len) len = careful_units(b, w, chars, n_chars);
    memset(w->dead, 0, len + 1);
    for (int32_t next = longest_at(b, w->units, 0, len); at < len;) {
        int32_t token = next;
        while (token >= 0 && (w->dead[at + b->tokens[token].len] || (n && !get_along(b, w, ids[n - 1], token))))
            token = b->tokens[token].shorter;
        if (token >= 0) {
            ids[n++] = token;
            at += b->tokens[token].len;
            next = longest_at(b, w->units, at, len);
        } else {
            SOMA_CHECK(n, "a text of known bytes has an encoding");
            w->dead[at] = 1;
            next = ids[--n];
            at -= b->tokens[next].len;
        }
    }
    *n_ids = n;
    return SOMA_OK;
}

soma_status soma__fast_bpe_merge(const soma_fast_bpe *b, soma_fast_bpe_work *w, const int32_t *chars, size_t n_chars, int32_t *ids,
                                 size_t *n_ids, soma_error *err) {
    *n_ids = known_bytes(b, chars, n_chars, w->bytes);
    for (size_t i = 0; i < *n_ids; i++) ids[i] = b->byte_token[w->bytes[i]];
    return soma__bpe_merge(&b->merges, ids, n_ids, err);
}

int64_t soma__fast_bpe_lost(const soma_fast_bpe *b, const int32_t *chars, size_t n_chars) {
    int64_t lost = 0;
    for (size_t i = 0; i < n_chars && !b->complete; i++) {
        char utf8[4];
        bool known = true;
        for (size_t j = soma__utf8_encode((uint32_t)chars[i], utf8); j-- > 0;) known &= b->byte_token[(unsigned char)utf8[j]] >= 0;
        lost += !known;
    }
    return lost;
}
