#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`soma bench text` and the `tokenizers` package on the same tokenizer.json, text and core, best of --repeats each.

    python3 tools/bench_tokenizers.py --soma build/soma --tokenizer tokenizer.json --text book.txt

The package is given the text line by line, which is faster for it than one long string, and its time is counted without making lists of
the ids. Also compares the number of ids of the whole text.
"""
import argparse
import json
import os
import subprocess
import time

os.environ["RAYON_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
from tokenizers import Tokenizer


def best(repeats, run):
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return min(times)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--soma", default="build/soma")
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--text", required=True)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    command = [options.soma, "bench", "text", "--text-tokenizer", options.tokenizer, "--text", options.text, "--repeats", str(options.repeats), "--json"]
    ours = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    theirs = Tokenizer.from_file(options.tokenizer)
    text = open(options.text, encoding="utf-8", newline="").read()
    lines = text.split("\n")
    size = ours["bytes"] / 1e6
    seconds = best(options.repeats, lambda: [theirs.encode(line, add_special_tokens=False) for line in lines])
    prompt = best(options.repeats, lambda: [theirs.encode(ours["prompt"], add_special_tokens=False) for _ in range(500)]) / 500
    print("%s, one thread" % ours["machine"]["processor"])
    print("text   soma %7.1f MB/s   tokenizers %6.2f MB/s   %5.1f times" % (size / ours["seconds"][1], size / seconds, seconds / ours["seconds"][1]))
    print("prompt soma %7.2f us     tokenizers %6.1f us     %5.1f times" % (1e6 * ours["prompt_seconds"][1], 1e6 * prompt, prompt / ours["prompt_seconds"][1]))
    n = len(theirs.encode(text, add_special_tokens=False).ids)
    print("ids: %d and %d" % (ours["ids"], n))
    return 0 if n == ours["ids"] else 1


raise SystemExit(main())
