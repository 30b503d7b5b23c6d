// SPDX-License-Identifier: Apache-2.0
// The transform's product for this instruction set. Products and sums stay apart (no fused multiply-add), so the bits are those of the
// plain one.
#if defined(__x86_64__)
#include "base/base.h"

void soma__dct_product_avx2(double *out, const double *cosines, int64_t n_blocks, int64_t row_stride, const double *in, int64_t n_in,
                            int64_t width);
#define PRODUCT soma__dct_product_avx2
#include "text/fast_dct_product.h"
#endif
