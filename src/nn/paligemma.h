// SPDX-License-Identifier: Apache-2.0
// PaliGemma, which several families stand on: pictures through SigLIP and a projector, a prompt's embeddings, and Gemma's layer (Llama's is
// the same but for two formulas), cut in two where attention begins, so that the caller decides which keys a query sees: those of a second
// stream, or a cache's.
#ifndef SOMA_NN_PALIGEMMA_H
#define SOMA_NN_PALIGEMMA_H

#include "nn/nn.h"

typedef struct soma_gemma {
    int64_t width, depth, mlp, n_heads, n_kv_heads, head_dim;
    double eps, theta; // of the norms; of the rotation
    bool llama;        // Llama's layer: norms multiply by w, not by 1 + w, and SiLU is the gate
} soma_gemma;

typedef struct soma_kv {
    soma_tensor *k, *v; // [B, S, KV, K]; keys are already rotated
} soma_kv;

// Tokens on their way through the layers of one stack.
typedef struct soma_stream {
    const soma_gemma *c;
    const soma_scope *scope; // where "layers.0" begins
    soma_tensor *x;          // [B, T, D]; NULL: this stream is absent
    soma_tensor *pos;        // i32 [B, T]
    soma_tensor *cond;       // [B, C] for adaptive norms; NULL: plain ones
    soma_tensor *step;       // i32 [B], in cond's place: rows of what soma_gemma_schedule kept
    int64_t n_steps;         // how many rows there are
    soma_mask mask;          // over the keys that this stream sees
    const char *tap;         // what each layer's two parts give is named "<tap>.layers.0.self_attn.o_proj" and ".mlp"; NULL: it is not
} soma_stream;

// A layer that has begun: its norm, and the keys and values of the stream's own tokens.
typedef struct soma_gemma_layer {
    const soma_scope *scope;
    int i;
    soma_normed h; // [B, T, D]
    soma_kv kv;
} soma_gemma_layer;
soma_gemma_layer soma_gemma_begin(const soma_stream *s, int i);
// A layer that looks at another stream alone: its norm, no keys of its own. Those that it sees are made of the other stream's keys and
// values by this layer's weights; they are not rotated once more.
soma_gemma_layer soma_gemma_look(const soma_stream *s, int i);
soma_kv soma_gemma_cross(const soma_stream *s, int i, soma_kv other);
// [prefix | own] along the tokens. One prefix row serves the R rows of `own` that were drawn for it.
soma_kv soma_kv_join(soma_kv prefix, soma_kv own);
// Every row R times in a row.
soma_kv soma_kv_repeat(soma_kv kv, int64_t R);
// Attention over `all` keys, residuals, feed-forward: the layer's output [B, T, D].
soma_tensor *soma_gemma_end(const soma_stream *s, const soma_gemma_layer *layer, soma_kv all);
// Keeps what adaptive norms make of n_steps conditions, cond [n_steps, C], in states: a table for each norm of the stack.
void soma_gemma_schedule(const soma_stream *s);
// A plain norm, or an adaptive one where the stream has a condition.
soma_normed soma_gemma_norm(const soma_stream *s, const soma_scope *scope, const char *name, soma_tensor *x);

// `scope` holds vision_tower and multi_modal_projector. images [B, C, ..] (nn.h: soma_patch_embed) -> [B, C n, D], camera after camera.
// cameras [C]: names for taps.
soma_tensor *soma_paligemma_pictures(const soma_scope *scope, soma_tensor *images, const soma_vit_config *vision, int64_t D,
                                     const char *const *cameras);
// Ids i32 [B, L] -> [B, L, D]: rows of the table "<name>.weight" [vocab, D] times sqrt(D). Text alone is scaled, pictures are not.
soma_tensor *soma_paligemma_text(const soma_scope *s, const char *name, soma_tensor *ids, int64_t vocab, int64_t D);

// What the references keep in f32 whatever the rest runs in: norms, the patch convolution, positions. Quantised are the layers alone.
enum { SOMA_PALIGEMMA_RULES = 5 };
void soma_paligemma_rules(soma_precision precision, soma_precision_rule rules[SOMA_PALIGEMMA_RULES]);

#endif
