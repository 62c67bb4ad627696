"""A decoder written by hand: its logits say a number made of all tokens and their places.

Nothing but its caches knows the tokens before."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from neuc.runtime.generation import DecoderFacts
from neuc.runtime.native.llvm import compile_baseline
from neuc.runtime.program import (
    BufferArg,
    InputBuffer,
    IntArg,
    IoSpec,
    Launch,
    NativeSegment,
    OutputBuffer,
    Program,
    ScheduleStep,
)
from neuc.runtime.session import Session

VOCAB = 97
EOS = 13

# args: tokens, position, k (in), k (out), logits, S, C, vocabulary. Key t is t's token; the largest logit is that of
# Σ token·(t + 1) modulo the vocabulary.
_KERNEL = """
define void @k_decode(ptr %args, i64 %begin, i64 %end, ptr %scratch) {
entry:
  %tokens = load ptr, ptr %args
  %position.at.at = getelementptr i64, ptr %args, i64 1
  %position.at = load ptr, ptr %position.at.at
  %position = load i64, ptr %position.at
  %keys.at = getelementptr i64, ptr %args, i64 3
  %keys = load ptr, ptr %keys.at
  %logits.at = getelementptr i64, ptr %args, i64 4
  %logits = load ptr, ptr %logits.at
  %count.at = getelementptr i64, ptr %args, i64 5
  %count = load i64, ptr %count.at
  %vocab.at = getelementptr i64, ptr %args, i64 7
  %vocab = load i64, ptr %vocab.at
  br label %append
append:
  %s = phi i64 [ 0, %entry ], [ %s.next, %append ]
  %token.at = getelementptr i64, ptr %tokens, i64 %s
  %token = load i64, ptr %token.at
  %token.f = sitofp i64 %token to float
  %place = add i64 %position, %s
  %key.at = getelementptr float, ptr %keys, i64 %place
  store float %token.f, ptr %key.at
  %s.next = add i64 %s, 1
  %s.more = icmp slt i64 %s.next, %count
  br i1 %s.more, label %append, label %sum
sum:
  %t = phi i64 [ 0, %append ], [ %t.next, %sum ]
  %total = phi i64 [ 0, %append ], [ %total.next, %sum ]
  %held.at = getelementptr float, ptr %keys, i64 %t
  %held = load float, ptr %held.at
  %held.i = fptosi float %held to i64
  %t.next = add i64 %t, 1
  %term = mul i64 %held.i, %t.next
  %total.next = add i64 %total, %term
  %last = add i64 %position, %count
  %t.more = icmp slt i64 %t.next, %last
  br i1 %t.more, label %sum, label %choose
choose:
  %chosen = urem i64 %total.next, %vocab
  br label %write
write:
  %v = phi i64 [ 0, %choose ], [ %v.next, %write ]
  %apart = sub i64 %v, %chosen
  %distance = call i64 @llvm.abs.i64(i64 %apart, i1 false)
  %nearness = sub i64 0, %distance
  %logit = sitofp i64 %nearness to float
  %logit.at = getelementptr float, ptr %logits, i64 %v
  store float %logit, ptr %logit.at
  %v.next = add i64 %v, 1
  %v.more = icmp slt i64 %v.next, %vocab
  br i1 %v.more, label %write, label %done
done:
  ret void
}
declare i64 @llvm.abs.i64(i64, i1)
"""


@lru_cache(maxsize=1)
def kernels() -> Mapping[str, bytes]:
    """Object code."""
    return {"k_decode": compile_baseline(_KERNEL)}


def facts(layers: int = 2) -> DecoderFacts:
    """What its manifest would say."""
    return DecoderFacts.read({"decoder": manifest(layers)})


def manifest(layers: int = 2) -> dict[str, object]:
    """The manifest's ``decoder``."""
    sizes = {"layers": layers, "kv_heads": 1, "head_dim": 1, "vocab": VOCAB, "context": 100}
    return {**sizes, "kv": "f32", "bos": 1, "eos": [EOS], "arch": "made up"}


def program(layers: int = 2) -> Program:
    """A decoder; only the keys of the first layer are used."""
    keys, values = IoSpec("float32", (1, "C", 1, 16)), IoSpec("float32", (1, "C", 16, 1))
    tokens, position, logits = IoSpec("int64", ("S",)), IoSpec("int64", ()), IoSpec("float32", (1, VOCAB))
    caches = [
        (f"{which}_cache", layer, spec) for layer in range(layers) for which, spec in (("k", keys), ("v", values))
    ]
    named = [("tokens", tokens), ("position", position), *((f"{n}.{layer}", spec) for n, layer, spec in caches)]
    made = [("logits", logits), *((f"{n}_out.{layer}", spec) for n, layer, spec in caches)]
    buffers = (
        *(InputBuffer(i) for i in range(len(named))),
        OutputBuffer(0),
        *(OutputBuffer(1 + i, 2 + i) for i in range(len(caches))),
    )
    first = len(named)
    args = (BufferArg(0), BufferArg(1), BufferArg(2), BufferArg(first + 1), BufferArg(first))
    launch = Launch("k_decode", (*args, IntArg("S"), IntArg("C"), IntArg(VOCAB)), 1)
    inputs, outputs = tuple(spec for _, spec in named), tuple(spec for _, spec in made)
    segment = NativeSegment(("C", "S"), 0, 0, inputs, outputs, buffers, (launch,))
    return Program(
        tuple(IoSpec(spec.dtype, spec.shape, name) for name, spec in named),
        tuple(IoSpec(spec.dtype, spec.shape, name) for name, spec in made),
        {"s": segment},
        (ScheduleStep("s", tuple(name for name, _ in named), tuple(name for name, _ in made)),),
    )


def session(layers: int = 2, threads: int = 2) -> Session:
    """A session of `program`."""
    return Session.from_parts(program(layers), kernels(), {}, threads=threads)


def following(tokens: list[int]) -> int:
    """The token the decoder finds most likely after these."""
    return int(np.dot(tokens, np.arange(1, len(tokens) + 1)) % VOCAB)
