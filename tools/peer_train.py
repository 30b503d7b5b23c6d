# SPDX-License-Identifier: Apache-2.0
"""LeRobot's own training step beside `soma bench train`, in the same run: samples a second of each and the ratio. With --chunk: a chunk of
actions beside `soma bench policy`.

    python tools/peer_train.py --soma build/soma --family act --threads 1
    python tools/peer_train.py --soma build/soma --family smolvla --preset base --threads 1 --chunk
    python tools/peer_train.py --soma build/soma --family diffusion --threads 2 --preset base --batch 8

soma writes a policy of random weights in LeRobot's layout; LeRobot's policy class opens it (tools/check_export.py) and takes steps on made-up
batches of the same sizes: loss, gradients, clipping, AdamW, in f32 and under autocast to bf16; the faster is the peer. soma's step is of the
same model and batch, in bf16 products. Pictures are ready on both sides. nano has LeRobot's ResNet-18 here, the one that LeRobot can build;
--draws is 1, as LeRobot's trainer has it. Needs lerobot 0.4.4.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile
import time

import check_export as export

RESNET = {"backbone": {f"width_{i + 1}": 64 << i for i in range(4)} | {f"blocks_{i + 1}": 2 for i in range(4)}}


def made_batch(torch, original, batch):
    """Normalised, as the processors leave it."""
    config = original.policy.config
    look = getattr(config, "n_obs_steps", 1)
    steps = config.horizon if original.family == "diffusion" else config.chunk_size
    views = (batch, look) if original.family == "diffusion" else (batch,)
    out = {key: torch.randn(*views, *f.shape) if f.type.name != "VISUAL" else torch.rand(*views, *f.shape) for key, f in config.input_features.items()}
    out["action"] = torch.randn(batch, steps, config.output_features["action"].shape[0]).clamp(-1, 1)
    out["action_is_pad"] = torch.zeros(batch, steps, dtype=torch.bool)
    if original.family == "smolvla":
        tokens = config.tokenizer_max_length
        out["observation.language.tokens"] = torch.randint(5, 100, (batch, tokens))
        out["observation.language.attention_mask"] = torch.arange(tokens)[None].expand(batch, -1) < 8
    return out


def peer_chunk_seconds(o, original, bf16):
    torch, policy, times = original.torch, original.policy.eval(), []
    torch.set_num_threads(o.threads)
    batch = made_batch(torch, original, 1)
    for key in [key for key in batch if key.startswith("observation.image")][1:]:
        del batch[key]  # one view, as soma is asked for below
    for _ in range(o.warm + o.repeats):
        start = time.perf_counter()
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            policy.predict_action_chunk(batch)
        times.append(time.perf_counter() - start)
    return statistics.median(times[o.warm:])


def soma_chunk_seconds(o, sizes):
    line = [o.soma, "bench", "policy", "--family", o.family, "--preset", o.preset, "--model", sizes, "--random", "--views", 1, "--dtype", "bf16", "--threads",
            o.threads, "--repeats", o.repeats, "--json"]
    out = json.loads(subprocess.run([str(word) for word in line], check=True, capture_output=True, text=True).stdout)
    return find(out, "chunk_median_s")


def find(value, key):
    """The first value of a key, at any depth."""
    if isinstance(value, dict) and key in value:
        return value[key]
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next((found for found in (find(v, key) for v in inside) if found is not None), None)


def peer_seconds(o, original, bf16):
    torch, policy = original.torch, original.policy.train()
    torch.set_num_threads(o.threads)
    batch, parameters = made_batch(torch, original, o.batch), [p for p in policy.parameters() if p.requires_grad]
    optimiser, times = torch.optim.AdamW(parameters, lr=1e-4), []
    for _ in range(o.warm + o.repeats):
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = policy.forward(batch)[0]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        times.append(time.perf_counter() - start)
    return statistics.median(times[o.warm:])


def soma_seconds(o, sizes):
    line = [o.soma, "bench", "train", "--family", o.family, "--preset", o.preset, "--model", sizes, "--batch", o.batch, "--draws", 1, "--threads",
            o.threads, "--repeats", o.repeats, "--json"]
    return json.loads(subprocess.run([str(word) for word in line], check=True, capture_output=True, text=True).stdout)["seconds"][0]


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--soma", default="build/soma")
    p.add_argument("--family", choices=("act", "diffusion", "smolvla"), default="act")
    p.add_argument("--preset", default="nano")
    p.add_argument("--batch", type=int, default=8)
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--chunk", action="store_true", help="a chunk in place of a training step")
    p.add_argument("--warm", type=int, default=1)
    p.add_argument("--repeats", type=int, default=5)
    o = p.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        sizes = work / "sizes.json"
        sizes.write_text(json.dumps(RESNET if o.family != "smolvla" else {"vocab_size": 600}))
        export.soma(o, "init", "--family", o.family, "--preset", o.preset, "--model", sizes, "--dtype", "f32", "--out", work / "policy")
        tokenizer = None
        if o.family == "smolvla":
            export.make_byte_tokenizer(work / "policy", 600)
        export.soma(o, "export", "--policy", work / "policy", "--layout", "lerobot", "--dtype", "f32", "--out", work / "lerobot")
        if o.family == "smolvla":
            from transformers import PreTrainedTokenizerFast

            tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(work / "lerobot" / "tokenizer.json"), pad_token="<pad>", eos_token="<eos>")
        original = export.LeRobot(work / "lerobot", tokenizer, work)
        ours, theirs = (soma_chunk_seconds, peer_chunk_seconds) if o.chunk else (soma_seconds, peer_seconds)
        own = [ours(o, sizes)]
        peers = {name: theirs(o, original, name == "bf16") for name in ("f32", "bf16")}
        own = min(own + [ours(o, sizes)])
    best = min(peers, key=peers.get)
    if o.chunk:
        print(json.dumps({"what": "chunk", "family": o.family, "preset": o.preset, "threads": o.threads, "lerobot_seconds": peers, "peer": best,
                          "soma_seconds": own, "times_faster": peers[best] / own}, indent=2))
        return
    print(json.dumps({"what": "training step", "family": o.family, "preset": o.preset, "batch": o.batch, "threads": o.threads,
                      "lerobot_samples_per_second": {name: o.batch / s for name, s in peers.items()}, "peer": best,
                      "soma_samples_per_second": o.batch / own, "times_faster": peers[best] / own}, indent=2))


main()
