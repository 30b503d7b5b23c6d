// SPDX-License-Identifier: Apache-2.0
// HDF5 files written here in ALOHA's and robomimic's layouts: names, tasks, rates, raw and coded pictures, faults, cut files, files that
// want something elsewhere, failed allocations; and a real one, where it is there.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/file.h"
#include "base/rng.h"
#include "data/dataset.h"

#include <stdlib.h>
#include <string.h>

#if __has_include(<hdf5.h>)
#include "toy_jpeg.h"
#include "whole_dataset.h"

#include <hdf5.h>

enum { SIDE = 16, FRAMES = 5, PADDED = 1500 };

static char dir[] = "/tmp/soma_hdf5_XXXXXX";
static int setup(void **state) { return mkdtemp(dir) ? 0 : 1; }
static int teardown(void **state) { return soma__dir_remove(dir, NULL); }

static void clear(void) {
    assert_int_equal(soma__dir_remove(dir, NULL), SOMA_OK);
    assert_int_equal(soma__dir_make(dir, NULL), SOMA_OK);
}

// ---- writing

static void put(hid_t at, const char *name, hid_t type, int n_dims, const hsize_t *dims, const void *data) {
    hid_t space = H5Screate_simple(n_dims, dims, NULL), links = H5Pcreate(H5P_LINK_CREATE), plist = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_create_intermediate_group(links, 1);
    if (n_dims > 1) { // as h5py's compression="gzip"
        hsize_t chunk[4] = {1, dims[1], n_dims > 2 ? dims[2] : 1, n_dims > 3 ? dims[3] : 1};
        H5Pset_chunk(plist, n_dims, chunk);
        H5Pset_deflate(plist, 4);
    }
    hid_t id = H5Dcreate2(at, name, type, space, links, plist, H5P_DEFAULT);
    assert_true(id >= 0 && H5Dwrite(id, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0);
    H5Dclose(id);
    H5Pclose(plist);
    H5Pclose(links);
    H5Sclose(space);
}

static void put_text(hid_t at, const char *object, const char *name, const char *text) {
    hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate(H5S_SCALAR);
    H5Tset_size(type, strlen(text));
    hid_t id = H5Acreate_by_name(at, object, name, type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(id >= 0 && H5Awrite(id, type, text) >= 0);
    H5Aclose(id);
    H5Sclose(space);
    H5Tclose(type);
}

static void put_number(hid_t at, const char *object, const char *name, long long value) {
    hid_t space = H5Screate(H5S_SCALAR),
          id = H5Acreate_by_name(at, object, name, H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(id >= 0 && H5Awrite(id, H5T_NATIVE_LLONG, &value) >= 0);
    H5Aclose(id);
    H5Sclose(space);
}

static void picture(uint8_t *rgb, int e, int f) {
    for (int i = 0; i < SIDE * SIDE * 3; i++) rgb[i] = (uint8_t)(e * 40 + f * 10 + i % (SIDE * 3) / 3 * 4);
}

// Numbers of an episode: e * 100 + f * 10 + k.
static void put_numbers(hid_t at, const char *name, int e, int n_frames, int size) {
    double values[FRAMES * 8 + 64];
    for (int f = 0; f < n_frames; f++)
        for (int k = 0; k < size; k++) values[f * size + k] = e * 100 + f * 10 + k;
    put(at, name, H5T_NATIVE_DOUBLE, 2, (hsize_t[]){(hsize_t)n_frames, (hsize_t)size}, values);
}

static hid_t create(char path[SOMA_PATH_MAX], const char *name) {
    snprintf(path, SOMA_PATH_MAX, "%s/%s", dir, name);
    hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(file >= 0);
    return file;
}

static void write_aloha(int e, bool compressed) {
    char path[SOMA_PATH_MAX], name[40];
    snprintf(name, sizeof name, "episode_%d.hdf5", e);
    hid_t file = create(path, name);
    put_numbers(file, "action", e, FRAMES, 4);
    put_numbers(file, "observations/qpos", e, FRAMES, 4);
    put_numbers(file, "observations/qvel", e, FRAMES, 4);
    put_text(file, "/", "task", e == 1 ? "fold" : "pour");
    put_number(file, "/", "sim", 1);
    uint8_t pictures[FRAMES * SIDE * SIDE * 3], *coded = calloc(FRAMES, PADDED);
    for (int f = 0; f < FRAMES; f++) picture(pictures + f * SIDE * SIDE * 3, e, f);
    for (int f = 0; f < FRAMES; f++) {
        unsigned char *bytes;
        unsigned long size;
        make_jpeg(&bytes, &size, pictures + f * SIDE * SIDE * 3, SIDE, SIDE);
        assert_true(size < PADDED);
        memcpy(coded + f * PADDED, bytes, size);
        free(bytes);
    }
    if (compressed) put(file, "observations/images/cam_high", H5T_NATIVE_UINT8, 2, (hsize_t[]){FRAMES, PADDED}, coded);
    if (!compressed) put(file, "observations/images/cam_high", H5T_NATIVE_UINT8, 4, (hsize_t[]){FRAMES, SIDE, SIDE, 3}, pictures);
    free(coded);
    H5Fclose(file);
}

static void write_robomimic(char path[SOMA_PATH_MAX], int n, int wrong_count) {
    hid_t file = create(path, "demo.hdf5");
    uint8_t pictures[FRAMES * SIDE * SIDE * 3];
    for (int e = 0; e < n; e++) {
        char name[100];
        snprintf(name, sizeof name, "data/demo_%d/actions", e);
        put_numbers(file, name, e, FRAMES, 3);
        snprintf(name, sizeof name, "data/demo_%d/obs/robot0_eef_pos", e);
        put_numbers(file, name, e, FRAMES, 3);
        snprintf(name, sizeof name, "data/demo_%d/next_obs/robot0_eef_pos", e);
        put_numbers(file, name, e, FRAMES, 3);
        snprintf(name, sizeof name, "data/demo_%d/obs/agentview_image", e);
        for (int f = 0; f < FRAMES; f++) picture(pictures + f * SIDE * SIDE * 3, e, f);
        put(file, name, H5T_NATIVE_UINT8, 4, (hsize_t[]){FRAMES, SIDE, SIDE, 3}, pictures);
        snprintf(name, sizeof name, "data/demo_%d", e);
        put_number(file, name, "num_samples", e == wrong_count ? FRAMES + 1 : FRAMES);
    }
    put_text(file, "data", "env_args", "{\"env_name\": \"Lift\", \"env_kwargs\": {\"control_freq\": 20, \"robots\": [\"Panda\"]}}");
    put_text(file, "data", "problem_info", "{\"language_instruction\": [\"lift the cube\"]}");
    H5Fclose(file);
}

// ---- reading

static soma_dataset *opened(const char *path) {
    soma_dataset *d;
    soma_error err = {0};
    if (soma__dataset_open(&d, path, &err)) fail_msg("%s", err.text);
    return d;
}

static void check_values(const soma_dataset *d, const char *name, int64_t e, int size) {
    soma_dataset_reader *r;
    soma_error err = {0};
    float values[FRAMES * 8];
    int f = soma__dataset_feature(d, name);
    assert_true(f >= 0);
    assert_int_equal(d->features[f].size, size);
    assert_int_equal(d->format->reader_open(&r, d, &err), SOMA_OK);
    assert_int_equal(d->format->read_vectors(r, e, f, values, &err), SOMA_OK);
    for (int i = 0; i < FRAMES; i++)
        for (int k = 0; k < size; k++) assert_true(values[i * size + k] == (float)(e * 100 + i * 10 + k));
    d->format->reader_close(r);
}

static void check_pictures(const soma_dataset *d, const char *name, int64_t e, int tolerance) {
    soma_dataset_reader *r;
    soma_error err = {0};
    uint8_t rgb[SIDE * SIDE * 3], want[SIDE * SIDE * 3];
    int f = soma__dataset_feature(d, name);
    assert_true(f >= 0);
    assert_int_equal(d->features[f].kind, SOMA_FEATURE_IMAGE);
    assert_int_equal(d->format->reader_open(&r, d, &err), SOMA_OK);
    for (int i = FRAMES - 1; i >= 0; i--) {
        picture(want, (int)e, i);
        assert_int_equal(d->format->read_image(r, e, i, f, rgb, &err), SOMA_OK);
        for (size_t k = 0; k < sizeof rgb; k++) assert_true(abs(rgb[k] - want[k]) <= tolerance);
    }
    d->format->reader_close(r);
}

static void aloha(void **state) {
    for (int compressed = 0; compressed < 2; compressed++) {
        clear();
        for (int e = 0; e < 11; e++) write_aloha(e, compressed);
        soma_dataset *d = opened(dir);
        assert_string_equal(d->format->name, "hdf5");
        assert_int_equal(d->n_episodes, 11);
        assert_int_equal(d->frames_present, 11 * FRAMES);
        assert_true(d->fps == 50);
        assert_string_equal(d->episodes[1].task, "fold");
        for (int e = 0; e < 11; e++) { // episode_10 comes behind episode_9
            check_values(d, "action", e, 4);
            check_values(d, "observation.state", e, 4);
            check_values(d, "observation.qvel", e, 4);
            check_pictures(d, "observation.images.cam_high", e, compressed ? 3 : 0);
        }
        soma__dataset_close(d);
    }
}

static void robomimic(void **state) {
    char path[SOMA_PATH_MAX];
    soma_error err = {0};
    int n = 0;
    clear();
    write_robomimic(path, 12, 3);
    soma_dataset *d = opened(path);
    assert_int_equal(d->n_episodes, 12);
    assert_int_equal(d->episodes_present, 11);
    assert_int_equal(d->n_faults, 1);
    assert_non_null(strstr(d->faults[0], "/data/demo_3/actions has 5 rows, the attribute num_samples says 6"));
    assert_true(d->fps == 20);
    assert_string_equal(d->robot_type, "Panda");
    assert_string_equal(d->episodes[0].task, "lift the cube");
    assert_int_equal(d->n_features, 3); // next_obs is left out
    check_values(d, "actions", 11, 3);
    check_values(d, "observation.robot0_eef_pos", 10, 3);
    check_pictures(d, "observation.images.agentview_image", 10, 0);
    assert_int_equal(read_whole(d, &n, &err), SOMA_OK);
    assert_int_equal(n, 11);
    soma__dataset_close(d);
    d = opened(dir); // the folder that holds it
    assert_int_equal(d->n_episodes, 12);
    soma__dataset_close(d);
    snprintf(path, sizeof path, "%s/config.json", dir); // a checkpoint, which may have its weights as HDF5
    assert_int_equal(soma__file_write(path, "{}", 2, &err), SOMA_OK);
    assert_int_equal(soma__dataset_open(&d, dir, &err), SOMA_UNSUPPORTED);
}

// One episode with other sizes than the first: told with file and array.
static void another_size(void **state) {
    char path[SOMA_PATH_MAX];
    soma_error err = {0};
    int n = 0;
    clear();
    write_aloha(0, false);
    hid_t file = create(path, "episode_1.hdf5");
    put_numbers(file, "action", 1, FRAMES, 5);
    H5Fclose(file);
    soma_dataset *d = opened(dir);
    assert_int_equal(read_whole(d, &n, &err), SOMA_BAD_INPUT);
    assert_non_null(strstr(err.text, "episode_1.hdf5"));
    assert_non_null(strstr(err.text, "wanted are 5 of 4"));
    soma__dataset_close(d);
}

// A file that wants data from other files gets none.
static void elsewhere(void **state) {
    char path[SOMA_PATH_MAX], other[SOMA_PATH_MAX];
    soma_dataset *d;
    soma_error err = {0};
    clear();
    write_aloha(7, false);
    snprintf(other, sizeof other, "%s/episode_7.hdf5", dir);
    hid_t file = create(path, "linked.h5x");
    H5Lcreate_external(other, "/action", file, "action", H5P_DEFAULT, H5P_DEFAULT);
    H5Fclose(file);
    char linked[SOMA_PATH_MAX];
    snprintf(linked, sizeof linked, "%s/../%s.hdf5", dir, strrchr(dir, '/') + 1);
    assert_int_equal(rename(path, linked), 0);
    assert_int_equal(soma__dataset_open(&d, linked, &err), SOMA_BAD_INPUT);
    assert_non_null(strstr(err.text, "holds no episode"));
    file = H5Fcreate(linked, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    hsize_t dims[2] = {4, 2};
    hid_t space = H5Screate_simple(2, dims, NULL), plist = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_external(plist, "/etc/passwd", 0, 32);
    hid_t id = H5Dcreate2(file, "action", H5T_NATIVE_FLOAT, space, H5P_DEFAULT, plist, H5P_DEFAULT);
    H5Dclose(id);
    H5Pclose(plist);
    plist = H5Pcreate(H5P_DATASET_CREATE); // a chunk that would take 1 GB
    hsize_t chunk[2] = {16384, 16384}, whole[2] = {1 << 30, 16384};
    H5Pset_chunk(plist, 2, chunk);
    hid_t large = H5Screate_simple(2, whole, NULL);
    H5Dclose(H5Dcreate2(file, "actions", H5T_NATIVE_FLOAT, large, H5P_DEFAULT, plist, H5P_DEFAULT));
    H5Pclose(plist);
    H5Sclose(large);
    H5Sclose(space);
    H5Fclose(file);
    assert_int_equal(soma__dataset_open(&d, linked, &err), SOMA_BAD_INPUT);
    file = H5Fcreate(linked, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT); // a shape of petabytes that nobody wrote
    whole[1] = 1 << 20;
    large = H5Screate_simple(2, whole, NULL);
    H5Dclose(H5Dcreate2(file, "action", H5T_NATIVE_FLOAT, large, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    H5Sclose(large);
    H5Fclose(file);
    assert_int_equal(soma__dataset_open(&d, linked, &err), SOMA_BAD_INPUT);
    remove(linked);
}

// Cut anywhere: a sentence that names the file, or the same values.
static void cut_anywhere(void **state) {
    char path[SOMA_PATH_MAX], *bytes;
    size_t size;
    soma_error err = {0};
    soma_rng rng = soma__rng(2);
    clear();
    write_robomimic(path, 2, -1);
    assert_int_equal(soma__file_read(&bytes, &size, path, 1 << 24, &err), SOMA_OK);
    for (int i = 0; i < 60; i++) {
        soma_dataset *d;
        int n = 0;
        FILE *file = fopen(path, "wb");
        fwrite(bytes, 1, (size_t)soma__rng_below(&rng, size), file);
        fclose(file);
        soma_status status = soma__dataset_open(&d, path, &err);
        if (status == SOMA_OK) {
            status = read_whole(d, &n, &err);
            soma__dataset_close(d);
        }
        assert_int_equal(status, SOMA_BAD_INPUT);
        assert_non_null(strstr(err.text, "demo.hdf5"));
    }
    soma__free(bytes);
}

static void failed_allocations(void **state) {
    char path[SOMA_PATH_MAX];
    clear();
    write_robomimic(path, 2, -1);
    assert_true(fail_each_allocation(path) > 15);
}

static void real(void **state) {
    const char *path = SOMA_SOURCE_DIR "/../shared/data/hdf5/bc_cart_pendulum/demo/demo.hdf5";
    soma_error err = {0};
    int n = 0;
    if (!soma__file_exists(path)) {
        print_message("%s is absent\n", path);
        skip();
    }
    soma_dataset *d = opened(path);
    assert_int_equal(d->n_episodes, 100);
    assert_int_equal(d->features[soma__dataset_feature(d, "action")].size, 1);
    assert_int_equal(d->features[soma__dataset_feature(d, "observation.state")].size, 4);
    assert_int_equal(read_whole(d, &n, &err), SOMA_OK);
    assert_int_equal(n, 100);
    soma__dataset_close(d);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(aloha),     cmocka_unit_test(robomimic),    cmocka_unit_test(another_size),
                                       cmocka_unit_test(elsewhere), cmocka_unit_test(cut_anywhere), cmocka_unit_test(failed_allocations),
                                       cmocka_unit_test(real)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
#else
static void without(void **state) {
    print_message("built without libhdf5\n");
    skip();
}
int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(without)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
#endif
