"""Torch modules come in through torch.onnx.export; without PyTorch the message says so."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pytest

import neuc
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


@pytest.mark.torch
def test_shapes_name_the_dims_that_may_change() -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    net = torch.nn.Linear(8, 3).eval()
    x = torch.randn(2, 8)
    session = neuc.compile(net, example_inputs=(x,), shapes={"input": ("batch", 8)}).session()
    assert list(session.get_inputs()[0].shape) == ["batch", 8]
    again = torch.randn(5, 8)
    (found,) = session.run(None, {session.get_inputs()[0].name: again.numpy()})
    # Both compute in float32; a dot product of 8 terms of size 1 differs by a few ULP.
    np.testing.assert_allclose(np.asarray(found, np.float32), net(again).detach().numpy(), rtol=1e-5, atol=1e-6)


class Forward:
    """What `shapes` is checked against: a module's signature; nothing of it is run."""

    def forward(self, x: object, y: object) -> object:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"z": ("B", 8)}, "given for 'z', which is no parameter"),
        ({"x": ("B", 9)}, r"\['B', 9\] given for 'x' does not fit"),
        ({"x": ("B",)}, r"\['B'\] given for 'x' does not fit"),
        ({"y": ("B",)}, r"\['B'\] given for 'y' does not fit"),
        ({"x": ("2*B", 8)}, r"'2\*B' is no name"),
    ],
)
def test_shapes_that_do_not_fit_the_example_inputs_are_refused(
    shapes: dict[str, tuple[int | str, ...]], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = ModuleType("torch")
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch.onnx", ModuleType("torch.onnx"))
    export = ModuleType("torch.export")
    monkeypatch.setattr(export, "Dim", str, raising=False)
    monkeypatch.setitem(sys.modules, "torch.export", export)
    with pytest.raises(Error, match=message) as caught:
        neuc.compile(Forward().forward, example_inputs=(np.zeros((2, 8)), 3), shapes=shapes)
    assert caught.value.code == "NEUC-E108"
