# SPDX-License-Identifier: Apache-2.0
"""PyTorch on the work of `soma bench policy --family act|diffusion`: the released sizes in plain modules, random weights, and the ratio.

    python tools/peer_families.py --family act --threads 2 --soma build/soma

Every variant (--dtypes, channels last or first) makes some chunks before it is timed, the fastest is the peer; with --soma the program runs in
the same run, before and after. --out writes the figures where `soma bench policy --peer FILE` reads them. Needs torch (2.13.0 was used).
The modules compute what the families compute, part for part, to be timed: they read no checkpoint.
"""
import argparse
import json
import math
import statistics
import subprocess
import time

import torch
from torch import nn
from torch.nn import functional as F


class Frozen(nn.Module):  # a batch norm whose statistics stay
    def __init__(self, width):
        super().__init__()
        for name, value in (("w", torch.ones), ("b", torch.zeros), ("mean", torch.zeros), ("var", torch.ones)):
            self.register_buffer(name, value(1, width, 1, 1))

    def forward(self, x):
        scale = self.w * (self.var + 1e-5).rsqrt()
        return x * scale + (self.b - self.mean * scale)


class Block(nn.Module):
    def __init__(self, norm, width_in, width, stride):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False), norm(width)
        self.conv2, self.norm2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), norm(width)
        self.down = None
        if stride != 1 or width_in != width:
            self.down = nn.Sequential(nn.Conv2d(width_in, width, 1, stride, bias=False), norm(width))

    def forward(self, x):
        h = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(h + (self.down(x) if self.down else x))


def resnet18(norm):
    parts = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), norm(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    for i, width in enumerate((64, 128, 256, 512)):
        parts += [Block(norm, 64 if i == 0 else width // 2, width, 2 if i else 1), Block(norm, width, width, 1)]
    return nn.Sequential(*parts)


class Layer(nn.Module):  # post-norm, positions added to queries and keys
    def __init__(self, width, heads, mlp, cross):
        super().__init__()
        self.own = nn.MultiheadAttention(width, heads, batch_first=True)
        self.cross = nn.MultiheadAttention(width, heads, batch_first=True) if cross else None
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3 if cross else 2))
        self.up, self.down = nn.Linear(width, mlp), nn.Linear(mlp, width)

    def forward(self, x, place, memory=None, memory_place=None):
        at = x + place
        x = self.norms[0](x + self.own(at, at, x, need_weights=False)[0])
        if self.cross:
            x = self.norms[1](x + self.cross(x + place, memory + memory_place, memory, need_weights=False)[0])
        return self.norms[-1](x + self.down(F.relu(self.up(x))))


class Act(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone, self.project = resnet18(Frozen), nn.Conv2d(512, 512, 1)
        self.latent, self.state = nn.Linear(32, 512), nn.Linear(14, 512)
        self.encoder = nn.ModuleList(Layer(512, 8, 3200, False) for _ in range(4))
        self.decoder, self.norm, self.head = Layer(512, 8, 3200, True), nn.LayerNorm(512), nn.Linear(512, 14)
        self.place, self.queries = nn.Parameter(torch.randn(1, 302, 512)), nn.Parameter(torch.randn(1, 100, 512))

    def inputs(self, dtype):
        return torch.randn(1, 3, 480, 640, dtype=dtype), torch.randn(1, 14, dtype=dtype)

    def forward(self, picture, state):
        tokens = self.project(self.backbone(picture)).flatten(2).transpose(1, 2)
        x = torch.cat((self.latent(torch.zeros(1, 32, dtype=state.dtype))[:, None], self.state(state)[:, None], tokens), 1)
        for layer in self.encoder:
            x = layer(x, self.place)
        return self.head(self.norm(self.decoder(torch.zeros_like(self.queries), self.queries, x, self.place)))


def conv_block(width_in, width, groups=8):
    return nn.Sequential(nn.Conv1d(width_in, width, 5, padding=2), nn.GroupNorm(groups, width), nn.Mish())


class Film(nn.Module):
    def __init__(self, width_in, width, cond):
        super().__init__()
        self.first, self.second = conv_block(width_in, width), conv_block(width, width)
        self.film = nn.Sequential(nn.Mish(), nn.Linear(cond, 2 * width))
        self.skip = nn.Conv1d(width_in, width, 1) if width_in != width else nn.Identity()

    def forward(self, x, cond):
        scale, shift = self.film(cond)[..., None].chunk(2, 1)
        return self.second(self.first(x) * scale + shift) + self.skip(x)


class Diffusion(nn.Module):
    def __init__(self):
        super().__init__()
        widths, cond = (512, 1024, 2048), 128 + 2 * (2 + 64)
        self.backbone = resnet18(lambda width: nn.GroupNorm(width // 16, width))
        self.points, self.out = nn.Conv2d(512, 32, 1), nn.Linear(64, 64)
        self.step = nn.Sequential(nn.Linear(128, 512), nn.Mish(), nn.Linear(512, 128))
        self.down = nn.ModuleList(nn.ModuleList((Film(a, b, cond), Film(b, b, cond))) for a, b in zip((2, 512, 1024), widths))
        self.halve = nn.ModuleList(nn.Conv1d(w, w, 3, 2, 1) for w in widths[:-1])
        self.middle = nn.ModuleList(Film(2048, 2048, cond) for _ in range(2))
        self.up = nn.ModuleList(nn.ModuleList((Film(2 * a, b, cond), Film(b, b, cond))) for a, b in ((2048, 1024), (1024, 512)))
        self.widen = nn.ModuleList(nn.ConvTranspose1d(w, w, 4, 2, 1) for w in (1024, 512))
        self.end = nn.Sequential(conv_block(512, 512), nn.Conv1d(512, 2, 1))
        self.register_buffer("grid", torch.rand(9, 2))

    def inputs(self, dtype):
        return torch.randn(2, 3, 84, 84, dtype=dtype), torch.randn(2, 2, dtype=dtype)

    def unet(self, x, t, cond):
        half = torch.exp(torch.arange(64) * (-math.log(10000) / 63)).to(x.dtype) * t
        cond = torch.cat((self.step(torch.cat((half.sin(), half.cos()))[None]), cond), 1)
        kept = []
        for i, level in enumerate(self.down):
            for block in level:
                x = block(x, cond)
            kept.append(x)
            x = self.halve[i](x) if i < 2 else x
        for block in self.middle:
            x = block(x, cond)
        for level, widen in zip(self.up, self.widen):
            x = torch.cat((x, kept.pop()), 1)
            for block in level:
                x = block(x, cond)
            x = widen(x)
        return self.end(x)

    def forward(self, pictures, state):
        maps = self.points(self.backbone(pictures)).flatten(2).softmax(-1)
        seen = F.relu(self.out((maps @ self.grid).flatten(1)))
        cond = torch.cat((state, seen), 1).reshape(1, -1)
        x = torch.randn(1, 2, 16, dtype=state.dtype)
        for t in range(99, -1, -1):  # the sampler's own arithmetic is a few numbers
            said = self.unet(x, t, cond)
            x = 0.99 * (x - 0.01 * said).clamp(-1, 1) + (0.01 * torch.randn_like(x) if t else 0)
        return x


def seconds_of(model, dtype, last, o):
    model = model().eval().to(dtype)
    if last:  # of the pictures' part, whose weights have four dimensions
        model.backbone.to(memory_format=torch.channels_last)
    picture, state = model.inputs(dtype)
    picture = picture.to(memory_format=torch.channels_last) if last else picture
    times = []
    with torch.inference_mode():
        for i in range(o.warm + o.repeats):
            start = time.perf_counter()
            model(picture, state)
            times.append(time.perf_counter() - start)
    return statistics.median(times[o.warm:])


def run_soma(o, dtype):
    line = [o.soma, "bench", "policy", "--family", o.family, "--preset", "base", "--random", "--threads", str(o.threads), "--dtype", dtype,
            "--repeats", str(o.repeats), "--json"]
    return json.loads(subprocess.run(line, check=True, capture_output=True, text=True).stdout)


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--family", choices=("act", "diffusion"), default="act")
    p.add_argument("--threads", type=int, default=torch.get_num_threads())
    p.add_argument("--dtypes", default="bf16,f32")
    p.add_argument("--warm", type=int, default=3, help="chunks before those that are timed; a diffusion's has 100 steps, and 1 will do")
    p.add_argument("--repeats", type=int, default=5)
    p.add_argument("--soma", default="", help="the program, to be run in the same run")
    p.add_argument("--out", default="", help="file for the figures")
    o = p.parse_args()
    torch.set_num_threads(o.threads)
    torch.manual_seed(1)
    model = {"act": Act, "diffusion": Diffusion}[o.family]
    before = {d: run_soma(o, d)["chunk_median_s"] for d in o.dtypes.split(",")} if o.soma else {}
    variants = []
    for dtype in o.dtypes.split(","):
        for last in (False, True):
            seconds = seconds_of(model, torch.float32 if dtype == "f32" else torch.bfloat16, last, o)
            variants.append(dict(dtype=dtype, channels_last=last, chunk_median_s=seconds))
    best = min(variants, key=lambda v: v["chunk_median_s"])
    result = dict(what="policy", program="PyTorch " + torch.__version__, family=o.family, threads=o.threads, **best, variants=variants)
    for dtype, own in before.items():
        own = min(own, run_soma(o, dtype)["chunk_median_s"])
        result.setdefault("soma", {})[dtype] = dict(seconds=own, times_faster=best["chunk_median_s"] / own)
    text = json.dumps(result, indent=2)
    if o.out:
        with open(o.out, "w") as f:
            f.write(text + "\n")
    print(text)


main()
