// SPDX-License-Identifier: Apache-2.0
// States and actions between robot units and the numbers a network sees. The statistics are openpi's norm_stats.json:
//
//     {"norm_stats": {"state": {"mean": [..], "std": [..], "q01": [..], "q99": [..]}, "actions": {...}}}
//
// with "min", "max", "q10" and "q90" beside them where known (openpi ignores these). Nothing is clipped: values outside the statistics go
// on linearly.
#ifndef SOMA_TRANSFORM_NORMALISE_H
#define SOMA_TRANSFORM_NORMALISE_H

#include "base/base.h"

// Two projects, two sets of formulas; a checkpoint needs the ones it was trained with. code, its name in config.json
#define SOMA_NORM_LIST(X)                                                                                                      \
    X(SOMA_NORM_IDENTITY, "identity")                                                                                          \
    X(SOMA_NORM_ZSCORE, "openpi_zscore")          /* (x - mean) / (std + 1e-6): pi0 */                                         \
    X(SOMA_NORM_QUANTILE, "openpi_quantile")      /* (x - q01) / (q99 - q01 + 1e-6) * 2 - 1: pi0.5, pi0-FAST */                \
    X(SOMA_NORM_MEAN_STD, "lerobot_mean_std")     /* (x - mean) / (std + 1e-8), undone by x * std + mean */                    \
    X(SOMA_NORM_QUANTILES, "lerobot_quantiles")   /* 2 (x - q01) / (q99 - q01) - 1; the divisor is 1e-8 where it would be 0 */ \
    X(SOMA_NORM_MIN_MAX, "lerobot_min_max")       /* the same with min and max */                                              \
    X(SOMA_NORM_QUANTILE10, "lerobot_quantile10") /* the same with q10 and q90 */
#define SOMA_NORM_ENUM(code, name) code,
typedef enum soma_norm_rule { SOMA_NORM_LIST(SOMA_NORM_ENUM) SOMA_NORM_COUNT } soma_norm_rule;
#undef SOMA_NORM_ENUM

const char *soma__norm_rule_name(soma_norm_rule rule);
soma_status soma__norm_rule_parse(soma_norm_rule *rule, const char *name, soma_error *err); // the error lists the names

// Statistics of one key ("state", "actions"), in robot units; [size] each, NULL where absent.
typedef struct soma_norm {
    const char *key;
    int size;
    const double *mean, *std, *q01, *q99, *min, *max, *q10, *q90;
} soma_norm;

typedef struct soma_norm_stats soma_norm_stats; // const after reading: shared by threads

// Refused, with the file and the key in the sentence: lists of different lengths, values that are not finite numbers, std below 0, q01
// above q99, min above max, q10 above q90; in a JSON file also no mean or std. A std of 0 (a dimension that never moved) is legal; one
// warning per loading names all such dimensions.
soma_status soma__norm_stats_read(soma_norm_stats **stats, const char *path, soma_error *err);
soma_status soma__norm_stats_parse(soma_norm_stats **stats, const char *json, size_t len, const char *where, soma_error *err);
// `norms` are copied and held to the same rules; `where` stands in the sentences.
soma_status soma__norm_stats_new(soma_norm_stats **stats, const soma_norm *norms, size_t n_norms, const char *where, soma_error *err);
soma_status soma__norm_stats_write(const soma_norm_stats *stats, const char *path, soma_error *err);
void soma__norm_stats_free(soma_norm_stats *stats); // NULL allowed

// The statistics of `key`, borrowed, checked to be what `rule` needs for vectors of `size` values; SOMA_NORM_IDENTITY needs the key alone.
// Statistics that are too short are refused; longer ones are cut by openpi's rules and refused by LeRobot's, as the originals do.
soma_status soma__norm_find(const soma_norm **norm, const soma_norm_stats *stats, const char *key, soma_norm_rule rule, int size,
                            soma_error *err);

// values [n_rows, width] in place; the statistics have what the rule needs (soma__norm_find).
// apply: width <= norm->size, the first `width` statistics count.
// undo: values beyond the statistics (a model's padding) pass through; SOMA_NORM_ZSCORE multiplies them by 1 + 1e-6, as openpi does.
// LeRobot computes in f32, so its rules round each step to f32 (a state's bin in a prompt depends on it); openpi's are double throughout.
void soma__norm_apply(const soma_norm *norm, soma_norm_rule rule, double *values, int64_t n_rows, int width);
void soma__norm_undo(const soma_norm *norm, soma_norm_rule rule, double *values, int64_t n_rows, int width);

#endif
