"""A pass that breaks a module is named, also when a later one stumbles over what it left."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

from neuc.compiler.diagnostics import parse_module
from neuc.compiler.driver import Driver, Observation, PassCrash
from neuc.compiler.universe import new_context
from neuc.errors import Error

TEXT = "func.func @f(%x: i32) -> i32 { func.return %x : i32 }"


@dataclass(frozen=True)
class Break(ModulePass):
    """Returns nothing where a number is promised."""

    name = "break"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        list(op.walk())[-1].operands = []


@dataclass(frozen=True)
class Nothing(ModulePass):
    """Leaves the module as it is."""

    name = "nothing"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        pass


@dataclass(frozen=True)
class Stumble(ModulePass):
    """Needs what `Break` takes away."""

    name = "stumble"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        _ = list(op.walk())[-1].operands[0]


@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("after", [Nothing(), Stumble()])
def test_the_pass_that_broke_the_module_is_named(each: bool, after: ModulePass) -> None:
    context = new_context()
    module = parse_module(TEXT, context, "test")
    with pytest.raises(PassCrash, match="pass break left a module that does not verify") as caught:
        Driver(module, context, Observation(verify_each=each)).run([Nothing(), Break(), after])
    assert caught.value.pipeline == "nothing,break"
    assert "return" in caught.value.module_text


def test_a_pass_that_fails_on_its_own_is_named() -> None:
    context = new_context()
    module = parse_module("builtin.module {}", context, "test")
    with pytest.raises(PassCrash, match="pass stumble failed"):
        Driver(module, context).run([Nothing(), Stumble()])


@pytest.mark.parametrize("text", ["garbage\n", "garbage here\n", "garbage"])
def test_an_unknown_operation_is_where_its_name_stands(text: str) -> None:
    with pytest.raises(Error, match=r"g\.mlir:1:1: Operation garbage is not registered"):
        parse_module(text, new_context(), "g.mlir")
    with pytest.raises(Error, match=r"g\.mlir:2:3: Operation garbage is not registered"):
        parse_module(f"builtin.module {{\n  {text}}}\n", new_context(), "g.mlir")
