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

// Taps of the first camera inside the tower: kept [depth + 2] as soma_vit fills it.
static void tap_tower(soma_graph *g, soma_tensor *const *kept, const soma_vit_config *vision, int64_t B, int64_t C, const char *camera) {
    int64_t n = (vision->image / vision->patch) * (vision->image / vision->patch);
    for (int64_t i = 0; g->keep_taps && i < vision->depth + 2; i++) {
        soma_tensor *first = soma_reshape(kept[i], 4, (int64_t[]){B, C, n, vision->width});
        first = soma_reshape(soma_slice(first, 1, 0, 1), 3, (int64_t[]){B, n, vision->width});
        if (i == 0)
            soma_tap(first, "vit.%s.embeddings", camera);
        else if (i <= vision->depth)
            soma_tap(first, "vit.%s.layer_out.%d", camera, (int)i - 1);
        else
            soma_tap(first, "vit.%s.post_layernorm", camera);
    }
}

soma_tensor *soma_vit_cameras(const soma_scope *s, soma_tensor *images, const soma_vit_config *vision, const char *const *cameras) {
    if (images->n_dims != 5) return soma__mistake(s->graph, "pictures are [B, C, H, W, 3] or [B, C, 3, H, W]");
    int64_t B = images->shape[0], C = images->shape[1];
    images = soma_reshape(images, 4, (int64_t[]){B * C, images->shape[2], images->shape[3], images->shape[4]});
    soma_tensor *kept[SOMA_VIT_MAX_DEPTH + 2];
    soma_tensor *x = soma_vit(s, images, vision, kept);
    tap_tower(s->graph, kept, vision, B, C, cameras[0]);
    return x; // [B C, n, D]
}

soma_tensor *soma_camera_tokens(soma_tensor *x, int64_t B, const char *const *cameras) {
    if (x->n_dims != 3 || x->shape[0] % B) return soma__mistake(x->graph, "tokens of cameras are [B C, n, D]");
    int64_t C = x->shape[0] / B, n = x->shape[1];
    x = soma_reshape(x, 3, (int64_t[]){B, C * n, x->shape[2]});
    for (int64_t i = 0; x->graph->keep_taps && i < C; i++) soma_tap(soma_slice(x, 1, i * n, n), "image_embs.%s", cameras[i]);
    return x; // [B, C n, D]
}

soma_tensor *soma_pixel_shuffle(soma_tensor *x, int64_t s) {
    int64_t side = x->n_dims == 3 ? llround(sqrt((double)x->shape[1])) : 0;
    if (side < 1 || side * side != x->shape[1] || side % s)
        return soma__mistake(x->graph, "tokens of a square picture whose side %lld divides are needed", (long long)s);
    int64_t N = x->shape[0], D = x->shape[2], n = side / s;
    x = soma_permute(soma_reshape(x, 6, (int64_t[]){N, n, s, n, s, D}), (int[]){0, 1, 3, 2, 4, 5});
    return soma_reshape(x, 3, (int64_t[]){N, n * n, s * s * D});
}
