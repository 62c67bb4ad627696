"""Options of passes: listed as they are typed, and refused in words."""

from __future__ import annotations

import json
import re

import pytest
from xdsl.utils.arg_spec import parse_pipeline

from neuc.compiler import universe
from neuc.compiler.pass_options import options_of, with_options
from neuc.errors import Error, Exit
from refusals import neuc


@pytest.mark.parametrize("name", sorted(universe.PASSES))
def test_listed_defaults_can_be_typed(name: str):
    """What `describe` shows, given to the pass as text, is what the pass has without it."""
    cls = universe.PASSES[name]()
    for option in options_of(cls):
        assert not option.required
        shown = option.describe().rpartition("default ")[2]
        if shown == "none":
            continue
        (spec,) = parse_pipeline(f"{name}{{{option.name}={shown}}}")
        assert getattr(with_options(cls, spec), option.name) == option.default


def test_listings_show_no_python():
    text = neuc("passes").out
    assert "    rows: integer, default 256\n" in text
    assert "    encodings: texts separated by commas, default i2\n" in text
    assert "    fastest: true or false, default false\n" in text
    for word in ("0x", "<", "'", "tuple", "FitCache", "Supports", "function"):
        assert word not in re.sub(r"^\S.*$", "", text, flags=re.MULTILINE), word
    passes = {item["name"]: item["options"] for item in json.loads(neuc("passes", "--json").out)}
    assert passes["lower-onnx-to-dense"] == []  # what it has besides can only be given by code
    rows = {"name": "rows", "type": "integer", "required": False, "default": 256}
    assert rows in passes["map-to-crossbar"]


@pytest.mark.parametrize(
    ("options", "said", "hint"),
    [
        ("rows=abc", "rows is abc, expected: integer", "rows: integer, default 256"),
        ("rows=1,2", "rows is 1,2, expected: integer", "default 256"),
        ("rows=1.5", "rows is 1.5, expected: integer", "default 256"),
        ("rows", "rows has no value, expected: integer", "default 256"),
        ("row=3", "map-to-crossbar has no option row", "did you mean rows?"),
        ("zzz=3", "map-to-crossbar has no option zzz", "its options are rows, columns"),
    ],
)
def test_wrong_options_are_refused_in_words(options: str, said: str, hint: str):
    (spec,) = parse_pipeline(f"map-to-crossbar{{{options}}}")
    with pytest.raises(Error) as caught:
        with_options(universe.PASSES["map-to-crossbar"](), spec)
    assert (caught.value.code, caught.value.exit_code) == ("NEUC-E003", Exit.USAGE)
    assert said in str(caught.value)
    assert hint in str(caught.value.hint)


def test_a_whole_number_is_a_number():
    (spec,) = parse_pipeline("insert-converters{adc-bound=7}")
    made = with_options(universe.PASSES["insert-converters"](), spec)
    assert vars(made)["adc_bound"] == 7.0
