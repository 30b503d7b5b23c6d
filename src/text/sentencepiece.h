// SPDX-License-Identifier: Apache-2.0
// The SentencePiece library behind C: the only C++ of soma. Statuses and exceptions become soma_error; nothing is thrown across.
#ifndef SOMA_TEXT_SENTENCEPIECE_H
#define SOMA_TEXT_SENTENCEPIECE_H

#ifdef __cplusplus
extern "C" {
#endif

#include "base/base.h"
#include "base/str.h"

typedef struct soma_sentencepiece soma_sentencepiece;

soma_status soma__sentencepiece_open(soma_sentencepiece **sp, const void *model, size_t size, const char *where, soma_error *err);
void soma__sentencepiece_close(soma_sentencepiece *sp); // NULL allowed
int32_t soma__sentencepiece_size(const soma_sentencepiece *sp);
int32_t soma__sentencepiece_id(const soma_sentencepiece *sp, const char *piece); // -1 when absent
soma_status soma__sentencepiece_encode(const soma_sentencepiece *sp, const char *s, bool add_bos, int32_t *ids, size_t room, size_t *n_ids,
                                       soma_error *err);
soma_status soma__sentencepiece_decode(const soma_sentencepiece *sp, const int32_t *ids, size_t n_ids, soma_str *out, soma_error *err);

#ifdef __cplusplus
}
#endif
#endif
