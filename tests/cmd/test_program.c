// SPDX-License-Identifier: Apache-2.0
// The program itself: exit codes, help of every verb, what a wrong verb is told.
#include "cmd/program.h"

#include "base/json.h"

#include <stdio.h>
#include <string.h>

static int soma(const char *arguments) {
    char line[1000];
    snprintf(line, sizeof line, "%s 2>&1", arguments);
    return run_soma(NULL, line);
}

static void help_and_exit_codes(void **state) {
    assert_int_equal(soma(""), 2);
    assert_int_equal(soma("--help"), 0);
    assert_non_null(strstr(said, "usage: soma VERB"));
    assert_int_equal(soma("versoin"), 2);
    assert_non_null(strstr(said, "did you mean \"version\"?"));
    assert_int_equal(soma("--version"), 0);
    assert_non_null(strstr(said, SOMA_VERSION));
}

// Every verb that `soma --help` lists has a page of its own and refuses a flag that nobody has.
static void every_verb_has_help(void **state) {
    char page[sizeof said], command[200];
    assert_int_equal(soma("--help"), 0);
    memcpy(page, said, sizeof page);
    int n = 0;
    for (char *row = strtok(page, "\n"); row; row = strtok(NULL, "\n")) {
        char verb[32];
        if (strncmp(row, "  ", 2) || sscanf(row, " %31s", verb) != 1) continue;
        snprintf(command, sizeof command, "%s --help", verb);
        if (soma(command) != 0 || !strstr(said, "usage: soma ")) fail_msg("soma %s: %s", command, said);
        snprintf(command, sizeof command, "%s --no-such-flag-anywhere", verb);
        if (soma(command) != 2) fail_msg("soma %s must end with exit code 2: %s", command, said);
        n++;
    }
    assert_true(n >= 1);
}

static void version_is_json_for_programs(void **state) {
    json_t *v;
    assert_int_equal(soma("version --json"), 0);
    assert_int_equal(soma__json_parse(&v, said, strlen(said), "version", NULL), SOMA_OK);
    assert_string_equal(json_string_value(json_object_get(v, "version")), SOMA_VERSION);
    assert_true(json_is_array(json_object_get(v, "cpu_features")));
    assert_true(json_object_size(json_object_get(v, "libraries")) >= 6);
    json_decref(v);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(help_and_exit_codes),
        cmocka_unit_test(every_verb_has_help),
        cmocka_unit_test(version_is_json_for_programs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
