"""A graph in Graphviz' language."""

from __future__ import annotations

from neuc.compiler.inspection.graph import Graph


def to_dot(graph: Graph) -> str:
    """The graph as a `digraph`; operations and their ONNX nodes are the labels."""
    lines = ["digraph model {"]
    for node in graph.nodes:
        label = "\\n".join(map(_quoted, (node.op, *node.names)))
        lines.append(f'  "{node.id}" [label="{label}"];')
    for node in graph.nodes:
        lines += [f'  "{producer}" -> "{node.id}";' for producer in node.producers]
    return "\n".join([*lines, "}"])


def _quoted(text: str) -> str:
    """`text` within double quotes; line breaks would end the label's line."""
    return " ".join(text.split()).replace("\\", "\\\\").replace('"', '\\"')
