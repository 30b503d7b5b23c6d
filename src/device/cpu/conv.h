// SPDX-License-Identifier: Apache-2.0
// A convolution as a matrix product that is never written down: a row is an output pixel, its k are the places of the window, channels
// innermost, so that a place's channels, and the places of a kernel's row, lie side by side in the picture.
//
// A transposed convolution of stride s is s x s such products (phases): output pixels (s i + p, s j + q) meet the same places of the
// window.
#ifndef SOMA_DEVICE_CPU_CONV_H
#define SOMA_DEVICE_CPU_CONV_H

#include "device/cpu/fast_matmul.h"
#include "device/cpu/packed.h"

enum { CPU_CONV_RUNS = 64 }; // places of a kernel, at most

// Neighbouring places of the window that meet neighbouring pixels: those from (row, column) of the picture on, if the pixel's own is (0,
// 0).
typedef struct cpu_conv_run {
    int64_t row, column, n, place; // place: in the kernel, row-major
} cpu_conv_run;

typedef struct cpu_conv_phase {
    int64_t first[2], length[2]; // of its output pixels: first + step i, i < length
    int64_t K;                   // of its places
    int n_runs;
    cpu_conv_run runs[CPU_CONV_RUNS];
} cpu_conv_phase;

typedef struct cpu_conv {
    bool transposed;
    soma_window window;
    int64_t H, W, C;   // of the picture that is read
    int64_t out[2], O; // of the one that is made
    int64_t move[2];   // pixels of the picture from one output pixel of a phase to the next
    int64_t step[2];   // output pixels from one to the next of a phase
    int64_t K;         // of all places
} cpu_conv;

// False: more places than CPU_CONV_RUNS. out: a node of CONV or CONV_TRANSPOSED; of CONV_GRAD it is x and dy that say the sizes.
bool cpu_conv_of(cpu_conv *c, const soma_tensor *x, const soma_tensor *out, bool transposed);
static inline int64_t cpu_conv_phases(const cpu_conv *c) { return c->step[0] * c->step[1]; }
void cpu_conv_phase_of(cpu_conv_phase *p, const cpu_conv *c, int64_t phase);
// k of the pixel at (i, j) of the phase into out [phase->K]; x: its picture. `size`: bytes of a value.
void cpu_conv_gather(void *out, const cpu_conv *c, const cpu_conv_phase *p, const void *x, size_t size, int64_t i, int64_t j);

// A kernel [O, C, h, w] as panels of the product's second factor, by output channels (transposed: by C) and in the order of k above.
typedef struct cpu_kernel_panels {
    const void *data;
    bool bf16, transposed, pairs; // pairs: words of two neighbouring k in bf16; else f32, rounded to bf16 where `round`
    bool round;
    int64_t N, C, places; // columns; channels of a place
    int nr;
    int64_t panel; // words of a panel
} cpu_kernel_panels;
void cpu_kernel_pack(const cpu_kernel_panels *p, uint32_t *out, int64_t panel); // `out`: where that panel goes

#endif
