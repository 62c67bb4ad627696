"""Whole lives of active-inference agents: their worlds, beliefs, policies and actions, step after step in one kernel.

Beliefs and expected free energies are those of `relax_beliefs.py`. An agent is a work unit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.dialects import llvm

from neuc.backends.cpu import vecmath
from neuc.backends.cpu.builder import KernelBuilder, Val, f32, i32, i64, vec
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.base import KernelSpec
from neuc.backends.cpu.kernels.relax_beliefs import EPSILON, EfeKernel, MeanFieldKernel
from neuc.backends.cpu.kernels.relax_random import Philox
from neuc.backends.cpu.kernels.strided import Args
from neuc.dialects.energy_rollout import TIE
from neuc.dialects.interp.energy_random import GROUP, WORLD


@dataclass(frozen=True)
class RolloutKernel(KernelSpec):
    """`steps` steps of each agent: draw states and outcomes, infer, weigh policies, act.

    Slots: of each modality ln A f32; of each factor ln D f32, transitions of B and of each group its columns as
    `EfeKernel` has them, the tree of policies; first actions i32 [P, factors]; thresholds i64 of the world, of each
    modality [S…, O − 1], of each factor [S…, U, S' − 1] and [S − 1]; the seed; results outcomes, states, actions i32
    and −G f32, [agents, steps, …]; beliefs f32 of each factor; nodes; P. Work: agents. Scratch: `scratch_bytes`.

    Attributes:
        mean: the iterations; its tables are the modalities, then the factors' priors.
        efe: how policies are weighed.
        modalities: factors of the axes of each A.
        outcomes: O of each modality.
        controls: U of each factor.
        policies: how many there are.
    """

    mean: MeanFieldKernel
    efe: EfeKernel
    modalities: tuple[tuple[int, ...], ...]
    outcomes: tuple[int, ...]
    controls: tuple[int, ...]
    policies: int
    steps: int
    gamma: float

    family = "relax_rollout"
    written = None

    @property
    def factors(self) -> int:
        """How many there are."""
        return len(self.efe.sizes)

    def parts(self, isa: Isa) -> list[int]:
        """Sizes of the parts of scratch memory: −G's, priors, weights of policies, of actions, integers, words."""
        priors = sum(self.efe.padded(size, isa) for size in self.efe.sizes)
        words = -(-(self.factors + len(self.outcomes)) // GROUP) * GROUP
        integers = 2 * self.factors + len(self.outcomes)
        parts = [
            (self.efe.depth + 1) * self.efe.level(isa),
            priors,
            self.efe.padded(self.policies, isa),
            sum(self.controls),
            integers,
            words,
        ]
        return [self.efe.padded(part, isa) for part in parts]

    def scratch_bytes(self, isa: Isa) -> int:
        """All parts."""
        return 4 * sum(self.parts(isa))

    def build(self, isa: Isa) -> llvm.FuncOp:
        """Agents, steps."""
        b = KernelBuilder(self.name, isa)
        args = Args(b)
        life = _Life(self, b, args)
        with b.loop(b.begin, b.end) as unit:
            life.begin()
            with b.loop(0, self.steps) as step:
                life.step(unit.i, step.i)
        return b.finish()


class _Life:
    """The code of one agent's step."""

    def __init__(self, spec: RolloutKernel, b: KernelBuilder, args: Args) -> None:
        self.spec, self.b = spec, b
        factors, modalities = range(spec.factors), range(len(spec.outcomes))
        self.likelihoods = [args.ptr() for _ in modalities]
        self.first_priors = [args.ptr() for _ in factors]
        self.moves = [args.ptr() for _ in factors]
        self.columns = [args.ptr() for _ in spec.efe.groups]
        self.tree, self.first_actions = args.ptr(), args.ptr()
        self.seen_thresholds = [args.ptr() for _ in modalities]
        self.move_thresholds = [args.ptr() for _ in factors]
        self.start_thresholds = [args.ptr() for _ in factors]
        seed = args.ptr()
        self.outcomes, self.states, self.actions, self.values = (args.ptr() for _ in range(4))
        self.beliefs = [args.ptr() for _ in factors]
        self.nodes, self.policies = args.ints(2)
        self.philox = Philox(b, b.load(seed, i64))
        starts = [sum(spec.parts(b.isa)[:k]) for k in range(1, 6)]
        self.priors, self.weights, self.shares, self.integers, self.words = (b.elem(b.scratch, s, f32) for s in starts)

    def begin(self) -> None:
        """Priors of the first step."""
        first = 0
        for size, prior in zip(self.spec.efe.sizes, self.first_priors):
            for k in range(size):
                self.b.store(self.b.load(self.b.elem(prior, k, f32), f32), self.b.elem(self.priors, first + k, f32))
            first += self.spec.efe.padded(size, self.b.isa)

    def step(self, agent: Val, t: Val) -> None:
        """Observe, infer, act."""
        b, spec = self.b, self.spec
        row = agent * spec.steps + t
        for group in range(-(-(spec.factors + len(spec.outcomes)) // GROUP)):
            self.philox.store_group(b.elem(self.words, group * GROUP, i32), group, t, agent, WORLD)
        self._world(row, t)
        q = self._infer()
        for belief, size, values in zip(self.beliefs, spec.efe.sizes, q):
            for k, value in enumerate(values):
                b.store(value, b.elem(belief, row * size + k, f32))
        result = b.elem(self.values, row * spec.policies, f32)
        spec.efe.walk(b, q, self.moves, self.columns, (self.tree, self.nodes), result)
        self._act(row, result)
        self._expect(q)

    # Integers in scratch memory: states, actions, outcomes.

    def _integer(self, place: int) -> Val:
        return self.b.sext(self.b.load(self.b.elem(self.integers, place, i32), i32), i64)

    def _keep(self, value: Val, place: int, target: Val, at: Val) -> None:
        """Write an integer to its place, and to a result."""
        narrow = self.b.trunc(value, i32)
        self.b.store(narrow, self.b.elem(self.integers, place, i32))
        self.b.store(narrow, self.b.elem(target, at, i32))

    def _world(self, row: Val, t: Val) -> None:
        """States, then outcomes."""
        b, spec, count = self.b, self.spec, self.spec.factors
        new: list[Val] = []
        begins = b.icmp("eq", t, 0)
        for f, size in enumerate(spec.efe.sizes):
            joint = self._joint([self._integer(k) for k in spec.efe.transitions[f]], spec.efe.transitions[f])
            place = joint * spec.controls[f] + self._integer(count + f)
            # What the first step would read of the memory of no step before is kept within the table.
            place = b.select(begins, b.i64(0), place)
            ends = b.select(begins, self.start_thresholds[f], b.elem(self.move_thresholds[f], place * (size - 1), i64))
            new.append(self._choose(f, ends, size))
        for f, state in enumerate(new):
            self._keep(state, f, self.states, row * count + f)
        for m, (deps, size) in enumerate(zip(spec.modalities, spec.outcomes)):
            joint = self._joint([new[k] for k in deps], deps)
            seen = self._choose(count + m, b.elem(self.seen_thresholds[m], joint * (size - 1), i64), size)
            self._keep(seen, 2 * count + m, self.outcomes, row * len(spec.outcomes) + m)

    def _joint(self, states: Sequence[Val], factors: Sequence[int]) -> Val:
        joint = self.b.i64(0)
        for state, factor in zip(states, factors):
            joint = joint * self.spec.efe.sizes[factor] + state
        return joint

    def _choose(self, position: int, ends: Val, size: int) -> Val:
        """How many thresholds a word has reached."""
        b = self.b
        word = b.zext(b.load(b.elem(self.words, position, i32), i32), i64)
        chosen = b.i64(0)
        for k in range(size - 1):
            chosen = chosen + b.zext(b.icmp("sge", word, b.load(b.elem(ends, k, i64), i64)), i64)
        return chosen

    def _infer(self) -> list[list[Val]]:
        """Beliefs."""
        b, spec = self.b, self.spec
        sizes, count = spec.efe.sizes, spec.factors
        given = [b.elem(self.integers, 2 * count + m, i32) for m in range(len(spec.outcomes))]
        tables = spec.mean.tables
        seen = [spec.mean.observed(b, t, p, given, b.i64(0)) for t, p in zip(tables, self.likelihoods)]
        first = 0
        for size in sizes:
            seen.append([b.load(b.elem(self.priors, first + k, f32), f32) for k in range(size)])
            first += spec.efe.padded(size, b.isa)
        start = [b.f32(1.0 / size) for size in sizes for _ in range(size)]
        with b.loop(0, spec.mean.steps, init=start) as step:
            step.yield_(spec.mean.iteration(b, seen, step.carried))
        bounds = [sum(sizes[:f]) for f in range(count + 1)]
        return [list(step.results[bounds[f] : bounds[f + 1]]) for f in range(count)]

    def _act(self, row: Val, values: Val) -> None:
        """The first action of the policies that are likeliest together, of each factor."""
        b, spec = self.b, self.spec
        with b.loop(1, spec.policies, init=[b.load(values, f32)]) as p:
            p.yield_([b.max(p.carried[0], b.load(b.elem(values, p.i, f32), f32))])
        top = p.results[0]
        with b.loop(0, spec.policies) as p:
            b.store(b.load(b.elem(values, p.i, f32), f32) - top, b.elem(self.weights, p.i, f32))
        with b.loop(0, spec.efe.padded(spec.policies, b.isa), b.lanes) as p:
            part = b.elem(self.weights, p.i, f32)
            scores = b.load(part, vec(f32, b.lanes)) * spec.gamma
            b.store(vecmath.exp(b, scores), part)
        bounds = [sum(spec.controls[:f]) for f in range(spec.factors)]
        for k in range(sum(spec.controls)):
            b.store(b.f32(0.0), b.elem(self.shares, k, f32))
        with b.loop(0, spec.policies, init=[b.f32(0.0)]) as p:
            weight = b.load(b.elem(self.weights, p.i, f32), f32)
            for f, bound in enumerate(bounds):
                u = b.sext(b.load(b.elem(self.first_actions, p.i * spec.factors + f, i32), i32), i64)
                share = b.elem(self.shares, u + bound, f32)
                b.store(b.load(share, f32) + weight, share)
            p.yield_([p.carried[0] + weight])
        slack = p.results[0] * TIE
        for f, (bound, count) in enumerate(zip(bounds, spec.controls)):
            shares = [b.load(b.elem(self.shares, bound + u, f32), f32) for u in range(count)]
            best = shares[0]
            for share in shares[1:]:
                best = b.max(best, share)
            chosen = b.i64(count - 1)
            for u in reversed(range(count - 1)):
                chosen = b.select(b.fcmp("oge", shares[u], best - slack), b.i64(u), chosen)
            self._keep(chosen, spec.factors + f, self.actions, row * spec.factors + f)

    def _expect(self, q: list[list[Val]]) -> None:
        """Ln of what beliefs and actions lead to: the next step's priors."""
        b, spec, first = self.b, self.spec, 0
        for f, size in enumerate(spec.efe.sizes):
            moved = spec.efe.move(b, f, q, self.moves[f], self._integer(spec.factors + f))
            for index, part in enumerate(moved):
                log = vecmath.log(b, b.max(part, b.const(EPSILON, part.type)))
                b.store(log, b.elem(self.priors, first + index * b.lanes, f32))
            first += spec.efe.padded(size, b.isa)
