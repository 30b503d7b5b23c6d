// SPDX-License-Identifier: Apache-2.0
// Chooses the vector rotary positions. Declined: heads that are not contiguous, integers.
#include "device/cpu/fast.h"

static bool floats(const soma_tensor *t) { return t->dtype == SOMA_F32 || t->dtype == SOMA_BF16; }

cpu_choice cpu_fast_rope(const soma_step *step, soma_isa isa) {
    const soma_tensor *t = step->nodes[0], *x = t->src[0];
    cpu_kernel *kernel = CPU_KERNEL_PICK(isa, cpu_rope);
    if (!kernel || x->stride[3] != 1 || !floats(x) || !floats(t)) return (cpu_choice){0};
    return (cpu_choice){kernel, (size_t)x->shape[3] * 2, (size_t)x->shape[3] * 12};
}
