"""Lowerings of the `energy` operations: models and states become facts about buffers, sampling becomes one launch.

What each sampler runs on is in `relax_sampling.py`, what continuous dynamics do in `relax_states.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from xdsl.dialects.builtin import f64
from xdsl.ir import Operation, SSAValue

from neuc.backends.cpu.kernels.relax_init import InitSitesKernel
from neuc.backends.cpu.kernels.relax_random import WORD_BYTES
from neuc.backends.cpu.kernels.relax_tables import ConvertSitesKernel
from neuc.backends.cpu.lowering import SegmentLowering, lowers
from neuc.backends.cpu.lowerings.movement import copy_strided
from neuc.dialects import energy as e
from neuc.dialects.dims import Dim
from neuc.dialects.energy_model import TERM_OPS
from neuc.dialects.energy_types import Space, var_type
from neuc.dialects.interp.energy import schedule_values
from neuc.dialects.store import dims_of, element_of
from neuc.errors import Error


@dataclass(frozen=True)
class Piece:
    """Where the values of a variable lie: element `offset` of each chain's `stride` elements of `size` bytes."""

    buffer: SSAValue
    offset: int
    stride: int
    size: int = 1


@dataclass(frozen=True)
class Pieces:
    """A state, by variable; spins and categories that a sampler made are bytes."""

    of: dict[SSAValue, Piece]


def discrete_variables(model: e.ModelOp) -> list[SSAValue]:
    """The variables a sampler of spins works on, in the model's order."""
    return [v for v in model.variables if var_type(v).discrete]


def pieces(s: SegmentLowering, state: SSAValue) -> Pieces:
    """What is known of a state."""
    found = s.fact(state)
    assert isinstance(found, Pieces)
    return found


def joined(s: SegmentLowering, state: SSAValue) -> SSAValue:
    """All spins and categories of a state in one buffer i8 [C, n]."""
    known, model = pieces(s, state), e.state_model(state)
    variables = discrete_variables(model)
    sites = [var_type(v).sites for v in variables]
    total, first = sum(sites), known.of[variables[0]]
    if all(known.of[v] == Piece(first.buffer, sum(sites[:k]), total) for k, v in enumerate(variables)):
        return first.buffer
    chains = e.chains_of(state)
    target = s.temp(chains * total)
    for k, variable in enumerate(variables):
        copy_piece(s, known.of[variable], Piece(target, sum(sites[:k]), total), chains, sites[k])
    return target


def separated(model: e.ModelOp, buffer: SSAValue) -> Pieces:
    """The state whose spins lie in one buffer [C, n]."""
    variables = discrete_variables(model)
    sites = [var_type(v).sites for v in variables]
    return Pieces({v: Piece(buffer, sum(sites[:k]), sum(sites)) for k, v in enumerate(variables)})


def copy_piece(s: SegmentLowering, source: Piece, target: Piece, chains: Dim, sites: int) -> None:
    """Values of one variable to another place, as other integers if the sizes differ."""
    if source.size != target.size:
        ends = [v for piece in (source, target) for v in (piece.offset, piece.stride)]
        s.launch(
            ConvertSitesKernel(source.size > target.size), [source.buffer, target.buffer, sites, *ends], work=chains
        )
        return
    copy_strided(
        s,
        source.buffer,
        target.buffer,
        source.size,
        [chains, Dim.of(sites)],
        [Dim.of(source.stride), Dim.of(1)],
        [Dim.of(target.stride), Dim.of(1)],
        source_offset=source.offset,
        target_offset=target.offset,
    )


def constant_parameter(s: SegmentLowering, value: SSAValue) -> np.ndarray:
    """The array of a parameter.

    Raises:
        Error: NEUC-E612, it is computed at run time.
    """
    array = s.constant(value)
    if array is None:
        raise Error(
            "NEUC-E612",
            "a parameter of a compiled model is computed at run time",
            hint="compiled models need constant parameters: make them store.constant",
        )
    return array


def _kept_natively(op: Operation) -> str | None:
    """Why a state of this model is not kept natively."""
    model = e.model_of(op.operands[0])
    kept = {Space.SPIN, Space.CAT, Space.SIMPLEX, Space.REAL, Space.PHASE}
    spaces = {var_type(v).space for v in model.variables} - kept
    if isinstance(op, e.StateOp) and any(element_of(v) == f64 for v in op.args[1:]):
        return "states in f64 have no CPU kernels"
    if spaces:
        names = ", ".join(sorted(space.value for space in spaces))
        return f"{op.name} of {names} variables has no CPU kernel"
    return None


for _op in (e.VarOp, e.RhoOp, *TERM_OPS, e.ModelOp, e.ColorOp):

    @lowers(_op)
    def _nothing(op: Operation, s: SegmentLowering) -> None:
        """Said by those who read it."""


@lowers(e.ScheduleOp)
def _schedule(op: e.ScheduleOp, s: SegmentLowering) -> None:
    s.alias(op.result, s.weight("schedule", schedule_values(op)))


@lowers(e.StateOp, supports=_kept_natively)
def _state(op: e.StateOp, s: SegmentLowering) -> None:
    model = e.model_of(op.model)
    found = {
        v: Piece(s.buffer(t), 0, math.prod(var_type(v).value_shape), s.itemsize(t))
        for v, t in zip(model.variables, op.args[1:])
    }
    s.remember(op.result, Pieces(found))


@lowers(e.ClampOp, supports=lambda op: None)
def _clamp(op: e.ClampOp, s: SegmentLowering) -> None:
    known = pieces(s, op.state)
    given = Piece(s.buffer(op.value), 0, math.prod(var_type(op.variable).value_shape), s.itemsize(op.value))
    s.remember(op.result, Pieces({**known.of, op.variable: given}))


@lowers(e.InitOp, supports=_kept_natively)
def _init(op: e.InitOp, s: SegmentLowering) -> None:
    model, chains = e.model_of(op.model), op.chains.value.data
    known: dict[SSAValue, Piece] = {}
    if discrete_variables(model):
        sites = sum(var_type(v).sites for v in discrete_variables(model))
        levels = [np.full(var_type(v).sites, var_type(v).levels, np.int32) for v in discrete_variables(model)]
        buffer = s.temp(chains * sites)
        args = [s.buffer(op.seed), s.weight("levels", np.concatenate(levels)), buffer, sites]
        s.launch(InitSitesKernel(), args, work=chains, scratch=WORD_BYTES)
        known |= separated(model, buffer).of
    for variable in model.variables:
        if variable not in known:
            type_ = var_type(variable)
            first = 1.0 / type_.levels if type_.space is Space.SIMPLEX else float(np.clip(0.0, *type_.box))
            width = math.prod(type_.value_shape)
            known[variable] = Piece(s.weight("start", np.full(chains * width, first, np.float32)), 0, width, 4)
    s.remember(op.result, Pieces(known))


@lowers(e.ReadOp)
def _read(op: e.ReadOp, s: SegmentLowering) -> None:
    piece, sites = pieces(s, op.state).of[e.variable_of(op.variable)], math.prod(var_type(op.variable).value_shape)
    size = s.itemsize(op.result)
    if (piece.offset, piece.stride, piece.size) == (0, sites, size):
        s.alias(op.result, piece.buffer)
        return
    copy_piece(s, piece, Piece(s.buffer(op.result), 0, sites, size), dims_of(op.result)[0], sites)
