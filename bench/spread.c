// SPDX-License-Identifier: Apache-2.0
// What all benches share: the machine's name, the spread of some timings.
#include "bench/bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int by_value(const void *a, const void *b) {
    return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b);
}

soma_spread soma__bench_spread(double *seconds, int64_t n) {
    qsort(seconds, (size_t)n, sizeof *seconds, by_value);
    return (soma_spread){seconds[n / 2], seconds[0], seconds[n - 1]};
}

json_t *soma__bench_machine(const char *isa, int threads) {
    char line[256], model[200] = "unknown";
    FILE *file = fopen("/proc/cpuinfo", "r");
    while (file && fgets(line, sizeof line, file)) {
        char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) || !colon) continue;
        snprintf(model, sizeof model, "%.190s", colon + 2);
        model[strcspn(model, "\n")] = 0;
        break;
    }
    if (file) fclose(file);
    return json_pack("{s:s, s:s, s:i}", "processor", model, "isa", isa, "threads", threads);
}
