// SPDX-License-Identifier: Apache-2.0
// Plain norms and their gradients. Statistics in double: this is what the fast kernels are held against.
#include "device/cpu/plain.h"

typedef struct {
    const void *x, *w;
    soma_dtype x_dtype, w_dtype;
    int64_t D, n_rows;
} norm;

static norm open_norm(const cpu_run *run, const soma_tensor *x, const soma_tensor *w) {
    int64_t D = x->shape[x->n_dims - 1];
    return (norm){cpu_at(run, x), w ? cpu_at(run, w) : NULL, x->dtype, w ? w->dtype : SOMA_F32, D, soma__numel(x) / D};
}

static double weight(const norm *n, int64_t d) { return n->w ? plain_load(n->w, n->w_dtype, d) : 0; }

static double at(const norm *n, const soma_tensor *x, int64_t row, int64_t d) {
    return plain_load(n->x, n->x_dtype, plain_row(x, row) + d * x->stride[x->n_dims - 1]);
}

static double inverse_rms(const norm *n, const soma_tensor *x, int64_t row, float eps) {
    double sum = 0;
    for (int64_t d = 0; d < n->D; d++) sum += at(n, x, row, d) * at(n, x, row, d);
    return 1 / sqrt(sum / (double)n->D + eps);
}

void plain_rms_norm(const cpu_run *run, const soma_step *step) {
    const soma_tensor *t = step->nodes[0], *x = t->src[0];
    norm n = open_norm(run, x, t->src[1]);
    void *out = cpu_at(run, t);
    for (int64_t r = 0; r < n.n_rows; r++) {
        double inverse = inverse_rms(&n, x, r, t->p.norm.eps);
        for (int64_t d = 0; d < n.D; d++) plain_save(out, t->dtype, r * n.D + d, (float)(at(&n, x, r, d) * inverse * (1 + weight(&n, d))));
    }
}

// y = x i (1 + w), i = (mean x^2 + eps)^-1/2; with u = dy (1 + w): dx = i (u - x i^2 mean(u x)), dw = sum over rows of dy x i
void plain_rms_norm_grad(const cpu_run *run, const soma_step *step) {
    const soma_tensor *t = step->nodes[0], *x = t->src[0], *dy = t->src[2];
    norm n = open_norm(run, x, t->src[1]), g = open_norm(run, dy, NULL);
    float *dx = cpu_at(run, t), *dw = dx + n.n_rows * n.D;
    if (n.w) memset(dw, 0, sizeof *dw * (size_t)n.D);
    for (int64_t r = 0; r < n.n_rows; r++) {
        double inverse = inverse_rms(&n, x, r, t->p.norm.eps), dot = 0;
        for (int64_t d = 0; d < n.D; d++) dot += at(&g, dy, r, d) * (1 + weight(&n, d)) * at(&n, x, r, d);
        for (int64_t d = 0; d < n.D; d++) {
            double u = at(&g, dy, r, d) * (1 + weight(&n, d)), xd = at(&n, x, r, d);
            dx[r * n.D + d] = (float)(inverse * (u - xd * inverse * inverse * dot / (double)n.D));
            if (n.w) dw[d] += (float)(at(&g, dy, r, d) * xd * inverse);
        }
    }
}

static double moments(const norm *n, const soma_tensor *x, int64_t row, float eps, double *mean) {
    double sum = 0, square = 0;
    for (int64_t d = 0; d < n->D; d++) sum += at(n, x, row, d);
    *mean = sum / (double)n->D;
    for (int64_t d = 0; d < n->D; d++) square += (at(n, x, row, d) - *mean) * (at(n, x, row, d) - *mean);
    return 1 / sqrt(square / (double)n->D + eps);
}

void plain_layer_norm(const cpu_run *run, const soma_step *step) {
    const soma_tensor *t = step->nodes[0], *x = t->src[0], *b = t->src[2];
    norm n = open_norm(run, x, t->src[1]);
    const void *shift = cpu_at(run, b);
    void *out = cpu_at(run, t);
    for (int64_t r = 0; r < n.n_rows; r++) {
        double mean, inverse = moments(&n, x, r, t->p.norm.eps, &mean);
        for (int64_t d = 0; d < n.D; d++)
            plain_save(out, t->dtype, r * n.D + d,
                       (float)((at(&n, x, r, d) - mean) * inverse * weight(&n, d) + plain_load(shift, b->dtype, d)));
    }
}

// h = (x - mean) i; with u = dy w: dx = i (u - mean(u) - h mean(u h)), dw = sum dy h, db = sum dy
void plain_layer_norm_grad(const cpu_run *run, const soma_step *step) {
    const soma_tensor *t = step->nodes[0], *x = t->src[0], *dy = t->src[2];
    norm n = open_norm(run, x, t->src[1]), g = open_norm(run, dy, NULL);
    float *dx = cpu_at(run, t), *dw = dx + n.n_rows * n.D, *db = dw + n.D;
    memset(dw, 0, sizeof *dw * (size_t)(2 * n.D));
    for (int64_t r = 0; r < n.n_rows; r++) {
        double mean, inverse = moments(&n, x, r, t->p.norm.eps, &mean), sum = 0, dot = 0;
        for (int64_t d = 0; d < n.D; d++) {
            double u = at(&g, dy, r, d) * weight(&n, d);
            sum += u;
            dot += u * (at(&n, x, r, d) - mean) * inverse;
        }
        for (int64_t d = 0; d < n.D; d++) {
            double h = (at(&n, x, r, d) - mean) * inverse, gd = at(&g, dy, r, d);
            dx[r * n.D + d] = (float)(inverse * (gd * weight(&n, d) - sum / (double)n.D - h * dot / (double)n.D));
            dw[d] += (float)(gd * h);
            db[d] += (float)gd;
        }
    }
}
