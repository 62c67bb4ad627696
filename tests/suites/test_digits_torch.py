"""A classifier trained here in PyTorch is recognised, not quantised; exporting the example again gives its files."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import neuc

DIGITS = Path(__file__).parents[2] / "examples" / "digits"
EPOCHS = 8
TOLERANCE = 1e-5
"""Of a logit below 6, see `test_digits.py`; for images whose activations are rounded alike."""
MOST_DIFFERENT = 3
"""Images of 450 with an activation so near a half that f32 sums in another order round it differently: 60,000
activations, of which one in 10^5 is within the noise of 1e-5 steps, make 0.6 on average."""

pytestmark = [pytest.mark.torch, pytest.mark.slow]


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Imports a script of the example."""
    pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    monkeypatch.syspath_prepend(str(DIGITS))

    def load(name: str) -> Any:
        __import__(name)
        return sys.modules[name]

    return load


@pytest.mark.parametrize("levels", [("ternary",) * 3, ("float", "ternary", "binary")])
@pytest.mark.parametrize("target", ["cpu-tl2", "cpu"])
def test_a_module_trained_for_a_few_epochs(example: Callable[[str], Any], levels: tuple[str, ...], target: str) -> None:
    import torch  # pyright: ignore[reportMissingImports]

    with np.load(DIGITS / "held_out.npz") as arrays:
        images, labels = arrays["images"], arrays["labels"]
    model = example("train").train(levels, images, labels, epochs=EPOCHS, seed=1)
    x = torch.from_numpy(images.astype(np.float32))
    compiled = neuc.compile(model, target, quantize="none", example_inputs=(x,))
    rows = compiled.report.layers
    assert [row.ternary for row in rows] == [kind != "float" for kind in levels]
    for row, kind in zip(rows, levels):
        if kind != "float":
            assert row.note.startswith(f"recognised, {2 if kind == 'binary' else 3} levels")
    with torch.no_grad():
        wanted = model(x).numpy()
    with compiled.session(threads=1) as session:
        (name,) = (node.name for node in session.get_inputs())
        (logits,) = session.run(None, {name: x.numpy()})
    different = np.abs(logits - wanted).max(1) > TOLERANCE
    assert np.sum(different) <= MOST_DIFFERENT
    assert np.mean(wanted.argmax(1) == labels) > 0.8


def test_exporting_again_gives_the_committed_files(example: Callable[[str], Any]) -> None:
    made = example("export").all_forms()
    assert set(made) == {path.stem for path in (DIGITS / "models").glob("*.onnx")}
    for name, model in made.items():
        committed = onnx.load(DIGITS / "models" / f"{name}.onnx")
        assert [n.op_type for n in model.graph.node] == [n.op_type for n in committed.graph.node], name
        for ours, theirs in zip(model.graph.initializer, committed.graph.initializer, strict=True):
            # The mean of |w| that scales are made of may be summed in another order on another CPU.
            found, wanted = numpy_helper.to_array(ours), numpy_helper.to_array(theirs)
            np.testing.assert_allclose(found.astype(np.float32), wanted.astype(np.float32), rtol=1e-6, err_msg=name)
