# SPDX-License-Identifier: Apache-2.0
"""libsoma from Python: one file over ctypes, nothing to build. Needs numpy and libsoma.so of the same 0.x version.

    import soma
    policy = soma.Policy("checkpoints/touch", dtype="int8", threads=2)
    pilot = policy.pilot(seed=7)
    actions = pilot.act(state, {"scene": picture}, "touch the red cube")     # [horizon, n_actions], float32

Pictures are uint8 [height, width, 3] and states float32, both in C order: such arrays are handed over where they lie, others are converted
once. The actions are a view of the pilot's own memory: its next act writes over them, so copy what must stay. A policy may be
shared by threads, a pilot belongs to one; the interpreter's lock is released while the policy works.

Library: what the system's loader finds as "soma", or the path put into soma.library before the first policy is opened.
"""

import ctypes as c
import ctypes.util
import json

import numpy as np

VERSION = "0.1"
MAX_CAMERAS = 8
library = None  # a path; None: the system's


class Error(RuntimeError):
    """What soma refused, with its sentence; `code` is the soma_status."""

    def __init__(self, code, text):
        super().__init__(text)
        self.code = code


class _Error(c.Structure):
    _fields_ = [("code", c.c_int), ("text", c.c_char * 1000)]


class _Info(c.Structure):
    _fields_ = [
        ("family", c.c_char_p),
        ("horizon", c.c_int),
        ("n_actions", c.c_int),
        ("n_state", c.c_int),
        ("rate", c.c_double),
        ("n_cameras", c.c_int),
        ("camera_names", c.POINTER(c.c_char_p)),
        ("n_ignored", c.c_int),
        ("ignored", c.POINTER(c.c_char_p)),
        ("n_state_keys", c.c_int),
        ("state_keys", c.POINTER(c.c_char_p)),
        ("metadata_json", c.c_char_p),
    ]


class _Image(c.Structure):
    _fields_ = [("camera", c.c_char_p), ("pixels", c.c_void_p), ("width", c.c_int), ("height", c.c_int)]


class _Obs(c.Structure):
    _fields_ = [
        ("prompt", c.c_char_p),
        ("state", c.c_void_p),
        ("n_state", c.c_int),
        ("n_images", c.c_int),
        ("images", _Image * MAX_CAMERAS),
        ("executed", c.c_int),
        ("delay", c.c_int),
    ]


class _Actions(c.Structure):
    _fields_ = [
        ("values", c.POINTER(c.c_float)),
        ("horizon", c.c_int),
        ("n_actions", c.c_int),
        ("model_ms", c.c_double),
        ("flaw", c.c_char_p),
    ]


_loaded = None


def _lib():
    global _loaded
    if _loaded is not None:
        return _loaded
    path = library or ctypes.util.find_library("soma")
    if not path:
        raise OSError("libsoma.so is not where the loader looks: set soma.library to its path")
    lib = c.CDLL(path)
    handle, out = c.c_void_p, c.POINTER(c.c_void_p)
    for name, result, arguments in [
        ("soma_version", c.c_char_p, []),
        ("soma_policy_open_json", c.c_int, [out, c.c_char_p, c.c_char_p, c.POINTER(_Error)]),
        ("soma_policy_close", None, [handle]),
        ("soma_policy_describe", _Info, [handle]),
        ("soma_pilot_new_json", c.c_int, [out, handle, c.c_char_p, c.POINTER(_Error)]),
        ("soma_pilot_free", None, [handle]),
        ("soma_pilot_reset", None, [handle]),
        ("soma_pilot_see", c.c_int, [handle, c.POINTER(_Obs), c.POINTER(_Error)]),
        ("soma_pilot_act", c.c_int, [handle, c.POINTER(_Obs), c.POINTER(_Actions), c.POINTER(_Error)]),
    ]:
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    version = lib.soma_version().decode()
    if version.rsplit(".", 1)[0] != VERSION:
        raise OSError(f"{path} is soma {version}, this binding is for {VERSION}")
    _loaded = lib
    return lib


def _call(function, *arguments):
    err = _Error()
    code = function(*arguments, c.byref(err))
    if code:
        raise Error(code, err.text.decode(errors="replace"))


class Policy:
    """A checkpoint, opened. Options are those of soma_policy_opts: dtype, isa, threads, robot, text_tokenizer ..."""

    def __init__(self, path, **options):
        self._handle = c.c_void_p()
        self._lib = _lib()
        _call(self._lib.soma_policy_open_json, c.byref(self._handle), str(path).encode(), json.dumps(options).encode())
        info = self._lib.soma_policy_describe(self._handle)
        self.family, self.rate = info.family.decode(), info.rate
        self.horizon, self.n_actions, self.n_state = info.horizon, info.n_actions, info.n_state
        self.cameras = [info.camera_names[i].decode() for i in range(info.n_cameras)]
        self.metadata = json.loads(info.metadata_json)

    def pilot(self, **options):
        """One robot's timeline. Options are those of soma_pilot_opts: seed, steps, noise, time ..."""
        return Pilot(self, options)

    def close(self):
        """After the last of its pilots."""
        self._lib.soma_policy_close(self._handle)
        self._handle = c.c_void_p()

    def __del__(self):
        if getattr(self, "_handle", None):
            self.close()


class Pilot:
    def __init__(self, policy, options):
        self._handle = c.c_void_p()
        self._lib, self.policy = policy._lib, policy  # the policy lives as long as its pilots
        _call(self._lib.soma_pilot_new_json, c.byref(self._handle), policy._handle, json.dumps(options).encode())
        self.model_ms, self.flaw = 0.0, None

    def act(self, state, images=None, prompt="", executed=0, delay=0):
        """One observation to one chunk, [horizon, n_actions] in robot units, a view that the next act overwrites.

        executed, delay: control steps, of a pilot with rtc (soma_obs of soma.h).
        """
        obs, kept = self._obs(state, images or {}, prompt)
        obs.executed, obs.delay = executed, delay
        plan = _Actions()
        _call(self._lib.soma_pilot_act, self._handle, c.byref(obs), c.byref(plan))
        del kept
        self.model_ms, self.flaw = plan.model_ms, plan.flaw.decode() if plan.flaw else None
        memory = (c.c_float * (plan.horizon * plan.n_actions)).from_address(c.addressof(plan.values.contents))
        memory.pilot = self  # who owns it lives as long as the array does
        return np.frombuffer(memory, np.float32).reshape(plan.horizon, plan.n_actions)

    def see(self, state, images=None, prompt=""):
        """What the robot sees in a step for which no chunk is asked, for policies that look back."""
        obs, kept = self._obs(state, images or {}, prompt)
        _call(self._lib.soma_pilot_see, self._handle, c.byref(obs))
        del kept

    @staticmethod
    def _obs(state, images, prompt):
        """The struct, and the arrays that it points to, which must outlive the call."""
        if len(images) > MAX_CAMERAS:
            raise ValueError(f"{len(images)} pictures: at most {MAX_CAMERAS} are possible")
        state = np.ascontiguousarray(state, np.float32).reshape(-1)
        obs = _Obs(prompt.encode(), state.ctypes.data, state.size, len(images))
        kept = [state]
        for i, (camera, picture) in enumerate(images.items()):
            if getattr(picture, "dtype", None) != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
                raise ValueError(f"{camera}: a picture is an array of uint8 [height, width, 3]")
            picture = np.ascontiguousarray(picture)
            kept.append(picture)
            obs.images[i] = _Image(camera.encode(), picture.ctypes.data, picture.shape[1], picture.shape[0])
        return obs, kept

    def reset(self):
        """Forgets the episode so far."""
        self._lib.soma_pilot_reset(self._handle)

    def __del__(self):
        if getattr(self, "_handle", None):
            self._lib.soma_pilot_free(self._handle)
