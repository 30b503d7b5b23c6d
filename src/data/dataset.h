// SPDX-License-Identifier: Apache-2.0
// What a dataset of demonstrations is to the rest of soma, whatever its format on disk: features with shapes and rates, episodes, frames.
// One folder of data/ = one format; it exports `const soma_dataset_format soma__dataset_format_<folder>`.
//
// Reading is safe from several threads at once, each with a reader of its own; the dataset itself is const after open.
#ifndef SOMA_DATA_DATASET_H
#define SOMA_DATA_DATASET_H

#include "base/file.h"
#include "base/json.h"

typedef enum soma_feature_kind {
    SOMA_FEATURE_VECTOR, // numbers, read as f32: observation.state, action
    SOMA_FEATURE_IMAGE,  // pictures, whether in video files, image files or inside parquet; read as u8 [height, width, 3] RGB
    SOMA_FEATURE_OTHER,  // present, not readable as either (strings, nested lists)
} soma_feature_kind;

typedef struct soma_feature {
    const char *name; // "observation.state", "observation.images.scene"
    soma_feature_kind kind;
    const char *dtype; // as the dataset says: "float32", "video", "image"
    int n_dims;
    int64_t shape[SOMA_MAX_DIMS]; // of one frame; images: [height, width, 3]
    int64_t size;                 // values per frame
    const char *const *names;     // [shape[last]] or NULL
    // Of a part (below); 0 and NULL of others.
    int whole;            // the feature that it is cut from
    int64_t start;        // its first value there
    const char *rotation; // how its values tell a rotation: "quaternion", "rotation_6d"; NULL: they do not, or nobody says
    bool relative;        // actions relative to the state
} soma_feature;

typedef struct soma_episode {
    int64_t index; // as numbered in the dataset
    int64_t n_frames;
    const char *task;   // the instruction; "" when there is none
    bool present;       // its frame data is on the disk
    bool video_present; // the pictures of every camera that has any in this copy of the dataset are on the disk
    int n_others;       // further instructions that describe it as well
    const char *const *others;
} soma_episode;

// Statistics of one vector feature, over frames; [size] each. NULL where the dataset does not have them.
typedef struct soma_feature_stats {
    double *mean, *std, *min, *max, *q01, *q10, *q50, *q90, *q99;
    int64_t count;
} soma_feature_stats;

typedef struct soma_dataset {
    const struct soma_dataset_format *format;
    const char *path, *version; // version "v2.1"; "" where the format has none
    const char *robot_type;     // "" when unknown
    double fps;                 // 0: the format does not tell
    int n_features;
    const soma_feature *features; // [n_features], and behind them n_parts
    int n_parts; // named parts of features (GR00T's meta/modality.json): "state.left_arm", "video.ego_view", "annotation.human.validity";
                 // read as features are, but what takes all features leaves them out
    int64_t n_episodes;                       // as declared
    int64_t n_frames;                         // as declared
    const soma_episode *episodes;             // [n_episodes]
    int64_t episodes_present, frames_present; // as readable
    int n_absent;                             // files that the metadata names and that are not there
    const char *const *absent;                // [n_absent] paths relative to `path`
    int n_faults;                             // what is damaged, as far as opening saw it; those episodes are not present
    const char *const *faults;                // [n_faults] sentences that name file and byte
    const char *hint;                         // "", or a sentence: where absent files seem to lie, that a recording was cut off
} soma_dataset;                               // the format's own state follows it in memory

typedef struct soma_dataset_reader soma_dataset_reader; // one thread's: open files, decoders, caches

typedef struct soma_dataset_format {
    const char *name;                                                               // "lerobot"
    bool (*probe)(const char *path);                                                // looks like ours, cheaply
    soma_status (*open)(soma_dataset **dataset, const char *path, soma_error *err); // sets dataset->format, too
    void (*close)(soma_dataset *dataset);
    soma_status (*reader_open)(soma_dataset_reader **reader, const soma_dataset *dataset, soma_error *err);
    void (*reader_close)(soma_dataset_reader *reader);
    // The files that hold this feature of this episode are on the disk. `episode` is a position in episodes[], here and below.
    bool (*present)(const soma_dataset *dataset, int64_t episode, int feature);
    // A whole episode of a vector feature into out [episodes[episode].n_frames, feature size]. A value that is not finite is an error that
    // names file, episode, frame and dimension.
    soma_status (*read_vectors)(soma_dataset_reader *reader, int64_t episode, int feature, float *out, soma_error *err);
    // Reading the vectors of one of these episodes brings most of what reading the other's takes; NULL: never.
    bool (*together)(const soma_dataset *dataset, int64_t episode, int64_t other);
    // `frame` within the episode. out: u8 [height, width, 3] of the feature's shape.
    soma_status (*read_image)(soma_dataset_reader *reader, int64_t episode, int64_t frame, int feature, uint8_t *out, soma_error *err);
    // The statistics that the dataset itself declares for a vector feature; NULL where the format keeps none. SOMA_NOT_FOUND: this dataset
    // has none. Release with soma__feature_stats_free.
    soma_status (*declared_stats)(soma_feature_stats *stats, const soma_dataset *dataset, int feature, soma_error *err);
    // The file that holds a feature of an episode that is present, and where in it the episode begins (seconds, bytes or 0): with the
    // file's size and time they say whether pictures that were decoded before are still those.
    soma_status (*source)(char path[SOMA_PATH_MAX], double *start, const soma_dataset *dataset, int64_t episode, int feature,
                          soma_error *err);
    // The instructions of an episode are those that its frames name, where they name any (GR00T's annotations); before the dataset is
    // shared. NULL: the list of episodes says all.
    soma_status (*read_instructions)(soma_dataset *dataset, soma_dataset_reader *reader, int64_t episode, soma_error *err);
} soma_dataset_format;

extern const soma_dataset_format *const soma__dataset_registry[]; // NULL at its end

// Finds the format by looking at the folder (or the file, where a format is one). The error for an unknown layout lists the formats. What
// is damaged is logged as a warning.
soma_status soma__dataset_open(soma_dataset **dataset, const char *path, soma_error *err);
void soma__dataset_close(soma_dataset *dataset);                          // NULL allowed
int soma__dataset_feature(const soma_dataset *dataset, const char *name); // -1 when absent
// The instructions of some episodes, by position, from their frames where those name any: read once, before the dataset is shared.
soma_status soma__dataset_read_instructions(soma_dataset *dataset, const int64_t *episodes, int64_t n_episodes, soma_error *err);
// At least one episode has this feature on the disk; a camera may be declared and never recorded.
bool soma__dataset_has(const soma_dataset *dataset, int feature);
// For formats: the values of a vector feature of an episode, as read; NaN or infinity is an error that names file, episode, frame and
// dimension. `file` is relative to the dataset's path.
soma_status soma__dataset_check_finite(const soma_dataset *dataset, const char *file, int64_t episode, int feature, const float *values,
                                       soma_error *err);
// {format, version, robot_type, fps, episodes, frames, episodes_present, frames_present, tasks:[...], features:[{name, kind, dtype, shape,
// names, episodes_present}], parts:[{name, of, start, end}], absent:[...], faults:[...],
// hint}; a new reference, NULL when memory is out.
json_t *soma__dataset_info(const soma_dataset *dataset);

// mean, std (population), min, max and exact quantiles (linear interpolation, as numpy.quantile) of vector feature `feature` over the
// episodes listed by position (all present ones when `episodes` is NULL). NaN anywhere is an error that names episode, frame and dimension.
// Release with soma__feature_stats_free.
soma_status soma__dataset_stats(soma_feature_stats *stats, const soma_dataset *dataset, int feature, const int64_t *episodes,
                                int64_t n_episodes, soma_error *err);
void soma__feature_stats_free(soma_feature_stats *stats);

#endif
