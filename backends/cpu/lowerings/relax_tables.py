"""Factor graphs with tables as the lists that `TableSweepsKernel` walks. Plain numpy: no IR, no kernels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neuc.dialects.energy_factors import FactorGraph, Table

Array = np.ndarray


@dataclass(frozen=True)
class TableLists:
    """The slots 8 to 14 of `TableSweepsKernel`, and where a site's counts are.

    Attributes:
        edges: i32 [n + 1].
        near: i32.
        weights: f32.
        starts: i32 [n + 1].
        uses: i32 [*, 4].
        readers: i32 [*, 2].
        values: f32.
        firsts: i32 [n], the first count of a site.
        total: counts of a chain.
    """

    edges: Array
    near: Array
    weights: Array
    starts: Array
    uses: Array
    readers: Array
    values: Array
    firsts: Array
    total: int


def table_lists(graph: FactorGraph) -> TableLists:
    """Uses of a site are in the order of tables, of places in them, and of factors."""
    start, near, weights = graph.adjacency()
    owners, uses, readers = list[int](), list[list[int]](), list[list[int]]()
    offset = 0
    for table in graph.tables:
        for slot in range(table.spins.shape[1] + table.categories.shape[1]):
            for factor in range(len(table.spins)):
                site, place, stride, others = _use(table, slot, factor)
                owners.append(site)
                uses.append([len(readers), len(others), offset + place, stride])
                readers += others
        offset += table.values.size
    order = np.argsort(np.array(owners, np.int64), kind="stable")
    starts = np.zeros(graph.sites + 1, np.int32)
    np.cumsum(np.bincount(np.array(owners, np.int64), minlength=graph.sites), out=starts[1:])
    widths = np.maximum(graph.levels, 1)
    return TableLists(
        edges=start.astype(np.int32),
        near=near.astype(np.int32),
        weights=weights,
        starts=starts,
        uses=np.array(uses, np.int32).reshape(-1, 4)[order],
        readers=np.array(readers, np.int32).reshape(-1, 2),
        values=np.concatenate([t.values.reshape(-1) for t in graph.tables] or [np.zeros(0, np.float32)]),
        firsts=(np.cumsum(widths) - widths).astype(np.int32),
        total=int(widths.sum()),
    )


def _use(table: Table, slot: int, factor: int) -> tuple[int, int, int, list[list[int]]]:
    """The site, where the factor's values begin, the site's own stride, and (site, stride) of the other variables."""
    spins, categories = table.spins[factor].tolist(), table.categories[factor].tolist()
    shape = table.values.shape[1:]
    strides = [int(np.prod(shape[k + 1 :])) for k in range(len(shape))]
    place = factor * int(np.prod(shape)) if len(table.values) > 1 else 0
    entries = [[site, -1] for site in spins] + [list(pair) for pair in zip(categories, strides)]
    site, stride = entries[slot]
    return site, place, max(stride, 0), entries[:slot] + entries[slot + 1 :]
