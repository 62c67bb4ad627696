"""Nodes of a graphical model, named as THRML 0.1 names them; nothing of how they are sampled."""

from __future__ import annotations

import itertools

_COUNTER = itertools.count()


class AbstractNode:
    """A random variable. Nodes are told apart by identity and ordered by when they were made."""

    def __init__(self) -> None:
        self.number = next(_COUNTER)

    def __lt__(self, other: AbstractNode) -> bool:
        return self.number < other.number

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.number})"


class SpinNode(AbstractNode):
    """A spin, -1 or 1; in states False or True."""


class CategoricalNode(AbstractNode):
    """One of K categories, u8 0 … K - 1 in states; K is what its factors' weights say."""
