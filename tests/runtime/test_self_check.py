"""Checks of kernels when a model loads: sound ones run, and whatever computes something else is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

import runtime_programs
from neuc.errors import Error
from neuc.runtime import self_check
from neuc.runtime.artifact import write_artifact
from neuc.runtime.program import BufferArg, Check, F32Arg, Launch, NativeSegment, Program, WeightBuffer, WorkBuffer
from neuc.runtime.session import Session, load

GIVEN = np.array([1.5, -2.0, 0.0, 1e30], np.float32)


def checked(check: Check | None = None) -> Program:
    """`runtime_programs.chain` with a check of `k_scale`: twice `GIVEN`, seen as two rows of two int32."""
    program = runtime_programs.chain()
    segment = program.segments["seg0"]
    assert isinstance(segment, NativeSegment)
    doubled = Launch("k_scale", (BufferArg(0), BufferArg(1), F32Arg(2.0)), len(GIVEN), label="double")
    check = check or Check("double", (WeightBuffer("given"), WorkBuffer(64)), (doubled,), 0, 1, "doubled", 2)
    return dataclasses.replace(program, segments={"seg0": dataclasses.replace(segment, checks=(check,))})


def weights(**other: np.ndarray) -> dict[str, np.ndarray]:
    right = {"given": GIVEN, "doubled": (2 * GIVEN).view(np.int32).reshape(2, 2)}
    return {**runtime_programs.chain_weights(), **right, **other}


def session(program: Program, arrays: Mapping[str, np.ndarray], kernels: Mapping[str, bytes] | None = None) -> Session:
    return Session.from_parts(program, kernels or runtime_programs.kernels(), arrays, threads=1)


def test_sound_kernels_run() -> None:
    x = np.arange(10, dtype=np.float32).reshape(2, 5)
    (y,) = session(checked(), weights()).run(None, {"x": x})
    np.testing.assert_array_equal(y, runtime_programs.chain_expected(x))


def test_a_kernel_that_computes_something_else_is_refused() -> None:
    wrong = dataclasses.replace(_check(), launches=(_launch(F32Arg(2.0000002)),))
    with pytest.raises(Error) as caught:
        session(checked(wrong), weights())
    assert caught.value.code == "NEUC-E319"
    assert "k_scale" in caught.value.message
    assert "cpu-ref" in caught.value.hint
    assert "neuc doctor" in caught.value.hint


def _check() -> Check:
    (check,) = checked().checks()
    return check


def _launch(factor: F32Arg) -> Launch:
    return Launch("k_scale", (BufferArg(0), BufferArg(1), factor), len(GIVEN))


def test_damaged_code_is_refused() -> None:
    kernels = dict(runtime_programs.kernels())
    text = runtime_programs.llvm_text("k_scale")
    damaged = text.replace("fmul float %x, %factor", "fsub float %x, %factor")
    assert damaged != text
    kernels["k_scale"] = runtime_programs.compile_baseline(damaged)
    with pytest.raises(Error, match="k_scale") as caught:
        session(checked(), weights(), kernels)
    assert caught.value.code == "NEUC-E319"


def test_a_kernel_that_writes_nothing_is_refused() -> None:
    idle = dataclasses.replace(_check(), launches=(dataclasses.replace(_launch(F32Arg(2.0)), work=len(GIVEN) - 1),))
    with pytest.raises(Error, match="1 of 2") as caught:
        session(checked(idle), weights())
    assert caught.value.code == "NEUC-E319"


@pytest.mark.parametrize("name", ["given", "doubled"])
def test_changed_data_are_refused(name: str) -> None:
    arrays = weights()
    changed = arrays[name].copy()
    changed.reshape(-1).view(np.int32)[-1] ^= 1 << 23
    with pytest.raises(Error) as caught:
        session(checked(), {**arrays, name: changed})
    assert caught.value.code == "NEUC-E319"


@pytest.mark.parametrize(
    ("change", "arrays"),
    [
        ({}, {"doubled": np.zeros((2, 2), np.int64)}),
        ({}, {"doubled": np.zeros(4, np.int32)}),
        ({}, {"doubled": np.zeros((9, 2), np.int32)}),
        ({"stride": 15}, {}),
        ({"launches": (Launch("k_scale", (BufferArg(0, 17), BufferArg(1), F32Arg(2.0)), 1),)}, {}),
    ],
)
def test_checks_that_do_not_fit_their_data_are_refused_before_anything_runs(
    change: dict[str, object], arrays: dict[str, np.ndarray]
) -> None:
    check = dataclasses.replace(_check(), **change)  # pyright: ignore[reportArgumentType]
    with pytest.raises(Error) as caught:
        session(checked(check), weights(**arrays))
    assert caught.value.code == "NEUC-E305"


def test_all_outcomes_are_told() -> None:
    program = checked()
    segment = program.segments["seg0"]
    assert isinstance(segment, NativeSegment)
    wrong = dataclasses.replace(_check(), launches=(_launch(F32Arg(3.0)),), label="triple")
    both = dataclasses.replace(program, segments={"seg0": dataclasses.replace(segment, checks=(_check(), wrong))})
    from neuc.runtime.loader import load_kernels

    code = load_kernels(runtime_programs.kernels(), both.kernels())
    outcomes = self_check.run_checks(both, code.addresses, weights())
    assert [(o.check.label, o.kernel, bool(o.problem)) for o in outcomes] == [
        ("double", "k_scale", False),
        ("triple", "k_scale", True),
    ]


def test_an_artifact_is_checked_once_in_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.neuc"
    write_artifact(path, program=checked(), kernels=runtime_programs.kernels(), weights=weights())
    ran: list[str] = []
    original = self_check._run

    def counted(check: Check, kernels: Mapping[str, int], arrays: Mapping[str, np.ndarray]) -> str:
        ran.append(check.label)
        return original(check, kernels, arrays)

    monkeypatch.setattr(self_check, "_run", counted)
    for _ in range(3):
        load(path, threads=1)
    assert ran == ["double"]
    other = tmp_path / "b.neuc"
    write_artifact(other, program=checked(), kernels=runtime_programs.kernels(), weights=weights(doubled=_triple()))
    for _ in range(2):
        with pytest.raises(Error):
            load(other, threads=1)
    assert len(ran) == 3


def _triple() -> np.ndarray:
    return (3 * GIVEN).view(np.int32).reshape(2, 2)
