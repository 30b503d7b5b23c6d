# SPDX-License-Identifier: Apache-2.0
"""PyTorch on the work of `soma bench policy` and `soma bench train`: pi0's sizes in plain modules, random weights, and the ratio.

    python tools/peer_torch.py --preset base --threads 2 --soma build/soma
    python tools/peer_torch.py --preset small --train --batch 8 --draws 1 --threads 2 --soma build/soma

Every variant (--dtypes, plain and fused attention, eager and compiled) makes at least three chunks or steps before it is timed; the fastest
variant is the peer. With --soma the program runs in the same run, before and after, and the ratio is told. --out writes the figures where
`soma bench policy --peer FILE` reads them. Needs torch (2.13.0 was used) and, for compiled variants, a C++ compiler; base takes 7 GB in
bfloat16 and 14 GB in float32. The modules compute what pi0 computes, part for part, to be timed: they read no checkpoint.
"""
import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time

import torch
from torch import nn
from torch.nn import functional as F

PRESETS = {  # as src/model/pi0/config.c
    "base": dict(image=224, patch=14, vision=(1152, 27, 16, 4304), language=(2048, 16384), expert=(1024, 4096), depth=18, heads=8, size=256,
                 horizon=50, actions=32, vocab=257152),
    "small": dict(image=224, patch=16, vision=(384, 12, 6, 1536), language=(768, 2048), expert=(512, 1024), depth=10, heads=12, size=64,
                  horizon=50, actions=14, vocab=4096),
    "nano": dict(image=64, patch=16, vision=(128, 2, 4, 256), language=(128, 256), expert=(128, 256), depth=4, heads=4, size=32,
                 horizon=30, actions=7, vocab=256),
}
FLOW_STEPS = 10


class RMSNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))

    def forward(self, x):
        wide = x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)
        return (wide * (1 + self.weight.float())).to(x.dtype)


def attend(q, k, v, fused, mask=None):
    """q [B, T, H, K], k and v [B, S, G, K] with G heads shared by H; mask [T, S], True where a key is seen."""
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    if fused:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=k.shape[1] != q.shape[1]).transpose(1, 2).flatten(2)
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    scores = torch.matmul(q, k.transpose(2, 3)).float() / math.sqrt(q.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(~mask, -1e30)
    return torch.matmul(scores.softmax(-1).to(v.dtype), v).transpose(1, 2).flatten(2)


def rotate(x, position):
    half = x.shape[-1] // 2
    period = 10000.0 ** (torch.arange(half, dtype=torch.float32) / half)
    angle = position.float()[:, None, None] / period
    a, b = x.float().split(half, -1)
    return torch.cat((a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()), -1).to(x.dtype)


class VisionBlock(nn.Module):
    def __init__(self, width, heads, mlp):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width, 1e-6), nn.LayerNorm(width, 1e-6)
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, mlp), nn.Linear(mlp, width)

    def forward(self, x, fused):
        h = self.norm1(x)
        q, k, v = (layer(h).unflatten(-1, (self.heads, -1)) for layer in (self.q, self.k, self.v))
        x = x + self.o(attend(q, k, v, fused))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class Vision(nn.Module):
    def __init__(self, c):
        super().__init__()
        width, depth, heads, mlp = c["vision"]
        self.patch = nn.Conv2d(3, width, c["patch"], c["patch"])
        self.position = nn.Parameter(torch.zeros((c["image"] // c["patch"]) ** 2, width))
        self.blocks = nn.ModuleList(VisionBlock(width, heads, mlp) for _ in range(depth))
        self.norm = nn.LayerNorm(width, 1e-6)
        self.projector = nn.Linear(width, c["language"][0])

    def forward(self, images, fused):
        x = self.patch(images).flatten(2).transpose(1, 2) + self.position
        for block in self.blocks:
            x = block(x, fused)
        return self.projector(self.norm(x))


class Layer(nn.Module):
    """One layer of a stream; `past`: keys and values that stand before its own. keys_only: nobody reads more of it."""

    def __init__(self, width, mlp, heads, size):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = RMSNorm(width), RMSNorm(width)
        self.q, self.k, self.v = (nn.Linear(width, n * size, bias=False) for n in (heads, 1, 1))
        self.o = nn.Linear(heads * size, width, bias=False)
        self.gate, self.up, self.down = nn.Linear(width, mlp, bias=False), nn.Linear(width, mlp, bias=False), nn.Linear(mlp, width, bias=False)

    def forward(self, x, position, fused, past=None, mask=None, keys_only=False):
        h = self.norm1(x)
        k, v = rotate(self.k(h).unsqueeze(2), position), self.v(h).unsqueeze(2)
        if keys_only:
            return x, (k, v)
        kept = (k, v)
        if past is not None:
            k, v = torch.cat((past[0], k), 1), torch.cat((past[1], v), 1)
        q = rotate(self.q(h).unflatten(-1, (self.heads, -1)), position)
        x = x + self.o(attend(q, k, v, fused, mask))
        h = self.norm2(x)
        return x + self.down(F.gelu(self.gate(h), approximate="tanh") * self.up(h)), kept


class Pi0(nn.Module):
    def __init__(self, c, fused):
        super().__init__()
        self.c, self.fused = c, fused
        (language, language_mlp), (expert, expert_mlp) = c["language"], c["expert"]
        self.vision = Vision(c)
        self.words = nn.Embedding(c["vocab"], language)
        self.language = nn.ModuleList(Layer(language, language_mlp, c["heads"], c["size"]) for _ in range(c["depth"]))
        self.expert = nn.ModuleList(Layer(expert, expert_mlp, c["heads"], c["size"]) for _ in range(c["depth"]))
        self.norm = RMSNorm(expert)
        self.state_in, self.action_in = nn.Linear(c["actions"], expert), nn.Linear(c["actions"], expert)
        self.time1, self.time2 = nn.Linear(2 * expert, expert), nn.Linear(expert, expert)
        self.action_out = nn.Linear(expert, c["actions"])

    def encode(self, images, tokens):
        """images [B, views, 3, side, side], tokens [B, L] -> keys and values of each layer."""
        pictures = self.vision(images.flatten(0, 1), self.fused).unflatten(0, images.shape[:2]).flatten(1, 2)
        x = torch.cat((pictures, self.words(tokens) * math.sqrt(self.words.embedding_dim)), 1)
        position, kept = torch.arange(x.shape[1]), []
        for i, layer in enumerate(self.language):
            x, keys = layer(x, position, self.fused, keys_only=i + 1 == len(self.language))
            kept.append(keys)
        return kept

    def velocity(self, past, state, x_t, time):
        """past: of encode; state [N, A], x_t [N, S, A], time [N]."""
        half = self.norm.weight.shape[0] // 2
        period = 4e-3 * 1000.0 ** torch.linspace(0, 1, half)
        angle = time.float()[:, None] * 2 * math.pi / period
        when = torch.cat((angle.sin(), angle.cos()), -1).to(x_t.dtype)[:, None].expand(-1, x_t.shape[1], -1)
        h = self.time2(F.silu(self.time1(torch.cat((self.action_in(x_t), when), -1))))
        h = torch.cat((self.state_in(state)[:, None], h), 1)
        before, own = past[0][0].shape[1], h.shape[1]
        mask = torch.ones(own, before + own, dtype=torch.bool)
        mask[0, before + 1:] = False  # the state does not see the actions
        for layer, keys in zip(self.expert, past):
            h, _ = layer(h, torch.arange(before, before + own), self.fused, past=keys, mask=mask)
        return self.action_out(self.norm(h)[:, 1:])

    def chunk(self, images, tokens, state, noise):
        past, x = self.encode(images, tokens), noise
        for step in range(FLOW_STEPS):
            x = x - self.velocity(past, state, x, torch.full((1,), 1 - step / FLOW_STEPS)) / FLOW_STEPS
        return x

    def loss(self, images, tokens, state, actions, noise, time):
        """noise [B R, S, A], time [B R]: R draws of each observation, which share its prefix."""
        draws = noise.shape[0] // images.shape[0]
        past = [tuple(t.repeat_interleave(draws, 0) for t in keys) for keys in self.encode(images, tokens)]
        actions, state, t = actions.repeat_interleave(draws, 0), state.repeat_interleave(draws, 0), time[:, None, None]
        return (self.velocity(past, state, t * noise + (1 - t) * actions, time) - (noise - actions)).float().pow(2).mean()


def make_model(c, fused, dtype):
    """Random values of one block, again and again: making 3 billion normal ones takes longer than the measurement."""
    with torch.device("meta"):
        model = Pi0(c, fused)
    model = model.to(dtype).to_empty(device="cpu")
    block = (torch.rand(1 << 22) - 0.5).mul_(0.04).to(dtype)
    with torch.no_grad():
        for weight in model.parameters():
            flat = weight.view(-1)
            for at in range(0, flat.numel(), block.numel()):
                part = flat[at:at + block.numel()]
                part.copy_(block[:part.numel()])
    return model


def timed(work, warm, repeats):
    seconds = []
    for i in range(-warm, repeats):
        begin = time.perf_counter()
        work()
        if i >= 0:
            seconds.append(time.perf_counter() - begin)
    return seconds


def observation(c, o, batch, dtype):
    views = torch.rand(batch, o.views, 3, c["image"], c["image"]).to(dtype)
    return views, torch.randint(0, c["vocab"], (batch, o.tokens)), torch.rand(batch, c["actions"]).to(dtype)


def act_variant(c, o, dtype, fused, compiled):
    model = make_model(c, fused, dtype).eval()
    images, tokens, state = observation(c, o, 1, dtype)
    noise = torch.randn(1, c["horizon"], c["actions"]).to(dtype)
    encode, velocity = (torch.compile(f) if compiled else f for f in (model.encode, model.velocity))
    model.encode, model.velocity = encode, velocity
    with torch.inference_mode():
        chunk = timed(lambda: model.chunk(images, tokens, state, noise), o.warm, o.repeats)
        prefix = timed(lambda: encode(images, tokens), 0, o.repeats)
        past = encode(images, tokens)
        step = timed(lambda: velocity(past, state, noise, torch.ones(1)), 0, o.repeats)
    return dict(chunk_median_s=statistics.median(chunk), chunk_range_s=[min(chunk), max(chunk)], prefix_s=statistics.median(prefix),
                step_s=statistics.median(step))


def train_variant(c, o, dtype, fused, compiled):
    model = make_model(c, fused, torch.float32)
    images, tokens, state = observation(c, o, o.batch, torch.float32)
    actions, noise = torch.randn(o.batch, c["horizon"], c["actions"]), torch.randn(o.batch * o.draws, c["horizon"], c["actions"])
    when = torch.rand(o.batch * o.draws)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), fused=True)
    loss = torch.compile(model.loss) if compiled else model.loss

    def step():
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            value = loss(images, tokens, state, actions, noise, when)
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()

    seconds = timed(step, o.warm, o.repeats)
    return dict(step_median_s=statistics.median(seconds), step_range_s=[min(seconds), max(seconds)])


def run_soma(o, more):
    command = [o.soma, "bench", "train" if o.train else "policy", "--family", "pi0", "--preset", o.preset, "--threads", str(o.threads), "--json",
               *more]
    command += ["--batch", str(o.batch), "--draws", str(o.draws)] if o.train else \
        ["--random", "--views", str(o.views), "--tokens", str(o.tokens), "--repeats", str(o.repeats)]
    with tempfile.NamedTemporaryFile("w", suffix=".json") as sizes:
        if o.depth:
            layers = {"depth": o.depth}
            json.dump({"paligemma": layers, "action_expert": layers, "vision": {"num_hidden_layers": o.depth}}, sizes)
            sizes.flush()
            command += ["--model", sizes.name]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--preset", choices=PRESETS, default="base")
    p.add_argument("--train", action="store_true", help="a training step in place of a chunk")
    p.add_argument("--views", type=int, default=2)
    p.add_argument("--tokens", type=int, default=16)
    p.add_argument("--batch", type=int, default=8)
    p.add_argument("--draws", type=int, default=1)
    p.add_argument("--threads", type=int, default=torch.get_num_threads())
    p.add_argument("--dtypes", default="bf16,f32", help="of weights; training keeps them in f32, and bf16 means autocast")
    p.add_argument("--attention", default="plain,fused")
    p.add_argument("--modes", default="eager,compiled")
    p.add_argument("--warm", type=int, default=3)
    p.add_argument("--repeats", type=int, default=5)
    p.add_argument("--depth", type=int, default=0, help="layers of each part, to try it where the whole does not fit; 0: all")
    p.add_argument("--soma", default="", help="the program, to be run in the same run")
    p.add_argument("--soma-dtypes", default="bf16", help="its dtypes")
    p.add_argument("--out", default="", help="file for the figures")
    o = p.parse_args()
    if o.warm < 3:
        p.error("at least 3 warm-up rounds: PyTorch's first ones choose and allocate")
    torch.set_num_threads(o.threads)
    torch.manual_seed(1)
    c = dict(PRESETS[o.preset])
    if o.depth:
        c["depth"], c["vision"] = o.depth, (c["vision"][0], o.depth, *c["vision"][2:])
    key, ours = "step_median_s" if o.train else "chunk_median_s", {}
    if o.soma:
        for dtype in o.soma_dtypes.split(","):
            ours[dtype] = run_soma(o, ["--dtype", dtype])
    variants = []
    for dtype in o.dtypes.split(","):
        for attention in o.attention.split(","):
            for mode in o.modes.split(","):
                name = dict(dtype=dtype, attention=attention, mode=mode)
                try:
                    run = train_variant if o.train else act_variant
                    figures = run(c, o, torch.float32 if dtype == "f32" else torch.bfloat16, attention == "fused", mode == "compiled")
                except Exception as e:  # a compiler that is not there must not cost the rest
                    figures = dict(failed=str(e).splitlines()[0][:200] if str(e) else type(e).__name__)
                variants.append({**name, **figures})
                print(json.dumps(variants[-1]), file=sys.stderr, flush=True)
    done = [v for v in variants if key in v]
    if not done:
        raise SystemExit("no variant ran")
    best = min(done, key=lambda v: v[key])
    result = dict(what="training step" if o.train else "policy", program="PyTorch " + torch.__version__, preset=o.preset, threads=o.threads,
                  depth=o.depth, views=o.views, tokens=o.tokens, **best, variants=variants)
    if o.train:
        result.update(batch=o.batch, draws=o.draws)
    for dtype, figures in ours.items():
        own = figures["seconds"][0] if o.train else figures["chunk_median_s"]
        again = run_soma(o, ["--dtype", dtype])
        own = min(own, again["seconds"][0] if o.train else again["chunk_median_s"])
        result.setdefault("soma", {})[dtype] = dict(seconds=own, times_faster=best[key] / own)
    text = json.dumps(result, indent=2)
    if o.out:
        with open(o.out, "w") as f:
            f.write(text + "\n")
    print(text)


main()
