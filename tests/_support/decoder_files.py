"""Small decoders as arrays, as GGUF files and Hugging Face folders, and what they compute, in plain numpy.

The reference knows nothing of neuc: BitNet's equations, a token after another, in float64 but for what models round.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from weight_files import ARRAY, F32, STRING, U32, Gguf, T, entry

LINEARS = ("q", "k", "v", "o", "gate", "up", "down")
GGUF_NAMES = {
    "q": "attn_q",
    "k": "attn_k",
    "v": "attn_v",
    "o": "attn_output",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "down": "ffn_down",
    "attn_norm": "attn_norm",
    "ffn_norm": "ffn_norm",
    "attn_sub_norm": "attn_sub_norm",
    "ffn_sub_norm": "ffn_sub_norm",
}
HF_NAMES = {
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "o": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_sub_norm": "self_attn.attn_sub_norm",
    "ffn_sub_norm": "mlp.ffn_sub_norm",
}
IQ2_BN = 135


@dataclass(frozen=True)
class Decoder:
    """A decoder's sizes and arrays: levels and scale of linear layers, gammas, the embedding in int8 groups of 32."""

    arch: str = "bitnet-b1.58"
    layers: int = 2
    hidden: int = 64
    heads: int = 4
    kv_heads: int = 2
    ffn: int = 128
    vocab: int = 48
    theta: float = 10000.0
    eps: float = 1e-5
    sub_norms: bool = True
    linears: Mapping[str, tuple[np.ndarray, np.float32]] = field(default_factory=dict)
    gammas: Mapping[str, np.ndarray] = field(default_factory=dict)
    codes: np.ndarray = field(default_factory=lambda: np.zeros(0))
    code_scales: np.ndarray = field(default_factory=lambda: np.zeros(0))

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads

    @property
    def embedding(self) -> np.ndarray:
        """f32 [V, H]: exactly what int8 in groups of 32 holds."""
        return (self.codes * np.repeat(self.code_scales, 32, axis=1)).astype(np.float32)


def random_decoder(seed: int = 0, **changes: object) -> Decoder:
    """A decoder with random arrays."""
    d = replace(Decoder(), **changes)  # type: ignore[arg-type]
    rng = np.random.default_rng(seed)
    kv = d.kv_heads * d.head_dim
    shapes = {"q": (d.hidden, d.hidden), "k": (kv, d.hidden), "v": (kv, d.hidden), "o": (d.hidden, d.hidden)}
    shapes |= {"gate": (d.ffn, d.hidden), "up": (d.ffn, d.hidden), "down": (d.hidden, d.ffn)}
    linears = {
        f"{n}.{role}": (rng.integers(-1, 2, shape).astype(np.int8), np.float32(rng.uniform(0.08, 0.2)))
        for n in range(d.layers)
        for role, shape in shapes.items()
    }
    norms = {"attn_norm": d.hidden, "ffn_norm": d.hidden}
    norms |= {"attn_sub_norm": d.hidden, "ffn_sub_norm": d.ffn} if d.sub_norms else {}
    gammas = {
        f"{n}.{role}": rng.uniform(0.5, 1.5, size).astype(np.float32)
        for n in range(d.layers)
        for role, size in norms.items()
    }
    gammas["norm"] = rng.uniform(0.5, 1.5, d.hidden).astype(np.float32)
    codes = rng.integers(-127, 128, (d.vocab, d.hidden)).astype(np.int8)
    codes[:, ::32] = 127  # so that rounding to int8 again finds the same scales
    scales = rng.uniform(0.005, 0.02, (d.vocab, d.hidden // 32)).astype(np.float16).astype(np.float32)
    return replace(d, linears=linears, gammas=gammas, codes=codes, code_scales=scales)


# ---- what it computes


def reference(d: Decoder, tokens: list[int], *, kv: type = np.float16) -> np.ndarray:
    """Logits f64 [V] after `tokens`; `kv` is what cached keys and values are rounded to."""
    keys: list[list[np.ndarray]] = [[] for _ in range(d.layers)]
    values: list[list[np.ndarray]] = [[] for _ in range(d.layers)]
    logits = np.zeros(d.vocab)
    for position, token in enumerate(tokens):
        x = d.embedding[token].astype(np.float64)
        for n in range(d.layers):
            h = _norm(x, d.gammas[f"{n}.attn_norm"], d.eps)
            q = _turned(_linear(d, n, "q", h).reshape(d.heads, -1), position, d.theta)
            keys[n].append(_held(_turned(_linear(d, n, "k", h).reshape(d.kv_heads, -1), position, d.theta), kv))
            values[n].append(_held(_linear(d, n, "v", h).reshape(d.kv_heads, -1), kv))
            mixed = [
                _attend(q[head], [k[head * d.kv_heads // d.heads] for k in keys[n]],
                        [v[head * d.kv_heads // d.heads] for v in values[n]])
                for head in range(d.heads)
            ]  # fmt: skip
            x = x + _linear(d, n, "o", _sub(d, n, "attn_sub_norm", np.concatenate(mixed)))
            h = _norm(x, d.gammas[f"{n}.ffn_norm"], d.eps)
            gate, up = _linear(d, n, "gate", h), _linear(d, n, "up", h)
            act = np.maximum(gate, 0) ** 2 if d.arch == "bitnet-b1.58" else gate / (1 + np.exp(-gate))
            x = x + _linear(d, n, "down", _sub(d, n, "ffn_sub_norm", act * up))
        q8, s = _codes(_norm(x, d.gammas["norm"], d.eps))
        logits = d.embedding.astype(np.float64) @ (q8 * s)
    return logits


def _held(x: np.ndarray, kv: type) -> np.ndarray:
    """Heads [KV, D] as a cache holds them; int8 with a scale for each."""
    if kv != np.int8:
        return x.astype(kv)
    return np.stack([codes * scale for codes, scale in map(_codes, x)])


def _norm(x: np.ndarray, gamma: np.ndarray, eps: float) -> np.ndarray:
    return x / np.sqrt(np.mean(x * x) + eps) * gamma


def _sub(d: Decoder, n: int, role: str, x: np.ndarray) -> np.ndarray:
    return _norm(x, d.gammas[f"{n}.{role}"], d.eps) if d.sub_norms else x


def _codes(x: np.ndarray) -> tuple[np.ndarray, float]:
    largest = max(float(np.max(np.abs(x))), 1e-5)
    return np.clip(np.rint(x * (127 / largest)), -127, 127), largest / 127


def _linear(d: Decoder, n: int, role: str, x: np.ndarray) -> np.ndarray:
    levels, scale = d.linears[f"{n}.{role}"]
    q, s = _codes(x)
    return (levels.astype(np.float64) @ q) * float(scale) * s


def _turned(x: np.ndarray, position: int, theta: float) -> np.ndarray:
    """Pairs (i, i + D/2) of each head turned by position · theta^(-2 i / D)."""
    half = x.shape[1] // 2
    angle = position * theta ** (-np.arange(half) / half)
    a, b = x[:, :half], x[:, half:]
    return np.concatenate([a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)], axis=1)


def _attend(q: np.ndarray, keys: list[np.ndarray], values: list[np.ndarray]) -> np.ndarray:
    scores = np.array([float(q @ key.astype(np.float64)) for key in keys]) / np.sqrt(len(q))
    weights = np.exp(scores - scores.max())
    return (weights / weights.sum()) @ np.array(values, np.float64)


# ---- as files


def iq2_bn(levels: np.ndarray, scale: np.float32) -> bytes:
    """Rows of f32 scale, then 16 bytes for 64 weights: byte j holds weights j, 16 + j, 32 + j, 48 + j, lowest first."""
    codes = (levels + 1).astype(np.uint8).reshape(len(levels), -1, 4, 16)
    packed = codes[:, :, 0] | codes[:, :, 1] << 2 | codes[:, :, 2] << 4 | codes[:, :, 3] << 6
    head = np.broadcast_to(np.frombuffer(np.float32(scale).tobytes(), np.uint8), (len(levels), 4))
    return np.concatenate([head, packed.reshape(len(levels), -1)], axis=1).astype(np.uint8).tobytes()


def permuted(d: Decoder, role: str, levels: np.ndarray) -> np.ndarray:
    """Rows as llama.cpp's converter orders them for the architecture llama: halves of a head interleaved."""
    if d.arch != "llama" or role not in ("q", "k"):
        return levels
    heads = d.heads if role == "q" else d.kv_heads
    return levels.reshape(heads, 2, -1, levels.shape[1]).swapaxes(1, 2).reshape(levels.shape)


def metadata(d: Decoder, **changes: object) -> dict[str, tuple[int, object]]:
    """Metadata of its GGUF file: type and value by key. Changes name the end of a key; None leaves it out."""
    a = d.arch
    fields: dict[str, tuple[int, object]] = {
        "general.architecture": (STRING, a),
        f"{a}.block_count": (U32, d.layers),
        f"{a}.embedding_length": (U32, d.hidden),
        f"{a}.feed_forward_length": (U32, d.ffn),
        f"{a}.attention.head_count": (U32, d.heads),
        f"{a}.attention.head_count_kv": (U32, d.kv_heads),
        f"{a}.context_length": (U32, 64),
        f"{a}.rope.freq_base": (F32, d.theta),
        f"{a}.attention.layer_norm_rms_epsilon": (F32, d.eps),
        "tokenizer.ggml.bos_token_id": (U32, 1),
        "tokenizer.ggml.eos_token_id": (U32, 2),
        "tokenizer.ggml.tokens": (ARRAY, (STRING, [f"t{i}" for i in range(d.vocab)])),
    }
    for name, value in changes.items():
        key = next(key for key in fields if key.replace(".", "_").endswith(name))
        if value is None:
            del fields[key]
        else:
            fields[key] = (fields[key][0], value)
    return fields


def tensors(d: Decoder) -> dict[str, T]:
    """The tensors of its GGUF file by name: iq2_bn, and f32."""
    found = {"token_embd.weight": T("token_embd.weight", d.embedding.shape, 0, d.embedding.tobytes())}
    for key, (levels, scale) in d.linears.items():
        n, role = key.split(".")
        name = f"blk.{n}.{GGUF_NAMES[role]}.weight"
        found[name] = T(name, levels.shape, IQ2_BN, iq2_bn(permuted(d, role, levels), scale))
    for key, gamma in d.gammas.items():
        n, _, role = key.partition(".")
        name = f"blk.{n}.{GGUF_NAMES[role]}.weight" if role else "output_norm.weight"
        found[name] = T(name, gamma.shape, 0, gamma.tobytes())
    return found


def write_gguf_decoder(
    path: Path,
    d: Decoder,
    *,
    fields: Mapping[str, tuple[int, object]] | None = None,
    with_tensors: Mapping[str, T] | None = None,
) -> Path:
    """Its GGUF file, or one with other metadata or tensors."""
    entries = [entry(key, kind, value) for key, (kind, value) in (fields or metadata(d)).items()]
    chosen = tensors(d) if with_tensors is None else with_tensors
    path.write_bytes(Gguf(entries, list(chosen.values())).build())
    return path


def write_folder_decoder(folder: Path, d: Decoder, **changes: object) -> Path:
    """Its Hugging Face folder, with weights packed as `autobitlinear` has them."""
    arrays = {"model.embed_tokens.weight": d.embedding}
    for key, (levels, scale) in d.linears.items():
        n, role = key.split(".")
        quarters = (levels + 1).astype(np.uint8).reshape(4, -1, levels.shape[1])
        packed = quarters[0] | quarters[1] << 2 | quarters[2] << 4 | quarters[3] << 6
        arrays[f"model.layers.{n}.{HF_NAMES[role]}.weight"] = packed
        arrays[f"model.layers.{n}.{HF_NAMES[role]}.weight_scale"] = np.array([scale], np.float32)
    for key, gamma in d.gammas.items():
        n, _, role = key.partition(".")
        arrays[f"model.layers.{n}.{HF_NAMES[role]}.weight" if role else "model.norm.weight"] = gamma
    config = {
        "model_type": "bitnet" if d.sub_norms else "llama",
        "hidden_act": "relu2" if d.arch == "bitnet-b1.58" else "silu",
        "num_hidden_layers": d.layers,
        "hidden_size": d.hidden,
        "num_attention_heads": d.heads,
        "num_key_value_heads": d.kv_heads,
        "intermediate_size": d.ffn,
        "vocab_size": d.vocab,
        "max_position_embeddings": 64,
        "rope_theta": d.theta,
        "rms_norm_eps": d.eps,
        "bos_token_id": 1,
        "eos_token_id": [2, 3],
        "quantization_config": {
            "quant_method": "bitnet",
            "linear_class": "autobitlinear",
            "quantization_mode": "offline",
        },
    } | changes
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, folder / "model.safetensors")
    return folder


def caches(d: Decoder, blocks: int, kv: type = np.float16) -> dict[str, np.ndarray]:
    """Empty caches for 16 · `blocks` tokens, as a program takes them."""
    found: dict[str, np.ndarray] = {}
    for n in range(d.layers):
        coded = (d.kv_heads, blocks, 16 * (d.head_dim + 4)) if kv == np.int8 else None
        found[f"k_cache.{n}"] = np.zeros(coded or (d.kv_heads, blocks, d.head_dim, 16), kv)
        found[f"v_cache.{n}"] = np.zeros(coded or (d.kv_heads, blocks, 16, d.head_dim), kv)
    return found
