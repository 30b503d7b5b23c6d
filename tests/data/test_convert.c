// SPDX-License-Identifier: Apache-2.0
// RLDS -> LeRobot v3.0 -> read back: numbers and instructions the same to the bit, pictures within the codec's error; what cannot be read
// ends the conversion, or is left out.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "data/convert.h"
#include "data/writer.h"
#include "format/image.h"
#include "toy_rlds.h"

#include <math.h>
#include <stdlib.h>
#include <unistd.h>

enum { SIDE = 32, EPISODES = 3 };

static char dir[] = "/tmp/soma_convert_XXXXXX";
static char from[SOMA_PATH_MAX], to[SOMA_PATH_MAX];

static int setup(void **state) {
    if (!mkdtemp(dir)) return 1;
    snprintf(from, sizeof from, "%s/rlds", dir);
    snprintf(to, sizeof to, "%s/lerobot", dir);
    return 0;
}
static int teardown(void **state) { return soma__dir_remove(dir, NULL); }

static const char features[] =
    "{\"featuresDict\": {\"features\": {\"steps\": {\"sequence\": {\"feature\": {\"featuresDict\": {\"features\": {"
    "\"action\": {\"tensor\": {\"shape\": {\"dimensions\": [\"3\"]}, \"dtype\": \"float32\", \"encoding\": \"none\"}},"
    "\"language_instruction\": {\"text\": {}},"
    "\"observation\": {\"featuresDict\": {\"features\": {"
    "\"arm\": {\"tensor\": {\"shape\": {\"dimensions\": [\"2\"]}, \"dtype\": \"float32\", \"encoding\": \"none\"}},"
    "\"gripper\": {\"tensor\": {\"shape\": {}, \"dtype\": \"float32\", \"encoding\": \"none\"}},"
    "\"scene\": {\"image\": {\"shape\": {\"dimensions\": [\"32\", \"32\", \"3\"]}, \"dtype\": \"uint8\"}},"
    "\"wrist\": {\"image\": {\"shape\": {\"dimensions\": [\"32\", \"32\", \"3\"]}, \"dtype\": \"uint8\"}}}}}}}}}}}}}";

static float value(int e, int f, int k) { return sinf((float)(e * 31 + f * 7 + k)) / 3; } // bits all over the mantissa

static void put_picture(soma_str *list, int e, int f, int camera, bool torn) {
    uint8_t rgb[SIDE * SIDE * 3];
    void *png;
    size_t size;
    for (int i = 0; i < SIDE * SIDE * 3; i++) rgb[i] = (uint8_t)(40 + i / 3 % SIDE * 4 + f * 3 + e * 5 + camera * 20);
    assert_int_equal(soma__png_encode(&png, &size, rgb, SIDE, SIDE, NULL), SOMA_OK);
    put_bytes(list, 1, png, torn ? size / 2 : size);
    soma__free(png);
}

static void write_rlds(int torn_episode) {
    static const char info[] = "{\"name\": \"toy\", \"splits\": [{\"name\": \"train\", \"shardLengths\": [\"3\"]}]}";
    char path[SOMA_PATH_MAX];
    assert_int_equal(soma__dir_remove(from, NULL), SOMA_OK);
    assert_int_equal(soma__dir_remove(to, NULL), SOMA_OK);
    assert_int_equal(soma__dir_make(from, NULL), SOMA_OK);
    assert_int_equal(soma__path_join(path, from, "features.json", NULL), SOMA_OK);
    assert_int_equal(soma__file_write(path, features, strlen(features), NULL), SOMA_OK);
    assert_int_equal(soma__path_join(path, from, "dataset_info.json", NULL), SOMA_OK);
    assert_int_equal(soma__file_write(path, info, strlen(info), NULL), SOMA_OK);
    assert_int_equal(soma__path_join(path, from, "toy-train.tfrecord-00000-of-00001", NULL), SOMA_OK);
    FILE *file = fopen(path, "wb");
    for (int e = 0; e < EPISODES; e++) {
        soma_str fields = {0}, example = {0}, scene = {0}, wrist = {0}, texts = {0};
        float action[60], arm[40], gripper[20];
        int64_t last[20] = {0};
        int n = 6 + e;
        last[n - 1] = 1;
        for (int f = 0; f < n; f++) {
            for (int k = 0; k < 3; k++) action[f * 3 + k] = value(e, f, k);
            for (int k = 0; k < 2; k++) arm[f * 2 + k] = value(e, f, 10 + k);
            gripper[f] = value(e, f, 12);
            put_picture(&scene, e, f, 0, false);
            put_picture(&wrist, e, f, 1, e == torn_episode && f == 4);
            put_bytes(&texts, 1, e ? "größer, \"bitte\"" : "put it down", strlen(e ? "größer, \"bitte\"" : "put it down"));
        }
        put_list(&fields, "steps/observation/scene", 1, &scene);
        put_list(&fields, "steps/observation/wrist", 1, &wrist);
        put_list(&fields, "steps/language_instruction", 1, &texts);
        put_ints(&fields, "steps/is_last", last, (size_t)n);
        put_floats(&fields, "steps/action", action, (size_t)n * 3);
        put_floats(&fields, "steps/observation/arm", arm, (size_t)n * 2);
        put_floats(&fields, "steps/observation/gripper", gripper, (size_t)n);
        put_bytes(&example, 1, fields.text, fields.len);
        put_record(file, example.text, example.len);
        soma__str_free(&fields);
        soma__str_free(&example);
    }
    fclose(file);
}

static const soma_convert_opts all = {.states = "observation.arm,observation.gripper", .fps = 5};

static soma_status convert(soma_converted *result, const soma_dataset *d, const bool *chosen, const soma_convert_opts *o, soma_error *err) {
    return soma__dataset_convert(result, &(soma_convert_source){d, chosen}, 1, to, o, err);
}

// Episode `k` of the new dataset against episode `e` of the old one.
static void compare(const soma_dataset *old, const soma_dataset *new, int e, int k) {
    soma_dataset_reader *a, *b;
    soma_error err = {0};
    float action[60], state[60];
    uint8_t was[SIDE * SIDE * 3], is[SIDE * SIDE * 3];
    static const char *const cameras[2][2] = {{"observation.scene", "observation.images.scene"},
                                              {"observation.wrist", "observation.images.wrist"}};
    int n = (int)old->episodes[e].n_frames;
    assert_int_equal(new->episodes[k].n_frames, n);
    assert_string_equal(new->episodes[k].task, old->episodes[e].task);
    assert_int_equal(old->format->reader_open(&a, old, &err), SOMA_OK);
    assert_int_equal(new->format->reader_open(&b, new, &err), SOMA_OK);
    assert_int_equal(new->format->read_vectors(b, k, soma__dataset_feature(new, "action"), action, &err), SOMA_OK);
    assert_int_equal(new->format->read_vectors(b, k, soma__dataset_feature(new, "observation.state"), state, &err), SOMA_OK);
    for (int f = 0; f < n; f++) {
        for (int j = 0; j < 3; j++) assert_true(action[f * 3 + j] == value(e, f, j));
        for (int j = 0; j < 3; j++) assert_true(state[f * 3 + j] == value(e, f, 10 + j));
        for (int c = 0; c < 2; c++) {
            double error = 0;
            assert_int_equal(old->format->read_image(a, e, f, soma__dataset_feature(old, cameras[c][0]), was, &err), SOMA_OK);
            assert_int_equal(new->format->read_image(b, k, f, soma__dataset_feature(new, cameras[c][1]), is, &err), SOMA_OK);
            for (size_t i = 0; i < sizeof is; i++) error += abs(was[i] - is[i]);
            assert_true(error / sizeof is < 4);
        }
    }
    old->format->reader_close(a);
    new->format->reader_close(b);
}

static void there_and_back(void **state) {
    soma_dataset *old, *new;
    soma_converted result;
    soma_error err = {0};
    write_rlds(-1);
    assert_int_equal(soma__dataset_open(&old, from, &err), SOMA_OK);
    soma_convert_opts o = all;
    if (convert(&result, old, NULL, &o, &err)) fail_msg("%s", err.text);
    assert_int_equal(result.episodes, EPISODES);
    assert_int_equal(result.frames, 6 + 7 + 8);
    assert_int_equal(soma__dataset_open(&new, to, &err), SOMA_OK);
    assert_string_equal(new->format->name, "lerobot");
    assert_int_equal(new->n_absent + new->n_faults, 0);
    assert_true(new->fps == 5);
    assert_string_equal(new->features[soma__dataset_feature(new, "observation.state")].names[2], "gripper.0");
    for (int e = 0; e < EPISODES; e++) compare(old, new, e, e);
    soma__dataset_close(new);
    o.fps = 0; // the format tells none
    assert_int_equal(convert(&result, old, NULL, &o, &err), SOMA_BAD_INPUT);
    assert_non_null(strstr(err.text, "--fps"));
    o.fps = 5; // the folder is not empty now
    assert_int_equal(convert(&result, old, NULL, &o, &err), SOMA_BAD_INPUT);
    soma__dataset_close(old);
}

static void unreadable(void **state) {
    soma_dataset *old, *new;
    soma_converted result;
    soma_error err = {0};
    write_rlds(1);
    assert_int_equal(soma__dataset_open(&old, from, &err), SOMA_OK);
    soma_convert_opts o = all;
    assert_int_equal(convert(&result, old, NULL, &o, &err), SOMA_BAD_INPUT);
    assert_non_null(strstr(err.text, "frame 4 of observation.wrist"));
    assert_int_equal(soma__dir_remove(to, NULL), SOMA_OK);
    o.skip_bad = true;
    assert_int_equal(convert(&result, old, NULL, &o, &err), SOMA_OK);
    assert_int_equal(result.episodes, 2);
    assert_int_equal(result.skipped, 1);
    assert_int_equal(soma__dataset_open(&new, to, &err), SOMA_OK);
    compare(old, new, 0, 0);
    compare(old, new, 2, 1);
    soma__dataset_close(new);
    soma__dataset_close(old);
}

// Two datasets as one, and a part of one; what does not fit is told before anything is written.
static void merged_and_split(void **state) {
    soma_dataset *old, *new;
    soma_converted result;
    soma_error err = {0};
    write_rlds(-1);
    assert_int_equal(soma__dataset_open(&old, from, &err), SOMA_OK);
    soma_convert_opts o = all;
    soma_convert_source twice[2] = {{old, (bool[]){true, false, true}}, {old, NULL}};
    assert_int_equal(soma__dataset_convert(&result, twice, 2, to, &o, &err), SOMA_OK);
    assert_int_equal(result.episodes, 5);
    assert_int_equal(soma__dataset_open(&new, to, &err), SOMA_OK);
    static const int which[] = {0, 2, 0, 1, 2};
    for (int k = 0; k < 5; k++) compare(old, new, which[k], k);
    assert_int_equal(soma__dir_remove(from, NULL), SOMA_OK);
    soma_convert_source mixed[2] = {{new, NULL}, {old, NULL}};
    o.states = "";
    snprintf(from, sizeof from, "%s/again", dir);
    assert_int_equal(soma__dataset_convert(&result, mixed, 2, from, &o, &err), SOMA_NOT_FOUND);
    assert_non_null(strstr(err.text, "there is no vector feature \"state\""));
    assert_false(soma__dir_exists(from));
    snprintf(from, sizeof from, "%s/rlds", dir);
    soma__dataset_close(new);
    soma__dataset_close(old);
}

static void failed_allocations(void **state) {
    soma_dataset *old;
    soma_converted result;
    soma_error err = {0};
    write_rlds(-1);
    assert_int_equal(soma__dataset_open(&old, from, &err), SOMA_OK);
    soma_convert_opts o = all;
    o.cameras = "none";
    o.skip_bad = true;
    for (int n = 0;; n += 23) { // each try starts a database
        assert_int_equal(soma__dir_remove(to, NULL), SOMA_OK);
        soma__alloc_fail_after(n);
        soma_status status = convert(&result, old, NULL, &o, &err);
        soma__alloc_fail_after(-1);
        if (status == SOMA_OK) break;
        assert_int_equal(status, SOMA_NO_MEMORY);
        assert_true(n < 5000);
    }
    soma__dataset_close(old);
}

// ---- what else is recorded

enum { FRAMES = 7, GRID = 6 };

static float extra_of(int set, int e, int f, int k) {
    return k == 0 ? value(set * 10 + e, f, 5) : k == 1 ? (float)(f == FRAMES - 1) : k == 2 ? (float)(e * 100 - f) : value(set + e, f, k);
}

// Two episodes with a reward, a flag, a count and a grid per frame; without the grid where `n_extras` is 3.
static void write_recorded(const char *path, int set, int n_extras) {
    static const char *const joints[] = {"a", "b"}, *const columns[] = {"x", "y", "z"};
    static const soma_dataset_extra extras[] = {{"next.reward", "float32", 1, {1}, NULL},
                                                {"next.success", "bool", 1, {1}, NULL},
                                                {"count", "int64", 1, {1}, NULL},
                                                {"grid", "float32", 2, {2, 3}, columns}};
    const soma_dataset_spec spec = {.robot_type = "toy",
                                    .fps = 10,
                                    .n_state = 2,
                                    .n_actions = 2,
                                    .state_names = joints,
                                    .action_names = joints,
                                    .n_extras = n_extras,
                                    .extras = extras};
    soma_dataset_writer *w;
    soma_error err = {0};
    assert_int_equal(soma__dataset_writer_open(&w, path, &spec, &err), SOMA_OK);
    for (int e = 0; e < 2; e++) {
        for (int f = 0; f < FRAMES; f++) {
            float state[2] = {(float)e, (float)f}, values[3 + GRID];
            for (int k = 0; k < 3 + GRID; k++) values[k] = extra_of(set, e, f, k);
            assert_int_equal(soma__dataset_writer_frame(w, state, state, NULL, &err), SOMA_OK);
            assert_int_equal(soma__dataset_writer_extras(w, values, &err), SOMA_OK);
        }
        assert_int_equal(soma__dataset_writer_episode(w, "count", &err), SOMA_OK);
    }
    if (soma__dataset_writer_finish(w, &err)) fail_msg("%s", err.text);
    soma__dataset_writer_close(w);
}

static void check_recorded(const soma_dataset *d, const char *name, int first, int size, const char *dtype, int n_dims) {
    float out[FRAMES * GRID];
    soma_dataset_reader *r;
    soma_error err = {0};
    int feature = soma__dataset_feature(d, name);
    assert_true(feature >= 0);
    assert_string_equal(d->features[feature].dtype, dtype);
    assert_true(d->features[feature].size == size && d->features[feature].n_dims == n_dims);
    assert_int_equal(d->format->reader_open(&r, d, &err), SOMA_OK);
    for (int e = 0; e < d->n_episodes; e++) {
        if (d->format->read_vectors(r, e, feature, out, &err)) fail_msg("%s", err.text);
        for (int f = 0; f < FRAMES; f++)
            for (int k = 0; k < size; k++) assert_true(out[f * size + k] == extra_of(e / 2, e % 2, f, first + k));
    }
    d->format->reader_close(r);
}

// Two sets as one: what both have is kept with its type and shape to the bit, and what was named must be there.
static void extras_kept(void **state) {
    static const char *const parts[] = {"one", "two", "plain", "merged", "chosen", "none", "refused"};
    char path[7][SOMA_PATH_MAX];
    soma_dataset *d[2];
    soma_error err = {0};
    soma_converted result;
    for (int i = 0; i < 7; i++) snprintf(path[i], sizeof path[i], "%.100s/extras_%s", dir, parts[i]);
    write_recorded(path[0], 0, 4);
    write_recorded(path[1], 1, 4);
    write_recorded(path[2], 1, 3);
    for (int last = 1; last <= 2; last++) {
        for (int i = 0; i < 2; i++) assert_int_equal(soma__dataset_open(&d[i], path[i ? last : 0], &err), SOMA_OK);
        const soma_convert_source sources[] = {{d[0], NULL}, {d[1], NULL}};
        const soma_convert_opts o = {.cameras = ""};
        if (soma__dataset_convert(&result, sources, 2, path[2 + last], &o, &err)) fail_msg("%s", err.text);
        if (last == 2) { // the second has no grid
            const soma_convert_opts named = {.extras = "grid,next.reward"}, none = {.extras = "none"};
            assert_int_not_equal(soma__dataset_convert(&result, sources, 2, path[6], &named, &err), SOMA_OK);
            assert_non_null(strstr(err.text, "has no \"grid\" of the first dataset's shape"));
            assert_int_equal(soma__dataset_convert(&result, sources, 1, path[5], &none, &err), SOMA_OK);
        }
        for (int i = 0; i < 2; i++) soma__dataset_close(d[i]);
        assert_int_equal(soma__dataset_open(&d[0], path[2 + last], &err), SOMA_OK);
        assert_int_equal(d[0]->n_episodes, 4);
        check_recorded(d[0], "next.reward", 0, 1, "float32", 1);
        check_recorded(d[0], "next.success", 1, 1, "bool", 1);
        check_recorded(d[0], "count", 2, 1, "int64", 1);
        if (last == 1) check_recorded(d[0], "grid", 3, GRID, "float32", 2);
        assert_true((soma__dataset_feature(d[0], "grid") >= 0) == (last == 1));
        soma__dataset_close(d[0]);
    }
    assert_int_equal(soma__dataset_open(&d[0], path[5], &err), SOMA_OK);
    assert_int_equal(soma__dataset_feature(d[0], "next.reward"), -1);
    soma__dataset_close(d[0]);
}

// ---- a real one

#define BRIDGE SOMA_SOURCE_DIR "/../shared/data/rlds/bridge_dataset"

// Every number of every episode to the bit, every instruction, and the pictures within the codec's error.
static void real_bridge(void **state) {
    static const char *const kept[] = {"action",   "observation.state", "reward",      "discount",
                                       "is_first", "is_last",           "is_terminal", "language_embedding"};
    soma_dataset *old, *new;
    soma_dataset_reader *a, *b;
    soma_converted result;
    soma_error err = {0};
    if (!soma__dir_exists(BRIDGE)) skip();
    char out[SOMA_PATH_MAX];
    snprintf(out, sizeof out, "%.100s/bridge", dir);
    assert_int_equal(soma__dataset_open(&old, BRIDGE, &err), SOMA_OK);
    const soma_convert_source source = {old, NULL};
    const soma_convert_opts o = {.cameras = "observation.image_0", .fps = 5};
    if (soma__dataset_convert(&result, &source, 1, out, &o, &err)) fail_msg("%s", err.text);
    assert_int_equal(soma__dataset_open(&new, out, &err), SOMA_OK);
    assert_true(result.episodes == 25 && new->n_episodes == 25 && new->n_frames == old->frames_present);
    assert_int_equal(old->format->reader_open(&a, old, &err), SOMA_OK);
    assert_int_equal(new->format->reader_open(&b, new, &err), SOMA_OK);
    static float was[512 * 100], is[512 * 100];
    static uint8_t then[64 * 64 * 3], now[64 * 64 * 3];
    int64_t k = 0;
    double error = 0;
    for (int64_t e = 0; e < old->n_episodes; e++) {
        if (!old->episodes[e].present) continue;
        assert_string_equal(new->episodes[k].task, old->episodes[e].task);
        assert_int_equal(new->episodes[k].n_frames, old->episodes[e].n_frames);
        assert_true(old->episodes[e].n_frames <= 100);
        for (size_t f = 0; f < SOMA_COUNT(kept); f++) {
            int old_feature = soma__dataset_feature(old, kept[f]), to_feature = soma__dataset_feature(new, kept[f]);
            assert_true(old_feature >= 0 && to_feature >= 0);
            assert_int_equal(old->format->read_vectors(a, e, old_feature, was, &err), SOMA_OK);
            assert_int_equal(new->format->read_vectors(b, k, to_feature, is, &err), SOMA_OK);
            assert_memory_equal(was, is, (size_t)(old->features[old_feature].size * old->episodes[e].n_frames) * sizeof(float));
        }
        int64_t middle = old->episodes[e].n_frames / 2;
        assert_int_equal(old->format->read_image(a, e, middle, soma__dataset_feature(old, "observation.image_0"), then, &err), SOMA_OK);
        assert_int_equal(new->format->read_image(b, k++, middle, soma__dataset_feature(new, "observation.images.image_0"), now, &err),
                         SOMA_OK);
        for (size_t i = 0; i < sizeof now; i++) error += abs(then[i] - now[i]);
    }
    assert_int_equal(k, 25);
    print_message("bridge: numbers and texts exact, pictures differ by %.2f of 255 on average\n", error / (25 * sizeof now));
    assert_true(error / (25 * sizeof now) < 6);
    old->format->reader_close(a);
    new->format->reader_close(b);
    soma__dataset_close(old);
    soma__dataset_close(new);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(there_and_back),   cmocka_unit_test(unreadable),
                                       cmocka_unit_test(merged_and_split), cmocka_unit_test(extras_kept),
                                       cmocka_unit_test(real_bridge),      cmocka_unit_test(failed_allocations)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
