// SPDX-License-Identifier: Apache-2.0
// How an options struct is declared: one list gives the struct, its defaults, its JSON form, its command-line flags and its --help.
//
//     #define SOMA_POLICY_OPTS(X)
//         X(TEXT, device, "cpu", "where the policy runs")
//         X(INT, threads, 0, "threads; 0: as many as processors")
//     SOMA_OPTS_DECLARE(soma_policy_opts, SOMA_POLICY_OPTS)
//
// Kinds: INT int64_t, REAL double, FLAG bool, TEXT char[SOMA_OPT_TEXT]. Zero is a value like any other. `cookie` catches a struct that was
// not made by its defaults function.
#ifndef SOMA_OPTS_H
#define SOMA_OPTS_H

#include <soma/base.h>

#define SOMA_OPT_TEXT 512
#define SOMA_OPTS_COOKIE 0x50f7a0b1u

#define SOMA_OPT_DECLARE_INT(name) int64_t name;
#define SOMA_OPT_DECLARE_REAL(name) double name;
#define SOMA_OPT_DECLARE_FLAG(name) bool name;
#define SOMA_OPT_DECLARE_TEXT(name) char name[SOMA_OPT_TEXT];
#define SOMA_OPT_DECLARE(kind, name, value, help) SOMA_OPT_DECLARE_##kind(name)

#define SOMA_OPTS_DECLARE(type, LIST) \
    typedef struct type {             \
        uint32_t cookie;              \
        LIST(SOMA_OPT_DECLARE)        \
    } type;

#endif
