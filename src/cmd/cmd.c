// SPDX-License-Identifier: Apache-2.0
// The part of every verb that is the same: one pass over the arguments, the help page, the way an error looks.
#include "cmd/cmd.h"
#include "base/str.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- errors and results

int soma__cmd_fail(const soma_cmd *cmd, const soma_error *err) {
    fprintf(stderr, "soma %s: %s: %s\n", cmd->verb, soma_status_word(err->code), err->text);
    return SOMA_EXIT_FAILED;
}

int soma__cmd_usage(const soma_cmd *cmd, const char *format, ...) {
    va_list args;
    fprintf(stderr, "soma %s: ", cmd->verb);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "\n`soma %s --help` lists the options.\n", cmd->verb);
    return SOMA_EXIT_USAGE;
}

int soma__cmd_print_json(const soma_cmd *cmd, json_t *value) {
    char *text = value ? json_dumps(value, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(value);
    if (!text) return soma__cmd_fail(cmd, &(soma_error){SOMA_NO_MEMORY, "the result could not be written as JSON"});
    bool ok = puts(text) >= 0 && !fflush(stdout);
    free(text);
    return ok ? SOMA_EXIT_OK : soma__cmd_fail(cmd, &(soma_error){SOMA_IO, "standard output cannot be written"});
}

const char *soma__cmd_nearest(const char *given, const char *const *names) {
    const char *best = NULL;
    size_t least = SIZE_MAX;
    for (; *names; names++) {
        size_t distance = soma__str_distance(given, *names);
        if (distance < least) {
            least = distance;
            best = *names;
        }
    }
    return best && soma__str_near(given, least) ? best : NULL;
}

// ---- help

static void print_help(const soma_cmd *cmd) {
    printf("usage: soma %s %s\n\n%s", cmd->verb, cmd->usage ? cmd->usage : "[options]", cmd->about ? cmd->about : "");
    for (const soma_cmd_group *g = cmd->groups; g->table; g++) {
        printf("\n%s:\n", g->title ? g->title : "options");
        soma__opts_help(g->table, stdout);
    }
    printf("\ngeneral:\n");
    if (cmd->has_config) printf("  %-24s %s\n", "--config FILE", "read options from a JSON file first; flags win over it");
    if (cmd->has_json) printf("  %-24s %s\n", "--json", "print the result as JSON on standard output");
    printf("  %-24s %s\n", "--help", "print this page");
}

// ---- the command line

// Offers the argument to every group; *used stays 0 when none knows it.
static soma_status offer(soma_cmd *cmd, int argc, char **argv, int *used, soma_error *err) {
    *used = 0;
    for (const soma_cmd_group *g = cmd->groups; g->table; g++) {
        int taken;
        SOMA_TRY(soma__opts_arg(g->table, g->opts, argc, argv, &taken, err));
        *used = SOMA_MAX(*used, taken);
    }
    return SOMA_OK;
}

// The nearest flag to "--name=..." in all groups, as it would be typed; false when nothing is near.
static bool suggest(const soma_cmd *cmd, const char *arg, char out[80]) {
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)strcspn(arg + 2, "="), arg + 2);
    for (char *c = name; *c; c++)
        if (*c == '-') *c = '_';
    const char *nearest = NULL;
    size_t distance = SIZE_MAX;
    for (const soma_cmd_group *g = cmd->groups; g->table; g++) soma__opts_find(g->table, name, &nearest, &distance);
    if (cmd->has_json && soma__str_distance(name, "json") < distance) distance = soma__str_distance(name, nearest = "json");
    if (cmd->has_config && soma__str_distance(name, "config") < distance) distance = soma__str_distance(name, nearest = "config");
    if (!nearest || !soma__str_near(name, distance)) return false;
    snprintf(out, 80, "--%.70s", nearest);
    for (char *c = out; *c; c++)
        if (*c == '_') *c = '-';
    return true;
}

// "--json", "--config FILE" and "--config=FILE". Returns how many arguments it took, 0 for none.
static int take_general(soma_cmd *cmd, int argc, char **argv) {
    if (cmd->has_json && !strcmp(argv[0], "--json")) {
        cmd->json = true;
        return 1;
    }
    if (!cmd->has_config || strncmp(argv[0], "--config", 8)) return 0;
    if (argv[0][8] == '=') {
        cmd->config = argv[0] + 9;
        return 1;
    }
    if (argv[0][8] || argc < 2) return 0;
    cmd->config = argv[1];
    return 2;
}

// Every key must belong to a group; a key that several groups have is set in each.
static soma_status read_config(soma_cmd *cmd, soma_error *err) {
    json_t *file;
    SOMA_TRY(soma__json_load(&file, cmd->config, err));
    soma_status status =
        json_is_object(file) ? SOMA_OK : soma__fail(err, SOMA_BAD_INPUT, "%s: must hold a JSON object of options", cmd->config);
    const char *key;
    json_t *value;
    json_object_foreach(file, key, value) {
        const char *nearest = NULL;
        size_t distance = SIZE_MAX;
        bool known = false;
        json_t *one = json_pack("{s:O}", key, value);
        if (status == SOMA_OK && !one) status = soma__no_memory(err, cmd->config);
        for (const soma_cmd_group *g = cmd->groups; status == SOMA_OK && g->table; g++) {
            if (!soma__opts_find(g->table, key, &nearest, &distance)) continue;
            known = true;
            status = soma__opts_from_json(g->table, g->opts, one, cmd->config, err);
        }
        json_decref(one);
        if (status == SOMA_OK && !known) {
            bool near = nearest && soma__str_near(key, distance);
            status = soma__fail(err, SOMA_BAD_INPUT, "%s: \"%s\" is not an option of `soma %s`%s%s%s", cmd->config, key, cmd->verb,
                                near ? "; did you mean \"" : "", near ? nearest : "", near ? "\"?" : "");
        }
        if (status != SOMA_OK) break;
    }
    json_decref(file);
    return status;
}

// One pass over the arguments: words are moved to the front of argv + 1, options set the groups.
static bool read_arguments(soma_cmd *cmd, int argc, char **argv, int *exit_code) {
    bool only_words = false;
    soma_error err = {0};
    cmd->n_words = 0;
    for (int i = 1; i < argc;) {
        char *arg = argv[i];
        if (only_words || arg[0] != '-' || !arg[1]) {
            cmd->words[cmd->n_words++] = arg;
            i++;
            continue;
        }
        int used = 1;
        if (!strcmp(arg, "--"))
            only_words = true;
        else if (!(used = take_general(cmd, argc - i, argv + i)) && offer(cmd, argc - i, argv + i, &used, &err)) {
            *exit_code = soma__cmd_usage(cmd, "%s", err.text);
            return false;
        }
        if (!used) {
            char near[80];
            bool found = !strncmp(arg, "--", 2) && suggest(cmd, arg, near);
            *exit_code = found ? soma__cmd_usage(cmd, "%s is not an option here; did you mean %s?", arg, near)
                               : soma__cmd_usage(cmd, "%s is not an option here, or lacks its value", arg);
            return false;
        }
        i += used;
    }
    return true;
}

static bool words_fit(const soma_cmd *cmd, int *exit_code) {
    if (cmd->n_words >= cmd->min_words && (cmd->max_words < 0 || cmd->n_words <= cmd->max_words)) return true;
    if (cmd->n_words < cmd->min_words)
        *exit_code = soma__cmd_usage(cmd, "an argument is missing: soma %s %s", cmd->verb, cmd->usage);
    else
        *exit_code = soma__cmd_usage(cmd, "\"%s\" is one argument too many: soma %s %s", cmd->words[cmd->max_words], cmd->verb, cmd->usage);
    return false;
}

bool soma__cmd_parse(soma_cmd *cmd, int argc, char **argv, int *exit_code) {
    cmd->verb = argv[0];
    for (int i = 1; i < argc && strcmp(argv[i], "--"); i++)
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
            print_help(cmd);
            *exit_code = SOMA_EXIT_OK;
            return false;
        }
    // The file comes first and the flags win: where a file is named, the arguments are read once to find it and again behind it.
    char **words = soma__calloc((size_t)argc, sizeof *words);
    if (!words) {
        *exit_code = soma__cmd_fail(cmd, &(soma_error){SOMA_NO_MEMORY, "the command line"});
        return false;
    }
    cmd->words = words;
    bool ok = read_arguments(cmd, argc, argv, exit_code);
    soma_error err = {0};
    if (ok && cmd->config && read_config(cmd, &err)) {
        *exit_code = soma__cmd_fail(cmd, &err);
        ok = false;
    }
    if (ok && cmd->config) ok = read_arguments(cmd, argc, argv, exit_code);
    if (ok) ok = words_fit(cmd, exit_code);
    // the words themselves are argv's; they move to its front, so that nothing is left to release
    if (ok) memcpy(argv + 1, words, (size_t)cmd->n_words * sizeof *words);
    cmd->words = argv + 1;
    soma__free(words);
    return ok;
}

json_t *soma__cmd_config_json(const soma_cmd *cmd) {
    json_t *all = json_object();
    for (const soma_cmd_group *g = cmd->groups; all && g->table; g++) {
        json_t *one = soma__opts_to_json(g->table, g->opts);
        bool ok = one && !json_object_update_missing(all, one);
        json_decref(one);
        if (ok) continue;
        json_decref(all);
        all = NULL;
    }
    return all;
}

// ---- Ctrl-C

static volatile sig_atomic_t interrupted;

static void on_signal(int signal) { interrupted = signal; }

void soma__cmd_catch_interrupt(void) {
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESETHAND | SA_RESTART};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

bool soma__cmd_interrupted(void) { return interrupted != 0; }
