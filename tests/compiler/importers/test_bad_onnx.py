"""Broken, absurd and hostile models: always one error of ours, one line, that names the thing; never a traceback."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from neuc.compiler.importers import import_model
from neuc.compiler.importers.onnx_file import import_onnx
from neuc.dialects.context import NeucContext
from neuc.errors import Error, Exit
from onnx_models import INT, B, F, load, model, node, value

X, Y = value("x", ["N", 4]), value("y", None)


def good() -> ModelProto:
    weights = {"w": np.ones((4, 4), np.float32), "b": np.ones(4, np.float32)}
    return model([node("MatMul", "x w", "h"), node("Add", "h b", "y")], [X], [Y], weights)


def tensor(dims: list[int], raw: bytes = b"", number: int = F) -> TensorProto:
    return TensorProto(name="w", data_type=number, dims=dims, raw_data=raw)


def with_weight(weight: TensorProto) -> ModelProto:
    proto = good()
    proto.graph.initializer[0].CopyFrom(weight)
    return proto


def with_nodes(*nodes: onnx.NodeProto, opset: int = 21) -> ModelProto:
    return model(nodes, [X], [Y], opset=opset)


def changed(change: Callable[[ModelProto], object]) -> ModelProto:
    proto = good()
    change(proto)
    return proto


def nested(depth: int) -> ModelProto:
    graph = helper.make_graph([node("Relu", "x", "v0")], "g", [], [value("v0", None)])
    for i in range(1, depth):
        inner = helper.make_node("If", ["c"], [f"v{i}"], then_branch=graph)
        graph = helper.make_graph([inner], "g", [], [value(f"v{i}", None)])
    return model([helper.make_node("If", ["c"], ["y"], then_branch=graph)], [X, value("c", [], B)], [Y])


def with_default(declared: onnx.ValueInfoProto) -> ModelProto:
    return changed(lambda p: p.graph.input.append(declared))


def large_constant_that_is_an_input() -> ModelProto:
    given = numpy_helper.from_array(np.ones((4, 2048), np.float32), "given")
    nodes = [helper.make_node("Constant", [], ["w"], value=given), node("MatMul", "x w", "y")]
    return model(nodes, [X, value("w", [4, 2048])], [Y])


def hidden_in_a_branch() -> ModelProto:
    inner = numpy_helper.from_array(np.zeros((4, 4), np.float32), "w")
    then = helper.make_graph([node("MatMul", "x w", "t")], "then", [], [value("t", None)], [inner])
    other = helper.make_graph([node("MatMul", "x w", "e")], "else", [], [value("e", None)])
    branch = helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other)
    return model([branch], [X, value("c", [], B)], [Y], {"w": np.ones((4, 4), np.float32)})


def float_data(dims: list[int], count: int) -> TensorProto:
    return TensorProto(name="w", data_type=F, dims=dims, float_data=[0.0] * count)


def function_calls(*bodies: tuple[str, str, str]) -> ModelProto:
    """Functions given as (name, called, called again)."""
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("f", 1)]
    functions = []
    for name, first, second in bodies:
        nodes = [helper.make_node(first, ["a"], ["b"], domain="f" if first[0] == "F" else "")]
        nodes.append(helper.make_node(second, ["b"], ["c"], domain="f" if second[0] == "F" else ""))
        functions.append(helper.make_function("f", name, ["a"], ["c"], nodes, opsets))
    call = helper.make_node(bodies[0][0], ["x"], ["y"], domain="f")
    return model([call], [X], [Y], domains={"f": 1}, functions=functions)


def double(*_: object) -> ModelProto:
    chain = [(f"F{i}", f"F{i + 1}", f"F{i + 1}") for i in range(40)]
    return function_calls(*chain, ("F40", "Relu", "Neg"))


CASES: dict[str, tuple[Callable[[], ModelProto], str, str]] = {
    "no graph": (lambda: ModelProto(ir_version=8), "E103", "no ONNX graph"),
    "no outputs": (lambda: changed(lambda p: p.graph.ClearField("output")), "E104", "no outputs"),
    "IR version of the future": (lambda: changed(lambda p: setattr(p, "ir_version", 99)), "E109", "IR version 99"),
    "no opset": (lambda: changed(lambda p: p.ClearField("opset_import")), "E109", "imports no version"),
    "opset of the future": (lambda: with_nodes(node("Relu", "x", "y"), opset=99), "E109", "version 99"),
    "opset 0": (lambda: with_nodes(node("Relu", "x", "y"), opset=0), "E109", "version 0"),
    "unknown operator": (lambda: with_nodes(node("Foo", "x", "a"), node("Bar", "a", "y")), "E107", "2 nodes.*Bar, Foo"),
    "operator too new": (lambda: with_nodes(node("Gelu", "x", "y"), opset=13), "E107", "Gelu"),
    "undefined input": (lambda: with_nodes(node("Add", "x ghost", "y")), "E104", "'ghost' of Add#0"),
    "undefined output": (lambda: with_nodes(node("Relu", "x", "z")), "E104", "output 'y'"),
    "value defined twice": (lambda: with_nodes(node("Relu", "x", "y"), node("Neg", "x", "y")), "E104", "'y'.*twice"),
    "value shadows input": (lambda: with_nodes(node("Relu", "x", "x"), node("Neg", "x", "y")), "E104", "'x'.*twice"),
    "cycle": (
        lambda: with_nodes(node("Add", "x b", "a"), node("Neg", "a", "b"), node("Neg", "b", "y")),
        "E104",
        "cycle",
    ),
    "self loop": (lambda: with_nodes(node("Add", "x y", "y")), "E104", "cycle"),
    "input twice": (lambda: changed(lambda p: p.graph.input.append(X)), "E104", "input 'x'.*twice"),
    "initializer twice": (
        lambda: changed(lambda p: p.graph.initializer.append(p.graph.initializer[0])),
        "E104",
        "initializer 'w' is defined twice",
    ),
    "initializer without name": (
        lambda: changed(lambda p: p.graph.initializer[0].ClearField("name")),
        "E104",
        "no name",
    ),
    "input without type": (lambda: changed(lambda p: p.graph.input[0].ClearField("type")), "E104", "'x' has no type"),
    "input of unknown element type": (
        lambda: changed(lambda p: setattr(p.graph.input[0].type.tensor_type, "elem_type", 77)),
        "E104",
        "'x'",
    ),
    "default value of another shape": (
        lambda: with_default(value("w", ["K", 5])),
        "E108",
        r"'w' is declared with shape \[\?, 5\], but its default value, an initializer, has shape \[4, 4\]",
    ),
    "default value of another rank": (lambda: with_default(value("b", [4, 1])), "E108", r"'b'.*\[4, 1\].*\[4\]"),
    "default value of another type": (lambda: with_default(value("b", [4], INT)), "E108", "'b'.*INT64.*FLOAT"),
    "large constant that is an input": (large_constant_that_is_an_input, "E104", "'w' of the graph is defined twice"),
    "initializer hidden in a branch": (hidden_in_a_branch, "E104", "initializer 'w' of subgraph then_branch of If#0"),
    "too many inputs": (lambda: with_nodes(node("Relu", "x x", "y")), "E104", "not valid"),
    "too few inputs": (lambda: with_nodes(node("Add", "x", "y")), "E104", "not valid"),
    "unknown attribute": (lambda: with_nodes(node("Relu", "x", "y", slope=1)), "E104", "slope"),
    "attribute of wrong kind": (lambda: with_nodes(node("Softmax", "x", "y", axis=1.5)), "E104", "axis"),
    "required attribute missing": (lambda: with_nodes(node("Cast", "x", "y")), "E104", "to"),
    "raw data too short": (lambda: with_weight(tensor([4, 4], b"\0" * 60)), "E105", "64 bytes, but 60"),
    "raw data too long": (lambda: with_weight(tensor([4, 4], b"\0" * 65)), "E105", "64 bytes, but 65"),
    "raw data missing": (lambda: with_weight(tensor([4, 4])), "E105", "64 bytes, but 0"),
    "float data too short": (lambda: with_weight(float_data([4, 4], 3)), "E105", "16 elements, but 3"),
    "float data too long": (lambda: with_weight(float_data([4], 5)), "E105", "4 elements, but 5"),
    "absurd dim": (lambda: with_weight(tensor([2**40, 4], b"\0" * 64)), "E105", "'w'"),
    "overflowing dims": (lambda: with_weight(tensor([2**40, 2**40], b"")), "E105", "'w'"),
    "absurd dim without data": (lambda: with_weight(float_data([2**62], 0)), "E105", "'w'"),
    "negative dim": (lambda: with_weight(tensor([-4, -4], b"\0" * 64)), "E105", "impossible dims"),
    "rank 100": (lambda: with_weight(tensor([1] * 100, b"\0" * 4)), "E105", "impossible dims"),
    "unknown element type": (lambda: with_weight(tensor([4], b"\0" * 16, 99)), "E105", "type 99"),
    "undefined element type": (lambda: with_weight(tensor([4], b"\0" * 16, 0)), "E105", "type 0"),
    "strings missing": (lambda: with_weight(tensor([3], b"", TensorProto.STRING)), "E105", "0 strings"),
    "contradictory product": (
        lambda: model([node("MatMul", "x w", "y")], [X], [Y], {"w": np.ones((5, 2), np.float32)}),
        "E108",
        "MatMul#0.*4 against 5",
    ),
    "kernel larger than image": (
        lambda: model(
            [node("Conv", "x w", "y")], [value("x", [1, 1, 2, 2])], [Y], {"w": np.ones((1, 1, 3, 3), np.float32)}
        ),
        "E108",
        "Conv#0",
    ),
    "mixed element types": (
        lambda: model([node("Add", "x w", "y")], [X], [Y], {"w": np.ones(4, np.int32)}),
        "E104",
        "Add#0",
    ),
    "recursive function": (lambda: function_calls(("F0", "F0", "Relu")), "E110", "calls itself"),
    "mutually recursive functions": (
        lambda: function_calls(("F0", "F1", "Relu"), ("F1", "Neg", "F0")),
        "E110",
        "calls itself",
    ),
    "functions that explode": (double, "E110", "more than 200000 nodes"),
    "subgraphs without end": (lambda: nested(20), "E104", "deeper than 16"),
}


@pytest.mark.parametrize("name", CASES)
def test_broken_models(name: str) -> None:
    make, code, message = CASES[name]
    with pytest.raises(Error, match=message) as caught:
        import_onnx(make(), NeucContext())
    check(caught.value, code)


def check(error: Error, code: str = "E1") -> None:
    assert error.code.startswith(f"NEUC-{code}"), str(error)
    assert all(text.isprintable() for text in (error.message, *(n.name for n in error.nodes)))
    assert error.hint
    assert len(error.message) < 600


def test_unknown_operators_exit_code_says_unsupported() -> None:
    with pytest.raises(Error) as caught:
        import_onnx(CASES["unknown operator"][0](), NeucContext())
    assert caught.value.exit_code is Exit.UNSUPPORTED
    assert [n.name for n in caught.value.nodes] == ["Foo#0", "Bar#1"]


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"ghost": [1]}, "not an input.*"),
        ({"x": [1]}, "rank 1"),
        ({"x": [1, 5]}, "dim 1 is 4 in the model"),
        ({"x": [-2, 4]}, "impossible"),
        ({"x": [2**40, 4]}, "impossible"),
    ],
)
def test_bad_shapes(shapes: dict[str, list[int | str]], message: str) -> None:
    with pytest.raises(Error, match=message) as caught:
        import_onnx(good(), NeucContext(), shapes=shapes)
    check(caught.value, "E108")


EXTERNAL = {
    "absolute": ("/etc/passwd", "not a path inside"),
    "parent": ("../secret.bin", "not a path inside"),
    "hidden parent": ("sub/../../secret.bin", "not a path inside"),
    "backslashes": ("..\\secret.bin", "not a path inside"),
    "drive": ("C:\\secret.bin", "not a path inside"),
    "empty": ("", "not a path inside"),
    "nul": ("a\0b", "not a path inside"),
    "missing": ("nothing.bin", "cannot be read"),
    "folder": ("sub", "not a regular file"),
    "symlink out": ("link.bin", "leads out"),
    "symlinked folder": ("linked/secret.bin", "leads out"),
    "link to itself": ("loop.bin", "cannot be read"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "secret.bin").write_bytes(b"\0" * 64)
    inside = tmp_path / "model"
    (inside / "sub").mkdir(parents=True)
    (inside / "data.bin").write_bytes(b"\0" * 64)
    (inside / "link.bin").symlink_to(tmp_path / "secret.bin")
    (inside / "linked").symlink_to(tmp_path)
    (inside / "loop.bin").symlink_to(inside / "loop.bin")
    return inside


def external(**entries: object) -> ModelProto:
    weight = TensorProto(name="w", data_type=F, dims=[4, 4], data_location=TensorProto.EXTERNAL)
    for key, text in entries.items():
        weight.external_data.add(key=key, value=str(text))
    return with_weight(weight)


@pytest.mark.parametrize("name", EXTERNAL)
def test_external_data_stays_inside_the_folder(name: str, folder: Path) -> None:
    location, message = EXTERNAL[name]
    (folder / "m.onnx").write_bytes(external(location=location).SerializeToString())
    with pytest.raises(Error, match=message) as caught:
        import_onnx(folder / "m.onnx", NeucContext())
    check(caught.value, "E106")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"offset": 1}, "needs bytes 1 to 65"),
        ({"offset": -8}, "needs bytes"),
        ({"offset": 2**62}, "needs bytes"),
        ({"offset": "x"}, "not a number"),
        ({"length": 32}, "says it has 32"),
        ({"length": 2**62}, "says it has"),
    ],
)
def test_external_data_sizes(entries: dict[str, object], message: str, folder: Path) -> None:
    (folder / "m.onnx").write_bytes(external(location="data.bin", **entries).SerializeToString())
    with pytest.raises(Error, match=message) as caught:
        import_onnx(folder / "m.onnx", NeucContext())
    check(caught.value, "E10")


def test_external_data_needs_a_folder() -> None:
    with pytest.raises(Error, match="not read from a folder") as caught:
        import_onnx(external(location="data.bin"), NeucContext())
    check(caught.value, "E106")


def test_good_external_data_is_read(folder: Path) -> None:
    (folder / "m.onnx").write_bytes(external(location="data.bin").SerializeToString())
    load(folder / "m.onnx")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("m.onnx", b"", "empty|no ONNX"),
        ("m.onnx", b"hello, I am not a model", "."),
        ("m.onnx", b"\x08", "."),
        ("m.onnx", b"\xff" * 100, "."),
        ("m.onnx", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS"),
        ("m.gguf", b"GGUF\x03\0\0\0", "GGUF"),
        ("m.pt", b"PK\x03\x04rest", "PyTorch"),
        ("m.onnx", b"<!DOCTYPE html><html></html>", "web page"),
        ("m.json", b'{"a": 1}', "JSON"),
        ("m.txt", b"plain text", "unknown format"),
    ],
)
def test_files_that_are_no_models(name: str, data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(Error, match=message) as caught:
        import_model(tmp_path / name, NeucContext())
    check(caught.value)
    assert message != "unknown format" or ".neuc" in caught.value.hint


@pytest.mark.parametrize("what", ["missing.onnx", "folder"])
def test_paths_that_are_no_files(what: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(Error, match=what) as caught:
        import_model(tmp_path / what, NeucContext())
    check(caught.value)


def test_model_is_recognised_by_content(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(good().SerializeToString())
    import_model(tmp_path / "model.bin", NeucContext()).verify()


def outcome(data: bytes) -> str:
    try:
        import_onnx(data, NeucContext()).verify()
    except Error as error:
        check(error)
        return error.code
    return "fine"


def test_truncated_files() -> None:
    data = good().SerializeToString()
    codes = {outcome(data[:length]) for length in range(0, len(data), 3)}
    assert "NEUC-E103" in codes
    assert "fine" not in codes


def fuzz_seed_model() -> bytes:
    """A small model with a bit of everything that parsers get wrong."""
    then = helper.make_graph([node("Relu", "h", "t")], "t", [], [value("t", None)])
    other = helper.make_graph([node("Neg", "h", "e")], "e", [], [value("e", None)])
    nodes = [
        node("MatMul", "x w", "h"),
        node("Shape", "h", "s"),
        node("Slice", "s zero one", "n"),
        node("Concat", "n minus", "r", axis=0),
        node("If", "c", "b", then_branch=then, else_branch=other),
        node("Reshape", "b r", "q"),
        node("Softmax", "q", "y", axis=-1),
    ]
    weights = {"w": np.ones((4, 4), np.float32), "zero": np.array([0]), "one": np.array([1]), "minus": np.array([-1])}
    return model(nodes, [X, value("c", [], B)], [Y], weights, opset=13).SerializeToString()


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_flipped_bits(seed: int) -> None:
    data, rng = fuzz_seed_model(), np.random.default_rng(seed)
    assert outcome(data) == "fine"
    codes: set[str] = set()
    for _ in range(200 if seed == 0 else 2000):
        damaged = bytearray(data)
        for position in rng.integers(0, len(data), rng.integers(1, 4)):
            damaged[position] ^= 1 << int(rng.integers(0, 8))
        codes.add(outcome(bytes(damaged)))
    assert len(codes) > 3, "damage should be seen in different places"


def test_random_bytes() -> None:
    rng = np.random.default_rng(0)
    for length in (1, 10, 100, 1000, 10000):
        assert outcome(rng.bytes(length)) in ("NEUC-E103", "NEUC-E104", "NEUC-E109")


def test_type_errors_inside_tensors_of_attributes() -> None:
    bad = helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(np.ones(3, np.float32)))
    bad.attribute[0].t.dims[0] = 5
    with pytest.raises(Error, match=r"12 bytes.*20 bytes") as caught:
        import_onnx(with_nodes(bad, node("Add", "x k", "y")), NeucContext())
    check(caught.value, "E104")


def test_lists_of_graphs_are_named() -> None:
    strange = node("Strange", "x", "y")
    strange.domain = "com.acme"
    strange.attribute.add(name="bodies", type=onnx.AttributeProto.GRAPHS).graphs.append(
        helper.make_graph([node("Relu", "x", "t")], "t", [], [value("t", [1], INT)])
    )
    proto = model([strange], [X], [Y], domains={"com.acme": 1})
    with pytest.raises(Error, match="bodies") as caught:
        import_onnx(proto, NeucContext())
    check(caught.value, "E1")
