"""What a decoder is: sizes, rotary embedding, norms and activation, from GGUF metadata or a Hugging Face config.json.

Rotary pairs. Hugging Face turns the pairs (i, i + D/2) of a head (`rotate_half`). llama.cpp turns (2i, 2i + 1) for the
architecture llama ("normal"), whose converter permutes the rows of q and k to fit, and (i, i + D/2) for bitnet,
bitnet-b1.58, bitnet-25 and qwen3 ("NeoX"), whose q and k stay as they are (`llama_model_rope_type`). Every product of a
query and a key is the same either way, so permuted weights are used as they are stored.

Activation. bitnet-b1.58 and bitnet-25 have relu(gate)² · up, bitnet and llama silu(gate) · up; a key
`<arch>.hidden_activation` goes before that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from neuc.compiler.formats.gguf import GgufFile
from neuc.compiler.formats.gguf_values import Array, shown
from neuc.compiler.formats.hf_folder import HfFolder
from neuc.compiler.formats.recognition import CONFIG
from neuc.compiler.formats.safetensors_file import CODE, CURE
from neuc.errors import Error
from neuc.runtime.checked_json import Node, parse_json

UNSUPPORTED = "NEUC-E126"
MAX_LAYERS, MAX_WIDTH, MAX_VOCABULARY, MAX_CONTEXT = 1024, 2**20, 2**24, 2**24

Activation = Literal["silu", "relu2"]


@dataclass(frozen=True)
class DecoderConfig:
    """A decoder.

    Attributes:
        arch: its architecture, as the file calls it.
        layers: how many layers.
        hidden: width of the residual stream.
        heads: query heads.
        kv_heads: key and value heads; `heads` is a multiple.
        head_dim: width of a head, even.
        ffn: width of the feed-forward layer.
        vocab: rows of the embedding.
        context: tokens the model was trained for.
        rope_theta: base of the rotary frequencies.
        rope_scale: what positions are multiplied by.
        interleaved: whether rotary pairs are (2i, 2i + 1) rather than (i, i + D/2).
        eps: of all RMS norms.
        activation: of the feed-forward layer.
        trained_int8: whether the model itself rounds activations to 8 bits in front of its ternary layers.
        bos: token a text begins with, if known.
        eos: tokens that end a text.
    """

    arch: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    context: int
    rope_theta: float
    rope_scale: float
    interleaved: bool
    eps: float
    activation: Activation
    trained_int8: bool
    bos: int | None
    eos: tuple[int, ...]


@dataclass(frozen=True)
class _Arch:
    interleaved: bool
    activation: Activation
    trained_int8: bool


_GGUF_ARCHS: Mapping[str, _Arch] = {
    "bitnet": _Arch(False, "silu", True),
    "bitnet-25": _Arch(False, "relu2", True),
    "bitnet-b1.58": _Arch(False, "relu2", True),
    "llama": _Arch(True, "silu", False),
    "qwen3": _Arch(False, "silu", False),
}
_UNHEEDED = (
    "expert_count",
    "attention.sliding_window",
    "attention.clamp_kqv",
    "attention.max_alibi_bias",
    "attn_logit_softcapping",
    "final_logit_softcapping",
)
"""GGUF metadata of models that compute more than decoders here do; zero means it is off."""
_HF_TYPES = ("bitnet", "llama", "qwen3")
_ACTIVATIONS: Mapping[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "relu2": "relu2",
    "relu_squared": "relu2",
    "relu_sqr": "relu2",
}


def config_of(origin: GgufFile | HfFolder) -> DecoderConfig:
    """The configuration of a file or folder.

    Raises:
        Error: NEUC-E126, the architecture or something it asks for is not supported, or sizes contradict each other;
            NEUC-E124, config.json is damaged.
    """
    found = _from_gguf(origin) if isinstance(origin, GgufFile) else _from_folder(origin)
    wrong = _objection(found)
    if wrong:
        raise refuse(origin, wrong, "the file is damaged, or describes another kind of model")
    return found


def refuse(origin: GgufFile | HfFolder, why: str, hint: str) -> Error:
    """NEUC-E126 for a file or folder."""
    return Error(UNSUPPORTED, f"{origin.path.name}: {why}", hint=hint)


def _objection(c: DecoderConfig) -> str:
    """What is wrong with the sizes; an empty string if nothing is."""
    for name, size, most in (
        ("layers", c.layers, MAX_LAYERS),
        ("hidden size", c.hidden, MAX_WIDTH),
        ("heads", c.heads, MAX_WIDTH),
        ("key and value heads", c.kv_heads, MAX_WIDTH),
        ("head size", c.head_dim, MAX_WIDTH),
        ("feed-forward size", c.ffn, MAX_WIDTH),
        ("vocabulary", c.vocab, MAX_VOCABULARY),
        ("context", c.context, MAX_CONTEXT),
    ):
        if not 1 <= size <= most:
            return f"{name} = {size} is not in 1 to {most}"
    if c.heads % c.kv_heads:
        return f"{c.heads} heads are no multiple of {c.kv_heads} key and value heads"
    if c.head_dim % 2:
        return f"heads of {c.head_dim} elements have no rotary pairs"
    if not (0 < c.eps < 1) or not (math.isfinite(c.rope_theta) and c.rope_theta > 1):
        return f"epsilon {c.eps:g} or rotary base {c.rope_theta:g} makes no sense"
    if not (math.isfinite(c.rope_scale) and 0 < c.rope_scale <= 1):
        return f"rotary scale {c.rope_scale:g} is not in 0 to 1"
    bad = [token for token in (*c.eos, *([] if c.bos is None else [c.bos])) if not 0 <= token < c.vocab]
    return f"token {bad[0]} is outside the vocabulary of {c.vocab}" if bad else ""


def _from_gguf(file: GgufFile) -> DecoderConfig:
    arch = file.architecture
    rules = _GGUF_ARCHS.get(arch)
    if rules is None:
        raise refuse(
            file,
            f"architecture '{shown(arch)}' is not supported",
            f"decoders of {', '.join(_GGUF_ARCHS)} with ternary weights are; export others to ONNX",
        )

    def number(key: str, default: int | None = None) -> int:
        value = file.integer(f"{arch}.{key}")
        if value is None and default is None:
            raise refuse(file, f"'{arch}.{key}' is missing", "convert the model again")
        return default if value is None and default is not None else int(value or 0)

    def real(key: str, default: float) -> float:
        field = file.fields.get(f"{arch}.{key}")
        return float(field.value) if field is not None and isinstance(field.value, np.number) else default

    asked = [key for key in _UNHEEDED if real(key, 0.0)]
    if asked:
        raise refuse(file, f"{', '.join(asked)} is asked for", "such models are not supported; export them to ONNX")
    heads = number("attention.head_count")
    hidden = number("embedding_length")
    head_dim = number("attention.key_length", hidden // heads if heads > 0 else 0)
    for key, size in (("rope.dimension_count", "rotary"), ("attention.value_length", "value")):
        if number(key, head_dim) != head_dim:
            raise refuse(file, f"{size} size {number(key)} of heads of {head_dim}", "such heads are not supported")
    scaling = file.text(f"{arch}.rope.scaling.type") or "linear"  # as llama.cpp reads it
    factor = real("rope.scaling.factor", real("rope.scale_linear", 1.0))
    if scaling not in ("none", "linear") and factor != 1.0:
        raise refuse(file, f"rotary scaling '{shown(scaling)}' is not supported", "only linear scaling is")
    named = file.text(f"{arch}.hidden_activation").lower()
    if named and named not in _ACTIVATIONS:
        raise refuse(file, f"activation '{shown(named)}' is not supported", f"{', '.join(_ACTIVATIONS)} are")
    ends = [file.integer(f"tokenizer.ggml.{key}_token_id") for key in ("eos", "eot")]
    embedding = file.tensors.get("token_embd.weight")
    tokens = file.fields.get("tokenizer.ggml.tokens")
    listed = len(tokens.value) if tokens is not None and isinstance(tokens.value, Array) else 0
    return DecoderConfig(
        arch=arch,
        layers=number("block_count"),
        hidden=hidden,
        heads=heads,
        kv_heads=number("attention.head_count_kv", heads),
        head_dim=head_dim,
        ffn=number("feed_forward_length"),
        vocab=embedding.shape[0] if embedding is not None and embedding.shape else number("vocab_size", listed),
        context=number("context_length"),
        rope_theta=real("rope.freq_base", 10000.0),
        rope_scale=1 / factor if scaling == "linear" and factor else 1.0,
        interleaved=rules.interleaved,
        eps=real("attention.layer_norm_rms_epsilon", 0.0),
        activation=_ACTIVATIONS.get(named, rules.activation),
        trained_int8=rules.trained_int8,
        bos=file.integer("tokenizer.ggml.bos_token_id"),
        eos=tuple(dict.fromkeys(token for token in ends if token is not None)),
    )


def _from_folder(folder: HfFolder) -> DecoderConfig:
    root = parse_json(folder.config, f"{folder.path.name}/{CONFIG}", code=CODE, cure=CURE)
    if folder.model_type not in _HF_TYPES:
        raise refuse(
            folder,
            f"model type '{shown(folder.model_type)}' is not supported",
            f"decoders of type {', '.join(_HF_TYPES)} with packed ternary weights are; export others to ONNX",
        )

    def number(key: str, default: int | None = None) -> int:
        return default if default is not None and not _has(root, key) else root.get(key).integer()

    def real(key: str, default: float) -> float:
        return root.get(key).number() if _has(root, key) else default

    rope = root.get("rope_parameters") if _has(root, "rope_parameters") else None
    kind = rope.get("rope_type").string(40) if rope is not None and rope.has("rope_type") else "default"
    if _has(root, "rope_scaling") or kind != "default":
        raise refuse(folder, "rotary scaling is not supported", "take a model without it")
    section = root.get("quantization_config") if _has(root, "quantization_config") else None
    if section is not None and section.has("use_rms_norm") and section.get("use_rms_norm").value is not False:
        raise refuse(folder, "norms inside linear layers (use_rms_norm) are not supported", "take the GGUF release")
    named = root.get("hidden_act").string(40)
    if named not in _ACTIVATIONS:
        raise refuse(folder, f"activation '{shown(named)}' is not supported", f"{', '.join(_ACTIVATIONS)} are")
    heads, hidden = number("num_attention_heads"), number("hidden_size")
    return DecoderConfig(
        arch=folder.model_type,
        layers=number("num_hidden_layers"),
        hidden=hidden,
        heads=heads,
        kv_heads=number("num_key_value_heads", heads),
        head_dim=number("head_dim", hidden // heads if heads > 0 else 0),
        ffn=number("intermediate_size"),
        vocab=number("vocab_size"),
        context=number("max_position_embeddings"),
        rope_theta=rope.get("rope_theta").number() if rope is not None else real("rope_theta", 10000.0),
        rope_scale=1.0,
        interleaved=False,
        eps=real("rms_norm_eps", 0.0),
        activation=_ACTIVATIONS[named],
        trained_int8=True,
        bos=next(iter(_tokens(root, "bos_token_id")), None),
        eos=_tokens(root, "eos_token_id"),
    )


def _has(node: Node, key: str) -> bool:
    return node.has(key) and node.get(key).value is not None


def _tokens(root: Node, key: str) -> tuple[int, ...]:
    """The token or tokens of a key, none if it is missing."""
    if not _has(root, key):
        return ()
    node = root.get(key)
    return node.list_of(lambda item: item.integer(), 100) if isinstance(node.value, list) else (node.integer(),)
