"""Inputs and outputs bound ahead of the call, as in onnxruntime: results land in memory the caller chose."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from neuc.errors import Error, Exit
from neuc.runtime.executors.base import Array
from neuc.runtime.signature import Signature


class IOBinding:
    """What `Session.run_with_iobinding` reads and writes. Only CPU memory can be bound."""

    def __init__(self, signature: Signature) -> None:
        self._signature = signature
        self.feeds: dict[str, Array] = {}
        self.outputs: dict[str, Array | None] = {}
        self.results: dict[str, Array] = {}

    def bind_cpu_input(self, name: str, array: ArrayLike) -> None:
        """Read input ``name`` from an array; a contiguous one is used in place."""
        self.feeds[name] = self._signature.check_feed(name, array)

    def bind_input(
        self,
        name: str,
        device_type: str,
        device_id: int,
        element_type: DTypeLike,
        shape: Sequence[int],
        buffer_ptr: int,
    ) -> None:
        """Read input ``name`` from memory at an address."""
        self.bind_cpu_input(name, _at_address(name, device_type, element_type, shape, buffer_ptr))

    def bind_output(
        self,
        name: str,
        device_type: str = "cpu",
        device_id: int = 0,
        element_type: DTypeLike = np.float32,
        shape: Sequence[int] | None = None,
        buffer_ptr: int | None = None,
    ) -> None:
        """Ask for output ``name``, in new memory or at an address."""
        self._signature.check_output_names([name])
        if buffer_ptr is None:
            self.outputs[name] = None
        else:
            self.outputs[name] = _at_address(name, device_type, element_type, shape or (), buffer_ptr)

    def bind_cpu_output(self, name: str, array: Array) -> None:
        """Write output ``name`` into an array, which must be contiguous and of the right type and shape."""
        self._signature.check_output_names([name])
        flags = array.flags
        if not (flags.c_contiguous and flags.aligned and flags.writeable):
            raise Error(
                "NEUC-E312",
                f"output '{name}' is bound to an array that is not contiguous, aligned and writeable",
                hint="bind np.empty(shape, dtype)",
                exit_code=Exit.USAGE,
            )
        self.outputs[name] = array

    def clear_binding_inputs(self) -> None:
        """Forget all inputs."""
        self.feeds.clear()

    def clear_binding_outputs(self) -> None:
        """Forget all outputs."""
        self.outputs.clear()

    def copy_outputs_to_cpu(self) -> list[Array]:
        """The results of the last run, in the order the outputs were bound."""
        return [self.results[name] for name in self.outputs if name in self.results]

    get_outputs = copy_outputs_to_cpu


def _at_address(name: str, device: str, dtype: DTypeLike, shape: Sequence[int], address: int) -> Array:
    if device != "cpu":
        raise Error("NEUC-E312", f"'{name}' is bound to device '{device}'", hint="use 'cpu'", exit_code=Exit.USAGE)
    kind = np.dtype(dtype)
    memory = (ctypes.c_char * (math.prod(shape) * kind.itemsize)).from_address(address)
    return np.frombuffer(memoryview(memory).cast("B"), kind).reshape(shape)
