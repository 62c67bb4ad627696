"""Bodies of cores whose functions work element by element, or pixel by pixel: `runtime/npu/functions.py` in MLIR.

They give that file's bits. What a core holds from firing to firing, and tokens at other rates than one a phase, are not
for this file (`aie_filter.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from neuc.backends.npu.export.aie_body import Body
from neuc.backends.npu.export.aie_types import MLIR_TYPES, extension, memref
from neuc.errors import Error
from neuc.runtime.npu.program import Channel, Kernel

RTP_WORDS = 16
"""Words of the buffer that holds a core's run-time parameters."""


class Pixels(Body):
    """The body of a firing; `operands` are the elements of inputs, then of outputs, `rtp` its run-time parameters."""

    def __init__(
        self, kernel: Kernel, channels: Mapping[str, Channel], operands: Sequence[str] = (), rtp: Sequence[str] = ()
    ) -> None:
        super().__init__()
        self.kernel, self.operands, self.rtp = kernel, list(operands), list(rtp)
        self.ends = [channels[name] for name in (*kernel.inputs, *kernel.outputs)]

    def parameter(self, name: str, default: int = 0) -> str:
        """A parameter's word: a constant, or what the host wrote last."""
        if name in self.rtp:
            place = self.index(self.rtp.index(name))
            return self.let(f"memref.load %rtp_{self.kernel.name}[{place}] : memref<{RTP_WORDS}xi32>")
        value = self.kernel.params.get(name, default)
        if not isinstance(value, int):
            raise self.error(f"parameter {name} is {value!r}, no whole number")
        return self.word(value)

    def error(self, why: str) -> Error:
        """What is wrong with the kernel."""
        hint = "correct the graph, or export JSON, which holds any"
        return Error("NEUC-E683", f"kernel {self.kernel.name} ({self.kernel.function}): {why}", hint=hint)

    def byte(self, word: str) -> str:
        """The lowest byte of a word."""
        return self.words("andi", word, self.word(255))

    def load(self, end: int, places: Sequence[str]) -> str:
        """An element as it is."""
        return self.let(f"memref.load {self.operands[end]}[{', '.join(places)}] : {memref(self.ends[end])}")

    def load_word(self, end: int, places: Sequence[str]) -> str:
        """An integer element as a word."""
        channel = self.ends[end]
        kind, element = MLIR_TYPES[channel.dtype], self.load(end, places)
        return element if kind == "i32" else self.let(f"arith.{extension(channel)} {element} : {kind} to i32")

    def store(self, value: str, places: Sequence[str]) -> None:
        """An element of the output."""
        self.do(f"memref.store {value}, {self.operands[-1]}[{', '.join(places)}] : {memref(self.ends[-1])}")

    def store_byte(self, word: str, places: Sequence[str]) -> None:
        """A word's lowest byte as an element of the output."""
        self.store(self.let(f"arith.trunci {word} : i32 to i8"), places)

    def clipped(self, word: str) -> str:
        """A word in 0 … 255."""
        return self.words("minsi", self.words("maxsi", word, self.word(0)), self.word(255))

    def wants(self, shapes: Sequence[tuple[int, ...]], *, bytes_only: bool = True) -> None:
        """Tokens of these shapes.

        Raises:
            Error: NEUC-E683, they have others.
        """
        if [end.shape for end in self.ends] != list(shapes):
            raise self.error(f"takes no tokens of shapes {', '.join(str(end.shape) for end in self.ends)}")
        if bytes_only and any(end.dtype != "u8" for end in self.ends):
            raise self.error(f"takes u8, not {', '.join(end.dtype for end in self.ends)}")


def _element(body: Pixels) -> None:
    """copy, invert, add, and, or."""
    function, out = body.kernel.function, body.ends[-1]
    operation = {"copy": "", "invert": "xori", "add": "addi", "and": "andi", "or": "ori"}[function]
    kind = MLIR_TYPES[out.dtype]
    if len({end.dtype for end in body.ends}) > 1 or (operation and kind == "bf16"):
        raise body.error(f"has no body for {', '.join(end.dtype for end in body.ends)}")
    if kind == "f32" and operation:
        if operation != "addi":
            raise body.error("has no bits to combine in f32")
        operation = "addf"
    takes = 2 if function in ("add", "and", "or") else 1
    body.wants([out.shape] * (takes + 1), bytes_only=False)
    ones = body.let(f"arith.constant -1 : {kind}") if function == "invert" else ""
    places = body.over(out.shape)
    values = [body.load(i, places) for i in range(takes)] + [ones] * bool(ones)
    body.store(body.let(f"arith.{operation} {', '.join(values)} : {kind}") if operation else values[0], places)
    body.end(len(places))


def _threshold(body: Pixels) -> None:
    shape = body.ends[-1].shape
    body.wants([shape] * 2)
    limit, high = body.byte(body.parameter("threshold")), body.byte(body.parameter("max", 255))
    zero, kind = body.word(0), body.kernel.params.get("kind", 0)
    kinds = None if "kind" in body.rtp else kind
    given = body.parameter("kind") if kinds is None else ""
    numbers = [body.let(f"arith.cmpi eq, {given}, {body.word(i)} : i32") for i in range(4)] if kinds is None else []
    places = body.over(shape)
    x = body.load_word(0, places)
    above = [high, zero, limit, x, zero]
    below = [zero, high, x, zero, x]
    if kinds is None:
        yes, no = above[4], below[4]
        for i, is_kind in enumerate(numbers):
            yes, no = body.select(is_kind, above[i], yes), body.select(is_kind, below[i], no)
    else:
        if kinds not in range(5):
            raise body.error(f"there is no kind {kinds!r}")
        assert isinstance(kinds, int)
        yes, no = above[kinds], below[kinds]
    body.store_byte(body.select(body.compare("ugt", x, limit), yes, no), places)
    body.end(len(places))


def _in_range(body: Pixels) -> None:
    shape = body.ends[-1].shape
    body.wants([shape] * 2)
    low, high, yes, no = body.parameter("low"), body.parameter("high"), body.word(255), body.word(0)
    places = body.over(shape)
    x = body.load_word(0, places)
    inside = body.let(f"arith.andi {body.compare('sge', x, low)}, {body.compare('sle', x, high)} : i1")
    body.store_byte(body.select(inside, yes, no), places)
    body.end(len(places))


def _gray(body: Pixels) -> None:
    shape = body.ends[-1].shape
    body.wants([(*shape, 4), shape])
    weights = [body.word(weight) for weight in (9798, 19235, 3735)]
    planes, total, shift = [body.index(i) for i in range(3)], body.word(1 << 14), body.word(15)
    places = body.over(shape)
    for plane, weight in zip(planes, weights):
        total = body.words("addi", total, body.words("muli", body.load_word(0, [*places, plane]), weight))
    body.store_byte(body.words("shrsi", total, shift), places)
    body.end(len(places))


def _rgba(body: Pixels) -> None:
    shape = body.ends[0].shape
    body.wants([shape, (*shape, 4)])
    planes, opaque = [body.index(i) for i in range(4)], body.let("arith.constant -1 : i8")
    places = body.over(shape)
    x = body.load(0, places)
    for plane, value in zip(planes, (x, x, x, opaque)):
        body.store(value, [*places, plane])
    body.end(len(places))


def _hue(body: Pixels) -> None:
    """The floor of a quotient is that of one that cannot be negative, less as much."""
    shape = body.ends[-1].shape
    body.wants([(*shape, 4), shape])
    planes = [body.index(i) for i in range(3)]
    zero, one, sextant = body.word(0), body.word(1), body.word(43)
    offsets = [body.word(offset - 43) for offset in (0, 86, 171)]
    places = body.over(shape)
    r, g, b = (body.load_word(0, [*places, plane]) for plane in planes)
    high = body.words("maxsi", body.words("maxsi", r, g), b)
    low = body.words("minsi", body.words("minsi", r, g), b)
    distance = body.words("subi", high, low)
    span = body.words("maxsi", distance, one)
    hues: list[str] = []
    for offset, (x, y) in zip(offsets, ((g, b), (b, r), (r, g))):
        lifted = body.words("addi", body.words("subi", x, y), span)
        hues.append(body.words("addi", body.words("divsi", body.words("muli", lifted, sextant), span), offset))
    hue = body.select(body.compare("eq", high, g), hues[1], hues[2])
    hue = body.select(body.compare("eq", high, r), hues[0], hue)
    body.store_byte(body.select(body.compare("eq", distance, zero), zero, hue), places)
    body.end(len(places))


def _add_weighted(body: Pixels) -> None:
    """The second token may be a line of grey under pixels of the first."""
    shape = body.ends[-1].shape
    grey = body.ends[1].shape == shape[:-1]
    body.wants([shape, shape[:-1] if grey else shape, shape])
    alpha, beta, gamma = (body.parameter(name) for name in ("alpha", "beta", "gamma"))
    shift = body.word(14)
    places = body.over(shape)
    a = body.words("muli", body.load_word(0, places), alpha)
    b = body.words("muli", body.load_word(1, places[:-1] if grey else places), beta)
    total = body.words("addi", body.words("shrsi", body.words("addi", a, b), shift), gamma)
    body.store_byte(body.clipped(total), places)
    body.end(len(places))


def _mask(body: Pixels) -> None:
    shape, masks = body.ends[-1].shape, len(body.ends) - 2
    body.wants([shape, *[shape[:-1]] * masks, shape])
    nothing = body.let("arith.constant 0 : i8")
    places = body.over(shape)
    seen = body.load(1, places[:-1])
    for i in range(2, masks + 1):
        seen = body.let(f"arith.ori {seen}, {body.load(i, places[:-1])} : i8")
    shown = body.let(f"arith.cmpi ne, {seen}, {nothing} : i8")
    pixel = body.load(0, places)
    body.store(body.let(f"arith.select {shown}, {pixel}, {nothing} : i8"), places)
    body.end(len(places))


PIXELS: Mapping[str, Callable[[Pixels], None]] = {
    **dict.fromkeys(("copy", "invert", "add", "and", "or"), _element),
    "threshold": _threshold,
    "in_range": _in_range,
    "rgba2gray": _gray,
    "gray2rgba": _rgba,
    "rgba2hue": _hue,
    "add_weighted": _add_weighted,
    "mask": _mask,
}
"""What writes the body of a function."""
