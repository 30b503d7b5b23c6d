// SPDX-License-Identifier: Apache-2.0
// Chooses the vector sum: dimensions are merged where they can be; what is then [A, R, N] with R summed is taken. Declined: two summed
// dimensions with a kept one between them, a last dimension that is not contiguous, integers.
#include "device/cpu/fast_sum.h"

bool cpu_sum_shape_of(cpu_sum_shape *s, const soma_tensor *t) {
    const soma_tensor *x = t->src[0];
    int64_t shape[SOMA_MAX_DIMS], stride[SOMA_MAX_DIMS];
    bool summed[SOMA_MAX_DIMS];
    int n = 0;
    for (int d = 0; d < x->n_dims; d++) {
        const bool sum = t->p.sum.dims >> d & 1;
        if (x->shape[d] == 1) continue;
        if (n && summed[n - 1] == sum && stride[n - 1] == x->shape[d] * x->stride[d])
            shape[n - 1] *= x->shape[d], stride[n - 1] = x->stride[d];
        else
            shape[n] = x->shape[d], stride[n] = x->stride[d], summed[n++] = sum;
    }
    if ((x->dtype != SOMA_F32 && x->dtype != SOMA_BF16) || t->dtype != SOMA_F32 || n == 0 || stride[n - 1] != 1) return false;
    *s = (cpu_sum_shape){.A = 1, .N = 1};
    int i = 0;
    if (!summed[0]) s->A = shape[0], s->a_stride = stride[0], i = 1;
    if (i == n || !summed[i]) return false;
    s->R = shape[i], s->r_stride = stride[i++];
    if (i < n) s->N = shape[i++];
    if (i < n) return false;
    s->group = SOMA_MAX(16, 32768 / s->N);
    s->n_groups = cpu_ceil(s->R, s->group);
    return s->R > 0 && s->A > 0;
}

cpu_choice cpu_fast_sum(const soma_step *step, soma_isa isa) {
    cpu_sum_shape s;
    cpu_kernel *kernel = CPU_KERNEL_PICK(isa, cpu_sum);
    if (!kernel || !cpu_sum_shape_of(&s, step->nodes[0])) return (cpu_choice){0};
    return (cpu_choice){.run = kernel, .shared_size = s.n_groups > 1 ? (size_t)(s.A * s.n_groups * s.N) * 4 : 0};
}
