// SPDX-License-Identifier: Apache-2.0
// Statistics of states and actions as the files of the projects that read them.
//   openpi   {"norm_stats": {"state": LISTS, "actions": LISTS}}
//   lerobot  {"observation.state": LISTS with "count", "action": ..., and every other vector feature as it is recorded}
//   groot    {TAG: {"statistics": {"state": {PART: LISTS}, "action": ...}, "modalities": {...}, "embodiment_tag": TAG}}
// LISTS are "mean", "std", "min", "max" and "q01", "q50", "q99.9" for the quantiles 0.01, 0.5 and 0.999.
#ifndef SOMA_CMD_CMD_STATS_H
#define SOMA_CMD_CMD_STATS_H

#include "cmd/cmd.h"
#include "train/statistics.h"

soma_status soma__cmd_stats_check(const char *form, soma_error *err); // the error lists the forms
const char *soma__cmd_stats_quantiles(const char *form); // those that the form's readers want: "0.01,0.99"; "" for an unknown form
soma_status soma__cmd_stats_write(const char *path, const char *form, const char *tag, const soma_statistics_opts *opts,
                                  const soma_column_stats *stats, soma_error *err);

#endif
