// SPDX-License-Identifier: Apache-2.0
// Makes a program of a chain of element-wise nodes (simd_elementwise.h runs it): each outside tensor is fetched once, a scratch slot is
// used again as soon as its value has had its last reader.
//
// Declined: arithmetic on integers, integer results other than u8 kept as u8, chains of more than MAX_VALUES values.
#include "device/cpu/fast_elementwise.h"

static void operand_of(operand *o, const cpu_run *run, const soma_tensor *t, const soma_tensor *out) {
    *o = (operand){.tensor = t, .data = run ? cpu_at(run, t) : NULL, .dtype = t->dtype};
    for (int d = 0; d < out->n_dims; d++) {
        const int from = d - (out->n_dims - t->n_dims);
        const int64_t n = out->shape[d], stride = from < 0 || t->shape[from] == 1 ? 0 : t->stride[from];
        if (n == 1) continue;
        const int last = o->n_dims - 1;
        if (last >= 0 && o->stride[last] == n * stride)
            o->shape[last] *= n, o->stride[last] = stride;
        else
            o->shape[o->n_dims] = n, o->stride[o->n_dims++] = stride;
    }
    if (o->n_dims == 0) o->shape[0] = o->stride[0] = o->n_dims = 1;
    o->direct = o->dtype == SOMA_F32 && o->n_dims == 1 && o->stride[0] == 1;
}

// The value number of a source: an earlier node, an outside tensor already fetched, or a new fetch; -1 when there is no room.
static int value_of(program *p, const cpu_run *run, const soma_tensor *t, const soma_tensor *out) {
    for (int i = 0; i < p->n_instructions; i++) {
        const instruction *in = &p->instructions[i];
        if (in->node == t || (in->outside && in->outside->tensor == t)) return in->value;
    }
    if (p->n_operands == MAX_OPERANDS || p->n_instructions + 1 >= MAX_VALUES) return -1;
    operand *o = &p->operands[p->n_operands++];
    operand_of(o, run, t, out);
    const int value = p->n_instructions++;
    p->instructions[value] = (instruction){.outside = o, .value = value};
    return value;
}

static void give_slots(program *p) {
    int last_use[MAX_VALUES], free_slots[MAX_VALUES], n_free = 0;
    for (int i = 0; i < p->n_instructions; i++) {
        const instruction *in = &p->instructions[i];
        last_use[i] = i;
        if (in->node) last_use[in->a] = last_use[in->b] = i;
    }
    for (int i = 0; i < p->n_instructions; i++) {
        instruction *in = &p->instructions[i];
        in->slot = n_free ? free_slots[--n_free] : p->n_slots++;
        if (!in->node) continue;
        if (in->a != i && last_use[in->a] == i) free_slots[n_free++] = p->instructions[in->a].slot;
        if (in->b != i && in->b != in->a && last_use[in->b] == i) free_slots[n_free++] = p->instructions[in->b].slot;
    }
}

static bool takes_dtypes(const soma_tensor *t, const soma_step *step, const soma_tensor *out) {
    if (t != out && t->dtype != SOMA_F32) return false; // a rounding between two nodes is not done here
    for (int s = 0; s < 2; s++) {
        const soma_tensor *x = t->src[s];
        if (!x || t->op == SOMA_OP_CONSTANT) continue;
        const bool integer = x->dtype == SOMA_I32 || x->dtype == SOMA_U8;
        if (integer && t->op != SOMA_OP_COPY) return false;
        for (int i = 0; i < step->n_nodes; i++)
            if (x->op == SOMA_OP_VIEW && x->base == step->nodes[i]) return false; // a view into the chain
    }
    return true;
}

bool cpu_program_new(program *p, const cpu_run *run, const soma_step *step) {
    const soma_tensor *out = step->nodes[step->n_nodes - 1];
    p->run = run;
    p->head = NULL;
    p->n_instructions = p->n_operands = p->n_slots = 0;
    p->numel = soma__numel(out);
    p->out = run ? cpu_at(run, out) : NULL;
    p->out_dtype = out->dtype;
    if (!soma__is_contiguous(out)) return false;
    const bool moves = step->n_nodes == 1 && out->op == SOMA_OP_COPY && out->src[0]->dtype == out->dtype;
    if (out->dtype == SOMA_I32 && moves)
        p->out_dtype = SOMA_F32; // the same 32 bits
    else if (out->dtype == SOMA_I32 || (out->dtype == SOMA_U8 && !moves) || out->dtype > SOMA_U8)
        return false;
    for (int i = 0; i < step->n_nodes; i++) {
        const soma_tensor *t = step->nodes[i];
        if (!takes_dtypes(t, step, out)) return false;
        int a = 0, b = 0;
        if (t->op != SOMA_OP_CONSTANT) {
            a = b = value_of(p, run, t->src[0], out);
            if (a >= 0 && t->src[1]) b = value_of(p, run, t->src[1], out);
        }
        if (a < 0 || b < 0 || p->n_instructions == MAX_VALUES) return false;
        const int value = p->n_instructions++;
        if (t->op == SOMA_OP_CONSTANT) a = b = value;
        p->instructions[value] = (instruction){.node = t, .value = value, .a = a, .b = b};
    }
    if (moves && p->n_instructions == 2) { // a copy is its fetch, into the output
        if (out->dtype == SOMA_I32) p->operands[0].dtype = SOMA_F32;
        p->operands[0].direct = false;
    }
    const instruction *last = &p->instructions[p->n_instructions - 1];
    if (last->node->op == SOMA_OP_COPY && p->instructions[last->a].outside && p->n_instructions == 2) p->n_instructions = 1;
    p->streams = p->out_dtype == SOMA_F32 && p->numel >= ELEMENTWISE_STREAM && (uintptr_t)p->out % 64 == 0;
    for (int i = 0; i < p->n_operands; i++) p->streams &= p->operands[i].data != p->out; // in place: it is in the cache already
    give_slots(p);
    return true;
}

cpu_choice cpu_fast_elementwise(const soma_step *step, soma_isa isa) {
    program p;
    cpu_kernel *kernel = CPU_KERNEL_PICK(isa, cpu_elementwise);
    if (!kernel || !cpu_program_new(&p, NULL, step)) return (cpu_choice){0};
    return (cpu_choice){.run = kernel, .thread_size = (size_t)p.n_slots * ELEMENTWISE_BLOCK * 4};
}

bool cpu_tail_new(cpu_tail *tail, const cpu_run *run, const soma_step *step, soma_isa isa) {
    tail->run = NULL;
    tail->room = 0;
    tail->other_rows = false;
    if (step->n_nodes == 1) return true;
    const soma_tensor *product = step->nodes[0];
    tail->run = CPU_KERNEL_PICK(isa, cpu_tail_run);
    if (!tail->run || !cpu_program_new(&tail->program, run, &(soma_step){step->nodes + 1, step->n_nodes - 1})) return false;
    tail->program.head = product;
    tail->room = (size_t)tail->program.n_slots * ELEMENTWISE_BLOCK * 4;
    tail->N = product->shape[product->n_dims - 1];
    for (int i = 0; i < tail->program.n_operands; i++) {
        const soma_tensor *t = tail->program.operands[i].tensor;
        tail->other_rows |= t != product && soma__numel(t) > tail->N;
    }
    return tail->program.n_instructions > 1;
}
