// SPDX-License-Identifier: Apache-2.0
// Layers, written once for all families. A layer takes a scope (where its weights are named, in which precision it computes) and
// tensors, and returns tensors; shapes are checked by the graph, so that a layer has no error path.
//
// A weight's name is the scope's name and the layer's: soma_linear(s, "q_proj", ...) in the scope "layers.3.self_attn" reads
// "layers.3.self_attn.q_proj.weight", which is the key in the published checkpoint.
#ifndef SOMA_NN_NN_H
#define SOMA_NN_NN_H

#include "graph/graph.h"

// ---- precision

// weight: how a weight is stored; activation: what a layer computes in and gives; product: how the factors of a matrix product are
// rounded (sums are always f32); quant: linear layers are quantised, in the place of `product`. Norms, softmax and rotations are f32 inside
// whatever this says.
typedef struct soma_precision {
    soma_dtype weight, activation, product;
    soma_quant quant;
} soma_precision;

// The three ways to run a model: f32 throughout; f32 weights and activations with bf16 products (training); bf16 throughout (inference).
#define SOMA_PRECISION_F32 ((soma_precision){SOMA_F32, SOMA_F32, SOMA_F32, SOMA_QUANT_NONE})
#define SOMA_PRECISION_MIXED ((soma_precision){SOMA_F32, SOMA_F32, SOMA_BF16, SOMA_QUANT_NONE})
#define SOMA_PRECISION_BF16 ((soma_precision){SOMA_BF16, SOMA_BF16, SOMA_BF16, SOMA_QUANT_NONE})

// `glob` is matched against a scope's whole name; '*' stands for any text, dots included. The last rule that matches wins.
typedef struct soma_precision_rule {
    const char *glob;
    soma_precision precision;
} soma_precision_rule;

// A low-rank pair beside the linear layers whose scope matches: y += scale * pair(x). Its weights, in the scope of the layer:
typedef enum soma_adapter_form {
    SOMA_ADAPTER_PEFT,             // lora_A.weight [rank, in], lora_B.weight [out, rank] (zero at the start)
    SOMA_ADAPTER_OPENPI,           // lora_a [in, rank], lora_b [rank, out]; openpi's are all N(0, 0.01^2) at the start
    SOMA_ADAPTER_OPENPI_TO_HEADS,  // lora_a [H, in, rank], lora_b [H, rank, out/H]: a pair for each head of the output
    SOMA_ADAPTER_OPENPI_FROM_HEADS // lora_a [H, in/H, rank], lora_b [H, rank, out]: (sum over heads of x A) (sum over heads of B)
} soma_adapter_form;
typedef struct soma_adapter {
    const char *glob;
    soma_adapter_form form;
    int64_t rank, n_heads; // n_heads: of the forms with heads
    float scale;           // usually alpha / rank
} soma_adapter;

// Borrowed by the scopes made from it while the graph is built.
typedef struct soma_scope_spec {
    const soma_precision_rule *rules; // at least one that matches everything
    size_t n_rules;
    const soma_adapter *adapters; // the last match wins
    size_t n_adapters;
    const char *const *frozen; // globs over weights' whole names: no gradient; adapters' pairs are never frozen
    size_t n_frozen;
    bool recompute; // the backward pass computes a block's intermediates again instead of keeping them
} soma_scope_spec;

typedef struct soma_scope {
    soma_graph *graph;
    const char *name; // "" at the root; no dot at its end
    soma_precision precision;
    const soma_scope_spec *spec;
} soma_scope;

soma_scope soma_scope_root(soma_graph *graph, const soma_scope_spec *spec);
// A scope inside `s`, kept as long as the graph. soma_scope_in(s, "layers.%d", 3)
const soma_scope *soma_scope_in(const soma_scope *s, const char *format, ...) SOMA_PRINTF(2, 3);
// The weight "<scope>.<name>" in the scope's weight dtype; a frozen one is stored as the scope's products round it.
soma_tensor *soma_scope_weight(const soma_scope *s, const char *name, soma_init init, int n_dims, const int64_t *shape);
// The same of a weight that no gradient changes.
soma_tensor *soma_scope_still(const soma_scope *s, const char *name, soma_init init, int n_dims, const int64_t *shape);
// A block begins here, and the one before ends: the unit that is recomputed where the spec says so.
void soma_scope_block(const soma_scope *s);
void soma_scope_blocks_end(const soma_scope *s);
bool soma__matches(const char *glob, const char *name); // '*': any text
// y, or y and the adapter's part where one belongs to the scope of this linear layer (y of x).
soma_tensor *soma__add_adapter(const soma_scope *s, soma_tensor *x, soma_tensor *y);

soma_init soma_init_zero(void);
soma_init soma_init_one(void);
soma_init soma_init_normal(double std);

// ---- linear layers and tables. x [.., in] -> [.., out]; weights [out, in], as published
soma_tensor *soma_linear(const soma_scope *s, const char *name, soma_tensor *x, int64_t out, bool bias); // std 1/sqrt(in)
soma_tensor *soma_linear_init(const soma_scope *s, const char *name, soma_tensor *x, int64_t out, bool bias, soma_init init);
// ids i32 [..] -> [.., D]; the weight is "<name>.weight" [V, D], std 1/sqrt(D)
soma_tensor *soma_embedding(const soma_scope *s, const char *name, soma_tensor *ids, int64_t V, int64_t D);

// ---- norms over the last dimension; the result has x's dtype
soma_tensor *soma_rms_norm(const soma_scope *s, const char *name, soma_tensor *x, float eps); // (1 + w) x / rms(x); w starts at zero
soma_tensor *soma_scaled_rms_norm(const soma_scope *s, const char *name, soma_tensor *x,
                                  float eps); // w x / rms(x), as Llama; w starts at one
soma_tensor *soma_layer_norm(const soma_scope *s, const char *name, soma_tensor *x, float eps);
// RMS norm whose scale, shift and gate come from a condition: "<name>.dense" maps cond [B, C], or [B T, C], to [B, 3D]; y = n (1 + scale) +
// shift. The gate is not squashed; the caller multiplies its sublayer's output with it. dense starts at zero.
typedef struct soma_normed {
    soma_tensor *y;    // [B, T, D]
    soma_tensor *gate; // [B, 1, D], or [B, T, D] where each token has a condition; NULL of a norm without one
} soma_normed;
soma_normed soma_ada_rms_norm(const soma_scope *s, const char *name, soma_tensor *x, soma_tensor *cond, float eps);
// Its two halves: scale, shift and gate [B, 3D] of a norm over D values; and the norm that has them.
soma_tensor *soma_modulation(const soma_scope *s, const char *name, soma_tensor *cond, int64_t D);
soma_normed soma_modulated_norm(soma_tensor *x, soma_tensor *modulation, float eps);

// ---- attention
// Query i sees key j iff k_block[j] <= q_block[i] (graph.h). {0}: everything is seen, nothing is dropped.
typedef struct soma_mask {
    soma_tensor *q_block; // i32 [B, T]
    soma_tensor *k_block; // i32 [B, S]
    soma_drop drop;       // of the probabilities, in training
} soma_mask;

soma_tensor *soma_heads(soma_tensor *x, int64_t n_heads);               // [B, T, H K] -> [B, T, H, K]
soma_tensor *soma_merge_heads(soma_tensor *x);                          // [B, T, H, K] -> [B, T, H K]
soma_tensor *soma_rope(soma_tensor *x, soma_tensor *pos, double theta); // [B, T, H, K], pos i32 [B, T]
soma_tensor *soma_attention(const soma_scope *s, soma_tensor *q, soma_tensor *k, soma_tensor *v, soma_mask mask); // scale K^-0.5

// ---- feed-forward; weights inside `s`
soma_tensor *soma_gated_mlp(const soma_scope *s, soma_tensor *x, int64_t F,
                            soma_unary f);                             // down_proj(f(gate_proj x) * up_proj x), no biases
soma_tensor *soma_mlp(const soma_scope *s, soma_tensor *x, int64_t F); // fc2(gelu(fc1 x)), biases

// ---- vision transformer, names as in SigLIP
enum { SOMA_VIT_MAX_DEPTH = 64 };
typedef struct soma_vit_config {
    int64_t width, depth, n_heads, mlp, patch, image; // image: height and width, pixels
    float eps;
} soma_vit_config;
// Pictures to patches, row-major: u8 [N, H, W, 3] as cameras give them (mapped to -1..1), or f32 [N, 3, H, W] in -1..1, as published
// models take them. -> [N, H/p W/p, D]. The kernel is "<name>.weight" [D, 3, p, p].
soma_tensor *soma_patch_embed(const soma_scope *s, const char *name, soma_tensor *images, int64_t p, int64_t D);
soma_tensor *soma_vit_block(const soma_scope *s, soma_tensor *x, const soma_vit_config *c);
// kept: NULL, or room for depth + 2 tensors: the embeddings, every block's output, the output of the last norm (which is returned)
soma_tensor *soma_vit(const soma_scope *s, soma_tensor *images, const soma_vit_config *c, soma_tensor **kept);
// Pictures of several cameras, images [B, C, ..] -> [B C, n, D], with taps "vit.<first camera>.*"; cameras [C] names them.
soma_tensor *soma_vit_cameras(const soma_scope *s, soma_tensor *images, const soma_vit_config *c, const char *const *cameras);
// What became of them, x [B C, n, D] -> [B, C n, D], camera after camera; taps "image_embs.<camera>".
soma_tensor *soma_camera_tokens(soma_tensor *x, int64_t B, const char *const *cameras);
// s x s neighbours become one token, as SmolVLM orders them: x [N, side^2, D] -> [N, (side/s)^2, s^2 D], a token's channels being its
// patches row by row, each with its D values.
soma_tensor *soma_pixel_shuffle(soma_tensor *x, int64_t s);

// ---- small things
// Every row R times in a row: [B, ..] -> [B R, ..]; x itself when R is 1.
soma_tensor *soma_repeat_rows(soma_tensor *x, int64_t R);

#endif
