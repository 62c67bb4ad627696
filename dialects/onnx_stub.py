"""Writes `onnx.pyi`, which tells type checkers the fields of the generated operation classes.

``python -m neuc.dialects.onnx_stub > dialects/onnx.pyi`` after onnx was updated; a test says when that is due.
"""

from __future__ import annotations

import sys

from neuc.dialects.onnx import class_name, field_names
from neuc.dialects.onnx_schema import Signature, signatures

_HEAD = """# ruff: noqa: E743 - names are those of the schemas
# Written by onnx_stub.py from ONNX's schemas; not to be edited.
from xdsl.dialects.func import FuncOp
from xdsl.ir import Dialect, OpResult, SSAValue

from neuc.dialects.onnx_base import NAME as NAME
from neuc.dialects.onnx_base import OPSETS as OPSETS
from neuc.dialects.onnx_base import OnnxOp as OnnxOp
from neuc.dialects.onnx_base import opsets_of as opsets_of
from neuc.dialects.onnx_base import set_opsets as set_opsets
from neuc.dialects.onnx_schema import Signature
from neuc.dialects.onnx_special import CustomOp as CustomOp
from neuc.dialects.onnx_special import NoneOp as NoneOp
from neuc.dialects.onnx_special import YieldOp as YieldOp

Onnx: Dialect

def op_class(op_type: str, domain: str = "") -> type[OnnxOp] | None: ...
def class_name(signature: Signature) -> str: ...
def field_names(signature: Signature) -> tuple[dict[str, int], dict[str, int]]: ...
def function_names(func: FuncOp) -> tuple[tuple[str, ...], tuple[str, ...]]: ...
def encode_name(name: str) -> str: ...
def decode_name(name: str) -> str: ...
"""


def stub_text() -> str:
    """The whole stub file."""
    ordered = sorted(signatures(), key=class_name)
    return _HEAD + "".join(_class_text(s) for s in ordered)


def _class_text(signature: Signature) -> str:
    inputs, outputs = field_names(signature)
    last = len(signature.inputs) - 1
    lines = [f"\nclass {class_name(signature)}(OnnxOp):"]
    for name, index in inputs.items():
        variadic = signature.last_variadic and index == last
        lines += _property(name, "tuple[SSAValue, ...]" if variadic else _input_type(signature, index))
    for name, index in outputs.items():
        lines += _property(name, "OpResult" if index in signature.always_made else "OpResult | None")
    return "\n".join(lines) + ("\n" if len(lines) > 1 else " ...\n")


def _input_type(signature: Signature, index: int) -> str:
    return "SSAValue" if index in signature.required else "SSAValue | None"


def _property(name: str, type_: str) -> list[str]:
    return ["    @property", f"    def {name}(self) -> {type_}: ..."]


if __name__ == "__main__":
    sys.stdout.write(stub_text())
