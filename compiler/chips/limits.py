"""What neuromorphic chips can hold: a table with the source of every number. Nothing is computed here.

``published`` numbers stand in what the source names; ``assumed`` ones are our reading where nothing firm is public, and
are there so that a check says something rather than nothing. Chips change: look the numbers up before you rely on them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

PUBLISHED, ASSUMED = "published", "assumed"


@dataclass(frozen=True)
class Source:
    """Where a number comes from.

    Attributes:
        status: `PUBLISHED` or `ASSUMED`.
        text: by whom and where, or why it is assumed.
    """

    status: str
    text: str


@dataclass(frozen=True)
class Limit:
    """The most of something a chip has; None where there is no bound."""

    most: int | None
    source: Source


@dataclass(frozen=True)
class Memory:
    """One of several cores of different sizes that hold a layer each: words of weights, of neurons, of biases."""

    weights: int
    neurons: int
    biases: int


@dataclass(frozen=True)
class Chip:
    """A chip.

    Attributes:
        name: how the user calls it.
        title: its full name.
        limits: bounds by what they bound; keys are those of `footprint.Footprint.amounts`.
        neurons: kinds of neurons it computes, as `spike` operations without the dialect.
        neurons_source: where that comes from.
        graded: whether spikes can carry a size or a sign, and where that comes from.
        resets: kinds of resets.
        weight_bits: bits of a weight.
        convolutions: whether it shares weights; where not, convolutions count as all their connections.
        cores: if layers have cores of their own, how large those are.
        cores_source: where that comes from.
    """

    name: str
    title: str
    limits: Mapping[str, Limit]
    neurons: frozenset[str]
    neurons_source: Source
    graded: tuple[bool, Source]
    resets: frozenset[str]
    weight_bits: Limit
    convolutions: bool
    cores: tuple[Memory, ...] = ()
    cores_source: Source | None = None


_BRIEF = Source(PUBLISHED, "Intel, technology brief on Loihi 2 and Lava, 2021")
_LOIHI = Source(ASSUMED, "as Loihi: Davies et al., IEEE Micro 38(1), 2018")
_SYNSENSE = Source(PUBLISHED, "SynSense, tables of the chip's layers in sinabs 3.1")
_SPECK = Source(ASSUMED, "our reading of SynSense's documentation on DYNAP-CNN")
_XYLO = Source(ASSUMED, "our reading of SynSense's documentation on Xylo 2")
_SPIN = Source(PUBLISHED, "SpiNNaker2 datasheet 0.03, 2021")
_SPIN_GUESS = Source(ASSUMED, "a round number that fits 128 KB a core")
_PROGRAMMED = Source(PUBLISHED, "neurons are programs there")

ANY = frozenset({"if", "lif", "cuba_lif", "adaptive", "alpha", "threshold", "multi_threshold", "differential"})
"""All neurons that spike: of chips where neurons are programs."""
_K = 1024

CHIPS: dict[str, Chip] = {
    chip.name: chip
    for chip in (
        Chip(
            name="loihi2",
            title="Intel Loihi 2",
            limits={
                "neurons": Limit(_K * _K, _BRIEF),
                "neurons_in_a_core": Limit(8192, _BRIEF),
                "synapses": Limit(120_000_000, _BRIEF),
                "delay": Limit(62, _LOIHI),
            },
            neurons=ANY,
            neurons_source=_PROGRAMMED,
            graded=(True, _BRIEF),
            resets=frozenset({"soft", "hard"}),
            weight_bits=Limit(8, _BRIEF),
            convolutions=True,
        ),
        Chip(
            name="spinnaker2",
            title="SpiNNaker2",
            limits={
                "neurons": Limit(152 * 250, _SPIN_GUESS),
                "synapses": Limit(152 * 48 * _K, _SPIN_GUESS),
                "delay": Limit(16, _SPIN_GUESS),
            },
            neurons=ANY,
            neurons_source=_PROGRAMMED,
            graded=(True, _SPIN),
            resets=frozenset({"soft", "hard"}),
            weight_bits=Limit(16, _SPIN_GUESS),
            convolutions=True,
        ),
        Chip(
            name="xylo",
            title="SynSense Xylo 2",
            limits={
                "inputs": Limit(16, _XYLO),
                "hidden_neurons": Limit(1000, _XYLO),
                "outputs": Limit(8, _XYLO),
                "fan_out": Limit(63, _XYLO),
                "delay": Limit(0, _XYLO),
            },
            neurons=frozenset({"lif", "cuba_lif"}),
            neurons_source=_XYLO,
            graded=(False, _XYLO),
            resets=frozenset({"soft"}),
            weight_bits=Limit(8, _XYLO),
            convolutions=False,
        ),
        Chip(
            name="speck",
            title="SynSense Speck 2",
            limits={"delay": Limit(0, _SPECK), "recurrent_layers": Limit(0, _SPECK), "kernel": Limit(16, _SPECK)},
            neurons=frozenset({"if"}),
            neurons_source=_SPECK,
            graded=(False, _SPECK),
            resets=frozenset({"soft"}),
            weight_bits=Limit(8, _SPECK),
            convolutions=True,
            cores=tuple(
                Memory(weights * _K, neurons * _K, _K)
                for weights, neurons in zip((16, 16, 16, 32, 32, 64, 64, 16, 16), (64, 64, 64, 32, 32, 16, 16, 16, 16))
            ),
            cores_source=_SYNSENSE,
        ),
    )
}
