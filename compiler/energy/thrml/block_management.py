"""Blocks of nodes and partitions into blocks, named as THRML 0.1 names them. A state is one array for each block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from neuc.compiler.energy.thrml.pgm import AbstractNode
from neuc.errors import Error, Exit


class Block:
    """Nodes of one kind that are updated at once, or whose states are asked for together.

    Raises:
        Error: NEUC-E639, nodes of two kinds.
    """

    def __init__(self, nodes: Sequence[AbstractNode]) -> None:
        self.nodes = tuple(nodes)
        kinds = sorted({type(node).__name__ for node in self.nodes})
        if len(kinds) > 1:
            raise thrml_error(f"a block holds {' and '.join(kinds)}", "one block for each kind of node")

    @property
    def node_type(self) -> type[AbstractNode]:
        """The kind of its nodes; an empty block has none."""
        if not self.nodes:
            raise thrml_error("an empty block has no kind of node", "leave empty blocks out")
        return type(self.nodes[0])

    def __len__(self) -> int:
        return len(self.nodes)

    def __iter__(self) -> Iterator[AbstractNode]:
        return iter(self.nodes)

    def __getitem__(self, index: int) -> AbstractNode:
        return self.nodes[index]

    def __contains__(self, node: object) -> bool:
        return node in self.nodes

    def __add__(self, other: Block) -> Block:
        return Block(self.nodes + other.nodes)

    def __repr__(self) -> str:
        return f"Block(nodes={self.nodes!r})"


class BlockSpec:
    """Blocks that share no node.

    Args:
        blocks: the blocks, none empty.
        node_shape_dtypes: taken for THRML's sake; spins are bool, categories u8.

    Raises:
        Error: NEUC-E639, a node in two blocks, or an empty block.
    """

    def __init__(self, blocks: Sequence[Block], node_shape_dtypes: Mapping[type, object] | None = None) -> None:
        self.blocks = list(blocks)
        self.node_shape_dtypes = dict(node_shape_dtypes or {})
        seen: set[AbstractNode] = set()
        for number, block in enumerate(self.blocks):
            if not block.nodes:
                raise thrml_error(f"block {number} is empty", "leave empty blocks out")
            twice = next((node for node in block if node in seen), None)
            if twice is not None or len(set(block.nodes)) < len(block):
                raise thrml_error(f"{twice or block[0]} is in two blocks or twice in one", "each node in one block")
            seen.update(block)


def thrml_error(what: str, hint: str) -> Error:
    """A model in THRML's terms that cannot be one, or has what neuc does not compile."""
    return Error("NEUC-E639", what, hint=hint, exit_code=Exit.USAGE)
