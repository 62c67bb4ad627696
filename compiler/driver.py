"""Running passes with everything a user may want to see of it: verification, printed IR, dumped files, times.

Which passes run is the pipelines' business (`pipeline.py`).
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.passes import ModulePass
from xdsl.printer import Printer
from xdsl.utils.exceptions import PassFailedException, VerifyException

from neuc.compiler import diagnostics, universe
from neuc.compiler.files import read_problem, replacing, write_text
from neuc.dialects.context import NeucContext
from neuc.dialects.onnx import encode_name
from neuc.dialects.weight_store import WeightStore
from neuc.errors import Error, InternalError

LEVELS = ("graph", "paradigm", "machine", "program")
LEVEL_ATTRIBUTE = "neuc.level"


class PassCrash(InternalError):
    """A pass that failed in a way no model should make it fail: a bug, with what is needed to see it again.

    Attributes:
        pipeline: the passes up to the one that failed, as `neuc opt -p` takes them.
        module_text: the module before the first of them.
    """

    def __init__(self, message: str, pipeline: str, module_text: str) -> None:
        super().__init__(message)
        self.pipeline = pipeline
        self.module_text = module_text


@dataclass(frozen=True)
class Step:
    """One pass or stage that ran: its name and seconds."""

    name: str
    seconds: float


@dataclass
class Observation:
    """What to show of a compilation.

    Attributes:
        print_after: a pass name, ``all`` or ``changed``; IR goes to `notes`.
        dump: folder for one numbered file per pass that changed something.
        verify_each: verify the module after every pass, on the machine level too.
    """

    print_after: str = ""
    dump: Path | None = None
    verify_each: bool = False


@dataclass
class Driver:
    """Runs passes over one module and keeps what was seen.

    Attributes:
        module: the module, changed in place.
        context: its context and weights.
        observation: what to show.
        steps: what ran, in order.
        printed: IR asked for by `print_after`, in order.
    """

    module: ModuleOp
    context: NeucContext
    observation: Observation = field(default_factory=Observation)
    steps: list[Step] = field(default_factory=list[Step])
    printed: list[str] = field(default_factory=list[str])
    _dumped: int = 0
    _last: str | None = None

    @property
    def level(self) -> str:
        """The level the module is on."""
        return level_of(self.module)

    def reach(self, level: str) -> None:
        """Mark the module as being on `level`."""
        self.module.attributes[LEVEL_ATTRIBUTE] = StringAttr(level)

    def run(self, passes: Sequence[ModulePass]) -> None:
        """Run `passes` in order.

        Raises:
            Error: a pass refused the model.
            PassCrash: a pass failed otherwise, or left a module that does not verify.
        """
        start = self.module.clone()
        for index, step in enumerate(passes):
            try:
                with self.timed(step.name):
                    step.apply(self.context, self.module)
                    # Kernels are thousands of operations that our own builder made: checking them is for debugging,
                    # and so is checking after every pass: what the last one left shows what any before it did.
                    each = self.observation.verify_each
                    if each or (step is passes[-1] and self.level != "machine"):
                        self.module.verify()
            except (Error, KeyboardInterrupt, MemoryError):
                raise
            except PassFailedException as error:
                raise Error("NEUC-E252", f"pass {step.name}: {str(error).splitlines()[0]}") from error
            except Exception as error:
                raise self._crash(passes[: index + 1], start, error) from error
            self.snapshot(step.name)

    def record(self, name: str, seconds: float) -> None:
        """Count something that was done elsewhere among the steps, and show the module it made."""
        self.steps.append(Step(name, seconds))
        self.snapshot(name)

    def finish(self) -> None:
        """Put the weights beside the dumped files, so that any of them can be compiled."""
        if self.observation.dump is not None:
            with replacing(self.observation.dump / diagnostics.SHARED_WEIGHTS) as temporary:
                self.context.weights.save(temporary)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Count the block among the steps."""
        start = time.perf_counter()
        yield
        self.steps.append(Step(name, time.perf_counter() - start))

    def snapshot(self, name: str) -> None:
        """Show or dump the module as asked, if it changed since the last time."""
        seen = self.observation
        wanted = seen.print_after in ("all", "changed", name)
        if not wanted and seen.dump is None:
            return
        text = print_module(self.module)
        changed = text != self._last
        self._last = text
        if wanted and (changed or seen.print_after != "changed"):
            self.printed.append(f"// ----- IR after {name} -----\n{text}")
        if seen.dump is not None and changed:
            # Locations too: compilation may go on from this file, and its report names ONNX nodes.
            self.dump_text(f"{name}.mlir", print_module(self.module, debuginfo=True))

    def dump_text(self, name: str, text: str) -> None:
        """Write one numbered file into the dump folder, if there is one."""
        folder = self.observation.dump
        if folder is not None:
            write_text(folder / f"{self._dumped:02d}-{name}", text)
            self._dumped += 1

    def _crash(self, passes: Sequence[ModulePass], start: ModuleOp, error: Exception) -> PassCrash:
        """What to say of `error` after the last of `passes`: it may come from what an earlier one left."""
        module = start.clone()
        for index, step in enumerate(passes):
            try:
                step.apply(self.context, module)
                module.verify()
            except Exception as found:
                return _pass_crash(passes[: index + 1], start, found)
        return _pass_crash(passes, start, error)


def _pass_crash(passes: Sequence[ModulePass], start: ModuleOp, error: Exception) -> PassCrash:
    what = "left a module that does not verify" if isinstance(error, VerifyException) else "failed"
    detail = str(error).splitlines()[0] if str(error) else type(error).__name__
    pipeline = ",".join(str(step) for step in passes)
    return PassCrash(f"pass {passes[-1].name} {what}: {detail}", pipeline, print_module(start, debuginfo=True))


def level_of(module: ModuleOp) -> str:
    """The level a module says it is on; graph level if it says nothing.

    Raises:
        Error: NEUC-E253, a level that does not exist.
    """
    attribute = module.attributes.get(LEVEL_ATTRIBUTE)
    level = attribute.data if isinstance(attribute, StringAttr) else LEVELS[0]
    if level not in LEVELS:
        raise Error("NEUC-E253", f"the module is on level {level!r}", hint=f"levels are {', '.join(LEVELS)}")
    return level


def read_module(path: Path) -> tuple[ModuleOp, NeucContext]:
    """A module from an ``.mlir`` file, with the weights that lie beside it.

    Raises:
        Error: the file cannot be read, parsed or verified, or its weights are damaged.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Error("NEUC-E004", f"cannot read {path}: {read_problem(error)}", hint="check the path") from error
    context = universe.new_context(diagnostics.load_weights_beside(path))
    return diagnostics.parse_module(text, context, path.name), context


def write_module(path: Path, module: ModuleOp, context: NeucContext) -> None:
    """Write ``F.mlir`` and ``F.weights.safetensors``, locations included."""
    # Saying of every operation that nothing is known costs a sixth of the time to read it back.
    text = print_module(module, debuginfo=True).replace(" loc(unknown)", "")
    with replacing(diagnostics.weights_path(path)) as temporary:
        _mentioned(context.weights, text).save(temporary)
    write_text(path, text)


def _mentioned(weights: WeightStore, text: str) -> WeightStore:
    """The entries whose names occur in `text`: the search for planes leaves many behind that nothing uses."""
    kept = WeightStore()
    for key in weights:
        if encode_name(key) in text or key in text:
            kept.add(key, weights.get(key))
    return kept


def print_module(module: ModuleOp, *, debuginfo: bool = False, generic: bool = False) -> str:
    """The module as text."""
    stream = io.StringIO()
    Printer(stream, print_debuginfo=debuginfo, print_generic_format=generic).print_op(module)
    return stream.getvalue() + "\n"
