"""Runs the cores of an exported file: MLIR's `arith`, `scf` and `memref` as Python, so that bodies can be held to bits.

Written from the dialects' documentation; integers wrap, i8 is what bytes are, bf16 is its bits. Reads the generic form.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

_TYPES = {"i8": np.uint8, "i16": np.uint16, "i32": np.uint32, "i64": np.uint64, "f32": np.float32, "bf16": np.uint16}
_BITS = {"i1": 1, "i8": 8, "i16": 16, "i32": 32, "i64": 64, "index": 64}


def _signed(value: int, kind: str) -> int:
    bits = _BITS[kind]
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def _quotient(a: int, b: int) -> int:
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


_INTEGERS = {
    "addi": lambda a, b: a + b,
    "subi": lambda a, b: a - b,
    "muli": lambda a, b: a * b,
    "divsi": _quotient,
    "andi": lambda a, b: a & b,
    "ori": lambda a, b: a | b,
    "xori": lambda a, b: a ^ b,
    "shli": lambda a, b: a << b,
    "shrsi": lambda a, b: a >> b,
    "maxsi": max,
    "minsi": min,
}
_UNSIGNED = {"divui": lambda a, b: a // b, "remui": lambda a, b: a % b, "shrui": lambda a, b: a >> b}
_FLOATS = {"addf": np.add, "subf": np.subtract, "mulf": np.multiply, "divf": np.divide, "maximumf": np.maximum}
_RELATIONS = {
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "slt": lambda a, b: a < b,
    "sle": lambda a, b: a <= b,
    "sgt": lambda a, b: a > b,
    "sge": lambda a, b: a >= b,
}


def _operation(name: str, values: Sequence[object], kind: str) -> object:
    """An operation of `arith` on numbers of one type."""
    if name in _FLOATS:
        return np.float32(_FLOATS[name](*values))
    a, b = (int(v) for v in values)  # type: ignore[call-overload]
    if name in _INTEGERS:
        return _signed(_INTEGERS[name](a, b), kind)
    mask = (1 << _BITS[kind]) - 1
    return _signed(_UNSIGNED[name](a & mask, b & mask), kind)


def _relation(name: str, a: int, b: int, kind: str) -> bool:
    if name.startswith("u"):
        mask = (1 << _BITS[kind]) - 1
        return _RELATIONS["s" + name[1:]](a & mask, b & mask)
    return _RELATIONS[name](a, b)


def _converted(name: str, value: object, source: str, target: str) -> object:
    if name == "extf":
        return np.uint32(int(value) << 16 & 0xFFFFFFFF).view(np.float32)  # type: ignore[call-overload]
    if name == "truncf":
        bits = int(np.float32(value).view(np.uint32))  # type: ignore[arg-type]
        return (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    if name == "uitofp":
        return np.float32(int(value) & (1 << _BITS[source]) - 1)  # type: ignore[call-overload]
    if name == "bitcast" and "bf16" in (source, target):
        return value
    if name == "bitcast":
        return np.uint32(int(value) & 0xFFFFFFFF).view(np.float32)  # type: ignore[call-overload]
    if name == "extui":
        return int(value) & (1 << _BITS[source]) - 1  # type: ignore[call-overload]
    return _signed(int(value), target)  # type: ignore[call-overload]


def _loaded(memory: np.ndarray, place: tuple[int, ...], kind: str) -> object:
    assert all(0 <= i < size for i, size in zip(place, memory.shape, strict=True)), (place, memory.shape)
    value = memory[place]
    return value if kind == "f32" else int(value) if kind == "bf16" else _signed(int(value), kind)


def _stored(memory: np.ndarray, place: tuple[int, ...], value: object, kind: str) -> None:
    assert all(0 <= i < size for i, size in zip(place, memory.shape, strict=True)), (place, memory.shape)
    memory[place] = value if kind == "f32" else int(value) & int(np.iinfo(memory.dtype).max)  # type: ignore[call-overload]


def memory_of(kind: str) -> np.ndarray:
    """Zeros for a memref's type."""
    *shape, element = kind.removeprefix("memref<").removesuffix(">").split("x")
    return np.zeros([int(size) for size in shape], _TYPES[element])


class Core:
    """One core of a file in generic form; its buffers live from firing to firing."""

    def __init__(self, text: str, kernel: str) -> None:
        self.buffers: dict[str, np.ndarray] = {}
        for name, attributes, kind in re.findall(r'%(\w+) = "aie.buffer"\(.*?\) \{(.*)\} : \(index\) -> (\S+)', text):
            self.buffers[name] = memory_of(kind)
            words = re.search(r"dense<\[(.*?)\]>", attributes)
            if words is not None:
                self.buffers[name][:] = np.array([int(w) for w in words[1].split(",")], np.int32).view(np.uint32)
        found = re.search(rf'%core_{kernel} = "aie\.core".*?\{{\n(.*?)"aie\.end"', text, re.S)
        assert found is not None, kernel
        lines = [line.strip() for line in found[1].splitlines() if line.strip()]
        head = next(i for i, line in enumerate(lines) if line.startswith("scf.for %arg0"))
        self._code = compile(_python([*lines[:head], *lines[head + 1 : -1]]), kernel, "exec")

    def fire(self, tokens: Mapping[str, Sequence[np.ndarray]]) -> dict[str, list[np.ndarray]]:
        """A turn of the endless loop: takes these tokens, all of them, and gives those of the outputs."""
        waiting = {name: list(queue) for name, queue in tokens.items()}
        held: dict[str, np.ndarray] = {}
        given: dict[str, list[np.ndarray]] = {}

        def acquire(name: str, port: int, kind: str) -> np.ndarray:
            assert name not in held, f"{name} is acquired twice"
            held[name] = waiting[name].pop(0) if port else memory_of(kind)
            assert held[name].shape == memory_of(kind).shape
            return held[name]

        def release(name: str, port: int) -> None:
            element = held.pop(name)
            if not port:
                given.setdefault(name, []).append(element)

        world = {f"v_{name}": memory for name, memory in self.buffers.items()}
        world |= {"acquire": acquire, "release": release, "np": np, "op": _operation, "rel": _relation}
        world |= {"conv": _converted, "load": _loaded, "store": _stored}
        exec(self._code, world)
        assert not held
        assert not any(waiting.values()), f"tokens left: { {n: len(q) for n, q in waiting.items()} }"
        return given


def _python(lines: list[str]) -> str:
    """The lines as Python; `%x` is v_x."""
    made: list[str] = ["pass"]
    depth = 0
    carried: list[str] = []
    for line in lines:
        if line == "}":
            depth -= 1
            carried.pop()
            continue
        for text in _statement(line, carried):
            made.append("  " * depth + text)
        if line.endswith("{"):
            depth += 1
            names = re.search(r"%(\w+) = scf\.for.*?iter_args\(%(\w+)", line)
            carried.append("" if names is None else f"{names[1]} {names[2]}")
    assert depth == 0
    return "\n".join(made)


def _statement(line: str, carried: list[str]) -> list[str]:
    text = re.sub(r"%(\w+)", r"v_\1", line)
    if m := re.fullmatch(r"(v_\w+) = arith\.constant (\S+) : (\w+)", text):
        if m[3] == "f32":
            value = f"np.uint32({m[2]}).view(np.float32)" if m[2].startswith("0x") else f"np.float32({m[2]})"
        else:
            value = repr(_signed(int(m[2]), m[3]))
        return [f"{m[1]} = {value}"]
    if m := re.fullmatch(r"(v_\w+) = arith\.cmpi (\w+), (\w+), (\w+) : (\w+)", text):
        return [f"{m[1]} = rel({m[2]!r}, {m[3]}, {m[4]}, {m[5]!r})"]
    if m := re.fullmatch(r"(v_\w+) = arith\.select (\w+), (\w+), (\w+) : \w+", text):
        return [f"{m[1]} = {m[3]} if {m[2]} else {m[4]}"]
    if m := re.fullmatch(r"(v_\w+) = arith\.(\w+) (\w+) : (\w+) to (\w+)", text):
        return [f"{m[1]} = conv({m[2]!r}, {m[3]}, {m[4]!r}, {m[5]!r})"]
    if m := re.fullmatch(r"(v_\w+) = arith\.(\w+) (\w+), (\w+) : (\w+)", text):
        return [f"{m[1]} = op({m[2]!r}, ({m[3]}, {m[4]}), {m[5]!r})"]
    if m := re.fullmatch(r"(v_\w+) = math\.sqrt (\w+) : f32", text):
        return [f"{m[1]} = np.sqrt({m[2]})"]
    if m := re.fullmatch(r"(v_\w+) = memref\.load (\w+)\[(.*)\] : memref<.*?(\w+?)>", text):
        return [f"{m[1]} = load({m[2]}, ({m[3]},), {m[4].split('x')[-1]!r})"]
    if m := re.fullmatch(r"memref\.store (\w+), (\w+)\[(.*)\] : memref<.*?(\w+?)>", text):
        return [f"store({m[2]}, ({m[3]},), {m[1]}, {m[4].split('x')[-1]!r})"]
    if m := re.fullmatch(r"(v_\w+) = memref\.view (\w+)\[v_c0\]\[\] : \S+ to memref<\d+xi32>", text):
        return [f"{m[1]} = {m[2]}.view(np.uint32)"]
    if m := re.fullmatch(r'(v_\w+) = "aie\.objectfifo\.acquire"\(\) .*?@(\w+), port = (\d) .*-> (\S+)', text):
        return [f"{m[1]} = acquire({m[2]!r}, {m[3]}, {m[4]!r})"]
    if m := re.fullmatch(r'"aie\.objectfifo\.release"\(\) .*?@(\w+), port = (\d) .*', text):
        return [f"release({m[1]!r}, {m[2]})"]
    if m := re.fullmatch(r"scf\.for (\w+) = (\w+) to (\w+) step (\w+) \{", text):
        return [f"for {m[1]} in range({m[2]}, {m[3]}, {m[4]}):", "  pass"]
    if m := re.fullmatch(
        r"(\w+) = scf\.for (\w+) = (\w+) to (\w+) step (\w+) iter_args\((\w+) = (\w+)\) -> .* \{", text
    ):
        return [f"{m[1]} = {m[6]} = {m[7]}", f"for {m[2]} in range({m[3]}, {m[4]}, {m[5]}):", "  pass"]
    if m := re.fullmatch(r"scf\.if (\w+) \{", text):
        return [f"if {m[1]}:", "  pass"]
    if m := re.fullmatch(r"scf\.yield (\w+) : \w+", text):
        result, accumulator = carried[-1].split(" ")
        return [f"v_{result} = v_{accumulator} = {m[1]}"]
    raise AssertionError(f"no meaning for: {line}")
