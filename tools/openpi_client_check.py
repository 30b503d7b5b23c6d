#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Drives a soma server with openpi's own Python client, unchanged, and checks what comes back.

    pip install openpi-client typing_extensions
    tools/openpi_client_check.py --start build/test_server --serve 0          # the toy policy of the tests
    tools/openpi_client_check.py --uri ws://127.0.0.1:8000                     # a running server
    tools/openpi_client_check.py --examples build/soma                         # openpi's examples: ALOHA, ALOHA in simulation, DROID, LIBERO

Checks: /healthz, the metadata, three exchanges, the types and the timing keys, that openpi's packer makes the same bytes of the answer,
a float CHW picture, a str prompt, and that a bad or huge observation raises with the server's sentence while other clients go on.
--examples makes a policy of random weights, serves it as each of openpi's robots, behind a key, and sends the observations that openpi's
examples send, made by openpi's own image tools and cut into steps by its ActionChunkBroker where the example does so.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import urllib.request

import numpy as np
from openpi_client import action_chunk_broker, image_tools, msgpack_numpy, websocket_client_policy


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--uri")
    parser.add_argument("--size", type=int, default=96, help="pixels per side of the pictures")
    parser.add_argument("--prompt", default="touch the red cube")
    parser.add_argument("--start", nargs=argparse.REMAINDER, help="a command that prints 'listening on URI'")
    parser.add_argument("--examples", metavar="SOMA", help="the program soma")
    args = parser.parse_args()
    server = None
    if args.examples:
        check_examples(args.examples)
        print("ok")
        return
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


# ---- openpi's examples


def picture(rng, height=480, width=640):
    """What a camera gives, as the examples bring it to the server's size."""
    raw = rng.random((height, width, 3)) if height == 240 else rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return image_tools.convert_to_uint8(image_tools.resize_with_pad(image_tools.convert_to_uint8(raw), 224, 224))


def planes(image):
    return np.transpose(image, (2, 0, 1))


def aloha_real(rng):
    cameras = ("cam_high", "cam_low", "cam_left_wrist", "cam_right_wrist")
    return {"state": rng.standard_normal(14).astype(np.float32), "images": {c: planes(picture(rng)) for c in cameras}}


def aloha_sim(rng):
    return {"state": rng.standard_normal(14), "images": {"cam_high": planes(picture(rng, 240, 320))}}


def droid(rng):
    return {"observation/exterior_image_1_left": picture(rng, 720, 1280), "observation/wrist_image_left": picture(rng, 720, 1280),
            "observation/joint_position": rng.standard_normal(7), "observation/gripper_position": rng.random(1),
            "prompt": "find the fork"}


def droid_scalar(rng):
    return {**droid(rng), "observation/gripper_position": np.float32(0.5)}


def libero(rng):
    turned = np.ascontiguousarray(picture(rng, 256, 256)[::-1, ::-1])
    return {"observation/image": turned, "observation/wrist_image": turned,
            "observation/state": np.concatenate((rng.standard_normal(3), rng.standard_normal(3), rng.standard_normal(2))),
            "prompt": str("put both moka pots on the stove")}


# robot, observation, actions of the robot, steps that the example executes of a chunk (0: it does not use the broker), metadata
EXAMPLES = [("aloha", aloha_real, 14, 25), ("aloha", aloha_sim, 14, 10), ("droid", droid, 8, 0), ("droid", droid_scalar, 8, 0),
            ("libero", libero, 7, 0)]


def check_examples(soma):
    key = "a-key-of-the-check"
    with tempfile.TemporaryDirectory() as folder:
        model, keys, policy = (os.path.join(folder, name) for name in ("model.json", "keys", "policy"))
        with open(model, "w") as file: # nano's layers, the released policies' cameras and widths
            json.dump({"camera_order": ["base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb"], "action_dim": 32, "state_dim": 32}, file)
        with open(os.open(keys, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
            file.write(key + "\n")
        subprocess.run([soma, "init", "--preset", "nano", "--model", model, "--out", policy], check=True, stderr=subprocess.DEVNULL)
        for robot, make, n_actions, steps in EXAMPLES:
            command = [soma, "serve", "--policy", policy, "--robot", robot, "--port", "0", "--api-key-file", keys]
            server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            try:
                uri = server.stdout.readline().split()[-1]
                check_example(uri, key, robot, make, n_actions, steps)
            finally:
                server.terminate()
                assert server.wait(timeout=20) == 0


def check_example(uri, key, robot, make, n_actions, steps):
    rng = np.random.default_rng(7)
    client = websocket_client_policy.WebsocketClientPolicy(uri, api_key=key)
    policy = action_chunk_broker.ActionChunkBroker(policy=client, action_horizon=steps) if steps else client
    for _ in range(2 * max(steps, 1)):
        actions = policy.infer(make(rng))["actions"]
        assert actions.shape[-1] == n_actions and actions.ndim == (1 if steps else 2) and np.isfinite(actions).all()
    print(f"{robot}, {make.__name__}: actions {actions.dtype} {actions.shape}, metadata {client.get_server_metadata()}")
    for wrong in (None, key + "x"):
        try:
            websocket_client_policy.WebsocketClientPolicy(uri, api_key=wrong)
            raise AssertionError("a client without the key was let in")
        except Exception as error:  # websockets.exceptions.InvalidStatus
            assert "401" in str(error), error


if __name__ == "__main__":
    sys.exit(main())
