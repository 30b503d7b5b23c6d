#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes tests/golden/data/robots.safetensors: what four robots' observations become for a model, and what its chunk becomes for them.

Written from the published formulas in float64 numpy, not from soma's code; pictures are resized by Pillow and torch, and LeRobot's rules run in
torch's float32, because those very programs made the released weights' inputs. Inputs are splitmix64 hashes of (name, index), which the test
computes for itself; the file holds statistics and results.

Needs numpy, pillow and torch:  python3 tools/golden_robots.py
"""
import json
import math
import pathlib
import struct

import numpy as np
import torch
from PIL import Image

M64 = (1 << 64) - 1
SIDE, WIDE, STEPS = 24, 32, 3


def values(name, shape, scale=1.0):
    h = 0xCBF29CE484222325
    for c in name.encode():
        h = ((h ^ c) * 0x100000001B3) & M64
    out = []
    for i in range(math.prod(shape)):
        z = (h + (i + 1) * 0x9E3779B97F4A7C15) & M64
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & M64
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & M64
        z ^= z >> 31
        out.append(np.float32((z >> 40) - 8388608) * np.float32(2.0**-23) * np.float32(scale))
    return np.array(out, dtype=np.float64).reshape(shape)


# ---- robots

FLIP = np.array([1, -1, -1, 1, 1, 1, 1, 1, -1, -1, 1, 1, 1, 1.0])
GRIPPERS = [6, 13]


def aloha_state(x):
    x = x * FLIP
    g = x[GRIPPERS] * (0.05800 - 0.01844) + 0.01844
    angle = np.arcsin(np.clip((0.022**2 + g**2 - 0.036**2) / (2 * 0.022 * g), -1, 1))
    x[GRIPPERS] = (angle - 0.5476) / (1.6296 - 0.5476)
    return x


def aloha_in(a):
    a = a * FLIP
    a[:, GRIPPERS] = a[:, GRIPPERS] * (1.4910 + 0.6213) - 0.6213 - 0.5476
    return a


def aloha_out(a):
    a = a * FLIP
    a[:, GRIPPERS] = (a[:, GRIPPERS] + 0.5476 + 0.6213) / (1.4910 + 0.6213)
    return a


def same(x):
    return x


def mask(*runs):
    return np.concatenate([np.full(abs(n), n > 0) for n in runs])


ROBOTS = {
    "aloha": (14, 14, mask(6, -1, 6, -1), aloha_state, aloha_in, aloha_out),
    "droid": (8, 8, mask(-8), same, same, same),
    "libero": (8, 7, mask(6, -1), same, same, same),
    "ur5": (7, 7, mask(6, -1), same, same, same),
}


def normalise(x, s, rule):
    if rule == "openpi_zscore":
        return (x - s["mean"]) / (s["std"] + 1e-6)
    return (x - s["q01"]) / (s["q99"] - s["q01"] + 1e-6) * 2 - 1


def undo(y, s, rule):
    if rule == "openpi_zscore":
        return y * (s["std"] + 1e-6) + s["mean"]
    return (y + 1) / 2 * (s["q99"] - s["q01"] + 1e-6) + s["q01"]


def padded(x):
    return np.concatenate([x, np.zeros(x.shape[:-1] + (WIDE - x.shape[-1],))], -1)


def robot_cases(out):
    for name, (n_state, n_actions, relative, to_state, to_model, to_robot) in ROBOTS.items():
        stats = {}
        for key, n in (("state", n_state), ("actions", n_actions)):
            at = f"{name}.{key}."
            mean = values(at + "mean", (n,), 0.5)
            stats[key] = {"mean": mean, "std": np.abs(values(at + "std", (n,))) + 0.25,
                          "q01": mean - 0.5 - np.abs(values(at + "q01", (n,))), "q99": mean + 0.5 + np.abs(values(at + "q99", (n,)))}
            for k, v in stats[key].items():
                out[at + k] = v
        state = to_state(values(name + ".state", (n_state,)))
        reference = np.where(relative, state[:n_actions], 0)
        actions = to_model(values(name + ".actions", (STEPS, n_actions))) - reference
        chunk = values(name + ".chunk", (STEPS, WIDE))[:, :n_actions]
        for rule in ("openpi_zscore", "openpi_quantile"):
            out[f"{name}.{rule}.state"] = padded(normalise(state, stats["state"], rule))
            out[f"{name}.{rule}.actions"] = padded(normalise(actions, stats["actions"], rule))
            out[f"{name}.{rule}.robot_actions"] = to_robot(undo(chunk, stats["actions"], rule) + reference)


# ---- LeRobot's rules, in float32

def lerobot_cases(out):
    x = torch.tensor(values("lerobot.x", (6, 5), 3.0), dtype=torch.float32)
    low = torch.tensor(values("lerobot.low", (5,)), dtype=torch.float32)
    high = low + torch.tensor(np.abs(values("lerobot.range", (5,))) + 0.125, dtype=torch.float32)
    high[3] = low[3]  # a dimension that never moved
    std = torch.tensor(np.abs(values("lerobot.std", (5,))) + 0.125, dtype=torch.float32)
    out["lerobot.low"], out["lerobot.high"], out["lerobot.std"] = low.numpy(), high.numpy(), std.numpy()
    out["lerobot_mean_std.in"] = ((x - low) / (std + 1e-8)).numpy()
    out["lerobot_mean_std.out"] = (x * std + low).numpy()
    denominator = torch.where(high - low == 0, torch.tensor(1e-8), high - low)
    scaled = 2.0 * (x - low) / denominator - 1.0
    out["lerobot_quantiles.in"] = scaled.numpy()
    out["lerobot_quantiles.out"] = ((x + 1.0) * denominator / 2.0 + low).numpy()
    out["bins"] = (np.digitize(scaled.numpy(), bins=np.linspace(-1, 1, 256 + 1)[:-1]) - 1).astype(np.int32)


# ---- pictures

def picture(name, h, w):
    return np.floor((values(name, (h, w, 3)) + 1) * 128).astype(np.uint8)


def resized_shape(h, w):
    ratio = max(w / SIDE, h / SIDE)
    return int(h / ratio), int(w / ratio)


def picture_cases(out):
    for h, w in ((40, 60), (33, 20), (9, 7), (24, 24), (25, 23)):
        image, (rh, rw) = picture(f"picture.{h}x{w}", h, w), resized_shape(h, w)
        if (h, w) == (SIDE, SIDE):
            pil = image
        else:
            small = Image.fromarray(image).resize((rw, rh), resample=Image.BILINEAR)
            page = Image.new("RGB", (SIDE, SIDE), 0)
            page.paste(small, (int((SIDE - rw) / 2), int((SIDE - rh) / 2)))
            pil = np.asarray(page)
        out[f"picture.{h}x{w}.pil"] = pil
        x = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255.0
        x = torch.nn.functional.interpolate(x, size=(rh, rw), mode="bilinear", align_corners=False).clamp(0.0, 1.0)
        top, left = (SIDE - rh) // 2, (SIDE - rw) // 2
        x = torch.nn.functional.pad(x, (left, SIDE - rw - left, top, SIDE - rh - top), value=0.0)
        out[f"picture.{h}x{w}.lerobot"] = (x * 2.0 - 1.0)[0].permute(1, 2, 0).contiguous().numpy()


# ---- texts

def text_cases(out):
    prompt, state = "  Put_the RED\ncup \u00c4way ", np.array([-1.5, -1.0, -0.25, 0.0, 0.999, 2.0])
    bins = " ".join(map(str, np.digitize(state, bins=np.linspace(-1, 1, 256 + 1)[:-1]) - 1))
    clean = prompt.strip().replace("_", " ").replace("\n", " ")
    texts = {"pi0": clean + "\n", "pi05": f"Task: {clean}, State: {bins};\nAction: ",
             "pi0_fast": f"Task: {prompt.lower().strip().replace('_', ' ')}, State: {bins};\n",
             "lerobot_pi0": prompt + "\n", "lerobot_pi0_fast": f"Task: {clean}, State: {bins};\n"}
    # LeRobot up to 0.4 pads the state to 32 values before it makes bins
    bins += " 128" * (32 - len(state))
    texts["lerobot_04_pi05"] = f"Task: {clean}, State: {bins};\nAction: "
    texts["lerobot_04_pi0_fast"] = f"Task: {clean}, State: {bins};\n"
    out["text.state"] = state
    out["text.prompt"] = np.frombuffer(prompt.encode(), np.uint8)
    for form, text in texts.items():
        out["text." + form] = np.frombuffer(text.encode(), np.uint8)


def write(path, tensors):
    names = {"float64": "F64", "float32": "F32", "uint8": "U8", "int32": "I32"}
    header, data = {}, b""
    for name, t in sorted(tensors.items(), key=lambda item: (-item[1].itemsize, item[0])):
        raw = np.ascontiguousarray(t).tobytes()
        header[name] = {"dtype": names[str(t.dtype)], "shape": list(t.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


results = {}
robot_cases(results)
lerobot_cases(results)
picture_cases(results)
text_cases(results)
folder = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden" / "data"
folder.mkdir(parents=True, exist_ok=True)
write(folder / "robots.safetensors", results)
