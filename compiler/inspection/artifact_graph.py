"""The graph of an artifact: launches of its native segments, and a node for each segment of another kind.

Needs the runtime only, so that looking into an artifact starts no compiler.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from neuc.compiler.inspection.graph import INPUT, OUTPUT, BufferFlow, Graph, Source, kernel_words
from neuc.runtime.artifact import Artifact
from neuc.runtime.program import (
    ArenaBuffer,
    Buffer,
    BufferArg,
    F32Arg,
    InputBuffer,
    IntArg,
    IoSpec,
    Launch,
    NativeSegment,
    OutputBuffer,
    Segment,
    WeightBuffer,
)

Sources = tuple[Source, ...]


def artifact_graph(artifact: Artifact) -> Graph:
    """The graph of the artifact's program, in the order it runs."""
    return _Walk(artifact).run()


@dataclass
class _Walk:
    artifact: Artifact
    graph: Graph = field(default_factory=Graph)
    _named: dict[str, Sources] = field(default_factory=dict[str, Sources])

    def run(self) -> Graph:
        program = self.artifact.program
        for spec in program.inputs:
            node = self.graph.add(INPUT, names=[spec.name], outputs=[io_text(spec)])
            self._named[spec.name] = (Source(node.id, 0),)
        scoped = len(program.schedule) > 1
        for step in program.schedule:
            segment = program.segments[step.segment]
            scope = (step.segment,) if scoped else ()
            arguments = [self._named.get(name, ()) for name in step.inputs]
            if isinstance(segment, NativeSegment):
                made = self._native(segment, step.segment, arguments, scope)
            else:
                made = self._other(segment, step.segment, arguments, scope, len(step.outputs))
            self._named.update(zip(step.outputs, made))
        for spec in program.outputs:
            attributes = {"type": io_text(spec)}
            self.graph.add(OUTPUT, names=[spec.name], attributes=attributes, inputs=self._named.get(spec.name, ()))
        return self.graph

    def _native(
        self, segment: NativeSegment, name: str, arguments: Sequence[Sources], scope: Sequence[str]
    ) -> list[Sources]:
        flow = BufferFlow[int]()
        outputs: dict[int, int] = {}
        for number, buffer in enumerate(segment.buffers):
            match buffer:
                case InputBuffer(index) if index < len(arguments):
                    flow.given(number, arguments[index])
                case OutputBuffer(index):
                    outputs[index] = number
                case _:
                    pass
        for number, launch in enumerate(segment.launches):
            self._launch(launch, segment, flow, self._nodes(name, number, launch), scope)
        return [flow.sources(outputs[i]) if i in outputs else () for i in range(len(segment.outputs))]

    def _launch(
        self, launch: Launch, segment: NativeSegment, flow: BufferFlow[int], names: Sequence[str], scope: Sequence[str]
    ) -> None:
        used = [(arg.buffer, segment.buffers[arg.buffer]) for arg in launch.args if isinstance(arg, BufferArg)]
        read, written = flow.split([number for number, buffer in used if not isinstance(buffer, WeightBuffer)])
        plain = [_plain(arg) for arg in launch.args if not isinstance(arg, BufferArg)]
        node = self.graph.add(
            kernel_words(launch.kernel),
            names=names,
            scope=scope,
            attributes={
                "kernel": launch.kernel,
                "work": str(launch.work),
                "grain": str(launch.grain),
                **({"arguments": ", ".join(plain)} if plain else {}),
                **self._weights([buffer for _, buffer in used]),
            },
            inputs=[source for number in read for source in flow.sources(number)],
            outputs=[_size(segment, number) for number in written],
        )
        flow.wrote(node, written)

    def _weights(self, buffers: Sequence[Buffer]) -> dict[str, str]:
        arrays = ((b.key, self.artifact.weights[b.key]) for b in buffers if isinstance(b, WeightBuffer))
        return {f"weight {key}": f"{a.dtype}[{', '.join(map(str, a.shape))}]" for key, a in arrays}

    def _other(
        self, segment: Segment, name: str, arguments: Sequence[Sources], scope: Sequence[str], outputs: int
    ) -> list[Sources]:
        nodes = list(dict.fromkeys(node for number in range(self._count(name)) for node in self._map(name, number)))
        node = self.graph.add(
            segment.kind,
            names=nodes or [name],
            scope=scope,
            attributes={"segment": name, "operations": str(self._count(name))},
            inputs=[source for argument in arguments for source in argument],
            outputs=[""] * outputs,
        )
        return [(Source(node.id, index),) for index in range(outputs)]

    def _nodes(self, segment: str, number: int, launch: Launch) -> list[str]:
        """ONNX node names of a launch: those of the debug map, else its label."""
        return self._map(segment, number) or ([launch.label] if launch.label else [])

    def _map(self, segment: str, number: int) -> list[str]:
        entries = self._entries(segment)
        names = entries[number] if number < len(entries) else None
        return [name for name in cast("list[object]", names) if isinstance(name, str)] if _is_list(names) else []

    def _count(self, segment: str) -> int:
        return len(self._entries(segment))

    def _entries(self, segment: str) -> list[object]:
        """The debug map is for people and any JSON; nothing but names in lists is taken from it."""
        whole = self.artifact.debug_map
        found = cast("Mapping[str, object]", whole).get(segment) if isinstance(whole, Mapping) else None
        return cast("list[object]", found) if _is_list(found) else []


def io_text(spec: IoSpec) -> str:
    """`float32[B, 16, 384]`."""
    return f"{spec.dtype}[{', '.join(map(str, spec.shape)) if spec.ranked else 'of any rank'}]"


def _is_list(value: object) -> bool:
    return isinstance(value, list)


def _size(segment: NativeSegment, number: int) -> str:
    match segment.buffers[number]:
        case ArenaBuffer(_, nbytes) if nbytes is not None:
            return f"{nbytes} bytes"
        case OutputBuffer(index):
            return io_text(segment.outputs[index])
        case _:
            return ""


def _plain(arg: IntArg | F32Arg) -> str:
    return str(arg.value)
