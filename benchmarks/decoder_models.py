"""Makes decoders with random ternary weights, as GGUF files in the shapes of released models: to measure, not to talk.

    python benchmarks/decoder_models.py 2b-4t /somewhere/2b.gguf --body i2_s --head f16

Weights are random bytes wherever every byte is legal, or legal bytes chosen by random ones, so that a file is made
about as fast as it is written; one tensor is in memory at a time, whatever the file's size. A tokenizer of bytes and
fillers is put in, which llama.cpp loads, too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import click
import numpy as np

from neuc.compiler.formats import base3
from neuc.compiler.formats.gguf_types import LAYOUTS
from neuc.compiler.formats.gguf_values import Array, Field, ValueType
from neuc.compiler.formats.gguf_writer import NewTensor, write_gguf
from neuc.compiler.formats.table import GGUF_FORMS

Bytes = np.ndarray


@dataclass(frozen=True)
class Shape:
    """Sizes of a decoder.

    Attributes:
        arch: `general.architecture`; the bitnet ones have norms in front of the output and down projections.
        layers, hidden, ffn, heads, kv_heads, vocab, context: its sizes.
        theta: rotary base.
        tied: whether the head is the embedding.
    """

    arch: str
    layers: int
    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    vocab: int
    context: int
    theta: float = 10000.0
    tied: bool = True

    @property
    def head_dim(self) -> int:
        """Width of a head."""
        return self.hidden // self.heads

    @property
    def ternary_weights(self) -> int:
        """Weights of all linear layers but the head."""
        kv = self.kv_heads * self.head_dim
        return self.layers * (2 * self.hidden * self.hidden + 2 * self.hidden * kv + 3 * self.hidden * self.ffn)


SHAPES = {
    "tiny": Shape("bitnet-b1.58", 2, 256, 512, 4, 2, 512, 256),
    "small": Shape("bitnet-b1.58", 4, 512, 1536, 8, 2, 4096, 1024),
    "700m": Shape("bitnet", 24, 1536, 4096, 16, 16, 32002, 2048),
    "2b-4t": Shape("bitnet-b1.58", 30, 2560, 6912, 20, 5, 128256, 4096, 500000.0),
    "7b": Shape("llama", 32, 4096, 11008, 32, 32, 32000, 2048, tied=False),
    "8b": Shape("llama", 32, 4096, 14336, 32, 8, 128256, 8192, 500000.0, tied=False),
    "70b": Shape("llama", 80, 8192, 28672, 64, 8, 32000, 4096, tied=False),
}
BODIES = ("i2_s", "tq2_0", "tq1_0")
HEADS = ("f32", "f16", "q8_0", "q4_0", "q6_k")

_TWO_BIT = np.array([sum(c << 2 * i for i, c in enumerate(codes)) for codes in product(range(3), repeat=4)], np.uint8)
_FIVE = np.flatnonzero(base3.FIVE).astype(np.uint8)
_FOUR = np.flatnonzero(base3.FOUR_HIGH).astype(np.uint8)


def _chosen(legal: Bytes, random: Bytes) -> Bytes:
    """The legal byte that stands for each random one."""
    table = legal[np.arange(256) * len(legal) >> 8].tobytes()
    # Indexing with the bytes would first make eight bytes of each.
    return np.frombuffer(random.tobytes().translate(table), np.uint8).reshape(random.shape)


def _f16(values: np.ndarray | float) -> Bytes:
    return np.atleast_1d(np.asarray(values)).astype("<f2").view(np.uint8)


def _random(rng: np.random.Generator, *shape: int) -> Bytes:
    count = int(np.prod(shape))
    return (
        rng.integers(0, 1 << 32, -(-count // 4), np.uint32)
        .astype("<u4", copy=False)
        .view(np.uint8)[:count]
        .reshape(shape)
    )


def body_bytes(kind: str, rows: int, columns: int, rng: np.random.Generator) -> Bytes:
    """A payload of random ternary weights whose scale keeps the variance of what is multiplied."""
    scale = float(np.float16((1.5 / columns) ** 0.5))
    if kind == "i2_s":
        tail = np.zeros(32, np.uint8)
        tail[:4] = np.frombuffer(np.float32(scale).tobytes(), np.uint8)
        return np.concatenate([_chosen(_TWO_BIT, _random(rng, rows * columns // 4)), tail])
    blocks = rows * columns // 256
    if kind == "tq2_0":
        codes = [_chosen(_TWO_BIT, _random(rng, blocks, 64))]
    else:
        codes = [_chosen(_FIVE, _random(rng, blocks, 48)), _chosen(_FOUR, _random(rng, blocks, 4))]
    return np.concatenate([*codes, np.broadcast_to(_f16(scale), (blocks, 2))], axis=1).reshape(-1)


def head_bytes(kind: str, rows: int, columns: int, rng: np.random.Generator) -> Bytes:
    """A payload of random weights of magnitude 1 or so."""
    count = rows * columns
    match kind:
        case "f32":
            return rng.standard_normal(count, np.float32).view(np.uint8)
        case "f16":  # exponents of 1/16 to 1
            bits = _random(rng, 2 * count).view("<u2")
            bits &= 0x8FFF
            bits |= 0x2C00
            return bits.view(np.uint8)
        case "q8_0" | "q4_0":
            levels = _random(rng, count // 32, 32 if kind == "q8_0" else 16)
            if kind == "q8_0":
                levels = np.maximum(levels.view(np.int8), -127).view(np.uint8)
            return np.concatenate([np.broadcast_to(_f16(1 / levels.shape[1] / 4), (len(levels), 2)), levels], 1).ravel()
        case _:
            codes = _random(rng, count // 256, 208)
            return np.concatenate([codes, np.broadcast_to(_f16(2**-11), (len(codes), 2))], axis=1).reshape(-1)


def _tensors(shape: Shape, body: str, head: str, seed: int) -> list[NewTensor]:
    rng = np.random.default_rng(seed)
    types = {layouts[0].name: (type_id, layouts[0]) for type_id, layouts in LAYOUTS.items()}
    tensors: list[NewTensor] = []

    def add(name: str, dims: tuple[int, ...], kind: str, make: Callable[[], Bytes]) -> None:
        type_id = GGUF_FORMS[kind].type_id if kind in BODIES else types[kind][0]
        (nbytes,) = types[kind][1].sizes(dims)
        tensors.append(NewTensor(f"{name}.weight", dims, type_id, nbytes, lambda: make().data))

    def linear(name: str, rows: int, columns: int) -> None:
        add(name, (rows, columns), body, lambda: body_bytes(body, rows, columns, rng))

    def gamma(name: str, size: int) -> None:
        add(name, (size,), "f32", lambda: rng.uniform(0.5, 1.5, size).astype(np.float32).view(np.uint8))

    def table(name: str) -> None:
        dims = (shape.vocab, shape.hidden)
        add(name, dims, head, lambda: head_bytes(head, *dims, rng))

    table("token_embd")
    sub_norms = shape.arch.startswith("bitnet")
    q, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    for layer in range(shape.layers):
        name = f"blk.{layer}"
        gamma(f"{name}.attn_norm", shape.hidden)
        for part, rows in (("q", q), ("k", kv), ("v", kv)):
            linear(f"{name}.attn_{part}", rows, shape.hidden)
        if sub_norms:
            gamma(f"{name}.attn_sub_norm", q)
        linear(f"{name}.attn_output", shape.hidden, q)
        gamma(f"{name}.ffn_norm", shape.hidden)
        linear(f"{name}.ffn_gate", shape.ffn, shape.hidden)
        linear(f"{name}.ffn_up", shape.ffn, shape.hidden)
        if sub_norms:
            gamma(f"{name}.ffn_sub_norm", shape.ffn)
        linear(f"{name}.ffn_down", shape.hidden, shape.ffn)
    gamma("output_norm", shape.hidden)
    if not shape.tied:
        table("output")
    return tensors


def _fields(shape: Shape, body: str) -> dict[str, Field]:
    def real(value: float) -> Field:
        return Field(ValueType.FLOAT32, np.float32(value))

    arch = shape.arch
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    types = [2, 3, 3, *[6] * 256]
    fillers = shape.vocab - len(tokens)
    tokens += [f"▁t{number}" for number in range(fillers)]
    kinds = np.array(types + [1] * fillers, np.int32)
    scores = -np.arange(shape.vocab, dtype=np.float32)
    return {
        "general.architecture": Field.text(arch),
        "general.name": Field.text(f"random {arch}"),
        "general.file_type": Field.u32(GGUF_FORMS[body].file_type),
        f"{arch}.block_count": Field.u32(shape.layers),
        f"{arch}.context_length": Field.u32(shape.context),
        f"{arch}.embedding_length": Field.u32(shape.hidden),
        f"{arch}.feed_forward_length": Field.u32(shape.ffn),
        f"{arch}.attention.head_count": Field.u32(shape.heads),
        f"{arch}.attention.head_count_kv": Field.u32(shape.kv_heads),
        f"{arch}.attention.layer_norm_rms_epsilon": real(1e-5),
        f"{arch}.rope.dimension_count": Field.u32(shape.head_dim),
        f"{arch}.rope.freq_base": real(shape.theta),
        f"{arch}.vocab_size": Field.u32(shape.vocab),
        "tokenizer.ggml.model": Field.text("llama"),
        "tokenizer.ggml.tokens": Field.texts(tokens),
        "tokenizer.ggml.scores": Field(ValueType.ARRAY, Array(ValueType.FLOAT32, scores)),
        "tokenizer.ggml.token_type": Field(ValueType.ARRAY, Array(ValueType.INT32, kinds)),
        "tokenizer.ggml.unknown_token_id": Field.u32(0),
        "tokenizer.ggml.bos_token_id": Field.u32(1),
        "tokenizer.ggml.eos_token_id": Field.u32(2),
    }


def write_model(path: Path, shape: Shape, *, body: str = "i2_s", head: str = "f16", seed: int = 0) -> int:
    """Write a random model; its size in bytes.

    Args:
        path: the file.
        shape: its sizes.
        body: block format of the linear layers, one of `BODIES`.
        head: type of embedding and head, one of `HEADS`.
        seed: of the random bytes: the same seed makes the same file.
    """
    return write_gguf(path, _fields(shape, body), _tensors(shape, body, head, seed))


@click.command()
@click.argument("shape", type=click.Choice(list(SHAPES)))
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--body", type=click.Choice(BODIES), default="i2_s", show_default=True)
@click.option("--head", type=click.Choice(HEADS), default="f16", show_default=True)
@click.option("--arch", help="Another architecture: bitnet for llama.cpp itself, bitnet-b1.58 for its forks.")
@click.option("--seed", type=int, default=0)
def main(shape: str, path: Path, body: str, head: str, arch: str | None, seed: int) -> None:
    """Write a decoder of random weights in SHAPE to PATH."""
    chosen = SHAPES[shape] if arch is None else Shape(**{**SHAPES[shape].__dict__, "arch": arch})
    size = write_model(path, chosen, body=body, head=head, seed=seed)
    click.echo(f"wrote {path}: {size / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
