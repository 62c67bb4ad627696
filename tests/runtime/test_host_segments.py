"""Segments that do not run natively: onnxruntime sub-models, and kinds that others register."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx.parser
import pytest

import runtime_programs
from neuc.errors import Error
from neuc.runtime import executors
from neuc.runtime.executors.base import Array, Setting
from neuc.runtime.executors.host import HostExecutor
from neuc.runtime.program import HostSegment, IoSpec, OtherSegment, Program, ScheduleStep, Segment
from neuc.runtime.session import Session

MODEL = """<ir_version: 9, opset_import: ["": 20]>
g (float[B, 5] a) => (float[B, 5] r, int64[N, 2] where) { r = Relu(a)  z = NonZero(r)  where = Transpose(z) }"""


def model(text: str = MODEL) -> bytes:
    return onnx.parser.parse_model(text).SerializeToString()


def program() -> Program:
    """x → native chain → host relu; a second output has a size that depends on the data."""
    chain = runtime_programs.chain()
    return Program(
        chain.inputs,
        (IoSpec("float32", ("B", 5), "r"), IoSpec("int64", ("n", 2), "where")),
        {**chain.segments, "h": HostSegment("program/h.onnx", ("a",), ("r", "where"))},
        (*chain.schedule, ScheduleStep("h", ("y",), ("r", "where"))),
    )


def session(data: bytes | None = None, **options: object) -> Session:
    hosts = {"program/h.onnx": model() if data is None else data}
    parts = runtime_programs.kernels(), runtime_programs.chain_weights(), hosts
    return Session.from_parts(program(), *parts, **options)  # type: ignore[arg-type]


def test_native_and_host_segments_together() -> None:
    with session(threads=2, profile=True) as s:
        for batch in (1, 4, 9):
            x = np.random.default_rng(batch).standard_normal((batch, 5)).astype(np.float32)
            want = np.maximum(runtime_programs.chain_expected(x), 0)
            r, where = s.run(None, {"x": x})
            np.testing.assert_array_equal(r, want)
            np.testing.assert_array_equal(where, np.argwhere(want))
            np.testing.assert_array_equal(s.run(["r"], {"x": x})[0], want)
        assert s.profile is not None
        assert {"native", "host"} == {event.category for event in s.profile.events}


def test_bound_output_of_a_host_segment() -> None:
    x, place = np.ones((2, 5), np.float32), np.empty((2, 5), np.float32)
    with session(threads=1) as s:
        binding = s.io_binding()
        binding.bind_cpu_input("x", x)
        binding.bind_cpu_output("r", place)
        s.run_with_iobinding(binding)
        np.testing.assert_array_equal(place, np.maximum(runtime_programs.chain_expected(x), 0))
        binding.bind_cpu_output("r", np.empty((3, 5), np.float32))
        with pytest.raises(Error, match="is bound"):
            s.run_with_iobinding(binding)


def test_host_model_that_cannot_be_loaded() -> None:
    with pytest.raises(Error, match="segment 'h'") as caught:
        session(b"\x08\x09garbage", threads=1)
    assert caught.value.code == "NEUC-E316"


def test_the_reason_is_onnxruntimes_without_its_source(capfd: pytest.CaptureFixture[str]) -> None:
    newer = model().replace(b"\x08\x09", b"\x08\x63", 1)  # the IR version
    with pytest.raises(Error, match="Unsupported model IR version: 99") as caught:
        session(newer, threads=1)
    assert "onnxruntime_src" not in caught.value.message
    assert capfd.readouterr() == ("", "")


def test_host_model_that_fails_while_running() -> None:
    text = """<ir_version: 9, opset_import: ["": 20]>
g (float[B, 5] a) => (float[B, 5] r, int64[N, 2] where)
<int64[2] shape = {7, 7}> { r = Reshape(a, shape)  z = NonZero(r)  where = Transpose(z) }"""
    with session(model(text), threads=1) as s, pytest.raises(Error, match="segment 'h'") as caught:
        s.run(None, {"x": np.ones((2, 5), np.float32)})
    assert caught.value.code == "NEUC-E316"


def test_host_result_that_breaks_its_promise() -> None:
    """A native segment never reads memory that is smaller than it was told."""
    text = """<ir_version: 9, opset_import: ["": 20]>
g (float[B, 5] a) => (double[B, 5] r) { r = Cast<to = 11>(a) }"""
    chain = runtime_programs.chain()
    broken = Program(
        (IoSpec("float32", ("B", 5), "a"),),
        chain.outputs,
        {**chain.segments, "h": HostSegment("h", ("a",), ("r",))},
        (ScheduleStep("h", ("a",), ("x",)), *chain.schedule),
    )
    parts = runtime_programs.kernels(), runtime_programs.chain_weights(), {"h": model(text)}
    with Session.from_parts(broken, *parts, threads=1) as s, pytest.raises(Error, match="seg0") as caught:
        s.run(None, {"a": np.ones((2, 5), np.float32)})
    assert caught.value.code == "NEUC-E316"


def test_onnxruntime_is_named_when_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(Error, match="pip install onnxruntime") as caught:
        session(threads=1)
    assert caught.value.code == "NEUC-E404"


@dataclass
class Doubler:
    """An executor somebody else brings along."""

    factor: float

    def run(self, inputs: Sequence[Array], symbols: Mapping[str, int], outputs: Sequence[Array | None]) -> list[Array]:
        return [np.multiply(inputs[0], np.float32(self.factor * symbols["B"]))]


def make_doubler(name: str, segment: Segment, setting: Setting) -> Doubler:
    assert isinstance(segment, OtherSegment)
    factor = segment.data["factor"]
    assert isinstance(factor, float)
    return Doubler(factor)


class _Entry:
    def load(self) -> object:
        return make_doubler


def test_executors_of_third_parties(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[tuple[str, str]] = []

    def entry_points(group: str, name: str) -> list[_Entry]:
        found.append((group, name))
        return [_Entry()] if name == "acme.double" else []

    monkeypatch.setattr("importlib.metadata.entry_points", entry_points)
    named = IoSpec("float32", ("B",), "x"), IoSpec("float32", ("B",), "y")
    segments = {"s": OtherSegment("acme.double", {"factor": 2.0}, ("x",), ("y",))}
    acme = Program((named[0],), (named[1],), segments, (ScheduleStep("s", ("x",), ("y",)),))
    with Session.from_parts(acme, {}, {}) as s:
        np.testing.assert_array_equal(s.run(None, {"x": np.ones(3, np.float32)})[0], [6, 6, 6])
    assert found == [("neuc.executors", "acme.double")]
    with pytest.raises(Error, match=r"acme\.other"):
        executors.executor_factory("acme.other")
    assert executors.executor_factory("host") is HostExecutor
