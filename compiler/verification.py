"""Comparing a compiled session with onnxruntime running the model it came from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from neuc.compiler.accuracy import Agreement, compare
from neuc.compiler.inputs import Arrays, more_modest, parse_inputs, random_inputs
from neuc.errors import Error, Exit
from neuc.runtime.signature import Signature, node_arg

if TYPE_CHECKING:
    import onnxruntime

    from neuc.runtime.program import IoSpec
    from neuc.runtime.session import Session


def verify_session(session: Session, model: Path, runs: int, inputs: Sequence[str] = ()) -> Agreement:
    """Compare `session` with onnxruntime on `model`.

    Args:
        session: the compiled model.
        model: the ONNX file it was compiled from.
        runs: how many made-up inputs (seeds 0, 1, ...) to compare on.
        inputs: input specs as of ``--input``; if given, they are the one input compared on.

    Raises:
        Error: NEUC-E260, onnxruntime cannot run the model; NEUC-E261, the two models differ in their signature;
            NEUC-E006, E311, E312 or E326, inputs are missing or do not fit.
    """
    signature = session.program.inputs
    if not inputs:
        return compare_on(session, reference_session(model), made_up(signature, runs))
    given = parse_inputs(inputs, signature)
    check = Signature(session.program)
    check.check_indices(check.check_feeds(given)[0])  # so that it is told in our words, not in onnxruntime's
    return compare_on(session, reference_session(model), [[given]])


def made_up(signature: Sequence[IoSpec], runs: int) -> Iterator[list[Arrays]]:
    """Sets of inputs to compare on, to be tried in turn."""
    for sizes, limit in more_modest(signature):
        yield [random_inputs(signature, seed, sizes, limit) for seed in range(max(runs, 1))]


def compare_on(
    session: Session, reference: onnxruntime.InferenceSession, choices: Iterable[Sequence[Arrays]]
) -> Agreement:
    """Run both on the first of several sets of inputs that onnxruntime takes, and compare."""
    names = [spec.name for spec in session.program.outputs]
    theirs = {spec.name for spec in reference.get_outputs()}
    missing = [name for name in names if name not in theirs]
    if missing:
        raise _other_model(f"it has no output {missing[0]!r}")
    _check_inputs(session.program.inputs, reference)
    feeds, expected = run_first(reference, names, choices)
    got = [session.run(names, feed) for feed in feeds]
    try:
        return compare(expected, got)
    except ValueError as error:
        raise _other_model(str(error)) from error


def _check_inputs(ours: Sequence[IoSpec], reference: onnxruntime.InferenceSession) -> None:
    """Refuse a model whose inputs cannot take what `ours` are fed: onnxruntime would blame the feed.

    A size that only one side fixes is no difference: shapes may have been given when the model was compiled.

    Raises:
        Error: NEUC-E261.
    """
    required = {spec.name: spec for spec in reference.get_inputs()}
    theirs = {spec.name: spec for spec in reference.get_overridable_initializers()} | required
    for spec in ours:
        here = node_arg(spec)
        there = theirs.get(spec.name)
        if there is None:
            raise _other_model(f"it has no input {spec.name!r}")
        shape = list(there.shape or here.shape)  # onnxruntime gives [] for scalars and where the rank is unknown
        sizes = zip(here.shape, shape)
        other = any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in sizes)
        if there.type != here.type or len(shape) != len(here.shape) or other:
            dims = ", ".join("?" if dim is None else str(dim) for dim in shape)
            raise _other_model(
                f"its input {spec.name!r} is {there.type} [{dims}], "
                f"the compiled model's is {here.type} [{', '.join(map(str, here.shape))}]"
            )
    more = sorted(required.keys() - {spec.name for spec in ours})
    if more:
        raise _other_model(f"it has an input {more[0]!r} more")


def run_first(
    session: onnxruntime.InferenceSession, names: Sequence[str], choices: Iterable[Sequence[Arrays]]
) -> tuple[Sequence[Arrays], list[list[np.ndarray]]]:
    """The first of several sets of inputs that onnxruntime takes, and its results.

    Raises:
        Error: NEUC-E260, it takes none; what it says is about the first.
    """
    complaints: list[Error] = []
    for feeds in choices:
        try:
            return feeds, [run_reference(session, names, feed) for feed in feeds]
        except Error as error:
            complaints.append(error)
    raise complaints[0]


def run_reference(session: onnxruntime.InferenceSession, names: Sequence[str], feed: Arrays) -> list[np.ndarray]:
    """One run in onnxruntime.

    Raises:
        Error: NEUC-E260, it fails.
    """
    try:
        return [np.asarray(array) for array in session.run(list(names), dict(feed))]
    except Exception as error:  # onnxruntime's exceptions have no common class but this
        raise Error(
            "NEUC-E260",
            f"onnxruntime fails on this input: {str(error).splitlines()[0]}",
            hint="give real input with --input or --calib",
        ) from error


def reference_session(
    model: Path | bytes, threads: int = 0, *, beside_others: bool = False
) -> onnxruntime.InferenceSession:
    """The model in onnxruntime.

    Args:
        model: an ONNX file, or its bytes.
        threads: threads within an operator; 0 lets onnxruntime choose.
        beside_others: its threads sleep while they wait, and leave the CPUs to other work that goes on meanwhile.

    Raises:
        Error: NEUC-E260.
    """
    import onnxruntime

    source = model if isinstance(model, bytes) else str(model)
    what = "the model" if isinstance(model, bytes) else source
    complaint: Exception | None = None
    # Its optimiser fails on some models that its kernels can run, such as those with 2-bit weights.
    for level in (
        onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
        onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    ):
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = threads
        if beside_others:
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.graph_optimization_level = level
        try:
            return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # as above
            complaint = complaint or error
    raise Error(
        "NEUC-E260",
        f"onnxruntime cannot load {what}: {str(complaint).splitlines()[0]}",
        hint="compare with an ONNX file that onnxruntime runs",
    ) from complaint


def _other_model(reason: str) -> Error:
    return Error(
        "NEUC-E261",
        f"the model to compare with is another one: {reason}",
        hint="give the ONNX file that was compiled",
        exit_code=Exit.USAGE,
    )
