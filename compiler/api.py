"""`neuc.compile`: from a model to something that runs, in one call.

Wires importers, passes, backends and the artifact writer together; what each does is theirs.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from xdsl.dialects.builtin import ModuleOp

from neuc.compiler import decided, pipeline
from neuc.compiler.compilation import Compilation
from neuc.compiler.driver import Driver, Observation, print_module
from neuc.compiler.importers.nir.options import NirOptions
from neuc.compiler.options import CompileOptions
from neuc.compiler.program import BuiltProgram
from neuc.compiler.report import Report
from neuc.compiler.source import Source, read_model, refuse_idle
from neuc.dialects.context import NeucContext
from neuc.errors import Error, Exit
from neuc.runtime.signature import signature_text

if TYPE_CHECKING:
    from neuc.runtime.session import Session


@dataclass
class Compiled:
    """A compiled model.

    Attributes:
        module: the module on the last level reached.
        context: its context and weights.
        report: what happened.
        printed: IR asked for by an `Observation`.
        external: further files the model consists of.
        levels: modules of the levels passed through, if they were kept.
        program: what runs, if compilation reached it.
        keep_ir: whether `save` puts the IR of `levels` into the artifact.
    """

    module: ModuleOp
    context: NeucContext
    report: Report
    printed: list[str] = field(default_factory=list[str])
    external: list[Path] = field(default_factory=list[Path])
    levels: dict[str, ModuleOp] = field(default_factory=dict[str, ModuleOp])
    program: BuiltProgram | None = None
    keep_ir: bool = False

    def __repr__(self) -> str:
        """Two lines: model, target, inputs and outputs, and the figures of the report; no IR."""
        program = self.program
        where = "not compiled to a program" if program is None else signature_text(program.emitted.program)
        return f"<Compiled {self.report.model} for {self.report.target}: {where}\n  {', '.join(self.report.facts())}>"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the artifact ``path`` (by custom ``.neuc``); all or nothing.

        Raises:
            Error: the file cannot be written.
        """
        start = time.perf_counter()
        ir = {f"{level}.mlir": self.as_text(level) for level in self.levels} if self.keep_ir else {}
        self.built().write(path, self.report, ir)
        self.report.artifact_bytes = Path(path).stat().st_size
        self.report.count("pack and write", time.perf_counter() - start)

    def as_text(self, level: str) -> str:
        """The IR of a level: ``graph``, ``paradigm`` or ``machine``.

        Raises:
            Error: NEUC-E008, compilation did not pass through that level.
        """
        module = self.levels.get(level)
        if module is None:
            known = ", ".join(self.levels)
            raise Error("NEUC-E008", f"there is no {level}-level IR", hint=f"there is: {known}", exit_code=Exit.USAGE)
        return print_module(module)

    def session(self, *, threads: int | None = None, profile: bool = False) -> Session:
        """The model ready to run, without a file.

        Args:
            threads: threads for each run; by default the CPUs this process may use.
            profile: record the time of every launch.
        """
        return self.built().session(threads=threads, profile=profile)

    def built(self) -> BuiltProgram:
        """The program.

        Raises:
            Error: NEUC-E008, compilation stopped before it.
        """
        if self.program is None:
            raise Error(
                "NEUC-E008",
                "compilation stopped before the program",
                hint="compile to level program",
                exit_code=Exit.USAGE,
            )
        return self.program


def compile(
    model: object,
    target: str = "cpu",
    *,
    quantize: str | None = None,
    planes: int | None = None,
    scale: str = "row",
    max_error: float | None = None,
    calib: str | os.PathLike[str] | None = None,
    shapes: Mapping[str, tuple[int | str, ...]] | None = None,
    fallback: str = "host",
    isa: str = "host",
    recognize: bool = True,
    head: str | None = None,
    kv: str = "f16",
    tune: bool = False,
    dt: float | None = None,
    reset: str = "file",
    keep_state: bool = False,
    verify: int = 0,
    example_inputs: tuple[object, ...] | None = None,
) -> Compiled:
    """Compile a model.

    Args:
        model: path of an ``.onnx``, ``.mlir``, ``.gguf`` or ``.nir`` file or of a Hugging Face folder, an
            ``onnx.ModelProto``, an ``nir.NIRGraph``, or a ``torch.nn.Module``.
        target: ``cpu``, ``cpu-tl2``, … (`neuc targets` lists them), with options in braces: ``cpu-tl2{bm=64}``.
        quantize: ``none``, ``ternary`` (every layer that can be, with `planes` planes), ``int8`` (the same layers, with
            weights of eight bits), ``auto`` (as few planes as keep the measured error within `max_error`); by
            default what the target is for: ``auto`` for CPU targets that fix an encoding, ``ternary`` for NPUs
            (``int8`` with `calib`), ``none`` for the others.
        planes: planes per ternary weight (default 2); the most that ``auto`` may use (default 4).
        scale: which ternary weights share a scale: ``row``, ``group`` (128 columns) or ``tensor``.
        max_error: error budget: mean cosine error for outputs that are normalised embeddings, relative L2 otherwise,
            of the worst output; integers count only where there are no floats; of ``auto`` 0.05 by default, else none.
        calib: ``.npz`` with input arrays to measure errors on, and, for NPUs, to fix scales of activations by.
            Without it inputs are made up from the signature: normal floats, integers below 1000
            (below the rows of a table that they are indices of), masks of ones.
        shapes: shapes of inputs by name (of torch modules by parameter of ``forward``); a string keeps a dim symbolic.
        fallback: ``host`` runs operators the target cannot in onnxruntime, ``error`` refuses them, all at once.
        isa: instruction set: ``host``, ``avx512``, ``avx2``, ``portable``.
        recognize: layers that the model quantised itself, weights with few levels and 8-bit activations, become ternary
            whatever `quantize` says, as nothing is lost.
        head: what embedding and head of decoders (GGUF, Hugging Face) become: ``int8``, ``int4``, ``int8-row``.
        kv: of decoders: element type of the key and value caches, ``f16``, ``f32`` or ``int8``.
        tune: measure on this machine which encoding each ternary linear layer is fastest in; figures are kept in the
            user's cache. Only for targets that leave a choice, such as ``cpu``.
        dt: of NIR graphs: seconds in a step; by default what the file says, or 1e-4.
        reset: of NIR graphs: ``file``; ``subtract`` or ``snntorch`` read resets to 0 as soft ones.
        keep_state: of NIR graphs: make states inputs and outputs, so that calls can go on where others ended.
        verify: compare the result with onnxruntime on this many inputs; see ``report.verified``. It is held to
            `max_error` if that is given.
        example_inputs: arguments to trace a torch module with.

    Raises:
        Error: the model, an option or the calibration data is at fault, or the error budget was missed.
    """
    try:
        options = CompileOptions(
            target=target,
            quantize=quantize,
            planes=planes,
            scale=scale,
            max_error=max_error,
            calib=None if calib is None else Path(calib),
            shapes=dict(shapes or {}),
            fallback=fallback,
            isa=isa,
            recognize=recognize,
            head=head,
            kv=kv,
            tune=tune,
            dt=dt,
            reset=reset,
            keep_state=keep_state,
        )
    except Error as error:
        raise _without_flags(error) from error
    return compile_model(model, options, verify=verify, example_inputs=example_inputs, keep_levels=True)


def _without_flags(error: Error) -> Error:
    """An error about options, with the names they have here: ``max_error`` for ``--max-error``."""
    message, hint = (
        re.sub(r"--([a-z][a-z-]*)", lambda found: found[1].replace("-", "_"), text)
        for text in (error.message, error.hint)
    )
    return Error(error.code, message, hint=hint, nodes=error.nodes, exit_code=error.exit_code)


def compile_model(
    model: object,
    options: CompileOptions,
    *,
    to_level: str = "program",
    observation: Observation | None = None,
    verify: int = 0,
    example_inputs: tuple[object, ...] | None = None,
    keep_levels: bool = False,
) -> Compiled:
    """`compile` for callers that have a `CompileOptions`.

    Args:
        model: as for `compile`.
        options: what to compile for.
        to_level: the level to stop at.
        observation: IR to print or dump on the way.
        verify: as for `compile`.
        example_inputs: as for `compile`.
        keep_levels: keep the module of every level, for `Compiled.as_text`.
    """
    start = time.perf_counter()
    pipeline.choose_target(options)  # a wrong name is told before the model is read
    source = read_model(
        model,
        options.shapes,
        example_inputs,
        head=options.head,
        kv=options.kv,
        read_as=options.read_as,
        nir=NirOptions(options.dt, options.reset, options.keep_state),
    )
    refuse_idle(source, options)
    if verify:
        source.require_reference()
    decided.refuse_late(options, source.module, source.name)
    options = decided.with_own_target(options, source.module)
    driver = Driver(source.module, source.context, observation or Observation())
    driver.record("import", time.perf_counter() - start)
    compilation = Compilation(
        driver,
        options,
        pipeline.choose_target(options),
        source.name,
        keep_levels or options.keep_ir,
        extra=source.extra,
    )
    compilation.run(to_level)
    report = compilation.report
    result = Compiled(
        driver.module,
        driver.context,
        report,
        printed=driver.printed,
        external=source.external,
        levels=compilation.levels,
        program=compilation.program,
        keep_ir=options.keep_ir,
    )
    if verify and result.program is not None:
        with driver.timed("verify"):
            _verify(result, source, options, verify)
    driver.finish()
    report.steps = [(step.name, step.seconds) for step in driver.steps]
    report.seconds = time.perf_counter() - start
    return result


def _verify(result: Compiled, source: Source, options: CompileOptions, runs: int) -> None:
    from neuc.compiler.inputs import check_calibration, load_npz
    from neuc.compiler.quantize import budget_missed
    from neuc.compiler.verification import compare_on, made_up, reference_session

    session = result.session()
    names = [spec.name for spec in session.program.inputs]
    given = None if options.calib is None else [load_npz(options.calib)]
    if given is not None:
        given = [{name: array for name, array in arrays.items() if name in names} for arrays in given]
        check_calibration(given[0], str(options.calib), names)
    choices = made_up(session.program.inputs, runs) if given is None else [given]
    agreement = compare_on(session, reference_session(source.reference()), choices)
    report, budget = result.report, result.report.budget
    report.verified, report.verify_inputs = agreement.to_json(), len(given or range(runs))
    if budget is None or agreement.error <= budget:
        return
    missed = budget_missed(agreement, budget, options, f"{options.measured_on} against onnxruntime (--verify)")
    if options.max_error is not None:
        raise missed
    if not agreement.nothing or report.layers:
        real = "give real rows with --calib: planes are chosen, and errors measured, on them"
        cure = missed.hint if options.calib is not None or agreement.nothing else real
        report.hints.append(f"warning: {missed.message}; {cure} (with --max-error this is exit code 4)")
