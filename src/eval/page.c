// SPDX-License-Identifier: Apache-2.0
// Plots are SVG written as text, pictures PNG in base64, the style a few lines inside the page.
#include "eval/page.h"
#include "base/file.h"
#include "format/image.h"
#include "train/trainer.h"

#include <stdio.h>
#include <string.h>

enum { BAR = 240, CELL = 11, PER_LINE = 50, SHOWN = 4 };

static const char style[] =
    ":root{color-scheme:light;--ink:#21262d;--pale:#6b7280;--rule:#e2e5e9;--good:#2f9e5b;--half:#d9920f;--bad:#cf3f3f;--soft:#cfe8d9}"
    "body{font:15px/1.5 system-ui,-apple-system,'Segoe UI',sans-serif;color:var(--ink);background:#f7f7f5;margin:0}"
    "main{max-width:980px;margin:0 auto;padding:28px 24px 60px}"
    "h1{font-size:24px;margin:0 0 4px}h2{font-size:16px;margin:34px 0 10px}p{margin:4px 0;color:var(--pale)}"
    "section{background:#fff;border:1px solid var(--rule);border-radius:8px;padding:16px 18px;overflow-x:auto}"
    "section h2{margin:12px 0 "
    "4px;font-size:14px}table{border-collapse:collapse;width:100%}th{font-weight:600;font-size:13px;color:var(--pale);text-align:left}"
    "th,td{padding:7px 14px 7px 0;border-bottom:1px solid var(--rule);vertical-align:middle}tr:last-child td{border-bottom:0}"
    "td.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}th.n{text-align:right}"
    "b.big{font-size:19px}small{color:var(--pale)}svg{display:block}svg text{font-size:12px;fill:#6b7280}.frame{fill:none;stroke:#d5d8dc}"
    ".cards{display:grid;grid-template-columns:repeat(2,1fr);gap:14px}.card{border:1px solid var(--rule);border-radius:6px;padding:10px "
    "12px}"
    ".card div{display:grid;grid-template-columns:repeat(4,1fr);gap:6px;margin-top:8px}"
    ".card img{width:100%;display:block;border-radius:4px;image-rendering:auto}.card span{font-size:12px;color:var(--pale)}"
    ".tag{float:right;color:#fff;border-radius:4px;padding:0 7px;font-size:13px}.key i{display:inline-block;width:10px;height:10px;"
    "border-radius:2px;margin:0 5px 0 14px}";

static void page_begin(soma_str *page, const char *title) {
    soma__str_add(page, "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'><title>");
    soma__str_add_html(page, title);
    soma__str_printf(page, "</title><style>%s</style></head><body><main>\n<h1>", style);
    soma__str_add_html(page, title);
    soma__str_add(page, "</h1>\n");
}

static soma_status page_end(soma_str *page, const char *path, soma_error *err) {
    soma__str_add(page, "</main></body></html>\n");
    soma_status status = page->failed ? soma__no_memory(err, "a report") : soma__file_write(path, page->text, page->len, err);
    soma__str_free(page);
    return status;
}

// ---- the table of results

// A track from 0 to 100 %, the interval on it, the rate as a line.
static void add_bar(soma_str *page, soma_rate r, const char *colour) {
    soma__str_printf(page,
                     "<svg width='%d' height='22' viewBox='0 0 %d 22'><rect y='7' width='%d' height='8' rx='4' fill='#eceef0'/>"
                     "<rect x='%.1f' y='7' width='%.1f' height='8' rx='2' fill='%s' opacity='.38'/>"
                     "<rect x='%.1f' y='2' width='3' height='18' rx='1' fill='%s'/></svg>",
                     BAR, BAR, BAR, r.low * BAR, (r.high - r.low) * BAR, colour, r.rate * (BAR - 3), colour);
}

static void add_rate(soma_str *page, soma_rate r) {
    soma__str_printf(page, "<td class=n><b class=big>%.0f %%</b><br><small>%.1f to %.1f</small></td>", 100 * r.rate, 100 * r.low,
                     100 * r.high);
}

static double number(const json_t *result, const char *key) { return json_number_value(json_object_get(result, key)); }
static const char *word(const json_t *result, const char *key) {
    const char *s = json_string_value(json_object_get(result, key));
    return s ? s : "";
}

static soma_status add_row(soma_str *page, const json_t *result, const char *where, soma_error *err) {
    soma_rate success, prompted;
    SOMA_TRY(soma__rate_read(&success, result, "success", where, err));
    SOMA_TRY(soma__rate_read(&prompted, result, "prompted", where, err));
    soma__str_add(page, "<tr><td><b>");
    soma__str_add_html(page, word(result, "label"));
    soma__str_add(page, "</b><br><small>");
    soma__str_add_html(page, word(result, "mode"));
    soma__str_printf(page, ", %lld seeds from %.0f</small></td>", (long long)success.n, number(result, "first_seed"));
    add_rate(page, success);
    soma__str_add(page, "<td>");
    add_bar(page, success, "#2f9e5b");
    if (!strcmp(word(result, "mode"), "wrong prompt")) add_bar(page, prompted, "#d9920f");
    soma__str_add(page, "</td>");
    add_rate(page, prompted);
    if (success.rate > 0)
        soma__str_printf(page, "<td class=n>%.1f</td>", number(result, "mean_steps"));
    else
        soma__str_add(page, "<td class=n>-</td>");
    soma__str_printf(page, "<td class=n>%.1f</td></tr>\n", number(result, "act_ms"));
    return SOMA_OK;
}

// One square per seed, in the order of the seeds; hovering tells which.
static void add_strip(soma_str *page, const json_t *result) {
    const json_t *episodes = json_object_get(result, "episodes"), *e;
    size_t i, n = json_array_size(episodes);
    if (!n) return;
    int height = (int)((n + PER_LINE - 1) / PER_LINE) * (CELL + 2);
    soma__str_add(page, "<p>");
    soma__str_add_html(page, word(result, "label"));
    soma__str_printf(page, "</p><svg width='%d' height='%d'>", PER_LINE * (CELL + 2), height + 4);
    json_array_foreach((json_t *)episodes, i, e) {
        bool success = json_is_true(json_object_get(e, "success")), prompted = json_is_true(json_object_get(e, "prompted"));
        soma__str_printf(page,
                         "<rect x='%d' y='%d' width='%d' height='%d' rx='2' fill='%s'><title>seed %.0f: ", (int)(i % PER_LINE) * (CELL + 2),
                         (int)(i / PER_LINE) * (CELL + 2), CELL, CELL,
                         success    ? "#2f9e5b"
                         : prompted ? "#d9920f"
                                    : "#cf3f3f",
                         number(e, "seed"));
        soma__str_add_html(page, word(e, "prompt"));
        soma__str_printf(page, "; %s after %.0f steps</title></rect>",
                         success    ? "success"
                         : prompted ? "did as prompted"
                                    : "failure",
                         number(e, "steps"));
    }
    soma__str_add(page, "</svg>\n");
}

static soma_status add_results(soma_str *page, const json_t *const *results, const char *const *names, int n, soma_error *err) {
    soma__str_add(page,
                  "<h2>Results</h2><section><table><tr><th>Policy</th><th class=n>Success</th><th>0 to 100 %, with the 95 % interval</th>"
                  "<th class=n>As prompted</th><th class=n>Steps<br>per success</th><th class=n>ms<br>per chunk</th></tr>\n");
    for (int i = 0; i < n; i++) SOMA_TRY(add_row(page, results[i], names[i], err));
    soma__str_add(page, "</table></section>\n<h2>Every seed</h2><section>");
    for (int i = 0; i < n; i++) add_strip(page, results[i]);
    soma__str_add(
        page, "<p class=key><i style='background:#2f9e5b;margin-left:0'></i>success<i style='background:#d9920f'></i>not the goal, but as "
              "prompted<i style='background:#cf3f3f'></i>failure</p></section>\n");
    return SOMA_OK;
}

// ---- episodes

static soma_status add_picture(soma_str *page, const soma_rollouts *r, const uint8_t *rgb, const char *what, soma_error *err) {
    void *png;
    size_t size;
    SOMA_TRY(soma__png_encode(&png, &size, rgb, (int)r->opts.image, (int)r->opts.image, err));
    soma__str_add(page, "<figure style='margin:0'><img alt='' src='data:image/png;base64,");
    soma__str_add_base64(page, png, size);
    soma__str_printf(page, "'><span>%s</span></figure>", what);
    soma__free(png);
    return SOMA_OK;
}

static soma_status add_card(soma_str *page, const soma_rollouts *r, const soma_rollout *e, soma_error *err) {
    bool good = e->outcome.success, half = !good && r->opts.wrong_prompt && e->outcome.prompted;
    size_t picture = (size_t)r->opts.image * (size_t)r->opts.image * 3;
    soma__str_printf(page, "<div class=card><b class=tag style='background:var(--%s)'>%s</b><b>",
                     good   ? "good"
                     : half ? "half"
                            : "bad",
                     good   ? "success"
                     : half ? "as prompted"
                            : "failure");
    soma__str_add_html(page, e->prompt);
    soma__str_printf(page, "</b> <small>seed %llu, %.1f s</small><div>", (unsigned long long)e->seed, e->outcome.steps / r->task.rate);
    for (int c = 0; c < r->task.n_cameras; c++) {
        char what[80];
        snprintf(what, sizeof what, "%s, first", r->task.camera_names[c]);
        SOMA_TRY(add_picture(page, r, e->first + c * picture, what, err));
        snprintf(what, sizeof what, "%s, last", r->task.camera_names[c]);
        SOMA_TRY(add_picture(page, r, e->last + c * picture, what, err));
    }
    soma__str_add(page, "</div></div>\n");
    return SOMA_OK;
}

// The first few that went well and the first few that did not.
static soma_status add_episodes(soma_str *page, const soma_rollouts *r, soma_error *err) {
    soma__str_add(page, "<h2>Episodes</h2><section><div class=cards>\n");
    for (int good = 1; good >= 0; good--) {
        int shown = 0;
        for (int64_t i = 0; i < r->n && shown < SHOWN; i++) {
            if (r->episodes[i].outcome.success != good) continue;
            SOMA_TRY(add_card(page, r, &r->episodes[i], err));
            shown++;
        }
    }
    soma__str_add(page, "</div></section>\n");
    return SOMA_OK;
}

// ---- the page

enum { MAX_RESULTS = 16 };

typedef struct {
    json_t *loaded[MAX_RESULTS]; // owned
    const json_t *results[MAX_RESULTS];
    const char *names[MAX_RESULTS];
    char paths[SOMA_OPT_TEXT];
    int n;
} rows;

static soma_status load_rows(rows *s, const json_t *result, const char *compare, soma_error *err) {
    s->results[0] = result;
    s->names[0] = "this result";
    s->n = 1;
    snprintf(s->paths, sizeof s->paths, "%s", compare);
    char *rest;
    for (char *path = strtok_r(s->paths, ",", &rest); path; path = strtok_r(NULL, ",", &rest)) {
        if (s->n == MAX_RESULTS) return soma__fail(err, SOMA_BAD_INPUT, "a page compares at most %d results", MAX_RESULTS);
        SOMA_TRY(soma__json_load(&s->loaded[s->n], path, err));
        s->results[s->n] = s->loaded[s->n];
        s->names[s->n++] = path;
    }
    return SOMA_OK;
}

static soma_status add_curves(soma_str *page, const char *dir, soma_error *err) {
    char path[SOMA_PATH_MAX];
    if (!dir[0]) return SOMA_OK;
    SOMA_TRY(soma__path_join(path, dir, "metrics.jsonl", err));
    if (!soma__file_exists(path)) return SOMA_OK;
    soma__str_add(page, "<h2>Training</h2><section>");
    SOMA_TRY(soma__curves_add(page, dir, err));
    soma__str_add(page, "</section>\n");
    return SOMA_OK;
}

soma_status soma__page_rollouts(const char *path, const soma_rollouts *r, const json_t *result, const char *compare, const char *curves,
                                soma_error *err) {
    rows s = {0};
    soma_str page = {0};
    page_begin(&page, r->task.name);
    soma__str_add(&page, "<p>The task: ");
    soma__str_add_html(&page, r->task.about);
    soma__str_printf(
        &page, ". Closed loop in simulation at %.0f Hz on a %s; the first %lld actions of each chunk are executed; %d s at most.</p>\n",
        r->task.rate, r->task.robot, (long long)r->chunk_opts.execute, (int)(r->task.max_steps / r->task.rate));
    soma_status status = load_rows(&s, result, compare, err);
    if (status == SOMA_OK) status = add_results(&page, s.results, s.names, s.n, err);
    if (status == SOMA_OK) status = add_episodes(&page, r, err);
    if (status == SOMA_OK) status = add_curves(&page, curves, err);
    if (status == SOMA_OK)
        status = page_end(&page, path, err);
    else
        soma__str_free(&page);
    for (int i = 0; i < s.n; i++) json_decref(s.loaded[i]);
    return status;
}

// ---- open loop

static void add_error_row(soma_str *page, const soma_openloop_error *e, const soma_openloop *r, double worst, const char *colour) {
    soma__str_add(page, "<tr><td>");
    soma__str_add_html(page, e->name);
    soma__str_printf(page,
                     "</td><td class=n><b>%.3f</b></td><td><svg width='%d' height='14'><rect y='3' width='%.1f' height='8' rx='2' "
                     "fill='%s'/></svg></td>",
                     e->chunk, BAR, BAR * e->chunk / worst, colour);
    for (int i = 0; i < SOMA_OPENLOOP_POINTS; i++) {
        if (soma__openloop_points[i] <= r->horizon) soma__str_printf(page, "<td class=n>%.3f</td>", e->at[i]);
    }
    soma__str_add(page, "</tr>\n");
}

soma_status soma__page_openloop(const char *path, const soma_openloop *r, const char *dataset, soma_error *err) {
    soma_str page = {0};
    double worst = SOMA_MAX(r->average.chunk, r->last.chunk);
    if (r->can_hold) worst = SOMA_MAX(worst, r->hold.chunk);
    for (int i = 0; i < r->n_policies; i++) worst = SOMA_MAX(worst, r->policies[i].chunk);
    page_begin(&page, "Error on held-out episodes");
    soma__str_add(&page, "<p>");
    soma__str_add_html(&page, dataset);
    soma__str_printf(&page,
                     ": %lld frames of %lld episodes; mean absolute error of the predicted actions, each of %d dimensions divided by its "
                     "standard deviation over the other episodes.</p>\n<h2>Steps of the chunk, counted from 1</h2><section><table>"
                     "<tr><th></th><th class=n>1 to %d</th><th></th>",
                     (long long)r->frames, (long long)r->episodes, r->n_dims, r->horizon);
    for (int i = 0; i < SOMA_OPENLOOP_POINTS; i++) {
        if (soma__openloop_points[i] <= r->horizon) soma__str_printf(&page, "<th class=n>%d</th>", soma__openloop_points[i]);
    }
    soma__str_add(&page, "</tr>\n");
    for (int i = 0; i < r->n_policies; i++) add_error_row(&page, &r->policies[i], r, worst, "#2f9e5b");
    if (r->n_policies > 1) {
        add_error_row(&page, &r->mean, r, worst, "#1d6f40");
        add_error_row(&page, &r->spread, r, worst, "#9ca3af");
    }
    if (r->can_hold) add_error_row(&page, &r->hold, r, worst, "#9ca3af");
    add_error_row(&page, &r->last, r, worst, "#9ca3af");
    add_error_row(&page, &r->average, r, worst, "#9ca3af");
    soma__str_add(&page, "</table></section>\n");
    return page_end(&page, path, err);
}
