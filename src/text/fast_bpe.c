// SPDX-License-Identifier: Apache-2.0
// See fast_bpe.h for why this is right. Two details make it fast: most of FAST's characters are two bytes long and are one step of the trie
// ("unit"), and whether two tokens get along is decided by walking down the edges at which they touch, then remembered.
#include "text/fast_bpe.h"

#include "text/unicode.h"

#include <string.h>

enum { NEIGHBOURS = 1 << 13, MAX_NODES = 1 << 24, UNIT_BITS = 12 };
#define EMPTY UINT64_MAX
#define MIX 0x9e3779b97f4a7c15u

typedef struct entry {
    uint32_t len;              // bytes
    int32_t shorter;           // the longest other token that this one begins with; -1: none
    int32_t left, right, rank; // of the merge that makes it; rank -1: a byte, -2: merging never gives it
} entry;

struct soma_fast_bpe {
    soma_bpe merges;
    entry *tokens; // [n_tokens]
    size_t n_tokens;
    int32_t byte_token[256]; // -1: the vocabulary lacks it
    bool complete;           // it lacks none
    bool plain;              // a merge is listed before one that its halves need: merge, do not search
    // The trie. Its nodes are numbers, node 0 the root; an edge (node, unit) -> node is one word of a hash table.
    uint64_t *edges;  // (node << UNIT_BITS | unit) << 24 | child
    int shift;        // 64 - log2 of the table's size
    int32_t *longest; // [n_nodes] the longest token that the way to this node begins with; -1: none
    size_t n_nodes;
};

// ---- units: a byte, or both bytes of a character from U+0080 to U+07FF

static bool is_pair(const unsigned char *b) { return b[0] >= 0xc2 && b[0] <= 0xdf && (b[1] & 0xc0) == 0x80; }
static uint16_t unit_of(const unsigned char *b) { return (uint16_t)(256 + ((b[0] & 0x1f) << 6 | (b[1] & 0x3f)) - 0x80); }
static unsigned lead_of(uint16_t unit) { return 0xc0 | (unit - 256u + 0x80u) >> 6; }

// ---- the trie

static uint64_t edge_key(uint32_t node, uint16_t unit) { return (uint64_t)node << UNIT_BITS | unit; }

// The place of this edge, or the empty one where it belongs.
static inline size_t edge_slot(const soma_fast_bpe *b, uint64_t key) {
    size_t mask = ((size_t)1 << (64 - b->shift)) - 1, i = (size_t)(key * MIX >> b->shift);
    while (b->edges[i] != EMPTY && b->edges[i] >> 24 != key) i = (i + 1) & mask;
    return i;
}

// 0: there is no such edge.
static inline uint32_t step(const soma_fast_bpe *b, uint32_t node, uint16_t unit) {
    uint64_t edge = b->edges[edge_slot(b, edge_key(node, unit))];
    return edge == EMPTY ? 0 : (uint32_t)(edge & 0xffffff);
}

static bool make_table(soma_fast_bpe *b, size_t n_edges) {
    int bits = 4;
    while (((size_t)1 << bits) < 2 * n_edges) bits++;
    b->shift = 64 - bits;
    b->edges = soma__alloc(sizeof *b->edges << bits);
    if (b->edges) memset(b->edges, 0xff, sizeof *b->edges << bits);
    return b->edges;
}

// The table was made for as many nodes as the tokens have bytes; most are shared.
static bool shrink_table(soma_fast_bpe *b) {
    soma_fast_bpe tight = {0};
    if (!make_table(&tight, b->n_nodes)) return false;
    for (size_t i = 0; i < (size_t)1 << (64 - b->shift); i++)
        if (b->edges[i] != EMPTY) tight.edges[edge_slot(&tight, b->edges[i] >> 24)] = b->edges[i];
    soma__free(b->edges);
    b->edges = tight.edges;
    b->shift = tight.shift;
    return true;
}

typedef struct origin { // how a node is reached, while building
    uint32_t parent;
    uint16_t unit;
    int32_t token; // that ends here; -1: none
} origin;

static void add_token(soma_fast_bpe *b, origin *nodes, const soma_fast_token *t, int32_t id) {
    uint32_t node = 0;
    for (uint32_t i = 0; i < t->len;) {
        bool both = i + 1 < t->len && is_pair(t->bytes + i);
        uint16_t unit = both ? unit_of(t->bytes + i) : t->bytes[i];
        size_t at = edge_slot(b, edge_key(node, unit));
        if (b->edges[at] == EMPTY) {
            nodes[b->n_nodes] = (origin){node, unit, -1};
            b->edges[at] = edge_key(node, unit) << 24 | b->n_nodes++;
        }
        node = (uint32_t)(b->edges[at] & 0xffffff);
        i += both ? 2 : 1;
    }
    nodes[node].token = id;
}

// The longest token that ends before this node on the way to it; one may end inside its last character.
static int32_t token_before(const soma_fast_bpe *b, const origin *nodes, uint32_t node) {
    const origin *n = &nodes[node];
    uint32_t inside = n->unit >= 256 ? step(b, n->parent, (uint16_t)lead_of(n->unit)) : 0;
    return inside && nodes[inside].token >= 0 ? nodes[inside].token : b->longest[n->parent];
}

static soma_status make_trie(soma_fast_bpe *b, const soma_fast_token *tokens, const char *where, soma_error *err) {
    uint64_t most = 1;
    for (size_t i = 0; i < b->n_tokens; i++)
        if (b->tokens[i].rank >= -1) most += tokens[i].len;
    if (most > MAX_NODES) return soma__fail(err, SOMA_UNSUPPORTED, "%s: the tokens hold more than %d bytes", where, MAX_NODES);
    origin *nodes = soma__alloc((size_t)most * sizeof *nodes);
    b->longest = soma__alloc((size_t)most * sizeof *b->longest);
    bool ok = nodes && b->longest && make_table(b, (size_t)most);
    if (ok) {
        nodes[0] = (origin){0, 0, -1};
        b->n_nodes = 1;
        for (size_t i = 0; i < b->n_tokens; i++)
            if (b->tokens[i].rank >= -1) add_token(b, nodes, &tokens[i], (int32_t)i);
        b->longest[0] = -1;
        for (uint32_t n = 1; n < b->n_nodes; n++) { // a parent comes before its children
            int32_t before = token_before(b, nodes, n);
            b->longest[n] = nodes[n].token >= 0 ? nodes[n].token : before;
            if (nodes[n].token >= 0) b->tokens[nodes[n].token].shorter = before;
        }
        ok = shrink_table(b);
    }
    soma__free(nodes);
    return ok ? SOMA_OK : soma__no_memory(err, "the tokenizer's trie");
}

// ---- which tokens get along

// Whether a merge crosses the border of `left` and `right` when the two are encoded as one text. The symbols that touch at the border are
// the right edge of how `left` is made and the left edge of how `right` is; each lives from the rank that makes it to the rank that takes
// it. A pair crosses when both live at its rank; of equal ranks the left one comes first. skip_whole leaves out the two tokens themselves.
static bool crosses(const soma_fast_bpe *b, int32_t left, int32_t right, bool skip_whole) {
    int32_t until_left = INT32_MAX, until_right = INT32_MAX;
    for (bool whole = true;; whole = false) {
        int32_t rank = soma__bpe_rank(&b->merges, left, right);
        if (rank < until_left && rank <= until_right && !(whole && skip_whole)) return true;
        const entry *l = &b->tokens[left], *r = &b->tokens[right];
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
    uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right, *known = &w->neighbours[pair * MIX >> 51];
    if (*known >> 1 != pair) *known = pair << 1 | !crosses(b, left, right, false);
    return *known & 1;
}

// Finds which merges are ever used and so how each token is made: a token alone must encode to itself. In the order of the ranks, the
// halves of a merge are known before it; a file in which they are not is encoded by merging.
static void find_makers(soma_fast_bpe *b, const soma_merge *merges, size_t n_merges) {
    for (size_t i = 0; i < n_merges; i++) {
        const soma_merge *m = &merges[i];
        entry *t = &b->tokens[m->merged];
        if (soma__bpe_rank(&b->merges, m->left, m->right) != (int32_t)i) continue; // listed again later
        if (b->tokens[m->left].rank < -1 || b->tokens[m->right].rank < -1 || crosses(b, m->left, m->right, true)) continue;
        if (t->rank >= -1) b->plain = true; // a byte that is the result of a merge: not a vocabulary of bytes
        t->left = m->left;
        t->right = m->right;
        t->rank = (int32_t)i;
    }
    for (size_t i = 0; i < n_merges; i++) {
        const soma_merge *m = &merges[i];
        if (b->tokens[m->left].rank >= (int32_t)i || b->tokens[m->right].rank >= (int32_t)i) b->plain = true;
    }
}

// ---- making one

static soma_status fill(soma_fast_bpe *b, const soma_fast_token *tokens, const soma_merge *merges, size_t n_merges, const char *where,
                        soma_error *err) {
    memset(b->byte_token, 0xff, sizeof b->byte_token);
    for (size_t i = 0; i < b->n_tokens; i++) {
        b->tokens[i] = (entry){.len = tokens[i].len, .shorter = -1, .left = -1, .right = -1, .rank = -2};
        if (!tokens[i].bytes || tokens[i].len != 1) continue;
        b->byte_token[*tokens[i].bytes] = (int32_t)i;
        b->tokens[i].rank = -1;
    }
    b->complete = true;
    for (int i = 0; i < 256; i++) b->complete &= b->byte_token[i] >= 0;
    soma_merge *kept = soma__alloc((n_merges + 1) * sizeof *kept);
    if (!kept) return soma__no_memory(err, "the merges");
    size_t n = 0;
    for (size_t i = 0; i < n_merges; i++) {
        const soma_merge *m = &merges[i];
        if (tokens[m->left].bytes && tokens[m->right].bytes && tokens[m->merged].bytes) kept[n++] = *m;
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
    soma_fast_bpe *b = *bpe = soma__calloc(1, sizeof *b);
    if (!b) return soma__no_memory(err, "the tokenizer");
    b->n_tokens = n_tokens;
    b->tokens = soma__alloc((n_tokens + 1) * sizeof *b->tokens);
    soma_status status = b->tokens ? fill(b, tokens, merges, n_merges, where, err) : soma__no_memory(err, "the tokenizer");
    if (status == SOMA_OK) return SOMA_OK;
    soma__fast_bpe_free(b);
    *bpe = NULL;
    return status;
}

void soma__fast_bpe_free(soma_fast_bpe *b) {
    if (!b) return;
    soma__bpe_free(&b->merges);
    soma__free(b->tokens);
    soma__free(b->edges);
    soma__free(b->longest);
    soma__free(b);
}

// ---- encoding

soma_status soma__fast_bpe_reserve(soma_fast_bpe_work *w, size_t n_chars, soma_error *err) {
    if (!w->neighbours) {
        w->neighbours = soma__alloc(NEIGHBOURS * sizeof *w->neighbours);
        if (!w->neighbours) return soma__no_memory(err, "the encoder");
        memset(w->neighbours, 0xff, NEIGHBOURS * sizeof *w->neighbours);
    }
    if (n_chars <= w->room) return SOMA_OK;
    soma__free(w->units);
    soma__free(w->dead);
    soma__free(w->bytes);
    w->room = 0;
    w->units = soma__alloc((4 * n_chars + 1) * sizeof *w->units);
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
        uint32_t c = (uint32_t)chars[i];
        if (c < 0x80) {
            if (b->byte_token[c] < 0) return 0;
            units[len++] = (uint16_t)c;
        } else {
            uint32_t low = 0x80 | (c & 0x3f);
            if (c >= 0x800 || (b->byte_token[0xc0 | c >> 6] | b->byte_token[low]) < 0) return 0;
            units[len++] = (uint16_t)(256 + c - 0x80);
            units[len++] = (uint16_t)low;
        }
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
    uint32_t node = 0;
    while (at < len) {
        uint16_t unit = units[at];
        uint32_t next = step(b, node, unit);
        if (!next) {
            if (unit >= 256 && (next = step(b, node, (uint16_t)lead_of(unit)))) node = next; // half of the character
            break;
        }
        node = next;
        at += unit >= 256 ? 2 : 1;
    }
    return b->longest[node];
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
