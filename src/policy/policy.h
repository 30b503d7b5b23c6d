// SPDX-License-Identifier: Apache-2.0
// What the rest of soma may ask of an open policy beyond soma/soma.h.
#ifndef SOMA_POLICY_POLICY_H
#define SOMA_POLICY_POLICY_H

#include "base/opts.h"
#include "base/rng.h"
#include "policy/params.h"
#include "policy/robot.h"

extern const soma_opt_table soma_policy_opts_table, soma_pilot_opts_table;

const soma_robot *soma__policy_robot(const soma_policy *policy); // borrowed
const soma_model *soma__policy_model(const soma_policy *policy);
const char *soma__policy_device(const soma_policy *policy); // "cpu avx512bf16, 2 threads"
// What a policy of this --dtype computes in, before the family's own table; a word that is none is refused.
soma_status soma__policy_precision(soma_precision *precision, const char *dtype, soma_error *err);
// Packs a policy's weights anew and holds the kept ones (opts: dtype, isa, cache) against them, byte by byte; the sentence names what
// differs.
soma_status soma__policy_verify(size_t *n_weights, const char *path, const soma_policy_opts *opts, soma_error *err);

#endif
