#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Opens a dataset that soma wrote with LeRobotDataset itself and holds every row against the files.

    build/soma record --task touch_color --episodes 4 --out recorded
    python3 tools/check_dataset.py --data recorded --soma build/soma

Each row as LeRobot gives it: vectors, times and indices against the parquet file, the instruction against tasks.parquet, pictures against the
video's frames decoded one after the other, a chunk of actions and its padding mask against the rows that follow; the statistics in
meta/stats.json against those of the rows. Needs lerobot 0.4.x with PyAV (torchvision < 0.26, or torchcodec). Exit code: 0 all equal, 1 not.
"""
import argparse
import json
import pathlib
import subprocess
import sys

import numpy as np

HORIZON = 10


class Table:
    def __init__(self):
        self.failed = 0
        print(f"{'what':56} {'rows':>7} {'largest error':>14}")

    def row(self, what, n, error, allowed=0.0):
        good = error <= allowed
        self.failed += not good
        print(f"{what:56} {n:7} {error:14.2e}{'' if good else f'  WRONG, {allowed:g} is allowed'}")


def largest(a, b):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return float("inf") if a.shape != b.shape else float(np.abs(a - b).max(initial=0))


def columns(root):
    """All rows of the parquet files, in order, as numpy."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.concat_tables([pq.read_table(path) for path in sorted((root / "data").rglob("*.parquet"))])
    return {name: np.array(table[name].to_pylist()) for name in table.column_names}


def frames_in_order(path):
    import av

    with av.open(str(path)) as video:
        return [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]


def check_declared(table, dataset, args):
    said = json.loads(subprocess.run([args.soma, "inspect", str(args.data), "--json"], capture_output=True, text=True, check=True).stdout)
    for what, mine, theirs in (("episodes", said["episodes_present"], dataset.num_episodes), ("frames", said["frames_present"], dataset.num_frames),
                               ("rate", said["fps"], dataset.fps), ("rows", said["frames"], len(dataset))):
        table.row(f"{what}, as soma inspect and LeRobot count them", theirs, abs(mine - theirs))


def check_rows(table, dataset, raw, args):
    import torch

    n = len(dataset)
    rows = [dataset[i] for i in range(n)]
    for name in raw:
        table.row(name, n, largest([row[name].numpy() for row in rows], raw[name]))
    tasks = dataset.meta.tasks
    named = {int(index): task for task, index in zip(tasks.index, tasks["task_index"])}
    table.row("task, by task_index", n, sum(row["task"] != named[int(i)] for row, i in zip(rows, raw["task_index"])))
    steps = np.concatenate([np.diff(raw["timestamp"][raw["episode_index"] == e]) for e in np.unique(raw["episode_index"])])
    table.row("time between rows, against 1 / fps", len(steps), largest(steps, np.full(len(steps), 1 / dataset.fps)), 1e-5)
    for key in dataset.meta.video_keys:
        worst, seen, videos = 0.0, 0, {}
        for e in range(dataset.num_episodes):
            path = dataset.root / dataset.meta.get_video_file_path(e, key)
            videos.setdefault(path, frames_in_order(path))
            begin = dataset.meta.episodes[e][f"videos/{key}/from_timestamp"]
            for i in np.flatnonzero(raw["episode_index"] == e):
                frame = videos[path][round((begin + float(raw["timestamp"][i])) * dataset.fps)]
                picture = (rows[i][key] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
                worst, seen = max(worst, largest(picture, frame)), seen + 1
        total = sum(map(len, videos.values()))
        table.row(f"{key}, each frame", seen, worst)
        table.row(f"{key}, frames in the videos", total, abs(total - n))


def check_chunks(table, raw, args):
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    fps = json.loads((args.data / "meta/info.json").read_text())["fps"]
    chunks = LeRobotDataset("local/recorded", root=args.data, video_backend="pyav", delta_timestamps={"action": [t / fps for t in range(HORIZON)]})
    chunks.meta.info["features"] = {k: v for k, v in chunks.meta.info["features"].items() if v["dtype"] != "video"}  # no pictures here
    last = {e: np.flatnonzero(raw["episode_index"] == e).max() for e in np.unique(raw["episode_index"])}
    worst, masks = 0.0, 0
    for i in range(len(chunks)):
        end, places = last[raw["episode_index"][i]], np.arange(i, i + HORIZON)
        row = chunks[i]
        worst = max(worst, largest(row["action"].numpy(), raw["action"][np.minimum(places, end)]))
        masks += int((row["action_is_pad"].numpy() != (places > end)).sum())
    table.row(f"chunks of {HORIZON} actions", len(chunks), worst)
    table.row("padding masks at the ends of episodes", len(chunks), masks)


def check_stats(table, dataset, raw):
    for name in ("action", "observation.state"):
        values, said = raw[name].astype(np.float64), dataset.meta.stats[name]
        for key, want in (("mean", values.mean(0)), ("std", values.std(0)), ("min", values.min(0)), ("max", values.max(0)),
                          ("q01", np.quantile(values, 0.01, axis=0)), ("q99", np.quantile(values, 0.99, axis=0)), ("count", [len(values)])):
            table.row(f"statistics: {name} {key}", len(values), largest(said[key], want), 1e-6)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True, help="a dataset's folder, LeRobot v3.0")
    parser.add_argument("--soma", default="build/soma", help="the program [build/soma]")
    args = parser.parse_args()
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    dataset = LeRobotDataset("local/recorded", root=args.data, video_backend="pyav")
    raw = columns(args.data)
    table = Table()
    check_declared(table, dataset, args)
    check_rows(table, dataset, raw, args)
    check_chunks(table, raw, args)
    check_stats(table, dataset, raw)
    print(f"{table.failed} wrong" if table.failed else "all as they should be")
    return 1 if table.failed else 0


if __name__ == "__main__":
    sys.exit(main())
