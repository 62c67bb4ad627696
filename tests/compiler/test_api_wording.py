"""Errors of the Python API say nothing that only a command line has: no flags, no names of files nobody gave."""

from __future__ import annotations

from pathlib import Path

import pytest

import neuc
from neuc.errors import Error
from onnx_models import model, node, value


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"quantize": "int3"}, "quantize int3 makes no sense"),
        ({"fallback": "cloud"}, "fallback cloud makes no sense"),
        ({"planes": 9}, "planes 9 makes no sense"),
        ({"planes": 2, "quantize": "int8"}, "planes 2 with quantize int8 makes no sense"),
        ({"max_error": 3.0}, "max_error 3.0 makes no sense"),
        ({"max_error": 0.1, "quantize": "none"}, "max_error 0.1 with quantize none makes no sense"),
    ],
)
def test_wrong_options(options: dict[str, object], said: str):
    with pytest.raises(Error) as caught:
        neuc.compile("unread.onnx", **options)  # type: ignore[arg-type]
    assert caught.value.message == said
    assert "--" not in str(caught.value.hint)


def test_places_that_cannot_be_written(tmp_path: Path):
    compiled = neuc.compile(model([node("Relu", "x", "y")], [value("x", [4])], [value("y", [4])], {}))
    for place in (tmp_path, tmp_path / "no folder" / "m.neuc"):
        with pytest.raises(Error) as caught:
            compiled.save(place)
        assert str(place) in caught.value.message
        assert "-o" not in str(caught.value.hint)


@pytest.mark.parametrize("data", [b"abc", b""])
def test_bytes_are_not_called_a_file(data: bytes):
    with pytest.raises(Error, match=r"the model \(bytes\) is ") as caught:
        neuc.compile(data)
    assert caught.value.code == "NEUC-E103"
    assert "model.onnx" not in str(caught.value)
