"""The LSTM, lowered and run, against the interpreter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pytest
from xdsl.dialects import func
from xdsl.dialects.builtin import f32
from xdsl.ir import Operation, SSAValue

from kernel_harness import assert_guards, guarded, run_kernel, runnable_isas
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.lstm import LstmKernel, pack_recurrent
from neuc.dialects import dense
from neuc.dialects.store import ConstantOp, make_constant, tensor_type
from neuc.dialects.weight_store import WeightStore
from segment_harness import expected_of, function_of, run_segment

every_isa = pytest.mark.parametrize("isa", [pytest.param(isa, id=isa.name) for isa in runnable_isas()])
STORE = WeightStore()
EPS = float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class Case:
    """An LSTM with random weights; `optional` says how many of bias, h0 and c0 there are."""

    shape: tuple[int, int, int]
    hidden: int
    direction: str
    optional: int = 3

    @property
    def ways(self) -> int:
        return 2 if self.direction == "bidirectional" else 1

    @cached_property
    def arrays(self) -> list[np.ndarray]:
        """X, w, r, then bias, h0, c0 as far as they are there."""
        batch, width = self.shape[1:]
        ways, hidden, rng = self.ways, self.hidden, np.random.default_rng(7)
        sizes = [self.shape, (ways, 4 * hidden, width), (ways, 4 * hidden, hidden), (ways, 8 * hidden)]
        sizes += [(ways, batch, hidden)] * 2
        arrays = [(rng.standard_normal(size) * self.scale).astype(np.float32) for size in sizes[: 3 + self.optional]]
        return [rng.standard_normal(self.shape).astype(np.float32), *arrays[1:]]

    @property
    def scale(self) -> float:
        return 1 / float(np.sqrt(self.hidden + self.shape[2]))

    def function(self, store: WeightStore, *, constant: bool) -> func.FuncOp:
        """As a function of all its arrays; with `constant` it has w and r inside."""
        ways, hidden = self.ways, self.hidden
        state = tensor_type(f32, [ways, "B", hidden])
        fixed = [tensor_type(f32, array.shape) for array in self.arrays[1:4]]
        types = [tensor_type(f32, ["T", "B", self.shape[2]]), *fixed, state, state][: 3 + self.optional]
        results = [tensor_type(f32, ["T", ways, "B", hidden]), state, state]

        def build(args: Sequence[SSAValue]) -> list[Operation]:
            made: list[ConstantOp] = []
            operands = list(args)
            if constant:
                made = [make_constant("weight", array, store) for array in self.arrays[1:3]]
                operands[1:3] = [op.result for op in made]
            lstm = dense.LstmOp(operands, hidden=hidden, direction=self.direction, result_types=results)
            return [*made, lstm]

        return function_of(types, build)

    def compare(self, got: Sequence[np.ndarray]) -> None:
        want = expected_of(self.function(STORE, constant=False), self.arrays, STORE)
        # A gate sums width + hidden + 2 products of size near `scale`; sigmoid and tanh have slopes of at most 1, and a
        # state errs in all steps before: each adds what the gates do, since the forget gate shrinks what came before.
        terms = self.shape[2] + self.hidden + 2
        atol = EPS * self.shape[0] * (terms * self.scale + 16)
        for name, mine, reference in zip("yhc", got, want, strict=True):
            np.testing.assert_allclose(mine, reference, rtol=0, atol=atol, err_msg=name)


def check_kernel(isa: Isa, case: Case) -> None:
    """The recurrent kernel alone, on gates that numpy made."""
    x, w, r = case.arrays[:3]
    steps, batch = case.shape[:2]
    gates = np.ascontiguousarray(np.einsum("tbi,dgi->dtbg", x, w).astype(np.float32))
    state = np.zeros((case.ways, batch, case.hidden), np.float32)
    made = [guarded(a) for a in (np.zeros((steps, case.ways, batch, case.hidden), np.float32), state, state)]
    kernel = LstmKernel(case.hidden, case.direction, case.optional > 0, case.optional == 3)
    args = [gates, pack_recurrent(r, isa.f32_lanes), *case.arrays[3:], *(inner for inner, _ in made), steps, batch]
    run_kernel(kernel, isa, args, case.ways * batch, threads_split=2, scratch_bytes=kernel.scratch_bytes)
    for _, whole in made:
        assert_guards(whole)
    case.compare([inner for inner, _ in made])


@every_isa
def test_both_directions(isa: Isa) -> None:
    check_kernel(isa, Case((5, 2, 10), 32, "bidirectional"))


@every_isa
@pytest.mark.parametrize("hidden", [1, 21])
def test_hidden_sizes_that_are_no_whole_vectors(isa: Isa, hidden: int) -> None:
    check_kernel(isa, Case((3, 3, 5), hidden, "bidirectional"))


@every_isa
@pytest.mark.parametrize("optional", [0, 1])
def test_without_bias_and_state(isa: Isa, optional: int) -> None:
    check_kernel(isa, Case((4, 1, 6), 16, "forward", optional))


@every_isa
@pytest.mark.parametrize("shape", [(0, 2, 5), (1, 1, 5), (3, 0, 5)])
def test_few_and_no_steps(isa: Isa, shape: tuple[int, int, int]) -> None:
    check_kernel(isa, Case(shape, 8, "reverse"))


@pytest.mark.parametrize("constant", [True, False])
def test_lowering(constant: bool) -> None:
    case = Case((3, 2, 20), 35, "bidirectional")
    store = WeightStore()
    case.compare(run_segment(case.function(store, constant=constant), case.arrays, runnable_isas()[0], store))


def test_pack_recurrent_puts_outputs_side_by_side() -> None:
    r = np.arange(2 * 12 * 3, dtype=np.float32).reshape(2, 12, 3)
    packed = pack_recurrent(r, 2)
    assert packed.shape == (2, 2, 3, 4, 2)
    # Way 1, unit 2 (group 1, lane 0), gate 3, input 1.
    assert packed[1, 1, 1, 3, 0] == r[1, 3 * 3 + 2, 1]
    assert packed[:, 1, :, :, 1].max() == 0
