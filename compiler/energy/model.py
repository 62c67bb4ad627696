"""`Model`: variables and terms as Python calls; every call appends one `energy` operation.

Arrays become constants of the module, `Model.parameter` makes inputs of the program instead. What is done with a model
is in `states.py`, what comes out in `program.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import ArrayLike
from xdsl.dialects.builtin import ArrayAttr, DictionaryAttr, FunctionType, ModuleOp, StringAttr, f32, f64, i64
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue
from xdsl.utils.exceptions import VerifyException

from neuc.compiler.energy.program import Program
from neuc.compiler.energy.results import result_facts
from neuc.compiler.energy.terms import Parameter, Terms, Variable, Weights, ssa_of
from neuc.compiler.energy.usage import chosen, refused, usage_error, variable_type
from neuc.compiler.universe import new_context
from neuc.dialects import energy as e
from neuc.dialects.dense import ReshapeOp
from neuc.dialects.dims import DimLike, product
from neuc.dialects.energy_factors import FactorGraph
from neuc.dialects.energy_model import term_variables
from neuc.dialects.onnx import NAME, encode_name
from neuc.dialects.store import dims_of, element_of, make_constant, tensor_type
from neuc.errors import Error, Exit
from neuc.passes.color_blocks import known, partition
from neuc.passes.module_facts import set_fact

if TYPE_CHECKING:
    from neuc.compiler.energy.states import State, Value

Array: TypeAlias = np.ndarray


class Model(Terms):
    """An energy under construction, F = Σ terms; signs are those of `dialects/energy_terms.py`.

    Args:
        precise: compute with f64 states where the interpreter runs (compiled programs take f32).
    """

    def __init__(self, *, precise: bool = False) -> None:
        self.element: Attribute = f64 if precise else f32
        self.context = new_context()
        self.block = Block()
        self.variables: list[Variable] = []
        self.inputs: list[str] = []
        self._terms: list[SSAValue] = []
        self._made: SSAValue | None = None
        self._facts: dict[str, object] = {}

    def __repr__(self) -> str:
        """One line: the variables with their spaces, how many terms, the inputs so far."""
        variables = ", ".join(f"{v.name} {v.type.space}{list(v.type.shape)}" for v in self.variables) or "no variables"
        terms = f"{len(self._terms)} term{'' if len(self._terms) == 1 else 's'}"
        inputs = f"; inputs {', '.join(self.inputs)}" if self.inputs else ""
        return f"<energy.Model: {variables}; {terms}{inputs}>"

    # ---------------------------------------------------------------- variables

    def spin(self, *shape: int, name: str = "", clamped: bool = False) -> Variable:
        """Spins -1 and +1."""
        return self._variable(variable_type(e.Space.SPIN, shape), name, clamped)

    def categories(self, k: int, *shape: int, name: str = "", clamped: bool = False) -> Variable:
        """Categories 0 … k − 1; one alone only where it is clamped, as what an agent sees may be."""
        if k == 1 and not clamped:
            raise usage_error(f"cat variable of shape {list(shape)} and 1 category", "at least two categories")
        return self._variable(variable_type(e.Space.CAT, shape, k), name, clamped)

    def real(
        self, *shape: int, box: tuple[float, float] | None = None, name: str = "", clamped: bool = False
    ) -> Variable:
        """Real numbers, within a box or free."""
        bounds = (-math.inf, math.inf) if box is None else box
        return self._variable(variable_type(e.Space.REAL, shape, box=bounds), name, clamped)

    def beliefs(self, k: int, *shape: int, name: str = "", clamped: bool = False) -> Variable:
        """Probability vectors of k entries."""
        return self._variable(variable_type(e.Space.SIMPLEX, shape, k), name, clamped)

    def phase(self, *shape: int, name: str = "") -> Variable:
        """Angles in radians."""
        return self._variable(variable_type(e.Space.PHASE, shape), name, clamped=False)

    def complex(self, *shape: int, name: str = "", clamped: bool = False) -> Variable:
        """Complex numbers."""
        return self._variable(variable_type(e.Space.COMPLEX, shape), name, clamped)

    def rho(self, x: Variable, fn: str) -> Variable:
        """ρ(x) for terms to read: hardsigmoid, tanh, sigmoid, relu, cos, sin."""
        value = ssa_of(x)
        return Variable(x.name, self.add(e.RhoOp(value, chosen(e.RhoKind, fn, "ρ"))))

    def blocks(self, blocks: Sequence[Sequence[int]]) -> None:
        """Sweep these blocks of sites one after another; without this neuc finds blocks itself.

        Sites count on through the spins and categories in the order of the variables. Each free one is in one block,
        and no term joins two of a block.

        Raises:
            Error: NEUC-E603, dependent sites in one block, or blocks that are no partition; NEUC-E612, a term whose
                weights are an input.
        """
        self._still_open()
        model = self.model()
        graph = FactorGraph.of(e.model_of(model), lambda value: known(value, self.context.weights))
        colors = np.full(graph.sites, len(blocks))
        for number, block in enumerate(blocks):
            colors[np.asarray(block, np.int64)] = number
        order, bounds = partition(graph, colors)
        graph.check_blocks(order, bounds)
        self._made = self.add(e.ColorOp(model, self._constant("order", order), bounds))

    # ---------------------------------------------------------------- parameters, states, programs

    def parameter(self, name: str, *shape: int) -> Parameter:
        """An array that the program takes as an input of this name."""
        return Parameter(name, self.input(name, self.element, shape))

    def constant(self, name: str, values: ArrayLike) -> Parameter:
        """A constant that gradients can be asked for."""
        return Parameter(name, self.weights(values))

    def state(self, chains: int | str = "chains", **values: ArrayLike) -> State:
        """A state whose values are inputs of the program, called as the variables are; or constants given here."""
        from neuc.compiler.energy.states import State

        tensors: list[SSAValue] = []
        for variable in self.variables:
            type_ = variable.type
            element = self.element_of(type_)
            if variable.name in values:
                dtype = {"i8": np.int8, "i32": np.int32, "f32": np.float32}.get(str(element), np.float64)
                tensors.append(self._constant(variable.name, np.asarray(values[variable.name], dtype)))
            else:
                tensors.append(self.input(variable.name, element, (chains, *type_.value_shape)))
        # Seen through the folder and through the package, this file has two classes of one name for pyright.
        return State(self, self.add(e.StateOp(self.model(), tensors)))  # pyright: ignore[reportArgumentType]

    def init(self, chains: int = 1) -> State:
        """Spins and categories drawn by the program's input `seed`; reals 0 within their box, beliefs uniform."""
        from neuc.compiler.energy.states import State

        return State(self, self.add(e.InitOp(self.model(), self.seed(), chains)))  # pyright: ignore[reportArgumentType]

    def seed(self) -> SSAValue:
        """The program's input `seed`, 0 by default."""
        self._facts.setdefault("seed", 0)
        return self.input("seed", i64, ())

    def program(self, **results: Value) -> Program:
        """The program that computes these values, by name."""
        if not results:
            raise Error("NEUC-E614", "a program without results computes nothing", hint="program(spins=state[x])")
        shared = [name for name in results if name in self.inputs]
        if shared:
            raise usage_error(
                f"{shared[0]} is an input and a result", f"call the result something else: last_{shared[0]}=…"
            )
        values = [value.value for value in results.values()]
        block = Block(arg_types=[a.type for a in self.block.args])
        copies: dict[SSAValue, SSAValue] = dict(zip(self.block.args, block.args))
        for op in self.block.ops:
            block.add_op(op.clone(copies))
        returned = [copies[v] for v in values]
        block.add_op(ReturnOp(*returned))
        main = FuncOp(
            "main",
            FunctionType.from_lists([a.type for a in block.args], [v.type for v in returned]),
            Region(block),
            arg_attrs=ArrayAttr([_named(name) for name in self.inputs]),
            res_attrs=ArrayAttr([_named(name) for name in results]),
        )
        module = ModuleOp([main])
        drawn = result_facts(dict(zip(results, values, strict=True)), self.context.weights)
        set_fact(module, "energy", {**self._facts, "results": drawn})
        return Program(module, self.context)

    # ---------------------------------------------------------------- inside

    def add(self, op: Operation) -> SSAValue:
        """Append an operation; its first result.

        Raises:
            Error: NEUC-E614, its operands do not go together.
        """
        try:
            op.verify()
        except VerifyException as error:
            raise refused(op, error) from error
        self.block.add_op(op)
        return op.results[0]

    def element_of(self, type_: e.VarType) -> Attribute:
        """What tensors with values of a variable hold."""
        return type_.elements[0] if type_.discrete else self.element

    def model(self) -> SSAValue:
        """The `energy.model` of what there is; made once, when the first state is."""
        if self._made is None:
            if not self.variables:
                raise usage_error("the model has no variables", "add some before the first state: model.spin(8, 8)")
            self._refuse_loose_clamps()
            self._made = self.add(e.ModelOp([v.value for v in self.variables], self._terms))
        return self._made

    def input(self, name: str, element: Attribute, shape: Sequence[DimLike]) -> SSAValue:
        """An input of the program, made once."""
        if name in self.inputs:
            return self.block.args[self.inputs.index(name)]
        self.inputs.append(name)
        return self.block.insert_arg(tensor_type(element, shape), len(self.block.args))

    def default(self, name: str, fact: object) -> None:
        """What the program's input is when it is not given."""
        self._facts[name] = fact

    def weights(self, values: Weights, shape: tuple[int, ...] | None = None) -> SSAValue:
        """A parameter, or an array as a constant in the model's precision."""
        if isinstance(values, Parameter):
            return values.value
        array = np.asarray(values, np.float64 if self.element == f64 else np.float32)
        if shape is not None:
            array = np.broadcast_to(array, shape)
        return self._constant("weights", np.array(array, order="C"))

    def flattened(self, value: SSAValue) -> SSAValue:
        """Values [C, …] as [C, N]."""
        chains, *rest = dims_of(value)
        return self.add(ReshapeOp(value, tensor_type(element_of(value), (chains, product(rest)))))

    def integers(self, values: ArrayLike) -> SSAValue:
        """Site numbers as a constant."""
        return self._constant("sites", np.ascontiguousarray(values, np.int32))

    def _constant(self, name: str, array: Array) -> SSAValue:
        return self.add(make_constant(name, array, self.context.weights))

    def _variable(self, type_: e.VarType, name: str, clamped: bool) -> Variable:
        self._still_open()
        called = name or f"x{len(self.variables)}"
        if any(v.name == called for v in self.variables):
            raise usage_error(f"there are two variables called {called}", "give each a name of its own")
        made = Variable(called, self.add(e.VarOp(type_, e.Role.CLAMPED if clamped else e.Role.FREE)))
        if SSAValue.is_valid_name(called):
            made.value.name_hint = called
        self.variables.append(made)
        return made

    def term(self, op: Operation) -> None:
        """Add the term that an operation makes."""
        self._still_open()
        self._terms.append(self.add(op))

    def _refuse_loose_clamps(self) -> None:
        """A clamped variable that no term reads holds nothing: a forgotten coupling, most likely."""
        read = {variable for term in self._terms for variable in term_variables(term)}
        loose = [v.name for v in self.variables if _is_clamped(v) and v.value not in read]
        if loose:
            hint = "couple it with what it should act on, or leave it out"
            raise Error("NEUC-E630", f"{loose[0]} is clamped and no term reads it", hint=hint, exit_code=Exit.USAGE)

    def _still_open(self) -> None:
        if self._made is not None:
            raise usage_error("the model has states already", "add variables and terms before the first state")


def _is_clamped(variable: Variable) -> bool:
    owner = variable.value.owner
    return isinstance(owner, e.VarOp) and owner.clamped


def _named(name: str) -> DictionaryAttr:
    return DictionaryAttr({NAME: StringAttr(encode_name(name))})
