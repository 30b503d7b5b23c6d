// SPDX-License-Identifier: Apache-2.0
// What the tests of env/ share: cmocka, opening and resetting a task, or failing with its sentence.
#ifndef SOMA_TESTS_ENV_TEST_H
#define SOMA_TESTS_ENV_TEST_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "env/tabletop.h"

#include <math.h>

static inline void must(soma_status status, const soma_error *err) {
    if (status != SOMA_OK) fail_msg("%s", err->text);
}

static inline soma_env *must_open(const char *name, int size, bool jitter) {
    const soma_task *task = soma__task_find(name);
    assert_non_null(task);
    soma_error err = {0};
    soma_env *env = NULL;
    must(task->open(&env, &(soma_env_opts){.image_width = size, .image_height = size, .jitter = jitter}, &err), &err);
    return env;
}

static inline void must_reset(soma_env *env, uint64_t seed, bool wrong_prompt) {
    soma_error err = {0};
    must(env->task->reset(env, &(soma_env_reset){.seed = seed, .wrong_prompt = wrong_prompt}, &err), &err);
}

// One control period of the shared simulator, without a task's rules.
static inline void must_step(soma_env *env, const float *action) {
    soma_error err = {0};
    must(soma__tabletop_step(env, action, &err), &err);
}

#define assert_near(a, b, tolerance)                                                                                           \
    do {                                                                                                                       \
        double a_ = (a), b_ = (b);                                                                                             \
        if (!(fabs(a_ - b_) <= (tolerance))) fail_msg("%s is %.9g, %s is %.9g: apart by %.3g", #a, a_, #b, b_, fabs(a_ - b_)); \
    } while (0)

#endif
