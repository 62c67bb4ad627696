"""Inputs that are indices of tables: noted, told, made up within the table, and refused outside as onnxruntime does."""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

import neuc
from neuc.compiler import api
from neuc.compiler.cli import main
from neuc.compiler.inputs import random_inputs
from neuc.compiler.verification import made_up
from neuc.errors import Error, Exit
from neuc.runtime.program import IndexBound, IoSpec

ROWS = 50


def table(
    *moves: NodeProto,
    rows: int = ROWS,
    axis: int = 0,
    kind: int = TensorProto.INT64,
    last: str = "ids",
    behind: tuple[NodeProto, ...] = (),
) -> ModelProto:
    """`moves` from input `ids` to `last`, which picks from a table."""
    rng = np.random.default_rng(1)
    weights = rng.standard_normal((rows, 8) if axis == 0 else (8, rows)).astype(np.float32)
    constants = [
        numpy_helper.from_array(weights, "table"),
        numpy_helper.from_array(rng.standard_normal((20, 8)).astype(np.float32), "small"),
        numpy_helper.from_array(np.array([1]), "one"),
        numpy_helper.from_array(np.array([-1]), "flat"),
    ]
    pick = helper.make_node("Gather", ["table", last], ["y"], name="pick", axis=axis)
    graph = helper.make_graph(
        [*moves, pick, *behind],
        "table",
        [helper.make_tensor_value_info("ids", kind, ["N", 3])],
        [helper.make_tensor_value_info(n.output[0], TensorProto.FLOAT, None) for n in (pick, *behind)],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def node(kind: str, *inputs: str, **attributes: Any) -> NodeProto:
    return helper.make_node(kind, inputs, [f"{kind}_out"], name=f"{kind}_0", **attributes)


def saved(model: ModelProto, folder: Path) -> Path:
    path = folder / "table.onnx"
    onnx.save(model, path)
    return path


def bound_of(path: Path) -> IndexBound | None:
    return api.compile(path).session().program.inputs[0].index


FOLLOWED = {
    "as it is": ({}, ()),
    "another axis": ({"axis": -1}, ()),
    "cast": ({"kind": TensorProto.INT32, "last": "Cast_out"}, (node("Cast", "ids", to=TensorProto.INT64),)),
    "narrowed": ({"last": "Cast_out"}, (node("Cast", "ids", to=TensorProto.INT32),)),
    "reshaped": ({"last": "Reshape_out"}, (node("Reshape", "ids", "flat"),)),
    "turned": (
        {"last": "Transpose_out"},
        (node("Unsqueeze", "ids", "one"), node("Transpose", "Unsqueeze_out", perm=[2, 0, 1])),
    ),
}
COMPUTED = {
    "sums": ({"last": "Add_out"}, (node("Add", "ids", "one"),)),
    "parts": ({"last": "Slice_out"}, (node("Slice", "ids", "one", "flat", "one"),)),
    "floats": (
        {"kind": TensorProto.FLOAT, "last": "Cast_out"},
        (node("Cast", "ids", to=TensorProto.INT64),),
    ),
}


@pytest.mark.parametrize("case", FOLLOWED)
def test_an_input_that_reaches_a_gather_is_bound_by_its_table(case: str, tmp_path: Path):
    options, moves = FOLLOWED[case]
    assert bound_of(saved(table(*moves, **options), tmp_path)) == IndexBound(ROWS, "pick")


@pytest.mark.parametrize("case", COMPUTED)
def test_what_is_computed_from_an_input_does_not_bind_it(case: str, tmp_path: Path):
    options, moves = COMPUTED[case]
    assert bound_of(saved(table(*moves, **options), tmp_path)) is None


def test_the_smallest_of_several_tables_counts(tmp_path: Path):
    other = helper.make_node("Gather", ["small", "ids"], ["z"], name="pick_small")
    assert bound_of(saved(table(behind=(other,)), tmp_path)) == IndexBound(20, "pick_small")


def test_what_onnxruntime_refuses_is_refused_and_what_it_takes_is_the_same(tmp_path: Path):
    path = saved(table(), tmp_path)
    compiled = api.compile(path)
    compiled.save(tmp_path / "table.neuc")
    reference = onnxruntime.InferenceSession(path)
    with neuc.load(tmp_path / "table.neuc") as session:
        for value in (-ROWS - 1, -ROWS, -1, 0, ROWS - 1, ROWS, 10**12):
            ids = np.zeros((2, 3), np.int64)
            ids[1, 1] = value
            if -ROWS <= value < ROWS:
                np.testing.assert_array_equal(session.run(None, {"ids": ids})[0], reference.run(None, {"ids": ids})[0])
                continue
            with pytest.raises(Exception, match="indices element out of data bounds"):
                reference.run(None, {"ids": ids})
            with pytest.raises(
                Error, match=rf"'ids': {value} is no index of the table of 50 rows that pick picks"
            ) as e:
                session.run(None, {"ids": ids})
            assert (e.value.code, e.value.exit_code) == ("NEUC-E326", Exit.USAGE)
        assert session.run(None, {"ids": np.zeros((0, 3), np.int64)})[0].shape == (0, 3, 8)


def test_prepared_runs_look_at_the_arrays_in_each_call(tmp_path: Path):
    with api.compile(saved(table(), tmp_path)).session() as session:
        ids = np.full((2, 3), 10**9)
        binding = session.io_binding()
        binding.bind_cpu_input("ids", ids)
        run = session.prepare(binding)
        with pytest.raises(Error, match=r"6 such values"):
            run()
        ids[:] = 7
        run()
        np.testing.assert_array_equal(run.outputs["y"], session.run(None, {"ids": ids})[0])
        binding.bind_cpu_input("ids", ids + ROWS)
        with pytest.raises(Error, match="E326"):
            session.run_with_iobinding(binding)


def test_made_up_indices_lie_in_the_table(tmp_path: Path):
    inputs = api.compile(saved(table(), tmp_path)).session().program.inputs
    made = random_inputs(inputs, sizes={"N": 200})["ids"]
    assert (made.min(), made.max()) == (0, ROWS - 1)
    assert np.bincount(made.reshape(-1)).max() < 40  # 12 of each are expected: none stands for all beyond
    assert all(feed["ids"].max() < ROWS for feeds in made_up(inputs, 3) for feed in feeds)


def test_one_row_is_a_table_too():
    one = IndexBound(1, "pick")
    made = random_inputs([IoSpec("int64", (4,), "ids", index=one), IoSpec("int64", (4,), "mask_ids", index=one)])
    assert not made["ids"].any()
    assert not made["mask_ids"].any()


def test_errors_of_quantisation_are_measured_within_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """onnxruntime refuses the first made-up inputs if they are not below the table's rows: more modest ones follow."""
    from neuc.compiler import evaluate, quantize

    weights = numpy_helper.from_array(np.random.default_rng(2).standard_normal((8, 64)).astype(np.float32), "w")
    model = table(behind=(helper.make_node("MatMul", ["y", "w"], ["z"], name="layer"),), rows=30)
    model.graph.initializer.append(weights)
    seen: list[int] = []
    real = evaluate.evaluation_inputs

    def spied(*arguments: object):
        for feeds in real(*arguments):  # type: ignore[arg-type]
            seen.extend(int(feed["ids"].max()) for feed in feeds)
            yield feeds

    monkeypatch.setattr(quantize, "evaluation_inputs", spied)
    compiled = api.compile(saved(model, tmp_path), quantize="ternary", target="cpu-tl2")
    assert compiled.report.measured is not None
    assert len(seen) == 1
    assert 0 < seen[0] < 30


def test_calibration_data_outside_of_the_table_are_refused(tmp_path: Path):
    np.savez(tmp_path / "rows.npz", ids=np.full((4, 3), ROWS))
    path = saved(table(), tmp_path)
    with pytest.raises(Error, match=r"rows\.npz: input 'ids': 50 is no index"):
        api.compile(path, quantize="ternary", calib=tmp_path / "rows.npz")


def called(*arguments: object) -> tuple[int, str, str]:
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        code = main([str(a) for a in arguments])
    return code, out.getvalue(), err.getvalue()


def test_commands_tell_the_bound(tmp_path: Path):
    path, artifact = saved(table(), tmp_path), tmp_path / "table.neuc"
    assert called("compile", path, "-o", artifact)[0] == 0
    code, out, _ = called("inspect", artifact)
    assert code == 0
    assert "ids: int64[N, 3], indices of the 50 rows of pick\n" in out
    code, _, err = called("run", artifact, "--input", "ids=2x3xi64=100")
    assert code == Exit.USAGE
    assert "input 'ids': 100 is no index of the table of 50 rows that pick picks from (6 such values)" in err
    assert called("run", artifact)[0] == 0


def test_the_bound_survives_text_of_a_level(tmp_path: Path):
    machine = tmp_path / "table.machine.mlir"
    path = saved(table(), tmp_path)
    assert called("compile", path, "--compile-to", "machine", "-o", machine)[0] == 0
    assert bound_of(machine) == IndexBound(ROWS, "pick")
