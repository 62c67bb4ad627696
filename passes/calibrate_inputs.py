"""The pass `calibrate-inputs`: fixed input ranges of crossbar tiles, from what their inputs are on given data."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from xdsl.context import Context
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Block, Operation, SSAValue
from xdsl.passes import ModulePass

from neuc.dialects.context import store_of
from neuc.dialects.crossbar import DacOp
from neuc.dialects.crossbar_tiles import number
from neuc.dialects.interp.core import interpret
from neuc.dialects.onnx import function_names
from neuc.dialects.spike_time import LoopOp
from neuc.errors import Error, Exit, InternalError

_DEVIATIONS = 3.0
"""The range is the mean magnitude plus so many standard deviations, as in aihwkit, but no more than the largest."""


@dataclass(frozen=True)
class CalibrateInputs(ModulePass):
    """Run @main on the arrays of an ``.npz`` file and set the `range` of every `crossbar.dac`.

    Options:
        data: the file; its arrays have the names of the model's inputs.
    """

    name = "calibrate-inputs"
    data: str = ""

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Run the pass."""
        main = next((f for f in op.ops if isinstance(f, func.FuncOp) and f.sym_name.data == "main"), None)
        if main is None:
            raise InternalError("calibrate-inputs: the module has no @main")
        names, _ = function_names(main)
        wanted = {source for dac in main.walk() if isinstance(dac, DacOp) for source in _sources(dac.x)}
        seen: dict[SSAValue, list[np.ndarray]] = {}

        def observe(made: Operation, results: list[np.ndarray]) -> None:
            for value, array in zip(made.results, results):
                if value in wanted:
                    seen.setdefault(value, []).append(array)

        inputs = _arrays(Path(self.data), names)
        try:
            interpret(op, inputs, store_of(ctx), observe=observe)
        except InternalError as error:
            hint = "give range=absmax or a number: parts of this model run outside of compiled code"
            raise Error("NEUC-E654", f"cannot calibrate inputs: {error}", hint=hint) from error
        seen.update((value, [array]) for value, array in zip(main.body.block.args, inputs) if value in wanted)
        for inner in main.walk():
            if isinstance(inner, DacOp):
                arrays = [array for source in _sources(inner.x) for array in seen.get(source, [])]
                lines = [x.reshape(-1, x.shape[-1])[:, inner.first.value.data :][:, : inner.rows] for x in arrays]
                inner.range = number(_range(np.concatenate(lines)))


def _sources(x: SSAValue) -> list[SSAValue]:
    """Where the numbers of a value come from: of a loop's state, from before the loop and from each step."""
    loop = x.owner.parent_op() if isinstance(x.owner, Block) else None
    if not isinstance(loop, LoopOp):
        return [x]
    if x in loop.slices:
        return _sources(loop.scanned[loop.slices.index(x)])
    place = loop.states.index(x)
    return [*_sources(loop.initial[place]), loop.terminator.states[place]]


def _range(x: np.ndarray) -> float:
    sizes = np.abs(x.astype(np.float64))
    if not sizes.size or not np.isfinite(sizes).all():
        raise Error("NEUC-E654", "cannot calibrate inputs: a tile's inputs are no numbers", hint="check the data")
    return float(min(sizes.max(), sizes.mean() + _DEVIATIONS * sizes.std())) or 1.0


def _arrays(path: Path, names: tuple[str, ...]) -> list[np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [name for name in names if name not in file.files]
            if missing:
                hint = "name its arrays after the model's inputs"
                raise Error("NEUC-E654", f"{path} has no array {missing[0]!r}", hint=hint, exit_code=Exit.USAGE)
            return [np.asarray(file[name]) for name in names]
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        if isinstance(error, OSError) and error.strerror:
            what = f"cannot read {path}, option range: {error.strerror}"
            raise Error("NEUC-E004", what, hint="check the path") from error
        hint = "give an .npz file with an array for each input"
        reason = "it is no .npz file" if "allow_pickle" in str(error) else error
        raise Error("NEUC-E654", f"{path} cannot be read ({reason})", hint=hint) from error
