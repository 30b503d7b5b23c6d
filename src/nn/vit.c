// SPDX-License-Identifier: Apache-2.0
// The vision transformer of SigLIP: patches, learned positions, pre-norm blocks with full attention, no class token, no pooling.
#include "nn/nn.h"

#include <math.h>

soma_tensor *soma_patch_embed(const soma_scope *s, const char *name, soma_tensor *images, int64_t p, int64_t D) {
    const soma_scope *at = soma_scope_in(s, "%s", name);
    bool bytes = images->dtype == SOMA_U8;
    int64_t N = images->shape[0], H = images->shape[bytes ? 1 : 2], W = images->shape[bytes ? 2 : 3];
    if (images->n_dims != 4 || images->shape[bytes ? 3 : 1] != 3 || H % p || W % p)
        return soma__mistake(s->graph, "pictures are u8 [N, H, W, 3] or f32 [N, 3, H, W] with sides that are multiples of %lld",
                             (long long)p);
    int64_t h = H / p, w = W / p;
    // [N, h, w, 3, p, p]: the order in which the convolution's kernel is stored, so that it is one matrix product
    soma_tensor *x = bytes ? soma_permute(soma_reshape(images, 6, (int64_t[]){N, h, p, w, p, 3}), (int[]){0, 1, 3, 5, 2, 4})
                           : soma_permute(soma_reshape(images, 6, (int64_t[]){N, 3, h, p, w, p}), (int[]){0, 2, 4, 1, 3, 5});
    x = soma_reshape(soma_contiguous(x), 3, (int64_t[]){N, h * w, 3 * p * p});
    if (bytes) x = soma_affine(soma_cast(x, SOMA_F32), 2.0f / 255.0f, -1.0f); // 0..255 -> -1..1
    x = soma_cast(x, at->precision.activation);
    double fan_in = 3.0 * (double)(p * p);
    // four times the usual: an object is a coherent patch of colour, to which a kernel of white noise answers weakly beside the positions
    soma_tensor *kernel = soma_scope_weight(at, "weight", soma_init_normal(4 / sqrt(fan_in)), 4, (int64_t[]){D, 3, p, p});
    soma_tensor *bias = soma_scope_weight(at, "bias", soma_init_zero(), 1, &D);
    return soma_matmul(x, soma_reshape(kernel, 2, (int64_t[]){D, 3 * p * p}), bias, at->precision.product); // [N, h w, D]
}

soma_tensor *soma_vit_block(const soma_scope *s, soma_tensor *x, const soma_vit_config *c) {
    const soma_scope *attn = soma_scope_in(s, "self_attn");
    soma_tensor *h = soma_layer_norm(s, "layer_norm1", x, c->eps); // [N, T, D]
    soma_tensor *q = soma_heads(soma_linear(attn, "q_proj", h, c->width, true), c->n_heads);
    soma_tensor *k = soma_heads(soma_linear(attn, "k_proj", h, c->width, true), c->n_heads);
    soma_tensor *v = soma_heads(soma_linear(attn, "v_proj", h, c->width, true), c->n_heads);
    soma_tensor *a = soma_attention(attn, q, k, v, (soma_mask){0}); // [N, T, H, K]
    x = soma_add(x, soma_linear(attn, "out_proj", soma_merge_heads(a), c->width, true));
    return soma_add(x, soma_mlp(soma_scope_in(s, "mlp"), soma_layer_norm(s, "layer_norm2", x, c->eps), c->mlp)); // [N, T, D]
}

soma_tensor *soma_vit(const soma_scope *s, soma_tensor *images, const soma_vit_config *c, soma_tensor **kept) {
    const soma_scope *emb = soma_scope_in(s, "embeddings"), *encoder = soma_scope_in(s, "encoder");
    int64_t T = (c->image / c->patch) * (c->image / c->patch);
    soma_tensor *x = soma_patch_embed(emb, "patch_embedding", images, c->patch, c->width); // [N, T, D]
    // Random positions of about the patches' own size (our choice): a net that starts from nothing must tell places apart soon.
    soma_tensor *pos =
        soma_scope_weight(soma_scope_in(emb, "position_embedding"), "weight", soma_init_normal(0.6), 2, (int64_t[]){T, c->width});
    x = soma_cast(soma_add(x, soma_cast(pos, x->dtype)), encoder->precision.activation);
    if (kept) kept[0] = x;
    for (int i = 0; i < c->depth; i++) {
        soma_scope_block(s);
        x = soma_vit_block(soma_scope_in(encoder, "layers.%d", i), x, c);
        if (kept) kept[i + 1] = x;
    }
    soma_scope_blocks_end(s);
    x = soma_layer_norm(s, "post_layernorm", x, c->eps);
    if (kept) kept[c->depth + 1] = x;
    return x; // [N, T, D]
}
