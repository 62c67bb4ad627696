"""The forms a value of a spiking loop has between stages, for all steps at once, and the ways from one to another.

- **train**: events as frames [B, ⌈T/4⌉, N] (`kernels/spike_lists.py`);
- **stacked**: a plain tensor with time in front, [T, B, …];
- **last**: as stacked, but images have their channels last, and small whole numbers may be int8.

A form that is asked for and not there is made of one that is.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from xdsl.dialects.builtin import f32, i8
from xdsl.ir import Attribute, SSAValue

from neuc.backends.cpu.kernels.spike_lists import FRAME, FRAME_BYTES
from neuc.backends.cpu.kernels.spike_trains import SpikeFramesKernel
from neuc.backends.cpu.lowering import SegmentLowering
from neuc.backends.cpu.lowerings.iteration import contiguous_strides
from neuc.backends.cpu.lowerings.movement import copy_strided
from neuc.backends.cpu.lowerings.spike_maps import converted, value_of
from neuc.backends.cpu.lowerings.spike_plan import neurons_of, samples_of
from neuc.dialects import dense, spike
from neuc.dialects.dims import Dim
from neuc.dialects.spike_types import EventType
from neuc.dialects.store import dims_of, element_of, tensor_type


@dataclass(frozen=True)
class Last:
    """A value [T, B, H, W, C].

    Attributes:
        buffer: where it is.
        kind: ``i8``, ``f32`` or ``i32``: what it holds there.
        image: C, H, W.
    """

    buffer: SSAValue
    kind: str
    image: tuple[int, int, int]

    def columns(self, weight: np.ndarray) -> np.ndarray:
        """W[N, C·H·W] with the columns in the order of these values."""
        channels, height, width = self.image
        split = weight.reshape(weight.shape[0], channels, height * width)
        return np.ascontiguousarray(split.swapaxes(1, 2)).reshape(weight.shape)


def image_of(value: SSAValue) -> tuple[int, int, int]:
    """C, H, W of a value [B, C, H, W]."""
    channels, height, width = (dim.value for dim in dims_of(value)[1:])
    return channels, height, width


def kind_of(element: Attribute) -> str:
    """The kernels' name of what a tensor holds."""
    return "i8" if isinstance(element, EventType) or element == i8 else "f32" if element == f32 else "i32"


def kind_of_weight(weight: np.ndarray) -> str:
    """The kernels' name of what weights are."""
    return "i8" if weight.dtype == np.int8 else "f32"


def bytes_of(kind: str) -> int:
    """Bytes of an element of such a kind."""
    return 1 if kind == "i8" else 4


@dataclass
class Forms:
    """The forms that values of a loop have by now.

    Attributes:
        loop: the loop.
        s: the segment.
    """

    loop: spike.LoopOp
    s: SegmentLowering
    trains: dict[SSAValue, SSAValue] = field(default_factory=dict["SSAValue", "SSAValue"])
    stacked: dict[SSAValue, SSAValue] = field(default_factory=dict["SSAValue", "SSAValue"])
    last: dict[SSAValue, Last] = field(default_factory=dict["SSAValue", "Last"])

    def __post_init__(self) -> None:
        self.steps = self.loop.step_count
        self.frames = self.steps.ceildiv(FRAME)
        for whole, part in zip(self.loop.scanned, self.loop.slices, strict=True):
            self.stacked[part] = self.s.buffer(whole)
        self._given: dict[SSAValue, SSAValue] = {}
        for whole, part in zip(self.loop.outputs, self.loop.terminator.outputs, strict=True):
            self._given.setdefault(part, whole)

    def moves(self, value: SSAValue) -> bool:
        """Whether a value differs from step to step."""
        return value in self.trains or value in self.stacked or value in self.last

    def room(self, value: SSAValue) -> SSAValue:
        """Where a stacked value goes: to what the loop gives, if it gives this value."""
        whole = self._given.get(value)
        if whole is not None and whole.first_use is not None:
            return self.s.buffer(whole)
        return self.s.temp(self.steps * self.s.nbytes(value))

    def room_for_train(self, value: SSAValue) -> SSAValue:
        """Where a train goes."""
        return self.s.temp(samples_of(value) * self.frames * neurons_of(value) * FRAME_BYTES)

    def as_train(self, value: SSAValue) -> SSAValue:
        """The buffer of a value's frames; of a value that has its channels last, in that order."""
        if value not in self.trains:
            plain = self.last[value].buffer if value in self.last else self.as_stacked(value)
            train = self.trains[value] = self.room_for_train(value)
            args = [plain, train, self.steps, samples_of(value), neurons_of(value)]
            self.s.launch(SpikeFramesKernel("pack"), args, work=samples_of(value) * self.frames)
        return self.trains[value]

    def as_stacked(self, value: SSAValue) -> SSAValue:
        """The buffer of a value with time in front."""
        if value in self.stacked:
            return self.stacked[value]
        if value in self.last:
            self.stacked[value] = self._from_last(value)
        else:
            plain = self.stacked[value] = self.room(value)
            args = [self.trains[value], plain, self.steps, samples_of(value), neurons_of(value)]
            self.s.launch(SpikeFramesKernel("unpack"), args, work=samples_of(value) * self.frames)
        return self.stacked[value]

    def as_last(self, value: SSAValue) -> Last:
        """A value [B, C, H, W] with its channels last."""
        if value not in self.last:
            kind = kind_of(element_of(value))
            turned = self.s.temp(self.steps * samples_of(value) * neurons_of(value) * bytes_of(kind))
            made = self.last[value] = Last(turned, kind, image_of(value))
            count = self.steps * samples_of(value)
            self.turn(self.as_stacked(value), turned, count, made.image, kind, to_last=True)
        return self.last[value]

    def _from_last(self, value: SSAValue) -> SSAValue:
        held, room, element = self.last[value], self.room(value), element_of(value)
        widens = held.kind == "i8" and kind_of(element) != "i8"
        count = self.steps * samples_of(value)
        target = self.s.temp(count * neurons_of(value)) if widens else room
        self.turn(held.buffer, target, count, held.image, held.kind, to_last=False)
        if widens:
            narrow = value_of(target, tensor_type(i8, [count, neurons_of(value)]), self.s)
            return self.s.buffer(converted(narrow, element, self.s))
        return room

    def turn(
        self,
        source: SSAValue,
        target: SSAValue,
        count: Dim,
        image: tuple[int, int, int],
        kind: str,
        *,
        to_last: bool,
    ) -> None:
        """Copy `count` images, channels first to last or the other way."""
        channels, pixels = Dim.of(image[0]), Dim.of(image[1] * image[2])
        first = (count, channels, pixels)
        strides_first = contiguous_strides(first)
        strides_last = (channels * pixels, Dim.of(1), channels)
        reading, writing = (strides_first, strides_last) if to_last else (strides_last, strides_first)
        order = (0, 2, 1) if to_last else (0, 1, 2)
        dims, reading, writing = ([row[axis] for axis in order] for row in (first, reading, writing))
        copy_strided(self.s, source, target, bytes_of(kind), dims, reading, writing, op=self.loop)

    def type_with_time(self, value: SSAValue) -> Attribute:
        """A value's type where the steps are further samples."""
        dims = dims_of(value)
        return tensor_type(element_of(value), [self.steps * dims[0], *dims[1:]])


def alike(value: SSAValue, s: SegmentLowering) -> np.ndarray | None:
    """What all samples of a state begin with, if that is one constant for all: an array of a sample's shape."""
    owner = value.owner
    array = s.constant(owner.x if isinstance(owner, dense.BroadcastOp) else value)
    dims = dims_of(value)
    own = dims[1:] if len(dims) > 1 else dims
    if array is None or not all(dim.is_static for dim in own):
        return None
    if len(dims) > 1 and array.ndim == len(dims):
        if (array != array[:1]).any():
            return None
        array = array[0]
    return np.broadcast_to(array, [dim.value for dim in own])
