// SPDX-License-Identifier: Apache-2.0
// The page of an episode: a playable video per camera, a curve per dimension, texts escaped, nothing left beside it, also where it fails.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/file.h"
#include "data/view.h"
#include "toy_dataset.h"

#include <stdlib.h>
#include <unistd.h>

static char dir[] = "/tmp/soma_view_XXXXXX";
static char data[SOMA_PATH_MAX], page[SOMA_PATH_MAX];

static int n_frames(int e) { return 5 + e; }
static const char *task(int e) { return "put <it> & go"; }
static void frame(int e, int f, float *state, float *action, uint8_t *picture) {
    for (int k = 0; k < 2; k++) state[k] = action[k] = (float)(e + f + k);
    picture[f] = 200;
}

static int setup(void **state) {
    static const char *const names[] = {"left", "right"};
    const toy_dataset toy = {.n_state = 2,
                             .n_actions = 2,
                             .side = 32,
                             .fps = 10,
                             .names = names,
                             .episodes = 2,
                             .shard_episodes = 1,
                             .n_frames = n_frames,
                             .task = task,
                             .frame = frame};
    if (!mkdtemp(dir)) return 1;
    snprintf(data, sizeof data, "%s/data", dir);
    snprintf(page, sizeof page, "%s/page.html", dir);
    return write_toy_dataset(&toy, data, NULL) != SOMA_OK;
}

static int teardown(void **state) { return soma__dir_remove(dir, NULL); }

static size_t count(const char *text, const char *what) {
    size_t n = 0;
    for (; (text = strstr(text, what)); text++) n++;
    return n;
}

static size_t files_beside(void) {
    char **names;
    size_t n;
    assert_int_equal(soma__dir_list(&names, &n, dir, NULL), SOMA_OK);
    soma__dir_list_free(names, n);
    return n;
}

static void a_page(void **state) {
    soma_dataset *d;
    soma_error err = {0};
    char *text;
    size_t size;
    assert_int_equal(soma__dataset_open(&d, data, &err), SOMA_OK);
    if (soma__dataset_view(page, d, 1, &err)) fail_msg("%s", err.text);
    assert_int_equal(soma__file_read(&text, &size, page, 1 << 24, &err), SOMA_OK);
    assert_int_equal(count(text, "<video"), 1);
    assert_int_equal(count(text, "data:video/mp4;base64,AAAA"), 1); // an mp4 begins with the size of its first box
    assert_int_equal(count(text, "<polyline"), 4);                  // state and action of two dimensions
    assert_int_equal(count(text, "put &lt;it&gt; &amp; go"), 1);
    assert_int_equal(count(text, "episode 1: 6 frames, 10 frames/s"), 1);
    assert_int_equal(count(text, "http"), 0);
    soma__free(text);
    assert_int_equal(files_beside(), 2);
    soma__dataset_close(d);
}

static void no_page(void **state) {
    char path[SOMA_PATH_MAX];
    soma_dataset *d;
    soma_error err = {0};
    unlink(page);
    for (int n = 0;; n++) {
        assert_int_equal(soma__dataset_open(&d, data, &err), SOMA_OK);
        soma__alloc_fail_after(n);
        soma_status status = soma__dataset_view(page, d, 0, &err);
        soma__alloc_fail_after(-1);
        soma__dataset_close(d);
        if (status == SOMA_OK) break;
        assert_int_equal(status, SOMA_NO_MEMORY);
        assert_int_equal(files_beside(), 1);
        assert_true(n < 2000);
    }
    unlink(page);
    assert_int_equal(soma__path_join(path, data, "data/chunk-000/file-000.parquet", &err), SOMA_OK);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(soma__dataset_open(&d, data, &err), SOMA_OK);
    assert_int_equal(soma__dataset_view(page, d, 0, &err), SOMA_NOT_FOUND);
    assert_non_null(strstr(err.text, "episode 0 is not there"));
    assert_int_equal(files_beside(), 1);
    soma__dataset_close(d);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_page), cmocka_unit_test(no_page)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
