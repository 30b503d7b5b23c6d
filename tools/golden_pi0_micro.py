#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes tests/golden/data/pi0_micro.safetensors and pi05_micro.safetensors: pi0 and pi0.5 of a few numbers, in float64 numpy.

Written from the papers' formulas with explicit mask matrices and joint attention over [prefix | suffix], not from soma's code, so that the
two can only agree by being right. Weights and inputs are splitmix64 hashes of (name, index), which the test computes for itself; the files
hold results only. Needs numpy:  python3 tools/golden_pi0_micro.py
"""
import json
import math
import pathlib
import struct

import numpy as np

CAMERAS = ["scene", "wrist"]
IMAGE, PATCH, VW, VF, VH = 8, 4, 8, 12, 2
D, E, F, G, H, KV, K, DEPTH = 8, 6, 12, 10, 4, 2, 4, 2
HORIZON, A, L, VOCAB, B = 3, 3, 4, 10, 2
M64 = (1 << 64) - 1


def fnv(text):
    h = 0xCBF29CE484222325
    for c in text.encode():
        h = ((h ^ c) * 0x100000001B3) & M64
    return h


def values(name, shape, scale, offset=0.0):
    n, seed, out = math.prod(shape), fnv(name), []
    for i in range(n):
        z = (seed + (i + 1) * 0x9E3779B97F4A7C15) & M64
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & M64
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & M64
        z ^= z >> 31
        out.append(np.float32((z >> 40) - 8388608) * np.float32(2.0**-23) * np.float32(scale) + np.float32(offset))
    return np.array(out, dtype=np.float64).reshape(shape)


class Weights:
    """Every weight is 0.5 times its hash, moved by `step` along a second hash: for the slope of the loss."""

    def __init__(self, step=0.0):
        self.step = step

    def __call__(self, name, *shape):
        return values(name, shape, 0.5) + self.step * values(name + ".direction", shape, 1.0)


def linear(w, name, x, out, bias):
    y = x @ w(name + ".weight", out, x.shape[-1]).T
    return y + w(name + ".bias", out) if bias else y


def gelu(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def silu(x):
    return x / (1 + np.exp(-x))


def softmax(s):
    s = np.exp(s - s.max(-1, keepdims=True))
    return s / s.sum(-1, keepdims=True)


def layer_norm(w, name, x):
    m, v = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - m) / np.sqrt(v + 1e-6) * w(name + ".weight", x.shape[-1]) + w(name + ".bias", x.shape[-1])


def rms(x):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6)


def vision(w, image):  # [3, IMAGE, IMAGE] -> [n, D]
    p = "paligemma_with_expert.paligemma.model.vision_tower.vision_model."
    kernel, bias = w(p + "embeddings.patch_embedding.weight", VW, 3, PATCH, PATCH), w(p + "embeddings.patch_embedding.bias", VW)
    rows = []
    for y in range(0, IMAGE, PATCH):
        for x in range(0, IMAGE, PATCH):
            rows.append((kernel * image[None, :, y : y + PATCH, x : x + PATCH]).sum((1, 2, 3)) + bias)
    x = np.stack(rows) + w(p + "embeddings.position_embedding.weight", len(rows), VW)
    q = p + "encoder.layers.0."
    h = layer_norm(w, q + "layer_norm1", x)
    qs, ks, vs = (linear(w, q + "self_attn." + n, h, VW, True) for n in ("q_proj", "k_proj", "v_proj"))
    size = VW // VH
    heads = []
    for i in range(VH):
        s = slice(i * size, (i + 1) * size)
        heads.append(softmax(qs[:, s] @ ks[:, s].T / math.sqrt(size)) @ vs[:, s])
    x = x + linear(w, q + "self_attn.out_proj", np.concatenate(heads, -1), VW, True)
    h = gelu(linear(w, q + "mlp.fc1", layer_norm(w, q + "layer_norm2", x), VF, True))
    x = layer_norm(w, p + "post_layernorm", x + linear(w, q + "mlp.fc2", h, VW, True))
    return linear(w, "paligemma_with_expert.paligemma.model.multi_modal_projector.linear", x, D, True)


def rope(x, pos):  # [T, heads, K]
    f = 10000.0 ** (-2 * np.arange(K // 2) / K)
    a = pos[:, None, None] * f
    x1, x2 = x[..., : K // 2], x[..., K // 2 :]
    return np.concatenate([x1 * np.cos(a) - x2 * np.sin(a), x2 * np.cos(a) + x1 * np.sin(a)], -1)


def norm(w, name, x, cond):
    if cond is None:
        return rms(x) * (1 + w(name + ".weight", x.shape[-1])), 1.0
    scale, shift, gate = np.split(linear(w, name + ".dense", cond, 3 * x.shape[-1], True), 3)
    return rms(x) * (1 + scale) + shift, gate


def forward(w, o, row, t, x_t, pi05):
    """One observation: prefix embeddings, keys of the last layer, the suffix after its final norm, the velocity."""
    names = ["paligemma_with_expert.paligemma.model.language_model", "paligemma_with_expert.gemma_expert.model"]
    prefix = np.concatenate([vision(w, o["image"][c][row]) for c in CAMERAS])
    n = len(prefix) // len(CAMERAS)
    table = w(names[0] + ".embed_tokens.weight", VOCAB, D)
    prefix = np.concatenate([prefix, table[o["tokens"][row]] * math.sqrt(D)])
    valid = np.concatenate([np.repeat(o["image_mask"][row], n), o["token_mask"][row]]).astype(bool)

    i = np.arange(E // 2)
    s = 2 * math.pi * t / (4e-3 * (4.0 / 4e-3) ** (i / (E // 2 - 1)))
    emb, cond = np.concatenate([np.sin(s), np.cos(s)]), None
    tok = linear(w, "action_in_proj", x_t, E, True)
    if pi05:
        cond = silu(linear(w, "time_mlp_out", silu(linear(w, "time_mlp_in", emb, E, True)), E, True))
    else:
        tok = np.concatenate([tok, np.tile(emb, (HORIZON, 1))], -1)
        tok = linear(w, "action_time_mlp_out", silu(linear(w, "action_time_mlp_in", tok, E, True)), E, True)
        tok = np.concatenate([linear(w, "state_proj", o["state"][row], E, True)[None], tok])
    S, T = len(prefix), len(tok)
    block = np.concatenate([np.zeros(S), np.ones(T) if pi05 else np.array([1] + [2] * HORIZON)])
    everyone = np.concatenate([valid, np.ones(T, bool)])
    sees = (block[None, :] <= block[:, None]) & everyone[None, :] & everyone[:, None]
    pos = np.cumsum(everyone) - 1

    x, conds, F_ = [prefix, tok], [None, cond], [F, G]
    for layer in range(DEPTH):
        parts, gates = [], []
        for e in range(2):
            at = f"{names[e]}.layers.{layer}."
            h, gate = norm(w, at + "input_layernorm", x[e], conds[e])
            parts.append([linear(w, at + f"self_attn.{k}_proj", h, m * K, False).reshape(-1, m, K) for k, m in (("q", H), ("k", KV), ("v", KV))])
            gates.append(gate)
        q, k, v = (np.concatenate([parts[0][j], parts[1][j]]) for j in range(3))
        q, k = rope(q, pos), rope(k, pos)
        heads = []
        for i in range(H):
            score = q[:, i] @ k[:, i * KV // H].T / math.sqrt(K)
            heads.append(softmax(np.where(sees, score, -1e30)) @ v[:, i * KV // H])
        a = np.concatenate(heads, -1)
        for e, rows in ((0, slice(0, S)), (1, slice(S, S + T))):
            at = f"{names[e]}.layers.{layer}."
            y = x[e] + linear(w, at + "self_attn.o_proj", a[rows], x[e].shape[-1], False) * gates[e]
            h, gate = norm(w, at + "post_attention_layernorm", y, conds[e])
            m = gelu(linear(w, at + "mlp.gate_proj", h, F_[e], False)) * linear(w, at + "mlp.up_proj", h, F_[e], False)
            x[e] = y + linear(w, at + "mlp.down_proj", m, y.shape[-1], False) * gate
    final, _ = norm(w, names[1] + ".norm", x[1], conds[1])
    velocity = linear(w, "action_out_proj", final[-HORIZON:], A, True)
    return prefix, k[:S], final, velocity


def observation():
    o = {"image": {c: values("image." + c, (B, 3, IMAGE, IMAGE), 1.0) for c in CAMERAS}, "state": values("state", (B, A), 1.0)}
    o["noise"], o["actions"] = values("noise", (B, HORIZON, A), 1.5), values("actions", (B, HORIZON, A), 1.0)
    o["image_mask"], o["token_mask"] = np.array([[1, 0], [1, 1]]), np.array([[1, 1, 1, 0], [1, 1, 0, 0]])
    o["tokens"], o["train_time"] = np.array([[1, 9, 3, 0], [4, 2, 0, 0]]), np.array([0.25, 0.8125])
    return o


def loss(w, o, pi05):
    total = []
    for b in range(B):
        t = o["train_time"][b]
        v = forward(w, o, b, t, t * o["noise"][b] + (1 - t) * o["actions"][b], pi05)[3]
        total.append((v - (o["noise"][b] - o["actions"][b])) ** 2)
    return np.mean(total)


def make(pi05):
    w, o, out = Weights(), observation(), {}
    first = [forward(w, o, b, 1.0, o["noise"][b], pi05) for b in range(B)]
    out["prefix_embs"] = np.stack([f[0] for f in first])
    out[f"prefix_kv.{DEPTH - 1}.k"] = np.stack([f[1].transpose(1, 0, 2) for f in first])
    out["suffix_t1.final_norm"] = np.stack([f[2] for f in first])
    out["sample.step0.v_t"] = np.stack([f[3] for f in first])
    x, t = o["noise"].copy(), 1.0
    for _ in range(4):
        x = x - 0.25 * np.stack([forward(w, o, b, t, x[b], pi05)[3] for b in range(B)])
        t -= 0.25
    out["actions_4steps"] = x
    out["train.loss"] = np.array([loss(w, o, pi05)])
    h = 1e-5
    out["slope"] = np.array([(loss(Weights(h), o, pi05) - loss(Weights(-h), o, pi05)) / (2 * h)])
    n = (IMAGE // PATCH) ** 2
    out["prefix_pad_masks"] = np.concatenate([np.repeat(o["image_mask"], n, axis=1), o["token_mask"]], 1)
    return out


def write(path, tensors):
    header, data = {}, b""
    for name, t in sorted(tensors.items()):
        raw = t.astype("u1" if "masks" in name else "<f4").tobytes()
        header[name] = {"dtype": "U8" if "masks" in name else "F32", "shape": list(t.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


FOLDER = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden" / "data"

if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    write(FOLDER / "pi0_micro.safetensors", make(False))
    write(FOLDER / "pi05_micro.safetensors", make(True))
