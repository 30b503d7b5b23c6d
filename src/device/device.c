// SPDX-License-Identifier: Apache-2.0
#include "device/device.h"

#include <string.h>

static const soma_device_kind *const kinds[] = {&soma__device_cpu};

soma_status soma__device_open(soma_device **device, const char *name, const soma_device_opts *opts, soma_error *err) {
    for (size_t i = 0; i < SOMA_COUNT(kinds); i++)
        if (!strcmp(kinds[i]->name, name)) return kinds[i]->open(device, opts, err);
    *device = NULL;
    return soma__fail(err, SOMA_UNSUPPORTED, "\"%s\" is no device of this build; it has: cpu", name);
}

void soma__device_close(soma_device *device) {
    if (device) device->kind->close(device);
}
