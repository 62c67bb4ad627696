"""A design as a Graphviz graph: kernels, links and ports as nodes, channels as edges with type and depth."""

from __future__ import annotations

from neuc.runtime.npu.program import Design, Kernel, Link

_SHAPES = {"kernel": "box", "link": "ellipse", "port": "house"}


def to_dot(design: Design) -> str:
    """Graphviz text."""
    lines = [f'digraph "{_quoted(design.name)}" {{', "  rankdir=LR;"]
    for node in design.nodes:
        kind = "kernel" if isinstance(node, Kernel) else "link" if isinstance(node, Link) else "port"
        what = node.function if isinstance(node, Kernel) else node.mode if isinstance(node, Link) else node.direction
        where = "" if node.tile is None else f"\\n({node.tile[0]}, {node.tile[1]})"
        lines.append(
            f'  "{_quoted(node.name)}" [shape={_SHAPES[kind]}, label="{_quoted(node.name)}\\n{_quoted(what)}{where}"];'
        )
    for channel in design.channels:
        kind = f"{'x'.join(map(str, channel.shape))} {channel.dtype}"
        style = ", style=bold" if channel.name in design.shared else ""
        for consumer in channel.consumers:
            label = f"{channel.name}\\n{kind}, depth {channel.depth}"
            lines.append(f'  "{_quoted(channel.producer)}" -> "{_quoted(consumer)}" [label="{_quoted(label)}"{style}];')
    return "\n".join([*lines, "}", ""])


def _quoted(text: str) -> str:
    return text.replace('"', '\\"')
