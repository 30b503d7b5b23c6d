// SPDX-License-Identifier: Apache-2.0
// From a tensor's strides to rows of k.
#include "device/cpu/side.h"

bool cpu_side_of(cpu_side *s, const soma_tensor *t, bool merge_batches, soma_dtype product) {
    const int d = t->n_dims;
    if (d < 2 || (t->dtype != SOMA_F32 && t->dtype != SOMA_BF16)) return false;
    const int64_t K = t->shape[d - 1];
    *s = (cpu_side){.rows = t->shape[d - 2], .inner = t->shape[d - 2]};
    int64_t row_stride = t->stride[d - 2], k_stride = K == 1 ? 1 : t->stride[d - 1];
    if (merge_batches) { // [B, T, K] without gaps, or with one gap between B and T, is a matrix of B*T rows
        int64_t levels = 1, stride = row_stride, n = s->rows;
        int64_t outer = 0;
        for (int i = d - 3; i >= 0; i--) {
            if (t->shape[i] == 1) continue;
            if (n == 1 && levels == 1)
                row_stride = stride = t->stride[i], n = s->inner = t->shape[i];
            else if (t->stride[i] == n * stride) {
                n *= t->shape[i];
                if (levels == 1) s->inner = n;
            } else if (levels == 1)
                levels = 2, outer = stride = t->stride[i], n = t->shape[i];
            else
                return false;
            s->rows = levels == 1 ? n : s->inner * n;
        }
        s->outer_stride = outer;
    } else
        for (int i = 0; i < d - 2; i++) s->batch_stride[i] = t->shape[i] == 1 ? 0 : t->stride[i];
    if (k_stride != 1 && s->inner == 1) row_stride = 1; // the stride of a single row says nothing
    if (k_stride != 1 && row_stride != 1) return false;
    s->by_columns = k_stride != 1;
    s->f = (cpu_factor){.bf16 = t->dtype == SOMA_BF16, .round = product == SOMA_BF16, .row_stride = row_stride, .k_stride = k_stride};
    return true;
}

void cpu_side_pack(const cpu_gemm *isa, const cpu_side *s, uint32_t *out, int64_t ld, int64_t row0, int64_t rows, int64_t k0, int64_t kn) {
    for (int64_t r = 0; r < rows;) { // runs end where the outer of two levels of rows steps
        const int64_t at = row0 + r, first = at % s->inner, run = SOMA_MIN(rows - r, s->inner - first);
        cpu_factor f = s->f;
        f.data = (const char *)f.data + at / s->inner * s->outer_stride * (f.bf16 ? 2 : 4);
        if (s->by_columns)
            isa->pack_columns(out + r, ld, &f, first, run, k0, kn);
        else
            isa->pack_rows(out + r * ld, ld, &f, first, run, k0, kn);
        r += run;
    }
}
