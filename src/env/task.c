// SPDX-License-Identifier: Apache-2.0
// Finding a task by its name, and its form at another rate. The registry itself is generated from the folders of env/.
#include "env/task.h"

#include <math.h>
#include <string.h>

const soma_task *soma__task_find(const char *name) {
    for (const soma_task *const *task = soma__task_registry; *task; task++) {
        if (!strcmp((*task)->name, name)) return *task;
    }
    return NULL;
}

soma_task soma__task_at(const soma_task *task, double rate) {
    soma_task at = *task;
    if (rate > 0) {
        at.rate = rate;
        at.max_steps = (int)lround(task->max_steps / task->rate * rate);
    }
    return at;
}
