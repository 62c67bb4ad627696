"""The report says how many barriers a program has; layers side by side need one between them and what joins them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import neuc


def side_by_side(path: Path) -> Path:
    """x [N, 64] times three matrices, joined."""
    rng = np.random.default_rng(1)
    names = ("q", "k", "v")
    weights = [numpy_helper.from_array(rng.standard_normal((64, 32)).astype(np.float32), f"w_{n}") for n in names]
    nodes = [helper.make_node("MatMul", ["x", f"w_{n}"], [n], name=n) for n in names]
    nodes.append(helper.make_node("Concat", list(names), ["y"], name="join", axis=0))
    tensor = helper.make_tensor_value_info
    ends = [tensor("x", TensorProto.FLOAT, ["N", 64])], [tensor("y", TensorProto.FLOAT, ["3*N", 32])]
    model = helper.make_model(helper.make_graph(nodes, "m", *ends, weights), ir_version=10)
    onnx.save(model, path)
    return path


def test_barriers_are_counted_and_results_do_not_depend_on_threads(tmp_path: Path) -> None:
    compiled = neuc.compile(side_by_side(tmp_path / "m.onnx"), quantize="none")
    report = compiled.report
    assert 0 < report.barriers < report.launches
    compiled.save(tmp_path / "m.neuc")
    x = np.random.default_rng(2).standard_normal((70, 64)).astype(np.float32)
    results = []
    for threads in (1, 2, 3):
        with neuc.load(tmp_path / "m.neuc", threads=threads) as session:
            flags = [launch.barrier for s in session.program.segments.values() for launch in getattr(s, "launches", ())]
            assert sum(flags) == report.barriers
            results.append(session.run(None, {"x": x})[0])
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])
