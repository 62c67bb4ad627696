"""`Program`: IR that computes something with an energy; printed, saved, interpreted, compiled and run."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp

from neuc.compiler import diagnostics
from neuc.compiler.driver import print_module, read_module, write_module
from neuc.compiler.energy.defaults import check_seed, default_inputs
from neuc.compiler.energy.divergence import divergence, first_broken, growth
from neuc.compiler.universe import new_context
from neuc.dialects.context import NeucContext
from neuc.dialects.interp.core import interpret
from neuc.dialects.onnx import function_names
from neuc.dialects.store import element_of, numpy_dtype
from neuc.errors import Error, Exit
from neuc.passes.color_blocks import ColorBlocks
from neuc.passes.module_facts import facts_of

if TYPE_CHECKING:
    from neuc.runtime.session import Session

Array = np.ndarray
TARGET = "cpu-relax"


class Results(Mapping[str, Array]):
    """The arrays of a run: by name, or as attributes."""

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self._arrays = dict(arrays)

    def __getitem__(self, name: str) -> Array:
        return self._arrays[name]

    def __getattr__(self, name: str) -> Array:
        if name.startswith("_") or name not in self._arrays:
            raise AttributeError(f"the program has no result {name!r}; it has {', '.join(self._arrays)}")
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)


class Program:
    """A module of `energy` operations with its constants.

    Attributes:
        module: @main and what it calls.
        context: its context and weights.
        target: what `run` compiles it for.
    """

    def __init__(self, module: ModuleOp, context: NeucContext, target: str = TARGET) -> None:
        module.verify()
        self.target = target
        self.module = module
        self.context = context
        self._session: Session | None = None

    @property
    def main(self) -> FuncOp:
        """The entry."""
        return next(op for op in self.module.ops if isinstance(op, FuncOp) and op.sym_name.data == "main")

    @property
    def inputs(self) -> tuple[str, ...]:
        """What a run may be given; `seed` and `beta` have defaults."""
        return function_names(self.main)[0]

    def text(self) -> str:
        """The module as text; arrays of more than 16 elements stay in the weight store."""
        return print_module(self.module)

    def edited(self, text: str) -> Program:
        """The program that a changed text says, with the same weights."""
        context = new_context(self.context.weights)
        return Program(diagnostics.parse_module(text, context, "edited text"), context, self.target)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write ``F.mlir`` and ``F.weights.safetensors``: `neuc compile F.mlir` goes on from there."""
        write_module(Path(path), self.module, self.context)

    def interpret(self, *, sweeps: ArrayLike | None = None, **inputs: ArrayLike) -> Results:
        """Run in the numpy reference interpreter; inputs as `run` has them."""
        module = self.module.clone()
        ColorBlocks().apply(self.context, module)
        feeds = self._feeds(inputs, sweeps)
        results = interpret(module, [feeds[name] for name in self.inputs], self.context.weights)
        named = Results(dict(zip(function_names(self.main)[1], results, strict=True)))
        if (error := growth(self, feeds, named)) is not None:  # pyright: ignore[reportArgumentType]
            raise error
        return named

    def run(self, *, sweeps: ArrayLike | None = None, **inputs: ArrayLike) -> Results:
        """Run natively on all CPUs; compiled by the first run.

        Args:
            sweeps: instead of the program's default.
            inputs: the program's inputs by name, except those with defaults.

        Raises:
            Error: NEUC-E621, finite inputs gave NaN, infinity or numbers that grow without end: a relaxation diverges.
        """
        if self._session is None:
            self._session = self.session()
        feeds = self._feeds(inputs, sweeps)
        names = [spec.name for spec in self._session.program.outputs]
        results = Results(dict(zip(names, self._session.run(None, feeds), strict=True)))
        if (broken := first_broken(feeds, results)) is not None:
            # Seen through the folder and through the package, this file has two classes of one name for pyright.
            raise divergence(self, feeds, *broken)  # pyright: ignore[reportArgumentType]
        if (error := growth(self, feeds, results)) is not None:  # pyright: ignore[reportArgumentType]
            raise error
        return results

    def session(self, *, threads: int | None = None, isa: str = "host") -> Session:
        """Compile; the session takes all inputs, also those with defaults (`feeds` gives them)."""
        from neuc.compiler.api import compile_model
        from neuc.compiler.options import CompileOptions
        from neuc.compiler.source import Source

        source = Source(self.module.clone(), self.context, "energy", None, graph_level=False)
        return compile_model(source, CompileOptions(target=self.target, isa=isa)).session(threads=threads)

    def feeds(self, *, sweeps: ArrayLike | None = None, **inputs: ArrayLike) -> dict[str, Array]:
        """All inputs of a run, as `Session.run` takes them."""
        return self._feeds(inputs, sweeps)

    def _feeds(self, inputs: Mapping[str, ArrayLike], sweeps: ArrayLike | None) -> dict[str, Array]:
        count = None if sweeps is None else _whole(sweeps)
        if "seed" in inputs and np.ndim(inputs["seed"]) == 0:
            inputs = {**inputs, "seed": check_seed(inputs["seed"])}
        given = dict(default_inputs(facts_of(self.module).get("energy"), count)) | dict(inputs)
        names = self.inputs
        missing, unknown = [n for n in names if n not in given], [n for n in inputs if n not in names]
        if missing or unknown:
            what = f"input {missing[0]} is missing" if missing else f"there is no input {unknown[0]}"
            raise Error("NEUC-E614", what, hint=f"inputs: {', '.join(names)}", exit_code=Exit.USAGE)
        types = self.main.function_type.inputs.data
        dtypes = [numpy_dtype(element_of(t)) for t in types]
        return {n: np.asarray(given[n], dtype, order="C") for n, dtype in zip(names, dtypes)}


def read_program(path: str | os.PathLike[str]) -> Program:
    """A program that `Program.save` wrote, also after someone edited it."""
    return Program(*read_module(Path(path)))


def _whole(sweeps: ArrayLike) -> int:
    count = np.asarray(sweeps)
    if count.ndim or not np.issubdtype(count.dtype, np.integer):
        raise Error("NEUC-E605", f"sweeps={sweeps} is no whole number", hint="give how many sweeps to make")
    return int(count)
