"""Chains that exchange their states: what `relax_spins.py` does for each chain, for all of them in turn.

States stay where they are in scratch memory; what is exchanged is which chain has which.
"""

from __future__ import annotations

from typing import Protocol

from neuc.backends.cpu.builder import KernelBuilder, Val, f32, f64, i32, i64
from neuc.backends.cpu.kernels import relax_random as random
from neuc.dialects.interp.energy_random import EXCHANGE


class _Spec(Protocol):
    @property
    def sums(self) -> bool: ...
    @property
    def observes(self) -> bool: ...


class Spins(Protocol):
    """What is needed of `relax_spins.SpinsBuilder`: code for one chain, and which chain it is for."""

    b: KernelBuilder
    philox: random.Philox
    spins: Val
    sum_scratch: Val
    count: Val
    period: Val
    sweeps: Val
    places: Val

    @property
    def spec(self) -> _Spec: ...
    def beta_of(self, sweep: Val, chain: Val) -> Val: ...
    def fetch(self, chain: Val) -> None: ...
    def write(self, chain: Val) -> None: ...
    def sweep(self, sweep: Val, chain: Val, two_beta: Val) -> None: ...
    def observe(self, sweep: Val, chain: Val) -> None: ...
    def energy(self) -> Val: ...


class Exchange:
    """The sweeps of all chains, and exchanges between neighbours after every so many.

    Args:
        spins: what sweeps and observes one chain.
        size: bytes of a chain's spins.
    """

    def __init__(self, spins: Spins, size: Val) -> None:
        self.spins, self.b, self.size = spins, spins.b, size
        b, count = self.b, spins.count
        self.first = b.ptr(b.scratch, random.WORD_BYTES)
        self.sums = b.ptr(self.first, size * count)
        after = self.sums if not spins.spec.sums else b.ptr(self.sums, spins.places * count * 4)
        self.slots, self.energies = after, b.elem(after, count, i64)

    def emit(self) -> None:
        """Fetch, sweep, exchange, observe, write."""
        b, s = self.b, self.spins
        with b.loop(0, s.count) as chain:
            b.store(chain.i, b.elem(self.slots, chain.i, i64))
            self._turn_to(chain.i)
            s.fetch(chain.i)
        with b.loop(0, s.sweeps) as sweep:
            with b.loop(0, s.count) as chain:
                self._turn_to(chain.i)
                s.sweep(sweep.i, chain.i, s.beta_of(sweep.i, chain.i) * 2.0)
            with b.if_(b.icmp("eq", b.urem(sweep.i + 1, s.period), 0)):
                self._exchange(sweep.i)
            if s.spec.observes:
                with b.loop(0, s.count) as chain:
                    self._turn_to(chain.i)
                    s.observe(sweep.i, chain.i)
        with b.loop(0, s.count) as chain:
            self._turn_to(chain.i)
            s.write(chain.i)

    def _turn_to(self, chain: Val) -> None:
        """Let the builder work on a chain."""
        b, s = self.b, self.spins
        s.spins = b.ptr(self.first, self._slot(chain) * self.size)
        if s.spec.sums:
            s.sum_scratch = b.ptr(self.sums, chain * s.places * 4)

    def _slot(self, chain: Val) -> Val:
        return self.b.load(self.b.elem(self.slots, chain, i64), i64)

    def _exchange(self, sweep: Val) -> None:
        """Pairs of neighbours, even or odd in turn, swap with probability min(1, e^(Δβ ΔF))."""
        b, s = self.b, self.spins
        with b.loop(0, s.count) as chain:
            self._turn_to(chain.i)
            b.store(s.energy(), b.elem(self.energies, chain.i, f64))
        parity = b.udiv(sweep + 1, s.period) & 1
        with b.loop(parity, s.count - 1, 2) as pair:
            other = pair.i + 1
            betas = [b.fpext(s.beta_of(sweep, chain), f64) for chain in (pair.i, other)]
            energies = [b.load(b.elem(self.energies, chain, f64), f64) for chain in (pair.i, other)]
            argument = b.fptrunc((betas[1] - betas[0]) * (energies[1] - energies[0]), f32)
            accepted = b.icmp("ult", self._word(pair.i, sweep), random.accept_threshold(b, argument))
            with b.if_(accepted):
                mine, others = self._slot(pair.i), self._slot(other)
                b.store(others, b.elem(self.slots, pair.i, i64))
                b.store(mine, b.elem(self.slots, other, i64))

    def _word(self, pair: Val, sweep: Val) -> Val:
        b, philox = self.b, self.spins.philox
        counter = [b.splat(v, philox.lanes) for v in (pair, sweep, b.i64(0), b.i64(EXCHANGE))]
        word = philox.block(counter)[0]
        return b.trunc(b.extract(word, 0), i32)
