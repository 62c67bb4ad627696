"""`neuc generate`: tokens, or text as it comes, from a language model."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from neuc.compiler.cli import arguments, console, idle_options
from neuc.errors import Error, Exit

if TYPE_CHECKING:
    from neuc.compiler.tokenizer import TextTokenizer
    from neuc.runtime.generation import Decoder

_NEW_TOKENS = 128
_RANDOM = {"top_k": "--top-k", "top_p": "--top-p", "seed": "--seed"}
"""Options of the random choice."""


@dataclass
class _Speed:
    """How many tokens took how long."""

    tokens: int = 0
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Tokens per second."""
        return self.tokens / self.seconds if self.seconds else 0.0

    def to_json(self) -> dict[str, object]:
        return {"tokens": self.tokens, "seconds": self.seconds, "tokens_per_second": self.rate}


@click.command("generate")
@arguments.model_argument
@click.option("-p", "--prompt", metavar="TEXT", help="Text to go on from; - reads it from stdin.")
@click.option("--prompt-tokens", metavar="1,2,3", help="Tokens to go on from, instead of text.")
@click.option("-n", "--max-new-tokens", type=int, help=f"Tokens to make; {_NEW_TOKENS} by default, if they fit.")
@click.option("--temperature", default=0.0, show_default=True, help="0 takes the most likely token each time.")
@click.option("--top-k", default=0, show_default=True, help="Only so many likely tokens; 0 for all.")
@click.option("--top-p", default=1.0, show_default=True, help="Only tokens that make up this probability.")
@click.option("--repetition-penalty", default=1.0, show_default=True, help="Against tokens that were there before.")
@click.option("--seed", type=int, help="Of the random choice; another one each time by default.")
@click.option("--ignore-eos", is_flag=True, help="Go on where the model ends the text.")
@click.option("-c", "--context", type=int, help="Tokens there is room for; as many as are needed by default.")
@arguments.target_option
@arguments.threads_option
@arguments.json_option
def generate_command(
    model: Path,
    prompt: str | None,
    prompt_tokens: str | None,
    max_new_tokens: int | None,
    temperature: float,
    top_k: int,
    top_p: float,
    repetition_penalty: float,
    seed: int | None,
    ignore_eos: bool,
    context: int | None,
    target: str | None,
    threads: int | None,
    as_json: bool,
) -> int:
    """Generate what follows a prompt with MODEL (a .neuc artifact of a decoder, or a model compiled on the way).

    Text is written as it comes; with --prompt-tokens it is the numbers of tokens. How fast it was is said on stderr.
    """
    from neuc.runtime.generation import load_decoder
    from neuc.runtime.sampling import Sampling

    if (prompt is None) == (prompt_tokens is None):
        raise arguments.usage_error("a prompt is needed, and only one", "give --prompt TEXT or --prompt-tokens 1,2,3")
    if max_new_tokens is not None and max_new_tokens < 1:
        raise arguments.usage_error(f"--max-new-tokens {max_new_tokens} makes no sense", "give at least 1")
    if not temperature:
        idle_options.refuse(_RANDOM, "without --temperature", "give --temperature 0.8, say")
    sampling = Sampling(repetition_penalty, temperature, top_k, top_p, seed)
    given = None if prompt_tokens is None else _numbers(prompt_tokens)
    text = None if prompt is None else _text(prompt)
    artifact = arguments.artifact_of(model, target)
    try:
        decoder = load_decoder(artifact, threads=threads, context=context)
    except Error as error:
        if error.code == "NEUC-E320":
            error.message = f"{model} {error.message.removeprefix('the artifact ')}"
        raise
    tokenizer = None
    if given is None:
        from neuc.compiler.tokenizer import tokenizer_of

        tokenizer = tokenizer_of(decoder.extra)
        given = tokenizer.encode(text or "")
    needed = len(given) + (max_new_tokens or _NEW_TOKENS)
    if context is None and decoder.capacity < needed:
        decoder = decoder.new_sequence(min(needed, decoder.facts.context))
    _require_room(decoder, len(given), max_new_tokens or 1, context)
    if max_new_tokens is None:
        max_new_tokens = max(1, min(_NEW_TOKENS, decoder.capacity - len(given)))
    stops = () if ignore_eos else None
    prefill, decode = _Speed(), _Speed()
    new: list[int] = []
    start = time.perf_counter()
    written = _Writer(tokenizer, given, silent=as_json)
    try:
        for token in decoder.generate(given, max_new_tokens, sampling, stops):
            now = time.perf_counter()
            speed = decode if new else prefill
            speed.tokens += 1 if new else len(given)
            speed.seconds += now - start
            new.append(token)
            written.add(token)
            start = time.perf_counter()
    finally:
        written.end()
    if as_json:
        console.product_json(
            {
                "model": str(model),
                "threads": decoder.session.threads,
                "context": decoder.capacity,
                "prompt_tokens": given,
                "tokens": new,
                "text": None if tokenizer is None else written.text,
                "ended": len(new) < max_new_tokens,
                "prefill": prefill.to_json(),
                "decode": decode.to_json(),
            }
        )
    _note_speed(decoder, prefill, decode)
    return Exit.OK


def _require_room(decoder: Decoder, prompt: int, new: int, context: int | None) -> None:
    """Prompt and new tokens fit: the last one is not kept.

    Raises:
        Error: NEUC-E321.
    """
    if prompt + new - 1 <= decoder.capacity:
        return
    told = "" if context is None else f" (-c {context})"
    what = f"{arguments.counted(prompt, 'prompt token')} and {new} to make do not fit"
    cure = f"give fewer, or -c {prompt + new - 1} (the model's context is {decoder.facts.context})"
    message = f"{what}: there is room for {decoder.capacity}{told}"
    raise Error("NEUC-E321", message, hint=cure, exit_code=Exit.USAGE)


class _Writer:
    """Writes tokens, or their text, to stdout as they come."""

    def __init__(self, tokenizer: TextTokenizer | None, prompt: list[int], *, silent: bool) -> None:
        self._stream = None if tokenizer is None else tokenizer.stream(prompt)
        self._silent = silent
        self._any = False
        self.text = ""

    def add(self, token: int) -> None:
        if self._stream is not None:
            piece = self._stream.add(token)
        else:
            piece = f",{token}" if self._any else str(token)
        self._any = True
        self.text += piece
        if piece and not self._silent:
            console.product_piece(piece)

    def end(self) -> None:
        if self._any and not self._silent:
            console.product_piece("\n")


def _text(prompt: str) -> str:
    """The prompt, from stdin if it is -."""
    try:
        text = (sys.stdin.read() if sys.stdin is not None else "") if prompt == "-" else prompt
        text.encode()
    except UnicodeError as error:
        raise arguments.usage_error("the prompt is not UTF-8 text", "convert it, or give --prompt-tokens") from error
    return text


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        wrong = "no tokens" if not text.strip() else "no list of whole numbers"
        raise arguments.usage_error(f"--prompt-tokens {text[:80]!r}: {wrong}", "give numbers: 1,2,3") from error


def _note_speed(decoder: Decoder, prefill: _Speed, decode: _Speed) -> None:
    said = [
        f"{what} {speed.tokens} tokens at {speed.rate:.1f}/s"
        for what, speed in (("prompt", prefill), ("generated", decode))
        if speed.tokens
    ]
    console.note(", ".join([*said, arguments.counted(decoder.session.threads, "thread")]))
