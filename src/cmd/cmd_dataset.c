// SPDX-License-Identifier: Apache-2.0
// What `soma inspect` and `soma data info` say of a dataset.
#include "cmd/cmd_dataset.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const char *const kinds[] = {[SOMA_FEATURE_VECTOR] = "vector", [SOMA_FEATURE_IMAGE] = "pictures", [SOMA_FEATURE_OTHER] = "other"};

static void print_feature(const soma_feature *f) {
    char shape[160] = "";
    size_t at = 0;
    for (int i = 0; i < f->n_dims && at < sizeof shape - 24; i++)
        at += (size_t)snprintf(shape + at, sizeof shape - at, "%s%" PRId64, i ? ", " : "", f->shape[i]);
    printf("  %-44s %-9s %-8s [%s]\n", f->name, kinds[f->kind], f->dtype, shape);
}

static void print_part(const soma_dataset *d, const soma_feature *f) {
    printf("  %-44s %s", f->name, d->features[f->whole].name);
    if (f->kind == SOMA_FEATURE_VECTOR) printf(" [%" PRId64 ":%" PRId64 "]", f->start, f->start + f->size);
    printf("%s%s%s\n", f->rotation ? ", " : "", f->rotation ? f->rotation : "", f->relative ? ", relative" : "");
}

// The different instructions, in the order in which they come; at most `most` are printed.
static void print_tasks(const soma_dataset *d, int most) {
    int n = 0;
    for (int64_t i = 0; i < d->n_episodes; i++) {
        bool seen = !d->episodes[i].task[0];
        for (int64_t k = 0; k < i && !seen; k++) seen = !strcmp(d->episodes[k].task, d->episodes[i].task);
        if (seen) continue;
        if (n++ < most) printf("%-10s %s\n", n == 1 ? "tasks" : "", d->episodes[i].task);
    }
    if (n > most) printf("%-10s ... and %d more\n", "", n - most);
}

static void print_dataset(const soma_dataset *d, int64_t rows) {
    int64_t videos = 0;
    for (int64_t i = 0; i < d->n_episodes; i++) videos += d->episodes[i].video_present;
    printf("%s\n%-10s %s %s\n%-10s %s\n%-10s %g frames/s\n", d->path, "format", d->format->name, d->version, "robot",
           d->robot_type[0] ? d->robot_type : "not told", "rate", d->fps);
    printf("%-10s %" PRId64 ", of which %" PRId64 " are there, %" PRId64 " with all their pictures\n%-10s %" PRId64 ", of which %" PRId64
           " are there\n",
           "episodes", d->n_episodes, d->episodes_present, videos, "frames", d->n_frames, d->frames_present);
    print_tasks(d, 8);
    printf("features\n");
    for (int i = 0; i < d->n_features; i++) print_feature(&d->features[i]);
    if (d->n_parts) printf("parts (meta/modality.json)\n");
    for (int i = 0; i < d->n_parts; i++) print_part(d, &d->features[d->n_features + i]);
    if (d->n_faults) printf("damaged\n");
    for (int i = 0; i < d->n_faults; i++) printf("  %s\n", d->faults[i]);
    if (d->hint[0]) printf("%s\n", d->hint);
    if (!d->n_absent) return;
    printf("absent: %d files that the metadata names\n", d->n_absent);
    if (rows < 0) rows = 40;
    for (int i = 0; i < d->n_absent && (!rows || i < rows); i++) printf("  %s\n", d->absent[i]);
    if (rows && d->n_absent > rows) printf("  ... and %d more (--rows 0 lists all)\n", d->n_absent - (int)rows);
}

int soma__cmd_dataset_info(const soma_cmd *cmd, const char *path, int64_t rows) {
    soma_dataset *d;
    soma_error err = {0};
    if (soma__dataset_open(&d, path, &err)) return soma__cmd_fail(cmd, &err);
    int code = SOMA_EXIT_OK;
    if (cmd->json)
        code = soma__cmd_print_json(cmd, soma__dataset_info(d));
    else
        print_dataset(d, rows);
    soma__dataset_close(d);
    return code;
}
