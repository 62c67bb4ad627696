"""Finding out what a target cannot run of a model, all of it at once and without compiling."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from xdsl.traits import IsTerminator

from neuc.compiler import energies, pipeline
from neuc.compiler.driver import LEVELS, Driver
from neuc.compiler.options import CompileOptions
from neuc.compiler.quantize import quantize_fixed
from neuc.compiler.report import Report
from neuc.compiler.reporting import describe_hosts
from neuc.compiler.signature import entry_of
from neuc.compiler.source import read_model
from neuc.errors import Error, Exit, NodeRef
from neuc.passes.module_facts import notes_of
from neuc.runtime.artifact import Artifact
from neuc.runtime.loader import check_processor

OPERATORS = ("onnx.", "dense.", "ternary.", "spike.")
"""What operators of networks begin with: decoders and spiking networks come as operations on tensors already."""


@dataclass(frozen=True)
class Checked:
    """What a target can run of a model.

    Attributes:
        operators: how many operators of networks the model has.
        nodes: those that cannot run natively, with reasons.
        native_share: share of multiply-adds that can; None when there are none.
        energies: how many operations on energies it has; they run on the target, or checking it is an error.
        shared: whether the target shares the model with the CPU: what does not run on its machine runs there.
        notes: what such a target says of it: what of it is on the machine, and why the rest is not.
    """

    operators: int
    nodes: list[NodeRef]
    native_share: float | None
    energies: int = 0
    shared: bool = False
    notes: list[str] = field(default_factory=list[str])


def check_artifact(path: Path) -> tuple[str, Checked]:
    """The target an artifact is compiled for, and what of it does not run natively there.

    Raises:
        Error: it is damaged, or its code does not fit this processor.
    """
    artifact = Artifact.open(path)
    check_processor(artifact.features, artifact.architecture)
    try:
        report = Report.from_json(cast("dict[str, object]", artifact.manifest["report"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        hint = "compile the model again"
        raise Error("NEUC-E302", f"{path.name} has no report of how it was compiled", hint=hint) from error
    nodes = [NodeRef(row.node, row.op, row.reason) for row in report.hosts]
    return report.target, Checked(report.launches + len(nodes), nodes, report.native_share)


def check_model(model: object, options: CompileOptions) -> Checked:
    """Find out what the target cannot run of a model, without compiling it.

    Raises:
        Error: the model cannot be read, or is IR text beyond the graph level.
    """
    chosen = pipeline.choose_target(options)
    source = read_model(model, options.shapes)
    if source.level != LEVELS[0]:
        raise Error(
            "NEUC-E253",
            f"{source.name} is on level {source.level}",
            hint="check a model, or graph-level IR",
            exit_code=Exit.USAGE,
        )
    computing = [op.name for op in entry_of(source.module).walk() if not op.has_trait(IsTerminator)]
    operators = sum(name.startswith(OPERATORS) for name in computing)
    on_energies = sum(name.startswith("energy.") for name in computing)
    energies.refuse_quantization(source.module, options, chosen, source.name)
    energies.refuse_sampling(source.module, chosen, source.name)
    driver = Driver(source.module, source.context)
    lenient = dataclasses.replace(options, fallback="host")
    to_dense = [] if source.is_decoder else [*pipeline.graph_passes(), *pipeline.float_passes(options, chosen)]
    driver.run(to_dense)
    if not source.is_decoder and chosen.machine is not None and chosen.default_quantize == "ternary":
        quantize_fixed(driver, options)  # what its machine takes is what is ternary
    driver.run([*chosen.placing(), pipeline.partition_pass(lenient, chosen)])
    report = Report(model=source.name, target=chosen.name)
    describe_hosts(driver.module, report)
    nodes = [NodeRef(row.node, row.op, row.reason) for row in report.hosts]
    if energies.of_energies(driver.module) is not None:
        driver.run([*chosen.finishing(), *chosen.passes()])  # energies run nowhere else: what is refused is an error
    shared = chosen.machine is not None
    notes = notes_of(driver.module) if shared else []
    return Checked(operators, nodes, report.native_share, on_energies, shared, notes)
