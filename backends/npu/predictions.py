"""What the machines without a simulator of their own would take: closed forms over their machine files.

NorthPole keeps weights and caches on its cores and passes activations from card to card; digital in-memory tiles take
activations bit by bit; Loihi 2 counts synaptic events and ends each time step with a barrier. Each prediction says what
limits it and which of the figures it used are assumed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from neuc.errors import Error
from neuc.runtime.npu.machine import Machine


@dataclass(frozen=True)
class Prediction:
    """Seconds of one unit of work, joules of it (0 if the machine file has no energies), and what sets the time."""

    seconds: float
    joules: float
    limiter: str
    assumed: tuple[str, ...]


def _figures(machine: Machine, family: str, names: Sequence[str]) -> tuple[list[float], tuple[str, ...]]:
    """Figures of a machine's extension, and which of them are assumed.

    Raises:
        Error: NEUC-E688, the machine is of another family, or lacks a figure.
    """
    missing = [name for name in names if name not in machine.extension]
    if machine.family != family or missing:
        what = f"has no figure {missing[0]}" if missing else f"is of family {machine.family}"
        raise Error(
            "NEUC-E688", f"{machine.name} {what}; {family} is wanted", hint="copy the machine file of that family"
        )
    assumed = tuple(name for name in names if machine.mark_of(f"extension.{name}")[0] == "assumed")
    return [machine.extension[name] for name in names], assumed


@dataclass(frozen=True)
class Decoder:
    """Sizes of a language model: ``kv`` is the width of keys, and of values; the feed-forward part is gated."""

    layers: int
    hidden: int
    feed_forward: int
    kv: int
    vocabulary: int

    @property
    def layer_parameters(self) -> int:
        """Weights of one layer: four projections of attention, three of the feed-forward part."""
        return 2 * self.hidden * (self.hidden + self.kv) + 3 * self.hidden * self.feed_forward


def northpole_pipeline(
    machine: Machine, model: Decoder, *, bits: int, output_cards: int, users: int, context: int, logit_bytes: int = 1
) -> Prediction:
    """One token of a pipeline with a layer a card and the output layer over `output_cards`, `users` tokens in flight.

    A card reads its weights (`bits` each) and one user's cache of `context` keys and values (8 bits) from its cores'
    memory, computes meanwhile, and sends on: activations of one byte, or its share of the logits. Sending and
    computing are not overlapped. The slowest card sets the pace, or all cards together, if too few users are in flight.

    Raises:
        Error: NEUC-E688, a card cannot hold a layer and its users' caches.
    """
    names = ("cores", f"ops_per_core_cycle_{bits}bit", "core_memory_bytes", "frame_memory_bytes")
    names = (*names, "memory_bytes_per_second", "card_link_bytes_per_second", "card_link_latency_us")
    (cores, ops, memory, frames, bandwidth, link, latency), assumed = _figures(machine, "northpole", names)
    cache = 2 * context * model.kv
    wanted, have = model.layer_parameters * bits / 8 + users * cache, cores * memory + frames
    if wanted > have:
        raise Error(
            "NEUC-E688",
            f"{wanted / 1e6:.0f} MB of weights and caches a card, {machine.name} holds {have / 1e6:.0f} MB",
            hint="use fewer users, a shorter context, or fewer bits",
        )

    def card(parameters: float, cached: float, sent: float) -> tuple[dict[str, float], float]:
        parts = {
            "reading weights": (parameters * bits / 8 + cached) / bandwidth,
            "arithmetic": 2 * parameters / (cores * ops * machine.clock_hz),
        }
        parts = {max(parts, key=lambda name: parts[name]): max(parts.values())}
        parts["the link between cards"] = latency * 1e-6 + sent / link
        return parts, sum(parts.values())

    share = model.vocabulary / output_cards
    layer = card(model.layer_parameters, cache, model.hidden)
    output = card(share * model.hidden, 0.0, share * logit_bytes)
    slowest, which = (layer, "a layer's card") if layer[1] >= output[1] else (output, "an output card")
    through = (model.layers * layer[1] + output[1]) / users
    if through > slowest[1]:
        return Prediction(through, 0.0, "too few users for so long a pipeline", assumed)
    limiter = max(slowest[0], key=lambda name: slowest[0][name])
    return Prediction(slowest[1], 0.0, f"{limiter}, of {which}", assumed)


def dimc_product(machine: Machine, m: int, k: int, n: int, *, write_weights: bool = False) -> Prediction:
    """M x K x N of int8 (or ternary, stored as int8) on in-memory tiles: all tiles work side by side on one vector.

    A vector takes one cycle for every `activation_bits_per_cycle` of its 8 bits; what needs more tiles than there are
    takes turns, and then weights are written anew.
    """
    names = ("array_rows", "array_cols", "activation_bits_per_cycle", "write_cycles_per_row", "mac_pj", "write_byte_pj")
    (rows, cols, bits, write, mac, write_byte), assumed = _figures(machine, "dimc", names)
    wanted = ceil(k / rows) * ceil(n / cols)
    turns = ceil(wanted / len(machine.tiles("core")))
    compute = m * ceil(8 / bits) * turns
    writing = turns * rows * write if write_weights or turns > 1 else 0.0
    joules = (m * k * n * mac + (k * n * write_byte if writing else 0.0)) * 1e-12
    limiter = "writing weights" if writing > compute else "activation bits"
    return Prediction((compute + writing) / machine.clock_hz, joules, limiter, assumed)


@dataclass(frozen=True)
class Network:
    """A chain of products on in-memory tiles: seconds of a sample, and between samples, as layers work side by side."""

    latency: float
    interval: float
    joules: float
    tiles: int
    assumed: tuple[str, ...]


def dimc_network(machine: Machine, products: Sequence[tuple[int, int, int]]) -> Network:
    """Products (m, k, n) of one sample after another, each on tiles of its own that keep its weights.

    Raises:
        Error: NEUC-E688, the layers together want more tiles than there are.
    """
    names = ("array_rows", "array_cols")
    (rows, cols), _ = _figures(machine, "dimc", names)
    wanted = sum(ceil(k / rows) * ceil(n / cols) for _, k, n in products)
    have = len(machine.tiles("core"))
    if wanted > have:
        raise Error(
            "NEUC-E688", f"{wanted} tiles are wanted, {machine.name} has {have}", hint="place fewer layers at once"
        )
    parts = [dimc_product(machine, m, k, n) for m, k, n in products]
    seconds = [part.seconds for part in parts]
    joules = sum(part.joules for part in parts)
    assumed = tuple(dict.fromkeys(name for part in parts for name in part.assumed))
    return Network(sum(seconds), max(seconds, default=0.0), joules, wanted, assumed)


def loihi_step(machine: Machine, layers: Sequence[tuple[int, int, float]]) -> Prediction:
    """One time step of layers (neurons, synapses, synaptic events in the step), each on as few cores as hold it.

    The slowest core sets the step, which ends in a barrier.
    """
    names = ("neurons_per_core", "synapse_memory_bytes", "synaptic_ops_per_core_cycle", "neuron_update_cycles")
    names = (*names, "barrier_us", "synaptic_op_pj")
    (neurons, memory, rate, update, barrier, energy), assumed = _figures(machine, "loihi", names)
    used, slowest = 0, 0.0
    for count, synapses, events in layers:
        cores = max(ceil(count / neurons), ceil(synapses / memory))  # a byte a synapse
        used += cores
        slowest = max(slowest, (events / rate + count * update) / cores)
    have = len(machine.tiles("core"))
    if used > have:
        raise Error(
            "NEUC-E688",
            f"{used} neuro-cores are wanted, {machine.name} has {have}",
            hint="use fewer neurons or synapses",
        )
    seconds = slowest / machine.clock_hz
    limiter = "the barrier" if barrier * 1e-6 > seconds else "the busiest core"
    return Prediction(
        seconds + barrier * 1e-6, sum(events for _, _, events in layers) * energy * 1e-12, limiter, assumed
    )
