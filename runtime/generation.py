"""Generating tokens: `load_decoder`, and `Decoder`, which holds the key and value caches of one sequence.

Which program is a decoder is said by the key ``decoder`` of an artifact's manifest. Text and tokenizers are not this
file's business; what a tokenizer needs is in `Decoder.extra`.
"""

from __future__ import annotations

import operator
import os
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from neuc.errors import Error, Exit
from neuc.runtime.artifact import Artifact
from neuc.runtime.checked_json import Node
from neuc.runtime.executors.base import Array
from neuc.runtime.native.pool import aligned_bytes
from neuc.runtime.prepared import PreparedRun
from neuc.runtime.sampling import Sampler, Sampling
from neuc.runtime.session import Session, open_artifact

Floats = NDArray[np.float32]

CACHE_LANES = 16
"""Tokens of one block of a cache."""
_SCALE_BYTES = 4
"""Bytes of a scale in a cache of int8: behind all codes of a head there is one for each token."""
CONTEXT = 4096
"""Tokens a decoder holds unless the caller says otherwise, or the model takes fewer."""
CHUNK = 256
"""Tokens of a prompt that run at a time."""

_MOST = 2**31
_MOST_LAYERS = 10_000


@dataclass(frozen=True)
class DecoderFacts:
    """What a manifest says of a decoder.

    Attributes:
        layers: number of layers, each with a cache of keys and one of values.
        kv_heads: heads of the caches.
        head_dim: elements of a head.
        vocab: tokens there are.
        context: tokens the model was made for.
        kv: element type of the caches, ``f16``, ``f32`` or ``int8``.
        bos: the token a sequence begins with, if the model has one.
        eos: tokens that end a text.
    """

    layers: int
    kv_heads: int
    head_dim: int
    vocab: int
    context: int
    kv: str
    bos: int | None
    eos: frozenset[int]

    @staticmethod
    def read(manifest: Mapping[str, object]) -> DecoderFacts:
        """Check a manifest's ``decoder``.

        Raises:
            Error: NEUC-E320, there is none; NEUC-E302, it is damaged.
        """
        if "decoder" not in manifest:
            raise _no_decoder("its manifest does not describe one")
        node = Node(manifest["decoder"], "manifest.json: decoder")
        names = ("layers", "kv_heads", "head_dim", "vocab", "context")
        layers, kv_heads, head_dim, vocab, context = (node.get(name).integer(1, _MOST) for name in names)
        kv = node.get("kv").string(10)
        if kv not in _KV_TYPES:
            raise node.get("kv").refuse("expected f16, f32 or int8")
        bos = node.get("bos").integer(0, vocab - 1) if node.has("bos") else None
        eos = node.get("eos").list_of(lambda item: item.integer(0, vocab - 1), 1000)
        return DecoderFacts(layers, kv_heads, head_dim, vocab, context, kv, bos, frozenset(eos))


_KV_TYPES = {"f16": np.dtype(np.float16), "f32": np.dtype(np.float32), "int8": np.dtype(np.int8)}


def load_decoder(
    path: str | os.PathLike[str],
    *,
    threads: int | None = None,
    context: int | None = None,
    chunk: int = CHUNK,
    profile: bool = False,
) -> Decoder:
    """Open a ``.neuc`` file that holds a decoder.

    Args:
        path: the file.
        threads: threads for each run; by default the CPUs this process may use.
        context: tokens the caches have room for; by default the model's context, but at most 4096.
        chunk: tokens of a prompt that run at a time.
        profile: record the time of every launch in ``decoder.session.profile``.

    Raises:
        Error: as for `neuc.load`; NEUC-E320, the file holds no decoder.
    """
    artifact = Artifact.open(path)
    facts = DecoderFacts.read(artifact.manifest)
    session = open_artifact(artifact, threads=threads, profile=profile)
    return Decoder(session, facts, context=context, chunk=chunk, extra=artifact.extra)


class Decoder:
    """A language model and one sequence of tokens with its caches.

    Methods may be called from several threads, one runs at a time; sequences of their own need decoders of their own,
    which `new_sequence` makes without loading the weights again.

    Attributes:
        session: what runs the program.
        facts: what is known of the model.
        capacity: tokens the caches have room for.
        extra: members of the artifact that a tokenizer needs, by name.
    """

    def __init__(
        self,
        session: Session,
        facts: DecoderFacts,
        *,
        context: int | None = None,
        chunk: int = CHUNK,
        extra: Mapping[str, bytes | memoryview] | None = None,
    ) -> None:
        wanted = min(facts.context, CONTEXT) if context is None else context
        wanted, chunk = (_whole(name, value, 1) for name, value in (("context", wanted), ("chunk", chunk)))
        _check_signature(session, facts)
        _require_prepared(session)
        self.session = session
        self.facts = facts
        self.capacity = wanted
        self.extra = extra or {}
        self._chunk = chunk
        self._lock = threading.RLock()
        self._tokens: list[int] = []
        self._changes = 0
        self._position = np.zeros((), np.int64)
        self._caches = _new_caches(facts, -(-wanted // CACHE_LANES))
        self._runs: dict[int, tuple[Array, PreparedRun]] = {}
        self._run_of(1)

    def new_sequence(self, context: int | None = None) -> Decoder:
        """A decoder of the same model with an empty sequence of its own; of the same capacity if `context` is None."""
        wanted = self.capacity if context is None else context
        return Decoder(self.session, self.facts, context=wanted, chunk=self._chunk, extra=self.extra)

    @property
    def tokens(self) -> tuple[int, ...]:
        """The tokens in the caches."""
        with self._lock:
            return tuple(self._tokens)

    @property
    def position(self) -> int:
        """How many tokens the caches hold."""
        return len(self._tokens)

    def reset(self) -> None:
        """Begin a new sequence."""
        self.truncate(0)

    def truncate(self, position: int) -> None:
        """Forget the tokens from `position` on.

        Raises:
            Error: NEUC-E321, the sequence is shorter.
        """
        position = _whole("position", position, 0)
        with self._lock:
            if position > len(self._tokens):
                message = f"cannot truncate to {position}: the sequence has {len(self._tokens)} tokens"
                raise _usage("NEUC-E321", message, "give at most `decoder.position`")
            del self._tokens[position:]
            self._changes += 1

    def prefill(self, tokens: Sequence[int] | NDArray[np.integer]) -> Floats:
        """Append tokens to the sequence.

        Args:
            tokens: at least one.

        Returns:
            Logits of the token after the last of them, f32 [vocabulary], of the caller's own.

        Raises:
            Error: NEUC-E321, they do not fit into the caches, and none was appended; NEUC-E322, they are no tokens of
                this model.
        """
        checked = self._checked(tokens)
        with self._lock:
            self._require_room(len(checked))
            logits = self._append(checked[: self._chunk])
            for start in range(self._chunk, len(checked), self._chunk):
                logits = self._append(checked[start : start + self._chunk])
            return logits.copy()

    def decode(self, token: int) -> Floats:
        """Append one token; see `prefill`."""
        return self.prefill((token,))

    def generate(
        self,
        tokens: Sequence[int] | NDArray[np.integer],
        max_new_tokens: int | None = None,
        sampling: Sampling | None = None,
        stop_tokens: Collection[int] | None = None,
    ) -> Iterator[int]:
        """Append tokens to the sequence and generate what follows.

        Args:
            tokens: the prompt, or what goes on from the tokens generated before; at least one.
            max_new_tokens: how many to generate at most; by default until the caches are full.
            sampling: how they are chosen; greedily by default.
            stop_tokens: tokens that end it and are not given; by default those that end a text for this model.

        Returns:
            The new tokens, each as soon as it is known. The caches hold all but the last of them.

        Raises:
            Error: NEUC-E321, prompt and new tokens do not fit into the caches; NEUC-E322 as for `prefill`, or because
                the sequence was changed between two tokens.
        """
        checked = self._checked(tokens)
        if max_new_tokens is not None:
            max_new_tokens = _whole("max_new_tokens", max_new_tokens, 1)
        if not isinstance(sampling, Sampling | None):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise _usage("NEUC-E323", f"sampling={sampling!r} makes no sense", "give a neuc.Sampling")
        stops = self.facts.eos if stop_tokens is None else frozenset(stop_tokens)
        with self._lock:
            # The last token given is not appended.
            self._require_room(len(checked) + max(0, (max_new_tokens or 1) - 1))
            room = self.capacity - self.position - len(checked) + 1
        count = room if max_new_tokens is None else max_new_tokens
        return self._generated(checked, count, Sampler(sampling or Sampling()), stops)

    def _generated(
        self, prompt: NDArray[np.int64], count: int, sampler: Sampler, stops: Collection[int]
    ) -> Iterator[int]:
        following, expected = prompt, -1
        for _ in range(count):
            with self._lock:
                if expected not in (-1, self._changes):
                    hint = "let a generation end before something else uses the decoder, or use one of new_sequence()"
                    raise _usage("NEUC-E322", "the sequence was changed while tokens were generated", hint)
                token = sampler(self.prefill(following), self._tokens)
                expected = self._changes
            if token in stops:
                return
            yield token
            following = np.array([token], np.int64)

    def _checked(self, tokens: Sequence[int] | NDArray[np.integer]) -> NDArray[np.int64]:
        try:
            listed = [operator.index(token) for token in tokens]
        except TypeError as error:
            raise _usage("NEUC-E322", "tokens are not a sequence of integers", "give numbers of tokens") from error
        if not listed:
            raise _usage("NEUC-E322", "there are no tokens to begin with", "give at least one, such as the model's bos")
        for token in listed:
            if not 0 <= token < self.facts.vocab:
                hint = f"tokens are 0 … {self.facts.vocab - 1}"
                raise _usage("NEUC-E322", f"token {token} is not in the model's vocabulary", hint)
        return np.array(listed, np.int64)

    def _require_room(self, count: int) -> None:
        if count > self.capacity - self.position:
            raise _usage(
                "NEUC-E321",
                f"{count} more tokens do not fit: {self.position} of {self.capacity} places are taken",
                f"generate fewer, reset() or truncate() the sequence, or load with a larger context "
                f"(the model's is {self.facts.context})",
            )

    def _append(self, tokens: NDArray[np.int64]) -> Floats:
        """Run a chunk; the logits are overwritten by the next run."""
        place, run = self._run_of(len(tokens))
        place[:] = tokens
        self._position[...] = len(self._tokens)
        run()
        self._tokens.extend(tokens.tolist())
        self._changes += 1
        return cast(Floats, run.outputs["logits"]).reshape(-1)

    def _run_of(self, count: int) -> tuple[Array, PreparedRun]:
        """Where `count` tokens go and the run that appends them; kept for one token and for whole chunks."""
        known = self._runs.get(count)
        if known is not None:
            return known
        binding = self.session.io_binding()
        place = np.zeros(count, np.int64)
        logits = np.empty((1, self.facts.vocab), np.float32)
        try:
            binding.bind_cpu_input("tokens", place)
            binding.bind_cpu_input("position", self._position)
            for name, cache in self._caches.items():
                binding.bind_cpu_input(name, cache)
                binding.bind_cpu_output(name.replace("_cache.", "_cache_out."), cache)
            binding.bind_cpu_output("logits", logits)
            made = place, self.session.prepare(binding)
        except Error as error:
            if error.code in ("NEUC-E310", "NEUC-E311", "NEUC-E312", "NEUC-E313"):
                raise _no_decoder(error.message) from error
            raise
        if count in (1, self._chunk):
            self._runs[count] = made
        return made


def _check_signature(session: Session, facts: DecoderFacts) -> None:
    """Inputs and outputs have a decoder's names; sizes are checked when they are bound."""
    caches = [f"{which}_cache{{}}.{layer}" for layer in range(min(facts.layers, _MOST_LAYERS)) for which in "kv"]
    wanted = {"tokens", "position", *(name.format("") for name in caches)}
    given = {"logits", *(name.format("_out") for name in caches)}
    for what, names, found in (
        ("input", wanted, {arg.name for arg in session.get_inputs()}),
        ("output", given, {arg.name for arg in session.get_outputs()}),
    ):
        if names != found:
            raise _no_decoder(f"{what} '{min(names ^ found)[:80]}' is missing, or one too many")


def _require_prepared(session: Session) -> None:
    """All of the program is compiled code, which can be prepared for one token at a time."""
    if any(segment.kind != "native" for segment in session.program.segments.values()):
        what = f"a decoder compiled for target {session.manifest.get('target', 'unknown')} generates no tokens"
        hint = "compile the model for a CPU, such as --target cpu; this artifact runs with `neuc run`"
        raise _usage("NEUC-E320", f"{what}: a part of it runs outside of compiled code", hint)


def _new_caches(facts: DecoderFacts, blocks: int) -> dict[str, Array]:
    """Empty caches by input name: zeros, because what is not a number times a probability of 0 is not 0."""
    dtype = _KV_TYPES[facts.kv]
    shapes = {
        "k": (facts.kv_heads, blocks, facts.head_dim, CACHE_LANES),
        "v": (facts.kv_heads, blocks, CACHE_LANES, facts.head_dim),
    }
    if facts.kv == "int8":
        shapes = dict.fromkeys(shapes, (facts.kv_heads, blocks, CACHE_LANES * (facts.head_dim + _SCALE_BYTES)))
    caches: dict[str, Array] = {}
    for layer in range(facts.layers):
        for which, shape in shapes.items():
            caches[f"{which}_cache.{layer}"] = _zeros(shape, dtype)
    return caches


def _zeros(shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> Array:
    nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    try:
        return aligned_bytes(nbytes, zeroed=True).view(dtype).reshape(shape)
    except (MemoryError, ValueError) as error:
        message = f"not enough memory for caches of {nbytes:,} bytes each"
        raise Error("NEUC-E315", message, hint="load with a smaller context") from error


def _whole(name: str, value: int, least: int) -> int:
    """A number from a caller.

    Raises:
        Error: NEUC-E321, it is no integer, or out of range.
    """
    try:
        whole = operator.index(value)
    except TypeError:
        whole = -1
    if not least <= whole <= _MOST:
        raise _usage("NEUC-E321", f"{name}={value!r} makes no sense", f"give an integer, at least {least}")
    return whole


def _usage(code: str, message: str, hint: str) -> Error:
    return Error(code, message, hint=hint, exit_code=Exit.USAGE)


def _no_decoder(why: str) -> Error:
    hint = "compile one with `neuc compile MODEL.gguf`; other models run with `neuc run`"
    return _usage("NEUC-E320", f"the artifact holds no decoder: {why}", hint)
