"""The executor of host segments: sub-models in ONNX form, run by onnxruntime, which only programs with such need."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Protocol, cast

import numpy as np

from neuc.errors import Error, InternalError
from neuc.runtime.executors.base import Array, Setting
from neuc.runtime.profile import Event
from neuc.runtime.program import HostSegment, Segment

_PLACE = re.compile(r"\[ONNXRuntimeError\] : \d+ : |/onnxruntime_src/\S+ [^()]*\([^()]*\)(?: const)? ")
"""Where in its own source onnxruntime says an error is."""


class _SessionOptions(Protocol):
    intra_op_num_threads: int
    inter_op_num_threads: int
    log_severity_level: int

    def add_session_config_entry(self, key: str, value: str) -> None: ...


class _InferenceSession(Protocol):
    def run(self, output_names: Sequence[str], input_feed: Mapping[str, Array]) -> list[object]: ...


class _OnnxRuntime(Protocol):
    """The part of onnxruntime used here; it ships no types."""

    def SessionOptions(self) -> _SessionOptions: ...
    def InferenceSession(
        self, path_or_bytes: bytes, sess_options: _SessionOptions, providers: Sequence[str]
    ) -> _InferenceSession: ...


class HostExecutor:
    """Runs one ONNX sub-model."""

    def __init__(self, name: str, segment: Segment, setting: Setting) -> None:
        if not isinstance(segment, HostSegment):
            raise InternalError(f"segment {name} is not a host segment")
        self._name = name
        self._segment = segment
        self._setting = setting
        self._session = self._load()
        self._process = os.getpid()

    def run(self, inputs: Sequence[Array], symbols: Mapping[str, int], outputs: Sequence[Array | None]) -> list[Array]:
        """Run on ``inputs`` and return all outputs; see `neuc.runtime.executors.base.Executor`."""
        if self._process != os.getpid():  # onnxruntime's threads do not survive a fork
            self._session, self._process = self._load(), os.getpid()
        begin = time.monotonic_ns()
        try:
            found = self._session.run(self._segment.outputs, dict(zip(self._segment.inputs, inputs)))
        except Exception as error:  # onnxruntime raises its own classes, all directly below Exception
            raise self._failed("run", error, "check the input values") from error
        if self._setting.profile is not None:
            event = Event(self._name, "host", begin, time.monotonic_ns(), 0, {"model": self._segment.model})
            self._setting.profile.add([event])
        return [self._result(value, given) for value, given in zip(found, outputs)]

    def _result(self, value: object, given: Array | None) -> Array:
        if not isinstance(value, np.ndarray):
            raise Error(
                "NEUC-E316",
                f"host segment '{self._name}' gave a value that is not a tensor",
                hint="sequences and maps are not supported",
            )
        array: Array = np.asarray(cast(Array, value), order="C")
        if given is None:
            return array
        if given.shape != array.shape or given.dtype != array.dtype:
            raise Error(
                "NEUC-E316",
                f"host segment '{self._name}' gave {array.dtype}{list(array.shape)}, "
                f"but {given.dtype}{list(given.shape)} is bound",
                hint="bind an output of the right size, or none",
            )
        np.copyto(given, array)
        return given

    def _load(self) -> _InferenceSession:
        try:
            ort = cast(_OnnxRuntime, import_module("onnxruntime"))
        except ImportError as error:
            raise Error(
                "NEUC-E404",
                f"segment '{self._name}' of this model runs in onnxruntime, which is not installed",
                hint="pip install onnxruntime",
            ) from error
        options = ort.SessionOptions()
        options.intra_op_num_threads = self._setting.pool.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # errors are raised, they need not be printed as well
        # onnxruntime's threads would otherwise spin after each run, just when our own start to work.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            model = self._setting.hosts[self._segment.model]
            return ort.InferenceSession(model, options, ["CPUExecutionProvider"])
        except Exception as error:  # as above
            raise self._failed("load", error, "it cannot run what the target leaves to it") from error

    def _failed(self, what: str, error: Exception, hint: str) -> Error:
        reason = _PLACE.sub("", " ".join(str(error).split()))[:300]
        return Error(
            "NEUC-E316",
            f"onnxruntime cannot {what} host segment '{self._name}': {reason}",
            hint=f"{hint}; `neuc check` lists the nodes that run there",
        )
