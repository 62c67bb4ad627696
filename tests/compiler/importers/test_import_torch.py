"""Torch modules come in through torch.onnx.export; without PyTorch the message says so."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from neuc.compiler.exporters.onnx_file import export_onnx
from neuc.compiler.importers.torch_module import import_torch
from neuc.dialects.context import NeucContext
from neuc.errors import Error
from onnx_models import run


def test_without_torch_the_cure_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setitem(sys.modules, "torch.onnx", None)
    with pytest.raises(Error, match="pip install torch") as caught:
        import_torch(object(), (), NeucContext())
    assert caught.value.code == "NEUC-E410"


@pytest.mark.torch
def test_torch_module_computes_the_same() -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.GELU(), torch.nn.Linear(16, 3)).eval()
    x = torch.randn(2, 8)
    ctx = NeucContext()
    module = import_torch(net, (x,), ctx, dynamic_shapes=({0: torch.export.Dim("batch")},))
    module.verify()
    proto = export_onnx(module, ctx.weights)
    again = torch.randn(5, 8)
    (found,) = run(proto, {proto.graph.input[0].name: again.numpy()})
    # Both compute in float32; a dot product of 16 terms of size 1 differs by a few ULP.
    np.testing.assert_allclose(found, net(again).detach().numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.torch
def test_module_that_cannot_be_exported_is_named() -> None:
    torch = pytest.importorskip("torch")

    class Broken(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, x: object) -> object:
            raise RuntimeError("no such thing")

    with pytest.raises(Error, match="Broken") as caught:
        import_torch(Broken(), (torch.randn(2),), NeucContext())
    assert caught.value.code == "NEUC-E112"
