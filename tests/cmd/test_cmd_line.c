// SPDX-License-Identifier: Apache-2.0
// The command line as every verb reads it. The file under test is included, because verbs are not a library.
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "cmd/cmd.c"

#include "base/file.h"
#include <unistd.h>

#define FIRST_OPTS(X) X(INT, seed, 1, "seed") X(TEXT, dataset, "", "folder")
SOMA_OPTS_DECLARE(first_opts, FIRST_OPTS)
#define OPTS_TYPE first_opts
SOMA_OPTS_DEFINE_LOCAL(first_opts, FIRST_OPTS, first_defaults)
#undef OPTS_TYPE

#define SECOND_OPTS(X) X(INT, seed, 2, "seed") X(REAL, learning_rate, 0.5, "rate") X(FLAG, ema, true, "average")
SOMA_OPTS_DECLARE(second_opts, SECOND_OPTS)
#define OPTS_TYPE second_opts
SOMA_OPTS_DEFINE_LOCAL(second_opts, SECOND_OPTS, second_defaults)
#undef OPTS_TYPE

static first_opts first;
static second_opts second;
static soma_cmd cmd;
static char *line[16];
static char said[4000];

// Parses the words given (NULL at the end) with fresh options; what was printed is in `said`. Returns the exit code, -1 for "go on".
static int parse(int max_words, ...) {
    int argc = 0, code = -1;
    va_list args;
    va_start(args, max_words);
    line[argc++] = "verb";
    for (char *word; (word = va_arg(args, char *));) line[argc++] = word;
    va_end(args);
    first = first_defaults();
    second = second_defaults();
    cmd = (soma_cmd){.usage = "WORD", .about = "About.\n", .has_json = true, .has_config = true, .max_words = max_words};
    cmd.groups[0] = (soma_cmd_group){&first_opts_table, &first, "options"};
    cmd.groups[1] = (soma_cmd_group){&second_opts_table, &second, "more"};

    FILE *capture = tmpfile();
    fflush(stdout), fflush(stderr);
    int out = dup(1), errors = dup(2);
    dup2(fileno(capture), 1), dup2(fileno(capture), 2);
    bool go_on = soma__cmd_parse(&cmd, argc, line, &code);
    fflush(stdout), fflush(stderr);
    dup2(out, 1), dup2(errors, 2);
    close(out), close(errors);
    rewind(capture);
    said[fread(said, 1, sizeof said - 1, capture)] = 0;
    fclose(capture);
    return go_on ? -1 : code;
}

static void options_and_words_mix(void **state) {
    assert_int_equal(parse(-1, "a", "--dataset", "d", "b", "--no-ema", "--json", "--learning-rate=2", "-", "--", "--seed", NULL), -1);
    assert_int_equal(cmd.n_words, 4);
    assert_string_equal(cmd.words[0], "a");
    assert_string_equal(cmd.words[1], "b");
    assert_string_equal(cmd.words[2], "-");
    assert_string_equal(cmd.words[3], "--seed");
    assert_string_equal(first.dataset, "d");
    assert_false(second.ema);
    assert_true(cmd.json);
    assert_true(second.learning_rate == 2);
}

static void one_flag_sets_every_group(void **state) {
    assert_int_equal(parse(0, "--seed", "9", NULL), -1);
    assert_int_equal(first.seed, 9);
    assert_int_equal(second.seed, 9);
    assert_int_equal(parse(0, NULL), -1);
    assert_int_equal(second.seed, 2);
}

static void wrong_lines_say_what_is_wrong(void **state) {
    assert_int_equal(parse(0, "--lerning-rate", "1", NULL), SOMA_EXIT_USAGE);
    assert_non_null(strstr(said, "did you mean --learning-rate?"));
    assert_int_equal(parse(0, "--jason", NULL), SOMA_EXIT_USAGE);
    assert_non_null(strstr(said, "--json"));
    assert_int_equal(parse(0, "--qqqqqqqq", NULL), SOMA_EXIT_USAGE);
    assert_null(strstr(said, "did you mean"));
    assert_int_equal(parse(0, "--seed", "x", NULL), SOMA_EXIT_USAGE);
    assert_non_null(strstr(said, "\"x\" is not a whole number"));
    assert_int_equal(parse(0, "--seed", NULL), SOMA_EXIT_USAGE);
    assert_int_equal(parse(0, "--config", NULL), SOMA_EXIT_USAGE);
    assert_int_equal(parse(0, "-x", NULL), SOMA_EXIT_USAGE);
    assert_int_equal(parse(0, "word", NULL), SOMA_EXIT_USAGE);
    assert_non_null(strstr(said, "one argument too many"));
}

static void help_lists_all_groups(void **state) {
    assert_int_equal(parse(0, "--dataset", "d", "--help", NULL), SOMA_EXIT_OK);
    static const char *const wanted[] = {"usage: soma verb WORD", "About.", "--learning-rate", "more:", "--config FILE", "--json"};
    for (size_t i = 0; i < SOMA_COUNT(wanted); i++) assert_non_null(strstr(said, wanted[i]));
}

static int with_config(const char *text, char *flag) {
    char path[] = "/tmp/soma-cmd-XXXXXX";
    int fd = mkstemp(path);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
    int code = parse(0, flag ? flag : "--config", flag ? "--config" : path, flag ? path : NULL, NULL);
    unlink(path);
    return code;
}

static void flags_win_over_the_file(void **state) {
    assert_int_equal(with_config("{\"seed\": 5, \"learning_rate\": 0.25, \"dataset\": \"f\"}", "--dataset=line"), -1);
    assert_int_equal(first.seed, 5);
    assert_int_equal(second.seed, 5);
    assert_true(second.learning_rate == 0.25);
    assert_string_equal(first.dataset, "line");
    assert_int_equal(with_config("{\"sed\": 5}", NULL), SOMA_EXIT_FAILED);
    assert_non_null(strstr(said, "did you mean \"seed\"?"));
    assert_int_equal(with_config("{\"seed\": \"5\"}", NULL), SOMA_EXIT_FAILED);
    assert_int_equal(with_config("[]", NULL), SOMA_EXIT_FAILED);
    assert_int_equal(parse(0, "--config", "/nowhere/c.json", NULL), SOMA_EXIT_FAILED);
    assert_non_null(strstr(said, "/nowhere/c.json"));
}

static void config_is_written_as_it_is_read(void **state) {
    assert_int_equal(parse(0, "--seed=7", "--dataset=d", NULL), -1);
    json_t *config = soma__cmd_config_json(&cmd);
    char *text = json_dumps(config, 0);
    assert_int_equal(with_config(text, NULL), -1);
    assert_int_equal(first.seed, 7);
    assert_string_equal(first.dataset, "d");
    assert_int_equal(json_object_size(config), 4);
    free(text);
    json_decref(config);
}

static void nearest_word(void **state) {
    static const char *const verbs[] = {"record", "train", "trace", NULL};
    assert_string_equal(soma__cmd_nearest("trian", verbs), "train");
    assert_null(soma__cmd_nearest("xyzzy", verbs));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_and_words_mix),
        cmocka_unit_test(one_flag_sets_every_group),
        cmocka_unit_test(wrong_lines_say_what_is_wrong),
        cmocka_unit_test(help_lists_all_groups),
        cmocka_unit_test(flags_win_over_the_file),
        cmocka_unit_test(config_is_written_as_it_is_read),
        cmocka_unit_test(nearest_word),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
