#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Drives a soma server as GR00T's msgpack clients do: a ZeroMQ REQ socket, maps {endpoint, data, api_token}, arrays as .npy files.

    pip install pyzmq msgpack numpy
    tools/groot_client_check.py --start build/test_server --serve 0 --groot    # the toy policy of the tests
    tools/groot_client_check.py --address tcp://127.0.0.1:5555                 # a running server (soma serve --groot-port 5555)

The client below keeps to the published protocol: REQ with a timeout of 15 s, default endpoint get_action, msgpack with the two classes
"__ndarray_class__" and "__ModalityConfig_class__". Checks: ping, the modality configuration, both forms of an observation (flat as N1.5's,
nested as N1.6's), reset, that errors come back as {"error": sentence} while the connection goes on, that pickles are refused with the reason,
and that a huge message is refused while other clients go on.
"""
import argparse
import io
import json
import pickle
import subprocess
import sys

import msgpack
import numpy as np
import zmq


def encode(value):
    if isinstance(value, np.ndarray):
        file = io.BytesIO()
        np.save(file, value, allow_pickle=False)
        return {"__ndarray_class__": True, "as_npy": file.getvalue()}
    raise TypeError(type(value))


def decode(value):
    if "__ndarray_class__" in value:
        return np.load(io.BytesIO(value["as_npy"]), allow_pickle=False)
    if "__ModalityConfig_class__" in value:
        return json.loads(value["as_json"])
    return value


class Client:
    def __init__(self, context, address, token=None, kind=zmq.REQ):
        self.socket = context.socket(kind)
        self.socket.setsockopt(zmq.RCVTIMEO, 15000)
        self.socket.setsockopt(zmq.SNDTIMEO, 15000)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.connect(address)
        self.token = token

    def call(self, endpoint="get_action", data=None):
        request = {"endpoint": endpoint}
        if data is not None:
            request["data"] = data
        if self.token:
            request["api_token"] = self.token
        return self.raw(msgpack.packb(request, default=encode))

    def raw(self, bytes_):
        self.socket.send(bytes_)
        return msgpack.unpackb(self.socket.recv(), object_hook=decode)


def refused(answer, words):
    print("refused:", answer)
    assert list(answer) == ["error"] and words in answer["error"], answer


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--address")
    parser.add_argument("--token")
    parser.add_argument("--size", type=int, default=96, help="pixels per side of the pictures")
    parser.add_argument("--prompt", default="touch the red cube")
    parser.add_argument("--start", nargs=argparse.REMAINDER, help="a command that prints 'GR00T on tcp://HOST:PORT'")
    args = parser.parse_args()
    server = None
    if args.start:
        server = subprocess.Popen(args.start, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        args.address = server.stdout.readline().split()[-1]
    try:
        check(args)
    finally:
        if server:
            server.stdin.close()
            assert server.wait(timeout=10) == 0
    print("ok")


def check(args):
    context = zmq.Context()
    client = Client(context, args.address, args.token)
    print("ping:", client.call("ping"))
    assert client.call("ping") == {"status": "ok", "message": "Server is running"}
    config = client.call("get_modality_config")
    print("modalities:", config)
    keys = {group: [k.split(".", 1)[1] for k in config[group]["modality_keys"]] for group in config}
    horizon = len(config["action"]["delta_indices"])
    rng = np.random.default_rng(7)
    widths = state_widths(client, keys, args, rng)
    print("state:", widths)

    def flat():
        obs = {f"video.{k}": rng.integers(0, 256, (1, args.size, args.size, 3), dtype=np.uint8) for k in keys["video"]}
        obs |= {f"state.{k}": rng.standard_normal((1, n)) for k, n in widths.items()}
        return obs | {"annotation.human.task_description": [args.prompt]}

    def nested():
        return {"observation": {"video": {k: rng.integers(0, 256, (1, 1, args.size, args.size, 3), dtype=np.uint8) for k in keys["video"]},
                                "state": {k: rng.standard_normal((1, 1, n)).astype(np.float32) for k, n in widths.items()},
                                "language": {"task": [[args.prompt]]}}, "options": None}

    for i in range(3):
        answer = client.call(data=flat())
        assert list(answer) == [f"action.{k}" for k in keys["action"]], answer
        for k, a in answer.items():
            assert a.ndim == 2 and a.shape[0] == horizon and np.isfinite(a).all()
    print("flat (N1.5):", {k: (a.dtype.str, a.shape) for k, a in answer.items()})
    actions, info = client.call("get_action", nested())
    for k in keys["action"]:
        assert actions[k].ndim == 3 and actions[k].shape[:2] == (1, horizon)
    print("nested (N1.6):", {k: (a.dtype.str, a.shape) for k, a in actions.items()}, info)
    assert client.call("reset", {"options": None}) == {}
    client.call(data=flat())

    refused(client.call("kill"), "cannot end this server")
    refused(client.call("fly"), 'no endpoint "fly"')
    refused(client.call("get_action"), "wants data")
    wrong = flat()
    first = next(iter(widths))
    wrong[f"state.{first}"] = np.zeros((1, 300))
    refused(client.call(data=wrong), f'"state.{first}"')
    wrong[f"state.{first}"] = np.full((1, widths[first]), np.nan)
    refused(client.call(data=wrong), "not a finite number")
    misspelt = flat()
    misspelt["video.scnee"] = misspelt.pop(f"video.{keys['video'][0]}")
    refused(client.call(data=misspelt), f'"video.{keys["video"][0]}"')
    client.call(data=flat())
    print("the same client: still answered")

    for bytes_ in (pickle.dumps({"endpoint": "ping"}), b"PK\x03\x04archive/data.pkl"):
        refused(Client(context, args.address, args.token).raw(bytes_), "runs code of the sender's choice")
    objects = flat()
    file = io.BytesIO()
    np.save(file, np.array([{}], dtype=object))
    objects[f"state.{first}"] = {"__ndarray_class__": True, "as_npy": file.getvalue()}
    refused(client.call(data=objects), "array of objects")
    huge = Client(context, args.address, args.token)
    refused(huge.call(data={**flat(), "padding": np.zeros(100_000_000, np.uint8)}), "at most 67108864")
    dealer = Client(context, args.address, args.token, zmq.DEALER)
    dealer.socket.send_multipart([b"", msgpack.packb({"endpoint": "ping", "api_token": args.token})])
    assert msgpack.unpackb(dealer.socket.recv_multipart()[1])["status"] == "ok"
    client.call(data=flat())
    print("the other client: still answered")
    if args.token:
        refused(Client(context, args.address).call("ping"), "Unauthorized")
        refused(Client(context, args.address, args.token[:-1] + "!").call("ping"), "Unauthorized")
    context.destroy(linger=0)


def state_widths(client, keys, args, rng):
    """How many numbers each part has: asked with too many, the server says how many it wants."""
    widths = {}
    obs = {f"video.{k}": rng.integers(0, 256, (1, args.size, args.size, 3), dtype=np.uint8) for k in keys["video"]}
    for k in keys["state"]:
        answer = client.call(data={**obs, **{f"state.{w}": np.zeros((1, n)) for w, n in widths.items()}, f"state.{k}": np.zeros((1, 4000))})
        widths[k] = int(answer["error"].split("wanted [T, ")[1].split("]")[0])
    return widths


if __name__ == "__main__":
    sys.exit(main())
