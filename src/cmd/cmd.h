// SPDX-License-Identifier: Apache-2.0
// What a verb of the program is, and what all verbs share: reading the command line, help, JSON output, errors, Ctrl-C.
//
// One file is one verb: src/cmd/<name>.c exports `const soma_verb soma__verb_<name>`; CMake makes the registry from the files that are
// there (all but main.c and cmd*.c, which hold shared things). A verb reads like this:
//
//     #define MY_OPTS(X) X(TEXT, dataset, "", "folder of a LeRobot dataset") X(INT, episodes, 10, "how many")
//     SOMA_OPTS_DECLARE(my_opts, MY_OPTS)
//     #define OPTS_TYPE my_opts
//     SOMA_OPTS_DEFINE_LOCAL(my_opts, MY_OPTS, my_defaults)
//     #undef OPTS_TYPE
//
//     static int run(int argc, char **argv) {
//         my_opts o = my_defaults();
//         soma_train_opts t = soma_train_defaults();
//         soma_cmd cmd = {.usage = "--dataset DIR [options]",
//                         .about = "What it does, in a few lines.\n\nExample:\n  soma my --dataset d\n",
//                         .has_json = true,
//                         .groups = {{&my_opts_table, &o, "options"}, {&soma_train_opts_table, &t, "training"}}};
//         int code;
//         if (!soma__cmd_parse(&cmd, argc, argv, &code)) return code;  // --help was printed, or the line was wrong
//         soma_error err = {0};
//         if (work(&o, &err)) return soma__cmd_fail(&cmd, &err);
//         if (cmd.json) return soma__cmd_print_json(&cmd, result);     // takes the reference
//         ...
//         return SOMA_EXIT_OK;
//     }
//     const soma_verb soma__verb_my = {"my", "does my thing", run};
#ifndef SOMA_CMD_CMD_H
#define SOMA_CMD_CMD_H

#include "base/opts.h"

// Exit codes of the program. A wrong command line is told apart, so that a script can.
enum { SOMA_EXIT_OK = 0, SOMA_EXIT_FAILED = 1, SOMA_EXIT_USAGE = 2 };

typedef struct soma_verb {
    const char *name;                  // "train"
    const char *brief;                 // one line for `soma --help`, no capital, no full stop
    int (*run)(int argc, char **argv); // argv[0] is the verb's name; returns an exit code
} soma_verb;

extern const soma_verb *const soma__verbs[]; // made by CMake, sorted by name, NULL at its end

// Options that the command line may set. One flag sets every group that has a field of its name (--threads, --seed).
typedef struct soma_cmd_group {
    const soma_opt_table *table;
    void *opts;        // filled with defaults by the verb
    const char *title; // heading in --help: "options", "training"
} soma_cmd_group;

enum { SOMA_CMD_GROUPS = 8 };

typedef struct soma_cmd {
    // filled by the verb
    const char *usage;        // what follows "soma VERB": "DATASET... [options]"
    const char *about;        // for --help: what it does and examples; ends with a newline
    bool has_json;            // --json is an option of this verb
    bool has_config;          // --config FILE: a JSON object with fields of any group; flags win over the file, wherever they stand
    int min_words, max_words; // how many arguments that are not options; max -1: any number
    soma_cmd_group groups[SOMA_CMD_GROUPS + 1]; // ends with table NULL
    // filled by soma__cmd_parse
    const char *verb;
    bool json;
    const char *config; // NULL when not given
    int n_words;
    char **words; // borrowed from argv, in order
} soma_cmd;

// Reads argv[1..]. true: go on. false: *exit_code is what the verb returns now (help printed, or the error printed on standard error).
bool soma__cmd_parse(soma_cmd *cmd, int argc, char **argv, int *exit_code);
// All groups as one JSON object, as --config reads it; a new reference, NULL when memory is out. Where two groups share a name the value is
// the same unless the verb changed one; the first group's is written.
json_t *soma__cmd_config_json(const soma_cmd *cmd);

// Print "soma VERB: bad input: sentence" on standard error and return the exit code: 1, or 2 for the form that blames the command line.
int soma__cmd_fail(const soma_cmd *cmd, const soma_error *err);
int soma__cmd_usage(const soma_cmd *cmd, const char *format, ...) SOMA_PRINTF(2, 3);
// Prints the value, indented, on standard output and drops the reference. NULL is reported as out of memory. Returns the exit code.
int soma__cmd_print_json(const soma_cmd *cmd, json_t *value);

// From now on the first SIGINT or SIGTERM only sets a flag, so that long work can end in order; the second one ends the program.
void soma__cmd_catch_interrupt(void);
bool soma__cmd_interrupted(void);

// The words that `given` may have meant; NULL when none is near. `names` ends with NULL.
const char *soma__cmd_nearest(const char *given, const char *const *names);

#endif
