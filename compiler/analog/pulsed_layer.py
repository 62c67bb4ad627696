"""A layer that learns in the array by generated code: its devices as the arrays that the kernel reads and writes.

What devices are drawn and what the rules do is `runtime/analog`'s business, whose numpy form is the specification.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache

import numpy as np

from neuc.backends.cpu.codegen import compile_object
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.pulsed_update import PLANES, PulsedUpdateKernel
from neuc.backends.cpu.target import isa_from_text
from neuc.runtime.analog.pulsed_devices import PulsedArray
from neuc.runtime.analog.pulsed_update import LearningRule, TikiTaka, TikiTaka2
from neuc.runtime.loader import load_kernels
from neuc.runtime.native.llvm import LoadedCode
from neuc.runtime.native.pool import aligned_bytes

Floats = np.ndarray
_ENTRY = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)


class PulsedLayer:
    """A layer with the devices of a `LearningRule`, f32.

    Attributes:
        weights: what forward and backward passes see, [outputs, inputs].
    """

    def __init__(self, rule: LearningRule, seed: int, isa: Isa | None = None) -> None:
        """Take over the rule's devices and weights; `seed` (below 2^63) decides the pulses."""
        isa = isa_from_text("host") if isa is None else isa
        outputs, inputs = rule.weights.shape
        self._kernel = PulsedUpdateKernel(
            inputs=inputs,
            outputs=outputs,
            rule=rule.name,
            length=rule.trains.length,
            managed=rule.trains.managed,
            noise=rule.device.step_noise,
            multiplicative=rule.device.multiplicative,
        )
        self._code = _loaded(self._kernel, isa)
        self._call = _ENTRY(self._code.addresses[self._kernel.name])
        self._inputs, self._outputs = self._kernel.padded(isa)
        own = self._planes(rule.array)
        self.weights = own[0, :, :outputs].T
        self._arrays = [own] * 2 + [_room(inputs, self._outputs) for _ in range(2)]
        if isinstance(rule, TikiTaka):
            self._arrays[0], self._arrays[2][:, :outputs] = self._planes(rule.fast), rule.reference.T
        if isinstance(rule, TikiTaka2):
            self._arrays[3][:, :outputs] = rule.buffer.T
        self._scratch = aligned_bytes(self._kernel.scratch_bytes(isa))
        self._per_step = 1 / rule.device.step
        self._seed, self._seen = seed, 0
        self._x, self._d = _room(0, self._inputs), _room(0, self._outputs)

    def update(self, x: Floats, d: Floats, rate: float) -> None:
        """Learn from a batch, sample after sample: inputs [B, inputs], slopes of the loss [B, outputs]."""
        count = len(x)
        if len(self._x) != count:
            self._x, self._d = _room(count, self._inputs), _room(count, self._outputs)
        self._x[:, : x.shape[1]], self._d[:, : d.shape[1]] = x, d
        addresses = [array.ctypes.data for array in (self._x, self._d, *self._arrays)]
        numbers = np.array([rate, self._per_step], np.float32).view(np.int32).tolist()
        slots = np.array([*addresses, count, self._seen, self._seed, *numbers], np.int64)
        self._call(slots.ctypes.data, 0, 1, self._scratch.ctypes.data)
        self._seen += count

    def _planes(self, array: PulsedArray) -> Floats:
        """The devices of an array as the kernel reads them; padding never gets a pulse."""
        outputs, inputs = array.weights.shape
        made = _room(len(PLANES), inputs, self._outputs)
        for plane, name in zip(made, PLANES, strict=True):
            plane[:, :outputs] = getattr(array, name).T
        return made


def _room(*shape: int) -> Floats:
    """Aligned zeros, f32."""
    made = aligned_bytes(4 * int(np.prod(shape))).view(np.float32).reshape(shape)
    made[...] = 0
    return made


@lru_cache(maxsize=32)
def _loaded(kernel: PulsedUpdateKernel, isa: Isa) -> LoadedCode:
    function = kernel.build(isa)
    return load_kernels({kernel.name: compile_object(function, isa)}, [kernel.name], features=isa.features)
