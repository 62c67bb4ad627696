"""`load` and `Session`: running a compiled model, with onnxruntime's calls."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuc.errors import Error, Exit
from neuc.runtime.artifact import Artifact
from neuc.runtime.executors import executor_factory
from neuc.runtime.executors.base import Array, Executor, PreparingExecutor, Setting
from neuc.runtime.io_binding import IOBinding
from neuc.runtime.loader import check_processor, load_kernels
from neuc.runtime.native.pool import aligned_bytes, resolve_threads, shared_pool
from neuc.runtime.prepared import PreparedRun, check_overlaps, in_place_pairs
from neuc.runtime.profile import Profile
from neuc.runtime.program import Program
from neuc.runtime.self_check import require_sound_kernels
from neuc.runtime.signature import ModelMeta, NodeArg, Signature, node_arg, signature_text

if TYPE_CHECKING:
    from neuc.runtime.analog.drawing import AnalogState

_WEIGHT_ALIGNMENT = 64


def load(path: str | os.PathLike[str], *, threads: int | None = None, profile: bool = False) -> Session:
    """Open a ``.neuc`` file.

    Args:
        path: the file.
        threads: threads for each run; by default the CPUs this process may use.
        profile: record the time of every launch in `Session.profile`.

    Raises:
        Error: the file is not a sound artifact, its code does not fit this processor, or a kernel does not compute here
            what it should.
    """
    return open_artifact(Artifact.open(path), threads=threads, profile=profile)


def open_artifact(artifact: Artifact, *, threads: int | None = None, profile: bool = False) -> Session:
    """A session for an artifact that is open already; see `load`."""
    check_processor(artifact.features, artifact.architecture)
    return Session.from_parts(
        artifact.program,
        artifact.kernels,
        artifact.weights,
        artifact.hosts,
        threads=threads,
        profile=profile,
        features=artifact.features,
        architecture=artifact.architecture,
        manifest=artifact.manifest,
        identity=artifact.identity,
    )


class Session:
    """A model that is ready to run.

    `run` may be called from several threads at once. With one thread per run (``threads=1``) such calls run side by
    side; with more they share a pool of threads and take turns. Sessions with the same thread count share one pool.
    """

    def __init__(self, program: Program, setting: Setting, manifest: Mapping[str, object]) -> None:
        self._program = program
        self._manifest = manifest
        self._setting: Setting | None = setting
        self._threads = setting.pool.threads
        self._profile = setting.profile
        self._signature = Signature(program)
        self._in_place = in_place_pairs(program)
        self._analog: AnalogState | None = None
        executors = {
            name: executor_factory(segment.kind)(name, segment, setting) for name, segment in program.segments.items()
        }
        self._steps: list[tuple[Executor, tuple[str, ...], tuple[str, ...]]] = [
            (executors[step.segment], step.inputs, step.outputs) for step in program.schedule
        ]

    def __repr__(self) -> str:
        """One line: model and target where they are known, inputs and outputs, threads."""
        texts = [str(self._manifest.get(key, "")) for key in ("model", "target")]
        what = " for ".join(text for text in texts if text)
        threads = f"{self._threads} thread{'' if self._threads == 1 else 's'}"
        state = "closed" if self._setting is None else threads
        return f"<Session{what and ' ' + what}: {signature_text(self._program)}; {state}>"

    @staticmethod
    def from_parts(
        program: Program,
        kernels: Mapping[str, bytes],
        weights: Mapping[str, NDArray[np.generic]],
        hosts: Mapping[str, bytes] | None = None,
        *,
        threads: int | None = None,
        profile: bool = False,
        features: Collection[str] = (),
        architecture: str = "",
        manifest: Mapping[str, object] | None = None,
        identity: str = "",
    ) -> Session:
        """A session without a file, from what a compiler holds in memory.

        Args:
            program: what to run.
            kernels: object code by kernel name.
            weights: arrays by key; used in place if they are contiguous and 64-byte aligned, else copied.
            hosts: ONNX bytes by the ``model`` path that host segments name.
            threads: as for `load`.
            profile: as for `load`.
            features: CPU features the kernels need.
            architecture: what the kernels were compiled for; empty means this machine.
            manifest: JSON data about the model.
            identity: what all of this is known by; kernels that passed their checks are not checked again.

        Raises:
            Error: parts are missing or do not fit this processor, or a kernel does not pass its check.
        """
        pool = shared_pool(resolve_threads(threads))
        code = load_kernels(kernels, program.kernels(), features=features, architecture=architecture)
        _check_weights(program, weights)
        analog = _analog_state(manifest or {}, weights)
        used = {key: _aligned(weights[key]) for key in program.weight_keys()}
        used |= {} if analog is None else analog.arrays
        require_sound_kernels(program, code.addresses, used, identity)
        setting = Setting(pool, code.addresses, used, hosts or {}, Profile() if profile else None, keep=(code,))
        session = Session(program, setting, manifest or {})
        session._analog = analog
        return session

    def run(
        self,
        output_names: Sequence[str] | None,
        input_feed: Mapping[str, ArrayLike],
        run_options: object = None,
    ) -> list[Array]:
        """Run the model.

        Args:
            output_names: outputs to return, in this order; None or none at all for all, as in onnxruntime.
            input_feed: an array for each input.
            run_options: accepted for onnxruntime's sake, and not used.

        Raises:
            Error: the feeds do not fit the signature (exit code 2), or the run failed.
        """
        names = list(() if output_names is None else output_names) or self._signature.output_names
        results = self._run(names, input_feed, {})
        return [results[name] for name in names]

    def run_with_iobinding(self, iobinding: IOBinding, run_options: object = None) -> None:
        """Run on what is bound; results are in the bound arrays and in ``iobinding.get_outputs()``."""
        check_overlaps(iobinding.feeds, iobinding.outputs, self._in_place)
        iobinding.results = self._run(list(iobinding.outputs), iobinding.feeds, iobinding.outputs)

    def prepare(self, iobinding: IOBinding) -> PreparedRun:
        """A run on what is bound, checked now and then called as often as wanted, in a few microseconds each.

        The bound arrays are read and written where they are: change their contents between calls. An output may be
        bound to the array of an input if the program updates it in place, as decoders do with their caches.

        Raises:
            Error: as for `run`; NEUC-E312, bound arrays overlap that may not.
        """
        self._require_open()
        arrays, symbols = self._signature.check_feeds(iobinding.feeds)
        values = dict(zip(self._signature.input_names, arrays))
        check_overlaps(values, iobinding.outputs, self._in_place)
        # What the arrays hold is looked at in each call; it may be anything now.
        calls: list[Callable[[], None]] = [self._require_open, partial(self._signature.check_indices, arrays)]
        for executor, inputs, outputs in self._steps:
            given, places = [values[name] for name in inputs], [iobinding.outputs.get(name) for name in outputs]
            if not isinstance(executor, PreparingExecutor):
                hint = "call run_with_iobinding, which checks every time"
                message = "a part of this model runs outside of compiled code and cannot be prepared"
                raise Error("NEUC-E312", message, hint=hint, exit_code=Exit.USAGE)
            made, call = executor.prepare(given, symbols, places)
            calls.append(call)
            values.update(zip(outputs, made))
        return PreparedRun({name: values[name] for name in self._signature.output_names}, calls)

    def _run(
        self, names: Sequence[str], feeds: Mapping[str, ArrayLike], bound: Mapping[str, Array | None]
    ) -> dict[str, Array]:
        self._require_open()
        if self._analog is not None:
            self._analog.begin_run()
        self._signature.check_output_names(names)
        arrays, symbols = self._signature.check_feeds(feeds)
        self._signature.check_indices(arrays)
        values = dict(zip(self._signature.input_names, arrays))
        for executor, inputs, outputs in self._steps:
            made = executor.run([values[name] for name in inputs], symbols, [bound.get(name) for name in outputs])
            values.update(zip(outputs, made))
        return {name: self._own(values, name) for name in names}

    def _require_open(self) -> None:
        if self._setting is None:
            raise Error("NEUC-E318", "the session is closed", hint="load the model again", exit_code=Exit.USAGE)

    def _own(self, values: Mapping[str, Array], name: str) -> Array:
        """An output of its own: one that is an input passed through must not share the caller's memory."""
        return values[name].copy() if name in self._signature.input_names else values[name]

    def get_inputs(self) -> list[NodeArg]:
        """Name, shape and type of each input."""
        return [node_arg(spec) for spec in self._program.inputs]

    def get_outputs(self) -> list[NodeArg]:
        """Name, shape and type of each output."""
        return [node_arg(spec) for spec in self._program.outputs]

    def get_modelmeta(self) -> ModelMeta:
        """Where the model comes from."""
        texts = {key: value for key, value in self._manifest.items() if isinstance(value, str)}
        return ModelMeta(
            graph_name=texts.get("graph_name", texts.get("model", "")),
            description=texts.get("description", ""),
            custom_metadata_map=texts,
        )

    def io_binding(self) -> IOBinding:
        """An empty binding for `run_with_iobinding`."""
        return IOBinding(self._signature)

    @property
    def threads(self) -> int:
        """Threads that a run uses."""
        return self._threads

    @property
    def profile(self) -> Profile | None:
        """Recorded times, if the session was loaded with ``profile=True``."""
        return self._profile

    @property
    def program(self) -> Program:
        """What this session runs."""
        return self._program

    @property
    def manifest(self) -> Mapping[str, object]:
        """JSON data about the model."""
        return self._manifest

    @property
    def analog(self) -> AnalogState | None:
        """What simulated memory devices hold, to go to another time or draw; None for models without any."""
        return self._analog

    def close(self) -> None:
        """Let go of threads, code, weights and memory; running again is an error."""
        self._setting = None
        self._steps = []

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _aligned(array: NDArray[np.generic]) -> Array:
    """The array itself if kernels can use it in place, else an aligned copy."""
    native = array.dtype.newbyteorder("=")
    if array.dtype == native and array.flags.c_contiguous and array.ctypes.data % _WEIGHT_ALIGNMENT == 0:
        return array
    copy = aligned_bytes(array.nbytes).view(native).reshape(array.shape)
    np.copyto(copy, array)
    return copy


def _analog_state(manifest: Mapping[str, object], weights: Mapping[str, NDArray[np.generic]]) -> AnalogState | None:
    """What the tiles of a crossbar program hold right after programming, draw 0; None without such a program."""
    if "crossbar" not in manifest:
        return None
    from neuc.runtime.analog.drawing import AnalogState
    from neuc.runtime.analog.program import CrossbarProgram

    program = CrossbarProgram.from_manifest(manifest)
    return None if program is None else AnalogState(program, weights)


def _check_weights(program: Program, weights: Mapping[str, NDArray[np.generic]]) -> None:
    missing = sorted(program.weight_keys() - weights.keys())
    if missing:
        raise Error(
            "NEUC-E305",
            f"the program needs weight '{missing[0][:200]}', which is not there",
            hint="compile the model again",
        )
