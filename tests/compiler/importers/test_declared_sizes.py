"""Sizes that no tensor has, or that the model contradicts, are refused by the name of the input or output."""

from __future__ import annotations

import onnx
import pytest
from onnx import helper

from neuc.compiler.importers.onnx_file import import_onnx
from neuc.dialects.context import NeucContext
from neuc.errors import Error


def model(inputs: list[int | str], outputs: list[int | str]) -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"], name="r")],
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, inputs)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, outputs)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.mark.parametrize(
    ("inputs", "outputs", "code", "what"),
    [
        ([-3, 4], [-3, 4], "NEUC-E105", "input 'x' has size -3 in dim 0"),
        ([2**40, 2**40], [2**40, 2**40], "NEUC-E105", "input 'x' has"),
        ([2, 4], [2, -7], "NEUC-E105", "output 'y' has size -7 in dim 1"),
        ([2, 4], [3, 4], "NEUC-E108", "output 'y' is declared with size 3 in dim 0, but the model computes 2"),
    ],
)
def test_refused(inputs: list[int | str], outputs: list[int | str], code: str, what: str) -> None:
    with pytest.raises(Error, match=what) as caught:
        import_onnx(model(inputs, outputs), NeucContext())
    assert caught.value.code == code


@pytest.mark.parametrize("sizes", [["B", 4], [-1, 4], [0, 4], [2, 4]])
def test_taken(sizes: list[int | str]) -> None:
    import_onnx(model(sizes, ["anything", 4]), NeucContext())
