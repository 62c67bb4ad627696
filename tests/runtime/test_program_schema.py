"""The program's JSON form: round trip, and refusal of what does not fit together."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from collections.abc import Callable
from typing import Any

import pytest

import runtime_programs
from neuc.errors import Error
from neuc.runtime.program import (
    ArenaBuffer,
    BufferArg,
    Check,
    F32Arg,
    HostSegment,
    IndexBound,
    IntArg,
    IoSpec,
    Launch,
    NativeSegment,
    OtherSegment,
    Program,
    Repeat,
    ScheduleStep,
    WeightBuffer,
    WorkBuffer,
)


def everything() -> Program:
    """A program with each kind of segment and argument."""
    io = IoSpec("float32", ("B", 5))
    native = NativeSegment(
        ("B",),
        "B*20",
        0,
        (io,),
        (io,),
        (ArenaBuffer(0, "B*20"), ArenaBuffer("B*4")),
        (
            Launch("k.a", (BufferArg(1), BufferArg(0, "B*4"), IntArg(-3), IntArg("B"), F32Arg(math.inf)), "B", 2, "l"),
            Launch("k.a", (BufferArg(1, "t*4"), IntArg("t + B")), "B", repeat=Repeat("t", "B"), effort="t*2"),
        ),
        checks=(
            Check(
                "about k.c",
                (WeightBuffer("q"), WorkBuffer(64)),
                (Launch("k.c", (BufferArg(0, 4), BufferArg(1, 64), IntArg(7), F32Arg(0.5)), 3, 1, ""),),
                128,
                1,
                "sums",
                16,
            ),
        ),
    )
    host = HostSegment("program/h.onnx", ("a",), ("b",))
    other = OtherSegment("acme.dsp", {"speed": 3}, ("a",), ("b",))
    steps = tuple(ScheduleStep(s, (a,), (b,)) for s, a, b in (("n", "x", "1"), ("h", "1", "2"), ("o", "2", "y")))
    named = (IoSpec("float32", ("B", 5), "x"),), (IoSpec("float32", ("B", 5), "y"),)
    return Program(*named, {"n": native, "h": host, "o": other}, steps)


def test_round_trip() -> None:
    for program in (everything(), runtime_programs.chain()):
        assert Program.from_bytes(program.to_bytes()) == program
        assert Program.from_json(json.loads(json.dumps(program.to_json()))) == program


def test_names_what_it_needs() -> None:
    assert everything().kernels() == {"k.a", "k.c"}
    assert everything().weight_keys() == {"q", "sums"}
    assert everything().host_models() == {"program/h.onnx"}
    assert runtime_programs.chain().weight_keys() == {"bias"}


def test_programs_of_format_1_0_have_no_checks() -> None:
    data = runtime_programs.chain().to_json()
    data["format"] = [1, 0]
    del data["segments"]["seg0"]["checks"]  # type: ignore[index]
    assert Program.from_json(data) == runtime_programs.chain()


def _set(*path: str | int, value: object) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        place: Any = data
        for key in path[:-1]:
            place = place[key]
        if value is _GONE:
            del place[path[-1]]
        else:
            place[path[-1]] = value

    return change


_GONE = object()
_SEG = ("segments", "n")
_LAUNCH = (*_SEG, "launches", 0)
_LOOP = (*_SEG, "launches", 1)
_CHECK = (*_SEG, "checks", 0)

BROKEN: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "format of the future": (_set("format", value=[2, 0]), "NEUC-E304"),
    "newer minor": (_set("format", value=[1, 99]), "NEUC-E304"),
    "format no list": (_set("format", value="1.0"), "NEUC-E302"),
    "format too short": (_set("format", value=[1]), "NEUC-E302"),
    "no segments": (_set("segments", value=_GONE), "NEUC-E302"),
    "unknown field": (_set("extra", value=1), "NEUC-E302"),
    "input without name": (_set("inputs", 0, "name", value=""), "NEUC-E302"),
    "input twice": (lambda d: d["inputs"].append(d["inputs"][0]), "NEUC-E302"),
    "unknown dtype": (_set("inputs", 0, "dtype", value="float33"), "NEUC-E302"),
    "negative dim": (_set("inputs", 0, "shape", value=[-1]), "NEUC-E302"),
    "absurd dim": (_set("inputs", 0, "shape", value=[2**70]), "NEUC-E302"),
    "fractional dim": (_set("inputs", 0, "shape", value=[1.5]), "NEUC-E302"),
    "boolean dim": (_set("inputs", 0, "shape", value=[True]), "NEUC-E302"),
    "rank 1000": (_set("inputs", 0, "shape", value=[1] * 1000), "NEUC-E302"),
    "code in a dim": (_set("inputs", 0, "shape", value=["__import__('os')"]), "NEUC-E303"),
    "power tower": (_set(*_SEG, "arena", value="9**9**9"), "NEUC-E303"),
    "foreign symbol": (_set(*_SEG, "arena", value="Q*4"), "NEUC-E302"),
    "symbol named max": (_set(*_SEG, "symbols", value=["max"]), "NEUC-E302"),
    "symbol with a space": (_set(*_SEG, "symbols", value=["a b"]), "NEUC-E302"),
    "symbol twice": (_set(*_SEG, "symbols", value=["B", "B"]), "NEUC-E302"),
    "negative arena": (_set(*_SEG, "arena", value=-1), "NEUC-E302"),
    "unknown buffer kind": (_set(*_SEG, "buffers", 0, "kind", value="disk"), "NEUC-E302"),
    "buffer of no input": (_set(*_SEG, "buffers", 0, value={"kind": "input", "index": 1}), "NEUC-E302"),
    "buffer of no output": (_set(*_SEG, "buffers", 0, value={"kind": "output", "index": 7}), "NEUC-E302"),
    "argument of no buffer": (_set(*_LAUNCH, "args", 0, "buffer", value=2), "NEUC-E302"),
    "argument of buffer -1": (_set(*_LAUNCH, "args", 0, "buffer", value=-1), "NEUC-E302"),
    "argument of two kinds": (_set(*_LAUNCH, "args", 0, "int", value=2), "NEUC-E302"),
    "argument of no kind": (_set(*_LAUNCH, "args", 0, value={}), "NEUC-E302"),
    "argument that is text": (_set(*_LAUNCH, "args", 0, value={"f32": "0.5"}), "NEUC-E302"),
    "arguments no list": (_set(*_LAUNCH, "args", value={}), "NEUC-E302"),
    "1000 arguments": (_set(*_LAUNCH, "args", value=[{"int": 1}] * 1000), "NEUC-E302"),
    "grain 0": (_set(*_LAUNCH, "grain", value=0), "NEUC-E302"),
    "negative work": (_set(*_LAUNCH, "work", value=-4), "NEUC-E302"),
    "kernel that is a path": (_set(*_LAUNCH, "kernel", value="../../evil"), "NEUC-E302"),
    "kernel with dots": (_set(*_LAUNCH, "kernel", value="a..b"), "NEUC-E302"),
    "kernel without name": (_set(*_LAUNCH, "kernel", value=""), "NEUC-E302"),
    "loop over a symbol of the segment": (_set(*_LOOP, "repeat", "symbol", value="B"), "NEUC-E302"),
    "loop over no symbol": (_set(*_LOOP, "repeat", "symbol", value="a b"), "NEUC-E302"),
    "loop of a negative count": (_set(*_LOOP, "repeat", "count", value=-1), "NEUC-E302"),
    "loop of its own number of steps": (_set(*_LOOP, "repeat", "count", value="t"), "NEUC-E302"),
    "loop of an unknown field": (_set(*_LOOP, "repeat", "from", value=1), "NEUC-E302"),
    "step outside of a loop": (_set(*_LOOP, "repeat", value=_GONE), "NEUC-E302"),
    "check of an unknown field": (_set(*_CHECK, "when", value=1), "NEUC-E302"),
    "check without launches": (_set(*_CHECK, "launches", value=_GONE), "NEUC-E302"),
    "check of 100 launches": (lambda d: d["segments"]["n"]["checks"][0].update(launches=[{}] * 100), "NEUC-E302"),
    "check with an arena": (_set(*_CHECK, "buffers", 1, value={"kind": "arena", "offset": 0}), "NEUC-E302"),
    "check of an input": (_set(*_CHECK, "buffers", 1, value={"kind": "input", "index": 0}), "NEUC-E302"),
    "check of a gigabyte": (_set(*_CHECK, "buffers", 1, "nbytes", value=2**30), "NEUC-E302"),
    "check with absurd scratch": (_set(*_CHECK, "scratch", value=2**40), "NEUC-E302"),
    "check with absurd work": (_set(*_CHECK, "launches", 0, "work", value=2**30), "NEUC-E302"),
    "check with symbolic work": (_set(*_CHECK, "launches", 0, "work", value="B"), "NEUC-E302"),
    "check with a symbolic size": (_set(*_CHECK, "launches", 0, "args", 2, value={"int": "B"}), "NEUC-E302"),
    "check of no buffer": (_set(*_CHECK, "launches", 0, "args", 0, "buffer", value=2), "NEUC-E302"),
    "check outside its buffer": (_set(*_CHECK, "launches", 0, "args", 1, "offset", value=65), "NEUC-E302"),
    "check of a weight's content": (_set(*_CHECK, "result", value=0), "NEUC-E302"),
    "check of no result": (_set(*_CHECK, "result", value=2), "NEUC-E302"),
    "check of a path": (_set(*_CHECK, "launches", 0, "kernel", value="../x"), "NEUC-E302"),
    "checks no list": (_set(*_SEG, "checks", value=3), "NEUC-E302"),
    "segment kind no text": (_set(*_SEG, "kind", value=5), "NEUC-E302"),
    "host without model": (_set("segments", "h", "model", value=_GONE), "NEUC-E302"),
    "step of no segment": (_set("schedule", 0, "segment", value="zz"), "NEUC-E302"),
    "step with too many inputs": (_set("schedule", 0, "inputs", value=["x", "x"]), "NEUC-E302"),
    "step before its input": (_set("schedule", 0, "inputs", value=["2"]), "NEUC-E302"),
    "value made twice": (_set("schedule", 0, "outputs", value=["x"]), "NEUC-E302"),
    "output nobody makes": (_set("outputs", 0, "name", value="zz"), "NEUC-E302"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_refuses(name: str) -> None:
    change, code = BROKEN[name]
    data: dict[str, Any] = copy.deepcopy(json.loads(everything().to_bytes()))
    change(data)
    with pytest.raises(Error) as caught:
        Program.from_json(data)
    assert caught.value.code == code
    assert caught.value.hint


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"null", b"[]", b"3", b'{"a":1,"a":2}', b'{"format":[1,NaN]}', b"\xff\xfe", b"[" * 10**5, b"9" * 5000],
)
def test_refuses_what_is_not_a_json_object(text: bytes) -> None:
    with pytest.raises(Error):
        Program.from_bytes(text)


def test_output_of_unknown_rank() -> None:
    program = dataclasses.replace(everything(), outputs=(IoSpec("float32", (), "y", ranked=False),))
    assert program.to_json()["outputs"] == [{"name": "y", "dtype": "float32", "shape": None}]
    assert Program.from_bytes(program.to_bytes()) == program


def test_refuses_an_input_of_unknown_rank() -> None:
    data = everything().to_json()
    data["inputs"] = [{"name": "x", "dtype": "float32", "shape": None}]
    with pytest.raises(Error, match=r"inputs\[0\].shape: expected a list"):
        Program.from_json(data)


def test_inputs_that_are_indices_and_older_files_without() -> None:
    ids = IoSpec("int64", ("B", 5), "x", index=IndexBound(50, "Gather_0"))
    program = dataclasses.replace(everything(), inputs=(ids,))
    data = program.to_json()
    assert data["inputs"] == [
        {"name": "x", "dtype": "int64", "shape": ["B", 5], "index": {"rows": 50, "node": "Gather_0"}}
    ]
    assert Program.from_bytes(program.to_bytes()) == program
    older = {**everything().to_json(), "format": [1, 4]}
    assert Program.from_json(older) == everything()


@pytest.mark.parametrize(
    ("where", "dtype", "index"),
    [
        ("inputs", "float32", {"rows": 5, "node": "a"}),
        ("inputs", "int64", {"rows": 0, "node": "a"}),
        ("inputs", "int64", {"rows": 5}),
        ("inputs", "int64", {"rows": 5, "node": "a", "more": 1}),
        ("inputs", "int64", None),
        ("outputs", "int64", {"rows": 5, "node": "a"}),
    ],
)
def test_refuses_bounds_of_indices_that_are_none(where: str, dtype: str, index: object) -> None:
    data = everything().to_json()
    (spec,) = data[where]  # type: ignore[misc]
    spec.update(dtype=dtype, index=index)
    with pytest.raises(Error):
        Program.from_json(data)
