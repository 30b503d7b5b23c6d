// SPDX-License-Identifier: Apache-2.0
// The product that the direct transform is made of. Included once per instruction set with PRODUCT defined as the function's name; vectors
// run over the columns, so every set of instructions adds the same numbers in the same order.
#include <string.h>

typedef double four __attribute__((vector_size(32)));

// out[4 block + r][a] = sum_j cosines[block][j][r] in[j][a]; in and out have `width` columns, a multiple of 4, 32-byte aligned.
void PRODUCT(double *out, const double *cosines, int64_t n_blocks, int64_t row_stride, const double *in, int64_t n_in, int64_t width) {
    for (int64_t b = 0; b < n_blocks; b++)
        for (int64_t a = 0; a < width; a += 4) {
            const double *c = cosines + b * row_stride * 4, *x = in + a;
            four s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};
            for (int64_t j = 0; j < n_in; j++, c += 4, x += width) {
                four v = *(const four *)x;
                s0 += v * c[0];
                s1 += v * c[1];
                s2 += v * c[2];
                s3 += v * c[3];
            }
            double *o = out + b * 4 * width + a;
            *(four *)o = s0;
            *(four *)(o + width) = s1;
            *(four *)(o + 2 * width) = s2;
            *(four *)(o + 3 * width) = s3;
        }
}
