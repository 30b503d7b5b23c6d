# SPDX-License-Identifier: Apache-2.0
"""The Python binding answers as examples/act.c does on the same checkpoint, copies nothing, and hands on what soma refuses.

    binding.py LIBSOMA POLICY ACT_PROGRAM SIZES_PROGRAM
"""

import ctypes
import re
import subprocess
import sys

import numpy as np
import soma

soma.library, path, program, sizes = sys.argv[1:5]


def refuses(call, *words):
    try:
        call()
    except (soma.Error, ValueError) as e:
        missing = [w for w in words if w not in str(e)]
        assert not missing, f"{e!r} does not name {missing}"
        return
    raise AssertionError(f"not refused: {words}")


structs = [soma._Error, soma._Info, soma._Image, soma._Obs, soma._Actions]
in_c = [int(x) for x in subprocess.run([sizes], capture_output=True, check=True).stdout.split()]
assert [ctypes.sizeof(s) for s in structs] == in_c, in_c

said = subprocess.run([program, path], capture_output=True, text=True, check=True).stdout
wanted = [float(x) for x in re.findall(r"first action (-?[\d.]+)", said)]

policy = soma.Policy(path)
pilot = policy.pilot(seed=7)
assert policy.family == "pi0" and (policy.horizon, policy.n_actions) == (30, 7) and policy.cameras, vars(policy)
state = np.zeros(policy.n_state, np.float32)
picture = np.zeros((224, 224, 3), np.uint8)
chunks = []
for first in wanted:
    actions = pilot.act(state, {camera: picture for camera in policy.cameras}, "touch the red cube")
    assert abs(actions[0, 0] - first) < 1e-4, (actions[0, 0], first)
    chunks.append(actions)
    n = min(policy.n_state, policy.n_actions)
    state[:n] = actions[-1, :n]
assert np.shares_memory(chunks[0], chunks[-1]) and pilot.model_ms > 0
assert not chunks[-1].flags.owndata

turned = np.zeros((224, 3, 224), np.uint8).transpose(0, 2, 1)  # not in C order: converted
again = policy.pilot(seed=7).act(np.zeros(policy.n_state), {camera: turned for camera in policy.cameras}, "touch the red cube")
assert abs(again[0, 0] - wanted[0]) < 1e-4

refuses(lambda: soma.Policy(path, thread=1), "thread", "threads")
refuses(lambda: soma.Policy(path + ".not"), path)
refuses(lambda: policy.pilot(steps=-1), "-1")
refuses(lambda: pilot.act(state[:-1]), str(policy.n_state))
refuses(lambda: pilot.act(state, {"nowhere": picture}), "nowhere")
refuses(lambda: pilot.act(state, {policy.cameras[0]: picture[:, :, 0]}), policy.cameras[0], "uint8")
refuses(lambda: pilot.act(state * np.nan), "state")
