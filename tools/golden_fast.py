#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes tests/golden/data/fast_micro.safetensors: a small FAST tokenizer fitted with the `tokenizers` package, and what it does to chunks.

Smooth chunks of 8 steps and 3 dimensions from a fixed seed are transformed with scipy and rounded with numpy, as the published processor does; the
file holds them, their codes, the merges (left, right, result), the ids and the decoded chunks. Needs numpy, scipy, tokenizers, safetensors:
    python3 tools/golden_fast.py
"""
import json
import pathlib

import numpy as np
from safetensors.numpy import save_file
from scipy.fft import dct, idct
from tokenizers import ByteLevelBPETokenizer
from tokenizers.trainers import BpeTrainer

N, T, A, SCALE, VOCAB = 120, 8, 3, 20, 260


def main():
    rng = np.random.default_rng(4)
    speed = rng.normal(size=(N, 1, A)) * 0.04
    chunks = rng.normal(size=(N, 1, A)) * 0.4 + np.cumsum(speed + rng.normal(size=(N, T, A)) * 0.01, axis=1)
    scaled = dct(chunks, axis=1, norm="ortho") * SCALE
    q = np.around(scaled)
    assert np.abs(scaled - np.floor(scaled) - 0.5).min() > 1e-6, "a coefficient lies too near to the middle between two codes"
    low, high = int(q.min()), int(q.max())
    texts = ["".join(map(chr, (row.flatten() - low).astype(int))) for row in q]
    bpe = ByteLevelBPETokenizer()
    trainer = BpeTrainer(vocab_size=VOCAB, min_frequency=2, show_progress=False, special_tokens=[],
                         initial_alphabet=[chr(i) for i in range(high - low + 1)], max_token_length=10000)
    bpe._tokenizer.train_from_iterator(texts, trainer=trainer)
    model = json.loads(bpe._tokenizer.to_str())["model"]
    merges = [[model["vocab"][a], model["vocab"][b], model["vocab"][a + b]] for a, b in model["merges"]]
    ids = [bpe.encode(t).ids for t in texts]
    assert [bpe.decode(i) for i in ids] == texts
    data = {
        "chunks": chunks,
        "codes": (q - low).reshape(N, T * A).astype(np.int32),
        "merges": np.array(merges, dtype=np.int32),
        "token_ids": np.concatenate([np.array(i, dtype=np.int32) for i in ids]),
        "offsets": np.cumsum([0] + [len(i) for i in ids]).astype(np.int32),
        "decoded": idct(q / SCALE, axis=1, norm="ortho"),
    }
    path = pathlib.Path(__file__).parent.parent / "tests/golden/data/fast_micro.safetensors"
    save_file(data, path, {"scale": str(SCALE), "vocab": str(VOCAB), "min_token": str(low), "vocab_size": str(len(model["vocab"]))})
    print(path, path.stat().st_size, "bytes,", len(merges), "merges, vocabulary", len(model["vocab"]))


if __name__ == "__main__":
    main()
