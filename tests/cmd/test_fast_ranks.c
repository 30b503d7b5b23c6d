// SPDX-License-Identifier: Apache-2.0
// `mpirun -n R soma fast fit`: the files of one rank, byte for byte, from arrays and from a dataset's episodes; a rank that cannot read its
// share ends all of them with its sentence, and nothing is written. Skipped where mpirun or MPI is absent, and under the sanitizers, which
// know nothing of what MPI does (tests/text has ranks that are threads).
#include "cmd/program.h"

#include "base/file.h"
#include "base/rng.h"
#include "format/npy.h"
#include "toy_dataset.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { N = 400, T = 10, A = 3, EPISODES = 5 };

static char dir[] = "/tmp/soma_fast_ranks_XXXXXX";

static int frames_of(int episode) { return 20 + 15 * episode; }
static const char *task_of(int episode) { return "wave"; }
static void frame_of(int episode, int frame, float *state, float *action, uint8_t *picture) {
    for (int k = 0; k < 2; k++) state[k] = action[k] = sinf(0.1f * (float)(frame * (k + 1)) + (float)episode);
}

static bool write_dataset(const char *name) {
    static const char *const names[] = {"x", "y"};
    static const toy_dataset toy = {.n_state = 2,
                                    .n_actions = 2,
                                    .side = 16,
                                    .fps = 10,
                                    .names = names,
                                    .episodes = EPISODES,
                                    .shard_episodes = 1,
                                    .n_frames = frames_of,
                                    .task = task_of,
                                    .frame = frame_of};
    char path[100];
    soma_error err = {0};
    snprintf(path, sizeof path, "%s/%s", dir, name);
    if (!write_toy_dataset(&toy, path, &err)) return true;
    fprintf(stderr, "%s\n", err.text);
    return false;
}

static int make_data(void **state) {
    static double chunks[N * T * A];
    soma_rng rng = soma__rng(2);
    int64_t shape[] = {N, T, A};
    char path[100];
    if (!mkdtemp(dir)) return 1;
    for (int i = 0; i < N * T * A; i++) chunks[i] = (i % T ? chunks[i - 1] : 0) + 0.1 * soma__rng_normal(&rng);
    snprintf(path, sizeof path, "%s/chunks.npy", dir);
    if (soma__npy_write(path, SOMA_F64, shape, 3, chunks, NULL)) return 1;
    return write_dataset("whole") && write_dataset("torn") ? 0 : 1;
}

static int remove_folder(void **state) { return soma__dir_remove(dir, NULL); }

// `parts`: what follows mpirun's own options.
static int mpirun(const char *parts) {
    char line[2300];
    snprintf(line, sizeof line, "timeout 100 mpirun %s--oversubscribe --bind-to none %s 2>&1", geteuid() ? "" : "--allow-run-as-root ",
             parts);
    return run_line(dir, line);
}

static void need_mpirun(void) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    print_message("not run under a sanitizer\n");
    skip();
#endif
    if (run_line(dir, "mpirun --version 2>&1") || !strstr(said, "Open MPI")) {
        print_message("Open MPI's mpirun is not installed (scripts/deps.sh mpi)\n");
        skip();
    }
    mpirun("-n 1 " SOMA_BINARY " fast fit --data nowhere.npy --out x");
    if (strstr(said, "built without MPI")) {
        print_message("soma was built without MPI\n");
        skip();
    }
}

static void same_files(const char *a, const char *b) {
    char line[200];
    snprintf(line, sizeof line, "diff -r %s %s 2>&1", a, b);
    if (run_line(dir, line)) fail_msg("%s", said);
}

static void check_ranks(const char *data) {
    char line[600];
    snprintf(line, sizeof line, "fast fit --data %s --scale 20 --vocab 300 --threads 1 --out one 2>&1", data);
    if (run_soma(dir, line)) fail_msg("%s", said);
    for (int count = 1; count <= 3; count++) {
        snprintf(line, sizeof line, "-n %d " SOMA_BINARY " fast fit --data %s --scale 20 --vocab 300 --threads %d --json --out many", count,
                 data, 1 + count % 2);
        if (mpirun(line)) fail_msg("%d ranks: %s", count, said);
        const char *json = strchr(said, '{');
        assert_non_null(json);
        assert_null(strstr(json + 1, "\n{")); // said once
        same_files("one", "many");
    }
}

static void test_same_files(void **state) {
    need_mpirun();
    check_ranks("chunks.npy");
    check_ranks("whole");
    check_ranks("chunks.npy,whole --stride 3 --clip");
}

static int times_said(const char *what) {
    int n = 0;
    for (const char *at = said; (at = strstr(at, what)); at++) n++;
    return n;
}

// The last episode's frames are cut off in the middle; they are the last rank's.
static void test_torn_episode(void **state) {
    char path[200];
    need_mpirun();
    snprintf(path, sizeof path, "truncate -s 200 \"$(ls torn/data/*/*.parquet | tail -1)\"");
    assert_int_equal(run_line(dir, path), 0);
    assert_int_not_equal(mpirun("-n 3 " SOMA_BINARY " fast fit --data whole,torn --out broken"), 0);
    if (times_said("soma fast: ") != 1 || times_said("rank 2 of 3: ") != 1 || !strstr(said, "torn/data/")) fail_msg("%s", said);
    snprintf(path, sizeof path, "%s/broken", dir);
    assert_false(soma__dir_exists(path));
}

static void test_ranks_that_differ(void **state) {
    char path[200];
    need_mpirun();
    // one of them does not find its data
    assert_int_not_equal(mpirun("-n 1 " SOMA_BINARY " fast fit --data chunks.npy --out other : -n 1 " SOMA_BINARY
                                " fast fit --data nowhere.npy --out other"),
                         0);
    if (times_said("soma fast: ") != 1 || !strstr(said, "rank 1 of 2: nowhere.npy")) fail_msg("%s", said);
    // and one finds another dataset under its name
    assert_int_not_equal(mpirun("-n 1 " SOMA_BINARY " fast fit --data chunks.npy --out other : -n 1 " SOMA_BINARY
                                " fast fit --data chunks.npy --max-chunks 10 --out other"),
                         0);
    if (times_said("soma fast: ") != 1 || !strstr(said, "different copies")) fail_msg("%s", said);
    snprintf(path, sizeof path, "%s/other", dir);
    assert_false(soma__dir_exists(path));
    // the other actions run in one process
    assert_int_not_equal(mpirun("-n 2 " SOMA_BINARY " fast stats --data chunks.npy"), 0);
    if (times_said("only fit runs over ranks") != 1) fail_msg("%s", said);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_files),
        cmocka_unit_test(test_torn_episode),
        cmocka_unit_test(test_ranks_that_differ),
    };
    return cmocka_run_group_tests(tests, make_data, remove_folder);
}
