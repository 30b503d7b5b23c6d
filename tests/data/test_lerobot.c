// SPDX-License-Identifier: Apache-2.0
// The LeRobot reader on what it may meet: files of old and new layouts, absent, moved, lying or damaged ones, numbers that are none. Each
// refusal is a sentence that names the file and the field. The real datasets are in test_lerobot_real.c.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/file.h"
#include "data/convert.h"
#include "data/dataset.h"
#include "data/loader.h"
#include "toy_dataset.h"
#include "format/image.h"
#include "format/parquet.h"
#include "format/video.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { W = 16, H = 16, EPISODES = 3, FRAMES = 8, N = 2 };
static char root[] = "/tmp/soma_lerobot_XXXXXX", path[SOMA_PATH_MAX];
static const char *const names[] = {"shoulder", "elbow"};

static const char *in_dataset(const char *name) {
    static char out[SOMA_PATH_MAX];
    assert_int_equal(soma__path_join(out, path, name, NULL), SOMA_OK);
    return out;
}

static int n_frames(int e) { return FRAMES; }
static const char *task_of(int e) { return "move"; }
static void frame_of(int e, int f, float *state, float *action, uint8_t *picture) {
    action[0] = state[0] = (float)e;
    action[1] = state[1] = (float)f;
}

// Each test starts from a fresh v3.0 dataset of three episodes, each in a shard of its own.
static int make_dataset(void **state) {
    const toy_dataset toy = {N, N, W, 10, names, EPISODES, 1, n_frames, task_of, frame_of};
    return soma__path_join(path, root, "toy", NULL) || soma__dir_remove(path, NULL) || write_toy_dataset(&toy, path, NULL) ? -1 : 0;
}

static soma_dataset *open_dataset(void) {
    soma_dataset *d;
    soma_error err = {0};
    if (soma__dataset_open(&d, path, &err)) fail_msg("%s", err.text);
    return d;
}

static void mention(const soma_error *err, const char *words) {
    char copy[400];
    snprintf(copy, sizeof copy, "%s", words);
    for (char *save, *word = strtok_r(copy, "|", &save); word; word = strtok_r(NULL, "|", &save))
        if (!strstr(err->text, word)) fail_msg("\"%s\" is not in: %s", word, err->text);
}

static void refuse_open(const char *words) {
    soma_dataset *d;
    soma_error err = {0};
    assert_int_not_equal(soma__dataset_open(&d, path, &err), SOMA_OK);
    assert_null(d);
    mention(&err, words);
}

static void refuse_vectors(int64_t episode, const char *feature, const char *words) {
    soma_dataset *d = open_dataset();
    soma_dataset_reader *r;
    soma_error err = {0};
    float out[64 * N];
    assert_int_equal(d->format->reader_open(&r, d, &err), SOMA_OK);
    assert_int_not_equal(d->format->read_vectors(r, episode, soma__dataset_feature(d, feature), out, &err), SOMA_OK);
    mention(&err, words);
    d->format->reader_close(r);
    soma__dataset_close(d);
}

// Rows to put into a data file.
typedef struct rows {
    float action[32][N], state[32][N];
    int64_t episode[32];
} rows;

static void write_rows(const char *file, const rows *r, int n, bool with_action) {
    soma_parquet *pq;
    soma_error err = {0};
    soma_parquet_field fields[] = {{"observation.state", SOMA_PARQUET_F32, 1, {N}, r->state},
                                   {"episode_index", SOMA_PARQUET_I64, 0, {0}, r->episode},
                                   {"action", SOMA_PARQUET_F32, 1, {N}, r->action}};
    assert_int_equal(soma__parquet_open(&pq, NULL, &err), SOMA_OK);
    if (soma__parquet_write(pq, in_dataset(file), fields, with_action ? 3 : 2, n, NULL, NULL, &err)) fail_msg("%s", err.text);
    soma__parquet_close(pq);
}

static void bad_numbers(void **state) {
    rows r = {0};
    for (int i = 0; i < 32; i++) r.episode[i] = 1;
    r.action[3][1] = NAN;
    write_rows("data/chunk-000/file-001.parquet", &r, FRAMES, true);
    refuse_vectors(1, "action", "file-001.parquet|\"action\"|not a number|episode 1|frame 3|dimension 1|elbow");
    soma_dataset *d = open_dataset();
    soma_feature_stats stats;
    soma_error err = {0};
    assert_int_not_equal(soma__dataset_stats(&stats, d, soma__dataset_feature(d, "action"), NULL, 0, &err), SOMA_OK);
    mention(&err, "file-001.parquet|frame 3|dimension 1");
    int64_t others[] = {0, 2};
    assert_int_equal(soma__dataset_stats(&stats, d, soma__dataset_feature(d, "action"), others, 2, &err), SOMA_OK);
    soma__feature_stats_free(&stats);
    soma__dataset_close(d);
    r.action[3][1] = -INFINITY;
    write_rows("data/chunk-000/file-001.parquet", &r, FRAMES, true);
    refuse_vectors(1, "action", "infinite|frame 3");
    write_rows("data/chunk-000/file-001.parquet", &r, FRAMES, false);
    refuse_vectors(1, "action", "file-001.parquet|\"action\" is missing|observation.state");
    write_rows("data/chunk-000/file-001.parquet", &r, FRAMES - 1, true);
    refuse_vectors(1, "action", "file-001.parquet|7 rows|8");
    r.episode[4] = 2;
    write_rows("data/chunk-000/file-001.parquet", &r, FRAMES + 1, true);
    refuse_vectors(1, "action", "file-001.parquet|not together");
    soma__file_write(in_dataset("data/chunk-000/file-001.parquet"), "PAR1 no", 7, NULL);
    refuse_vectors(1, "action", "file-001.parquet|parquet");
}

static void video_ends_early(void **state) {
    soma_error err = {0};
    soma_video_writer *w;
    soma_video_spec spec = {.width = W, .height = H, .fps = 10, .gop = 2, .crf = 20, .preset = "veryfast"};
    uint8_t rgb[H * W * 3] = {0};
    const char *file = "videos/observation.images.scene/chunk-000/file-002.mp4";
    assert_int_equal(soma__video_writer_open(&w, in_dataset(file), &spec, &err), SOMA_OK);
    for (int f = 0; f < 5; f++) assert_int_equal(soma__video_writer_frame(w, rgb, &err), SOMA_OK);
    assert_int_equal(soma__video_writer_commit(w, &err), SOMA_OK);
    soma__video_writer_close(w);
    soma_dataset *d = open_dataset();
    soma_dataset_reader *r;
    int camera = soma__dataset_feature(d, "observation.images.scene");
    assert_int_equal(d->format->reader_open(&r, d, &err), SOMA_OK);
    assert_int_equal(d->format->read_image(r, 2, 4, camera, rgb, &err), SOMA_OK);
    assert_int_equal(d->format->read_image(r, 2, 5, camera, rgb, &err), SOMA_BAD_INPUT);
    mention(&err, "file-002.mp4|episode 2|frame 5|observation.images.scene|0.5000 s|0.4000 s");
    assert_int_equal(d->format->read_image(r, 1, 7, camera, rgb, &err), SOMA_OK);
    spec.width = 32;
    assert_int_equal(soma__video_writer_open(&w, in_dataset(file), &spec, &err), SOMA_OK);
    uint8_t wide[H * 32 * 3] = {0};
    assert_int_equal(soma__video_writer_frame(w, wide, &err), SOMA_OK);
    assert_int_equal(soma__video_writer_commit(w, &err), SOMA_OK);
    soma__video_writer_close(w);
    d->format->reader_close(r);
    assert_int_equal(d->format->reader_open(&r, d, &err), SOMA_OK);
    assert_int_equal(d->format->read_image(r, 2, 0, camera, rgb, &err), SOMA_BAD_INPUT);
    mention(&err, "file-002.mp4|32 x 16|16 x 16");
    d->format->reader_close(r);
    soma__dataset_close(d);
}

static void absent_files(void **state) {
    assert_int_equal(unlink(in_dataset("data/chunk-000/file-000.parquet")), 0);
    assert_int_equal(unlink(in_dataset("videos/observation.images.scene/chunk-000/file-001.mp4")), 0);
    soma_dataset *d = open_dataset();
    assert_int_equal(d->n_absent, 2);
    assert_string_equal(d->absent[0], "data/chunk-000/file-000.parquet");
    assert_true(!d->episodes[0].present && d->episodes[1].present && d->episodes[2].present);
    assert_true(d->episodes[0].video_present && !d->episodes[1].video_present && d->episodes[2].video_present);
    assert_int_equal(d->episodes_present, 2);
    assert_int_equal(d->frames_present, 2 * FRAMES);
    assert_int_equal(d->n_episodes, 3);
    json_t *info = soma__dataset_info(d);
    assert_int_equal(json_array_size(json_object_get(info, "absent")), 2);
    assert_int_equal(json_integer_value(json_object_get(info, "episodes_with_pictures")), 1);
    json_decref(info);
    soma__dataset_close(d);
    refuse_vectors(0, "action", "file-000.parquet|episode 0|absent");

    char moved[SOMA_PATH_MAX]; // the whole folder of videos under another name: a hint
    snprintf(moved, sizeof moved, "%s", in_dataset("video"));
    assert_int_equal(rename(in_dataset("videos"), moved), 0);
    d = open_dataset();
    assert_int_equal(d->n_absent, 4);
    assert_non_null(strstr(d->hint, "lies in video/, while meta/info.json says videos/"));
    assert_true(!d->episodes[2].video_present && d->episodes[2].present);
    soma__dataset_close(d);
}

static void write_info(const char *text) {
    assert_int_equal(soma__file_write(in_dataset("meta/info.json"), text, strlen(text), NULL), SOMA_OK);
}

#define INFO(version, data, features)                                                                                \
    "{\"codebase_version\":\"" version "\",\"fps\":10,\"total_episodes\":1,\"total_frames\":8,\"data_path\":\"" data \
    "\",\"video_path\":\"videos/{video_key}/x.mp4\",\"features\":" features "}"
#define DATA3 "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
#define STATE "{\"observation.state\":{\"dtype\":\"float32\",\"shape\":[2]}}"

static void bad_metadata(void **state) {
    write_info("{");
    refuse_open("info.json|JSON");
    write_info("{}");
    refuse_open("info.json|codebase_version");
    write_info(INFO("v1.6", DATA3, STATE));
    refuse_open("info.json|v1.6|v3.0");
    write_info(INFO("v3.0", "../../{file_index}", STATE));
    refuse_open("info.json|data_path|leaves the folder");
    write_info(INFO("v3.0", "/etc/{file_index}", STATE));
    refuse_open("info.json|data_path|leaves the folder");
    write_info(INFO("v3.0", "data/{wrong}", STATE));
    refuse_open("info.json|data/{wrong}");
    write_info(INFO("v3.0", "data/{file_index", STATE));
    refuse_open("info.json|data/{file_index");
    write_info(INFO("v3.0", DATA3, "{}"));
    refuse_open("info.json|features");
    write_info(INFO("v3.0", DATA3, "{\"a\":{\"dtype\":\"float32\",\"shape\":[-1]}}"));
    refuse_open("info.json|\"a\"|shape");
    write_info(INFO("v3.0", DATA3, "{\"a\":{\"dtype\":\"float32\",\"shape\":[100000,100000]}}"));
    refuse_open("info.json|\"a\"|shape");
    write_info(INFO("v3.0", DATA3, "{\"a\":{\"shape\":[1]}}"));
    refuse_open("info.json|dtype");
    write_info(INFO("v3.0", DATA3, "{\"../x\":{\"dtype\":\"video\",\"shape\":[16,16,3]}}")); // its videos/../x/ columns are absent: no file
    soma_dataset *d = open_dataset();
    soma__dataset_close(d);
    write_info(INFO("v3.0", DATA3, "{\"observation.state\":{\"dtype\":\"float32\",\"shape\":[3]}}"));
    refuse_vectors(0, "observation.state", "file-000.parquet|\"observation.state\" has 2 values|says 3");
    write_info(INFO("v3.0", DATA3, "{\"speed\":{\"dtype\":\"float32\",\"shape\":[3]}}"));
    refuse_vectors(0, "speed", "file-000.parquet|\"speed\" is missing");
}

static void bad_episode_table(void **state) {
    assert_int_equal(soma__file_write(in_dataset("meta/episodes/chunk-000/file-001.parquet"), "PAR1", 4, NULL), SOMA_OK);
    refuse_open("file-001.parquet|parquet");
    soma_parquet *pq;
    soma_error err = {0};
    int64_t index = 0, bad = -5;
    soma_parquet_field fields[] = {{"episode_index", SOMA_PARQUET_I64, 0, {0}, &index}, {"length", SOMA_PARQUET_I64, 0, {0}, &bad}};
    assert_int_equal(soma__parquet_open(&pq, NULL, &err), SOMA_OK);
    assert_int_equal(soma__parquet_write(pq, in_dataset("meta/episodes/chunk-000/file-001.parquet"), fields, 1, 1, NULL, NULL, &err),
                     SOMA_OK);
    refuse_open("toy|\"length\"|missing");
    assert_int_equal(soma__parquet_write(pq, in_dataset("meta/episodes/chunk-000/file-001.parquet"), fields, 2, 1, NULL, NULL, &err),
                     SOMA_OK);
    refuse_open("toy|\"length\"|-5");
    soma__parquet_close(pq);
    assert_int_equal(soma__dir_remove(in_dataset("meta/episodes"), NULL), SOMA_OK);
    refuse_open("meta/episodes");
    assert_int_equal(soma__dir_remove(in_dataset("meta"), NULL), SOMA_OK);
    refuse_open("not a dataset|lerobot");
    snprintf(path, sizeof path, "%s/absent", root);
    refuse_open("absent|no such folder");
}

// A v2.1 dataset as LeRobot laid it out, with a nested feature, a picture channel-first and a string.
static void version_2(void **state) {
    assert_int_equal(soma__dir_remove(path, NULL), SOMA_OK);
    assert_int_equal(soma__dir_make(in_dataset("meta"), NULL), SOMA_OK);
    assert_int_equal(soma__dir_make(in_dataset("data/chunk-001"), NULL), SOMA_OK);
    write_info("{\"codebase_version\":\"v2.1\",\"robot_type\":null,\"fps\":10,\"total_episodes\":2,\"total_frames\":14,\"chunks_size\":5,"
               "\"data_path\":\"data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet\",\"video_path\":null,\"features\":{"
               "\"observation.state\":{\"dtype\":\"float32\",\"shape\":[2],\"names\":{\"motors\":[\"a\",\"b\"]}},"
               "\"pose\":{\"dtype\":\"float64\",\"shape\":[2,1]},\"note\":{\"dtype\":\"string\",\"shape\":[1]},"
               "\"camera\":{\"dtype\":\"image\",\"shape\":[3,4,6],\"names\":[\"channels\",\"height\",\"width\"]},"
               "\"depth\":{\"dtype\":\"image\",\"shape\":[4,6,1],\"names\":[\"height\",\"width\",\"channel\"]}}}");
    const char *lines =
        "{\"episode_index\":6,\"tasks\":[\"lift\",\"valid\"],\"length\":8}\n\n{\"episode_index\":7,\"tasks\":[],\"length\":6}\r\n";
    assert_int_equal(soma__file_write(in_dataset("meta/episodes.jsonl"), lines, strlen(lines), NULL), SOMA_OK);
    soma_parquet *pq;
    soma_error err = {0};
    float vectors[16][2];
    double poses[16][2];
    int64_t index[16];
    const char *pictures[16];
    uint8_t rgb[4 * 6 * 3], back[4 * 6 * 3];
    void *png;
    size_t size;
    for (int i = 0; i < 4 * 6 * 3; i++) rgb[i] = (uint8_t)(3 * i);
    assert_int_equal(soma__png_encode(&png, &size, rgb, 6, 4, &err), SOMA_OK);
    for (int i = 0; i < 16; i++) {
        vectors[i][0] = poses[i][0] = i;
        vectors[i][1] = poses[i][1] = -i;
        index[i] = 6;
        pictures[i] = "not a picture";
    }
    soma_parquet_field fields[] = {{"observation.state", SOMA_PARQUET_F32, 1, {2}, vectors},
                                   {"pose", SOMA_PARQUET_F64, 2, {2, 1}, poses},
                                   {"note", SOMA_PARQUET_TEXT, 0, {0}, pictures},
                                   {"camera", SOMA_PARQUET_TEXT, 0, {0}, pictures},
                                   {"episode_index", SOMA_PARQUET_I64, 0, {0}, index}};
    assert_int_equal(soma__parquet_open(&pq, NULL, &err), SOMA_OK);
    assert_int_equal(soma__parquet_write(pq, in_dataset("data/chunk-001/episode_000006.parquet"), fields, 5, 8, NULL, NULL, &err), SOMA_OK);
    soma__parquet_close(pq);
    soma_dataset *d = open_dataset();
    assert_int_equal(d->n_episodes, 2);
    assert_int_equal(d->n_absent, 1);
    assert_string_equal(d->absent[0], "data/chunk-001/episode_000007.parquet");
    assert_true(d->episodes[0].present && !d->episodes[1].present && d->episodes[0].index == 6);
    assert_string_equal(d->episodes[0].task, "lift");
    assert_string_equal(d->episodes[1].task, "");
    assert_string_equal(d->robot_type, "");
    const soma_feature *f = &d->features[soma__dataset_feature(d, "camera")];
    assert_true(f->kind == SOMA_FEATURE_IMAGE && f->shape[0] == 4 && f->shape[1] == 6 && f->shape[2] == 3);
    assert_int_equal(d->features[soma__dataset_feature(d, "depth")].kind, SOMA_FEATURE_OTHER);
    assert_int_equal(d->features[soma__dataset_feature(d, "note")].kind, SOMA_FEATURE_OTHER);
    assert_string_equal(d->features[0].names[1], "b");
    assert_true(d->episodes[0].n_others == 1 && !strcmp(d->episodes[0].others[0], "valid") && d->episodes[1].n_others == 0);
    assert_int_equal(soma__dataset_feature(d, "absent"), -1);
    soma_dataset_reader *r;
    float out[16];
    assert_int_equal(d->format->reader_open(&r, d, &err), SOMA_OK);
    assert_int_equal(d->format->read_vectors(r, 0, soma__dataset_feature(d, "pose"), out, &err), SOMA_OK);
    assert_true(out[10] == 5 && out[11] == -5);
    assert_int_equal(d->format->read_image(r, 0, 3, soma__dataset_feature(d, "camera"), back, &err), SOMA_BAD_INPUT);
    mention(&err, "episode_000006.parquet|camera of row 3|PNG");
    d->format->reader_close(r);
    json_t *info = soma__dataset_info(d);
    assert_string_equal(json_string_value(json_object_get(info, "version")), "v2.1");
    assert_int_equal(json_array_size(json_object_get(info, "tasks")), 1);
    json_decref(info);
    soma__dataset_close(d);
    soma__free(png);
    assert_int_equal(soma__file_write(in_dataset("meta/episodes.jsonl"), "{\"episode_index\":6,\"length\":\"8\"}", 33, NULL), SOMA_OK);
    refuse_open("episodes.jsonl|record 1|length");
}

static void exact_statistics(void **state) {
    soma_dataset *d = open_dataset();
    soma_feature_stats s;
    soma_error err = {0};
    // dimension 1 counts 0..7 in each of three episodes, dimension 0 is the episode's number
    assert_int_equal(soma__dataset_stats(&s, d, soma__dataset_feature(d, "observation.state"), NULL, 0, &err), SOMA_OK);
    assert_int_equal(s.count, 24);
    assert_true(s.mean[1] == 3.5 && s.min[1] == 0 && s.max[1] == 7 && fabs(s.std[1] - sqrt(5.25)) < 1e-15);
    assert_true(s.mean[0] == 1 && s.q50[0] == 1 && fabs(s.std[0] - sqrt(2.0 / 3)) < 1e-15);
    assert_true(s.q01[1] == 0 && s.q99[1] == 7 && fabs(s.q10[1] - 0.3) < 1e-12); // ranks 0.23, 22.77, 2.3 of 0 0 0 1 1 1 ..
    soma__feature_stats_free(&s);
    int64_t one[] = {2};
    assert_int_equal(soma__dataset_stats(&s, d, soma__dataset_feature(d, "observation.state"), one, 1, &err), SOMA_OK);
    assert_true(fabs(s.q01[1] - 0.07) < 1e-15 && fabs(s.q99[1] - 6.93) < 1e-15 &&
                fabs(s.q90[1] - 6.3) < 1e-15); // numpy.quantile(range(8), q)
    soma__feature_stats_free(&s);
    assert_int_equal(soma__dataset_stats(&s, d, soma__dataset_feature(d, "observation.images.scene"), NULL, 0, &err), SOMA_BAD_INPUT);
    mention(&err, "observation.images.scene");
    for (int64_t n = 0;; n += n < 40 ? 1 : n / 8) {
        soma__alloc_fail_after(n);
        soma_status status = soma__dataset_stats(&s, d, 0, NULL, 0, &err);
        soma__alloc_fail_after(-1);
        if (!status) break;
        assert_null(s.mean);
        assert_in_range(n, 0, 5000);
    }
    soma__feature_stats_free(&s);
    soma__dataset_close(d);
    for (int64_t n = 0;; n += n < 40 ? 1 : n / 8) { // opening: one allocation fails, of the first every one
        soma__alloc_fail_after(n);
        soma_status status = soma__dataset_open(&d, path, &err);
        soma__alloc_fail_after(-1);
        if (!status) break;
        assert_null(d);
        assert_in_range(n, 0, 5000);
    }
    soma__dataset_close(d);
    soma__file_fail_after(0);
    refuse_open("info.json");
    soma__file_fail_after(-1);
}

// ---- GR00T's modality.json

static void write_modality(const char *text) {
    assert_int_equal(soma__file_write(in_dataset("meta/modality.json"), text, strlen(text), NULL), SOMA_OK);
}

// What is converted names its parts where they are now.
static void converted_parts(const soma_dataset *d) {
    char out[SOMA_PATH_MAX];
    const soma_convert_source source = {d, NULL};
    const soma_convert_opts o = {.states = "state.elbow,observation.state"};
    soma_converted result;
    soma_dataset *new;
    soma_error err = {0};
    assert_int_equal(soma__path_join(out, root, "converted", NULL), SOMA_OK);
    if (soma__dataset_convert(&result, &source, 1, out, &o, &err) || soma__dataset_open(&new, out, &err)) fail_msg("%s", err.text);
    static const struct {
        const char *name, *whole;
        int64_t start, size;
    } wanted[] = {{"state.elbow", "observation.state", 0, 1},
                  {"state.all", "observation.state", 1, 2},
                  {"action.shoulder", "action", 0, 1},
                  {"video.ego", "observation.images.scene", 0, W * H * 3},
                  {"annotation.task", "task_index", 0, 1}};
    assert_int_equal(new->n_parts, SOMA_COUNT(wanted));
    for (size_t i = 0; i < SOMA_COUNT(wanted); i++) {
        const soma_feature *f = &new->features[new->n_features + (int)i];
        assert_string_equal(f->name, wanted[i].name);
        assert_string_equal(new->features[f->whole].name, wanted[i].whole);
        assert_true(f->start == wanted[i].start && f->size == wanted[i].size);
    }
    const soma_feature *elbow = &new->features[new->n_features], *shoulder = elbow + 2;
    assert_string_equal(elbow->rotation, "euler_angles_rpy");
    assert_true(shoulder->relative && !elbow->relative);
    soma__dataset_close(new);
}

static void parts(void **state) {
    write_modality(
        "{\"state\": {\"elbow\": {\"start\": 1, \"end\": 2, \"rotation_type\": \"euler_angles_rpy\"}, \"all\": {}},"
        " \"action\": {\"shoulder\": {\"start\": 0, \"end\": 1, \"absolute\": false}, \"wheels\": {\"original_key\": \"wheels\"}},"
        " \"video\": {\"ego\": {\"original_key\": \"observation.images.scene\"}},"
        " \"annotation\": {\"human.validity\": {}, \"task\": {\"original_key\": \"task_index\"}}}");
    soma_dataset *d = open_dataset();
    soma_dataset_reader *r;
    soma_error err = {0};
    float whole[FRAMES * N], part[FRAMES * N];
    uint8_t rgb[2][W * H * 3];
    int ego = soma__dataset_feature(d, "video.ego"), elbow = soma__dataset_feature(d, "state.elbow"),
        task = soma__dataset_feature(d, "annotation.task");
    assert_int_equal(d->n_parts, 5); // the dataset has neither wheels nor validity
    assert_true(elbow >= d->n_features && ego > elbow && task > ego);
    assert_string_equal(d->features[elbow].rotation, "euler_angles_rpy");
    assert_string_equal(d->features[elbow].names[0], "elbow");
    assert_true(d->features[soma__dataset_feature(d, "action.shoulder")].relative);
    assert_int_equal(d->features[soma__dataset_feature(d, "state.all")].size, N);
    assert_int_equal(d->format->reader_open(&r, d, &err), SOMA_OK);
    assert_int_equal(d->format->read_vectors(r, 1, soma__dataset_feature(d, "observation.state"), whole, &err), SOMA_OK);
    assert_int_equal(d->format->read_vectors(r, 1, elbow, part, &err), SOMA_OK);
    for (int f = 0; f < FRAMES; f++) assert_true(part[f] == whole[f * N + 1]);
    assert_int_equal(d->format->read_vectors(r, 1, task, part, &err), SOMA_OK);
    assert_true(part[0] == 0);
    assert_true(d->format->present(d, 1, ego));
    assert_int_equal(d->format->read_image(r, 1, 3, ego, rgb[0], &err), SOMA_OK);
    assert_int_equal(d->format->read_image(r, 1, 3, soma__dataset_feature(d, "observation.images.scene"), rgb[1], &err), SOMA_OK);
    assert_memory_equal(rgb[0], rgb[1], sizeof rgb[0]);
    d->format->reader_close(r);
    soma_loader_opts o = soma__loader_defaults(); // the trainer asks for parts as for features
    soma_loader *loader;
    const soma_loader_batch *batch;
    o.state = elbow;
    o.action = soma__dataset_feature(d, "action.shoulder");
    o.n_cameras = 1;
    o.cameras[0] = ego;
    o.episodes = (int64_t[]){1};
    o.n_episodes = 1;
    o.horizon = o.batch = 1;
    if (soma__loader_open(&loader, d, &o, &err)) fail_msg("%s", err.text);
    assert_int_equal(soma__loader_read(loader, 1, (int64_t[]){1}, (int64_t[]){3}, &batch, &err), SOMA_OK);
    assert_true(batch->state[0] == whole[3 * N + 1]);
    assert_memory_equal(batch->images[0], rgb[0], sizeof rgb[0]);
    soma__loader_close(loader);
    converted_parts(d);
    soma__dataset_close(d);
    write_modality("{\"state\": {\"elbow\": {\"start\": 1, \"end\": 3}}}");
    refuse_open("modality.json|state.elbow|1 to 3|which has 2 values");
    write_modality("{\"state\": {\"elbow\": {\"start\": \"one\"}}}");
    refuse_open("modality.json|state.elbow");
    write_modality("[1, 2]");
    refuse_open("modality.json|must hold a JSON object");
    write_modality("{\"state\": [1], \"video\": 3, \"action\": {\"a\": 1}}"); // of no use, and harmless
    d = open_dataset();
    assert_int_equal(d->n_parts, 1);
    soma__dataset_close(d);
}

static void declare(json_t *info, const char *name, const char *dtype) {
    json_object_set_new(json_object_get(info, "features"), name, json_pack("{s:s, s:[i], s:n}", "dtype", dtype, "shape", 1, "names"));
}

// Instructions come from the columns that instruct, as places in the list of tasks or as words, in the order of the frames.
static void annotations(void **state) {
    json_t *info;
    soma_error err = {0};
    soma_parquet *pq;
    rows r = {0};
    int64_t task[FRAMES], valid[FRAMES], index[] = {0, 1, 2};
    const char *words[FRAMES], *tasks[] = {"move", "valid", "lift"};
    assert_int_equal(soma__json_load(&info, in_dataset("meta/info.json"), &err), SOMA_OK);
    declare(info, "annotation.human.task", "int64");
    declare(info, "annotation.human.validity", "int64");
    declare(info, "annotation.human.manner", "string");
    assert_int_equal(soma__json_save(info, in_dataset("meta/info.json"), &err), SOMA_OK);
    json_decref(info);
    for (int f = 0; f < FRAMES; f++) {
        r.episode[f] = 1;
        task[f] = f < 5 ? 2 : 0;
        valid[f] = 1;
        words[f] = f % 2 ? "gently" : "";
    }
    const soma_parquet_field fields[] = {{"observation.state", SOMA_PARQUET_F32, 1, {N}, r.state},
                                         {"episode_index", SOMA_PARQUET_I64, 0, {0}, r.episode},
                                         {"annotation.human.task", SOMA_PARQUET_I64, 0, {0}, task},
                                         {"annotation.human.validity", SOMA_PARQUET_I64, 1, {1}, valid},
                                         {"annotation.human.manner", SOMA_PARQUET_TEXT, 0, {0}, words}};
    const soma_parquet_field list[] = {{"task_index", SOMA_PARQUET_I64, 0, {0}, index}, {"task", SOMA_PARQUET_TEXT, 0, {0}, tasks}};
    assert_int_equal(soma__parquet_open(&pq, NULL, &err), SOMA_OK);
    if (soma__parquet_write(pq, in_dataset("data/chunk-000/file-001.parquet"), fields, 5, FRAMES, NULL, NULL, &err))
        fail_msg("%s", err.text);
    if (soma__parquet_write(pq, in_dataset("meta/tasks.parquet"), list, 2, 3, NULL, NULL, &err)) fail_msg("%s", err.text);
    soma__parquet_close(pq);
    for (int named = 1; named >= 0; named--) { // then without the list's own task among them: the first frame's is the task
        soma_dataset *d = open_dataset();
        const soma_episode *e = &d->episodes[1];
        if (!named) ((soma_episode *)(uintptr_t)e)->task = "valid";
        if (soma__dataset_read_instructions(d, (int64_t[]){1}, 1, &err)) fail_msg("%s", err.text);
        assert_string_equal(e->task, named ? "move" : "lift");
        assert_int_equal(e->n_others, 2);
        assert_string_equal(e->others[0], named ? "lift" : "move");
        assert_string_equal(e->others[1], "gently");
        assert_int_not_equal(soma__dataset_read_instructions(d, (int64_t[]){0}, 1, &err), SOMA_OK); // its file has no such column
        mention(&err, "file-000.parquet|annotation.human.task");
        soma__dataset_close(d);
    }
}

// The real set lists "valid" among the tasks of every episode; the column of annotations says that it is none.
static void real_annotations(void **state) {
    soma_dataset *d;
    soma_error err = {0};
    const char *real = SOMA_SOURCE_DIR "/../shared/data/lerobot/gr1_sim_picknplace_v20";
    if (!soma__dir_exists(real)) {
        print_message("%s is absent\n", real);
        skip();
    }
    if (soma__dataset_open(&d, real, &err)) fail_msg("%s", err.text);
    const int64_t episodes[] = {0, 1, 2, 3, 4};
    const char *first = d->episodes[1].task;
    assert_int_equal(d->episodes[1].n_others, 1);
    assert_string_equal(d->episodes[1].others[0], "valid");
    if (soma__dataset_read_instructions(d, episodes, 5, &err)) fail_msg("%s", err.text);
    for (int e = 0; e < 5; e++) assert_int_equal(d->episodes[e].n_others, 0);
    assert_string_equal(d->episodes[1].task, first);
    soma__dataset_close(d);
}

int main(void) {
    if (!mkdtemp(root)) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(bad_numbers, make_dataset),       cmocka_unit_test_setup(video_ends_early, make_dataset),
        cmocka_unit_test_setup(absent_files, make_dataset),      cmocka_unit_test_setup(bad_metadata, make_dataset),
        cmocka_unit_test_setup(version_2, make_dataset),         cmocka_unit_test_setup(exact_statistics, make_dataset),
        cmocka_unit_test_setup(bad_episode_table, make_dataset), cmocka_unit_test_setup(parts, make_dataset),
        cmocka_unit_test_setup(annotations, make_dataset),       cmocka_unit_test(real_annotations),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    soma__dir_remove(root, NULL);
    return failed;
}
