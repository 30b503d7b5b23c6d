#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes tests/golden/data/tokenizers.json: small tokenizers of every kind that soma reads, with the ids and texts that the `tokenizers`
package makes with them, and ids of larger ones whose files are other people's and are not in the tree.

    python3 tools/golden_tokenizers.py [DIR]

The small vocabularies are trained here on the sentences below. DIR holds qwen2/{vocab.json,merges.txt}, clip_bpe/bpe_simple_vocab_16e6.txt.gz
and encoded_goldens/tokenizer_tests.json; without it their ids are kept as they stand in the file. Needs the package `tokenizers`.
"""
import gzip
import json
import pathlib
import sys

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
QWEN2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
CLIP = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"

CORPUS = [
    "Pick up the red cube and put it into the blue bowl.",
    "Pick up the blue cube, then the green cube; don't touch the bowl!",
    "The robot's arm doesn't move; it's waiting, and we'll wait, too.",
    "Task: push the green button, State: 128 0 255 12 64;\nAction: ",
    "Öffne die Schublade, nimm die Schüssel und stelle sie auf den Tisch.",
    "Ouvre le tiroir, prends la tasse à café et pose-la près de l'évier.",
    "赤い積み木を青い皿に置いてください。 红色方块 파란 그릇",
    "положи красный кубик в синюю миску",
    "x = 12.5; y = -3; print(x ** 2)\n\n    return x\t# done\r\n",
] * 3

TEXTS = CORPUS[:9] + [
    "",
    " ",
    "a",
    "   three spaces  and   more   ",
    "tabs\tand\nnew\r\nlines\n\n\nand  \n  mixed \n",
    "I'LL DON'T it'S we'Re I'M you'D they'VE 'tis ''s 's",
    "numbers 1 12 123 1234 12345 3.14159 1,000,000 x2y3 ½ ² Ⅻ ٣٤ ४",
    "e\u0301 cafe\u0301 A\u030a \u1100\u1161\u11a8 \u212b \u0958 \u0344",
    "ÄÖÜ ẞ İstanbul ΣΊΣΥΦΟΣ ǅ",
    "nbsp\u00a0em\u2003ideo\u3000line\u2028nel\u0085sep\u001c end",
    "🙂👍🏽 👨\u200d👩\u200d👧 🇩🇪 ❤\ufe0f",
    "\u0001ctl\u0007bell\u007f \ufffd",
    "▁mark ▁▁two a▁b",
    "<bos>begin <eos>end<pad> <mask>  x<alone> <alone> <alone>y Blue Bowl blue bowl <|endoftext|>",
    "!!! ... --- *** ((a)) [b] {c} \"d\" ‚e‘ «f» a_b",
    "Pick up" * 30,
    "-" * 70 + "=" * 5,
    "ﬁ ﬂ ſ 'ſ ſs Å",
]


def specials(*names, **flags):
    return [AddedToken(n, special=True, normalized=False, **flags) for n in names]


def train(tokenizer, alphabet=(), suffix=None, size=380):
    options = {"end_of_word_suffix": suffix} if suffix else {}
    trainer = trainers.BpeTrainer(vocab_size=size, min_frequency=2, initial_alphabet=list(alphabet), show_progress=False,
                                  special_tokens=["<pad>", "<eos>", "<bos>", "<unk>"], **options)
    tokenizer.train_from_iterator(CORPUS, trainer)


def byte_level(regex=None, prefix=False):
    if regex is None:
        return pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(regex), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def make(kind):
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    t = Tokenizer(models.BPE())
    t.decoder = decoders.ByteLevel()
    if kind in ("gpt2", "gpt2_prefix", "qwen2", "llama3", "smollm2"):
        digits = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level()])
        t.pre_tokenizer = {"gpt2": byte_level(), "gpt2_prefix": byte_level(prefix=True), "qwen2": byte_level(QWEN2), "llama3": byte_level(LLAMA3),
                           "smollm2": digits}[kind]
        t.normalizer = normalizers.NFC() if kind == "qwen2" else None
        train(t, alphabet)
        if kind == "smollm2":
            t.post_processor = processors.ByteLevel(trim_offsets=False)
        if kind == "llama3":
            d = json.loads(t.to_str())
            d["model"]["ignore_merges"] = True
            t = Tokenizer.from_str(json.dumps(d))
            t.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False),
                                                    processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])])
    elif kind == "clip":
        t = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token="<unk>"))
        t.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
        t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(CLIP), "removed", invert=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
        t.decoder = decoders.ByteLevel()
        train(t, alphabet, suffix="</w>", size=460)
        t.post_processor = processors.RobertaProcessing(("<eos>", 1), ("<bos>", 2), False, False)
    else:  # characters, byte fallback
        byte_pieces = ["<0x%02X>" % i for i in range(256)]
        t = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
        t.normalizer = {"gemma": normalizers.Replace(" ", "▁"), "llama": normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])}.get(kind)
        t.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="first", split=kind != "gemma")
        trainer = trainers.BpeTrainer(vocab_size=620, min_frequency=2, show_progress=False, special_tokens=["<pad>", "<eos>", "<bos>", "<unk>"] + byte_pieces)
        t.train_from_iterator(CORPUS, trainer)
        d = json.loads(t.to_str())
        d["added_tokens"] = [a for a in d["added_tokens"] if a["content"] not in byte_pieces]
        t = Tokenizer.from_str(json.dumps(d))
        if kind == "gemma":
            t.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
        elif kind == "llama":
            t.pre_tokenizer = None
        end = [decoders.Strip(" ", 1, 0)] if kind == "llama" else []
        t.decoder = decoders.Metaspace("▁", prepend_scheme="first") if kind == "metaspace" else decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()] + end)
        t.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    t.add_special_tokens([AddedToken("<mask>", lstrip=True, rstrip=True, special=True, normalized=False)])
    t.add_tokens([AddedToken("<alone>", single_word=True, normalized=False), AddedToken("blue bowl", normalized=True)])
    return t


def cases(t, texts):
    for text in texts:
        ids = t.encode(text, add_special_tokens=False).ids
        suffix = json.loads(t.to_str())["model"].get("end_of_word_suffix")
        decoded = t.decode(ids)
        if suffix:  # as transformers' CLIPTokenizerFast does behind the decoder
            decoded = decoded.replace(suffix, " ").rstrip(" ")
        case = {"text": text, "ids": ids, "decoded": decoded}
        if t.encode(text).ids != ids:
            case["marked"] = t.encode(text).ids
        yield case


def real(folder):
    """Ids of the published vocabularies; the sentences of encoded_goldens are named by their place, not copied."""
    inputs = [c["input"] for c in json.load(open(folder / "encoded_goldens/tokenizer_tests.json"))["coreml-projects/Llama-2-7b-chat-coreml"]]
    lines = [l.rstrip("\n") for l in open(folder / "qwen2/merges.txt", encoding="utf-8")]
    qwen2 = Tokenizer(models.BPE(vocab=json.load(open(folder / "qwen2/vocab.json")), merges=[tuple(l.split(" ")) for l in lines if l and not l.startswith("#version")]))
    qwen2.normalizer, qwen2.pre_tokenizer, qwen2.decoder = normalizers.NFC(), byte_level(QWEN2), decoders.ByteLevel()
    qwen2.add_special_tokens(specials("<|endoftext|>", "<|im_start|>", "<|im_end|>"))

    lines = gzip.open(folder / "clip_bpe/bpe_simple_vocab_16e6.txt.gz").read().decode().split("\n")[1:49152 - 256 - 2 + 1]
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    alphabet = [chr(c) for c in printable] + [chr(256 + i) for i in range(256 - len(printable))]
    pieces = alphabet + [c + "</w>" for c in alphabet] + ["".join(l.split()) for l in lines] + ["<|startoftext|>", "<|endoftext|>"]
    clip = Tokenizer(models.BPE(vocab={p: i for i, p in enumerate(pieces)}, merges=[tuple(l.split()) for l in lines], end_of_word_suffix="</w>", unk_token="<|endoftext|>"))
    clip.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
    clip.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(CLIP), "removed", invert=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    clip.decoder, clip.post_processor = decoders.ByteLevel(), processors.RobertaProcessing(("<|endoftext|>", 49407), ("<|startoftext|>", 49406), False, False)
    clip.add_special_tokens([AddedToken("<|startoftext|>", special=True, normalized=True), AddedToken("<|endoftext|>", special=True, normalized=False)])
    return [{"name": name, "cases": list(cases(t, TEXTS)), "encoded_goldens": [t.encode(x, add_special_tokens=False).ids for x in inputs]}
            for name, t in (("qwen2", qwen2), ("clip", clip))]


def main():
    path = pathlib.Path(__file__).parent.parent / "tests/golden/data/tokenizers.json"
    small = []
    for kind in ("gpt2", "gpt2_prefix", "qwen2", "llama3", "clip", "gemma", "llama", "metaspace", "smollm2"):
        t = make(kind)
        small.append({"name": kind, "tokenizer": json.loads(t.to_str()), "cases": list(cases(t, TEXTS))})
    kept = json.load(open(path))["real"] if len(sys.argv) < 2 else real(pathlib.Path(sys.argv[1]))
    rows = ["%s: [\n%s\n]" % (json.dumps(k), ",\n".join(json.dumps(r, separators=(",", ":")) for r in v)) for k, v in (("small", small), ("real", kept))]
    path.write_text("{%s}\n" % ",\n".join(rows))
    print(path, path.stat().st_size, "bytes")


main()
