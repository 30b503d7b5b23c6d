// SPDX-License-Identifier: Apache-2.0
// Chooses the vector norms (simd_norm.h). Declined: a last dimension that is not contiguous, integers.
#include "device/cpu/fast.h"

static bool row_fits(const soma_tensor *t) {
    return (t->dtype == SOMA_F32 || t->dtype == SOMA_BF16) && (t->stride[t->n_dims - 1] == 1 || t->shape[t->n_dims - 1] == 1);
}

static cpu_choice choose(const soma_step *step, cpu_kernel *kernel, bool gradient) {
    const soma_tensor *t = step->nodes[0], *x = t->src[0];
    const int64_t D = x->shape[x->n_dims - 1];
    if (!kernel || !row_fits(t)) return (cpu_choice){0};
    for (int s = 0; s < 3; s++)
        if (t->src[s] && !row_fits(t->src[s])) return (cpu_choice){0};
    const int64_t groups = D ? cpu_ceil(soma__numel(x) / D, cpu_norm_group(D)) : 0;
    return (cpu_choice){kernel, (size_t)((gradient ? groups + 1 : 1) * 2 * D) * 4, (size_t)(2 * D) * 4};
}

cpu_choice cpu_fast_rms_norm(const soma_step *step, soma_isa isa) { return choose(step, CPU_KERNEL_PICK(isa, cpu_rms_norm), false); }
cpu_choice cpu_fast_layer_norm(const soma_step *step, soma_isa isa) { return choose(step, CPU_KERNEL_PICK(isa, cpu_layer_norm), false); }
cpu_choice cpu_fast_rms_norm_grad(const soma_step *step, soma_isa isa) {
    return choose(step, CPU_KERNEL_PICK(isa, cpu_rms_norm_grad), true);
}
cpu_choice cpu_fast_layer_norm_grad(const soma_step *step, soma_isa isa) {
    return choose(step, CPU_KERNEL_PICK(isa, cpu_layer_norm_grad), true);
}
