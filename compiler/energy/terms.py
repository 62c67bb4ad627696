"""The terms of a `Model` as Python calls, and the handles of variables and parameters that they take.

Variables themselves, states and programs are in `model.py`, the functions of predictions in `expressions.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import ArrayLike
from xdsl.ir import Operation, SSAValue

from neuc.compiler.energy.usage import chosen, usage_error
from neuc.dialects import energy as e

if TYPE_CHECKING:
    from neuc.compiler.energy.expressions import Expression


@dataclass(frozen=True)
class Variable:
    """A variable of a model, or ρ of one (`Model.rho`).

    Attributes:
        name: what the program's inputs and results call it.
        value: the SSA value.
    """

    name: str
    value: SSAValue

    @property
    def type(self) -> e.VarType:
        """Its space and shape."""
        return e.var_type(self.value)


@dataclass(frozen=True)
class Parameter:
    """An array that the program takes as an input, or a constant that gradients are asked for."""

    name: str
    value: SSAValue


Weights: TypeAlias = ArrayLike | Parameter


def ssa_of(handle: Variable | Parameter) -> SSAValue:
    """The value of what a term reads.

    Raises:
        Error: NEUC-E614, it is a number or the like.
    """
    value = getattr(handle, "value", None)
    if not isinstance(value, SSAValue):
        what = f"a {type(handle).__name__} ({str(handle)[:40]!r}) stands where a term takes a variable"
        raise usage_error(what, "make one with model.spin, .categories, .real, .beliefs, .phase or .complex")
    return value


class Terms(ABC):
    """What an energy is a sum of; signs are those of `dialects/energy_terms.py`."""

    @abstractmethod
    def weights(self, values: Weights, shape: tuple[int, ...] | None = None) -> SSAValue:
        """A parameter, or an array as a constant."""

    @abstractmethod
    def integers(self, values: ArrayLike) -> SSAValue:
        """Site numbers as a constant."""

    @abstractmethod
    def term(self, op: Operation) -> None:
        """Add the term that an operation makes."""

    def linear(self, x: Variable, b: Weights) -> None:
        """−Σ b·x; categories and beliefs read b[…, x]."""
        value = ssa_of(x)
        levels = (x.type.levels,) if x.type.space in (e.Space.CAT, e.Space.SIMPLEX) else ()
        self.term(e.LinearOp(value, self.weights(b, (*x.type.shape, *levels))))

    def couple(self, x: Variable, w: Weights, y: Variable | None = None) -> None:
        """−xᵀ W y, or −½ xᵀ W x."""
        other = x if y is None else y
        self.term(e.BilinearOp(ssa_of(x), self.weights(w), ssa_of(other)))

    def edges(
        self,
        x: Variable,
        i: ArrayLike,
        j: ArrayLike,
        w: Weights,
        y: Variable | None = None,
        *,
        shared: ArrayLike | None = None,
    ) -> None:
        """−Σ_e w[e]·x[i[e]]·y[j[e]]; with `shared`, the number of each edge's weight, −Σ_e w[shared[e]]·x·y."""
        first, second = self.integers(i), self.integers(j)
        k = None if shared is None else self.integers(shared)
        self.term(e.EdgesOp(ssa_of(x), ssa_of(x if y is None else y), first, second, self.weights(w), k))

    def grid(
        self,
        x: Variable,
        coupling: float = 1.0,
        offsets: Sequence[Sequence[int]] = ((0, 1), (1, 0)),
        *,
        periodic: bool = True,
    ) -> None:
        """−J Σ x_i·x_{i+o}: neighbours on a grid."""
        self.term(e.StencilOp(ssa_of(x), self.weights([coupling]), offsets, periodic=periodic))

    def table(self, variables: Sequence[Variable], values: Weights, sites: Sequence[ArrayLike] | None = None) -> None:
        """−Σ_f Π spins·T[f, categories…]; without `sites`, one factor over variables of one site each."""
        places = [[0]] * len(variables) if sites is None else sites
        table = self.weights(values if sites is not None or isinstance(values, Parameter) else np.asarray(values)[None])
        self.term(e.TableOp([ssa_of(v) for v in variables], [self.integers(s) for s in places], table))

    def quad(self, x: Variable, precision: Weights = 1.0, mean: Weights | None = None) -> None:
        """½ Σ p (x − μ)²."""
        self.term(e.QuadOp(ssa_of(x), self.weights(precision), None if mean is None else self.weights(mean)))

    def predict(
        self,
        x: Variable,
        w: Weights,
        z: Variable,
        bias: Weights | None = None,
        *,
        precision: float = 1.0,
        skip: float = 0.0,
    ) -> None:
        """½ p |x − W ρ(z) − b − g z|²."""
        made = None if bias is None else self.weights(bias)
        self.term(e.PredOp(ssa_of(x), self.weights(w), ssa_of(z), made, precision=precision, skip=skip))

    def prediction(
        self,
        x: Variable,
        function: Callable[..., Expression],
        *reads: Variable | Parameter,
        precision: float = 1.0,
        product: bool = False,
    ) -> None:
        """½ p |x − f(z, …)|², f any function of arrays; with `product`, −p Σ x·f(z, …).

        Args:
            x: what is predicted.
            function: gets an `Expression` for each of `reads` and gives one of the shape of x:
                ``lambda z: z.tanh() @ w + b``. Arrays and parameters that it uses become operands of the term.
            reads: variables (or ρ of some) and parameters.
            precision: p.
            product: what a layer of a Hopfield network adds, beside a `quad` of x.

        Raises:
            Error: NEUC-E614, shapes that do not go together, or a function that gives something else.
        """
        from neuc.compiler.energy.expressions import traced

        # Seen through the folder and through the package, this file has two classes of one name for pyright.
        for handle in (x, *reads):
            if not isinstance(handle, Variable | Parameter) or (handle is x and isinstance(x, Parameter)):
                what = (
                    f"a prediction of x = {type(x).__name__}"
                    if handle is x
                    else f"a prediction reads a {type(handle).__name__}"
                )
                raise usage_error(
                    what, "x is a variable, `reads` are variables and parameters; arrays go into the function"
                )
        values = [handle.value for handle in reads]
        operands, region = traced(self, function, values, x.type.shape)  # pyright: ignore[reportArgumentType]
        self.term(e.PredictionOp(x.value, operands, region, precision=precision, product=product))

    def predict_edges(
        self,
        x: Variable,
        z: Variable,
        edges: tuple[ArrayLike, ArrayLike, ArrayLike],
        w: Weights,
        bias: Weights | None = None,
        *,
        precision: float = 1.0,
    ) -> None:
        """½ p Σ_a (x_a − Σ w[k[e]] ρ(z)[j[e]] − b_a)² over edges (i, j, k): a convolution's prediction."""
        made = None if bias is None else self.weights(bias)
        i, j, k = (self.integers(part) for part in edges)
        self.term(e.PredEdgesOp(ssa_of(x), ssa_of(z), (i, j, k), self.weights(w), made, precision=precision))

    def resistors(self, x: Variable, g: Weights, y: Variable) -> None:
        """½ Σ g (x_i − y_j)²."""
        self.term(e.ResistorOp(ssa_of(x), self.weights(g), ssa_of(y)))

    def memories(self, x: Variable, patterns: Weights, sharpness: float) -> None:
        """½|x|² − (1/β) ln Σ exp(β X x)."""
        self.term(e.LseOp(ssa_of(x), self.weights(patterns), sharpness))

    def goodness(self, x: Variable, w: Weights, b: Weights, *, theta: float, negative: bool = False) -> None:
        """The Forward-Forward loss of one layer."""
        self.term(e.LocalOp(ssa_of(x), self.weights(w), self.weights(b), theta=theta, negative=negative))

    def cost(self, x: Variable, target: Variable, kind: str = "mse") -> None:
        """What `nudge` of a relaxation multiplies."""
        self.term(e.CostOp(ssa_of(x), ssa_of(target), chosen(e.CostKind, kind, "cost")))

    def force(self, x: Variable, w: Weights, y: Variable) -> None:
        """A force W y on x that comes from no energy."""
        self.term(e.VectorFieldOp(ssa_of(x), self.weights(w), ssa_of(y)))
