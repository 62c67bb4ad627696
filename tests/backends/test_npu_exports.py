"""Exports: each says what the design is, text reads back, and what a form cannot hold is refused with its reason."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from example_files import load_example
from neuc.backends.npu.curves import fit_curve
from neuc.backends.npu.emit import block_program
from neuc.backends.npu.emit_rows import row_program
from neuc.backends.npu.export.aie_library import LIBRARY
from neuc.backends.npu.export.dot import to_dot
from neuc.backends.npu.export.generic_aie import checkable, device_integer, to_generic
from neuc.backends.npu.export.mlir_aie import VERSIONS, device_of, read_mlir_aie, to_mlir_aie
from neuc.backends.npu.export.page import to_page
from neuc.backends.npu.export.riallto_json import from_riallto, to_riallto
from neuc.backends.npu.export.svg import to_svg
from neuc.backends.npu.known_machines import find_machine
from neuc.errors import Error
from neuc.runtime.npu.float_finish import FloatFinish
from neuc.runtime.npu.gemm import with_sizes, with_tables
from neuc.runtime.npu.gemm_plan import GemmPlan
from neuc.runtime.npu.program import Design, Param
from neuc.runtime.npu.program_json import design_from_json, design_to_json
from neuc.runtime.npu.requantize import Finish
from neuc.runtime.npu.rows import RowPlan, with_tokens
from neuc.runtime.npu.simulator import simulate
from npu_designs import routed_example
from npu_export_helpers import mlir_opt, wide

MACHINE = find_machine("npu-xdna1")
EXAMPLE = routed_example(MACHINE)


def _plain(design: Design) -> Design:
    """The example with kernels that mlir-aie has code for."""
    return replace(design, kernels=tuple(replace(k, function="copy", params={}) for k in design.kernels))


@pytest.mark.parametrize("version", VERSIONS)
def test_mlir_aie_text_reads_back(version: str):
    design = _plain(EXAMPLE)
    text = to_mlir_aie(design, MACHINE, version)
    read = read_mlir_aie(text)
    assert (read.version, read.device) == (version, "npu1")
    assert set(read.fifos) == {c.name for c in design.channels}
    for channel in design.channels:
        producer, consumers, depth, kind = read.fifos[channel.name]
        places = [design.node(n).tile for n in (channel.producer, *channel.consumers)]
        assert [f"tile_{t[0]}_{t[1]}" for t in places if t] == [producer, *consumers]
        assert (depth, kind) == (channel.depth, f"memref<{channel.shape[0]}xi32>")
    assert set(read.links) == {(link.inputs, link.outputs) for link in design.links}
    assert set(read.cores.values()) == {(*k.inputs, *k.outputs) for k in design.kernels}
    assert read.transfers == (("x", "a", 0, (1, 1, 8, 8), (0, 0, 8, 1)), ("y", "b", 0, (1, 1, 1, 64), (0, 0, 0, 1)))


def test_versions_are_spelled_as_theirs():
    old, new = (to_mlir_aie(_plain(EXAMPLE), MACHINE, version) for version in VERSIONS)
    assert "!aie.objectfifosubview<memref<4xi32>>" in old
    assert "aiex.npu.dma_memcpy_nd" in old
    assert "aiex.npu.dma_wait {symbol = @y}" in old
    assert "subview" not in new
    assert "aie.objectfifo.acquire @s1 (Consume, 1) : memref<4xi32>" in new
    assert "aiex.dma_await_task" in new
    for text in (old, new):
        assert "dimensionsToStream [<size = 2, stride = 2>, <size = 2, stride = 1>]" in text
        assert text.count("{") == text.count("}")
        assert "memref.store" in text, "cores have bodies"


def test_kernels_without_a_body_are_refused_with_the_cure():
    with pytest.raises(Error, match="'mix' has no mlir-aie body") as caught:
        to_mlir_aie(EXAMPLE, MACHINE, "1.3")
    assert caught.value.code == "NEUC-E683"
    python = replace(EXAMPLE, kernels=tuple(replace(k, function="overlay") for k in EXAMPLE.kernels))
    for write in (lambda d: to_mlir_aie(d, MACHINE, "1.4"), lambda d: to_generic(d, MACHINE)):
        with pytest.raises(Error, match="kernel first: 'overlay' is a Python function") as caught:
            write(python)
        assert "make it of functions that have one" in str(caught.value.hint)
    with pytest.raises(Error, match=r"no export for mlir-aie 1\.0"):
        to_mlir_aie(_plain(EXAMPLE), MACHINE, "1.0")
    double = replace(
        _plain(EXAMPLE), kernels=tuple(replace(k, function="copy", consume=((2,),)) for k in EXAMPLE.kernels)
    )
    with pytest.raises(Error, match="other than one token a phase"):
        to_mlir_aie(double, MACHINE, "1.3")
    nowhere = replace(_plain(EXAMPLE), kernels=tuple(replace(k, function="copy", tile=None) for k in EXAMPLE.kernels))
    for write in (lambda d: to_mlir_aie(d, MACHINE, "1.4"), lambda d: to_generic(d, MACHINE)):
        with pytest.raises(Error, match="is not placed: first, second, other on no tile"):
            write(nowhere)


def test_devices_by_name_and_integer():
    names = ("npu-xdna1", "npu-xdna1-1col", "npu-xdna2", "npu-xdna2-7col")
    assert [device_of(find_machine(n)) for n in names] == ["npu1", "npu1_1col", "npu2", "npu2_7col"]
    assert [device_integer(find_machine(n)) for n in names] == [4, 5, 8, 15]
    with pytest.raises(Error, match="knows no device like npu-loihi2"):
        device_of(find_machine("npu-loihi2"))


def test_generic_form_declares_what_it_uses():
    text = to_generic(_plain(EXAMPLE), MACHINE)
    defined = {line.split(" = ")[0].strip() for line in text.splitlines() if '"aie.tile"' in line}
    used = {
        word.strip("(),")
        for line in text.splitlines()
        if '"aie.objectfifo"' in line
        for word in line.split()
        if "%tile" in word
    }
    assert {u[u.index("%") :] for u in used} <= defined
    assert text.count("({") == text.count("})")


PRODUCTS = [GemmPlan.on(MACHINE, (8, 16, 16), operands, "grid") for operands in ("ternary", "int8", "bf16")]


def _products() -> list[Design]:
    """Whole-array products of three steps."""
    programs = [(plan, block_program("npu-xdna1", plan)) for plan in PRODUCTS]
    return [with_sizes(program, plan, MACHINE, (plan.block_m, 3 * plan.k, plan.block_n)) for plan, program in programs]


def _finished_products() -> list[Design]:
    """Products whose cores make codes, in one stage or two, or give sums, or add another tensor's codes."""
    found: list[Design] = []
    asked_of = (
        ("ternary", Finish(2, 3, 1)),
        ("int8", Finish(1, 0, 0)),
        ("int8", None),
        ("int8", Finish(1, 2, 1, 1, 3)),
    )
    for operands, asked in asked_of:
        plan = GemmPlan.on(MACHINE, (8, 16, 16), operands, "grid", finish=True)
        size = (plan.block_m, 3 * plan.k, plan.block_n)
        found.append(with_sizes(block_program("npu-xdna1", plan), plan, MACHINE, size, 1, asked))
    return found


def _finished_floats() -> list[Design]:
    """Products of floats whose cores do two stages by the program's tables, one by its own, round, or do nothing."""
    curve = fit_curve(np.tanh)
    assert curve is not None
    words, found = len(curve.words), list[Design]()
    for resident, asked in (
        (True, FloatFinish(2, 3, 9, (words, words), narrow=True)),
        (False, FloatFinish(1, 1, 1, (words,))),
        (False, FloatFinish(narrow=True)),
        (False, None),
    ):
        plan = GemmPlan.on(MACHINE, (8, 16, 16), "bf16", "grid", finish=True, tables=words, resident=resident)
        size = (plan.block_m, 3 * plan.k, plan.block_n)
        design = with_sizes(block_program("npu-xdna1", plan), plan, MACHINE, size, 1, asked)
        found.append(with_tables(design, curve.words.tolist() if resident else []))
    return found


def _lines() -> list[Design]:
    """Chains, softmax and norms, with tables."""
    curve = fit_curve(np.tanh)
    assert curve is not None
    size = (len(curve.words),)
    plans = [
        RowPlan("chain", 2, 1, 64, 64, "curve 0 0; mul 2 1; constant 0.5; max 3 4", size),
        RowPlan("softmax", 1, 2, 64, 50, curves=size),
        RowPlan("layer_norm", 1, 2, 64, 50, eps=1e-5),
    ]
    tables = [[curve.words] * len(plan.curves) for plan in plans]
    return [with_tokens(row_program("npu-xdna1", p), p, MACHINE, 3, t) for p, t in zip(plans, tables)]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_core_has_a_body_or_a_kernel_of_mlir_aies_library(version: str):
    objects = {(kernel.symbol, kernel.object) for kernel in LIBRARY.values()}
    lines = [wide("threshold", 1920), wide("gray2rgba", 640)]
    for design in (_plain(EXAMPLE), *lines, *_products(), *_finished_products(), *_finished_floats(), *_lines()):
        for text in (to_mlir_aie(design, MACHINE, version), to_generic(design, MACHINE)):
            declared = re.findall(r'func.func private @(\w+)\(.*link_with = "([\w.]+)"', text)
            assert set(declared) <= objects
            assert text.count("link_with") == len(declared), "a core never names an object file itself"
            cores = re.split(r'aie\.core"?\(', text)[1:]
            assert len(cores) == len(design.kernels)
            for core in cores:
                body = re.split(r'"?aie\.end', core)[0]
                called = set(re.findall(r"func\.call @(\w+)", body))
                assert called <= {name for name, _ in declared}
                assert called or "memref.store" in body
            assert not re.search(r"matmul|zero_i32|get_global", text)


def test_product_cores_take_every_step_and_decode_ternary_weights_themselves():
    ternary, int8, bf16 = (to_mlir_aie(design, MACHINE, "1.4") for design in _products())
    for text in (ternary, int8, bf16):
        assert text.count("%steps = arith.constant 3 : index") == 16
        assert text.index("acquire @c0_0 (Produce, 1)") < text.index("scf.for %step") < text.index("acquire @a0 ")
        assert text.count("} {dynamic_objfifo_lowering = true}") == 16, "tokens are acquired in loops"
        assert "link_with" not in text
    assert "memref<16x4xi8>" in ternary, "four codes a byte"
    assert ternary.count("arith.shrui %codes") == 16
    assert int8.count("%product = arith.muli %xw, %yw : i32") == 16
    assert "arith.addf %acc" in bf16


def test_cores_that_finish_have_buffers_of_their_own_and_take_parameters_after_the_last_step():
    ternary, int8, sums, added = (to_mlir_aie(design, MACHINE, "1.4") for design in _finished_products())
    for text, buffers in ((ternary, 32), (int8, 32), (sums, 16)):
        assert text.count("= aie.buffer(") == buffers
        assert text.index("%steps = arith.constant 3 : index") < text.index("scf.for %token")
    assert ternary.count("%near1 = arith.shrsi") == 16, "two stages"
    assert "%near1" not in int8
    assert int8.count("%product = arith.muli %xw, %yw : i32") == 16
    assert "%tokens = arith.constant 4 : index" in sums
    assert "%near" not in sums
    assert added.count("%amade = arith.select") == 16
    assert added.count("%steps = arith.constant 3 : index") == 16, "tokens of the other tensor are no steps"
    columns = [added.count(f"%afirst = arith.constant {16 * part} : index") for part in range(4)]
    assert columns == [4] * 4, "each column of cores takes its own"
    for text in (ternary, int8, sums):
        assert "%amade" not in text


def test_cores_that_finish_floats_do_what_their_parameters_say():
    twice, own, narrow, sums = (to_mlir_aie(design, MACHINE, "1.4") for design in _finished_floats())
    for text, buffers in ((twice, 48), (own, 32), (narrow, 16), (sums, 16)):
        assert text.count("= aie.buffer(") == buffers
        assert text.index("%steps = arith.constant 3 : index") < text.index("%pieces = arith.constant")
    assert twice.count("initial_value") == 16, "the program's tables"
    assert "initial_value" not in own
    assert "%pieces = arith.constant 1 : index" in narrow
    assert "%pieces = arith.constant 2 : index" in sums
    assert "arith.truncf" in narrow
    assert "arith.truncf" not in sums
    assert "scf.if" not in sums


def _applications() -> list[Design]:
    """Riallto's five."""
    riallto = load_example("npu/riallto.py")
    return [
        app.compile({"x": image}, {"y": ("u8", image.shape)}, "npu-xdna1-1col").design
        for app, image in riallto.applications(6, 32).values()
    ]


def test_mlir_opt_takes_the_generic_form_plain_and_against_our_irdl(tmp_path: Path):
    small = [wide("threshold", 1920, rtp=("kind", "threshold")), wide("gray2rgba", 640)]
    for design in (
        _plain(EXAMPLE),
        *small,
        *_products(),
        *_finished_products(),
        *_finished_floats(),
        *_lines(),
        *_applications(),
    ):
        text = to_generic(design, MACHINE)
        for form, irdl in ((text, False), (checkable(text), True)):
            done = mlir_opt(tmp_path, form, irdl=irdl)
            assert done.returncode == 0, done.stderr
        assert done.stdout.count('"aie.objectfifo"') == len(design.channels)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("{col = 2 : i32, ", "{", 'attribute "col" is expected'),
        ("port = 1 : i32", "port = 7 : i32", "does not satisfy"),
        ("(index, index) -> ()", "(i64, i64) -> ()", "i64"),
        (
            '"neuc.end"() : () -> ()\n    }) {stack_size = 1024 : i32}',
            '"neuc.end"() : () -> ()\n    }) {}',
            "stack_size",
        ),
        ('"aie.objectfifo_release"()', '"aie.objectfifo_free"()', "unregistered"),
    ],
)
def test_mlir_opt_refuses_what_the_irdl_does_not_allow(tmp_path: Path, old: str, new: str, words: str):
    text = checkable(to_generic(_plain(EXAMPLE), MACHINE))
    assert old in text
    done = mlir_opt(tmp_path, text.replace(old, new, 1))
    assert done.returncode != 0
    assert words in done.stderr


def test_riallto_metadata_has_its_shape_and_reads_back():
    design = replace(EXAMPLE, params=(Param("salt", "first", 3),))
    data = json.loads(json.dumps(to_riallto(design)))
    assert list(data)[:4] == ["application", "kernels", "connections", "sequence"]
    assert data["kernels"]["first"]["ttype"] == "CT"
    assert data["kernels"]["cut"]["mtmode"] == "split"
    assert data["kernels"]["pin"]["ttype"] == "IT"
    assert data["connections"]["cut___s0___first___s0"]["ctype"] == "objfifo,pingpong"
    assert data["connections"]["user___write___first___salt"]["ctype"] == "rtp"
    assert data["sequence"][0]["seqtype"] == "buffer"
    assert from_riallto(data) == design
    with pytest.raises(Error, match="no part 'neuc'"):
        from_riallto({"application": "theirs"})


def test_json_reads_back_and_damage_is_named():
    data = json.loads(json.dumps(design_to_json(EXAMPLE)))
    assert design_from_json(data, "x") == EXAMPLE
    for change, message in (
        ({"format": 9}, "outside"),
        ({"kernels": 3}, "expected a list"),
        ({"extra": 1}, "unknown field"),
        ({"channels": [{**data["channels"][0], "dtype": "f8"}]}, "'f8' is none of"),
        ({"sequence": [{"step": "jump"}]}, "'jump' is none of"),
        ({"kernels": [], "links": []}, "ends at"),
        ({"links": [{**link, "inputs": ["nowhere"]} for link in data["links"]]}, "'nowhere', which there is not"),
    ):
        with pytest.raises(Error, match=message) as caught:
            design_from_json({**data, **change}, "x")
        assert caught.value.code == "NEUC-E687"


def test_pictures_show_every_node_and_route():
    svg = to_svg(EXAMPLE, MACHINE)
    root = ElementTree.fromstring(svg)
    kinds = [node.get("class", "") for node in root.iter()]
    assert sum(kind == "kernel" for kind in kinds) == len(EXAMPLE.kernels)
    assert sum(kind.startswith("tile") for kind in kinds) == MACHINE.cols * MACHINE.rows
    hops = sum(c.target[0] != "DMA" for route in EXAMPLE.routes for c in route.connections)
    assert sum(kind == "route" for kind in kinds) == hops
    assert sum(kind == "ping-pong" for kind in kinds) > 0
    dot = to_dot(EXAMPLE)
    assert dot.count("->") == sum(len(c.consumers) for c in EXAMPLE.channels)


def test_pages_escape_what_they_show():
    named = replace(EXAMPLE, name="<script>alert(1)</script>")
    x = np.arange(64, dtype=np.int32)
    page = to_page(named, MACHINE, simulate(EXAMPLE, MACHINE, {"a": x}, trace=True))
    assert "<script>" not in page
    assert "Timeline" in page
    assert "<rect" in page
