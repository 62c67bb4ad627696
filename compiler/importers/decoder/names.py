"""What the tensors of a decoder are called in GGUF files and in Hugging Face folders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

LINEARS = ("q", "k", "v", "o", "gate", "up", "down")
"""Ternary matrices of a layer."""


@dataclass(frozen=True)
class Names:
    """Names of tensors by role; `{}` in those of a layer stands for its number.

    Attributes:
        layer: of a layer, by role: `LINEARS`, and the norms in front of them.
        embedding: rows by token.
        norm: gamma of the last norm.
        head: the head, if it is not the embedding.
        rope_factors: what frequencies are divided by, if anything.
        scale: what is appended to a matrix's name for a factor of it, if it has one, in place of ``.weight``.
    """

    layer: Mapping[str, str]
    embedding: str
    norm: str
    head: str
    rope_factors: str
    scale: str


GGUF = Names(
    {
        role: f"blk.{{}}.{name}.weight"
        for role, name in {
            "attn_norm": "attn_norm",
            "q": "attn_q",
            "k": "attn_k",
            "v": "attn_v",
            "q_norm": "attn_q_norm",
            "k_norm": "attn_k_norm",
            "attn_sub_norm": "attn_sub_norm",
            "o": "attn_output",
            "ffn_norm": "ffn_norm",
            "gate": "ffn_gate",
            "up": "ffn_up",
            "ffn_sub_norm": "ffn_sub_norm",
            "down": "ffn_down",
        }.items()
    },
    "token_embd.weight",
    "output_norm.weight",
    "output.weight",
    "rope_freqs.weight",
    ".scale",
)
HF = Names(
    {
        role: f"model.layers.{{}}.{name}.weight"
        for role, name in {
            "attn_norm": "input_layernorm",
            "q": "self_attn.q_proj",
            "k": "self_attn.k_proj",
            "v": "self_attn.v_proj",
            "q_norm": "self_attn.q_norm",
            "k_norm": "self_attn.k_norm",
            "attn_sub_norm": "self_attn.attn_sub_norm",
            "o": "self_attn.o_proj",
            "ffn_norm": "post_attention_layernorm",
            "gate": "mlp.gate_proj",
            "up": "mlp.up_proj",
            "ffn_sub_norm": "mlp.ffn_sub_norm",
            "down": "mlp.down_proj",
        }.items()
    },
    "model.embed_tokens.weight",
    "model.norm.weight",
    "lm_head.weight",
    "",
    "",
)
