// SPDX-License-Identifier: Apache-2.0
// What libsentencepiece offers, in C. The library is used for what the released tokenizers mean by a text (normalisation, merges, byte
// fallback); its own file reading is not, so that errors and fault injection are soma's.
#ifdef SOMA_SENTENCEPIECE
#include "text/sentencepiece.h"

#include <new>
#include <sentencepiece_processor.h>

struct soma_sentencepiece {
    sentencepiece::SentencePieceProcessor processor;
};

namespace {

// Runs `body` (which returns soma_status) and turns what it throws into a sentence.
template <typename Body> soma_status guarded(soma_error *err, const char *what, Body body) {
    try {
        return body();
    } catch (const std::bad_alloc &) {
        return soma__no_memory(err, what);
    } catch (const std::exception &e) {
        return soma__fail(err, SOMA_BAD_INPUT, "SentencePiece failed on %s: %s", what, e.what());
    } catch (...) {
        return soma__fail(err, SOMA_BAD_INPUT, "SentencePiece failed on %s", what);
    }
}

} // namespace

soma_status soma__sentencepiece_open(soma_sentencepiece **out, const void *model, size_t size, const char *where, soma_error *err) {
    *out = nullptr;
    return guarded(err, where, [&]() -> soma_status {
        std::unique_ptr<soma_sentencepiece> sp(new soma_sentencepiece);
        auto status = sp->processor.LoadFromSerializedProto(std::string_view(static_cast<const char *>(model), size));
        if (!status.ok() || sp->processor.GetPieceSize() <= 0)
            return soma__fail(err, SOMA_BAD_INPUT, "%s: not a SentencePiece model: %s", where,
                              status.ok() ? "it holds no pieces" : status.error_message());
        *out = sp.release();
        return SOMA_OK;
    });
}

void soma__sentencepiece_close(soma_sentencepiece *sp) { delete sp; }

int32_t soma__sentencepiece_size(const soma_sentencepiece *sp) { return sp->processor.GetPieceSize(); }

int32_t soma__sentencepiece_id(const soma_sentencepiece *sp, const char *piece) {
    int32_t id = -1;
    guarded(nullptr, "a piece", [&]() -> soma_status {
        id = sp->processor.PieceToId(piece);
        // an absent piece gives the id of "unknown", which is an answer only when that piece was asked for
        if (id < 0 || (sp->processor.IsUnknown(id) && sp->processor.IdToPiece(id) != piece)) id = -1;
        return SOMA_OK;
    });
    return id;
}

soma_status soma__sentencepiece_encode(const soma_sentencepiece *sp, const char *s, bool add_bos, int32_t *ids, size_t room, size_t *n_ids,
                                       soma_error *err) {
    *n_ids = 0;
    return guarded(err, "a text", [&]() -> soma_status {
        std::vector<int> found;
        auto status = sp->processor.Encode(s, &found);
        if (!status.ok()) return soma__fail(err, SOMA_BAD_INPUT, "the text cannot be encoded: %s", status.error_message());
        size_t n = 0;
        if (add_bos) {
            if (sp->processor.bos_id() < 0)
                return soma__fail(err, SOMA_UNSUPPORTED, "the SentencePiece model has no beginning-of-sentence piece");
            if (room) ids[0] = sp->processor.bos_id();
            n = 1;
        }
        for (int id : found) {
            if (n < room) ids[n] = id;
            n++;
        }
        *n_ids = n;
        return SOMA_OK;
    });
}

soma_status soma__sentencepiece_decode(const soma_sentencepiece *sp, const int32_t *ids, size_t n_ids, soma_str *out, soma_error *err) {
    return guarded(err, "token ids", [&]() -> soma_status {
        int size = sp->processor.GetPieceSize();
        for (size_t i = 0; i < n_ids; i++)
            if (ids[i] < 0 || ids[i] >= size)
                return soma__fail(err, SOMA_BAD_INPUT, "id %d at %zu is outside the vocabulary of %d", ids[i], i, size);
        std::string text;
        auto status = sp->processor.Decode(std::vector<int>(ids, ids + n_ids), &text);
        if (!status.ok()) return soma__fail(err, SOMA_BAD_INPUT, "the ids cannot be decoded: %s", status.error_message());
        soma__str_add_bytes(out, text.data(), text.size());
        return out->failed ? soma__no_memory(err, "the decoded text") : SOMA_OK;
    });
}
#endif
