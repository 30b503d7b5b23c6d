#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes tests/golden/data/pi0_fast_micro_lerobot.safetensors and pi0_fast_micro_openpi.safetensors: pi0-FAST of a few numbers, in float64
numpy. Each written token is found by a whole forward pass over everything before it, with explicit mask matrices and without a cache, so
that soma's cache can only agree by being right. LeRobot's form has one table for ids in and out here, openpi's has two.
Needs numpy:  python3 tools/golden_pi0_fast_micro.py
"""
import math

import numpy as np

from golden_pi0_micro import B, CAMERAS, DEPTH, D, F, FOLDER, H, IMAGE, K, KV, PATCH, Weights, gelu, linear, rms, rope, softmax, values, vision, write

VOCAB, STEPS, BOS = 12, 7, 2
HEAD = "paligemma_with_expert.paligemma.lm_head.weight"
LANGUAGE = "paligemma_with_expert.paligemma.model.language_model."
PROMPT, PROMPT_MASK = [[1, 9, 3, 0], [4, 11, 0, 0]], [[1, 1, 1, 0], [1, 1, 0, 0]]
ANSWER = [[5, 8, 10, 7, 1], [6, 7, 1, 0, 0]]  # codes, bar, EOS; 0 is padding
N_ANSWER = [5, 3]
IMAGE_MASK = [[1, 0], [1, 1]]


def norm(w, name, x):
    return rms(x) * (1 + w(name + ".weight", x.shape[-1]))


def forward(w, row, cameras, ids, valid, causal, tied, gap_from=None, gap=0):
    """Logits after every text token. cameras: which are there. Tokens from gap_from on stand `gap` positions later."""
    images = [values("image." + c, (B, 3, IMAGE, IMAGE), 1.0)[row] for c in CAMERAS]
    pictures = np.concatenate([vision(w, i) for i in images])
    n = len(pictures) // len(CAMERAS)
    head = w(HEAD, VOCAB, D)
    table = head if tied else w(LANGUAGE + "embed_tokens.weight", VOCAB, D)
    x = np.concatenate([pictures, table[np.array(ids)] * math.sqrt(D)])
    there = np.concatenate([np.repeat(cameras, n), valid]).astype(bool)
    block = np.concatenate([np.zeros(len(pictures)), np.cumsum(causal)])
    sees = (block[None, :] <= block[:, None]) & there[None, :]
    pos = np.cumsum(there) - 1
    if gap_from is not None:
        pos[len(pictures) + gap_from :] += gap
    for layer in range(DEPTH):
        at = f"{LANGUAGE}layers.{layer}."
        h = norm(w, at + "input_layernorm", x)
        q, k, v = (linear(w, at + f"self_attn.{s}_proj", h, m * K, False).reshape(-1, m, K) for s, m in (("q", H), ("k", KV), ("v", KV)))
        q, k = rope(q, pos), rope(k, pos)
        heads = []
        for i in range(H):
            score = q[:, i] @ k[:, i * KV // H].T / math.sqrt(K)
            heads.append(softmax(np.where(sees, score, -1e30)) @ v[:, i * KV // H])
        x = x + linear(w, at + "self_attn.o_proj", np.concatenate(heads, -1), D, False)
        h = norm(w, at + "post_attention_layernorm", x)
        m = gelu(linear(w, at + "mlp.gate_proj", h, F, False)) * linear(w, at + "mlp.up_proj", h, F, False)
        x = x + linear(w, at + "mlp.down_proj", m, D, False)
    return norm(w, LANGUAGE + "norm", x)[len(pictures) :] @ head.T


def decode(w, row, cameras, ids, valid, gap):
    written, logits, margin = [], [], 9.0
    last = max(i for i, v in enumerate(valid) if v)
    for _ in range(STEPS):
        n = len(written)
        out = forward(w, row, cameras, ids + written, valid + [1] * n, [0] * len(ids) + [1] * n, gap == 0, len(ids), gap)
        logits.append(out[len(ids) + n - 1 if n else last])
        best = np.sort(logits[-1])
        margin = min(margin, best[-1] - best[-2])
        written.append(int(np.argmax(logits[-1])))
    return written, np.stack(logits), margin


def cross_entropy(logits, target):
    top = logits.max()
    return top + math.log(np.exp(logits - top).sum()) - logits[target]


def lesson(lerobot, row):
    """ids, valid, causal, and which tokens are learned."""
    n = N_ANSWER[row]
    if lerobot:
        ids = PROMPT[row] + [BOS] + ANSWER[row]
        valid = PROMPT_MASK[row] + [1] + [1] * n + [0] * (5 - n)
        return ids, valid, [0] * 4 + [1] * 6, [0] * 5 + [1] * n + [0] * (5 - n)
    p = sum(PROMPT_MASK[row])
    pad = 9 - p - n
    ids = PROMPT[row][:p] + ANSWER[row][:n] + [0] * pad
    return ids, [1] * (p + n) + [0] * pad, [0] * p + [1] * n + [0] * pad, [0] * p + [1] * n + [0] * pad


def losses(w, lerobot):
    sums, counts, logits = [], [], []
    for row in range(B):
        ids, valid, causal, learn = lesson(lerobot, row)
        out = forward(w, row, IMAGE_MASK[row] if lerobot else [1, 1], ids, valid, causal, lerobot)
        logits.append(out)
        sums.append(sum(cross_entropy(out[i - 1], ids[i]) for i in range(1, len(ids)) if learn[i]))
        counts.append(sum(learn))
    each = [sum(sums) / sum(counts)] if lerobot else [s / c for s, c in zip(sums, counts)]
    return np.array(each), np.stack(logits)


def make(lerobot):
    w, out = Weights(), {}
    rows = []
    for row in range(B):
        ids, valid = PROMPT[row] + ([BOS] if lerobot else []), PROMPT_MASK[row] + ([1] if lerobot else [])
        rows.append(decode(w, row, IMAGE_MASK[row] if lerobot else [1, 1], ids, valid, 0 if lerobot else 1))
    print("smallest margin between the best two:", min(r[2] for r in rows), [r[0] for r in rows])
    out["decode.kv_tokens" if lerobot else "decode.tokens"] = np.array([r[0] for r in rows])
    out["decode.logits"] = np.stack([r[1] for r in rows])
    out["train.loss"], logits = losses(w, lerobot)
    out["train.logits"] = logits[:, 4:] if lerobot else logits[:, :-1]
    h = 1e-5
    out["slope"] = np.array([(losses(Weights(h), lerobot)[0].mean() - losses(Weights(-h), lerobot)[0].mean()) / (2 * h)])
    return out


FOLDER.mkdir(parents=True, exist_ok=True)
write(FOLDER / "pi0_fast_micro_lerobot.safetensors", make(True))
write(FOLDER / "pi0_fast_micro_openpi.safetensors", make(False))
