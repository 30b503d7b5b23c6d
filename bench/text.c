// SPDX-License-Identifier: Apache-2.0
// soma bench text: a file of text and one prompt through a text tokenizer, on one thread. tools/bench_tokenizers.py runs it beside the
// `tokenizers` package.
#include "base/file.h"
#include "bench/bench.h"
#include "text/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OPTS_TYPE soma_bench_text_opts
SOMA_OPTS_DEFINE(soma_bench_text_opts, SOMA_BENCH_TEXT_OPTS, soma__bench_text_defaults)
#undef OPTS_TYPE

enum { PROMPTS = 2000 };
static const char prompt[] = "Task: pick up the red cube, State: 128 0 255 12 64;\nAction: ";

typedef struct timing {
    soma_spread spread;
    size_t n_ids;
} timing;

// Encodes `s` `times` times per repeat; the spread is of one encoding.
static soma_status measure(timing *out, const soma_text *text, const char *s, int times, int64_t repeats, soma_error *err) {
    size_t room = strlen(s) + 16;
    int32_t *ids = soma__alloc(room * sizeof *ids);
    double *seconds = soma__alloc((size_t)repeats * sizeof *seconds);
    soma_status status = ids && seconds ? SOMA_OK : soma__no_memory(err, "the ids of a text");
    for (int64_t r = 0; r < repeats && status == SOMA_OK; r++) {
        double started = soma__seconds();
        for (int k = 0; k < times && status == SOMA_OK; k++) status = soma__text_encode(text, s, false, ids, room, &out->n_ids, err);
        seconds[r] = (soma__seconds() - started) / times;
    }
    if (status == SOMA_OK) out->spread = soma__bench_spread(seconds, repeats);
    soma__free(ids);
    soma__free(seconds);
    return status;
}

soma_status soma__bench_text(json_t **out, const soma_bench_opts *o, const soma_bench_text_opts *t, soma_error *err) {
    soma_text *text = NULL;
    char *bytes = NULL;
    size_t size;
    timing file = {0}, one = {0};
    *out = NULL;
    if (o->repeats < 1 || o->repeats > 10000) return soma__fail(err, SOMA_BAD_INPUT, "--repeats: 1 to 10000");
    if (!*t->text_tokenizer || !*t->text)
        return soma__fail(err, SOMA_BAD_INPUT, "soma bench text needs --text-tokenizer (a file or a folder) and --text (a file)");
    double started = soma__seconds();
    soma_status status = soma__text_open(&text, t->text_tokenizer, err);
    double opened = soma__seconds() - started;
    if (status == SOMA_OK) status = soma__file_read(&bytes, &size, t->text, 256 << 20, err);
    if (status == SOMA_OK && memchr(bytes, 0, size)) status = soma__fail(err, SOMA_BAD_INPUT, "%s: this is no text", t->text);
    if (status == SOMA_OK) status = measure(&file, text, bytes, 1, o->repeats, err);
    if (status == SOMA_OK) status = measure(&one, text, prompt, PROMPTS, o->repeats, err);
    if (status == SOMA_OK)
        *out = json_pack("{s:s, s:o, s:i, s:f, s:I, s:I, s:[f,f,f], s:f, s:s, s:I, s:[f,f,f]}", "what", "text", "machine",
                         soma__bench_machine("any", 1), "vocabulary", (int)soma__text_size(text), "open_seconds", opened, "bytes",
                         (json_int_t)size, "ids", (json_int_t)file.n_ids, "seconds", file.spread.median, file.spread.low, file.spread.high,
                         "mb_per_second", (double)size / 1e6 / file.spread.median, "prompt", prompt, "prompt_ids", (json_int_t)one.n_ids,
                         "prompt_seconds", one.spread.median, one.spread.low, one.spread.high);
    if (status == SOMA_OK && !*out) status = soma__no_memory(err, "the result");
    soma__text_close(text);
    soma__free(bytes);
    return status;
}

static double value(const json_t *r, const char *key, size_t i) { return json_number_value(json_array_get(json_object_get(r, key), i)); }

void soma__bench_text_print(const json_t *r) {
    double bytes = json_number_value(json_object_get(r, "bytes"));
    printf("text on %s, one thread; a vocabulary of %lld opened in %.0f ms\n",
           json_string_value(json_object_get(json_object_get(r, "machine"), "processor")),
           (long long)json_integer_value(json_object_get(r, "vocabulary")), 1e3 * json_number_value(json_object_get(r, "open_seconds")));
    printf("%.2f MB to %lld ids: %.1f MB/s (%.1f to %.1f)\n", bytes / 1e6, (long long)json_integer_value(json_object_get(r, "ids")),
           bytes / 1e6 / value(r, "seconds", 0), bytes / 1e6 / value(r, "seconds", 2), bytes / 1e6 / value(r, "seconds", 1));
    printf("a prompt to %lld ids: %.2f us (%.2f to %.2f)\n", (long long)json_integer_value(json_object_get(r, "prompt_ids")),
           1e6 * value(r, "prompt_seconds", 0), 1e6 * value(r, "prompt_seconds", 1), 1e6 * value(r, "prompt_seconds", 2));
}
