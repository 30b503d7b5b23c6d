// SPDX-License-Identifier: Apache-2.0
// soma export: a policy, or an adapter and its base as one, as a folder that openpi or LeRobot loads.
#include "base/progress.h"
#include "cmd/cmd.h"
#include "policy/export.h"

#include <stdio.h>
#include <string.h>

#define EXPORT_OPTS(X)                                                                                                             \
    X(TEXT, policy, "", "folder of a policy, of an adapter, or of the base that --adapter belongs to")                             \
    X(TEXT, adapter, "", "folder of an adapter to fold into --policy")                                                             \
    X(TEXT, layout, "openpi", "openpi or lerobot")                                                                                 \
    X(TEXT, dtype, "bf16", "bf16 or f32, of every tensor; a pair's small difference can be lost in bf16's rounding of the weight") \
    X(TEXT, asset, "soma", "openpi: the folder below assets/ that the statistics go to")                                           \
    X(TEXT, out, "", "folder to make")
SOMA_OPTS_DECLARE(export_opts, EXPORT_OPTS)
#define OPTS_TYPE export_opts
SOMA_OPTS_DEFINE_LOCAL(export_opts, EXPORT_OPTS, export_defaults)
#undef OPTS_TYPE

static bool show(void *user, int64_t done, int64_t total) {
    soma_progress *p = user;
    p->total = total;
    soma__progress_show(p, done, "values");
    return !soma__cmd_interrupted();
}

static int run(int argc, char **argv) {
    export_opts o = export_defaults();
    soma_cmd cmd = {.usage = "--policy DIR [--adapter DIR] --layout openpi|lerobot --out DIR",
                    .about =
                        "Writes a policy as the originals load it: all tensors under their names, config, statistics, and for LeRobot the\n"
                        "steps before and after the policy. An adapter's pairs are folded into the weights beside which they stand.\n\n"
                        "Example:\n  soma export --policy tuned --layout lerobot --out for_lerobot\n",
                    .has_json = true,
                    .groups = {{&export_opts_table, &o, "options"}}};
    int code;
    if (!soma__cmd_parse(&cmd, argc, argv, &code)) return code;
    if (!*o.policy || !*o.out) return soma__cmd_usage(&cmd, "--policy and --out are needed");
    const bool lerobot = !strcmp(o.layout, "lerobot"), f32 = !strcmp(o.dtype, "f32");
    if (!lerobot && strcmp(o.layout, "openpi"))
        return soma__cmd_usage(&cmd, "--layout \"%.20s\": openpi or lerobot are possible", o.layout);
    if (!f32 && strcmp(o.dtype, "bf16")) return soma__cmd_usage(&cmd, "--dtype \"%.20s\": bf16 or f32 are possible", o.dtype);
    soma__cmd_catch_interrupt();
    soma_export_opts e = {.policy = o.policy,
                          .adapter = *o.adapter ? o.adapter : NULL,
                          .out = o.out,
                          .lerobot = lerobot,
                          .dtype = f32 ? SOMA_F32 : SOMA_BF16,
                          .asset = o.asset};
    soma_exported r;
    soma_error err = {0};
    soma_progress p = soma__progress_start("writing", 0);
    soma_status status = soma__export(&r, &e, show, &p, &err);
    soma__progress_end(&p, status == SOMA_OK ? p.total : 0, "values");
    if (status != SOMA_OK) return soma__cmd_fail(&cmd, &err);
    if (cmd.json)
        return soma__cmd_print_json(&cmd, json_pack("{s:s, s:s, s:I, s:I, s:I, s:I}", "path", o.out, "layout", o.layout, "tensors",
                                                    (json_int_t)r.n_tensors, "values", (json_int_t)r.n_values, "folded",
                                                    (json_int_t)r.n_folded, "absent", (json_int_t)r.n_absent));
    printf("%s: %zu tensors, %lld values of %s in %s's layout; %zu pairs folded in\n", o.out, r.n_tensors, (long long)r.n_values,
           f32 ? "F32" : "BF16", o.layout, r.n_folded);
    if (r.n_absent) printf("%zu tensors that nothing computes with were in no file and are zeros\n", r.n_absent);
    return SOMA_EXIT_OK;
}

const soma_verb soma__verb_export = {"export", "write a policy as openpi or LeRobot loads it", run};
