// SPDX-License-Identifier: Apache-2.0
// Chooses the vector optimiser step. Declined: parameters that are not contiguous f32.
#include "device/cpu/fast.h"

cpu_choice cpu_fast_adamw(const soma_step *step, soma_isa isa) {
    const soma_tensor *t = step->nodes[0];
    cpu_kernel *kernel = CPU_KERNEL_PICK(isa, cpu_adamw);
    for (int s = 0; s < 7; s++)
        if (t->src[s] && (t->src[s]->dtype != SOMA_F32 || !soma__is_contiguous(t->src[s]))) return (cpu_choice){0};
    return (cpu_choice){.run = kernel};
}
