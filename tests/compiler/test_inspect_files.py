"""`neuc inspect --html`, `--model-explorer` and `--dot`: the graph is right, the files hold what they should."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from neuc.compiler.cli import main
from neuc.compiler.inspection.facts import Inspected
from neuc.compiler.inspection.graph import Graph, Source
from neuc.compiler.inspection.rails import lay_out
from neuc.errors import Exit

HOSTILE = 'enc/l0/</summary><script>alert("1")</script><img src=x onerror=y>&amp;'
"""A node name that would be markup if anything forgot to escape it."""


def neuc(*arguments: str | Path) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = main([str(argument) for argument in arguments])
    return status, out.getvalue(), err.getvalue()


def residual(path: Path, first: str = "enc/l0/first") -> Path:
    """y = relu(x w1) w2 + x, with an operator no target has."""
    rng = np.random.default_rng(1)
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["a"], name=first),
        helper.make_node("Relu", ["a"], ["b"], name="enc/l0/relu"),
        helper.make_node("MatMul", ["b", "w2"], ["c"], name="enc/l1/second"),
        helper.make_node("Add", ["c", "x"], ["d"], name="enc/l1/add"),
        helper.make_node("Det", ["e"], ["det"], name="head/det"),
        helper.make_node("Reshape", ["d", "shape"], ["e"], name="head/reshape"),
    ]
    nodes[4], nodes[5] = nodes[5], nodes[4]
    weights = [
        numpy_helper.from_array(rng.standard_normal((64, 64)).astype(np.float32), "w1"),
        numpy_helper.from_array(rng.standard_normal((64, 64)).astype(np.float32), "w2"),
        numpy_helper.from_array(np.array([-1, 8, 8]), "shape"),
    ]
    graph = helper.make_graph(
        nodes,
        "residual",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 64])],
        [helper.make_tensor_value_info("det", TensorProto.FLOAT, ["N"])],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return residual(tmp_path_factory.mktemp("model") / "residual.onnx")


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = residual(tmp_path_factory.mktemp("hostile") / "h.onnx", HOSTILE)
    path = model.with_suffix(".neuc")
    status, _, err = neuc("compile", model, "-o", path, "--quantize", "ternary", "--planes", "1")
    assert status == Exit.OK, err
    return path


def edges(graph: Graph) -> set[tuple[str, str]]:
    """Edges by name and operation of both ends."""
    labels = {node.id: node.name or node.op for node in graph.nodes}
    return {(labels[source], labels[node.id]) for node in graph.nodes for source in node.producers}


def test_the_graph_of_a_model_links_what_reads_what(model: Path):
    graph = Inspected(model).graph()
    assert edges(graph) == {
        ("x", "enc/l0/first"),
        ("enc/l0/first", "enc/l0/relu"),
        ("enc/l0/relu", "enc/l1/second"),
        ("enc/l1/second", "enc/l1/add"),
        ("x", "enc/l1/add"),
        ("enc/l1/add", "head/reshape"),
        ("head/reshape", "head/det"),
        ("head/det", "det"),
    }
    first = next(node for node in graph.nodes if node.name == "enc/l0/first")
    assert first.op == "onnx.MatMul"
    assert first.outputs == ("f32[N, 64]",)
    assert first.attributes["operand 1"] == "w1: f32[64, 64]"
    assert [node.op for node in graph.nodes][::7] == ["input", "output"]


def test_the_graph_of_an_artifact_follows_buffers_through_segments(artifact: Path):
    graph = Inspected(artifact).graph()
    by_op = {node.op: node for node in graph.nodes}
    host = by_op["host"]
    assert host.names == ("head/det",)
    seen: list[str] = []
    front = [host.id]
    while front:  # everything the host node depends on
        current = front.pop()
        node = next(node for node in graph.nodes if node.id == current)
        seen += [node.name, *node.names]
        front += [producer for producer in node.producers if producer not in front]
    assert {"x", HOSTILE, "enc/l1/second", "enc/l1/add"} <= set(seen)
    assert by_op["output"].producers == (host.id,)
    quantize = next(node for node in graph.nodes if node.op == "ternary_quantize")
    assert len(quantize.outputs) == 2


@pytest.mark.parametrize("level", ["paradigm", "machine"])
def test_ir_files_of_other_levels_have_a_graph(model: Path, tmp_path: Path, level: str):
    path = tmp_path / "m.mlir"
    assert neuc("compile", model, "--compile-to", level, "-o", path)[0] == Exit.OK
    graph = Inspected(path).graph()
    names = {name for node in graph.nodes for name in node.names}
    assert {"x", "enc/l0/first", "enc/l1/add", "head/det", "det"} <= names
    reads = {node.name: node for node in graph.nodes}
    assert reads["det"].producers == (reads["head/det"].id,)
    assert not any(node.op.startswith(("llvm", "arith")) for node in graph.nodes)


def test_bodies_of_control_flow_are_nodes_and_read_what_they_capture(tmp_path: Path):
    body = helper.make_graph(
        [helper.make_node("Add", ["state", "x"], ["sum"], name="in_body")],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, [4]),
        ],
        [
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum", TensorProto.FLOAT, [4]),
        ],
    )
    graph = helper.make_graph(
        [helper.make_node("Loop", ["n", "", "x"], ["y"], name="loop", body=body)],
        "loop",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [4]),
            helper.make_tensor_value_info("n", TensorProto.INT64, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])],
    )
    path = tmp_path / "loop.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    found = Inspected(path).graph()
    inner = next(node for node in found.nodes if node.name == "in_body")
    assert inner.scope == ("loop", "body")
    assert {("x", "in_body"), ("loop", "in_body"), ("loop", "y")} <= edges(found)


def test_model_explorer_files_are_well_formed(artifact: Path, tmp_path: Path):
    out = tmp_path / "graph.json"
    status, stdout, err = neuc("inspect", artifact, "--model-explorer", out)
    assert (status, stdout, err) == (Exit.OK, "", f"wrote {out}\n")
    collection = json.loads(out.read_text())
    assert set(collection) == {"label", "graphs"}
    (graph,) = collection["graphs"]
    outputs = {node["id"]: {item["id"] for item in node["outputsMetadata"]} for node in graph["nodes"]}
    assert len(outputs) == len(graph["nodes"])
    checked = 0
    for node in graph["nodes"]:
        assert set(node) == {"id", "label", "namespace", "attrs", "incomingEdges", "outputsMetadata"}
        assert all(isinstance(item["key"], str) and isinstance(item["value"], str) for item in node["attrs"])
        for edge in node["incomingEdges"]:
            assert edge["sourceNodeOutputId"] in outputs[edge["sourceNodeId"]]
            checked += 1
    assert checked >= len(graph["nodes"]) - 2
    assert "seg0/enc/l1" in {node["namespace"] for node in graph["nodes"]}


class Page(HTMLParser):
    """What a browser would make of a page: elements, and text outside of script and style."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._raw = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._raw = tag

    def handle_endtag(self, tag: str) -> None:
        self._raw = ""

    def handle_data(self, data: str) -> None:
        if self._raw not in ("script", "style"):
            self.text += data


def test_pages_are_self_contained_and_escape_names(artifact: Path, tmp_path: Path):
    out = tmp_path / "page.html"
    status, stdout, err = neuc("inspect", artifact, "--html", out)
    assert (status, stdout, err) == (Exit.OK, "", f"wrote {out}\n")
    page = Page(out.read_text())
    names = [tag for tag, _ in page.tags]
    assert names.count("script") == 1
    assert not {"img", "link", "iframe", "object", "base"} & set(names)
    targets = {value for _, attrs in page.tags for key, value in attrs.items() if key == "href" and value}
    assert all(target.startswith("#") for target in targets)
    assert not any(key.startswith("on") or key == "src" for _, attrs in page.tags for key in attrs)
    assert HOSTILE in page.text
    policy = next(attrs["content"] for tag, attrs in page.tags if tag == "meta" and "http-equiv" in attrs)
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    ids = {attrs["id"] for _, attrs in page.tags if "id" in attrs}
    assert {target[1:] for target in targets} <= ids
    assert len([i for i in ids if i and i[1:].isdigit()]) == len(Inspected(artifact).graph().nodes)


def test_pages_tell_layers_hosts_and_kernels(artifact: Path, model: Path, tmp_path: Path):
    assert neuc("inspect", artifact, "--html", tmp_path / "a.html")[0] == Exit.OK
    text = Page((tmp_path / "a.html").read_text()).text
    for wanted in ("enc/l1/second", "1 plane, scale row", "16.0 KB", "head/det", "error against the float model"):
        assert wanted in text
    assert neuc("inspect", model, "--html", tmp_path / "m.html")[0] == Exit.OK
    assert "f32[N, 64]" in Page((tmp_path / "m.html").read_text()).text


def test_outputs_that_cannot_be_written_are_refused_and_leave_nothing(model: Path, tmp_path: Path):
    for option in ("--html", "--model-explorer"):
        status, _, err = neuc("inspect", model, option, tmp_path / "none" / "out")
        assert status == Exit.FAULT
        assert "NEUC-E005" in err
    status, _, err = neuc("inspect", model, "--html", tmp_path)
    assert (status, "it is a folder" in err) == (Exit.FAULT, True)
    assert list(tmp_path.iterdir()) == []


def test_files_and_text_can_be_asked_for_together(model: Path, tmp_path: Path):
    status, out, _ = neuc("inspect", model, "--html", tmp_path / "p.html", "--json")
    assert status == Exit.OK
    assert json.loads(out)["operations"]["onnx.MatMul"] == 2
    assert (tmp_path / "p.html").stat().st_size > 0


def test_dot_escapes_names(tmp_path: Path):
    model = residual(tmp_path / "q.onnx", 'a"b\\c')
    out = neuc("inspect", model, "--dot")[1]
    assert '"n1" [label="onnx.MatMul\\na\\"b\\\\c"];' in out
    assert '"n0" -> "n1";' in out


def test_rails_never_share_a_lane_while_both_are_needed():
    rng = np.random.default_rng(7)
    graph = Graph()
    for _ in range(80):
        known = [node.id for node in graph.nodes[-12:]]
        chosen = rng.choice(known, size=min(len(known), rng.integers(0, 4)), replace=False) if known else []
        graph.add("op", inputs=[Source(str(name), 0) for name in chosen], outputs=["f32[]"])
    rows = lay_out(graph)
    consumers, index = graph.consumers(), {node.id: i for i, node in enumerate(graph.nodes)}
    for i, row in enumerate(rows):
        alive = [n for n in graph.nodes[: i + 1] if any(index[reader] > i for reader in consumers[n.id])]
        assert len(set(row.below)) == len(row.below) == len(alive)
        assert sorted(rows[index[n.id]].lane for n in alive) == sorted(row.below)
        assert sorted(row.joining) == sorted(rows[index[p]].lane for p in graph.nodes[i].producers)
