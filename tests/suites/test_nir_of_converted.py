"""From a float CNN to spikes, to NIR, and back: what NIR says adds up to what the converted network says."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

nir = pytest.importorskip("nir")
pytest.importorskip("h5py")

from neuc.compiler.exporters.nir_graph import export_nir  # noqa: E402
from neuc.compiler.importers.nir.importer import NirOptions, import_nir  # noqa: E402
from neuc.compiler.snn.convert import convert_to_snn  # noqa: E402
from neuc.compiler.snn.model import SpikingModel  # noqa: E402
from neuc.compiler.universe import new_context  # noqa: E402
from neuc.dialects.interp.core import interpret  # noqa: E402
from neuc.errors import Error  # noqa: E402
from neuc.passes.expand_graded_spikes import ExpandGradedSpikes  # noqa: E402

STEPS = 6


def network() -> onnx.ModelProto:
    """Convolution, ReLU, average pool, and two dense layers around another ReLU."""
    rng = np.random.default_rng(0)
    sizes = {"w1": (4, 1, 3, 3), "b1": (4,), "w2": (6, 36), "b2": (6,), "w3": (3, 6), "b3": (3,)}
    arrays = {name: (rng.standard_normal(s) / np.sqrt(np.prod(s[1:]))).astype(np.float32) for name, s in sizes.items()}
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], name="relu1"),
        helper.make_node("AveragePool", ["r"], ["p"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["p"], ["f"], name="flat"),
        helper.make_node("Gemm", ["f", "w2", "b2"], ["g"], name="fc1", transB=1),
        helper.make_node("Relu", ["g"], ["h"], name="relu2"),
        helper.make_node("Gemm", ["h", "w3", "b3"], ["y"], name="fc2", transB=1),
    ]
    ends = [("x", ["B", 1, 6, 6]), ("y", ["B", 3])]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in ends)
    weights = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "cnn", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def inputs(seed: int) -> np.ndarray:
    """Other samples than those thresholds come from: the largest of these meets thresholds exactly."""
    return np.random.default_rng(seed).random((32, 1, 6, 6), np.float32)


def through_nir(model: SpikingModel, x: np.ndarray, soft_reset: str) -> tuple[np.ndarray, set[str]]:
    """The read-out of the model's NIR graph after its last step, and the kinds of its nodes."""
    exported = export_nir(model.module, model.context.weights, soft_reset=soft_reset)
    context = new_context()
    module = import_nir(exported.graph, context)
    (summed,) = interpret(module, [np.broadcast_to(x, (STEPS, *x.shape))], context.weights)
    return summed[-1] / STEPS, {type(node).__name__ for node in exported.graph.nodes.values()}


@pytest.mark.parametrize("soft_reset", ["metadata", "subgraph"])
def test_binary_spikes_are_said_exactly(soft_reset: str) -> None:
    x = inputs(2)
    model = convert_to_snn(network(), inputs(1), recipe="a", steps=STEPS, thresholds="max")
    found, kinds = through_nir(model, x, soft_reset)
    # A last division and, in the subgraph, potentials that count from elsewhere: some roundings of numbers below 4.
    np.testing.assert_allclose(found, model.run(x)[0], atol=1e-5)
    assert ("IF" in kinds) == (soft_reset == "metadata")
    assert {"Conv2d", "SumPool2d", "Flatten", "Affine", "I"} <= kinds


@pytest.mark.parametrize("group", [1, 2])
def test_biases_that_calibration_finds_are_said(group: int) -> None:
    x = inputs(2)
    model = convert_to_snn(network(), inputs(1), recipe="a", steps=STEPS, group=group)
    found, _ = through_nir(model, x, "metadata")
    # A spike more or less of an input at its threshold; most samples have none.
    assert np.median(np.abs(found - model.run(x)[0])) < 1e-5


def test_graded_spikes_are_said_by_binary_ones() -> None:
    x = inputs(2)
    model = convert_to_snn(
        network(), inputs(1), recipe="b", coding="rate", levels=2, steps=STEPS, thresholds="max", refit=False
    )
    expected = model.run(x)[0]
    ExpandGradedSpikes().apply(model.context, model.module)
    found, kinds = through_nir(model, x, "metadata")
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert "Threshold" in kinds


def test_shapes_and_what_follows_the_loop_are_named() -> None:
    model = convert_to_snn(network(), inputs(1), recipe="a", steps=STEPS)
    exported = export_nir(model.module, model.context.weights)
    assert any("last step (arith.divf)" in note for note in exported.notes)
    with pytest.raises(Error, match=r"E506.*no input input.*x=TxBx1x6x6"):
        import_nir(exported.graph, new_context(), NirOptions(shapes={"input": (4, "B", 1, 6, 6)}))
