// SPDX-License-Identifier: Apache-2.0
// What is wrong with a dataset: files that are absent or damaged, counts and times that do not fit, values that are not finite, jumps,
// actions that never move, cameras that show nothing or always the same, declared statistics that the data contradict.
//
// An error means that something cannot be used as it is declared; a warning, that a person should look.
#ifndef SOMA_DATA_CHECK_H
#define SOMA_DATA_CHECK_H

#include "base/arena.h"
#include "data/dataset.h"

typedef struct soma_finding {
    int64_t episode;  // position in the dataset's episodes; -1: the dataset as a whole
    bool error;       // else a warning
    const char *kind; // "absent", "damaged", "values", "pictures", "count", "time", "jump", "still", "blank", "frozen", "statistics"
    const char *text; // a sentence
    size_t order;     // in which it was found
} soma_finding;

typedef enum soma_verdict {
    SOMA_VERDICT_OK,
    SOMA_VERDICT_DOUBTFUL,
    SOMA_VERDICT_BAD,
    SOMA_VERDICT_ABSENT,
    SOMA_VERDICT_COUNT
} soma_verdict;
extern const char *const soma__verdict_names[SOMA_VERDICT_COUNT];

typedef struct soma_check {
    soma_finding *findings; // in the order of the episodes
    size_t n_findings, room;
    soma_verdict *verdicts; // [n_episodes]
    int64_t n_errors, n_warnings;
    int64_t n_pictures; // decoded
    soma_arena arena;   // the sentences
} soma_check;

typedef struct soma_check_opts {
    int pictures; // of each camera and episode, evenly spread, first and last among them; 0: none
    void (*progress)(void *user, int64_t done, int64_t total); // in episodes; NULL: nobody wants to know
    void *user;
} soma_check_opts;

// What is wrong with the data is a finding; the status tells of this check alone (memory). Release with soma__check_free.
soma_status soma__dataset_check(soma_check *check, const soma_dataset *dataset, const soma_check_opts *opts, soma_error *err);
void soma__check_free(soma_check *check);
// {errors, warnings, verdicts: {ok, doubtful, bad, absent}, findings: [{episode, error, kind, text}], episodes: [{episode, verdict}]}; a
// new reference, NULL when memory is out. Episodes are numbered as in the dataset.
json_t *soma__check_json(const soma_check *check, const soma_dataset *dataset);

#endif
