"""What exported text calls, which run-time parameters it reads, and that its names are symbols."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from neuc.backends.npu.export.aie_library import LIBRARY
from neuc.backends.npu.export.generic_aie import to_generic
from neuc.backends.npu.export.mlir_aie import VERSIONS, read_mlir_aie, to_mlir_aie
from neuc.backends.npu.known_machines import find_machine
from neuc.errors import Error
from neuc.runtime.npu.program import Design, HostBuffer, SetParam, Transfer, Wait
from neuc.runtime.npu.program_json import design_from_json, design_to_json
from npu_designs import one_kernel, routed_example
from npu_export_helpers import mlir_opt, wide

MACHINE = find_machine("npu-xdna1")
EXAMPLE = routed_example(MACHINE)
PLAIN = replace(EXAMPLE, kernels=tuple(replace(k, function="copy", params={}) for k in EXAMPLE.kernels))
"""The example with kernels that have a body."""

SIGNATURES = {
    "thresholdLine": ["memref", "memref", "i32", "i8", "i8", "i8"],
    "gray2rgbaLine": ["memref", "memref", "i32"],
}
"""What the C functions of mlir-aie's aie_kernels/aie2/threshold.cc (for 8 bits) and gray2rgba.cc take."""


def _calls(text: str) -> list[tuple[str, list[str]]]:
    """Calls: the function, and its arguments, constants by their values, others as their operations."""
    made = dict(re.findall(r"(%\w+) = arith\.constant (\S+) :", text))
    made |= {name: made.get(word, "word") for name, word in re.findall(r"(%\w+) = arith\.trunci (%\w+) : i32", text)}
    found = re.findall(r"func\.call @(\w+)\((.*?)\)", text)
    return [(name, [made.get(value, value) for value in values.split(", ")]) for name, values in found]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("design", "arguments"),
    [
        (wide("threshold", 1920), ["%e0", "%e1", "1920", "200", "255", "2"]),
        (wide("threshold", 1920, rtp=("threshold",)), ["%e0", "%e1", "1920", "word", "255", "2"]),
        (wide("gray2rgba", 640), ["%e0", "%e1", "640"]),
    ],
)
def test_library_kernels_are_called_with_their_arguments(design: Design, arguments: list[str], version: str):
    text = to_mlir_aie(design, find_machine("npu-xdna1-1col"), version)
    declared = re.findall(r"func\.func private @(\w+)\((.*?)\) attributes", text)
    called = re.findall(r"func\.call @(\w+)\(.*?\) : \((.*?)\) -> \(\)", text)
    assert declared == called
    ((name, types),) = called
    assert [re.sub("<.*?>", "", kind) for kind in types.split(", ")] == SIGNATURES[name]
    assert _calls(text) == [(name, arguments)]
    assert "func.call" not in to_generic(design, MACHINE), "a plain mlir-opt finds no function from inside a device"


def test_the_table_of_library_kernels_has_their_signatures():
    kinds = {"uint8_t *": "memref", "uint8_t": "i8", "int32_t": "i32"}
    assert {k.symbol: [kinds[kind] for kind, _ in k.arguments] for k in LIBRARY.values()} == SIGNATURES
    for kernel in LIBRARY.values():
        assert kernel.object == f"{Path(kernel.source).name}.o"


@pytest.mark.parametrize(
    ("function", "width", "dtype"),
    [
        ("threshold", 64, "u8"),  # a loop of at least 14 iterations of 64 pixels
        ("threshold", 1000, "u8"),
        ("gray2rgba", 64, "u8"),
        ("gray2rgba", 650, "u8"),
        ("rgba2gray", 1920, "u8"),  # other weights
    ],
)
def test_lines_that_a_library_kernel_does_not_take_have_a_body(function: str, width: int, dtype: str):
    design = wide(function, width, dtype)
    if function == "rgba2gray":
        design = one_kernel(function, [(width, 4)], (width,))
    text = to_mlir_aie(design, MACHINE, "1.4")
    assert "link_with" not in text
    assert "memref.store" in text


def test_run_time_parameters_are_buffers_that_the_sequence_writes():
    design = wide("threshold", 64, rtp=("threshold",))
    design = replace(
        design,
        buffers=(HostBuffer("x", "u8", (2, 64), "input"), HostBuffer("z", "u8", (2, 64), "output")),
        sequence=(
            SetParam("threshold", 50),
            Transfer("a_in", "x", 0, (128,), (1,)),
            Transfer("y_out", "z", 0, (128,), (1,)),
            Wait("y_out"),
        ),
    )
    old, new = (to_mlir_aie(design, find_machine("npu-xdna1-1col"), version) for version in VERSIONS)
    for text in (old, new, to_generic(design, MACHINE)):
        assert text.count('{sym_name = "rtp_k"}') == 1
        assert text.index("acquire") < text.index("memref.load %rtp_k["), "after the tokens that come after the write"
        assert "arith.constant 200" not in text.partition("runtime_sequence")[0]
    assert re.findall(r"aiex\.npu\.rtp_write\(@rtp_k, 0, (\d+)\)", old) == ["200", "50"]
    assert re.findall(r"(%v\d) = arith\.constant (\d+) : i32\n +aiex\.npu\.rtp_write\(@rtp_k, 0, \1\) : i32", new) == [
        ("%v0", "200"),
        ("%v1", "50"),
    ]
    for text in (old, new):
        assert text.rindex("rtp_write") < text.index("dma_memcpy_nd" if text is old else "dma_configure_task_for")
    chain = one_kernel(
        "filter2d", [(64,)], (64,), params={"weights": [1] * 9, "salt": 3}, consume=(2, 0), rtp=("salt",)
    )
    with pytest.raises(Error, match="'filter2d' reads no run-time parameter 'salt'"):
        to_mlir_aie(chain, MACHINE, "1.4")


NAMES = {"first": 'k"<b>', "second": "k__b_", "s0": "sequence", "s1": "tile_0_2", "x": "0 x", "a": "t0", "cut": "ü"}


def _renamed(design: Design) -> Design:
    """The design with names that no MLIR symbol can have, or that the text has itself."""
    text = json.dumps(design_to_json(design))
    for old, new in NAMES.items():
        text = text.replace(f'"{old}"', json.dumps(new))
    return design_from_json(json.loads(text), "x")


@pytest.mark.parametrize("version", VERSIONS)
def test_names_become_symbols_each_its_own(version: str, tmp_path: Path):
    plain = replace(PLAIN, pools=(), dmas=(), routes=())
    odd = _renamed(plain)
    assert {k.name for k in odd.kernels} == {'k"<b>', "k__b_", "other"}
    text = to_mlir_aie(odd, MACHINE, version)
    read, straight = read_mlir_aie(text), read_mlir_aie(to_mlir_aie(plain, MACHINE, version))
    assert len(read.fifos) == len(odd.channels)
    assert not {"sequence", "tile_0_2"} & set(read.fifos)
    for symbol in re.findall(r"[@%]\S+", text):
        assert re.match(r"[@%]\w+", symbol, re.ASCII)
    assert [fifo[1:] for fifo in straight.fifos.values()] == [fifo[1:] for fifo in read.fifos.values()]
    assert [t[2:] for t in read.transfers] == [t[2:] for t in straight.transfers]
    generic = to_generic(odd, MACHINE)
    cores = re.findall(r"%core_(\w+) =", generic)
    assert len(set(cores)) == len(cores) == 3
    assert mlir_opt(tmp_path, generic, irdl=False).returncode == 0


def _many(rows: int) -> Design:
    """Rows that leave one by one, six transfers each way before the only wait."""
    steps = [
        step
        for row in range(rows)
        for step in (Transfer("a_in", "x", row * 64, (64,), (1,)), Transfer("y_out", "z", row * 64, (64,), (1,)))
    ]
    buffers = (HostBuffer("x", "u8", (rows, 64), "input"), HostBuffer("z", "u8", (rows, 64), "output"))
    return replace(one_kernel("invert", [(64,)], (64,)), buffers=buffers, sequence=(*steps, Wait("y_out")))


def test_no_port_has_more_tasks_than_its_queue_takes_and_each_is_waited_for_once():
    machine = find_machine("npu-xdna1-1col")
    old, new = (to_mlir_aie(_many(6), machine, version) for version in VERSIONS)
    live: dict[str, list[int]] = {"a": [], "y": []}
    for line in old.splitlines():
        if m := re.search(r"id = (\d+) : i64, issue_token = (\w+), metadata = @(\w)", line):
            live[m[3]].append(int(m[1]))
            every = live["a"] + live["y"]
            assert len(set(every)) == len(every), "no descriptor is written while its task may run"
            assert len(live[m[3]]) <= 4
            assert max(every) < 16
        elif m := re.search(r"dma_wait \{symbol = @(\w)", line):
            live[m[1]].pop(0)
    assert live == {"a": [2, 3, 0, 1], "y": []}
    assert old.count("issue_token = true") == old.count("dma_wait") == 2 + 6
    awaited, freed = (re.findall(rf"aiex\.dma_{what}_task\((%t\d+)\)", new) for what in ("await", "free"))
    assert sorted([*awaited, *freed]) == sorted(re.findall(r"(%t\d+) = aiex\.dma_configure", new))
    assert len(awaited) == new.count("{issue_token = true}") == 8
