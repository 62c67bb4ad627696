"""NIR import: meanings of nodes, soft resets, repairs, notes, and errors for what is wrong."""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

nir = pytest.importorskip("nir")
h5py = pytest.importorskip("h5py")

from neuc.compiler.importers.nir.importer import import_nir  # noqa: E402
from neuc.compiler.importers.nir.options import NirOptions  # noqa: E402
from neuc.compiler.source import read_model  # noqa: E402
from neuc.compiler.universe import new_context  # noqa: E402
from neuc.dialects.interp.core import interpret  # noqa: E402
from neuc.errors import Error  # noqa: E402
from neuc.passes.module_facts import notes_of  # noqa: E402
from nir_simulator import Simulator  # noqa: E402

DT = 2.0**-10


def graph(nodes: dict[str, Any], *edges: tuple[str, str], metadata: dict[str, Any] | None = None) -> Any:
    return nir.NIRGraph(nodes=nodes, edges=list(edges), metadata=metadata or {}, type_check=False)


def chain(shape: tuple[int, ...], *nodes: Any) -> Any:
    """Input -> nodes n0, n1 … -> Output."""
    names = ["input", *(f"n{i}" for i in range(len(nodes))), "output"]
    ends = nir.Input({"input": np.array(shape)}), nir.Output({"output": np.array(shape)})
    return graph(dict(zip(names, (ends[0], *nodes, ends[1]))), *pairwise(names))


def run(model: Any, x: np.ndarray, **options: Any) -> np.ndarray:
    """The first output for inputs [T, ...] of one sample."""
    context = new_context()
    module = import_nir(model, context, NirOptions(**{"dt": DT, **options}))
    return interpret(module, [x[:, None].astype(np.float32)], context.weights)[0][:, 0]


def soft_reset_subgraph(n: int, theta: float, taken: float, scale: bool = False) -> Any:
    back = nir.Scale(np.full(n, -taken / DT * DT)) if scale else nir.Linear(np.diag(np.full(n, -taken)))
    return graph(
        {
            "input": nir.Input({"input": np.array([n])}),
            "i": nir.I(np.full(n, 1 / DT)),
            "fire": nir.Threshold(np.full(n, theta)),
            "back": back,
            "output": nir.Output({"output": np.array([n])}),
        },
        ("input", "i"),
        ("i", "fire"),
        ("fire", "back"),
        ("back", "i"),
        ("fire", "output"),
    )


INPUTS = np.random.default_rng(0).integers(-2, 6, (12, 3)) / 4


@pytest.mark.parametrize("scale", [False, True])
@pytest.mark.parametrize("taken", [1.0, 0.75])
def test_the_soft_reset_subgraph_becomes_one_neuron_and_means_the_same(taken: float, scale: bool) -> None:
    model = soft_reset_subgraph(3, 1.0, taken, scale)
    found = run(model, INPUTS)
    shapes = dict.fromkeys(model.nodes, (3,))
    assert (found == Simulator(model, shapes, DT).run({"input": INPUTS})["output"]).all()
    assert found.any()
    context = new_context()
    module = import_nir(model, context, NirOptions(dt=DT))
    names = [op.name for op in module.walk()]
    assert "spike.if" in names
    assert "spike.threshold" not in names
    assert any("soft resets written as subgraphs: 1" in note for note in notes_of(module))


def test_resets_by_metadata_and_by_option_take_the_threshold_off() -> None:
    x = np.full((4, 1), 1.5)
    hard = nir.IF(np.array([1 / DT]), np.array([1.0]))
    soft = nir.IF(np.array([1 / DT]), np.array([1.0]), metadata={"reset": "subtract"})
    assert run(chain((1,), hard), x)[:, 0].tolist() == [1, 1, 1, 1]
    low = np.full((4, 1), 0.75)
    assert run(chain((1,), hard), low)[:, 0].tolist() == [0, 1, 0, 1]
    assert run(chain((1,), soft), low)[:, 0].tolist() == [0, 1, 1, 0]  # 0.75, 1.5, 1.25, 1.0: not above 1
    assert run(chain((1,), hard), low, reset="subtract")[:, 0].tolist() == [0, 1, 1, 0]


def test_what_is_not_said_is_told() -> None:
    context = new_context()
    module = import_nir(chain((1,), nir.IF(np.array([1.0]), np.array([1.0]))), context)
    notes = notes_of(module)
    assert any("a step is 0.0001 s" in note for note in notes)
    assert any("snnTorch" in note and "--reset snntorch" in note for note in notes)
    told = chain((1,), nir.IF(np.array([1.0]), np.array([1.0]), metadata={"reset": "subtract"}))
    told.metadata = {"dt": 0.5}
    assert not notes_of(import_nir(told, new_context()))


def test_flatten_that_counts_a_batch_axis_is_read_as_meant() -> None:
    weight = np.arange(24.0).reshape(1, 24)
    wrong = nir.Flatten(input_type={"input": np.array([2, 3, 4])}, start_dim=1, end_dim=-1)
    model = chain((2, 3, 4), wrong, nir.Linear(weight))
    x = np.arange(24.0).reshape(1, 2, 3, 4)
    assert run(model, x).tolist() == [[float((np.arange(24.0) ** 2).sum())]]
    assert any("batch axis" in note for note in notes_of(import_nir(model, new_context(), NirOptions(dt=DT))))
    meant = chain((2, 3, 4), wrong, nir.Linear(np.ones((1, 12))))
    assert run(meant, x)[0].shape == (2, 1)


def test_states_can_be_kept_between_calls() -> None:
    n = 3
    model = graph(
        {
            "input": nir.Input({"input": np.array([n])}),
            "late": nir.Delay(np.full(n, 2 * DT)),
            "lif": nir.LIF(np.full(n, 4 * DT), np.full(n, 4.0), np.zeros(n), np.ones(n)),
            "back": nir.Linear(np.ones((n, n)) / 4),
            "output": nir.Output({"output": np.array([n])}),
        },
        *[("input", "late"), ("late", "lif"), ("lif", "back"), ("back", "lif"), ("lif", "output")],
    )
    whole = run(model, INPUTS)
    context = new_context()
    module = import_nir(model, context, NirOptions(dt=DT, keep_state=True))
    function = next(iter(module.ops))
    names = [a.data["onnx.name"].data for a in function.arg_attrs.data]  # type: ignore[union-attr]
    assert names == ["input", "state.late.ring2", "state.lif.last", "state.lif.potential"]
    states = [np.zeros((2, 1, n), np.float32), np.zeros((1, n), np.int8), np.zeros((1, n), np.float32)]
    parts = []
    for x in np.split(INPUTS[:, None].astype(np.float32), 4):
        spikes, *states = interpret(module, [x, *states], context.weights)
        parts.append(spikes[:, 0])
    assert (np.concatenate(parts) == whole).all()
    assert whole.any()


def test_v0_in_the_metadata_is_where_a_membrane_begins() -> None:
    node = nir.IF(np.array([1 / DT]), np.array([1.0]), metadata={"v0": np.array([0.5]), "reset": "subtract"})
    assert run(chain((1,), node), np.full((2, 1), 0.75))[:, 0].tolist() == [1, 0]


def test_two_inputs_and_two_outputs_keep_their_names() -> None:
    model = graph(
        {
            "b": nir.Input({"input": np.array([2])}),
            "a": nir.Input({"input": np.array([2])}),
            "twice": nir.Scale(np.array([2.0, 2.0])),
            "sum": nir.Output({"output": np.array([2])}),
            "left": nir.Output({"output": np.array([2])}),
        },
        *[("a", "twice"), ("twice", "sum"), ("b", "sum"), ("b", "left")],
    )
    context = new_context()
    module = import_nir(model, context, NirOptions(dt=DT))
    x, y = np.ones((1, 1, 2), np.float32), np.full((1, 1, 2), 5, np.float32)
    total, left = interpret(module, [y, x], context.weights)
    assert total.tolist() == [[[7, 7]]]
    assert left.tolist() == [[[5, 5]]]


def refusal(model: Any, **options: Any) -> Error:
    with pytest.raises(Error) as caught:
        import_nir(model, new_context(), NirOptions(**{"dt": DT, **options}))
    assert caught.value.hint
    return caught.value


def test_a_cycle_without_delay_is_named() -> None:
    one = np.ones((1, 1))
    model = graph(
        {
            "input": nir.Input({"input": np.array([1])}),
            "w": nir.Linear(one),
            "s": nir.Scale(np.ones(1)),
            "output": nir.Output({"output": np.array([1])}),
        },
        *[("input", "w"), ("w", "s"), ("s", "w"), ("s", "output")],
    )
    error = refusal(model)
    assert (error.code, "w -> s -> w" in str(error)) == ("NEUC-E505", True)
    assert [node.name for node in error.nodes] == ["w", "s"]


@pytest.mark.parametrize(
    ("node", "code", "message"),
    [
        (nir.Linear(np.array([[np.nan, 1.0]])), "NEUC-E502", "weight of Linear n0 has 1 of 2 numbers that are NaN"),
        (nir.LI(np.zeros(2), np.ones(2), np.zeros(2)), "NEUC-E502", "tau is not positive"),
        (nir.LI(np.full(2, DT / 2), np.ones(2), np.zeros(2)), "NEUC-E502", "shorter than a step"),
        (nir.Linear(np.ones((3, 4))), "NEUC-E503", "takes 4 inputs, but its input has shape \\[2\\]"),
        (nir.Linear(np.ones((2, 3, 2))), "NEUC-E503", "rank 3"),
        (nir.Scale(np.ones(3)), "NEUC-E503", "scale of shape \\[3\\]"),
        (nir.IF(np.ones(2), np.ones(2), metadata={"reset": "up"}), "NEUC-E502", "reset = 'up'"),
        (nir.IF(np.ones(2), np.ones(2), np.ones(2), metadata={"reset": "subtract"}), "NEUC-E504", "v_reset = 1"),
        (nir.IF(np.ones(2), np.ones(2), metadata={"v0": "x"}), "NEUC-E501", "v0 of IF n0 holds <U1"),
        (nir.IF(np.ones(2), np.ones(2), metadata={"v0": np.nan}), "NEUC-E502", "v0 of IF n0 has 1 of 1"),
        (nir.IF(np.ones(2), np.ones(2), metadata={"v0": np.ones(7)}), "NEUC-E503", "v0 of shape \\[7\\]"),
        (
            nir.IF(np.ones(2), np.ones(2), metadata={"reset": "subtract", "reset_value": np.ones(7)}),
            "NEUC-E503",
            "reset_value of shape \\[7\\]",
        ),
        (nir.Linear(np.ones((0, 2))), "NEUC-E503", "\\[0\\] holds nothing"),
        (nir.Linear(np.full((2, 2), 1e300)), "NEUC-E502", "too large for f32"),
        (nir.Delay(np.full(2, 1e9)), "NEUC-E502", "delay of"),
        (nir.SumPool2d(np.array(2), np.array(1), np.array(0)), "NEUC-E503", "channels, height, width"),
    ],
)
def test_nodes_that_make_no_sense_are_named(node: Any, code: str, message: str) -> None:
    with pytest.raises(Error, match=message) as caught:
        import_nir(chain((2,), node), new_context(), NirOptions(dt=DT))
    assert caught.value.code == code


@pytest.mark.parametrize("dt", ["x", [1.0, 2.0], 0, np.nan])
def test_a_step_length_in_the_metadata_that_makes_no_sense(dt: object) -> None:
    model = chain((2,), nir.Scale(np.ones(2)))
    model.metadata = {"dt": dt}
    with pytest.raises(Error, match="metadata have dt") as caught:
        import_nir(model, new_context())
    assert caught.value.code == "NEUC-E502"


def test_a_graph_that_holds_itself_is_refused() -> None:
    model = chain((2,), nir.Scale(np.ones(2)))
    model.nodes["n0"] = model
    assert "holds itself" in str(refusal(model))


def test_graphs_that_are_put_together_wrongly_are_refused() -> None:
    ends = {"input": nir.Input({"input": np.array([1])}), "output": nir.Output({"output": np.array([1])})}
    assert "no Output" in str(refusal(graph({"input": ends["input"]})))
    assert "'ghost', which is no node" in str(refusal(graph(ends, ("input", "ghost"))))
    inner = graph({"a": ends["input"], "b": ends["input"], "c": ends["output"]}, ("a", "c"), ("b", "c"))
    model = graph({**ends, "inner": inner}, ("input", "inner"), ("inner", "output"))
    assert "has 2 Input nodes" in str(refusal(model))


def test_no_steps_are_an_error() -> None:
    with pytest.raises(Error, match="0 steps") as caught:
        run(chain((2,), nir.Scale(np.ones(2))), np.ones((0, 2)))
    assert caught.value.code == "NEUC-E509"
    with pytest.raises(Error, match="--dt 0"):
        NirOptions(dt=0.0)
    with pytest.raises(Error, match="--shape input"):
        import_nir(chain((2,), nir.Scale(np.ones(2))), new_context(), NirOptions(dt=DT, shapes={"input": (8, 1, 3)}))


def test_files_that_are_none_are_told(tmp_path: Path) -> None:
    good = tmp_path / "good.nir"
    nir.write(good, chain((2,), nir.Linear(np.ones((2, 2)))))
    assert read_model(good).spiking
    data = good.read_bytes()
    for name, content in (
        ("text.nir", b"no HDF5 at all"),
        ("empty.nir", b""),
        ("short.nir", data[: len(data) // 2]),
        ("signature.h5", data[:8]),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(Error) as caught:
            read_model(tmp_path / name)
        assert caught.value.code == "NEUC-E500"
    with pytest.raises(Error) as caught:
        read_model(tmp_path / "absent.nir")
    assert caught.value.code == "NEUC-E103"


def test_edges_into_inputs_and_out_of_outputs_are_refused() -> None:
    def wrong(edge: tuple[str, str]) -> Any:
        made = chain((2,), nir.Linear(np.ones((2, 2))), nir.IF(np.ones(2), np.ones(2)))
        made.edges.append(edge)
        return made

    with pytest.raises(Error, match="goes into the Input input"):
        run(wrong(("n1", "input")), INPUTS[:, :2])
    with pytest.raises(Error, match="goes out of the Output output") as caught:
        run(wrong(("output", "n0")), INPUTS[:, :2])
    assert caught.value.code == "NEUC-E501"
    ends = {"input": nir.Input({"input": np.array([2])}), "output": nir.Output({"output": np.array([2])})}
    outer = graph({**ends, "inner": wrong(("n1", "input"))}, ("input", "inner"), ("inner", "output"))
    with pytest.raises(Error, match="graph 'inner': the edge n1 -> input"):
        run(outer, INPUTS[:, :2])


def test_hostile_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.nir"

    def refused() -> str:
        with pytest.raises(Error) as caught:
            read_model(path)
        assert caught.value.code in ("NEUC-E500", "NEUC-E501")
        return str(caught.value)

    with h5py.File(path, "w") as file:
        file["other"] = 1
    assert "no group /node" in refused()
    with h5py.File(path, "w") as file:
        file.create_group("node")["type"] = "NIRGraph"
    assert "no nodes" in refused()
    with h5py.File(path, "w") as file:
        node = file.create_group("node")
        node["type"] = h5py.SoftLink("/elsewhere")
    assert "link" in refused()
    with h5py.File(path, "w") as file:
        node = file.create_group("node")
        node["self"] = node  # a hard link in a circle
    assert "circle" in refused()
    with h5py.File(path, "w") as file:
        node = file.create_group("node")
        node.create_dataset("huge", shape=(1 << 34,), dtype="f8", chunks=(1 << 20,), compression="gzip")
    assert "claims to hold more" in refused()
    with h5py.File(path, "w") as file:
        part = file.create_group("node/nodes/x")
        part["type"] = "MaxPool2d"
        file["node"]["edges"] = np.array([], "S1").reshape(0, 2)
    assert "'MaxPool2d', which NIR 1.0 does not have" in refused()


def test_damaged_bytes_never_crash(tmp_path: Path) -> None:
    path, rng = tmp_path / "damaged.nir", np.random.default_rng(1)
    nir.write(path, chain((2,), nir.Linear(np.ones((2, 2))), nir.IF(np.ones(2), np.ones(2))))
    data = np.frombuffer(path.read_bytes(), np.uint8)
    for _ in range(60):
        broken = data.copy()
        broken[rng.integers(0, len(data), 20)] = rng.integers(0, 256, 20)
        path.write_bytes(broken.tobytes())
        with suppress(Error):  # anything else is a crash
            import_nir(path, new_context(), NirOptions(dt=DT))
