// SPDX-License-Identifier: Apache-2.0
// The orthonormal discrete cosine transform over time that FAST stands on, for any number of steps and all dimensions of a chunk at once:
//
//     C[k] = c_k sum_n x[n] cos(pi (2n + 1) k / 2T)      c_0 = sqrt(1 / T), c_k = sqrt(2 / T)
//
// Up to SOMA_DCT_DIRECT steps it is a product with the cosines, folded in the middle (even frequencies see x[n] + x[T-1-n], odd ones the
// difference), which is what a chunk of a robot needs and is as exact as a sum can be. Longer ones go through a Fourier transform: any
// length in O(T log T). Every column is summed in the same order whatever the instruction set, so the bits do not depend on it.
#ifndef SOMA_TEXT_FAST_DCT_H
#define SOMA_TEXT_FAST_DCT_H

#include "base/base.h"

enum { SOMA_DCT_DIRECT = 256, SOMA_DCT_MAX_STEPS = 1 << 20 };

typedef struct soma_dct soma_dct; // the plan for one T, and its scratch: one thread's

// steps 1 .. SOMA_DCT_MAX_STEPS.
soma_status soma__dct_new(soma_dct **dct, int64_t steps, soma_error *err);
void soma__dct_free(soma_dct *dct); // NULL allowed
// Scratch for chunks of up to `width` dimensions; the transforms below then allocate nothing.
soma_status soma__dct_reserve(soma_dct *dct, int64_t width, soma_error *err);

// x [T, A] -> coefficients [T, A], row-major; may be the same memory. A is at most the reserved width.
void soma__dct_forward(soma_dct *dct, const double *x, double *c, int64_t width);
// The inverse (DCT-III). Rows from `rows` on are taken as zero and not read: a decoded chunk has few frequencies.
void soma__dct_inverse(soma_dct *dct, const double *c, double *x, int64_t width, int64_t rows);

// codes[i] = max(round(values[i] scale) - min, 0), rounded half to even. *n_clipped counts those that were below 0; *all has the bits of
// all codes, so that a caller knows a bound. False where a value is beyond 2^24 or is not a number; the codes mean nothing then.
bool soma__quantise(const double *values, int64_t n, double scale, int32_t min, int32_t *codes, int64_t *n_clipped, int32_t *all);

// The loops of fast_dct_product.h for one instruction set each; soma__dct_forward and soma__quantise choose.
typedef void soma_dct_product_fn(double *out, const double *cosines, int64_t n_blocks, int64_t row_stride, const double *in, int64_t n_in,
                                 int64_t width);
typedef bool soma_quantise_fn(const double *values, int64_t n, double scale, int32_t min, int32_t *codes, int64_t *n_clipped, int32_t *all);
soma_dct_product_fn soma__dct_product_plain, soma__dct_product_avx2;
soma_quantise_fn soma__quantise_plain, soma__quantise_avx2;

#endif
