// SPDX-License-Identifier: Apache-2.0
// Each defect that `soma data check` knows, made on purpose in a dataset that is sound without it.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "data/check.h"
#include "format/image.h"
#include "toy_dataset.h"
#include "toy_rlds.h"

#include <math.h>
#include <stdlib.h>
#include <unistd.h>

enum { SIDE = 16, EPISODES = 4, FRAMES = 30 };

static char dir[] = "/tmp/soma_check_XXXXXX";
static int setup(void **state) { return mkdtemp(dir) ? 0 : 1; }
static int teardown(void **state) { return soma__dir_remove(dir, NULL); }

static void clear(void) {
    assert_int_equal(soma__dir_remove(dir, NULL), SOMA_OK);
    assert_int_equal(soma__dir_make(dir, NULL), SOMA_OK);
}

// ---- RLDS: any values at all

typedef enum defect { NONE, NOT_FINITE, JUMP, STILL, BACKWARDS, MISCOUNTED, BLANK, FROZEN, NO_FRAMES, CHECKSUM, TORN_PICTURE } defect;

static const char features[] =
    "{\"featuresDict\": {\"features\": {\"steps\": {\"sequence\": {\"feature\": {\"featuresDict\": {\"features\": {"
    "\"action\": {\"tensor\": {\"shape\": {\"dimensions\": [\"2\"]}, \"dtype\": \"float32\", \"encoding\": \"none\"}},"
    "\"state\": {\"tensor\": {\"shape\": {\"dimensions\": [\"2\"]}, \"dtype\": \"float32\", \"encoding\": \"none\"}},"
    "\"timestamp\": {\"tensor\": {\"shape\": {}, \"dtype\": \"float32\", \"encoding\": \"none\"}},"
    "\"frame_index\": {\"tensor\": {\"shape\": {}, \"dtype\": \"int64\", \"encoding\": \"none\"}},"
    "\"scene\": {\"image\": {\"shape\": {\"dimensions\": [\"16\", \"16\", \"3\"]}, \"dtype\": \"uint8\"}}}}}}}}}}";

static void put_episode(FILE *file, int e, defect d) {
    soma_str fields = {0}, example = {0}, pictures = {0};
    float action[FRAMES * 2], position[FRAMES * 2], time[FRAMES];
    int64_t count[FRAMES];
    int n = d == NO_FRAMES ? 0 : FRAMES;
    for (int f = 0; f < n; f++) {
        uint8_t rgb[SIDE * SIDE * 3];
        void *png;
        size_t size;
        for (int k = 0; k < 2; k++) {
            position[f * 2 + k] = sinf(0.1f * (float)(f + e + k));
            action[f * 2 + k] = d == STILL ? 0.5f : position[f * 2 + k] + 0.01f;
        }
        time[f] = 0.1f * (float)f;
        count[f] = f;
        for (int i = 0; i < SIDE * SIDE * 3; i++) rgb[i] = d == BLANK ? 7 : (uint8_t)(i * 3 + (d == FROZEN ? 0 : f * 5));
        assert_int_equal(soma__png_encode(&png, &size, rgb, SIDE, SIDE, NULL), SOMA_OK);
        put_bytes(&pictures, 1, png, d == TORN_PICTURE && f == FRAMES - 1 ? size / 2 : size);
        soma__free(png);
    }
    if (d == NOT_FINITE) position[7] = NAN;
    if (d == JUMP) action[21] += 3;
    if (d == BACKWARDS) time[9] = time[8];
    if (d == MISCOUNTED) count[5] = 6;
    put_list(&fields, "steps/scene", 1, &pictures);
    put_floats(&fields, "steps/action", action, (size_t)n * 2);
    put_floats(&fields, "steps/state", position, (size_t)n * 2);
    put_floats(&fields, "steps/timestamp", time, (size_t)n);
    put_ints(&fields, "steps/frame_index", count, (size_t)n);
    put_bytes(&example, 1, fields.text, fields.len);
    put_record(file, example.text, example.len);
    if (d == CHECKSUM) {
        fseek(file, -20, SEEK_END);
        fputc(1, file);
        fseek(file, 0, SEEK_END);
    }
    soma__str_free(&fields);
    soma__str_free(&example);
}

static void put_file(const char *name, const char *text) {
    char path[SOMA_PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    assert_int_equal(soma__file_write(path, text, strlen(text), NULL), SOMA_OK);
}

// The defect is in episode 2.
static void write_rlds(defect d) {
    char path[SOMA_PATH_MAX];
    clear();
    put_file("features.json", features);
    put_file("dataset_info.json", "{\"name\": \"toy\", \"splits\": [{\"name\": \"train\", \"shardLengths\": [\"4\"]}]}");
    snprintf(path, sizeof path, "%s/toy-train.tfrecord-00000-of-00001", dir);
    FILE *file = fopen(path, "wb");
    for (int e = 0; e < EPISODES; e++) put_episode(file, e, e == 2 ? d : NONE);
    fclose(file);
}

static void run_check(soma_check *c, soma_dataset **d) {
    soma_error err = {0};
    soma_check_opts o = {.pictures = 8};
    if (soma__dataset_open(d, dir, &err)) fail_msg("%s", err.text);
    assert_int_equal(soma__dataset_check(c, *d, &o, &err), SOMA_OK);
    json_t *json = soma__check_json(c, *d);
    assert_int_equal(json_integer_value(json_object_get(json, "errors")), c->n_errors);
    assert_int_equal(json_array_size(json_object_get(json, "episodes")), (*d)->n_episodes);
    json_decref(json);
}

static void defects(void **state) {
    static const struct {
        defect d;
        bool error;
        const char *kind, *says;
    } cases[] = {
        {NOT_FINITE, true, "values", "not a number in episode 2, frame 3, dimension 1"},
        {JUMP, false, "jump", "\"action\" dimension 1 jumps by 3"},
        {STILL, false, "still", "\"action\" never changes over 30 frames"},
        {BACKWARDS, true, "time", "frame 9"},
        {MISCOUNTED, true, "count", "frame 5 is numbered 6"},
        {BLANK, false, "blank", "\"scene\" shows one colour only"},
        {FROZEN, false, "frozen", "\"scene\" shows the same"},
        {NO_FRAMES, true, "count", "no frames"},
        {CHECKSUM, true, "values", "checksum of the record at byte"},
        {TORN_PICTURE, true, "pictures", "frame 29 of scene"},
    };
    soma_check c;
    soma_dataset *d;
    write_rlds(NONE);
    run_check(&c, &d);
    if (c.n_findings) fail_msg("%s", c.findings[0].text);
    for (int e = 0; e < EPISODES; e++) assert_int_equal(c.verdicts[e], SOMA_VERDICT_OK);
    assert_int_equal(c.n_pictures, EPISODES * 8);
    soma__check_free(&c);
    soma__dataset_close(d);
    for (size_t i = 0; i < SOMA_COUNT(cases); i++) {
        write_rlds(cases[i].d);
        run_check(&c, &d);
        assert_true(c.n_findings >= 1);
        bool told = false;
        for (size_t f = 0; f < c.n_findings; f++) {
            assert_int_equal(c.findings[f].episode, 2);
            told = told || (!strcmp(c.findings[f].kind, cases[i].kind) && c.findings[f].error == cases[i].error &&
                            strstr(c.findings[f].text, cases[i].says));
        }
        if (!told) fail_msg("%s: %s", cases[i].says, c.findings[0].text);
        for (int e = 0; e < EPISODES; e++)
            assert_int_equal(c.verdicts[e], e != 2 ? SOMA_VERDICT_OK : cases[i].error ? SOMA_VERDICT_BAD : SOMA_VERDICT_DOUBTFUL);
        soma__check_free(&c);
        soma__dataset_close(d);
    }
}

static void failed_allocations(void **state) {
    soma_dataset *d;
    soma_check c;
    soma_error err = {0};
    soma_check_opts o = {.pictures = 2};
    write_rlds(STILL);
    assert_int_equal(soma__dataset_open(&d, dir, &err), SOMA_OK);
    int n = 0;
    for (;; n++) {
        soma__alloc_fail_after(n);
        soma_status status = soma__dataset_check(&c, d, &o, &err);
        soma__alloc_fail_after(-1);
        if (status == SOMA_OK) break;
        assert_int_equal(status, SOMA_NO_MEMORY);
    }
    assert_true(n > 10);
    assert_int_equal(c.n_findings, 1);
    soma__check_free(&c);
    soma__dataset_close(d);
}

// ---- LeRobot: files and what they declare

static int n_frames(int e) { return 20 + e; }
static const char *task(int e) { return "wave"; }
static void frame(int e, int f, float *state, float *action, uint8_t *picture) {
    for (int k = 0; k < 2; k++) {
        state[k] = sinf(0.1f * (float)(f + e + k));
        action[k] = state[k] + 0.01f;
    }
    for (int i = 0; i < 32 * 32 * 3; i++) picture[i] = (uint8_t)((i / 3 % 32 + f) * 6);
}

static void write_lerobot(void) {
    static const char *const names[] = {"left", "right"};
    const toy_dataset toy = {.n_state = 2,
                             .n_actions = 2,
                             .side = 32,
                             .fps = 10,
                             .names = names,
                             .episodes = EPISODES,
                             .shard_episodes = 2,
                             .n_frames = n_frames,
                             .task = task,
                             .frame = frame};
    soma_error err = {0};
    clear();
    if (write_toy_dataset(&toy, dir, &err)) fail_msg("%s", err.text);
}

static const soma_finding *told(const soma_check *c, const char *kind, const char *says) {
    for (size_t f = 0; f < c->n_findings; f++)
        if (!strcmp(c->findings[f].kind, kind) && strstr(c->findings[f].text, says)) return &c->findings[f];
    if (c->n_findings) print_message("instead: %s\n", c->findings[0].text);
    return NULL;
}

static void in_dir(char out[SOMA_PATH_MAX], const char *name) { snprintf(out, SOMA_PATH_MAX, "%s/%s", dir, name); }

static void edit(const char *file, const char *key, const char *inner, json_t *value) {
    char path[SOMA_PATH_MAX];
    json_t *all;
    in_dir(path, file);
    assert_int_equal(soma__json_load(&all, path, NULL), SOMA_OK);
    json_t *at = inner ? json_object_get(all, key) : all;
    assert_int_equal(json_object_set_new(at, inner ? inner : key, value), 0);
    assert_int_equal(soma__json_save(all, path, NULL), SOMA_OK);
    json_decref(all);
}

static void halve(const char *file) {
    char path[SOMA_PATH_MAX], *bytes;
    size_t size;
    in_dir(path, file);
    assert_int_equal(soma__file_read(&bytes, &size, path, 1 << 24, NULL), SOMA_OK);
    soma__free(bytes);
    assert_int_equal(truncate(path, (off_t)(size / 2)), 0);
}

static void lerobot(void **state) {
    char path[SOMA_PATH_MAX];
    soma_check c;
    soma_dataset *d;
    static const char video[] = "videos/observation.images.scene/chunk-000/file-001.mp4", data[] = "data/chunk-000/file-001.parquet";
    for (int i = 0; i < 7; i++) {
        write_lerobot();
        if (i == 1) edit("meta/info.json", "total_frames", NULL, json_integer(99));
        if (i == 2) edit("meta/stats.json", "action", "max", json_pack("[f, f]", 0.3, 0.3));
        if (i == 3) edit("meta/stats.json", "action", "mean", json_pack("[f, f]", 0.3, 0.3));
        in_dir(path, i == 4 ? video : data);
        if (i == 4 || i == 5) assert_int_equal(unlink(path), 0);
        if (i == 6) halve(video);
        run_check(&c, &d);
        if (i == 0 && c.n_findings) fail_msg("%s", c.findings[0].text);
        if (i == 1) assert_non_null(told(&c, "damaged", "says 4 episodes with 99 frames, meta/episodes lists 4 with 86"));
        if (i == 2) assert_non_null(told(&c, "statistics", "its declared statistics say"));
        if (i == 3) assert_non_null(told(&c, "statistics", "has mean"));
        if (i == 4) assert_non_null(told(&c, "absent", video));
        if (i == 5) assert_non_null(told(&c, "absent", data));
        if (i == 5) assert_int_equal(c.verdicts[3], SOMA_VERDICT_ABSENT);
        if (i == 6) assert_non_null(told(&c, "pictures", video));
        if (i == 6) assert_int_equal(c.verdicts[3], SOMA_VERDICT_BAD);
        assert_int_equal(c.verdicts[0], SOMA_VERDICT_OK);
        soma__check_free(&c);
        soma__dataset_close(d);
    }
    write_lerobot();
    halve(data);
    run_check(&c, &d);
    assert_non_null(told(&c, "values", data));
    assert_int_equal(c.verdicts[0], SOMA_VERDICT_OK);
    assert_int_equal(c.verdicts[2], SOMA_VERDICT_BAD);
    soma__check_free(&c);
    soma__dataset_close(d);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(defects), cmocka_unit_test(failed_allocations), cmocka_unit_test(lerobot)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
