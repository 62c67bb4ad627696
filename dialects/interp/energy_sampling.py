"""Meaning of `energy.sample` and `energy.observe`: block Gibbs and Metropolis sweeps to the bit, Langevin, exact OU."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from xdsl.ir import SSAValue

from neuc.dialects import energy as e
from neuc.dialects.energy_factors import FactorGraph, Table
from neuc.dialects.energy_types import Observable, Rule, Space, var_type
from neuc.dialects.interp import energy_random as random
from neuc.dialects.interp.energy_terms import meaning, variable_gradients
from neuc.dialects.interp.energy_values import Array, Model, State, Trajectory, checked
from neuc.errors import Error

F32 = np.float32


def energy_of(model: Model, state: State, nudge: complex = 0.0) -> Array:
    """F [C]; costs count `nudge` times."""
    total = np.zeros(state.chains, np.complex128 if isinstance(nudge, complex) and nudge.imag else np.float64)
    for term in model.terms:
        factor = nudge if isinstance(term.op, e.CostOp) else 1.0
        if factor:
            total = total + factor * meaning(term).energy(state.values)
    return total


def gradient_of(model: Model, state: State, nudge: complex = 0.0) -> dict[SSAValue, Array]:
    """dF/dx of every free variable; forces of vector fields count as −dF/dx."""
    found: dict[SSAValue, Array] = {v: np.zeros(state.values[v].shape) for v in model.free}
    for term in model.terms:
        factor = nudge if isinstance(term.op, e.CostOp) else 1.0
        for variable, g in variable_gradients(term, state.values) if factor else []:
            if variable in found:
                found[variable] = found[variable] + factor * g
    return found


def sample(op: e.SampleOp, model: Model, state: State, beta: Array, seed: int) -> tuple[State, Trajectory]:
    """Run the sweeps.

    Raises:
        Error: NEUC-E605, a temperature is not above 0 or there are no sweeps; or what the model is refused for.
    """
    if not len(beta) or not (beta > 0).all() or not np.isfinite(beta).all():
        raise Error("NEUC-E605", "β has no sweeps, or is not above 0 in all", hint="inverse temperatures are positive")
    ladder = np.broadcast_to(beta.reshape(len(beta), -1), (len(beta), state.chains)).astype(F32)
    if op.rule.data in (Rule.LANGEVIN, Rule.OU_EXACT):
        step = _langevin if op.rule.data is Rule.LANGEVIN else _OuStep(op, model, state)
    else:
        step = _Sweeper(op, model)
    trajectory, warmup, thin = Trajectory(model, state), op.warmup.value.data, op.thin.value.data
    for t, row in enumerate(ladder):
        state = checked(state, step(op, model, state, row, seed, t), t, op.rule.data.value)
        if op.exchange.value.data and (t + 1) % op.exchange.value.data == 0:
            state = _exchange(model, state, row, seed, t, op.exchange.value.data)
        if t >= warmup and (t - warmup + 1) % thin == 0:
            trajectory.states.append(state)
    return state, trajectory


class _Sweeper:
    """One sweep over the blocks of a coloured model."""

    def __init__(self, op: e.SampleOp, model: Model) -> None:
        self.graph = graph = FactorGraph.of(model.op, model.parameter)
        if model.order is None:
            raise Error("NEUC-E606", "the model has no blocks to sweep over", hint="run color-blocks, or energy.color")
        graph.check_blocks(model.order, model.blocks)
        self.order, self.blocks = model.order, model.blocks
        self.start, self.near, self.weights = graph.adjacency()
        if op.rule.data is Rule.METROPOLIS and graph.levels[graph.free].any():
            raise Error("NEUC-E604", "metropolis flips spins, and the model has categories", hint="use rule = gibbs")

    def __call__(self, op: e.SampleOp, model: Model, state: State, beta: Array, seed: int, t: int) -> State:
        """The state after sweep t."""
        x = join(self.graph, state)
        draw = random.plane_words if op.packed is not None else _words
        draw = _shared_words if op.shared is not None else draw
        numbers = draw(len(self.order), t, state.chains, seed)
        for begin, end in pairwise(self.blocks):
            sites = self.order[begin:end]
            here = sites >= 0
            chosen, own = sites[here], numbers[:, begin:end][:, here]
            spins = self.graph.levels[chosen] == 0
            new = np.empty((len(x), len(chosen)), np.int64)
            new[:, spins] = self._spins(op, x, chosen[spins], own[:, spins], beta)
            for column in np.flatnonzero(~spins):
                new[:, column] = self._category(x, int(chosen[column]), own[:, column], beta)
            x[:, chosen] = new
        return split(self.graph, state, x)

    def _spins(self, op: e.SampleOp, x: Array, sites: Array, numbers: Array, beta: Array) -> Array:
        """New values of independent spins: field, probability, comparison."""
        argument = (F32(2.0) * beta)[:, None] * self._field(x, sites)
        if op.rule.data is Rule.METROPOLIS:
            old = x[:, sites]
            flips = numbers < random.accept_threshold(argument * -old.astype(F32))
            return np.where(flips, -old, old)
        return np.where(numbers < random.sigmoid_threshold(argument), 1, -1)

    def _field(self, x: Array, sites: Array) -> Array:
        """f32 [C, sites]: own field, then stencils, then edges and tables in their order."""
        graph = self.graph
        total = np.broadcast_to(graph.field[sites], (len(x), len(sites))).astype(F32)
        for stencil in graph.stencils:
            inside = (sites >= stencil.first) & (sites < stencil.first + len(stencil.neighbours))
            near = stencil.neighbours[sites[inside] - stencil.first]
            count = np.where(near >= 0, x[:, near], 0).sum(-1)
            total[:, inside] += stencil.coupling * count.astype(F32)
        start, degree = self.start[sites], self.start[sites + 1] - self.start[sites]
        for k in range(int(degree.max(initial=0))):
            more = degree > k
            edge = start[more] + k
            total[:, more] += self.weights[edge] * x[:, self.near[edge]].astype(F32)
        for table in graph.tables:
            self._add_table(total, x, sites, table)
        return total

    def _add_table(self, total: Array, x: Array, sites: Array, table: Table) -> None:
        place = np.full(self.graph.sites, -1)
        place[sites] = np.arange(len(sites))
        for slot in range(table.spins.shape[1]):
            columns = place[table.spins[:, slot]]
            for factor in np.flatnonzero(columns >= 0):
                others = np.delete(table.spins[factor], slot)
                values = _lookup(table, int(factor), x)
                total[:, columns[factor]] += x[:, others].prod(1).astype(F32) * values

    def _category(self, x: Array, site: int, numbers: Array, beta: Array) -> Array:
        """A category by inversion: the first k whose cumulated weight is above the number's share of the total."""
        levels = int(self.graph.levels[site])
        scores = np.zeros((len(x), levels), F32)
        for table in self.graph.tables:
            for slot in range(table.categories.shape[1]):
                for factor in np.flatnonzero(table.categories[:, slot] == site):
                    signs = x[:, table.spins[factor]].prod(1).astype(F32)
                    scores += signs[:, None] * _lookup(table, int(factor), x, slot)
        logits = beta[:, None] * scores
        weights = random.exp(logits - logits.max(1, keepdims=True))
        cumulated = np.empty_like(weights)
        total = np.zeros(len(x), F32)
        for k in range(levels):
            total = total + weights[:, k]
            cumulated[:, k] = total
        share = (numbers >> np.uint32(8)).astype(F32) * F32(2.0**-24) * total
        return np.minimum((share[:, None] >= cumulated).sum(1), levels - 1)


def _words(positions: int, sweep: int, chains: int, seed: int) -> Array:
    return random.words(positions, sweep, chains, random.SITES, seed)


def _shared_words(positions: int, sweep: int, chains: int, seed: int) -> Array:
    return np.repeat(_words(positions, sweep, 1, seed), chains, 0)


def _lookup(table: Table, factor: int, x: Array, keep: int | None = None) -> Array:
    """T[f, categories…] f32 [C], or [C, K] along axis `keep`."""
    values = table.values[factor if len(table.values) > 1 else 0]
    index = tuple(slice(None) if slot == keep else x[:, site] for slot, site in enumerate(table.categories[factor]))
    if keep is None:
        return np.broadcast_to(values[index], (len(x),))
    moved = np.moveaxis(values, keep, -1)
    others = tuple(part for slot, part in enumerate(index) if slot != keep)
    return np.broadcast_to(moved[others], (len(x), values.shape[keep]))


def join(graph: FactorGraph, state: State) -> Array:
    """The discrete values as one array [C, sites]."""
    return np.concatenate([state.values[v].reshape(state.chains, -1) for v in graph.offsets], 1)


def split(graph: FactorGraph, state: State, x: Array) -> State:
    """The state with these discrete values."""
    return state.replaced(
        {
            v: x[:, first : first + var_type(v).sites].reshape(state.values[v].shape)
            for v, first in graph.offsets.items()
        }
    )


def _exchange(model: Model, state: State, beta: Array, seed: int, t: int, period: int) -> State:
    """Neighbouring chains (even or odd pairs in turn) swap with probability min(1, e^(Δβ ΔF))."""
    energy = energy_of(model, state)
    order = np.arange(state.chains)
    drawn = random.philox((np.arange(state.chains), t, 0, random.EXCHANGE), seed)[0]
    for a in range(((t + 1) // period) % 2, state.chains - 1, 2):
        argument = np.array([(float(beta[a + 1]) - float(beta[a])) * (energy[a + 1] - energy[a])], F32)
        if drawn[a] < random.accept_threshold(argument)[0]:
            order[[a, a + 1]] = order[[a + 1, a]]
    return state.replaced({v: x[order] for v, x in state.values.items()})


def _langevin(op: e.SampleOp, model: Model, state: State, beta: Array, seed: int, t: int) -> State:
    """Euler–Maruyama."""
    dt, first, changed = op.dt.value.data, 0, dict[SSAValue, Array]()
    gradients = gradient_of(model, state)
    noise = random.normals(sum(var_type(v).sites for v in model.free), t, state.chains, seed)
    for variable in model.free:
        x = state.values[variable]
        size = var_type(variable).sites
        kick = noise[:, first : first + size].reshape(x.shape)
        spread = np.sqrt(2.0 * dt / beta.astype(np.float64)).reshape(-1, *[1] * (x.ndim - 1))
        changed[variable] = np.clip(x - dt * gradients[variable] + spread * kick, *var_type(variable).box)
        first += size
    return state.replaced(changed)


def quadratic_form(model: Model, state: State) -> tuple[Array, Array]:
    """A and g with dF/dx = A x + g over all free variables flattened, from the gradient at 0 and at unit vectors.

    Raises:
        Error: NEUC-E610, F is not quadratic.
    """
    sizes = [var_type(v).sites for v in model.free]
    total = sum(sizes)
    probes = np.concatenate([np.zeros((1, total)), np.eye(total), np.ones((1, total))])

    def at(points: Array) -> Array:
        parts = np.split(points, np.cumsum(sizes)[:-1], axis=1)
        values = {v: np.repeat(x[:1], len(points), 0) for v, x in state.values.items()}
        values |= {v: part.reshape(-1, *var_type(v).shape) for v, part in zip(model.free, parts)}
        found = gradient_of(model, State(values))
        return np.concatenate([found[v].reshape(len(points), -1) for v in model.free], 1)

    gradients = at(probes)
    offset = gradients[0]
    matrix = (gradients[1:-1] - offset).T
    if not np.allclose(matrix.sum(1) + offset, gradients[-1], rtol=1e-6, atol=1e-9 * (1 + np.abs(matrix).max())):
        raise Error("NEUC-E610", "the energy is not quadratic in the free variables", hint="use langevin or flow")
    return matrix, offset


def ou_transition(matrix: Array, dt: float) -> tuple[Array, Array]:
    """e^(−A dt) and the root of A^-1 (1 − e^(−2 A dt)), for symmetric positive definite A.

    Raises:
        Error: NEUC-E611, A is not positive definite.
    """
    values, vectors = np.linalg.eigh(0.5 * (matrix + matrix.T))
    if not values[0] > 0:
        raise Error(
            "NEUC-E611", f"the curvature has the eigenvalue {values[0]:.3g}", hint="A must be positive definite"
        )
    spread = np.sqrt(-np.expm1(-2.0 * values * dt) / values)
    return (vectors * np.exp(-values * dt)) @ vectors.T, vectors * spread


class _OuStep:
    """The exact transition of an Ornstein–Uhlenbeck process dx = −∇F dt + √(2/β) dW with quadratic F."""

    def __init__(self, op: e.SampleOp, model: Model, state: State) -> None:
        matrix, offset = quadratic_form(model, state)
        self.decay, self.spread = ou_transition(matrix, op.dt.value.data)
        self.mean = np.linalg.solve(matrix, -offset)

    def __call__(self, op: e.SampleOp, model: Model, state: State, beta: Array, seed: int, t: int) -> State:
        """The state dt later."""
        x = np.concatenate([state.values[v].reshape(state.chains, -1) for v in model.free], 1)
        noise = random.normals(x.shape[1], t, state.chains, seed) / np.sqrt(beta.astype(np.float64))[:, None]
        x = self.mean + (x - self.mean) @ self.decay.T + noise @ self.spread.T
        parts = np.split(x, np.cumsum([var_type(v).sites for v in model.free])[:-1], axis=1)
        return state.replaced({v: part.reshape(state.values[v].shape) for v, part in zip(model.free, parts)})


def observe(op: e.ObserveOp, trajectory: Trajectory, others: list[Array]) -> Array:
    """What `energy.observe` adds up."""
    states, what, chains = trajectory.states, op.what.data, trajectory.chains
    if what is Observable.ENERGY:
        energies = [energy_of(trajectory.model, s) for s in states]
        return np.asarray(energies, F32).reshape(len(states), chains)
    variable = e.variable_of(op.args[1])
    type_ = var_type(variable)
    values = np.array([s.values[variable].reshape(chains, -1) for s in states], np.int64)
    values = values.reshape(len(states), chains, type_.sites)
    match what:
        case Observable.PAIRS:
            i, j = others
            return (values[..., i] * values[..., j]).sum(0).astype(np.int32)
        case Observable.HISTOGRAM:
            index = ((values > 0) << np.arange(type_.sites)).sum(-1)
            counts = [np.bincount(column, minlength=1 << type_.sites) for column in index.T]
            return np.stack(counts).astype(np.int32)
        case _ if type_.space is Space.CAT:
            counts = (values[..., None] == np.arange(type_.levels)).sum(0)
            return counts.reshape(-1, *type_.shape, type_.levels).astype(np.int32)
        case _:
            return values.sum(0).reshape(-1, *type_.shape).astype(np.int32)
