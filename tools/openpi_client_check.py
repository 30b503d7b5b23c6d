#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Drives a soma server with openpi's own Python client, unchanged, and checks what comes back.

    pip install openpi-client typing_extensions
    tools/openpi_client_check.py --start build/test_server --serve 0          # the toy policy of the tests
    tools/openpi_client_check.py --uri ws://127.0.0.1:8000                     # a running server

Checks: /healthz, the metadata, three exchanges, the types and the timing keys, that openpi's packer makes the same bytes of the answer,
a float CHW picture, a str prompt, and that a bad or huge observation raises with the server's sentence while other clients go on.
"""
import argparse
import subprocess
import sys
import urllib.request

import numpy as np
from openpi_client import msgpack_numpy, websocket_client_policy


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--uri")
    parser.add_argument("--size", type=int, default=96, help="pixels per side of the pictures")
    parser.add_argument("--prompt", default="touch the red cube")
    parser.add_argument("--start", nargs=argparse.REMAINDER, help="a command that prints 'listening on URI'")
    args = parser.parse_args()
    server = None
    if args.start:
        server = subprocess.Popen(args.start, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        line = server.stdout.readline()
        print(line.strip())
        args.uri = line.split()[-1]
    try:
        check(args)
    finally:
        if server:
            server.stdin.close()
            assert server.wait(timeout=10) == 0
    print("ok")


def observation(args, metadata, rng):
    cameras = metadata["cameras"]
    obs = {f"observation/{c}": rng.integers(0, 256, (args.size, args.size, 3), dtype=np.uint8) for c in cameras}
    return {**obs, "observation/state": rng.standard_normal(metadata["state_dim"]), "prompt": args.prompt}


def check(args):
    health = urllib.request.urlopen(args.uri.replace("ws://", "http://", 1) + "/healthz")
    body = health.read()
    print("healthz:", health.status, body)
    assert (health.status, body) == (200, b"OK\n")

    rng = np.random.default_rng(7)
    client = websocket_client_policy.WebsocketClientPolicy(args.uri)
    metadata = client.get_server_metadata()
    print("metadata:", metadata)
    for i in range(3):
        result = client.infer(observation(args, metadata, rng))
        actions = result["actions"]
        print(f"answer {i}: actions {actions.dtype} {actions.shape}, {result['policy_timing']}, {result['server_timing']}")
        assert actions.dtype == np.float64 and actions.ndim == 2 and np.isfinite(actions).all()
        assert list(result) == ["actions", "policy_timing", "server_timing"]
        assert list(result["server_timing"]) == (["infer_ms", "prev_total_ms"] if i else ["infer_ms"])

    client._ws.send(client._packer.pack(observation(args, metadata, rng)))
    raw = client._ws.recv()
    assert msgpack_numpy.packb(msgpack_numpy.unpackb(raw)) == raw
    print("bytes: openpi's packer makes the same", len(raw))

    planes = observation(args, metadata, rng)
    for c in metadata["cameras"]:
        planes[f"observation/{c}"] = rng.random((3, args.size, args.size), dtype=np.float32)
    client.infer({**planes, "prompt": np.str_("np.str_ prompt")})
    print("float CHW pictures, np.str_ prompt: answered")

    other = websocket_client_policy.WebsocketClientPolicy(args.uri)
    try:
        client.infer({**planes, "observation/state": np.zeros(metadata["state_dim"] + 1)})
        raise AssertionError("a state of the wrong size was answered")
    except RuntimeError as error:
        print("refused:", error)
    other.infer(planes)
    huge = websocket_client_policy.WebsocketClientPolicy(args.uri)
    try:
        huge.infer({**planes, "padding": np.zeros(100_000_000, np.uint8)})
        raise AssertionError("100 MB were taken")
    except RuntimeError as error:
        print("refused:", error)
    other.infer(planes)
    print("the other client: still answered")


if __name__ == "__main__":
    sys.exit(main())
