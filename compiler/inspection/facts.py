"""What `neuc inspect` tells of a model or an artifact, as plain data: files, signature, sizes, counts, the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, cast

from neuc.compiler.files import ARTIFACT_SUFFIX
from neuc.compiler.inspection.graph import Graph
from neuc.compiler.report import Report
from neuc.compiler.report_text import report_lines
from neuc.errors import Error

if TYPE_CHECKING:
    from neuc.compiler.source import Source
    from neuc.runtime.artifact import Artifact
    from neuc.runtime.program import IoSpec, Program


@dataclass
class Inspected:
    """A file that is looked into; it is read when that is asked for first.

    Attributes:
        path: the file.
    """

    path: Path

    @cached_property
    def artifact(self) -> Artifact | None:
        """The artifact, if it is one.

        Raises:
            Error: the file is damaged.
        """
        if self.path.suffix != ARTIFACT_SUFFIX:
            return None
        from neuc.runtime.artifact import Artifact

        return Artifact.open(self.path)

    @cached_property
    def source(self) -> Source:
        """The module of a file that is no artifact.

        Raises:
            Error: the file is damaged or no model.
        """
        from neuc.compiler.source import read_model

        return read_model(self.path)

    def facts(self) -> dict[str, object]:
        """Everything there is to tell, as plain data.

        Raises:
            Error: the model has no entry, or its inputs are no tensors.
        """
        if self.artifact is not None:
            return _of_artifact(self.artifact)
        return _of_source(self.path, self.source)

    def graph(self) -> Graph:
        """Operations or launches, and what reads what."""
        if self.artifact is not None:
            from neuc.compiler.inspection.artifact_graph import artifact_graph

            return artifact_graph(self.artifact)
        from neuc.compiler.inspection.module_graph import module_graph

        return module_graph(self.source.module)


def report_of(facts: Mapping[str, object]) -> Report | None:
    """The compile report among the facts; None where there is none.

    Raises:
        Error: NEUC-E302, it does not follow its schema.
    """
    report = facts.get("report")
    if report is None:
        return None
    try:
        found = Report.from_json(cast("Mapping[str, object]", report))
        report_lines(found)  # what cannot be shown is damaged
        return found
    except (TypeError, KeyError, ValueError, AttributeError, ArithmeticError) as error:
        raise Error(
            "NEUC-E302", f"{facts['file']}: its compile report is damaged: {error}", hint="compile the model again"
        ) from error


def plain(key: str, value: object) -> str:
    """A manifest entry for people; what is nested deeper is counted, and `--json` shows it."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_short(item)}" for name, item in cast("Mapping[str, object]", value).items())
    if isinstance(value, list):
        return (".".join if key == "format" else ", ".join)(map(str, cast("list[object]", value)))
    return str(value)


def _short(value: object) -> str:
    if isinstance(value, list) and any(isinstance(item, Mapping) for item in cast("list[object]", value)):
        return f"({len(cast('list[object]', value))} entries)"
    if isinstance(value, Mapping):
        return f"({plain('', cast('Mapping[str, object]', value))})"
    return f"{value:g}" if isinstance(value, float) else str(value)


def plain_lines(key: str, value: object) -> list[str]:
    """A manifest entry for people, a line for each part where parts have parts of their own."""
    parts = cast("Mapping[str, object]", value) if isinstance(value, Mapping) else {}
    if not any(isinstance(part, Mapping) for part in parts.values()):
        return [f"{key}: {plain(key, value)}"]
    return [f"{key}:", *(f"  {name}: {_part(part)}" for name, part in parts.items())]


def _part(value: object) -> str:
    return plain("", cast("Mapping[str, object]", value)) if isinstance(value, Mapping) else _short(value)


def _of_artifact(artifact: Artifact) -> dict[str, object]:
    program = artifact.program
    return {
        "file": str(artifact.path),
        "kind": "artifact",
        "bytes": artifact.path.stat().st_size,
        "manifest": {k: v for k, v in artifact.manifest.items() if k not in ("members", "report", "signature")},
        "inputs": [_io(spec) for spec in program.inputs],
        "outputs": [_io(spec) for spec in program.outputs],
        "segments": {name: segment.kind for name, segment in program.segments.items()},
        "launches": dict(_launches(program)),
        "members": {name: size for name, size in sorted(artifact.sizes.items())},
        "report": artifact.manifest.get("report"),
    }


def _launches(program: Program) -> Counter[str]:
    from neuc.runtime.program import NativeSegment

    native = [s for s in program.segments.values() if isinstance(s, NativeSegment)]
    return Counter(launch.kernel for segment in native for launch in segment.launches)


def _of_source(path: Path, source: Source) -> dict[str, object]:
    from neuc.compiler.signature import signature_of

    inputs, outputs = signature_of(source.module)
    names = Counter(
        op.name for op in source.module.walk() if "." in op.name and not op.name.startswith(("builtin.", "func."))
    )
    sizes = {key: source.context.weights.get(key).nbytes for key in source.context.weights}
    return {
        "file": str(path),
        "kind": f"{source.level}-level module",
        "bytes": path.stat().st_size,
        "inputs": [_io(spec) for spec in inputs],
        "outputs": [_io(spec) for spec in outputs],
        "operations": dict(names.most_common()),
        "weights": {"entries": len(sizes), "bytes": sum(sizes.values())},
    }


def _io(spec: IoSpec) -> dict[str, object]:
    index = {} if spec.index is None else {"index": {"rows": spec.index.rows, "node": spec.index.node}}
    return {"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape) if spec.ranked else None, **index}


def index_text(item: Mapping[str, object]) -> str:
    """What an input of these facts picks from, if it is an index of tables, as the end of a line."""
    index = cast("Mapping[str, object] | None", item.get("index"))
    return "" if index is None else f", indices of the {index['rows']} rows of {index['node']}"
