// SPDX-License-Identifier: Apache-2.0
// `soma data`: what a dataset holds, what is wrong with it, the same as LeRobot v3.0, answers to SQL, and how an episode looks.
#include "base/progress.h"
#include "cmd/cmd_dataset.h"
#include "data/check.h"
#include "data/convert.h"
#include "data/query.h"
#include "data/screen.h"
#include "data/view.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define DATA_OPTS(X)                                                                                                               \
    X(INT, rows, -1, "info: rows of the list of absent files; check: findings that are printed; 0: all; -1: 40")                   \
    X(INT, pictures, 8, "check: pictures of each camera and episode that are decoded, the first and the last among them; 0: none") \
    X(FLAG, strict, false, "check: warnings make it fail, too")                                                                    \
    X(TEXT, out, "", "convert, merge, split: folder of the new dataset; view: the page (HTML)")                                    \
    X(TEXT, state_key, "", "... features that become the state, separated by commas; empty: observation.state, else state")        \
    X(TEXT, action_key, "", "... features that become the actions; empty: action, else actions")                                   \
    X(TEXT, cameras, "", "... picture features, separated by commas; none: no pictures; empty: all that are there")                \
    X(TEXT, keep, "", "... other vector features that are kept, separated by commas; none; empty: all that every dataset has")     \
    X(REAL, fps, 0, "... frames per second; 0: what the dataset says")                                                             \
    X(TEXT, episodes, "", "convert, split: only these, such as 3,10:20 (the 20th is left out)")                                    \
    X(INT, episode, 0, "view: which episode, as numbered in the dataset")                                                          \
    X(TEXT, rest, "", "split: folder for the episodes that --episodes does not name")                                              \
    X(FLAG, skip_bad, false, "... leave out episodes that cannot be read, instead of ending there")
SOMA_OPTS_DECLARE(data_opts, DATA_OPTS)
#define OPTS_TYPE data_opts
SOMA_OPTS_DEFINE_LOCAL(data_opts, DATA_OPTS, data_defaults)
#undef OPTS_TYPE

static void show(void *user, int64_t done, int64_t total) {
    soma_progress *progress = user;
    progress->total = total;
    soma__progress_show(progress, done, NULL);
}

// ---- info

static int info(const soma_cmd *cmd, const data_opts *o) { return soma__cmd_dataset_info(cmd, cmd->words[1], o->rows); }

// ---- check

enum { ABSENT_SHOWN = 5 };

static void print_check(const soma_check *c, const soma_dataset *d, int64_t rows) {
    int64_t n[SOMA_VERDICT_COUNT] = {0};
    if (rows < 0) rows = 40;
    for (int64_t e = 0; e < d->n_episodes; e++) n[c->verdicts[e]]++;
    int64_t shown = 0, absent = 0;
    for (size_t i = 0; i < c->n_findings; i++) { // many absent files must not hide the rest
        const soma_finding *f = &c->findings[i];
        bool many = rows && !strcmp(f->kind, "absent") && ++absent > ABSENT_SHOWN;
        if (many || (rows && shown >= rows)) continue;
        printf("%-8s %-11s %s\n", f->error ? "error" : "warning", f->kind, f->text);
        shown++;
    }
    if ((int64_t)c->n_findings > shown) printf("... and %" PRId64 " more (--rows 0 prints all)\n", (int64_t)c->n_findings - shown);
    printf("%s: %" PRId64 " errors, %" PRId64 " warnings, %" PRId64 " pictures looked at\nepisodes:", d->path, c->n_errors, c->n_warnings,
           c->n_pictures);
    for (int v = 0; v < SOMA_VERDICT_COUNT; v++) printf("%s %" PRId64 " %s", v ? "," : "", n[v], soma__verdict_names[v]);
    printf("\n");
    for (int v = SOMA_VERDICT_DOUBTFUL; v <= SOMA_VERDICT_BAD; v++) {
        if (!n[v]) continue;
        printf("%s:", soma__verdict_names[v]);
        shown = 0;
        for (int64_t e = 0; e < d->n_episodes; e++)
            if (c->verdicts[e] == (soma_verdict)v && shown++ < 100) printf(" %" PRId64, d->episodes[e].index);
        printf(shown > 100 ? " ...\n" : "\n");
    }
}

static int check(const soma_cmd *cmd, const data_opts *o) {
    soma_dataset *d;
    soma_check c;
    soma_error err = {0};
    if (soma__dataset_open(&d, cmd->words[1], &err)) return soma__cmd_fail(cmd, &err);
    soma_progress progress = soma__progress_start("check", d->n_episodes);
    soma_check_opts how = {.pictures = (int)o->pictures, .progress = show, .user = &progress};
    soma_status status = soma__dataset_check(&c, d, &how, &err);
    soma__progress_end(&progress, d->n_episodes, NULL);
    int code = SOMA_EXIT_OK;
    if (status != SOMA_OK) {
        code = soma__cmd_fail(cmd, &err);
    } else if (cmd->json) {
        code = soma__cmd_print_json(cmd, soma__check_json(&c, d));
    } else {
        print_check(&c, d, o->rows);
    }
    if (status == SOMA_OK && (c.n_errors || (o->strict && c.n_warnings))) code = SOMA_EXIT_FAILED;
    if (status == SOMA_OK) soma__check_free(&c);
    soma__dataset_close(d);
    return code;
}

// ---- convert

static void tell_skipped(void *user, const char *why) { soma__log(SOMA_LOG_WARN, "an episode is left out: %s", why); }

// "3,10:20": numbers of episodes as the dataset has them; the second of a range is the first that is left out.
static soma_status parse_episodes(bool *chosen, const soma_dataset *d, const char *list, soma_error *err) {
    for (const char *p = list; *p;) {
        long long from, to;
        int used = 0;
        bool range = sscanf(p, "%lld:%lld%n", &from, &to, &used) == 2 && used;
        if (!range && (sscanf(p, "%lld%n", &from, &used) != 1 || !used)) used = 0;
        if (!range) to = from + 1;
        if (!used || (p[used] && p[used] != ',') || from < 0 || to <= from)
            return soma__fail(err, SOMA_BAD_INPUT, "--episodes %s: wanted numbers and ranges separated by commas, such as 3,10:20", list);
        bool any = false;
        for (int64_t e = 0; e < d->n_episodes; e++) {
            bool meant = d->episodes[e].index >= from && d->episodes[e].index < to;
            chosen[e] = chosen[e] || meant;
            any = any || meant;
        }
        if (!any) return soma__fail(err, SOMA_NOT_FOUND, "%s: has no episode of --episodes %.*s", d->path, used, p);
        p += used + (p[used] == ',');
    }
    return SOMA_OK;
}

static soma_status write_one(soma_converted *result, const soma_convert_source *sources, int n, const char *out, const data_opts *o,
                             soma_error *err) {
    soma_progress progress = soma__progress_start("convert", 1);
    soma_convert_opts how = {.states = o->state_key,
                             .actions = o->action_key,
                             .cameras = o->cameras,
                             .extras = o->keep,
                             .fps = o->fps,
                             .skip_bad = o->skip_bad,
                             .progress = show,
                             .skipped = tell_skipped,
                             .user = &progress};
    soma_status status = soma__dataset_convert(result, sources, n, out, &how, err);
    soma__progress_end(&progress, progress.total, NULL);
    return status;
}

static json_t *converted_json(const char *out, const soma_converted *r) {
    return json_pack("{s:s, s:I, s:I, s:I, s:I}", "out", out, "episodes", (json_int_t)r->episodes, "frames", (json_int_t)r->frames,
                     "skipped", (json_int_t)r->skipped, "absent", (json_int_t)r->absent);
}

static void print_converted(const char *out, const soma_converted *r) {
    printf("%s: %" PRId64 " episodes, %" PRId64 " frames", out, r->episodes, r->frames);
    if (r->skipped) printf(", %" PRId64 " that cannot be read left out", r->skipped);
    if (r->absent) printf(", %" PRId64 " that are absent left out", r->absent);
    printf("\n");
}

static soma_status open_sources(soma_convert_source *sources, soma_dataset **open, int n, const soma_cmd *cmd, const data_opts *o,
                                soma_error *err) {
    for (int i = 0; i < n; i++) {
        SOMA_TRY(soma__dataset_open(&open[i], cmd->words[1 + i], err));
        sources[i].dataset = open[i];
        if (!o->skip_bad) SOMA_TRY(soma__dataset_screen(NULL, open[i], &(soma_screen){0}, err)); // else each episode as it is read
    }
    return SOMA_OK;
}

// The chosen episodes go to --out, the others to --rest.
static soma_status write_parts(soma_converted result[2], soma_convert_source *sources, int n, const data_opts *o, soma_error *err) {
    bool *chosen = NULL;
    const soma_dataset *d = sources[0].dataset;
    soma_status status = SOMA_OK;
    if (*o->episodes) {
        chosen = soma__calloc((size_t)d->n_episodes + 1, sizeof *chosen);
        status = chosen ? parse_episodes(chosen, d, o->episodes, err) : soma__no_memory(err, "the list of episodes");
        sources[0].chosen = chosen;
    }
    if (status == SOMA_OK) status = write_one(&result[0], sources, n, o->out, o, err);
    if (status == SOMA_OK && *o->rest) {
        for (int64_t e = 0; e < d->n_episodes; e++) chosen[e] = !chosen[e];
        status = write_one(&result[1], sources, n, o->rest, o, err);
    }
    soma__free(chosen);
    return status;
}

static int convert(const soma_cmd *cmd, const data_opts *o) {
    int n = cmd->n_words - 1;
    soma_converted result[2] = {0};
    soma_error err = {0};
    if (!*o->out) return soma__cmd_usage(cmd, "--out names the folder of the new dataset");
    if (*o->rest && !*o->episodes) return soma__cmd_usage(cmd, "--rest takes what --episodes leaves");
    if (*o->episodes && n > 1) return soma__cmd_usage(cmd, "--episodes chooses from one dataset");
    soma_convert_source *sources = soma__calloc((size_t)n, sizeof *sources);
    soma_dataset **open = soma__calloc((size_t)n, sizeof(soma_dataset *));
    soma_status status = sources && open ? open_sources(sources, open, n, cmd, o, &err) : soma__no_memory(&err, "the datasets");
    if (status == SOMA_OK) status = write_parts(result, sources, n, o, &err);
    for (int i = 0; open && i < n; i++) soma__dataset_close(open[i]);
    soma__free(open);
    soma__free(sources);
    if (status != SOMA_OK) return soma__cmd_fail(cmd, &err);
    if (cmd->json) {
        json_t *value = converted_json(o->out, &result[0]);
        if (value && *o->rest) json_object_set_new(value, "rest", converted_json(o->rest, &result[1]));
        return soma__cmd_print_json(cmd, value);
    }
    print_converted(o->out, &result[0]);
    if (*o->rest) print_converted(o->rest, &result[1]);
    return SOMA_EXIT_OK;
}

// ---- query

static json_t *cell_json(const soma_column *c, int64_t row) {
    size_t from = c->starts[row], to = c->starts[row + 1];
    json_t *list = c->list ? json_array() : NULL;
    if (c->kind == SOMA_COLUMN_OTHER) return json_null();
    for (size_t i = from; i < to; i++) {
        double x = c->kind == SOMA_COLUMN_NUMBER ? c->numbers[i] : 0;
        bool whole = x == floor(x) && fabs(x) < 9e15;
        json_t *v = c->kind == SOMA_COLUMN_TEXT ? (c->texts[i].data ? json_string(c->texts[i].data) : json_null())
                    : !isfinite(x)              ? json_null()
                    : whole                     ? json_integer((json_int_t)x)
                                                : json_real(x);
        if (!list) return v;
        json_array_append_new(list, v);
    }
    return list ? list : json_null();
}

static json_t *rows_json(const soma_table *t) {
    json_t *rows = json_array();
    for (int64_t r = 0; r < t->n_rows; r++) {
        json_t *row = json_object();
        for (int c = 0; c < t->n_columns; c++) json_object_set_new(row, t->columns[c].name, cell_json(&t->columns[c], r));
        json_array_append_new(rows, row);
    }
    return rows;
}

static const char *cell(const soma_column *c, int64_t row) { return c->texts[row].data ? c->texts[row].data : ""; }

// Columns as wide as their widest value, at most CELL letters.
static void print_rows(const soma_table *t) {
    enum { CELL = 60 };
    for (int64_t r = -1; r < t->n_rows; r++) {
        for (int c = 0; c < t->n_columns; c++) {
            int width = (int)strlen(t->columns[c].name);
            for (int64_t i = 0; i < t->n_rows && i < 1000; i++) width = SOMA_MAX(width, (int)strlen(cell(&t->columns[c], i)));
            const char *text = r < 0 ? t->columns[c].name : cell(&t->columns[c], r);
            bool last = c == t->n_columns - 1;
            printf("%-*s%s", last ? 0 : SOMA_MIN(width, CELL), text, last ? "\n" : "  ");
        }
    }
}

static int query(const soma_cmd *cmd, const data_opts *o) {
    soma_dataset *d;
    soma_table *rows;
    soma_error err = {0};
    int code = SOMA_EXIT_OK;
    if (soma__dataset_open(&d, cmd->words[1], &err)) return soma__cmd_fail(cmd, &err);
    if (soma__dataset_query(&rows, d, cmd->words[2], !cmd->json, &err))
        code = soma__cmd_fail(cmd, &err);
    else if (cmd->json)
        code = soma__cmd_print_json(cmd, rows_json(rows));
    else
        print_rows(rows);
    soma__table_free(rows);
    soma__dataset_close(d);
    return code;
}

// ---- view

static int view(const soma_cmd *cmd, const data_opts *o) {
    soma_dataset *d;
    soma_error err = {0};
    if (!*o->out) return soma__cmd_usage(cmd, "--out names the page");
    if (soma__dataset_open(&d, cmd->words[1], &err)) return soma__cmd_fail(cmd, &err);
    int64_t e = 0;
    while (e < d->n_episodes && d->episodes[e].index != o->episode) e++;
    soma_status status = e < d->n_episodes ? soma__dataset_view(o->out, d, e, &err)
                                           : soma__fail(&err, SOMA_NOT_FOUND, "%s: has no episode %" PRId64, d->path, o->episode);
    soma__dataset_close(d);
    if (status != SOMA_OK) return soma__cmd_fail(cmd, &err);
    if (cmd->json) return soma__cmd_print_json(cmd, json_pack("{s:s, s:I}", "out", o->out, "episode", (json_int_t)o->episode));
    printf("%s: episode %" PRId64 "\n", o->out, o->episode);
    return SOMA_EXIT_OK;
}

// ---- the verb

extern const soma_verb soma__verb_stats;

static const struct {
    const char *name;
    int (*run)(const soma_cmd *cmd, const data_opts *o);
    int min_paths, max_paths; // max -1: any number
} actions[] = {{"info", info, 1, 1},     {"check", check, 1, 1}, {"convert", convert, 1, 1}, {"merge", convert, 2, -1},
               {"split", convert, 1, 1}, {"query", query, 2, 2}, {"view", view, 1, 1}};

static int run(int argc, char **argv) {
    data_opts o = data_defaults();
    soma_cmd cmd = {
        .usage = "info|check|stats|convert|merge|split|view PATH... | query PATH SQL  [options]",
        .about =
            "Datasets of any format that is known (LeRobot, RLDS, HDF5). info tells what one holds; check what is wrong with it, with a\n"
            "verdict per episode; stats takes statistics (soma stats --help); convert writes it as LeRobot v3.0, merge several as one, "
            "split some episodes and the rest;\n"
            "query answers SQL over the tables episodes and frames; view writes a page with an episode's videos and curves.\n\n"
            "Examples:\n"
            "  soma data info bridge --json\n"
            "  soma data check demo/data\n"
            "  soma data convert bridge --fps 5 --out bridge_v30\n"
            "  soma data convert lift.hdf5 --state-key observation.robot0_eef_pos,observation.robot0_gripper_qpos --out lift\n"
            "  soma data merge monday tuesday --out both\n"
            "  soma data split both --episodes 0:90 --out train --rest held_out\n"
            "  soma data query demo/data 'SELECT task, count(*), avg(frames) FROM episodes GROUP BY task'\n"
            "  soma data query demo/data 'SELECT episode, max(\"observation.state\"[1]) FROM frames GROUP BY episode'\n"
            "  soma data view demo/data --episode 3 --out episode.html\n",
        .has_json = true,
        .min_words = 2,
        .max_words = -1,
        .groups = {{&data_opts_table, &o, "options"}}};
    int code;
    if (argc > 1 && !strcmp(argv[1], "stats")) return soma__verb_stats.run(argc - 1, argv + 1); // the same verb, with options of its own
    if (!soma__cmd_parse(&cmd, argc, argv, &code)) return code;
    size_t which = 0;
    while (which < SOMA_COUNT(actions) && strcmp(cmd.words[0], actions[which].name)) which++;
    if (which == SOMA_COUNT(actions))
        return soma__cmd_usage(&cmd, "\"%s\" is none of info, check, stats, convert, merge, split, query and view", cmd.words[0]);
    int paths = cmd.n_words - 1;
    if (paths < actions[which].min_paths || (actions[which].max_paths > 0 && paths > actions[which].max_paths))
        return soma__cmd_usage(&cmd, "%s takes %s", cmd.words[0],
                               actions[which].run == query     ? "a dataset and a SELECT"
                               : actions[which].max_paths == 1 ? "one dataset"
                                                               : "two datasets or more");
    if (!strcmp(cmd.words[0], "split") && !*o.episodes) return soma__cmd_usage(&cmd, "split wants --episodes");
    if (o.pictures < 0 || o.pictures > 100000 || !(o.fps >= 0)) return soma__cmd_usage(&cmd, "--pictures and --fps are not negative");
    return actions[which].run(&cmd, &o);
}

const soma_verb soma__verb_data = {"data", "datasets: what one holds, what is wrong with it, one as another, how an episode looks", run};
