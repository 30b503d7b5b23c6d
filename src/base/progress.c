// SPDX-License-Identifier: Apache-2.0
// Used by programs, never inside libsoma's own calls: the library does not print.
#include "base/progress.h"

#include <stdio.h>
#include <unistd.h>

soma_progress soma__progress_start(const char *label, int64_t total) {
    return (soma_progress){.label = label, .total = total, .started = soma__seconds(), .shown = -1e9, .terminal = isatty(2)};
}

static void print_line(soma_progress *p, int64_t done, const char *detail, double now) {
    double spent = now - p->started, share = p->total > 0 ? (double)done / (double)p->total : 0;
    int64_t fresh = done - p->first;
    int left = fresh > 0 && p->total > 0 ? (int)(spent / (double)fresh * (double)(p->total - done) + 0.5) : 0;
    char bar[21];
    for (int i = 0; i < 20; i++) bar[i] = share * 20 > i ? '#' : '.';
    bar[20] = 0;
    fprintf(stderr, "%s%s [%s] %lld/%lld  %d:%02d left  %s%s", p->terminal ? "\r" : "", p->label, bar, (long long)done, (long long)p->total,
            left / 60, left % 60, detail ? detail : "", p->terminal ? "\033[K" : "\n");
    fflush(stderr);
}

void soma__progress_show(soma_progress *p, int64_t done, const char *detail) {
    double now = soma__seconds();
    if (p->quiet || now - p->shown < (p->terminal ? 0.2 : 15.0)) return;
    p->shown = now;
    print_line(p, done, detail, now);
}

void soma__progress_end(soma_progress *p, int64_t done, const char *detail) {
    if (p->quiet) return;
    print_line(p, done, detail, soma__seconds());
    if (p->terminal) fputc('\n', stderr);
}
