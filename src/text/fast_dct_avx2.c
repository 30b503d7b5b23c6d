// SPDX-License-Identifier: Apache-2.0
// The transform's product for this instruction set. Products and sums stay apart (no fused multiply-add), so the bits are those of the
// plain one.
#if defined(__x86_64__)
#include "text/fast_dct.h"
#define PRODUCT soma__dct_product_avx2
#define QUANTISE soma__quantise_avx2
#include "text/fast_dct_product.h"
#endif
