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

// `soma arguments` in a folder (NULL: here); `arguments` end with the redirection of standard error. Its output is in `said`; the exit
// code.
static int run_soma(const char *folder, const char *arguments) {
    char command[2400];
    int len = snprintf(command, sizeof command, "cd '%s' && %s %s", folder ? folder : ".", SOMA_BINARY, arguments);
    assert_true(len > 0 && (size_t)len < sizeof command);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    said[fread(said, 1, sizeof said - 1, f)] = 0;
    int status = pclose(f);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

#endif
