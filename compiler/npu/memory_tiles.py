"""What a memory tile does with tokens of a call graph: pass them on, split them, join them."""

from __future__ import annotations

from neuc.compiler.npu.tracing import DEPTH, Token
from neuc.errors import Error


def pass_through(token: Token, name: str = "pass_through", depth: int = DEPTH) -> Token:
    """Through a memory tile's `depth` buffers."""
    made = token.tracer.link(name, "forward", (token,), [(token.dtype, token.shape)], depth)
    assert isinstance(made, Token)
    return made


def split(token: Token, parts: int, name: str = "split", depth: int = DEPTH) -> tuple[Token, ...]:
    """Equal parts of a token along its first axis, by a memory tile with `depth` buffers."""
    if parts < 2 or token.shape[0] % parts:
        raise Error(
            "NEUC-E685",
            f"a token of {list(token.shape)} has no {parts} equal parts",
            hint="change the row's length or the parts",
        )
    shape = (token.shape[0] // parts, *token.shape[1:])
    made = token.tracer.link(name, "split", (token,), [(token.dtype, shape)] * parts, depth)
    assert isinstance(made, tuple)
    return made


def join(*tokens: Token, name: str = "join", depth: int = DEPTH) -> Token:
    """Tokens one behind the other along the first axis, by a memory tile with `depth` buffers."""
    if len(tokens) < 2 or len({(t.dtype, t.shape) for t in tokens}) > 1:
        raise Error("NEUC-E685", "join takes two or more tokens of one type", hint="pass the parts of one split")
    shape = (tokens[0].shape[0] * len(tokens), *tokens[0].shape[1:])
    made = tokens[0].tracer.link(name, "join", tokens, [(tokens[0].dtype, shape)], depth)
    assert isinstance(made, Token)
    return made
