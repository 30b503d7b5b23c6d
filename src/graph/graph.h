// SPDX-License-Identifier: Apache-2.0
// The graph: what a model's author writes. Builders return tensors; shapes are checked as they are built; the first mistake sticks to the
// graph with its op, scope and shapes, later calls are harmless, and planning returns it. Nothing here knows a device or a buffer.
//
// Shapes are outermost first. Strides are in elements. A view shares its base's memory. Every op has one output; ops that make several
// results (gradients of a norm, of attention) pack them into one flat tensor and the builder returns views of it.
#ifndef SOMA_GRAPH_GRAPH_H
#define SOMA_GRAPH_GRAPH_H

#include "base/arena.h"
#include "base/base.h"

typedef struct soma_graph soma_graph;
typedef struct soma_tensor soma_tensor;

enum { SOMA_MAX_SRC = 8 };

// The op table: name, printed name. Builders, shape rules and gradients are in graph/ops_*.c; plain kernels in device/cpu/plain_*.c.
#define SOMA_OP_LIST(X)                                                                                                                   \
    X(LEAF, "leaf")         /* weight, state, input: memory that somebody else fills */                                                   \
    X(VIEW, "view")         /* another shape or stride on src[0]'s memory; costs nothing */                                               \
    X(CONSTANT, "constant") /* p.constant.value everywhere */                                                                             \
    X(ADD, "add")           /* element-wise with broadcasting of dimensions of length 1 */                                                \
    X(SUB, "sub")                                                                                                                         \
    X(MUL, "mul")                                                                                                                         \
    X(DIV, "div")                                                                                                                         \
    X(AFFINE, "affine")                   /* p.affine.scale * x + p.affine.shift */                                                       \
    X(UNARY, "unary")                     /* p.unary.f (x) */                                                                             \
    X(UNARY_GRAD, "unary_grad")           /* dy * f'(x); src: x, dy */                                                                    \
    X(COPY, "copy")                       /* contiguous copy, converting the dtype */                                                     \
    X(CONCAT, "concat")                   /* along p.axis.dim */                                                                          \
    X(PAD, "pad")                         /* zeros before and after along p.axis.dim */                                                   \
    X(SUM, "sum")                         /* over the dimensions in p.sum.dims (bit mask), which keep length 1 */                         \
    X(MATMUL, "matmul")                   /* [.., M, K] x [.., N, K] -> [.., M, N]; src[2]: bias [N] or NULL */                           \
    X(QUANT_MATMUL, "quant_matmul")       /* the same with b a weight [N, K], and whole numbers in place of both factors: p.quant.form */ \
    X(EMBED, "embed")                     /* rows of a table [V, D] by ids [..] -> [.., D] */                                             \
    X(EMBED_GRAD, "embed_grad")           /* ids, dy -> [V, D] */                                                                         \
    X(RMS_NORM, "rms_norm")               /* over the last dimension; src: x, w [D] or NULL: y = x/rms * (1 + w) */                       \
    X(RMS_NORM_GRAD, "rms_norm_grad")     /* x, w, dy -> flat [dx | dw] */                                                                \
    X(LAYER_NORM, "layer_norm")           /* x, w [D], b [D] */                                                                           \
    X(LAYER_NORM_GRAD, "layer_norm_grad") /* x, w, dy -> flat [dx | dw | db] */                                                           \
    X(ROPE, "rope")                       /* x [B, T, H, K], pos i32 [B, T]; half-split rotation; p.rope.sign -1 undoes it */             \
    X(ATTENTION, "attention")             /* q [B,T,H,K], k v [B,S,KV,K], q_block i32 [B,T], k_block i32 [B,S] -> [B,T,H,K] */            \
    X(ATTENTION_GRAD, "attention_grad")   /* q, k, v, q_block, k_block, dout -> flat [dq | dk | dv] */                                    \
    X(TIME_EMBED, "time_embed")           /* t [B] -> [B, D]: sines, then cosines of log-spaced periods, in double */                     \
    X(CROSS_ENTROPY, "cross_entropy")     /* logits [.., V], targets i32 [..] -> [..]: -log softmax(logits)[target] */                    \
    X(CROSS_ENTROPY_GRAD, "cross_entropy_grad") /* logits, targets, dy -> [.., V] */                                                      \
    X(CONV, "conv")                             /* x [N,H,W,C], w [O,C,h,w], bias [O] or NULL -> [N,H',W',O]; p.conv */                   \
    X(CONV_TRANSPOSED, "conv_transposed")       /* x [N,H,W,O], w [O,C,h,w], bias [C] or NULL -> [N,H',W',C] */                           \
    X(CONV_GRAD, "conv_grad")                   /* x [N,H,W,C], dy [N,H',W',O] -> [O,C,h,w] */                                            \
    X(MAX_POOL, "max_pool")                     /* x [N,H,W,C] -> [N,H',W',C] over windows; p.conv */                                     \
    X(MAX_POOL_GRAD, "max_pool_grad")           /* x, dy -> as x: to the first of the largest */                                          \
    X(SOFTMAX, "softmax")                       /* over the last dimension */                                                             \
    X(DROPOUT, "dropout")                       /* x, key i32 [2] -> as x: 0 with probability p.drop.rate, else x / (1 - rate) */         \
    X(STORE, "store")                           /* copies src[0] into the state src[1], from row src[2] on; gives a view of it */         \
    X(ADAMW, "adamw")                           /* updates w, m, v (and ema) in place; see soma_adamw */

#define SOMA_OP_ENUM(name, word) SOMA_OP_##name,
typedef enum soma_op { SOMA_OP_LIST(SOMA_OP_ENUM) SOMA_OP_COUNT } soma_op;
#undef SOMA_OP_ENUM

#define SOMA_UNARY_LIST(X)                                                                        \
    X(EXP, "exp")                                                                                 \
    X(LOG, "log")                                                                                 \
    X(SQRT, "sqrt")                                                                               \
    X(SQUARE, "square")                                                                           \
    X(TANH, "tanh")                                                                               \
    X(SIGMOID, "sigmoid")                                                                         \
    X(SILU, "silu")                                                                               \
    X(GELU, "gelu") /* the tanh approximation: 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) */ \
    X(RELU, "relu")                                                                               \
    X(MISH, "mish") /* x tanh(log(1 + exp(x))) */
#define SOMA_UNARY_ENUM(name, word) SOMA_UNARY_##name,
typedef enum soma_unary { SOMA_UNARY_LIST(SOMA_UNARY_ENUM) SOMA_UNARY_COUNT } soma_unary;
#undef SOMA_UNARY_ENUM

// How a quantised product takes its factors (device/cpu/quant.h): int8 activations and weights; activations of two bytes with int8 weights;
// the same with 4-bit weights.
typedef enum soma_quant { SOMA_QUANT_NONE, SOMA_QUANT_I8, SOMA_QUANT_I8W, SOMA_QUANT_I4W } soma_quant;

// Which buffer a tensor's memory lies in. Weights, gradients and states outlive a run; the planner lays out scratch and input/output.
typedef enum soma_role {
    SOMA_ROLE_SCRATCH, // intermediate results
    SOMA_ROLE_WEIGHT,  // by name in a soma_params, shared by plans
    SOMA_ROLE_FROZEN,  // weights that have no gradient beside others that have one: by name, in a layout and a buffer of their own
    SOMA_ROLE_GRAD,    // f32, laid out as the weights are
    SOMA_ROLE_STATE,   // by name, owned by a pilot or a trainer, shared by plans of the same soma_states
    SOMA_ROLE_IO,      // inputs and outputs
    SOMA_ROLE_COUNT
} soma_role;

typedef enum soma_init_kind { SOMA_INIT_ZERO, SOMA_INIT_ONE, SOMA_INIT_NORMAL } soma_init_kind;
typedef struct soma_init {
    soma_init_kind kind;
    float std; // of SOMA_INIT_NORMAL
} soma_init;

typedef enum soma_view_kind { SOMA_VIEW_RESHAPE, SOMA_VIEW_PERMUTE, SOMA_VIEW_SLICE, SOMA_VIEW_EXPAND, SOMA_VIEW_PART } soma_view_kind;

// A window that moves over rows and columns of channels-last pictures [N, H, W, C], with zeros around them (max_pool: nothing). What has
// one dimension [N, T, C] is a picture of one row.
typedef struct soma_window {
    int32_t size[2], stride[2], pad[2]; // rows, columns
} soma_window;

// Of a dropout: how probable, and which of the graph's it is.
typedef struct soma_drop_place {
    float rate;
    int place;
} soma_drop_place;

typedef union soma_op_params {
    struct {
        soma_view_kind kind;
        int dim;
        int order[SOMA_MAX_DIMS];
        int64_t start;
    } view;
    struct {
        float value;
    } constant;
    struct {
        float scale, shift;
    } affine;
    struct {
        soma_unary f;
    } unary;
    struct {
        int dim;
        int64_t before, after;
    } axis;
    struct {
        uint32_t dims;
    } sum;
    struct {
        soma_dtype product;
    } matmul; // F32, or BF16: both factors are rounded to bf16, sums are f32
    struct {
        soma_quant form;
    } quant;
    struct {
        float eps;
    } norm;
    struct {
        float theta;
        int sign;
    } rope;
    struct {
        float scale;
        soma_dtype product;
        soma_drop_place drop; // of the probabilities; src[7]: its key, or NULL
    } attention;
    soma_drop_place drop;
    struct {
        soma_window window;
        soma_dtype product; // as of matmul
    } conv;                 // and of pooling
    struct {
        double min_period, max_period;
    } time;
} soma_op_params;

struct soma_tensor {
    soma_op op;
    soma_dtype dtype;
    int n_dims;
    int64_t shape[SOMA_MAX_DIMS];
    int64_t stride[SOMA_MAX_DIMS]; // elements; 0: broadcast
    soma_tensor *src[SOMA_MAX_SRC];
    soma_op_params p;
    soma_tensor *base; // views: the tensor that owns the memory (never itself a view); else NULL
    int64_t offset;    // views: first element within base
    soma_role role;
    bool is_input, is_output;
    soma_init init;             // weights
    const char *name;           // full name of a weight, state, input, output or tap; NULL for the rest
    const char *near;           // the weight last asked for when it was built, for messages
    const soma_tensor *grad_of; // role GRAD: the weight
    bool still;                 // of role WEIGHT: no gradient changes it (a running statistic, which files keep beside what is learned)
    soma_graph *graph;
    int id;        // position in the graph
    int segment;   // which recomputed part it was built in; 0: none
    int64_t place; // set by the planner on tensors that own memory: byte offset in the role's buffer; -1 before
    int form;      // set by the planner on weights: how the device keeps them (soma_slot); 0: as published
};

struct soma_graph {
    soma_arena arena;
    soma_tensor **tensors; // in order of creation, which is an order of execution
    size_t n_tensors, capacity;
    soma_error error;        // the first mistake; code SOMA_OK while there is none
    const char *near;        // the weight last asked for: tells in a message where a mistake was made
    bool keep_taps;          // named intermediates are kept as outputs (trace, golden tests)
    int segment, n_segments; // the recomputed part that is being built, 0: none; how many there are
    soma_tensor nothing;     // what builders return after a mistake
};

soma_status soma_graph_new(soma_graph **graph, soma_error *err);
void soma_graph_free(soma_graph *graph); // NULL allowed; plans made of it must be gone
void soma_graph_dump(const soma_graph *graph, void (*line)(void *user, const char *text), void *user);
const char *soma__op_name(soma_op op);

// Keeps the first mistake. Always returns the graph's empty tensor, so that a builder writes `return soma__mistake(...)`.
soma_tensor *soma__mistake(soma_graph *g, const char *format, ...) SOMA_PRINTF(2, 3);
// A new node with a contiguous output; NULL-free: returns the empty tensor when memory is out. Used by builders only.
soma_tensor *soma__node(soma_graph *g, soma_op op, soma_dtype dtype, int n_dims, const int64_t *shape);
char *soma__shape_text(char out[96], const soma_tensor *t); // "[2, 816, 2048]"

// ---- leaves. Names are copied.
soma_tensor *soma_input(soma_graph *g, const char *name, soma_dtype dtype, int n_dims, const int64_t *shape);
soma_tensor *soma_state(soma_graph *g, const char *name, soma_dtype dtype, int n_dims, const int64_t *shape);
// The same name twice gives the same tensor (shapes must agree).
soma_tensor *soma_weight(soma_graph *g, const char *name, soma_dtype dtype, soma_init init, int n_dims, const int64_t *shape);
// A weight without a gradient, whatever lies in front of it.
soma_tensor *soma_frozen(soma_graph *g, const char *name, soma_dtype dtype, soma_init init, int n_dims, const int64_t *shape);
soma_tensor *soma_constant(soma_graph *g, float value, int n_dims, const int64_t *shape);
void soma_output(soma_tensor *t, const char *name); // keeps t (made contiguous) readable after a run under this name
soma_tensor *soma_tap(soma_tensor *t, const char *format, ...) SOMA_PRINTF(2, 3); // names an intermediate for trace; returns t

// ---- views
soma_tensor *soma_reshape(soma_tensor *x, int n_dims, const int64_t *shape); // copies first when x is not contiguous
soma_tensor *soma_permute(soma_tensor *x, const int *order);                 // order[i]: which dimension of x becomes dimension i
soma_tensor *soma_slice(soma_tensor *x, int dim, int64_t start, int64_t length);
soma_tensor *soma_expand(soma_tensor *x, int n_dims, const int64_t *shape); // broadcasts dimensions of length 1 (aligned at the right)
soma_tensor *soma_transpose(soma_tensor *x);                                // the last two dimensions

// ---- element-wise; shapes are aligned at the right and dimensions of length 1 (or missing) are broadcast
soma_tensor *soma_add(soma_tensor *a, soma_tensor *b);
soma_tensor *soma_sub(soma_tensor *a, soma_tensor *b);
soma_tensor *soma_mul(soma_tensor *a, soma_tensor *b);
soma_tensor *soma_div(soma_tensor *a, soma_tensor *b);
soma_tensor *soma_affine(soma_tensor *x, float scale, float shift);
soma_tensor *soma_apply(soma_tensor *x, soma_unary f);
soma_tensor *soma_cast(soma_tensor *x, soma_dtype dtype); // x itself when it has that dtype
soma_tensor *soma_contiguous(soma_tensor *x);             // x itself when it is contiguous

// ---- shape and sums
soma_tensor *soma_concat(soma_tensor *const *parts, int n_parts, int dim);
soma_tensor *soma_pad(soma_tensor *x, int dim, int64_t before, int64_t after);
soma_tensor *soma_sum(soma_tensor *x, uint32_t dims); // bit i: dimension i is summed and keeps length 1; f32 out, fixed order
soma_tensor *soma_mean_all(soma_tensor *x);           // [1]

// ---- what models are made of
// a [.., M, K], b [N, K] or [.., N, K], bias [N] or NULL -> [.., M, N] of a's dtype. Any strides. `product`: F32 or BF16.
soma_tensor *soma_matmul(soma_tensor *a, soma_tensor *b, soma_tensor *bias, soma_dtype product);
// The same of a quantised weight b [N, K], K at most 65536: not exact, as its form says, and without a gradient.
soma_tensor *soma_quant_matmul(soma_tensor *a, soma_tensor *b, soma_tensor *bias, soma_quant form);
soma_tensor *soma_embed(soma_tensor *table, soma_tensor *ids);              // an id outside the table reads as a row of zeros
soma_tensor *soma_rms_normalise(soma_tensor *x, soma_tensor *w, float eps); // w NULL: no weight
soma_tensor *soma_layer_normalise(soma_tensor *x, soma_tensor *w, soma_tensor *b, float eps);
soma_tensor *soma_softmax(soma_tensor *x);                               // over the last dimension, in f32
soma_tensor *soma_rotate(soma_tensor *x, soma_tensor *pos, float theta); // x [B, T, H, K], pos i32 [B, T]
// Who sees whom: query i sees key j iff k_block[j] <= q_block[i]. Causal: both are positions; a padded key has SOMA_BLOCK_NEVER; a query
// that sees nothing gives zeros. H is a multiple of KV; scale is usually K^-0.5.
#define SOMA_BLOCK_NEVER INT32_MAX
soma_tensor *soma_attend(soma_tensor *q, soma_tensor *k, soma_tensor *v, soma_tensor *q_block, soma_tensor *k_block, float scale,
                         soma_dtype product);
// Dropout of training: a value becomes 0 with probability `rate` (below 1), else it is divided by 1 - rate. Which ones follows from the key
// i32 [2], an input that every run is given anew, and from the place in the graph and in the tensor alone, so that the backward pass and
// any number of threads drop the same, and no mask is kept. key NULL or rate 0: x itself.
typedef struct soma_drop {
    soma_tensor *key;
    float rate;
} soma_drop;
soma_tensor *soma_dropout(soma_tensor *x, soma_drop drop);
// soma_attend whose probabilities are dropped, as the published models train.
soma_tensor *soma_attend_dropped(soma_tensor *q, soma_tensor *k, soma_tensor *v, soma_tensor *q_block, soma_tensor *k_block, float scale,
                                 soma_dtype product, soma_drop drop);
// t [B] -> [B, D] f32: D/2 sines, then D/2 cosines of 2 pi t / period_i, period_i = min (max/min)^(i / (D/2 - 1)). Not differentiable.
soma_tensor *soma_time_embed(soma_tensor *t, int64_t D, double min_period, double max_period);
// x [N, H, W, C], kernel w [O, C, h, w] as published, bias [O] or NULL -> [N, H', W', O] of x's dtype, H' = (H + 2 pad - h) / stride + 1.
// The window's size is the kernel's and need not be set.
soma_tensor *soma_conv(soma_tensor *x, soma_tensor *w, soma_tensor *bias, soma_window window, soma_dtype product);
// Its transpose: x [N, H, W, O] and the same kernel -> [N, H', W', C] with H' and W' in `out`, of those sizes from which a convolution
// would make H and W (PyTorch's ConvTranspose without output padding: H' = (H - 1) stride - 2 pad + h). bias [C] or NULL.
soma_tensor *soma_conv_transposed(soma_tensor *x, soma_tensor *w, soma_tensor *bias, soma_window window, const int64_t out[2],
                                  soma_dtype product);
// The largest of each window's places that lie in the picture: x [N, H, W, C] -> [N, H', W', C]. pad is below size.
soma_tensor *soma_max_pool(soma_tensor *x, soma_window window);
// logits [.., V], targets i32 [..] -> [..] f32, in nats; a target outside 0..V-1 gives 0.
soma_tensor *soma_cross_entropy(soma_tensor *logits, soma_tensor *targets);
// Copies x into the state tensor `into` (same shape) and returns a view of the state.
soma_tensor *soma_store(soma_tensor *x, soma_tensor *into);
// x [B, T, ..] into rows row[b] to row[b] + T - 1 of the state `into` [B, S, ..]; row i32 [B] is known at run time only, and rows that are
// not there are left out. Returns a view of the whole state: a cache that grows.
soma_tensor *soma_store_rows(soma_tensor *x, soma_tensor *into, soma_tensor *row);
// One AdamW step (decoupled weight decay) over flat f32 tensors of one length: w, g, m, v in place; ema NULL or updated in place.
// scalars f32 [8]: lr, beta1, beta2, eps, weight_decay, 1/(1-beta1^t), 1/(1-beta2^t), ema_decay. gscale f32 [1] multiplies g first.
soma_tensor *soma_adamw(soma_tensor *w, soma_tensor *g, soma_tensor *m, soma_tensor *v, soma_tensor *ema, soma_tensor *scalars,
                        soma_tensor *gscale);

// ---- gradients
// Builds the gradient of `loss` ([1]) with respect to every weight (of role WEIGHT) reached from it, and of the tensors in `wrt` (their
// gradients in grads, NULL where none reaches). A weight's gradient is bound to its place in the GRAD buffer.
void soma_backward(soma_tensor *loss, soma_tensor *const *wrt, int n_wrt, soma_tensor **grads);
// The gradients of `y` ([1]) with respect to `wrt` alone: weights get none.
void soma_gradient(soma_tensor *y, soma_tensor *const *wrt, int n_wrt, soma_tensor **grads);
// What is built between two marks is a segment: its intermediates are not kept for the backward pass, which computes them once more from
// the segment's inputs, to the same bits. One transformer layer is a good segment. true: begins one (and ends the one before); false: ends.
void soma_checkpoint(soma_graph *g, bool begin);

// ---- small questions
int64_t soma__numel(const soma_tensor *t);
bool soma__is_contiguous(const soma_tensor *t);
static inline const soma_tensor *soma__owner(const soma_tensor *t) { return t->base ? t->base : t; }

#endif
