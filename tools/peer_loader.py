#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`soma bench loader` and the same samples through PyAV and pyarrow, in the same run.

    python3 tools/peer_loader.py --soma build/soma --data DIR[,DIR...] [--workers N] [--batch N] [--seconds S]

Needs `pip install av pyarrow numpy`. DIR is a LeRobot dataset (v2.x or v3.0) with videos. soma writes the order of its samples; here as many
processes as soma has workers read them in that order, batch by batch: the state and the chunk of actions from columns that lie in memory
(read once with pyarrow), each picture by entering its file at the key frame before and decoding up to the frame (PyAV, one thread per
decoder), as data loaders in PyTorch do. In Python's favour: files stay open, nothing is handed from process to process.
"""
import argparse
import glob
import json
import multiprocessing
import os
import subprocess
import tempfile
import time


class Dataset:
    """Where the frames of a LeRobot dataset lie; columns in memory, containers open."""

    def __init__(self, path, horizon):
        import numpy
        import pyarrow.parquet

        self.numpy, self.horizon, self.open_files = numpy, horizon, {}
        info = json.load(open(os.path.join(path, "meta/info.json")))
        features, self.fps = info["features"], info["fps"]
        names = [[n for n in words if n in features][0] for words in (("observation.state", "state"), ("action", "actions"))]
        rows = {}
        for file in sorted(glob.glob(os.path.join(path, "data/**/*.parquet"), recursive=True)):
            table = pyarrow.parquet.read_table(file, columns=names + ["episode_index"])
            index = table["episode_index"].to_numpy()
            columns = [numpy.stack(table[name].to_numpy()).astype(numpy.float32) for name in names]
            for e in numpy.unique(index):
                rows[int(e)] = [c[index == e] for c in columns]
        self.rows = rows
        self.videos = {}  # episode -> [(file, seconds)]
        keys = [k for k, f in features.items() if f["dtype"] == "video"]
        if info["codebase_version"].startswith("v3"):
            for file in sorted(glob.glob(os.path.join(path, "meta/episodes/**/*.parquet"), recursive=True)):
                for e in pyarrow.parquet.read_table(file).to_pylist():
                    self.videos[e["episode_index"]] = [
                        (info["video_path"].format(video_key=k, chunk_index=e[f"videos/{k}/chunk_index"], file_index=e[f"videos/{k}/file_index"]),
                         e[f"videos/{k}/from_timestamp"])
                        for k in keys
                    ]
        else:
            for e in rows:
                self.videos[e] = [(info["video_path"].format(video_key=k, episode_index=e, episode_chunk=e // info["chunks_size"]), 0.0) for k in keys]
        for e, files in self.videos.items():
            self.videos[e] = [(os.path.join(path, f), t) for f, t in files if os.path.exists(os.path.join(path, f))]

    def picture(self, file, seconds):
        import av

        if file not in self.open_files:
            container = av.open(file)
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            self.open_files[file] = (container, stream)
        container, stream = self.open_files[file]
        container.seek(int(seconds / stream.time_base), stream=stream, backward=True)
        for frame in container.decode(stream):
            if frame.time >= seconds - 0.4 / self.fps:
                return frame.to_ndarray(format="rgb24")
        raise ValueError(f"{file}: ends before {seconds}")

    def sample(self, episode, frame):
        state, action = self.rows[episode]
        last = len(action) - 1
        chunk = action[self.numpy.minimum(frame + self.numpy.arange(self.horizon), last)]
        return state[frame], chunk, [self.picture(file, start + frame / self.fps) for file, start in self.videos[episode]]


def work(path, horizon, batches, first, step, seconds, ready, go, results):
    import numpy

    dataset = Dataset(path, horizon)
    samples = pictures = 0
    ready.release()
    go.wait()
    started = time.perf_counter()
    for i in range(first, len(batches), step):
        rows = [dataset.sample(e, f) for e, f in batches[i]]
        numpy.stack([r[0] for r in rows]), numpy.stack([r[1] for r in rows])
        for camera in zip(*[r[2] for r in rows]):
            numpy.stack(camera)
            pictures += len(camera)
        samples += len(rows)
        if time.perf_counter() - started > seconds:
            break
    results.put((samples, pictures, time.perf_counter() - started))


def peer(order, workers, seconds):
    """Samples and pictures per second, all processes together."""
    header, batches = order
    ready, go, results = multiprocessing.Semaphore(0), multiprocessing.Event(), multiprocessing.Queue()
    arguments = (seconds, ready, go, results)
    processes = [multiprocessing.Process(target=work, args=(header["data"], header["horizon"], batches, w, workers, *arguments)) for w in range(workers)]
    for p in processes:
        p.start()
    for _ in processes:
        ready.acquire()
    go.set()
    counts = [results.get() for _ in processes]
    for p in processes:
        p.join()
    return sum(c[0] / c[2] for c in counts), sum(c[1] / c[2] for c in counts)


def read_orders(path):
    orders = []
    for line in open(path):
        value = json.loads(line)
        orders.append((value, [])) if isinstance(value, dict) else orders[-1][1].append(value)
    return orders


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--soma", default="build/soma")
    parser.add_argument("--data", required=True)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=3)
    o = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        save = os.path.join(folder, "order.jsonl")
        command = [o.soma, "bench", "loader", "--data", o.data, "--workers", o.workers, "--batch", o.batch, "--seconds", o.seconds, "--steps", 0, "--save", save]
        ours = json.loads(subprocess.run([str(c) for c in command] + ["--json"], check=True, capture_output=True, text=True).stdout)
        print("%s, %d workers, batches of %d" % (ours["machine"]["processor"], o.workers, o.batch))
        for row, order in zip(ours["datasets"], read_orders(save)):
            samples, pictures = peer(order, o.workers, o.seconds)
            print("%s: %d cameras of %dx%d" % (row["data"], row["cameras"], row["width"], row["height"]))
            print("  files from beginning to end %9s           %9.1f pictures/s" % ("", row["limit_pictures_per_second"]))
            print("  PyAV and pyarrow            %9.1f samples/s %9.1f pictures/s" % (samples, pictures))
            for key, what in (("decoded", "soma, decoded from the files"), ("memory", "soma, kept in memory"), ("folder_again", "soma, kept in a folder")):
                ways = row[key]
                print("  %-28s%9.1f samples/s %9.1f pictures/s: %.1f times" % (what, ways["samples_per_second"][0], ways["pictures_per_second"], ways["samples_per_second"][0] / samples))


if __name__ == "__main__":
    main()
