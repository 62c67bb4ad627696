"""How many multiply-adds an operation does, so that "how much of the model runs natively" has a measure.

Counted are the operations whose work is products: matrix products, convolutions, recurrences. The rest counts nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from xdsl.ir import Operation

from neuc.dialects import dense, ternary
from neuc.dialects.dims import Dim, product
from neuc.dialects.onnx import OnnxOp
from neuc.dialects.store import dims_of


def multiply_adds(op: Operation, symbols: Mapping[str, int]) -> int:
    """Multiply-adds of one run of `op`; 0 for operations that are not made of products.

    Ternary layers count once, not once a plane: what is measured is the model's work, not the machine's.

    Args:
        op: an operation of the graph or paradigm level.
        symbols: sizes of symbolic dims; those not named count as 1.
    """
    try:
        count = _count(op)
    except (ValueError, IndexError):
        # An operation whose shapes are not known, or an ONNX node with fewer dims than the operator needs.
        return 0
    sizes = {symbol: symbols.get(symbol, 1) for symbol in count.symbols}
    return max(0, count.evaluate(sizes))


def _count(op: Operation) -> Dim:
    match op:
        case dense.MatMulOp():
            inner = dims_of(op.a)[-2 if op.transpose_a is not None else -1]
            return product(dims_of(op.result)) * inner
        case dense.ConvOp():
            return product(dims_of(op.result)) * product(dims_of(op.w)[1:])
        case dense.LstmOp():
            steps, batch = dims_of(op.x)[:2]
            return steps * batch * (product(dims_of(op.w)) + product(dims_of(op.r)))
        case ternary.LinearOp() | ternary.ConvOp():
            return product(dims_of(op.result)) * op.trits.columns
        case OnnxOp():
            return _onnx(op)
        case _:
            return Dim.of(0)


def _onnx(op: OnnxOp) -> Dim:
    match op.op_type:
        case "MatMul" | "Gemm" | "MatMulInteger" | "QLinearMatMul":
            transposed = op.op_type == "Gemm" and op.attribute("transA") == 1
            return product(dims_of(op.results[0])) * dims_of(op.operands[0])[-2 if transposed else -1]
        case "Conv" | "ConvInteger":
            return product(dims_of(op.results[0])) * product(dims_of(op.operands[1])[1:])
        case "ConvTranspose":
            return product(dims_of(op.operands[0])) * product(dims_of(op.operands[1])[1:])
        case "LSTM" | "GRU" | "RNN":
            steps, batch = dims_of(op.operands[0])[:2]
            return steps * batch * (product(dims_of(op.operands[1])) + product(dims_of(op.operands[2])))
        case _:
            return Dim.of(0)
