// SPDX-License-Identifier: Apache-2.0
// The program as a user runs it: what it says and how it ends.
#ifndef SOMA_TESTS_CMD_PROGRAM_H
#define SOMA_TESTS_CMD_PROGRAM_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <sys/wait.h>

static char said[1 << 20];

// A command line in a folder (NULL: here); it ends with the redirection of standard error. Its output is in `said`; the exit code.
static int run_line(const char *folder, const char *line) {
    char command[2600];
    int len = snprintf(command, sizeof command, "cd '%s' && %s", folder ? folder : ".", line);
    assert_true(len > 0 && (size_t)len < sizeof command);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    said[fread(said, 1, sizeof said - 1, f)] = 0;
    int status = pclose(f);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

// The same of `soma arguments`.
static int run_soma(const char *folder, const char *arguments) {
    char line[2400];
    int len = snprintf(line, sizeof line, "%s %s", SOMA_BINARY, arguments);
    assert_true(len > 0 && (size_t)len < sizeof line);
    return run_line(folder, line);
}

#endif
