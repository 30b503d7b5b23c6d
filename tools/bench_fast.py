#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs `soma bench fast` and the Python way (scipy and the tokenizers package) on the same chunks, one after the other, and prints both.

    python3 tools/bench_fast.py --soma build/soma --tokenizer DIR [--data DIR,DIR] [--fit-chunks 1000000] [--threads 2]

The Python way is what the published processor does: a cosine transform with scipy, rounding with numpy, a string of characters, the tokenizers
package; decoding the other way. Chunks, ids and merges of both are compared, too: a difference ends the program with 1. Each fit of the Python way
runs in a process of its own, so that its memory can be told; when it dies, half as many chunks are tried.
Needs numpy, scipy, tokenizers, safetensors.
"""
import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
from safetensors.numpy import load_file
from scipy.fft import dct, idct


class Processor:
    def __init__(self, folder):
        from tokenizers import Tokenizer

        self.bpe = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
        with open(os.path.join(folder, "processor_config.json")) as f:
            config = json.load(f)
        self.scale, self.min_token = config["scale"], config["min_token"]

    def text(self, chunk):
        q = np.around(dct(chunk, axis=0, norm="ortho") * self.scale)
        return "".join(map(chr, np.maximum(q.flatten() - self.min_token, 0).astype(int)))

    def encode(self, chunk):
        return self.bpe.encode(self.text(chunk)).ids

    def decode(self, ids, shape):
        coefficients = np.array(list(map(ord, self.bpe.decode(ids)))) + self.min_token
        return idct(coefficients.reshape(shape) / self.scale, axis=0, norm="ortho")


def timed(function, repeats):
    times = []
    for i in range(repeats + 1):
        start = time.perf_counter()
        result = function()
        if i:
            times.append(time.perf_counter() - start)
    return statistics.median(times), min(times), max(times), result


def fit(path, n):
    """The published fit(): prints seconds and peak memory as JSON and writes the merges."""
    from tokenizers import ByteLevelBPETokenizer
    from tokenizers.trainers import BpeTrainer

    chunks = load_file(path)["chunks"][:n].astype(np.float64)
    start = time.perf_counter()
    tokens = [dct(c, axis=0, norm="ortho").flatten() for c in chunks]
    everything = np.around(np.concatenate(tokens) * 10)
    low, high = int(everything.min()), int(everything.max())
    strings = ("".join(map(chr, (np.around(t * 10) - low).astype(int))) for t in tokens)
    bpe = ByteLevelBPETokenizer()
    trainer = BpeTrainer(vocab_size=1024, min_frequency=2, show_progress=False, special_tokens=[],
                         initial_alphabet=[chr(i) for i in range(high - low + 1)], max_token_length=10000)
    bpe._tokenizer.train_from_iterator(strings, trainer=trainer)
    seconds = time.perf_counter() - start
    bpe._tokenizer.save(path + ".python.json")
    print(json.dumps({"chunks": n, "seconds": seconds, "peak_memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))


def soma(options, *more):
    command = [options.soma, "bench", "fast", "--tokenizer", options.tokenizer, "--threads", str(options.threads), "--json", *more]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def compare_single(row, processor, folder, repeats):
    shape = (row["T"], row["A"])
    chunks = load_file(os.path.join(folder, "chunks_%dx%d.safetensors" % shape))["chunks"].astype(np.float64)
    n = len(chunks)
    encode = timed(lambda: [processor.encode(c) for c in chunks], 5 * repeats)
    decode = timed(lambda: [processor.decode(i, shape) for i in encode[3]], 5 * repeats)
    for name, python, ours in (("encode", encode, row["encode"]), ("decode", decode, row["decode"])):
        print("%2dx%-2d %s  python %8.2f us (%.2f to %.2f)   soma %6.2f us (%.2f to %.2f)   %5.1f times, %5.1f by the fastest" % (
            *shape, name, *(1e6 * x / n for x in python[:3]), *(1e6 * x for x in ours), python[0] / n / ours[0], python[1] / n / ours[1]))
    tokens = sum(map(len, encode[3])) / n
    return abs(tokens - row["tokens"]) < 1e-9


def compare_batch(row, processor, folder, threads, repeats):
    chunks = load_file(os.path.join(folder, "chunks_batch.safetensors"))["chunks"].astype(np.float64)
    batch = timed(lambda: processor.bpe.encode_batch([processor.text(c) for c in chunks]), max(repeats // 3, 1))
    only = timed(lambda t=[processor.text(c) for c in chunks]: processor.bpe.encode_batch(t), max(repeats // 3, 1))
    print("batch of %d, %d threads: python %.1f ms (encode_batch alone %.1f)   soma %.1f ms   %.1f times (%.1f)" % (
        len(chunks), threads, 1e3 * batch[0], 1e3 * only[0], 1e3 * row["encode"][0], batch[0] / row["encode"][0], only[0] / row["encode"][0]))


def compare_fit(row, folder):
    path = os.path.join(folder, "chunks_fit.safetensors")
    n = row["chunks"]
    while n:
        done = subprocess.run([sys.executable, __file__, "--fit", path, str(n)], stdout=subprocess.PIPE)
        if done.returncode == 0:
            break
        print("fit on %d chunks: the Python way died (%d); trying half as many" % (n, done.returncode))
        n //= 2
    python = json.loads(done.stdout)
    print("fit  python %.2f s, %.0f MB on %d chunks   soma %.2f s, %.0f MB on %d chunks   %.1f times per chunk" % (
        python["seconds"], python["peak_memory"] / 1e6, n, row["seconds"], row["peak_memory"] / 1e6, row["chunks"],
        python["seconds"] / n / (row["seconds"] / row["chunks"])))
    if n != row["chunks"]:
        return True
    ours, theirs = (json.load(open(p)) for p in (os.path.join(folder, "fitted", "tokenizer.json"), path + ".python.json"))
    same = ours["model"]["merges"] == theirs["model"]["merges"] and ours["model"]["vocab"] == theirs["model"]["vocab"]
    print("merges and vocabulary: %s" % ("the same" if same else "DIFFERENT"))
    return same


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--soma", default="build/soma")
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--data", default="")
    parser.add_argument("--fit-chunks", type=int, default=100000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    os.environ["RAYON_NUM_THREADS"] = str(options.threads)
    processor = Processor(options.tokenizer)
    with tempfile.TemporaryDirectory() as folder:
        result = soma(options, "--data", options.data, "--fit-chunks", str(options.fit_chunks), "--save", folder, "--repeats", str(options.repeats))
        print("%s, %d threads" % (result["machine"]["processor"], options.threads))
        same = all([compare_single(row, processor, folder, options.repeats) for row in result["single"]])
        compare_batch(result["batch"], processor, folder, options.threads, options.repeats)
        if "fit" in result:
            same = compare_fit(result["fit"], folder) and same
            alone = soma(options, "--data", options.data, "--fit-chunks", str(options.fit_chunks), "--repeats", "1")["fit"]
            print("soma's fit without keeping the chunks: %.2f s, peak memory %.0f MB" % (alone["seconds"], alone["peak_memory"] / 1e6))
        print("ids and merges: %s" % ("the same" if same else "DIFFERENT"))
    return 0 if same else 1


if __name__ == "__main__":
    if len(sys.argv) == 4 and sys.argv[1] == "--fit":
        fit(sys.argv[2], int(sys.argv[3]))
    else:
        sys.exit(main())
