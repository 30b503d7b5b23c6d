#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Holds exported policies against LeRobot itself, both ways, and prints a table of errors.

Out: a policy written by `soma export --layout lerobot` is loaded with LeRobot's own loader and processors, given one observation and fixed
noise, and held against `soma trace` (the same inputs, random noise) and `soma act` (the whole way from picture to robot units, no noise).
openpi's layout is loaded strictly into the same network, under openpi's names.
Back: LeRobot saves that policy with save_pretrained, processors included, and both load what it saved.

    python3 tools/check_export.py --soma build/soma                    # small policies of every family, made for the purpose
    python3 tools/check_export.py --soma build/soma --policy for_lerobot --tokenizer DIR
    python3 tools/check_export.py --soma build/soma --policy for_lerobot --once    # of a released size: LeRobot does not save it back
    python3 tools/check_export.py --policy for_lerobot --time peer.json    # the original's chunk, timed for `soma bench policy --views 1 --peer`

Needs lerobot 0.4.4, torch, and transformers with openpi's changes to Gemma (see docs/export.md). LeRobot knows the released sizes alone:
for others its tables of sizes, nothing else, are replaced by those in config.json. Exit code: 0 all within the tolerance, 1 not, 2 usage.
"""
import argparse
import contextlib
import importlib
import io
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

import numpy as np

OWN_KEYS = ("paligemma", "action_expert", "vision", "camera_order", "vocab_size", "text", "expert", "scale_factor",
            "rms_norm_eps")  # of soma; LeRobot's parser refuses what it does not know
FAMILIES = ("pi0", "pi05", "pi0_fast", "smolvla", "act", "diffusion")
CLASSES = dict(zip(FAMILIES, ("PI0Policy", "PI05Policy", "PI0FastPolicy", "SmolVLAPolicy", "ACTPolicy", "DiffusionPolicy")))
WORDLESS = ("act", "diffusion")  # they read no text
PROMPTS = ["pick up the red_cube\nand place it", "open the drawer"]


class Table:
    def __init__(self, tolerance):
        self.tolerance, self.failed = tolerance, 0
        print(f"{'case':34} {'what':38} {'largest':>10} {'relative':>10} {'tolerance':>10}")

    def compare(self, case, what, got, want, tolerance=None):
        tolerance = self.tolerance if tolerance is None else tolerance
        got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
        if got.shape != want.shape:
            return self.say(case, f"{what}: {list(got.shape)} for {list(want.shape)}", False)
        error = np.abs(got - want)
        relative = np.linalg.norm(error) / max(np.linalg.norm(want), 1e-30)
        good = bool(np.isfinite(got).all() and relative <= tolerance)
        self.failed += not good
        print(f"{case:34} {what:38} {error.max():10.2e} {relative:10.2e} {tolerance:10.0e}{'' if good else '  WRONG'}")

    def say(self, case, what, good):
        self.failed += not good
        print(f"{case:34} {what}{'' if good else '  WRONG'}")


# ---- soma


def soma(args, *words):
    done = subprocess.run([args.soma, *map(str, words)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"soma {' '.join(map(str, words))}: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else done.returncode}")
    return done.stdout


def act(args, folder, obs, work):
    """The chunk in robot units, from no noise."""
    from safetensors.numpy import save_file

    tensors = {"state": obs["state"]} | {f"image.{name}": picture for name, picture in obs["images"].items()}
    save_file(tensors, work / "obs.safetensors", metadata={"prompt": obs["prompt"]})
    out = soma(args, "act", "--policy", folder, "--obs", work / "obs.safetensors", "--noise", 0, "--dtype", args.dtype, "--threads", 1, "--json")
    return np.array(json.loads(out)["actions"])


def trace(args, folder, inputs, work):
    from safetensors.numpy import load_file, save_file

    save_file(inputs, work / "in.safetensors")
    soma(args, "trace", "--policy", folder, "--inputs", work / "in.safetensors", "--out", work / "out.safetensors", "--time", "lerobot",
         "--threads", 1, "--dtype", args.dtype)
    return load_file(work / "out.safetensors")


def make_tokenizer(folder, size):
    """A tokenizer.json of Gemma's kind: BPE over characters with byte fallback, a bar for the space, BOS in front, rare ids at the end."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    special, rare = ["<pad>", "<eos>", "<bos>", "<unk>"], 300
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    cuts = [pre_tokenizers.Punctuation(), pre_tokenizers.Digits(True), pre_tokenizers.Split("\n", "isolated")]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(cuts)  # no merges across them
    text = [word for p in PROMPTS + ["Task: State: Action: |;,-0123456789"] for word in p.split(" ")] + ["▁", "\n"]
    trainer = trainers.BpeTrainer(vocab_size=size - rare, special_tokens=special + [f"<0x{b:02X}>" for b in range(256)], show_progress=False)
    tokenizer.train_from_iterator(text, trainer)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    model = json.loads((folder / "tokenizer.json").read_text())
    model["added_tokens"] = [t for t in model["added_tokens"] if t["content"] in special]  # bytes are no added tokens in Gemma's
    pieces = model["model"]["vocab"]
    while len(pieces) < size:
        pieces[f"<loc{len(pieces):04d}>"] = len(pieces)
    (folder / "tokenizer.json").write_text(json.dumps(model))


def make_byte_tokenizer(folder, size):
    """A tokenizer.json of SmolLM2's kind: digits apart, then GPT-2's rule over bytes; no BOS."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder, tokenizer.post_processor = decoders.ByteLevel(), processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=["<pad>", "<eos>", "<bos>", "<unk>"], show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(PROMPTS, trainer)
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))


def draw_weights(path, rng):
    """New values for every tensor: a fresh network has zeros (biases, the gates of pi0.5's norms) behind which an error could hide."""
    from safetensors import safe_open
    from safetensors.numpy import load_file, save_file

    with safe_open(path, "np") as file:
        metadata = file.metadata()
    tensors = {name: (rng.normal(0, 0.1 if t.ndim < 2 else 1.2 / np.sqrt(t[0].size), t.shape)).astype(np.float32)
               for name, t in sorted(load_file(path).items())}
    for name in [name for name in tensors if name.endswith("running_var")]:
        tensors[name] = 1 + np.abs(tensors[name])
    save_file(tensors, path, metadata=metadata)


def make_policy(args, family, folder, rng):
    """Random weights, statistics that are not trivial, a tokenizer."""
    sizes = folder.with_suffix(".json")
    own = {"vocab_size": 600, "max_token_len": 160, "action_dim": 32, "state_dim": 32, "action_horizon": 12}
    if family in WORDLESS:  # the ResNet of which LeRobot knows the name alone
        own = {"backbone": {f"width_{i + 1}": 64 << i for i in range(4)} | {f"blocks_{i + 1}": 2 for i in range(4)}, "action_horizon": 16}
    sizes.write_text(json.dumps(own))
    soma(args, "init", "--family", family, "--preset", "nano", "--model", sizes, "--dtype", "f32", "--seed", 3, "--out", folder)
    draw_weights(folder / "model.safetensors", rng)
    config = json.loads((folder / "config.json").read_text())
    n_state, n_actions = config["robot"]["n_state"], config["robot"]["n_actions"]
    rules = {"pi0": "openpi_zscore", "smolvla": "openpi_zscore", "act": "lerobot_mean_std", "diffusion": "lerobot_min_max"}
    config["robot"]["normalise"] = rules.get(family, "openpi_quantile")
    (folder / "config.json").write_text(json.dumps(config))
    stats = {}
    for key, n in (("state", n_state), ("actions", n_actions)):
        low = rng.uniform(-2, 0, n)
        stats[key] = {"mean": rng.normal(0, 1, n).tolist(), "std": rng.uniform(0.1, 2, n).tolist(), "q01": low.tolist(),
                      "q99": (low + rng.uniform(0.5, 3, n)).tolist()}
        stats[key] |= {"min": (low - 0.3).tolist(), "max": [x + 0.2 for x in stats[key]["q99"]]}
    (folder / "norm_stats.json").write_text(json.dumps({"norm_stats": stats}))
    (folder / "vocab.json").unlink()
    if family not in WORDLESS:
        (make_byte_tokenizer if family == "smolvla" else make_tokenizer)(folder, 600)


def make_writer(args, folder, work):
    """pi0-FAST has to write whole answers, which no random weights do: it learns four episodes by heart."""
    sizes = work / "pi0_fast.json"
    sizes.write_text(json.dumps({"lerobot_form": True, "vocab_size": 900, "max_token_len": 120, "max_decoding_steps": 60, "fast_skip_tokens": 10}))
    make_tokenizer(work / "tokenizer", 900)
    soma(args, "record", "--task", "touch_color", "--episodes", 4, "--threads", 1, "--out", work / "recorded")
    soma(args, "fast", "fit", "--data", work / "recorded", "--horizon", 8, "--vocab", 250, "--out", work / "fast")
    soma(args, "train", "--family", "pi0_fast", "--preset", "nano", "--model", sizes, "--data", work / "recorded", "--horizon", 8, "--steps", 150,
         "--batch", 8, "--lr", 2e-3, "--warmup", 10, "--eval-every", 150, "--normalise", "lerobot_mean_std", "--text-tokenizer", work / "tokenizer",
         "--action-tokenizer", work / "fast", "--ema", 0, "--keep", "last", "--threads", 1, "--out", folder)


# ---- LeRobot


class LeRobot:
    """A folder as LeRobot loads it."""

    def __init__(self, folder, tokenizer, work):
        import torch

        torch.set_num_threads(1)
        self.torch = torch
        self.config = json.loads((folder / "config.json").read_text())
        self.family = self.config["type"]
        self.module = importlib.import_module(f"lerobot.policies.{self.family}.modeling_{self.family}")
        importlib.import_module(f"lerobot.policies.{self.family}.processor_{self.family}")  # which makes its steps known
        self.sizes = {key: self.config.pop(key) for key in OWN_KEYS if key in self.config}
        self.tokenizer, self.quiet = tokenizer, io.StringIO()
        self.writes = self.family == "pi0_fast"
        if self.family == "smolvla":
            self.build_vlm()
        elif self.sizes:
            self.resize()
        self.fast = self.action_tokenizer(folder / "fast") if self.writes else None
        folder = self.without_own_keys(folder, work)
        factory = importlib.import_module("lerobot.policies.factory")
        given = {"tokenizer_processor": {"tokenizer": tokenizer}} if tokenizer else {}
        with self.own_tokenizers(), contextlib.redirect_stdout(self.quiet):
            self.policy = self.policy_class().from_pretrained(folder, strict=True)
            self.before, self.after = factory.make_pre_post_processors(self.policy.config, str(folder), preprocessor_overrides=given)

    @contextlib.contextmanager
    def own_tokenizers(self):
        """In place of those of the hub, by whatever name."""
        from unittest import mock

        with mock.patch("transformers.AutoTokenizer.from_pretrained", lambda *name, **options: self.tokenizer), \
             mock.patch("transformers.AutoProcessor.from_pretrained", lambda *name, **options: self.fast):
            yield

    def action_tokenizer(self, folder):
        """What LeRobot takes of the published processor when it decodes."""
        from types import SimpleNamespace

        from transformers import PreTrainedTokenizerFast

        config = json.loads((folder / "processor_config.json").read_text())
        bpe = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), clean_up_tokenization_spaces=False)
        return SimpleNamespace(bpe_tokenizer=bpe, min_token=config["min_token"], scale=config["scale"], folder=folder)

    def policy_class(self):
        return getattr(self.module, CLASSES[self.family])

    def without_own_keys(self, folder, work):
        out = pathlib.Path(tempfile.mkdtemp(dir=work))
        for path in folder.iterdir():
            (out / path.name).symlink_to(path.resolve())
        (out / "config.json").unlink()
        (out / "config.json").write_text(json.dumps(self.config))
        return out

    def resize(self):
        """The sizes that LeRobot has written into its source."""
        module, sizes = self.module, self.sizes
        parts = {"gemma_2b": sizes["paligemma"], "gemma_300m": sizes.get("action_expert")}
        vision, vocab = sizes["vision"], sizes["vocab_size"]
        module.get_gemma_config = lambda variant: module.GemmaConfig(**parts[variant])
        paligemma, gemma = module.PaliGemmaForConditionalGeneration, getattr(module, "GemmaForCausalLM", None)

        def small_paligemma(config):
            for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "patch_size", "image_size"):
                setattr(config.vision_config, key, vision[key])
            config.vision_config.projection_dim = config.projection_dim = sizes["paligemma"]["width"]
            config.text_config.vocab_size = config._vocab_size = config.image_token_index = vocab
            config.text_config.pad_token_id = None
            return paligemma(config)

        def small_gemma(config):
            config.vocab_size = vocab
            return gemma(config)

        if not hasattr(paligemma, "small"):  # else it was done before, with the same sizes
            small_paligemma.small = True
            module.PaliGemmaForConditionalGeneration, module.GemmaForCausalLM = small_paligemma, small_gemma

    def build_vlm(self):
        """LeRobot fetches the language model's config and processor by name: here they are made."""
        from types import SimpleNamespace

        from transformers import LlamaConfig, SmolVLMConfig

        with_expert = importlib.import_module("lerobot.policies.smolvla.smolvlm_with_expert")
        sizes = {"text": {"width": 960, "mlp_dim": 2560, "num_heads": 15, "num_kv_heads": 5, "head_dim": 64}, "vocab_size": 49280, "scale_factor": 4,
                 "vision": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072, "patch_size": 16,
                            "image_size": 512}} | self.sizes
        text = sizes["text"]
        language = LlamaConfig(vocab_size=sizes["vocab_size"], hidden_size=text["width"], intermediate_size=text["mlp_dim"],
                               num_attention_heads=text["num_heads"], num_key_value_heads=text["num_kv_heads"], head_dim=text["head_dim"],
                               num_hidden_layers=2 * self.config["num_vlm_layers"], rms_norm_eps=1e-5, pad_token_id=0).to_dict()
        vision = sizes["vision"] | {"hidden_act": "gelu_pytorch_tanh"}
        vlm = SmolVLMConfig(text_config=language, vision_config=vision, scale_factor=sizes["scale_factor"], tie_word_embeddings=False, pad_token_id=0)
        processor = SimpleNamespace(tokenizer=SimpleNamespace(fake_image_token_id=1, global_image_token_id=2))
        with_expert.AutoConfig = SimpleNamespace(from_pretrained=lambda name: vlm)
        with_expert.AutoProcessor = SimpleNamespace(from_pretrained=lambda name: processor)

    def check_weights(self, table, case, path):
        """Its loader prints what went wrong and goes on: the tensors are compared here, each."""
        from safetensors import safe_open

        mine = self.policy.state_dict()
        places = {name: (t.data_ptr(), tuple(t.shape)) for name, t in mine.items()}
        said = {}
        with safe_open(path, "pt") as file:
            for name in file.keys():
                said[name if name in mine else "model." + name] = file.get_tensor(name)
        unknown = [name for name in said if name not in mine]
        wrong = [name for name in said if name in mine and not self.torch.equal(said[name].to(mine[name].dtype), mine[name])]
        loaded = {places[name] for name in said if name in places}
        missing = [name for name in mine if places[name] not in loaded]
        for what, names in (("not in LeRobot's model", unknown), ("with other values", wrong), ("never loaded", missing)):
            table.say(case, f"{len(names)} of {len(said)} tensors {what}{': ' + names[0] if names else ''}", not names)

    def batch(self, obs):
        torch, out = self.torch, {"observation.state": self.torch.from_numpy(obs["state"])}
        if self.family not in WORDLESS:
            out["task"] = obs["prompt"]
        for name, picture in obs["images"].items():
            out[f"observation.images.{name}"] = torch.from_numpy(picture).permute(2, 0, 1).float() / 255
        return self.before(out)

    def chunk(self, batch, noise):
        """Normalised, and in robot units; and what the network was given (and, of pi0-FAST, wrote)."""
        seen, network = {}, self.policy.model
        method = "sample_actions_fast_kv_cache" if self.writes else "sample_actions"
        own = getattr(type(network), method)
        names = getattr(own, "__wrapped__", own).__code__.co_varnames[1:6]

        def sample(*inputs, **options):
            seen.update(zip(names, inputs))
            seen["written"] = own(network, *inputs, **options | ({} if self.writes else {"noise": self.torch.from_numpy(noise)[None]}))
            return seen["written"]

        setattr(network, method, sample)
        chunk = self.policy.predict_action_chunk(batch)
        delattr(network, method)
        return chunk[0].float().numpy(), np.stack([self.after(a[None])[0].numpy() for a in chunk[0]]), seen

    def wordless_chunk(self, batches, noise):
        """Of a policy that saw `batches` one after the other: normalised, and in robot units. Its sampler's steps add no noise."""
        from unittest import mock

        chunks, own, zeros = [], self.policy.predict_action_chunk, self.torch.zeros
        given = {"noise": self.torch.from_numpy(noise)[None]} if self.family == "diffusion" else {}

        def predict(*inputs, **options):
            chunks.append(own(*inputs, **options))
            return chunks[-1]

        with mock.patch.object(self.policy, "predict_action_chunk", predict), \
             mock.patch("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda shape, **options: zeros(shape)):
            self.policy.reset()
            for batch in batches:
                (self.policy._queues["action"] if given else self.policy._action_queue).clear()
                self.policy.select_action(batch, **given)
        return chunks[-1][0].numpy(), np.stack([self.after(a[None])[0].numpy() for a in chunks[-1][0]])

    def renew_processors(self, mode, stats):
        """As LeRobot makes them for training."""
        factory = importlib.import_module("lerobot.policies.factory")
        modes = importlib.import_module("lerobot.configs.types").NormalizationMode
        visual = modes.MEAN_STD if self.family in WORDLESS else modes.IDENTITY
        self.policy.config.normalization_mapping = {"VISUAL": visual, "STATE": modes[mode], "ACTION": modes[mode]}
        with self.own_tokenizers():
            self.before, self.after = factory.make_pre_post_processors(self.policy.config, dataset_stats=stats)

    def save(self, folder):
        with contextlib.redirect_stdout(self.quiet):
            self.policy.save_pretrained(folder)
        self.before.save_pretrained(folder)
        self.after.save_pretrained(folder)
        if self.writes:
            shutil.copytree(self.fast.folder, folder / "fast")
        if self.sizes:  # the name gemma_2b would contradict the tensors
            config = json.loads((folder / "config.json").read_text()) | self.sizes
            for key in ("paligemma_variant", "action_expert_variant"):
                config.pop(key, None)
            (folder / "config.json").write_text(json.dumps(config))


# ---- the checks


def observation(config, rng, prompt, taller=0):
    state = next(f["shape"][0] for f in config["input_features"].values() if f["type"] == "STATE")
    images = {key.removeprefix("observation.images."): rng.integers(0, 256, (f["shape"][1] + taller, f["shape"][2], 3), np.uint8)
              for key, f in config["input_features"].items() if f["type"] == "VISUAL"}
    return {"state": rng.normal(0, 0.6, state).astype(np.float32), "images": images, "prompt": prompt}


def check_processors(args, table, case, folder, original, obs, work):
    """What LeRobot's steps made of the observation, and its network's chunk of it, against soma's."""
    rng = np.random.default_rng(args.seed + 1)
    config = original.policy.config
    noise = rng.normal(0, 1, (config.chunk_size, config.max_action_dim)).astype(np.float32)
    chunk, _, seen = original.chunk(original.batch(obs), noise)
    tokens = next(seen[key] for key in ("lang_tokens", "tokens") if key in seen)
    masks = next(seen[key] for key in ("lang_masks", "masks") if key in seen)
    inputs = {"tokens": tokens.numpy().astype(np.int32), "token_mask": masks.numpy().astype(np.uint8)}
    if not original.writes:
        inputs["noise"] = noise[None]
    if "state" in seen:
        inputs["state"] = seen["state"].numpy()
    for name, image in zip(obs["images"], seen["images"]):
        inputs[f"image.{name}"] = np.ascontiguousarray(image.numpy())
    given = trace(args, folder, inputs, work)
    if original.writes:
        table.compare(case, f"network: {seen['written'].shape[1]} tokens", given["decode.kv_tokens"], seen["written"].numpy(), 0)
    else:
        table.compare(case, "network: actions from random noise", given["actions"][0][:, : chunk.shape[1]], chunk)


def check_network(args, table, case, folder, original, past, obs, work):
    """The same of a policy that reads no text: the present, and what was seen before it where the policy looks back."""
    config, batches = original.policy.config, [original.batch(past), original.batch(obs)]
    noise = np.random.default_rng(args.seed + 1).normal(0, 1, wordless_noise(config)).astype(np.float32)
    chunk, _ = original.wordless_chunk(batches, noise)
    looks_back = original.family == "diffusion"
    inputs = {}
    for key in config.input_features:
        both = np.stack([batch[key].numpy()[0] for batch in batches])
        inputs[key.replace("observation.images.", "image.").replace("observation.", "")] = np.ascontiguousarray(both[None] if looks_back else both[1:])
    if looks_back:
        inputs["noise"] = noise[None]
        if config.noise_scheduler_type == "DDPM":
            inputs["step_noise"] = np.zeros((config.num_inference_steps or config.num_train_timesteps, *noise[None].shape), np.float32)
    got = trace(args, folder, inputs, work)["actions"][0][config.n_obs_steps - 1:]
    table.compare(case, "network: actions" + (" from random noise" if looks_back else ""), got[: len(chunk)], chunk)


def wordless_noise(config):
    return getattr(config, "horizon", 0), config.output_features["action"].shape[0]


def check_whole(args, table, case, folder, original, obs, work):
    config = original.policy.config
    if original.family in WORDLESS:
        _, actions = original.wordless_chunk([original.batch(obs)], np.zeros(wordless_noise(config), np.float32))
    else:
        _, actions, _ = original.chunk(original.batch(obs), np.zeros((config.chunk_size, config.max_action_dim), np.float32))
    table.compare(case, "picture to robot units", act(args, folder, obs, work)[: len(actions)], actions)
    return actions


def check_back(args, table, original, folder, rng, work):
    """What LeRobot itself made and saved, loaded by both: the processors are those of its own factory, with statistics of a dataset, in
    each of its modes. It pads the state in the prompt to 32 values, and pictures that are not of the model's size get its border."""
    config = original.policy.config
    stats = {}
    for key, feature in {**config.input_features, **config.output_features}.items():
        if len(feature.shape) > 1:
            if original.family in WORDLESS:  # the same of all cameras: soma has one mean for them
                stats[key] = {"mean": np.array([[[0.4]], [[0.5]], [[0.3]]], np.float32), "std": np.array([[[0.2]], [[0.3]], [[0.25]]], np.float32)}
            continue
        places = np.sort(rng.normal(0, 1, (6, *feature.shape)).astype(np.float32), axis=0)
        places[:, 0] = places[0, 0]  # a value that never changes
        stats[key] = dict(zip(("min", "q01", "q10", "q90", "q99", "max"), places)) | {"mean": places.mean(0), "std": places.std(0)}
    for mode in ("MEAN_STD", "MIN_MAX", "QUANTILES", "QUANTILE10", "IDENTITY"):
        saved = folder.with_name(f"{folder.name}_{mode}")
        original.renew_processors(mode, stats)
        original.save(saved)
        if original.tokenizer:
            shutil.copy(original.tokenizer.init_file, saved / "tokenizer.json")
        again = LeRobot(saved, original.tokenizer, work)
        for prompt, taller in zip(PROMPTS, (0, 0 if original.family in WORDLESS else 23)):  # these are given the model's pictures
            obs = observation(original.config, rng, prompt, taller)
            check_whole(args, table, f"{original.family}: saved by LeRobot, {mode}", saved, again, obs, work)


def check_openpi(table, case, original, path):
    """openpi loads with safetensors' load_model, strictly; LeRobot's network is a port of its, with the same names."""
    from safetensors.torch import load_model

    before = {name: t.clone() for name, t in original.policy.model.state_dict().items()}
    for parameter in original.policy.model.parameters():
        parameter.data.zero_()
    missing, unexpected = load_model(original.policy.model, str(path), strict=True)
    changed = [name for name, t in original.policy.model.state_dict().items() if not original.torch.equal(t, before[name])]
    wrong = {"missing": missing, "unexpected": unexpected, "changed": changed}
    said = ", ".join(f"{len(names)} {what}" for what, names in wrong.items())
    table.say(case, f"{len(before)} names: {said}", not any(wrong.values()))


def time_original(args, original, rng):
    """A chunk of one picture as LeRobot computes it on this machine, in f32 and with products in bf16; the faster is the peer."""
    import time

    torch, obs = original.torch, observation(original.config, rng, PROMPTS[0])
    obs["images"] = dict(list(obs["images"].items())[:1])
    noise = np.zeros((original.config["chunk_size"], original.config["max_action_dim"]), np.float32)
    took = {}
    for name in ("float32", "bfloat16"):
        with torch.autocast("cpu", torch.bfloat16, enabled=name == "bfloat16"):
            for _ in range(3):  # the first warms up
                began = time.perf_counter()
                original.chunk(original.batch(obs), noise)
                took.setdefault(name, []).append(time.perf_counter() - began)
    medians = {name: float(np.median(seconds[1:])) for name, seconds in took.items()}
    best = min(medians, key=medians.get)
    args.time.write_text(json.dumps({"peer": "lerobot", "torch": torch.__version__, "dtype": best, "chunk_median_s": medians[best]} |
                                    {f"chunk_median_s_{name}": seconds for name, seconds in medians.items()}))
    print(f"LeRobot's chunk, one picture, one thread: {medians}")


def check_folder(args, table, folder, work):
    from transformers import PreTrainedTokenizerFast

    tokenizer = None
    if json.loads((folder / "config.json").read_text())["type"] not in WORDLESS:
        path = str((args.tokenizer or folder) / "tokenizer.json")
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=path, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", unk_token="<unk>")
        tokenizer.init_file = path
    original = LeRobot(folder, tokenizer, work)
    rng = np.random.default_rng(args.seed)
    if args.time:
        return time_original(args, original, rng)
    case = f"{original.family}: {folder.name}"
    original.check_weights(table, case, folder / "model.safetensors")
    chunks = []
    for prompt in PROMPTS:
        obs = observation(original.config, rng, prompt)
        if original.family in WORDLESS:
            check_network(args, table, case, folder, original, observation(original.config, rng, prompt), obs, work)
        else:
            check_processors(args, table, case, folder, original, obs, work)
        chunks.append(check_whole(args, table, case, folder, original, obs, work))
    apart = np.linalg.norm(chunks[0] - chunks[1]) / np.linalg.norm(chunks[0])
    table.say(case, f"two observations' chunks are {apart:.2g} apart", apart > 100 * args.tolerance)
    if args.once:
        return
    check_back(args, table, original, work / f"saved_{original.family}", rng, work)
    if not args.policy and original.family in ("pi0", "pi05"):
        out = work / f"{original.family}_openpi"
        soma(args, "export", "--policy", work / original.family, "--layout", "openpi", "--dtype", "f32", "--out", out)
        check_openpi(table, f"{original.family}: {out.name}", original, out / "model.safetensors")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--soma", default="build/soma", help="the program [build/soma]")
    parser.add_argument("--policy", type=pathlib.Path, help="a folder in LeRobot's layout; without it small ones are made")
    parser.add_argument("--tokenizer", type=pathlib.Path, help="folder with tokenizer.json [the policy's]")
    parser.add_argument("--dtype", default="f32", help="soma's [f32]")
    parser.add_argument("--tolerance", type=float, default=1e-5, help="of the chunk, relative L2 [1e-5]")
    parser.add_argument("--family", nargs="+", choices=FAMILIES, default=FAMILIES, help="of what is made [all]")
    parser.add_argument("--once", action="store_true", help="the folder itself only: LeRobot does not save it back")
    parser.add_argument("--time", type=pathlib.Path, help="with --policy: nothing but the time of the original's chunk, into this file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=pathlib.Path, help="folder to work in, kept afterwards")
    args = parser.parse_args()
    with contextlib.ExitStack() as stack:
        work = args.keep or pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        work.mkdir(parents=True, exist_ok=True)
        table = Table(args.tolerance)
        if args.policy:
            check_folder(args, table, args.policy, work)
        else:
            for family in args.family:
                if family == "pi0_fast":
                    make_writer(args, work / family, work)
                else:
                    make_policy(args, family, work / family, np.random.default_rng(args.seed + 7))
                soma(args, "export", "--policy", work / family, "--layout", "lerobot", "--dtype", "f32", "--out", work / f"{family}_lerobot")
                check_folder(args, table, work / f"{family}_lerobot", work)
    print(f"{table.failed} wrong" if table.failed else "all as they should be")
    return 1 if table.failed else 0


if __name__ == "__main__":
    sys.exit(main())
