"""neuc as an `onnx.backend.base.Backend`, so that ONNX's own test suite, or any caller of that interface, runs on it.

Models are compiled in memory by `neuc.compile`; operators the target cannot run go to onnxruntime, as everywhere.

    >>> from neuc.compiler import onnx_backend
    >>> onnx_backend.run_model(model, [x])
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TypeProto, ValueInfoProto, helper
from onnx.backend.base import Backend, BackendRep, namedtupledict

from neuc.compiler.api import Compiled, compile
from neuc.errors import Error, Exit

TARGET_VARIABLE = "NEUC_ONNX_BACKEND_TARGET"
"""Environment variable with the target of models prepared without one; ``cpu`` if it is not set."""


class NeucRep(BackendRep):
    """A compiled model.

    Attributes:
        compiled: the compilation, with its report.
    """

    def __init__(self, compiled: Compiled, threads: int | None = None) -> None:
        self.compiled = compiled
        self._session = compiled.session(threads=threads)
        self._inputs = [spec.name for spec in self._session.get_inputs()]
        self._outputs = namedtupledict("Outputs", [spec.name for spec in self._session.get_outputs()])

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Run on `inputs`: arrays in the order of the model's inputs, by name, or one array for a single input.

        Raises:
            Error: NEUC-E310, the number of inputs is another; or the run failed.
        """
        if isinstance(inputs, np.ndarray):
            inputs = [inputs]
        if not isinstance(inputs, dict):
            if len(inputs) != len(self._inputs):
                raise Error(
                    "NEUC-E310",
                    f"the model has {len(self._inputs)} inputs, {len(inputs)} are given",
                    hint=f"they are {', '.join(self._inputs)}",
                    exit_code=Exit.USAGE,
                )
            inputs = dict(zip(self._inputs, inputs))
        return self._outputs(*self._session.run(None, inputs))


class NeucBackend(Backend):
    """Compiles for the target given as ``target=``, else for that in `TARGET_VARIABLE`, else for ``cpu``.

    Nothing is quantised unless ``quantize=`` says so; further keywords are those of `neuc.compile`.
    """

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Whether this is a CPU."""
        return device.partition(":")[0] == "CPU"

    @classmethod
    def prepare(cls, model: ModelProto, device: str = "CPU", **kwargs: Any) -> NeucRep:
        """Compile `model`.

        Args:
            model: the model.
            device: ``CPU``.
            kwargs: options of `neuc.compile`, and ``threads``.

        Raises:
            Error: NEUC-E001 for another device; whatever is wrong with the model or the options.
        """
        if not cls.supports_device(device):
            raise Error("NEUC-E001", f"there is no device {device}", hint="use CPU", exit_code=Exit.USAGE)
        threads = kwargs.pop("threads", None)
        options = {"target": os.environ.get(TARGET_VARIABLE, "cpu"), "quantize": "none", **kwargs}
        return NeucRep(compile(model, **options), threads)

    @classmethod
    def run_model(cls, model: ModelProto, inputs: Any, device: str = "CPU", **kwargs: Any) -> tuple[Any, ...]:
        """Compile `model` and run it once."""
        return cls.prepare(model, device, **kwargs).run(inputs)

    @classmethod
    def run_node(
        cls,
        node: NodeProto,
        inputs: Any,
        device: str = "CPU",
        outputs_info: Sequence[tuple[np.dtype, tuple[int, ...]]] | None = None,
        **kwargs: Any,
    ) -> tuple[Any, ...]:
        """Compile a model of one node and run it once.

        Args:
            node: the node.
            inputs: an array for each input that is not empty.
            device: ``CPU``.
            outputs_info: element type and shape of each output, for operators ONNX cannot infer them for.
            kwargs: as for `prepare`, and ``opset_version``.
        """
        opset = kwargs.pop("opset_version", onnx.defs.onnx_opset_version())
        model = _model_of(node, [np.asarray(array) for array in inputs], outputs_info, opset)
        return cls.run_model(model, [np.asarray(array) for array in inputs], device, **kwargs)


def _model_of(
    node: NodeProto,
    inputs: Sequence[np.ndarray],
    outputs_info: Sequence[tuple[np.dtype, tuple[int, ...]]] | None,
    opset: int,
) -> ModelProto:
    names = list(dict.fromkeys(name for name in node.input if name))
    outputs = [name for name in node.output if name]
    infos = [_info(name, array.dtype, array.shape) for name, array in zip(names, inputs, strict=True)]
    if outputs_info is None:
        results = [helper.make_value_info(name, TypeProto()) for name in outputs]
    else:
        results = [_info(name, dtype, shape) for name, (dtype, shape) in zip(outputs, outputs_info, strict=True)]
    graph = helper.make_graph([node], node.op_type, infos, results)
    opsets = [helper.make_opsetid("", opset)]
    if node.domain:
        opsets.append(helper.make_opsetid(node.domain, 1))
    return onnx.shape_inference.infer_shapes(helper.make_model(graph, opset_imports=opsets))


def _info(name: str, dtype: np.dtype, shape: Sequence[int]) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(dtype), shape)


# The module itself is a backend too, as those of other projects are.
is_compatible = NeucBackend.is_compatible
prepare = NeucBackend.prepare
run_model = NeucBackend.run_model
run_node = NeucBackend.run_node
supports_device = NeucBackend.supports_device
