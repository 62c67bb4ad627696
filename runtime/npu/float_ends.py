"""What a segment of a product in bf16 says follows it on its cores, read and checked: counts, tables, parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from neuc.errors import Error
from neuc.runtime.checked_json import Node
from neuc.runtime.executors.base import Array
from neuc.runtime.npu.float_finish import MOST_STAGES, MOST_VECTORS, FloatFinish, FloatStage
from neuc.runtime.npu.program_json import CODE, CURE
from neuc.runtime.npu.row_functions import checked_curve

MOST_PASSES = 64
MOST_TABLES = 64
MOST_WORDS = 1 << 16
_STORED = -1
_MOST_ARGUMENTS = 16


def float_finish_from(node: Node) -> FloatFinish | None:
    """What a segment's field ``floats`` says; None if it is empty, as of products that leave as sums."""
    node.only(["stages", "vectors", "passes", "narrow", "tables", "sources"])
    if not node.value:
        return None
    most = {"stages": MOST_STAGES, "vectors": MOST_VECTORS, "passes": MOST_PASSES}
    stages, vectors, passes = (node.get(name).integer(0, limit) for name, limit in most.items())
    tables = node.get("tables").list_of(lambda n: n.integer(1, MOST_WORDS), MOST_STAGES)
    return FloatFinish(stages, vectors, passes, tuple(tables), node.get("narrow").boolean())


def resident_tables(node: Node, weights: Mapping[str, Array], name: str) -> NDArray[np.int32]:
    """The words of a program's tables, one after the other; none where tables travel.

    Raises:
        Error: NEUC-E687, they are damaged.
    """
    sizes = node.get("tables").list_of(lambda n: n.integer(1, MOST_WORDS), MOST_TABLES)
    if not sizes:
        return np.zeros(0, np.int32)
    words, made, begin = _weight(weights, f"{name}.tables"), list[NDArray[np.int32]](), 0
    for size in sizes:
        made.append(checked_curve(words.reshape(-1)[begin : begin + size], size, name))
        begin += size
    return np.concatenate(made)


def _weight(weights: Mapping[str, Array], key: str) -> Array:
    if key not in weights:
        raise Error(CODE, f"weights {key} are missing", hint=CURE)
    return weights[key]


@dataclass(frozen=True)
class OpenStages:
    """Stages behind a product of two activations, whose scales and shifts may be activations, too."""

    sources: Sequence[Sequence[int]]
    constants: Mapping[str, Array]
    stages: Sequence[FloatStage]

    @staticmethod
    def of(node: Node, weights: Mapping[str, Array], name: str) -> OpenStages:
        """What a segment says.

        Raises:
            Error: NEUC-E687, its parts do not fit each other.
        """
        wanted = node.get("floats").get("sources")
        sources = wanted.list_of(lambda n: n.list_of(lambda m: m.integer(-2, _MOST_ARGUMENTS), 2), MOST_STAGES)
        count = len(sources)
        if not count:
            return OpenStages((), {}, ())
        numbers, places = (weights.get(f"{name}.{key}") for key in ("numbers", "places"))
        if numbers is None or places is None or numbers.shape != (count, 3) or places.shape != (count,):
            raise Error(CODE, f"segment {name}: numbers of {count} stages are missing", hint=CURE)
        stages: list[FloatStage] = []
        for i, (slope, low, high) in enumerate(np.asarray(numbers, np.float32).tolist()):
            table = weights.get(f"{name}.table{i}")
            words = None if table is None else checked_curve(table, len(table), name)
            place = int(np.asarray(places)[i])
            if words is None and place >= 0:  # a table of the program's
                words = np.zeros(0, np.int32)
            limits = None if np.isnan(low) else (low, high)
            stages.append(FloatStage(None, None, None if np.isnan(slope) else slope, limits, words, place))
        keys = [
            f"{key}{i}"
            for i in range(count)
            for key, source in zip(("scale", "shift"), sources[i])
            if source == _STORED
        ]
        return OpenStages(sources, {key: _weight(weights, f"{name}.{key}") for key in keys}, stages)

    def of_groups(self, inputs: Sequence[Array], leading: tuple[int, ...], columns: int) -> list[list[FloatStage]]:
        """The stages of each group of a call, groups being places of the leading axes."""
        count = int(np.prod(leading, dtype=np.int64))
        made: list[list[FloatStage]] = [[] for _ in range(count)]
        for i, (sources, stage) in enumerate(zip(self.sources, self.stages)):
            vectors: list[NDArray[np.float32] | None] = []
            for key, source in zip(("scale", "shift"), sources):
                array = inputs[source] if source >= 0 else self.constants.get(f"{key}{i}")
                if array is None:
                    vectors.append(None)
                    continue
                wide = np.broadcast_to(np.asarray(array, np.float32), (*leading, 1, columns))
                vectors.append(wide.reshape(count, columns))
            scale, shift = vectors
            for g, own in enumerate(made):
                parts = {"scale": None if scale is None else scale[g], "shift": None if shift is None else shift[g]}
                own.append(replace(stage, **parts))
        return made
