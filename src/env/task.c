// SPDX-License-Identifier: Apache-2.0
// Finding a task by its name. The registry itself is generated from the folders of env/.
#include "env/task.h"

#include <string.h>

const soma_task *soma__task_find(const char *name) {
    for (const soma_task *const *task = soma__task_registry; *task; task++) {
        if (!strcmp((*task)->name, name)) return *task;
    }
    return NULL;
}
