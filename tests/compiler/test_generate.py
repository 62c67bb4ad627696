"""`neuc generate` on a decoder written by hand."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

import decoder_programs as made_up
import runtime_programs
from neuc.compiler.cli import main
from neuc.errors import Exit
from neuc.runtime.artifact import write_artifact

LETTERS = "".join(chr(33 + token) for token in range(made_up.VOCAB - 3))


def run(*arguments: str | Path | float) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = main([str(argument) for argument in arguments])
    return status, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return artifact(tmp_path_factory.mktemp("decoder") / "m.neuc", {"extra/tokenizer.json": tokenizer()})


def artifact(path: Path, extra: Mapping[str, bytes]) -> Path:
    manifest = {"decoder": made_up.manifest()}
    parts = made_up.program(), made_up.kernels()
    write_artifact(path, program=parts[0], kernels=parts[1], weights={}, manifest=manifest, debug_map={}, extra=extra)
    return path


def tokenizer() -> bytes:
    """One letter a token."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    made = Tokenizer(models.WordLevel({letter: token for token, letter in enumerate(LETTERS)}, unk_token=LETTERS[0]))
    made.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    made.decoder = decoders.Fuse()
    return made.to_str().encode()


def expected(prompt: list[int], count: int) -> list[int]:
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(made_up.following(tokens))
    return tokens[len(prompt) :]


def test_tokens(model: Path) -> None:
    status, out, err = run("generate", model, "--prompt-tokens", "3, 1,4", "-n", 12, "--ignore-eos", "--threads", 2)
    assert status == Exit.OK
    assert out == ",".join(map(str, expected([3, 1, 4], 12))) + "\n"
    assert "prompt 3 tokens" in err
    assert "generated 11 tokens" in err


def test_text(model: Path) -> None:
    prompt = [40, 41, 42]
    text = "".join(LETTERS[token] for token in prompt)
    wanted = expected(prompt, 6)
    assert max(wanted) < len(LETTERS)
    status, out, err = run("generate", model, "-p", text, "-n", 6, "--ignore-eos")
    assert (status, out) == (Exit.OK, "".join(LETTERS[token] for token in wanted) + "\n"), err
    assert run("-q", "generate", model, "-p", text, "-n", 6, "--ignore-eos")[1:] == (out, "")


def test_text_from_stdin(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("IJK"))
    assert run("generate", model, "-p", "-", "-n", 4)[1] == run("generate", model, "-p", "IJK", "-n", 4)[1]


@pytest.mark.parametrize("stdin", [None, io.TextIOWrapper(io.BytesIO(b"\xff\xfe"), "utf-8"), io.StringIO("\udcff")])
def test_a_prompt_that_is_no_text(model: Path, monkeypatch: pytest.MonkeyPatch, stdin: io.TextIOBase | None) -> None:
    monkeypatch.setattr("sys.stdin", stdin)
    status, out, err = run("generate", model, "-p", "-", "-n", 4)
    assert (status, out) == (Exit.USAGE, "")
    assert ("NEUC-E322" if stdin is None else "is not UTF-8 text") in err
    assert "is not UTF-8 text" in run("generate", model, "-p", "\udcff", "-n", 4)[2]


def test_json(model: Path) -> None:
    options = ["--temperature", 1.5, "--top-k", 5, "--top-p", 0.9, "--seed", 3, "--repetition-penalty", 1.1]
    status, out, _ = run("generate", model, "-p", "IJK", "-n", 9, "--ignore-eos", "--json", *map(str, options))
    found = json.loads(out)
    assert status == Exit.OK
    assert (found["prompt_tokens"], len(found["tokens"]), found["ended"]) == ([40, 41, 42], 9, False)
    assert found["prefill"]["tokens"] == 3
    assert found["decode"]["tokens"] == 8
    assert found["decode"]["tokens_per_second"] > 0
    again = run("generate", model, "-p", "IJK", "-n", 9, "--ignore-eos", "--json", *map(str, options))[1]
    assert json.loads(again)["tokens"] == found["tokens"]


def test_the_end_of_a_text(model: Path) -> None:
    first = next(p for p in range(made_up.VOCAB) if made_up.following([p, 1]) == made_up.EOS)
    status, out, _ = run("generate", model, "--prompt-tokens", f"{first},1", "--json")
    assert status == Exit.OK
    assert (json.loads(out)["tokens"], json.loads(out)["ended"]) == ([], True)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ([], "NEUC-E002"),
        (["-p", "a", "--prompt-tokens", "1"], "NEUC-E002"),
        (["--prompt-tokens", "1,x"], "NEUC-E002"),
        (["--prompt-tokens", "1", "-n", "0"], "NEUC-E002"),
        (["--prompt-tokens", "1", "--temperature", "-1"], "NEUC-E323"),
        (["--prompt-tokens", "97"], "NEUC-E322"),
        (["--prompt-tokens", ","], "NEUC-E002"),
        (["--prompt-tokens", "1,,2"], "NEUC-E002"),
        (["--prompt-tokens", ""], "NEUC-E002"),
        (["-p", ""], "NEUC-E322"),
        (["--prompt-tokens", "1", "-n", "101"], "NEUC-E321"),
        (["--prompt-tokens", "1", "-n", "9", "-c", "5"], "NEUC-E321"),
        (["--prompt-tokens", "1", "-c", "0"], "NEUC-E321"),
    ],
)
def test_what_makes_no_sense(model: Path, options: list[str], code: str) -> None:
    status, out, err = run("generate", model, *options)
    assert (status, out) == (Exit.USAGE, "")
    assert err.startswith(f"error[{code}]")
    assert len(err.splitlines()) <= 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--prompt-tokens", ""], "--prompt-tokens '': no tokens"),
        (["--prompt-tokens", "a,b"], "--prompt-tokens 'a,b': no list of whole numbers"),
        (["--prompt-tokens", "1,2,3", "-c", "4", "-n", "5"], "3 prompt tokens and 5 to make do not fit"),
        (["--prompt-tokens", "1,2,3", "-c", "4", "-n", "5"], "there is room for 4 (-c 4)\nhint: give fewer, or -c 7 "),
        (["--prompt-tokens", "1", "--top-k", "5"], "--top-k does nothing without --temperature"),
        (["--prompt-tokens", "1", "--seed", "5", "--temperature", "0"], "--seed does nothing without --temperature"),
    ],
)
def test_in_words_of_the_command(model: Path, options: list[str], words: str) -> None:
    status, _, err = run("generate", model, *options)
    assert status == Exit.USAGE
    assert words in err


def test_run_refuses_what_is_no_place_or_token(model: Path) -> None:
    for inputs, code in (
        (["tokens=1xi64=97"], "NEUC-E322"),
        (["tokens=1xi64=-1"], "NEUC-E322"),
        (["position=i64=-1"], "NEUC-E321"),
        (["tokens=2xi64=1", "position=i64=9999999"], "NEUC-E321"),
    ):
        status, out, err = run("run", model, *(part for text in inputs for part in ("--input", text)))
        assert (status, out) == (Exit.USAGE, ""), (inputs, err)
        assert err.startswith(f"error[{code}]"), inputs
    assert run("run", model)[0] == Exit.OK


def test_more_threads_than_cpus_are_noted(model: Path) -> None:
    assert "999 threads will share" in run("generate", model, "--prompt-tokens", "1", "-n", 1, "--threads", 999)[2]
    assert run("-q", "generate", model, "--prompt-tokens", "1", "-n", 1, "--threads", 999)[2] == ""


def test_other_artifacts(tmp_path: Path) -> None:
    plain = artifact(tmp_path / "plain.neuc", {})
    assert "NEUC-E325" in run("generate", plain, "-p", "a")[2]
    assert run("generate", plain, "--prompt-tokens", "1", "-n", 3)[0] == Exit.OK
    nameless = artifact(tmp_path / "nameless.neuc", {"extra/tokenizer.gguf.json": b'{"tokenizer.ggml.tokens": []}'})
    assert "came without a tokenizer" in run("generate", nameless, "-p", "a")[2]
    other = tmp_path / "other.neuc"
    parts = runtime_programs.chain(), runtime_programs.kernels(), runtime_programs.chain_weights()
    write_artifact(other, program=parts[0], kernels=parts[1], weights=parts[2], manifest={}, debug_map={})
    status, _, err = run("generate", other, "--prompt-tokens", "1")
    assert status == Exit.USAGE
    assert "NEUC-E320" in err
