// SPDX-License-Identifier: Apache-2.0
// Chooses the vector cross-entropy. Declined: anything that is not contiguous, logits or gradients that are not f32.
#include "device/cpu/fast.h"

static bool fits(const soma_tensor *t, soma_dtype dtype) { return t->dtype == dtype && soma__is_contiguous(t); }

cpu_choice cpu_fast_cross_entropy(const soma_step *step, soma_isa isa) {
    const soma_tensor *t = step->nodes[0];
    if (!fits(t->src[0], SOMA_F32) || !fits(t->src[1], SOMA_I32)) return (cpu_choice){0};
    return (cpu_choice){.run = CPU_KERNEL_PICK(isa, cpu_cross_entropy)};
}

cpu_choice cpu_fast_cross_entropy_grad(const soma_step *step, soma_isa isa) {
    const soma_tensor *t = step->nodes[0];
    if (!fits(t->src[0], SOMA_F32) || !fits(t->src[1], SOMA_I32) || !fits(t->src[2], SOMA_F32)) return (cpu_choice){0};
    return (cpu_choice){.run = CPU_KERNEL_PICK(isa, cpu_cross_entropy_grad)};
}
