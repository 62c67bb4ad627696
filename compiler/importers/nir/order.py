"""In which order a NIR graph is computed within a step, and which edges carry what was there one step before.

NIR is a continuous-time graph and says nothing about steps. A Delay of a step or more breaks the cycles it is on.
Other cycles are broken where a walk from the inputs comes back to a node it is still on the way from; for loops with
one entry that does not depend on the order of the edges. The delay of a step lies behind the neuron that feeds that
edge, so that weights and biases in between work in every step.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from neuc.compiler.importers.nir.graph import STATEFUL, Node
from neuc.errors import Error

_CARRIERS = STATEFUL | {"Threshold", "Input"}
"""Nodes whose last output can be kept for the next step."""


@dataclass(frozen=True)
class Order:
    """An order of evaluation.

    Attributes:
        nodes: every node, after all that it reads in the same step.
        sources: what each node reads: (node, whether its value of the step before is meant).
        early: Delay nodes on cycles, which answer before they read.
    """

    nodes: tuple[str, ...]
    sources: Mapping[str, tuple[tuple[str, bool], ...]]
    early: frozenset[str] = frozenset()


def order_of(
    nodes: Mapping[str, Node], edges: Sequence[tuple[str, str]], delays: Collection[str] = frozenset()
) -> Order:
    """The order of evaluation.

    Args:
        nodes: the nodes by name.
        edges: between them.
        delays: Delay nodes whose delays are all of a step or more.

    Raises:
        Error: NEUC-E505, a cycle in which nothing remembers: its value at a time would depend on itself.
    """
    after: dict[str, list[str]] = {name: [] for name in nodes}
    before: dict[str, list[str]] = {name: [] for name in nodes}
    for source, target in edges:
        after[source].append(target)
        before[target].append(source)
    _refuse_delayless(nodes, after)
    early = frozenset(name for name in delays if name in _reached(after, after[name]))
    # Sorted, as files do not keep the order of nodes.
    roots = sorted(n for n in nodes if nodes[n].kind == "Input") + sorted(early) + sorted(nodes)
    cycles, finished = _walk(roots, {n: [t for t in targets if t not in early] for n, targets in after.items()})
    back = {(cycle[-1], cycle[0]) for cycle in cycles}
    sources = {name: tuple((s, (s, name) in back) for s in before[name]) for name in nodes}
    return Order(tuple(reversed(finished)), sources, early)


def _reached(after: Mapping[str, Sequence[str]], begin: Iterable[str]) -> set[str]:
    seen, left = set(begin), list(begin)
    while left:
        more = set(after[left.pop()]) - seen
        seen |= more
        left += more
    return seen


def _walk(roots: Iterable[str], after: Mapping[str, Sequence[str]]) -> tuple[list[list[str]], list[str]]:
    """Every cycle that a depth-first walk closes, and the nodes in the order it leaves them."""
    cycles: list[list[str]] = []
    finished: list[str] = []
    state: dict[str, int] = {}
    for root in roots:
        if root in state:
            continue
        state[root] = 1
        path = [(root, iter(after[root]))]
        while path:
            name, rest = path[-1]
            target = next(rest, None)
            if target is None:
                path.pop()
                state[name] = 2
                finished.append(name)
            elif state.get(target) == 1:
                names = [n for n, _ in path]
                cycles.append(names[names.index(target) :])
            elif target not in state:
                state[target] = 1
                path.append((target, iter(after[target])))
    return cycles, finished


def _refuse_delayless(nodes: Mapping[str, Node], after: Mapping[str, Sequence[str]]) -> None:
    """Refuse cycles of nodes that do not remember anything."""
    plain = {n: [t for t in after[n] if nodes[t].kind not in STATEFUL] for n in nodes if nodes[n].kind not in STATEFUL}
    for cycle in _walk(plain, plain)[0][:1]:
        raise Error(
            "NEUC-E505",
            f"a cycle without delay: {' -> '.join([*cycle, cycle[0]])}",
            hint="put a Delay, or a neuron, into the cycle",
            nodes=[nodes[n].ref for n in cycle],
        )


def is_carrier(node: Node) -> bool:
    """Whether a node's last output is kept; another's is computed again from what it read."""
    return node.kind in _CARRIERS
