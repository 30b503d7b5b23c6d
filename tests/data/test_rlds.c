// SPDX-License-Identifier: Apache-2.0
// RLDS folders written here: features by path, tasks, pictures of both kinds, an absent split, damage at random places, failed allocations;
// and a real one, where it is there.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/rng.h"
#include "data/dataset.h"
#include "format/image.h"
#include "toy_jpeg.h"
#include "toy_rlds.h"
#include "whole_dataset.h"

#include <math.h>
#include <stdlib.h>
#include <unistd.h>

enum { SIDE = 16, EPISODES = 5 };

static char dir[] = "/tmp/soma_rlds_XXXXXX";

static const char features[] =
    "{\"pythonClassName\": \"FeaturesDict\", \"featuresDict\": {\"features\": {\"steps\": {\"sequence\": {\"feature\": {\"featuresDict\": "
    "{\"features\": {"
    "\"action\": {\"tensor\": {\"shape\": {\"dimensions\": [\"2\"]}, \"dtype\": \"float32\", \"encoding\": \"none\"}},"
    "\"is_last\": {\"tensor\": {\"shape\": {}, \"dtype\": \"bool\", \"encoding\": \"none\"}},"
    "\"packed\": {\"tensor\": {\"shape\": {\"dimensions\": [\"8\"]}, \"dtype\": \"float32\", \"encoding\": \"zlib\"}},"
    "\"language_instruction\": {\"text\": {}},"
    "\"observation\": {\"featuresDict\": {\"features\": {"
    "\"state\": {\"tensor\": {\"shape\": {\"dimensions\": [\"3\"]}, \"dtype\": \"float32\", \"encoding\": \"none\"}},"
    "\"wrist\": {\"image\": {\"shape\": {\"dimensions\": [\"16\", \"16\", \"3\"]}, \"dtype\": \"uint8\", \"encodingFormat\": \"png\"}},"
    "\"scene\": {\"image\": {\"shape\": {\"dimensions\": [\"-1\", \"-1\", \"3\"]}, \"dtype\": \"uint8\", \"encodingFormat\": "
    "\"jpeg\"}}}}}}}}}},"
    "\"episode_metadata\": {\"featuresDict\": {\"features\": {\"file_path\": {\"text\": {}}}}}}}}";

static int n_frames(int e) { return 3 + e; }

static void picture(uint8_t *rgb, int e, int f) {
    for (int i = 0; i < SIDE * SIDE * 3; i++) rgb[i] = (uint8_t)(e * 40 + f * 10 + i % (SIDE * 3) / 3 * 4);
}

static void put_episode(FILE *file, int e) {
    soma_str fields = {0}, example = {0}, texts = {0}, again = {0}, png = {0}, jpeg = {0};
    float action[2 * 16], state[3 * 16];
    int64_t last[16];
    soma_error err = {0};
    int n = n_frames(e);
    for (int f = 0; f < n; f++) {
        uint8_t rgb[SIDE * SIDE * 3];
        void *bytes;
        unsigned char *coded;
        unsigned long coded_size;
        size_t size;
        for (int k = 0; k < 2; k++) action[f * 2 + k] = (float)(e * 100 + f * 10 + k);
        for (int k = 0; k < 3; k++) state[f * 3 + k] = (float)(-e * 100 - f * 10 - k);
        last[f] = f == n - 1;
        picture(rgb, e, f);
        assert_int_equal(soma__png_encode(&bytes, &size, rgb, SIDE, SIDE, &err), SOMA_OK);
        put_bytes(&png, 1, bytes, size);
        soma__free(bytes);
        make_jpeg(&coded, &coded_size, rgb, SIDE, SIDE);
        put_bytes(&jpeg, 1, coded, coded_size);
        free(coded);
        put_bytes(&texts, 1, e % 2 ? "stack" : "sweep", 5);
        put_bytes(&again, 1, "pile up", e ? 7 : 0); // a second instruction, which the first episode leaves empty
    }
    put_list(&fields, "steps/observation/wrist", 1, &png);
    put_list(&fields, "steps/observation/scene", 1, &jpeg);
    put_list(&fields, "steps/language_instruction", 1, &texts);
    put_list(&fields, "steps/language_instruction_2", 1, &again);
    put_floats(&fields, "steps/action", action, (size_t)n * 2);
    put_floats(&fields, "steps/observation/state", state, (size_t)n * 3);
    put_ints(&fields, "steps/is_last", last, (size_t)n);
    put_bytes(&example, 1, fields.text, fields.len);
    put_record(file, example.text, example.len);
    soma__str_free(&fields);
    soma__str_free(&example);
}

static void put_file(const char *name, const char *text) {
    char path[SOMA_PATH_MAX];
    soma_error err = {0};
    snprintf(path, sizeof path, "%s/%s", dir, name);
    assert_int_equal(soma__file_write(path, text, strlen(text), &err), SOMA_OK);
}

static FILE *shard(int k) {
    char path[SOMA_PATH_MAX];
    snprintf(path, sizeof path, "%s/toy-train.tfrecord-%05d-of-00002", dir, k);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    return file;
}

static void write_all(void) {
    put_file("features.json", features);
    put_file("dataset_info.json",
             "{\"name\": \"toy\", \"version\": \"2.0.1\", \"fileFormat\": \"tfrecord\", \"splits\": [{\"name\": \"train\", "
             "\"shardLengths\": [\"3\", \"2\"]}, {\"name\": \"val\", \"shardLengths\": [\"4\"]}]}");
    for (int k = 0, e = 0; k < 2; k++) {
        FILE *file = shard(k);
        for (int i = 0; i < 3 - k; i++) put_episode(file, e++);
        fclose(file);
    }
}

static int setup(void **state) { return mkdtemp(dir) ? 0 : 1; }
static int teardown(void **state) { return soma__dir_remove(dir, NULL); }

static void whole(void **state) {
    soma_dataset *d;
    soma_dataset_reader *r;
    soma_error err = {0};
    write_all();
    assert_int_equal(soma__dataset_open(&d, dir, &err), SOMA_OK);
    assert_string_equal(d->format->name, "rlds");
    assert_string_equal(d->version, "2.0.1");
    assert_int_equal(d->n_episodes, EPISODES + 4);
    assert_int_equal(d->episodes_present, EPISODES);
    assert_int_equal(d->frames_present, 3 + 4 + 5 + 6 + 7);
    assert_int_equal(d->n_absent, 1);
    assert_string_equal(d->absent[0], "toy-val.tfrecord-00000-of-00001");
    assert_int_equal(d->n_faults, 0);
    assert_int_equal(d->episodes[0].n_others, 0);
    assert_true(d->episodes[1].n_others == 1 && !strcmp(d->episodes[1].others[0], "pile up"));
    assert_int_equal(d->n_features, 7);
    int action = soma__dataset_feature(d, "action"), position = soma__dataset_feature(d, "observation.state");
    int wrist = soma__dataset_feature(d, "observation.wrist"), scene = soma__dataset_feature(d, "observation.scene");
    int last = soma__dataset_feature(d, "is_last");
    assert_true(action >= 0 && position >= 0 && wrist >= 0 && scene >= 0 && last >= 0);
    assert_int_equal(d->features[soma__dataset_feature(d, "packed")].kind, SOMA_FEATURE_OTHER);
    assert_int_equal(d->features[scene].shape[0], SIDE); // told by the first picture
    assert_int_equal(soma__dataset_feature(d, "file_path"), -1);
    assert_int_equal(d->format->reader_open(&r, d, &err), SOMA_OK);
    for (int e = EPISODES - 1; e >= 0; e--) {
        float a[32], s[48], l[16];
        uint8_t rgb[SIDE * SIDE * 3], want[SIDE * SIDE * 3];
        assert_string_equal(d->episodes[e].task, e % 2 ? "stack" : "sweep");
        assert_int_equal(d->episodes[e].n_frames, n_frames(e));
        assert_int_equal(d->format->read_vectors(r, e, action, a, &err), SOMA_OK);
        assert_int_equal(d->format->read_vectors(r, e, position, s, &err), SOMA_OK);
        assert_int_equal(d->format->read_vectors(r, e, last, l, &err), SOMA_OK);
        for (int f = 0; f < n_frames(e); f++) {
            assert_true(a[f * 2 + 1] == (float)(e * 100 + f * 10 + 1));
            assert_true(s[f * 3 + 2] == (float)(-e * 100 - f * 10 - 2));
            assert_true(l[f] == (float)(f == n_frames(e) - 1));
            picture(want, e, f);
            assert_int_equal(d->format->read_image(r, e, f, wrist, rgb, &err), SOMA_OK);
            assert_memory_equal(rgb, want, sizeof rgb);
            assert_int_equal(d->format->read_image(r, e, f, scene, rgb, &err), SOMA_OK);
            for (size_t i = 0; i < sizeof rgb; i++) assert_true(abs(rgb[i] - want[i]) <= 3);
        }
    }
    d->format->reader_close(r);
    json_t *info = soma__dataset_info(d);
    assert_int_equal(json_integer_value(json_object_get(info, "episodes_present")), EPISODES);
    json_decref(info);
    soma__dataset_close(d);
}

// One byte of the last record's data is another: the others stay usable.
static void wrong_checksum(void **state) {
    char path[SOMA_PATH_MAX];
    soma_dataset *d;
    soma_error err = {0};
    int n = 0;
    write_all();
    snprintf(path, sizeof path, "%s/toy-train.tfrecord-00001-of-00002", dir);
    FILE *file = fopen(path, "r+b");
    fseek(file, -40, SEEK_END);
    int byte = fgetc(file);
    fseek(file, -40, SEEK_END);
    fputc(byte ^ 16, file);
    fclose(file);
    assert_int_equal(soma__dataset_open(&d, dir, &err), SOMA_OK);
    assert_int_equal(read_whole(d, &n, &err), SOMA_BAD_INPUT);
    assert_int_equal(n, EPISODES - 1);
    assert_non_null(strstr(err.text, "toy-train.tfrecord-00001-of-00002"));
    assert_non_null(strstr(err.text, "checksum of the record at byte"));
    soma__dataset_close(d);
}

// A shard cut anywhere: what stands before the cut can be read, the rest is a fault that names file and byte.
static void cut_anywhere(void **state) {
    char path[SOMA_PATH_MAX];
    soma_error err = {0};
    soma_rng rng = soma__rng(11);
    write_all();
    snprintf(path, sizeof path, "%s/toy-train.tfrecord-00000-of-00002", dir);
    char *bytes;
    size_t size;
    assert_int_equal(soma__file_read(&bytes, &size, path, 1 << 24, &err), SOMA_OK);
    for (int i = 0; i < 60; i++) {
        soma_dataset *d;
        int n = 0;
        size_t cut = (size_t)soma__rng_below(&rng, size);
        FILE *file = fopen(path, "wb");
        fwrite(bytes, 1, cut, file);
        fclose(file);
        assert_int_equal(soma__dataset_open(&d, dir, &err), SOMA_OK);
        assert_int_equal(d->n_faults, 1);
        assert_non_null(strstr(d->faults[0], "toy-train.tfrecord-00000-of-00002"));
        assert_int_equal(read_whole(d, &n, &err), SOMA_OK);
        assert_int_equal(n, d->episodes_present);
        assert_true(n >= 2 && n < EPISODES);
        soma__dataset_close(d);
    }
    for (int i = 0; i < 300; i++) { // a byte anywhere, and its checksums made right again: an error or values, never a crash
        soma_dataset *d;
        int n = 0;
        FILE *file = shard(0);
        for (size_t at = 0; at < size;) {
            soma_tfrecord r;
            assert_int_equal(soma__tfrecord_at(&r, (unsigned char *)bytes, size, at, "f", &err), SOMA_OK);
            char *byte = bytes + at + 12 + soma__rng_below(&rng, r.size), kept = *byte;
            *byte = (char)soma__rng_u64(&rng);
            put_record(file, bytes + at + 12, r.size);
            *byte = kept;
            at = r.next;
        }
        fclose(file);
        assert_int_equal(soma__dataset_open(&d, dir, &err), SOMA_OK);
        read_whole(d, &n, &err);
        soma__dataset_close(d);
    }
    soma__free(bytes);
}

static void metadata(void **state) {
    static const struct {
        const char *name, *text, *says;
    } bad[] = {
        {"dataset_info.json", "{\"name\": \"toy\", \"splits\": [{\"name\": \"train\", \"shardLengths\": [\"99999999999\"]}]}",
         "shardLengths"},
        {"dataset_info.json", "{\"name\": \"toy\", \"splits\": [{\"name\": \"train\", \"shardLengths\": [\"x\"]}]}", "shardLengths"},
        {"dataset_info.json", "{\"name\": \"toy\", \"splits\": [{\"name\": \"train\"}]}", "shardLengths"},
        {"dataset_info.json", "{\"name\": \"../toy\", \"splits\": [{\"name\": \"train\", \"shardLengths\": [1]}]}", "shard's name"},
        {"dataset_info.json", "{\"name\": \"toy\", \"fileFormat\": \"riegeli\", \"splits\": []}", "riegeli"},
        {"features.json", "{\"featuresDict\": {\"features\": {\"image\": {}}}}", "steps"},
    };
    for (size_t i = 0; i < SOMA_COUNT(bad); i++) {
        soma_dataset *d;
        soma_error err = {0};
        write_all();
        put_file(bad[i].name, bad[i].text);
        assert_int_not_equal(soma__dataset_open(&d, dir, &err), SOMA_OK);
        assert_null(d);
        assert_non_null(strstr(err.text, bad[i].name));
        assert_non_null(strstr(err.text, bad[i].says));
    }
}

static void failed_allocations(void **state) {
    write_all();
    assert_true(fail_each_allocation(dir) > 4);
}

// TensorFlow Datasets keeps a dataset's versions in folders of their own; the newest counts.
static void version_folder(void **state) {
    char inner[SOMA_PATH_MAX];
    soma_dataset *d;
    soma_error err = {0};
    static const char *const files[] = {"features.json", "dataset_info.json", "toy-train.tfrecord-00000-of-00002",
                                        "toy-train.tfrecord-00001-of-00002"};
    write_all();
    snprintf(inner, sizeof inner, "%s/1.10.0", dir);
    assert_int_equal(soma__dir_make(inner, &err), SOMA_OK);
    for (size_t i = 0; i < SOMA_COUNT(files); i++) {
        char from[SOMA_PATH_MAX], to[SOMA_PATH_MAX + 100];
        snprintf(from, sizeof from, "%s/%s", dir, files[i]);
        snprintf(to, sizeof to, "%s/%s", inner, files[i]);
        assert_int_equal(rename(from, to), 0);
    }
    snprintf(inner, sizeof inner, "%s/1.9.0", dir);
    assert_int_equal(soma__dir_make(inner, &err), SOMA_OK);
    assert_int_equal(soma__dataset_open(&d, dir, &err), SOMA_OK);
    assert_non_null(strstr(d->path, "1.10.0"));
    assert_int_equal(d->episodes_present, EPISODES);
    soma__dataset_close(d);
}

static void real(void **state) {
    soma_dataset *d;
    soma_error err = {0};
    int n = 0;
    const char *path = SOMA_SOURCE_DIR "/../shared/data/rlds/bridge_dataset";
    if (!soma__dir_exists(path)) {
        print_message("%s is absent\n", path);
        skip();
    }
    assert_int_equal(soma__dataset_open(&d, path, &err), SOMA_OK);
    assert_int_equal(d->n_episodes, 50); // train and val, of which val is not in this copy
    assert_int_equal(d->episodes_present, 25);
    assert_int_equal(d->n_faults, 0);
    assert_int_equal(read_whole(d, &n, &err), SOMA_OK);
    assert_int_equal(n, 25);
    soma__dataset_close(d);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(whole),    cmocka_unit_test(wrong_checksum),     cmocka_unit_test(cut_anywhere),
                                       cmocka_unit_test(metadata), cmocka_unit_test(failed_allocations), cmocka_unit_test(version_folder),
                                       cmocka_unit_test(real)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
