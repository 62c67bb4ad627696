"""A model as instructions of `RelaxRowsKernel`: rows of variables and their views, parameters, what is computed once.

What each term adds to a gradient is in `relax_terms.py`; which steps a method takes is in `relax_states.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from xdsl.ir import SSAValue

from neuc.backends.cpu.kernels.relax_rows import Port, RelaxRowsKernel
from neuc.backends.cpu.kernels.relax_rows_code import Code, Rows, Then
from neuc.backends.cpu.kernels.relax_rows_products import MOST_ACCUMULATORS, Product
from neuc.backends.cpu.lowering import SegmentLowering
from neuc.backends.cpu.lowerings.relax import Piece, Pieces
from neuc.dialects import energy as e
from neuc.dialects.cpu_launch import LaunchArg
from neuc.dialects.dims import Dim
from neuc.dialects.energy_types import EnergyOp, Space, var_type

Array = np.ndarray
_DTYPES = {1: "i8", 4: "f32"}


@dataclass
class Plan:
    """Instructions under construction, and what rows they use.

    Attributes:
        known: where values of variables lie.
        chains: how many there are.
        terms: the terms that count.
        fixed: first rows of what no step changes.
        before: instructions that run once, ahead of the steps.
        body: those of a step.
        after: those that run once, in the end.
    """

    s: SegmentLowering
    model: e.ModelOp
    known: Pieces
    chains: Dim
    terms: list[EnergyOp]
    rows: int = MOST_ACCUMULATORS
    fixed: set[int] = field(default_factory=set[int])
    before: list[Code] = field(default_factory=list[Code])
    body: list[Code] = field(default_factory=list[Code])
    after: list[Code] = field(default_factory=list[Code])
    _views: dict[tuple[SSAValue, str], int] = field(default_factory=dict[tuple[SSAValue, str], int])
    _inputs: list[tuple[Port, Piece]] = field(default_factory=list[tuple[Port, Piece]])
    _outputs: list[tuple[Port, SSAValue]] = field(default_factory=list[tuple[Port, SSAValue]])
    _parameters: list[LaunchArg] = field(default_factory=list[LaunchArg])
    _slots: dict[object, int] = field(default_factory=dict[object, int])
    _kept: dict[object, int] = field(default_factory=dict[object, int])

    @property
    def free(self) -> list[SSAValue]:
        """The variables that steps change."""
        return [v for v in self.model.variables if isinstance(v.owner, e.VarOp) and not v.owner.clamped]

    # ---------------------------------------------------------------- rows and parameters

    def space(self, size: int, key: object = None) -> int:
        """The first of `size` new rows; the same ones again for the same key."""
        if key is not None and key in self._kept:
            return self._kept[key]
        first = self.rows
        self.rows += size
        if key is not None:
            self._kept[key] = first
        return first

    def has(self, key: object) -> bool:
        """Whether there are rows of this key."""
        return key in self._kept

    def zeros(self) -> int:
        """A row of zeros."""
        known = self.has("zeros")
        made = self.space(1, "zeros")
        if not known:
            self.before.append(Rows(1, (), (Then("store", made),)))
        return made

    def row(self, view: SSAValue) -> int:
        """The first row of a variable, or of ρ of it."""
        variable, name = e.variable_of(view), rho_name(view)
        if (variable, name) in self._views:
            return self._views[variable, name]
        size = width(variable)
        if name:
            x = self.row(variable)
            made = self.space(size)
            self.before.append(Rows(size, (), (Then("load", x), Then(f"rho_{name}"), Then("store", made))))
        else:
            piece = self.known.of[variable]
            dtype = "i32" if var_type(variable).space is Space.CAT and piece.size == 4 else _DTYPES[piece.size]
            made = self.space(size)
            self._inputs.append((Port(made, size, dtype), piece))
        if variable not in self.free:
            self.fixed.add(made)
        self._views[variable, name] = made
        return made

    def use_views(self) -> None:
        """Make the rows of all variables and views, so that steps keep all of them up to date."""
        for variable in self.free:
            self.row(variable)
        for term in self.terms:
            for operand in term.operands:
                if isinstance(operand.type, e.VarType):
                    self.row(operand)

    def updates(self, variable: SSAValue) -> tuple[Then, ...]:
        """Store the new value of a variable, and of each view of it."""
        x = self.row(variable)
        then = [Then("store", x)]
        for (of, name), made in self._views.items():
            if of is variable and name:
                then += [Then("load", x), Then(f"rho_{name}"), Then("store", made)]
        return tuple(then)

    def parameter(self, value: SSAValue) -> int:
        """The slot of a parameter: a constant or a tensor of run time."""
        return self._slot(value, lambda: self.s.buffer(value))

    def array(self, name: str, values: Array) -> int:
        """The slot of an array that is known now."""
        return self._slot((name, values.shape, values.dtype.str, values.tobytes()), lambda: self.s.weight(name, values))

    def _slot(self, key: object, buffer: Callable[[], SSAValue]) -> int:
        if key not in self._slots:
            self._slots[key] = len(self._parameters)
            self._parameters.append(buffer())
        return self._slots[key]

    # ---------------------------------------------------------------- instructions

    def sums(
        self, size: int, products: Iterable[Product], then: Sequence[Then], where: list[Code] | None = None
    ) -> None:
        """A `Rows` at the end of the body; products of what no step changes are computed once."""
        body = self.body if where is None else where
        moving, fixed = list[Product](), list[Product]()
        for product in products:
            (fixed if product.source in self.fixed and body is self.body else moving).append(product)
        if fixed:
            key = (size, tuple(fixed))
            known = self.has(key)
            made = self.space(size, key)
            if not known:
                self.before.append(Rows(size, tuple(fixed), (Then("store", made),)))
            then = (Then("add", made), *then)
        body.append(Rows(size, tuple(moving), tuple(then)))

    def output(self, first: int, size: int, dtype: str = "f32") -> SSAValue:
        """A buffer [C, size] that these rows go to in the end."""
        target = self.s.temp(self.chains * (size * (1 if dtype == "i8" else 4)))
        self.output_to(target, first, size, dtype)
        return target

    def output_to(self, target: SSAValue, first: int, size: int, dtype: str = "f32") -> None:
        """Let these rows go to a buffer [C, size] in the end."""
        self._outputs.append((Port(first, size, dtype), target))

    @property
    def has_outputs(self) -> bool:
        """Whether anything is computed for others."""
        return bool(self._outputs)

    def finish(self) -> Pieces:
        """The state after the steps: outputs of all free variables."""
        found = dict(self.known.of)
        for variable in self.free:
            sites = width(variable)
            size = 1 if var_type(variable).space is Space.SPIN else 4
            found[variable] = Piece(self.output(self.row(variable), sites, _DTYPES[size]), 0, sites, size)
        return Pieces(found)

    def launch(self, *, steps: int = 0, sampled: Sequence[LaunchArg] = ()) -> None:
        """Launch what was planned."""
        kernel = RelaxRowsKernel(
            tuple(port for port, _ in self._inputs),
            tuple(port for port, _ in self._outputs),
            len(self._parameters),
            self.rows,
            tuple(self.before),
            tuple(self.body),
            tuple(self.after),
            steps,
            bool(sampled),
        )
        args: list[LaunchArg] = []
        for _, piece in self._inputs:
            args += [(piece.buffer, piece.offset * piece.size), piece.stride]
        args += [target for _, target in self._outputs]
        args += [*self._parameters, self.chains, *sampled]
        work = self.chains.ceildiv(self.s.isa.f32_lanes)
        self.s.launch(kernel, args, work=work, scratch=kernel.scratch_bytes(self.s.isa))


def width(view: SSAValue) -> int:
    """Rows of a variable: one a site, or K for a belief."""
    return math.prod(var_type(view).value_shape)


def rho_name(view: SSAValue) -> str:
    """The function of a view; empty where it is the variable itself."""
    return view.owner.fn.data.value if isinstance(view.owner, e.RhoOp) else ""
