// SPDX-License-Identifier: Apache-2.0
// Datasets that others recorded (../shared/data, described in its README): counts, numbers against the statistics that LeRobot wrote,
// pictures of every codec, what is absent. Skipped where they are not there.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/file.h"
#include "data/dataset.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DATA SOMA_SOURCE_DIR "/../shared/data/lerobot/"

static soma_dataset *open_real(const char *name) {
    char path[SOMA_PATH_MAX];
    soma_dataset *d;
    soma_error err = {0};
    snprintf(path, sizeof path, DATA "%s", name);
    if (!soma__dir_exists(path)) {
        print_message("skipped: ../shared/data/lerobot/%s is absent\n", name);
        skip();
    }
    if (soma__dataset_open(&d, path, &err)) fail_msg("%s", err.text);
    return d;
}

static void expect(const soma_dataset *d, const char *version, double fps, int64_t episodes, int64_t frames, int64_t present,
                   int64_t frames_present) {
    assert_string_equal(d->version, version);
    assert_true(d->fps == fps);
    assert_int_equal(d->n_episodes, episodes);
    assert_int_equal(d->n_frames, frames);
    assert_int_equal(d->episodes_present, present);
    assert_int_equal(d->frames_present, frames_present);
}

static int64_t with_pictures(const soma_dataset *d) {
    int64_t n = 0;
    for (int64_t e = 0; e < d->n_episodes; e++) n += d->episodes[e].present && d->episodes[e].video_present;
    return n;
}

// Our statistics against meta/stats.json; `tolerance` relative to the feature's spread.
static void compare_stats(const soma_dataset *d, const char *feature, double tolerance) {
    soma_feature_stats s;
    soma_error err = {0};
    char path[SOMA_PATH_MAX];
    json_t *all;
    int f = soma__dataset_feature(d, feature);
    assert_true(f >= 0);
    if (soma__dataset_stats(&s, d, f, NULL, 0, &err)) fail_msg("%s", err.text);
    snprintf(path, sizeof path, "%s/meta/stats.json", d->path);
    assert_int_equal(soma__json_load(&all, path, &err), SOMA_OK);
    const json_t *theirs = json_object_get(all, feature);
    const char *names[] = {"mean", "std", "min", "max"};
    const double *ours[] = {s.mean, s.std, s.min, s.max};
    for (int k = 0; k < 4; k++)
        for (int64_t i = 0; i < d->features[f].size; i++) {
            double value = json_number_value(json_array_get(json_object_get(theirs, names[k]), (size_t)i));
            if (fabs(ours[k][i] - value) > tolerance * (s.max[i] - s.min[i] + 1e-6))
                fail_msg("%s of %s[%lld]: %.9g, LeRobot says %.9g", names[k], feature, (long long)i, ours[k][i], value);
        }
    json_decref(all);
    soma__feature_stats_free(&s);
}

// Every 20th picture of the episodes that have them: readable, neither flat nor the same all the time. Returns how many there were.
static int look(const soma_dataset *d, const char *camera) {
    soma_dataset_reader *r;
    soma_error err = {0};
    int f = soma__dataset_feature(d, camera), n = 0, different = 0;
    size_t size = (size_t)d->features[f].size;
    uint8_t *rgb = malloc(size), *last = calloc(size, 1);
    assert_int_equal(d->format->reader_open(&r, d, &err), SOMA_OK);
    for (int64_t e = 0; e < d->n_episodes; e++)
        for (int64_t i = 0; d->format->present(d, e, f) && i < d->episodes[e].n_frames; i += 20, n++) {
            if (d->format->read_image(r, e, i, f, rgb, &err)) fail_msg("%s", err.text);
            double sum = 0, squares = 0;
            for (size_t p = 0; p < size; p++) {
                sum += rgb[p];
                squares += (double)rgb[p] * rgb[p];
            }
            assert_true(squares / (double)size - sum * sum / (double)size / (double)size > 100);
            different += memcmp(rgb, last, size) != 0;
            memcpy(last, rgb, size);
        }
    assert_true(different > n / 2);
    for (int64_t e = 0; e < d->n_episodes; e++) { // the last frame of each is there, too
        if (d->format->present(d, e, f) && d->format->read_image(r, e, d->episodes[e].n_frames - 1, f, rgb, &err)) fail_msg("%s", err.text);
    }
    d->format->reader_close(r);
    free(rgb);
    free(last);
    return n;
}

static void gr1(void **state) {
    soma_dataset *d = open_real("gr1_sim_picknplace_v20");
    expect(d, "v2.0", 20, 5, 2096, 5, 2096);
    assert_int_equal(d->n_absent, 5); // a second camera that info.json declares and nobody recorded
    assert_int_equal(with_pictures(d), 5);
    assert_false(soma__dataset_has(d, soma__dataset_feature(d, "observation.images.egoview")));
    assert_true(soma__dataset_has(d, soma__dataset_feature(d, "observation.images.ego_view")));
    const soma_feature *state_feature = &d->features[soma__dataset_feature(d, "observation.state")];
    assert_string_equal(state_feature->dtype, "float64");
    assert_int_equal(state_feature->size, 44);
    assert_string_equal(state_feature->names[43], "motor_43");
    assert_string_equal(d->episodes[3].task, "pick the salt from the counter and place it in the plate");
    assert_true(look(d, "observation.images.ego_view") > 100);
    soma__dataset_close(d);
}

static void unitree(void **state) {
    soma_dataset *d = open_real("unitree_g1_inspire_real_v21");
    expect(d, "v2.1", 30, 100, 35965, 10, 4236);
    assert_int_equal(d->n_absent, 90 + 97);
    assert_int_equal(with_pictures(d), 3);
    assert_true(d->episodes[1].video_present && d->episodes[2].video_present && d->episodes[4].video_present);
    assert_string_equal(d->features[soma__dataset_feature(d, "action")].names[25], "kRightHandThumbRotation");
    assert_true(look(d, "observation.images.cam_high") > 50);
    soma_dataset_reader *r;
    soma_error err = {0};
    static float action[400 * 26];
    assert_int_equal(d->format->reader_open(&r, d, &err), SOMA_OK);
    if (d->format->read_vectors(r, 1, soma__dataset_feature(d, "action"), action, &err)) fail_msg("%s", err.text);
    assert_int_equal(d->format->read_vectors(r, 10, soma__dataset_feature(d, "action"), action, &err), SOMA_NOT_FOUND);
    assert_non_null(strstr(err.text, "episode_000010.parquet"));
    d->format->reader_close(r);
    soma__dataset_close(d);
}

static void so101(void **state) {
    soma_dataset *d = open_real("so101_real_v30");
    expect(d, "v3.0", 30, 4, 1492, 4, 1492);
    assert_int_equal(d->n_absent, 2);
    assert_int_equal(with_pictures(d), 0);
    assert_string_equal(d->episodes[0].task, "Pick the orange cube and place it in the box");
    assert_string_equal(d->robot_type, "so101_follower");
    compare_stats(d, "action", 1e-4); // LeRobot's deviation is a running one: 4e-5 away from the exact value in action[4]
    compare_stats(d, "observation.state", 1e-4);
    soma__dataset_close(d);
}

static void pusht(void **state) {
    soma_dataset *d = open_real("pusht_v30/pusht_image_slice");
    expect(d, "v3.0", 10, 3, 420, 3, 420);
    assert_int_equal(d->n_absent, 0);
    assert_int_equal(with_pictures(d), 3);
    compare_stats(d, "observation.state", 1e-5);
    assert_int_equal(look(d, "observation.image"), 23);
    soma_dataset_reader *r;
    soma_error err = {0};
    float success[200];
    assert_int_equal(d->format->reader_open(&r, d, &err), SOMA_OK);
    assert_int_equal(d->format->read_vectors(r, 0, soma__dataset_feature(d, "next.success"), success, &err), SOMA_OK);
    assert_true(success[0] == 0);
    d->format->reader_close(r);
    soma__dataset_close(d);
    d = open_real("pusht_v30/pusht_slice");
    expect(d, "v3.0", 10, 3, 420, 3, 420);
    assert_int_equal(d->n_absent, 1);
    soma__dataset_close(d);
}

static void dualarm(void **state) {
    soma_dataset *d = open_real("dualarm_hands_real_v30");
    expect(d, "v3.0", 30, 50, 20814, 20, 8787);
    assert_int_equal(d->n_absent, 30 + 50);
    assert_int_equal(with_pictures(d), 0);
    assert_non_null(strstr(d->hint, "lies in video/, while meta/info.json says videos/"));
    soma__dataset_close(d);

    // put right by links in a folder of our own, its three videos can be read
    char dir[] = "/tmp/soma_dualarm_XXXXXX", link[SOMA_PATH_MAX];
    const char *const links[][2] = {{"meta", "meta"}, {"data", "data"}, {"video", "videos"}};
    soma_error err = {0};
    assert_non_null(mkdtemp(dir));
    for (size_t i = 0; i < 3; i++) {
        char from[SOMA_PATH_MAX];
        snprintf(from, sizeof from, DATA "dualarm_hands_real_v30/%s", links[i][0]);
        assert_int_equal(soma__path_join(link, dir, links[i][1], &err), SOMA_OK);
        assert_int_equal(symlink(from, link), 0);
    }
    if (soma__dataset_open(&d, dir, &err)) fail_msg("%s", err.text);
    assert_int_equal(with_pictures(d), 3);
    assert_string_equal(d->hint, "");
    assert_true(look(d, "image") > 30);
    soma__dataset_close(d);
    assert_int_equal(soma__dir_remove(dir, &err), SOMA_OK);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gr1), cmocka_unit_test(unitree), cmocka_unit_test(so101), cmocka_unit_test(pusht), cmocka_unit_test(dualarm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
