// SPDX-License-Identifier: Apache-2.0
// The files from before tokenizer.json: vocab.json with merges.txt (GPT-2, Qwen2, CLIP), and CLIP's first release, where the vocabulary
// follows from the merges. What those files leave unsaid (the rule of cutting, normal forms) is known by the tokenizer's class.
#ifndef SOMA_TEXT_TOKENIZER_PAIR_H
#define SOMA_TEXT_TOKENIZER_PAIR_H

#include "text/tokenizer_json.h"

typedef struct soma_bytes {
    const char *text; // NULL: there is no such file
    size_t size;
} soma_bytes;

// `vocab` absent: CLIP's first release. `config` is tokenizer_config.json, which names the class and the added tokens; absent: GPT-2's
// class. `where` stands in the sentences for the folder. What is found wrong is counted in lines of the tokenizer.json that the files
// amount to.
soma_status soma__tokenizer_pair_parse(soma_tokenizer_json **json, soma_bytes vocab, soma_bytes merges, soma_bytes config,
                                       const char *where, soma_error *err);

#endif
