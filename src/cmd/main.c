// SPDX-License-Identifier: Apache-2.0
// `soma VERB ...`: finds the verb in the registry that CMake makes from the files of this folder and hands over.
#include "cmd/cmd.h"

#include <stdio.h>
#include <string.h>

enum { MAX_VERBS = 64 };

static void log_to_stderr(void *user, soma_log_level level, const char *text) {
    static const char *const words[] = {"debug: ", "", "warning: ", "error: "};
    if (level != SOMA_LOG_DEBUG) fprintf(stderr, "soma: %s%s\n", words[level], text);
}

static void print_help(FILE *out) {
    fprintf(out, "soma %s: demonstrations in, a policy that drives a robot out\n\nusage: soma VERB [options]\n\n", soma_version());
    for (const soma_verb *const *v = soma__verbs; *v; v++) fprintf(out, "  %-10s %s\n", (*v)->name, (*v)->brief);
    fprintf(out, "\n`soma VERB --help` tells the options of a verb.\n"
                 "exit code: 0 done, 1 failed, 2 the command line is wrong\n");
}

static int unknown_verb(const char *given) {
    const char *names[MAX_VERBS + 1] = {0};
    for (int i = 0; i < MAX_VERBS && soma__verbs[i]; i++) names[i] = soma__verbs[i]->name;
    const char *nearest = soma__cmd_nearest(given, names);
    fprintf(stderr, "soma: \"%s\" is not a verb", given);
    if (nearest) fprintf(stderr, "; did you mean \"%s\"?", nearest);
    fprintf(stderr, "\n`soma --help` lists the verbs.\n");
    return SOMA_EXIT_USAGE;
}

int main(int argc, char **argv) {
    soma_log_set(log_to_stderr, NULL);
    if (argc < 2) {
        print_help(stderr);
        return SOMA_EXIT_USAGE;
    }
    if (!strcmp(argv[1], "--version")) argv[1] = "version";
    const char *verb = argv[1];
    if (!strcmp(verb, "--help") || !strcmp(verb, "-h") || !strcmp(verb, "help")) {
        print_help(stdout);
        return SOMA_EXIT_OK;
    }
    for (const soma_verb *const *v = soma__verbs; *v; v++)
        if (!strcmp(verb, (*v)->name)) return (*v)->run(argc - 1, argv + 1);
    return unknown_verb(verb);
}
