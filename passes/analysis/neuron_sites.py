"""Where a network gets its neurons: the `dense.map`s that `mark-neurons` marked, and what calibration wrote on them.

A site is a map of one operand with the attribute `spike.neuron`. Which maps become sites is decided in
`mark_neurons.py`, what they become in `convert_ann_to_snn`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from xdsl.dialects.builtin import DenseArrayBase, FloatAttr, IntegerAttr, ModuleOp, StringAttr, f32, i64
from xdsl.ir import Operation

from neuc.dialects.dense import MapOp
from neuc.dialects.locations import node_names
from neuc.dialects.store import dims_of

NEURON = "spike.neuron"
"""What the neuron's output has to be: `relu`, `clip` (0 to the bound of `spike.bound`) or `identity`."""
AXIS = "spike.channel_axis"
"""Which axis has a threshold for each index, -1 for none; the other axes share it."""
BOUND = "spike.bound"
"""The upper bound of a `clip`."""
NAME = "spike.name"
"""What reports call the site."""
THRESHOLD = "spike.threshold"
"""f32 per channel: the largest output per step."""
POTENTIAL = "spike.potential"
"""f32 per channel: the membrane at the start, as a part of the threshold; half of it where nothing is said."""
SPREAD = "spike.spread"
"""How far first potentials of neighbours in an image differ, f32, one number: `PATTERN` times this, in thresholds."""
PATTERN = np.array([[-0.375, 0.125], [0.375, -0.125]], np.float32)
"""Of 2 by 2 neighbours: an ordered dither. What they round then differs, so that sums over neighbours round less, and
they fire at different times."""
GROUP = "spike.group"
"""How many neurons carry one number together, an integer; 1 where nothing is said. `group-neurons` writes them out."""
HALF = 0.5
"""First potentials in parts of the threshold, where calibration says nothing: rates are rounded to nearest instead of
down (Bu et al., AAAI 2022)."""
SCALE = "spike.scale"
"""f32 per channel: what a binary spike stands for; the threshold where nothing is said."""
BIAS = "spike.bias"
"""f32 per channel: what calibration adds to the current of every step."""
RATE = "spike.rate"
"""Of a product, and of the synapse it becomes: the share of its inputs that are not 0 in a step, f32, as calibration
measured it."""

RELU, CLIP, IDENTITY = "relu", "clip", "identity"
KINDS = (RELU, CLIP, IDENTITY)


@dataclass(frozen=True)
class Site:
    """A marked map.

    Attributes:
        op: the map.
        name: what to call it.
        kind: `relu`, `clip` or `identity`.
        axis: the channel axis; -1 if all share one threshold.
        channels: how many channels.
    """

    op: MapOp
    name: str
    kind: str
    axis: int
    channels: int

    @property
    def bound(self) -> float:
        """The upper bound of the output; infinite but for `clip`."""
        found = self.op.attributes.get(BOUND)
        return float(found.get_values()[0]) if isinstance(found, DenseArrayBase) else float("inf")

    @property
    def group(self) -> int:
        """How many neurons carry one number together."""
        found = self.op.attributes.get(GROUP)
        return found.value.data if isinstance(found, IntegerAttr) else 1

    @property
    def offsets(self) -> list[float]:
        """How far first potentials of a group's neurons are off the channel's, in thresholds: 1 / group apart."""
        return [(i + 0.5) / self.group - 0.5 for i in range(self.group)]

    def parameter(self, key: str) -> np.ndarray | None:
        """What calibration wrote under `key`, f32 [channels]; None where it wrote nothing."""
        found = self.op.attributes.get(key)
        return np.array(found.get_values(), np.float32) if isinstance(found, DenseArrayBase) else None

    def write(self, key: str, values: np.ndarray) -> None:
        """Write calibrated values, f32 [channels]."""
        self.op.attributes[key] = DenseArrayBase.from_list(f32, [float(v) for v in values.astype(np.float32)])

    def shaped(self, values: np.ndarray) -> np.ndarray:
        """Values per channel in a shape that broadcasts to the site's tensor."""
        if self.axis < 0:
            return values.reshape(())
        rank = len(dims_of(self.op.result))
        return values.reshape([self.channels if i == self.axis else 1 for i in range(self.axis, rank)])

    def starts(self, values: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        """First potentials, in thresholds, of neurons of `shape`: `values` per channel, spread over neighbours."""
        shaped, spread = self.shaped(values), self.parameter(SPREAD)
        if spread is None or self.axis != 1 or len(shape) != 4:
            return shaped
        height, width = shape[2:]
        tiles = np.tile(PATTERN, (-(-height // 2), -(-width // 2)))[:height, :width]
        return (shaped + spread[0] * tiles).astype(np.float32)

    def by_channel(self, array: np.ndarray) -> np.ndarray:
        """An array of the site's shape as [channels, elements]."""
        if self.axis < 0:
            return array.reshape(1, -1)
        return np.moveaxis(array, self.axis, 0).reshape(self.channels, -1)


def mark(op: MapOp, name: str, kind: str, axis: int, bound: float | None = None, group: int = 1) -> None:
    """Make `op` a site, of groups of neurons if `group` > 1."""
    op.attributes[NEURON] = StringAttr(kind)
    op.attributes[AXIS] = IntegerAttr(axis, i64)
    op.attributes[NAME] = StringAttr(name)
    if group > 1:
        op.attributes[GROUP] = IntegerAttr(group, i64)
    if bound is not None:
        op.attributes[BOUND] = DenseArrayBase.from_list(f32, [bound])


def write_rate(op: Operation, inputs: Sequence[np.ndarray]) -> None:
    """Write on a product the share of its inputs, given step by step, that are not 0."""
    size = sum(array.size for array in inputs)
    op.attributes[RATE] = FloatAttr(sum(int(np.count_nonzero(array)) for array in inputs) / max(1, size), f32)


def is_site(op: Operation) -> bool:
    """Whether `op` is a marked map."""
    return isinstance(op, MapOp) and NEURON in op.attributes


def site_of(op: Operation) -> Site | None:
    """The site that `op` is, or None."""
    if not isinstance(op, MapOp):
        return None
    kind, axis, name = (op.attributes.get(key) for key in (NEURON, AXIS, NAME))
    if not isinstance(kind, StringAttr) or not isinstance(axis, IntegerAttr):
        return None
    at = axis.value.data
    title = name.data if isinstance(name, StringAttr) else next(iter(node_names(op)), "neuron")
    return Site(op, title, kind.data, at, dims_of(op.result)[at].value if at >= 0 else 1)


def sites(module: ModuleOp) -> Iterator[Site]:
    """Every site, in program order."""
    for op in module.walk():
        if (found := site_of(op)) is not None:
            yield found
