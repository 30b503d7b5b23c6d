// SPDX-License-Identifier: Apache-2.0
// Any bytes as an instruction (a client sends them): ids inside the vocabulary, padding behind them, the same length whatever the room.
#include "text/prompt.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { LEN = 24 };

static void check(const soma_text *text, soma_prompt_form form, const char *prompt) {
    static const double state[] = {0.25, -3};
    int32_t ids[LEN];
    uint8_t mask[LEN];
    size_t needed, again;
    soma_error err = {0};
    if (soma__prompt_encode(text, form, prompt, state, 2, ids, mask, LEN, &needed, &err)) abort();
    if (soma__prompt_encode(text, form, prompt, state, 2, ids, mask, 3, &again, &err) || again != needed) abort();
    if (soma__prompt_encode(text, form, prompt, state, 2, ids, mask, LEN, &again, &err) || again != needed) abort();
    for (size_t i = 0; i < LEN; i++)
        if (ids[i] < 0 || ids[i] >= soma__text_size(text) || mask[i] != (i < needed) || (i >= needed && ids[i])) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const prompts[] = {"touch the red cube", "put the \xc3\xb6ltuch away"};
    soma_text *text, *learnt;
    char *prompt = malloc(size + 1);
    memcpy(prompt, data, size);
    prompt[size] = 0;
    if (soma__text_from_prompts(&text, prompts, 2, NULL)) abort();
    for (int form = 1; form < SOMA_PROMPT_COUNT; form++) check(text, (soma_prompt_form)form, prompt);
    soma__text_close(text);
    // a dataset's task strings are foreign, too
    const char *const foreign[] = {prompt};
    soma_error err = {0};
    if (soma__text_from_prompts(&learnt, foreign, 1, &err)) {
        if (learnt || !strstr(err.text, "prompt 0")) abort();
    } else {
        check(learnt, SOMA_PROMPT_PI0, prompt);
        soma__text_close(learnt);
    }
    free(prompt);
    return 0;
}
