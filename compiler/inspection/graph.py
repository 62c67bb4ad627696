"""The graph that every view of a model shares: operations or launches, and which of them read what others make.

How IR modules and artifacts become one is told in `module_graph.py` and `artifact_graph.py`, how it is shown in
`dot.py`, `page.py` and `model_explorer.py`. Standard library only.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

INPUT, OUTPUT = "input", "output"
"""What the nodes for a model's inputs and outputs call their operation."""


@dataclass(frozen=True)
class Source:
    """Output number `output` of the node `node`."""

    node: str
    output: int


@dataclass(frozen=True)
class Node:
    """An operation, a launch, an input or an output.

    Attributes:
        id: unique in the graph; letters and digits.
        op: operation or kernel family, `input` or `output`.
        names: ONNX nodes it stands for, or the name of the input or output.
        scope: the segment and the enclosing operations it stands in, outermost first.
        attributes: what else there is to say, as text.
        inputs: what it reads, in order; constants are among the attributes.
        outputs: types or sizes of what it makes.
    """

    id: str
    op: str
    names: tuple[str, ...]
    scope: tuple[str, ...]
    attributes: Mapping[str, str]
    inputs: tuple[Source, ...]
    outputs: tuple[str, ...]

    @property
    def name(self) -> str:
        """The first of its names, or nothing."""
        return self.names[0] if self.names else ""

    @property
    def producers(self) -> tuple[str, ...]:
        """The nodes it reads from, each once."""
        return tuple(dict.fromkeys(source.node for source in self.inputs))


@dataclass
class Graph:
    """Nodes, every one after those it reads from."""

    nodes: list[Node] = field(default_factory=list[Node])

    def add(
        self,
        op: str,
        *,
        names: Sequence[str] = (),
        scope: Sequence[str] = (),
        attributes: Mapping[str, str] | None = None,
        inputs: Sequence[Source] = (),
        outputs: Sequence[str] = (),
    ) -> Node:
        """Append a node; what each part is stands at `Node`."""
        number = f"n{len(self.nodes)}"
        node = Node(number, op, tuple(names), tuple(scope), dict(attributes or {}), tuple(inputs), tuple(outputs))
        self.nodes.append(node)
        return node

    def consumers(self) -> dict[str, list[str]]:
        """For each node those that read from it, each once."""
        found: dict[str, list[str]] = {node.id: [] for node in self.nodes}
        for node in self.nodes:
            for producer in node.producers:
                found[producer].append(node.id)
        return found


_PARAMETERS = ("kind", "no")
"""Words of kernel names that begin a parameter."""


def kernel_words(kernel: str) -> str:
    """What a kernel is called without its parameters: `lut_accumulate` of `lut_accumulate_tables_quads_rows384…`."""
    first, *rest = kernel.split("_", 2)[:2]
    return "_".join([first, *(word for word in rest if word.isalpha() and word.islower() and word not in _PARAMETERS)])


KeyT = TypeVar("KeyT", bound=Hashable)


@dataclass
class BufferFlow(Generic[KeyT]):
    """Who wrote each buffer, so that launches, which only name buffers, can be linked.

    Launches do not say which of their buffers they write. Nobody reads a buffer before it is written, so the first to
    name one writes it; and kernels name what they write after what they read, so the last that can be written is.
    """

    _writers: dict[KeyT, list[Source]] = field(default_factory=dict[KeyT, list[Source]])
    _given: set[KeyT] = field(default_factory=set[KeyT])

    def given(self, buffer: KeyT, sources: Sequence[Source]) -> None:
        """Say where a buffer comes from that is full from the start and never written."""
        self._writers[buffer] = list(sources)
        self._given.add(buffer)

    def sources(self, buffer: KeyT) -> tuple[Source, ...]:
        """Everything that wrote to a buffer so far."""
        return tuple(self._writers.get(buffer, ()))

    def split(self, buffers: Sequence[KeyT]) -> tuple[list[KeyT], list[KeyT]]:
        """Which of a launch's buffers, weights not among them, it reads and which it writes."""
        distinct = list(dict.fromkeys(buffers))
        last = [b for b in distinct if b not in self._given][-1:]
        written = [b for b in distinct if b not in self._writers or b in last]
        return [b for b in distinct if b not in written], written

    def wrote(self, node: Node, buffers: Sequence[KeyT]) -> None:
        """Note that the outputs of `node` went to `buffers`, in order."""
        for index, buffer in enumerate(buffers):
            self._writers.setdefault(buffer, []).append(Source(node.id, index))
