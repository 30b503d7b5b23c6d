// SPDX-License-Identifier: Apache-2.0
// The shared simulator: the integrator and the camera against closed forms, where cubes are placed, equal seeds give equal bits on any
// thread, bad input gets a sentence, and memory that runs out leaks nothing.
#include "env_test.h"

#include "base/hash.h"

#include <pthread.h>
#include <string.h>

static double *cube_qpos(soma_env *env, int cube) {
    return env->data->qpos + env->model->jnt_qposadr[env->model->body_jntadr[env->cube_bodies[cube]]];
}

// MuJoCo's Euler steps velocity first: after n steps of h a falling body is at z0 - g h^2 n (n + 1) / 2, exactly.
static void test_free_fall(void **state) {
    soma_env *env = must_open("touch_color", 16, false);
    must_reset(env, 5, false);
    double *q = cube_qpos(env, 1), g = 9.81, h = env->model->opt.timestep;
    memcpy(q, (double[3]){0.45, 0.5, 2}, 3 * sizeof *q);
    float action[SOMA_ARM_ACTIONS];
    soma__arm_state(env->data, action);
    for (int k = 1; k <= 10; k++) {
        must_step(env, action);
        double t = k / SOMA_TABLETOP_RATE, n = t / h;
        assert_near(q[2], 2 - g * h * h * n * (n + 1) / 2, 1e-9);
        assert_near(q[2], 2 - g * t * t / 2, g * h * t);
        assert_near(q[0], 0.45, 1e-12);
    }
    soma__tabletop_close(env);
}

static void test_cubes_rest(void **state) {
    soma_env *env = must_open("touch_color", 16, false);
    for (uint64_t seed = 0; seed < 60; seed++) {
        must_reset(env, seed, false);
        double before[SOMA_CUBES][3];
        float action[SOMA_ARM_ACTIONS];
        soma__arm_state(env->data, action);
        for (int c = 0; c < SOMA_CUBES; c++) memcpy(before[c], soma__tabletop_cube(env, c), sizeof before[c]);
        for (int k = 0; k < 20; k++) must_step(env, action);
        for (int c = 0; c < SOMA_CUBES; c++) {
            for (int i = 0; i < 3; i++) assert_near(soma__tabletop_cube(env, c)[i], before[c][i], 1e-3);
        }
        assert_int_equal(env->touched_first, SOMA_CUBE_NONE);
    }
    soma__tabletop_close(env);
}

// The middle of a cube's pixels against the pinhole formula with the camera's numbers as README.md gives them.
static void test_scene_camera_projects(void **state) {
    enum { SIZE = 256 };
    soma_env *env = must_open("touch_color", SIZE, false);
    soma_error err = {0};
    const double eye[3] = {0.84, 0, 0.86}, norm = hypot(0.57, 0.86);
    const double forward[3] = {-0.57 / norm, 0, -0.86 / norm}, up[3] = {-0.86 / norm, 0, 0.57 / norm}, right[3] = {0, 1, 0};
    const double focal = SIZE / 2.0 / tan(32.0 / 2 * M_PI / 180);
    const double places[][2] = {{0.35, 0}, {0.22, -0.18}, {0.22, 0.18}, {0.48, -0.17}, {0.48, 0.17}};
    for (size_t n = 0; n < SOMA_COUNT(places); n++) {
        must_reset(env, 6, false);
        for (int c = 0; c < SOMA_CUBES; c++) cube_qpos(env, c)[1] = 2 + c; // out of sight
        double *at = cube_qpos(env, 0);
        memcpy(at, (double[7]){places[n][0], places[n][1], SOMA_CUBE_HALF, 1, 0, 0, 0}, 7 * sizeof *at);
        mj_forward(env->model, env->data);
        soma_env_obs obs;
        must(env->task->observe(env, &obs, &err), &err);
        double sum[2] = {0}, count = 0, ray[3];
        for (int i = 0; i < SIZE * SIZE; i++) {
            const uint8_t *p = obs.images[0] + 3 * i;
            if (p[0] < 2 * p[1] || p[0] < 2 * p[2]) continue;
            sum[0] += i % SIZE + 0.5, sum[1] += i / SIZE + 0.5, count++;
        }
        assert_true(count > 200);
        mju_sub3(ray, at, eye);
        double depth = mju_dot3(ray, forward);
        assert_near(sum[0] / count, SIZE / 2.0 + focal * mju_dot3(ray, right) / depth, 1.0);
        assert_near(sum[1] / count, SIZE / 2.0 - focal * mju_dot3(ray, up) / depth, 1.0);
    }
    soma__tabletop_close(env);
}

// Every cube's centre lies in the picture for every place and jitter, and has pixels of its colour at 64 x 64 while the arm is at home.
static void test_every_cube_is_seen(void **state) {
    enum { SIZE = 64 };
    static const char *const tasks[] = {"touch_color", "pick_place"};
    soma_error err = {0};
    for (size_t t = 0; t < SOMA_COUNT(tasks); t++) {
        soma_env *env = must_open(tasks[t], SIZE, true);
        for (uint64_t seed = 0; seed < 100; seed++) {
            must_reset(env, seed, false);
            soma_env_obs obs;
            must(env->task->observe(env, &obs, &err), &err);
            int pixels[SOMA_CUBES] = {0};
            for (int i = 0; i < SIZE * SIZE; i++) {
                const uint8_t *p = obs.images[0] + 3 * i;
                for (int c = 0; c < SOMA_CUBES; c++) {
                    if (p[c] > 60 && p[c] > 2 * p[(c + 1) % 3] && p[c] > 2 * p[(c + 2) % 3]) pixels[c]++;
                }
            }
            for (int c = 0; c < SOMA_CUBES; c++) {
                if (pixels[c] < 10) fail_msg("%s, seed %d: the %s cube has %d pixels", tasks[t], (int)seed, soma__cube_names[c], pixels[c]);
            }
        }
        soma__tabletop_close(env);
    }
}

static void test_placement(void **state) {
    enum { SEEDS = 500, COLUMNS = 3, ROWS = 4 };
    soma_env *env = must_open("touch_color", 16, true);
    int cells[SOMA_CUBES][COLUMNS][ROWS] = {0}, goals[SOMA_CUBES] = {0};
    double low[2] = {9, 9}, high[2] = {-9, -9};
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        must_reset(env, seed, false);
        goals[env->goal]++;
        for (int c = 0; c < SOMA_CUBES; c++) {
            const double *at = soma__tabletop_cube(env, c);
            for (int i = 0; i < 2; i++) low[i] = fmin(low[i], at[i]), high[i] = fmax(high[i], at[i]);
            cells[c][(int)((at[0] - SOMA_TABLE_X0) / 0.1)][(int)((at[1] - SOMA_TABLE_Y0) / 0.1)]++;
            for (int j = 0; j < c; j++) {
                const double *other = soma__tabletop_cube(env, j);
                assert_true(hypot(at[0] - other[0], at[1] - other[1]) >= 0.12);
            }
        }
    }
    assert_true(high[0] - low[0] > 0.298 && high[0] - low[0] <= 0.3 && high[1] - low[1] > 0.398 && high[1] - low[1] <= 0.4);
    for (int c = 0; c < SOMA_CUBES; c++) {
        assert_true(goals[c] > SEEDS / 4); // a third is expected; a quarter is four standard deviations off
        for (int x = 0; x < COLUMNS; x++) {
            for (int y = 0; y < ROWS; y++) assert_true(cells[c][x][y] > SEEDS / 40); // a twelfth is expected, more at the rim
        }
    }
    soma__tabletop_close(env);
}

// ---- determinism

static uint64_t episode_hash(soma_env *env, uint64_t seed) {
    enum { SIZE = 48 };
    soma_error err = {0};
    uint64_t hash = SOMA_HASH_START;
    must_reset(env, seed, false);
    for (int k = 0; k < 15; k++) {
        soma_env_obs obs;
        float action[SOMA_ARM_ACTIONS];
        must(env->task->observe(env, &obs, &err), &err);
        hash = soma__hash(hash, obs.state, SOMA_ARM_ACTIONS * sizeof *obs.state);
        for (int i = 0; i < SOMA_TABLETOP_CAMERAS; i++) hash = soma__hash(hash, obs.images[i], (size_t)SIZE * SIZE * 3);
        env->task->expert(env, action);
        must(env->task->step(env, action, &err), &err);
    }
    return soma__hash(hash, env->data->qpos, (size_t)env->model->nq * sizeof *env->data->qpos);
}

static void *hash_elsewhere(void *arg) { // opens, uses and closes on its own thread
    uint64_t *hash = arg;
    soma_env *env = must_open("touch_color", 48, true);
    *hash = episode_hash(env, 11);
    soma__tabletop_close(env);
    return NULL;
}

static void test_same_seed_same_bits(void **state) {
    soma_env *env = must_open("touch_color", 48, true);
    uint64_t first = episode_hash(env, 11), other = episode_hash(env, 12), again = episode_hash(env, 11);
    assert_true(first == again);
    assert_true(first != other);
    pthread_t threads[2];
    uint64_t hashes[2] = {0};
    for (int i = 0; i < 2; i++) assert_int_equal(pthread_create(&threads[i], NULL, hash_elsewhere, &hashes[i]), 0);
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    assert_true(hashes[0] == first && hashes[1] == first);
    soma__tabletop_close(env);
}

static void test_jitter_only_where_asked(void **state) {
    soma_env *still = must_open("touch_color", 16, false), *moved = must_open("touch_color", 16, true);
    must_reset(still, 1, false);
    must_reset(moved, 1, false);
    double still_eye = still->model->cam_pos[0], moved_eye = moved->model->cam_pos[0];
    assert_memory_equal(still->data->qpos, moved->data->qpos, (size_t)still->model->nq * sizeof(double));
    assert_true(still_eye == 0.84 && moved_eye != 0.84);
    must_reset(still, 2, false);
    must_reset(moved, 2, false);
    assert_true(still->model->cam_pos[0] == still_eye && moved->model->cam_pos[0] != moved_eye);
    soma__tabletop_close(still);
    soma__tabletop_close(moved);
}

// ---- bad input

static void test_refuses_nan(void **state) {
    soma_env *env = must_open("touch_color", 16, false);
    must_reset(env, 1, false);
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < SOMA_ARM_ACTIONS; i++) {
        float action[SOMA_ARM_ACTIONS], before[SOMA_ARM_ACTIONS], after[SOMA_ARM_ACTIONS];
        soma__arm_state(env->data, before);
        env->task->expert(env, action);
        action[i] = bad[i % 3];
        soma_error err = {0};
        assert_int_equal(env->task->step(env, action, &err), SOMA_BAD_INPUT);
        assert_non_null(strstr(err.text, soma__arm_names[i]));
        soma__arm_state(env->data, after);
        assert_memory_equal(before, after, sizeof after);
        assert_int_equal(env->task->outcome(env).steps, 0);
    }
    soma__tabletop_close(env);
}

static void test_refuses_sizes_and_names(void **state) {
    static const int bad[][2] = {{0, 96}, {96, -1}, {7, 96}, {96, 1 << 20}};
    const soma_task *task = soma__task_find("touch_color");
    for (size_t i = 0; i < SOMA_COUNT(bad); i++) {
        soma_env *env = NULL;
        soma_error err = {0};
        assert_int_equal(task->open(&env, &(soma_env_opts){bad[i][0], bad[i][1], false}, &err), SOMA_BAD_INPUT);
        assert_null(env);
        assert_non_null(strstr(err.text, "touch_color"));
    }
    assert_null(soma__task_find("juggle"));
    assert_null(soma__task_find(""));
    task->close(NULL);
}

static jmp_buf broken;
static void note_broken(const char *file, int line, const char *sentence) { longjmp(broken, 1); }

static void test_contract(void **state) {
    soma_env *env = must_open("touch_color", 16, false);
    const float action[SOMA_ARM_ACTIONS] = {0};
    volatile int checks = 0;
    soma_check_set_handler(note_broken);
    if (!setjmp(broken))
        env->task->step(env, action, NULL); // before the first reset
    else
        checks++;
    must_reset(env, 1, false);
    env->outcome.done = true;
    if (!setjmp(broken))
        env->task->step(env, action, NULL); // after the end
    else
        checks++;
    soma_check_set_handler(NULL);
    assert_int_equal(checks, 2);
    soma__tabletop_close(env);
}

static void test_memory_runs_out(void **state) {
    static const char *const tasks[] = {"touch_color", "pick_place"};
    for (size_t t = 0; t < SOMA_COUNT(tasks); t++) {
        const soma_task *task = soma__task_find(tasks[t]);
        soma_status status = SOMA_NO_MEMORY;
        int failures = 0;
        for (int n = 0; status != SOMA_OK; n++) {
            soma_env *env = NULL;
            soma_env_obs obs;
            soma__alloc_fail_after(n);
            status = task->open(&env, &(soma_env_opts){16, 16, true}, NULL);
            if (status == SOMA_OK) status = task->reset(env, &(soma_env_reset){.seed = 1}, NULL);
            if (status == SOMA_OK) status = task->observe(env, &obs, NULL);
            soma__alloc_fail_after(-1);
            assert_true(status == SOMA_OK || status == SOMA_NO_MEMORY);
            if (status != SOMA_OK) failures++;
            task->close(env);
        }
        assert_true(failures >= 6);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_free_fall),
        cmocka_unit_test(test_cubes_rest),
        cmocka_unit_test(test_scene_camera_projects),
        cmocka_unit_test(test_every_cube_is_seen),
        cmocka_unit_test(test_placement),
        cmocka_unit_test(test_same_seed_same_bits),
        cmocka_unit_test(test_jitter_only_where_asked),
        cmocka_unit_test(test_refuses_nan),
        cmocka_unit_test(test_refuses_sizes_and_names),
        cmocka_unit_test(test_contract),
        cmocka_unit_test(test_memory_runs_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
