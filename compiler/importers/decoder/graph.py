"""The module of a decoder: `main(tokens [S], position [], caches …) -> (logits [1, V], caches …)`.

S new tokens follow `position` tokens that the caches hold; logits are those of the last one. Caches of layer n are
`k_cache.n` [KV, C, D, 16] and `v_cache.n` [KV, C, 16, D], with room for 16·C tokens; the results `k_cache_out.n` and
`v_cache_out.n` are meant to be bound to the same memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from xdsl.dialects import math
from xdsl.dialects.builtin import (
    ArrayAttr,
    DictionaryAttr,
    FunctionType,
    IntegerAttr,
    ModuleOp,
    StringAttr,
    TensorType,
    UnitAttr,
    f16,
    f32,
    i8,
    i64,
)
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue

from neuc.compiler.importers.decoder.config import DecoderConfig
from neuc.compiler.importers.decoder.matrices import Matrix
from neuc.compiler.importers.decoder.tensors import DecoderTensors
from neuc.dialects.dense import (
    AttentionOp,
    CacheAppendOp,
    IotaOp,
    LayerNormOp,
    MapOp,
    ReshapeOp,
    RotaryOp,
    SliceOp,
    YieldOp,
)
from neuc.dialects.dense_attention import CACHE_LANES, SCALE_BYTES
from neuc.dialects.locations import node_location
from neuc.dialects.onnx import NAME, encode_name
from neuc.dialects.store import dims_of, make_constant, tensor_type
from neuc.dialects.ternary import LinearOp, LookupOp, QuantizeOp
from neuc.dialects.ternary_weights import make_weight
from neuc.dialects.weight_store import WeightStore
from neuc.passes.analysis.ternary_layers import REPLAYED, ULP
from neuc.passes.scalar_builder import Scalar, cast, maximum, sigmoid

KV_TYPES: Mapping[str, Attribute] = {"f16": f16, "f32": f32, "int8": i8}


def build_module(
    tensors: DecoderTensors, matrices: Mapping[str, Matrix], store: WeightStore, file: str, kv: str
) -> ModuleOp:
    """The module of a decoder.

    Args:
        tensors: its tensors.
        matrices: its matrices by name.
        store: where weights go.
        file: what to call the model in locations.
        kv: element type of the caches, ``f16``, ``f32`` or ``int8``.
    """
    c = tensors.config
    held = KV_TYPES[kv]
    keys = tensor_type(held, [c.kv_heads, "C", c.head_dim, CACHE_LANES])
    values = tensor_type(held, [c.kv_heads, "C", CACHE_LANES, c.head_dim])
    if kv == "int8":
        keys = values = tensor_type(held, [c.kv_heads, "C", CACHE_LANES * (c.head_dim + SCALE_BYTES)])
    inputs: dict[str, Attribute] = {"tokens": tensor_type(i64, ["S"]), "position": TensorType(i64, [])}
    for layer in range(c.layers):
        inputs |= {f"k_cache.{layer}": keys, f"v_cache.{layer}": values}
    block = Block(arg_types=list(inputs.values()))
    for name, argument in zip(inputs, block.args, strict=True):
        argument.name_hint = name.replace(".", "_at_")
    results = _Builder(tensors, matrices, store, file, block).run()
    block.add_op(ReturnOp(*results.values()))
    types = FunctionType.from_lists(list(inputs.values()), [value.type for value in results.values()])
    function = FuncOp("main", types, Region(block))
    function.arg_attrs, function.res_attrs = _named(inputs), _named(results)
    return ModuleOp([function], sym_name=StringAttr(encode_name(file)))


def _named(names: Mapping[str, object]) -> ArrayAttr[DictionaryAttr]:
    return ArrayAttr([DictionaryAttr({NAME: StringAttr(encode_name(name))}) for name in names])


@dataclass
class _Builder:
    """Builds the body of main, layer by layer.

    Attributes:
        tensors: the decoder's tensors.
        matrices: its matrices by name.
        store: where weights go.
        file: what to call the model in locations.
        block: the body.
    """

    tensors: DecoderTensors
    matrices: Mapping[str, Matrix]
    store: WeightStore
    file: str
    block: Block
    _weights: dict[str, SSAValue] = field(default_factory=dict[str, SSAValue])
    _numbers: dict[str, int] = field(default_factory=dict[str, int])

    @property
    def config(self) -> DecoderConfig:
        """The decoder."""
        return self.tensors.config

    def run(self) -> dict[str, SSAValue]:
        """All results by name."""
        tokens, position, *caches = self.block.args
        names, c = self.tensors.names, self.config
        cos, sin = self._angles(position)
        x = self._add(LookupOp(tokens, self._weight(names.embedding)), names.embedding)
        new: dict[str, SSAValue] = {}
        for layer in range(c.layers):
            x, keys, values = self._attention(layer, x, (cos, sin), position, caches[2 * layer], caches[2 * layer + 1])
            x = self._feed_forward(layer, x)
            new |= {f"k_cache_out.{layer}": keys, f"v_cache_out.{layer}": values}
        last = SliceOp(x, ["S - 1", 0], [1, 1], TensorType(f32, [1, c.hidden]))
        normed = self._norm(names.norm, self._add(last, names.norm))
        logits = self._linear(self.tensors.head, *self._quantize(normed, self.tensors.head, replayed=False))
        return {"logits": logits, **new}

    def _attention(
        self,
        layer: int,
        x: SSAValue,
        turn: tuple[SSAValue, SSAValue],
        position: SSAValue,
        k_cache: SSAValue,
        v_cache: SSAValue,
    ) -> tuple[SSAValue, SSAValue, SSAValue]:
        """The stream after attention, and the new caches."""
        c, name = self.config, lambda role: self.tensors.name(role, layer)
        q8 = self._quantize(self._norm(name("attn_norm"), x), name("attn_norm"))
        q, k, v = (self._linear(name(role), *q8) for role in ("q", "k", "v"))
        q, k, v = (self._heads(value, n) for value, n in ((q, c.heads), (k, c.kv_heads), (v, c.kv_heads)))
        q, k = self._optional_norm(name("q_norm"), q), self._optional_norm(name("k_norm"), k)
        q, k = (
            self._add(RotaryOp(value, *turn, interleaved=c.interleaved), f"{name(role)}.rotary")
            for value, role in ((q, "q"), (k, "k"))
        )
        append = CacheAppendOp(k_cache, v_cache, k, v, position)
        self._add(append, f"{name('k')}.cache")
        scale = 1 / c.head_dim**0.5
        mixed = self._add(AttentionOp(q, append.new_k, append.new_v, position, scale=scale), f"{name('o')}.attention")
        flat = self._add(ReshapeOp(mixed, tensor_type(f32, ["S", c.heads * c.head_dim])), f"{name('o')}.attention")
        flat = self._optional_norm(name("attn_sub_norm"), flat)
        out = self._linear(name("o"), *self._quantize(flat, f"{name('o')}.input"))
        return self._map([out, x], lambda y, rest: rest + y, f"{name('o')}.residual"), append.new_k, append.new_v

    def _feed_forward(self, layer: int, x: SSAValue) -> SSAValue:
        """The stream after the feed-forward layer."""
        name = lambda role: self.tensors.name(role, layer)  # noqa: E731
        q8 = self._quantize(self._norm(name("ffn_norm"), x), name("ffn_norm"))
        gate, up = (self._linear(name(role), *q8) for role in ("gate", "up"))
        body = _gated_relu2 if self.config.activation == "relu2" else _gated_silu
        inner = self._map([gate, up], body, f"{name('up')}.gated")
        inner = self._optional_norm(name("ffn_sub_norm"), inner)
        down = self._linear(name("down"), *self._quantize(inner, f"{name('down')}.input"))
        return self._map([down, x], lambda y, rest: rest + y, f"{name('down')}.residual")

    def _angles(self, position: SSAValue) -> tuple[SSAValue, SSAValue]:
        """Cos and sin f32 [S, D/2] of the new tokens' positions times the rotary frequencies."""
        c = self.config
        exponents = np.arange(0, c.head_dim, 2, dtype=np.float64) / c.head_dim
        frequencies = c.rope_scale / np.float64(c.rope_theta) ** exponents
        factors = self.tensors.vector(self.tensors.names.rope_factors)
        if factors is not None:
            frequencies = frequencies / factors
        constant = make_constant("rotary.frequencies", frequencies.astype(np.float32), self.store)
        turn = self._add(constant, "rotary.frequencies")
        index = self._add(IotaOp(tensor_type(i64, ["S"])), "rotary.positions")
        column = self._add(ReshapeOp(index, tensor_type(i64, ["S", 1])), "rotary.positions")
        shape = tensor_type(f32, ["S", c.head_dim // 2])

        def angle(i: Scalar, first: Scalar, frequency: Scalar) -> Scalar:
            angle = cast(i + first, f32)
            assert angle is not None
            return angle * frequency

        return tuple(  # type: ignore[return-value]
            self._map([column, position, turn], body, f"rotary.{name}", shape)
            for name, body in (
                ("cos", lambda *args: _emit(math.CosOp, angle(*args))),
                ("sin", lambda *args: _emit(math.SinOp, angle(*args))),
            )
        )

    def _norm(self, name: str, x: SSAValue) -> SSAValue:
        gamma = self.tensors.vector(name)
        assert gamma is not None
        constant = self._add(make_constant(name, gamma, self.store), name)
        return self._add(LayerNormOp(x, constant, None, axis=len(dims_of(x)) - 1, eps=self.config.eps, rms=True), name)

    def _optional_norm(self, name: str, x: SSAValue) -> SSAValue:
        return self._norm(name, x) if self.tensors.has(name) else x

    def _quantize(self, x: SSAValue, name: str, *, replayed: bool = True) -> tuple[SSAValue, SSAValue]:
        """Codes and scales of a layer's input."""
        op = QuantizeOp(x)
        if replayed and self.config.trained_int8:
            op.attributes[REPLAYED] = UnitAttr()
        self._add(op, name)
        return op.q, op.s

    def _linear(self, name: str, q: SSAValue, s: SSAValue) -> SSAValue:
        return self._add(LinearOp(q, s, self._weight(name)), name)

    def _weight(self, name: str) -> SSAValue:
        """A matrix, made once."""
        if name not in self._weights:
            m = self.matrices[name]
            scales = np.ascontiguousarray(m.scales)
            op = make_weight(name, m.trits, scales, self.store, scale=m.scale, levels=m.levels, sqnr=m.sqnr)
            if m.sqnr is None:
                op.attributes[ULP] = IntegerAttr(0, i64)
            self._weights[name] = self._add(op, name)
        return self._weights[name]

    def _heads(self, x: SSAValue, count: int) -> SSAValue:
        name = "heads"
        return self._add(ReshapeOp(x, tensor_type(f32, ["S", count, self.config.head_dim])), name)

    def _map(
        self, inputs: list[SSAValue], body: Callable[..., Scalar], name: str, type_: Attribute | None = None
    ) -> SSAValue:
        op = MapOp(inputs, type_ or tensor_type(f32, dims_of(inputs[0])))
        inside = op.body.block
        result = body(*(Scalar(argument, inside) for argument in inside.args))
        inside.add_op(YieldOp(result.value))
        return self._add(op, name)

    def _add(self, op: Operation, name: str) -> SSAValue:
        """Append an operation, named after the tensor it is about; its first result."""
        name = name.removesuffix(".weight").replace(".weight.", ".")
        op.location = node_location(name, self.file, self._numbers.setdefault(name, len(self._numbers)))
        self.block.add_op(op)
        return op.results[0]


def _emit(op: type[math.CosOp | math.SinOp], x: Scalar) -> Scalar:
    return x.emit(op(x.value))


def _gated_relu2(gate: Scalar, up: Scalar) -> Scalar:
    """relu(gate)² · up."""
    positive = maximum(gate, 0.0)
    return positive * positive * up


def _gated_silu(gate: Scalar, up: Scalar) -> Scalar:
    """Gate · sigmoid(gate) · up."""
    return gate * sigmoid(gate) * up
