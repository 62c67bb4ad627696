"""`energy.train`: a layered network learns from labelled images, by one of the rules of `learning_rules.py`.

The loop over epochs and batches, its checks, its curve and its costs are here; the export to ONNX is in
`learning_export.py`.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from neuc.compiler.energy.learning_engines import Engine, NativeAnswers, NativeEngine, NumpyEngine, convolves
from neuc.compiler.energy.learning_maps import Array, Conv, Map, Sizes, maps_of
from neuc.compiler.energy.learning_methods import CONVOLVE, METHODS, make_rule
from neuc.compiler.energy.learning_rules import EquilibriumPropagation, Layers, Rule
from neuc.compiler.energy.learning_step import has_program
from neuc.compiler.energy.learning_variants import ContrastiveDivergence
from neuc.errors import Error, Exit


@dataclass
class Trained:
    """A trained network.

    Attributes:
        rule: what it learned by.
        layers: weights [in, out] and biases [out], f32.
        sizes: inputs, hidden layers, classes.
        engine: what computed the slopes: ``native``, generated code, or ``numpy``.
        train_curve: share of training images answered right, after each epoch; empty without `curve`.
        test_curve: the same of the test images.
        cpu_seconds: CPU time of the training steps of this process, all threads; curves are not counted.
        compile_seconds: CPU time of compiling the rule's program before them; 0 if one was trained like this before.
        peak_bytes: the most that a step held, weights and the optimiser's state included: arrays and the program's own
            memory of generated code, or what Python and numpy allocated.
    """

    rule: Rule
    layers: Layers
    sizes: tuple[int | tuple[int, int, int] | Conv, ...]
    engine: str = "numpy"
    train_curve: list[float] = field(default_factory=list[float])
    test_curve: list[float] = field(default_factory=list[float])
    cpu_seconds: float = 0.0
    compile_seconds: float = 0.0
    peak_bytes: int = 0
    _answers: NativeAnswers | None = field(default=None, repr=False)

    def scores(self, images: ArrayLike) -> Array:
        """A score for each class, f32 [images, classes]."""
        x = _images(images, _count(self.sizes[0]))
        if isinstance(self.rule, EquilibriumPropagation) and convolves(self.layers):
            if self._answers is None:
                self._answers = NativeAnswers(self.rule, self.layers)
            return self._answers(self.layers, x)
        return self.rule.scores(self.layers, x)

    def predict(self, images: ArrayLike) -> Array:
        """The answers, i64 [images]."""
        return self.scores(images).argmax(1)

    def accuracy(self, images: ArrayLike, labels: ArrayLike) -> float:
        """Share of right answers."""
        return float((self.predict(images) == np.asarray(labels)).mean())

    def to_onnx(self, path: str | os.PathLike[str]) -> None:
        """Write the network as ONNX: input ``image`` f32 [batch, inputs], output ``scores`` f32 [batch, classes].

        Equilibrium propagation is written as its `answer_steps` sweeps, Forward-Forward as all labels side by side.
        """
        import onnx

        from neuc.compiler.energy.learning_export import onnx_model

        ends = _count(self.sizes[0]), _count(self.sizes[-1])
        try:
            onnx.save(onnx_model(self.rule, self.layers, *ends), os.fspath(path))
        except OSError as error:
            hint = "a path in a directory that exists and can be written"
            raise Error("NEUC-E005", f"cannot write {os.fspath(path)}: {error.strerror}", hint=hint) from error


def train(
    sizes: Sizes,
    images: ArrayLike,
    labels: ArrayLike,
    method: str | Rule = "ep",
    *,
    epochs: int = 40,
    batch: int = 32,
    seed: int = 0,
    test: tuple[ArrayLike, ArrayLike] | None = None,
    curve: bool = False,
    engine: str = "native",
    **options: float,
) -> Trained:
    """Train a layered network from random weights.

    Args:
        sizes: inputs, hidden layers, classes: ``(64, 128, 10)``; ``((1, 28, 28), Conv(16, 5, 2), 10)`` convolves.
        images: f32 [images, inputs], pixels row by row, or [images, C, H, W]; of size 1, such as in [0, 1].
        labels: integers 0 … classes − 1.
        method: one of `learning_methods.METHODS`, such as ``ep``, ``pc``, ``ff`` and ``bp`` (backpropagation, to
            compare with), or a rule of one's own.
        epochs: passes over the data.
        batch: images in a step; what is left over after an epoch's last full batch is not used in that epoch.
        seed: of the weights, the order of images, and Forward-Forward's wrong labels.
        test: images and labels for the test curve.
        curve: measure the share of right answers after each epoch.
        engine: ``native`` computes slopes by generated code where the rule has a program, ``numpy`` never does.
        options: the method's options in place of its defaults, such as ``beta=0.1``.

    Raises:
        Error: NEUC-E616 labels, NEUC-E617 images, NEUC-E618 sizes, NEUC-E619 schedule, method or option, NEUC-E620 the
            weights left all bounds.
    """
    rule = make_rule(method, dict(options))
    if engine not in ("native", "numpy"):
        raise _error("NEUC-E619", f"there is no engine {engine!r}", "engines: native, numpy")
    checked = _sizes(sizes)
    known, convolution = tuple(METHODS.values()), any(isinstance(size, Conv) for size in checked)
    if convolution and isinstance(rule, known) and not isinstance(rule, CONVOLVE):
        raise _error("NEUC-E618", f"method {method} does not convolve", "sizes are numbers here: (784, 256, 10)")
    if isinstance(rule, ContrastiveDivergence) and len(checked) != 3:
        raise _error("NEUC-E618", "contrastive divergence has one hidden layer", "sizes: (64, 128, 10)")
    inputs, classes = _count(checked[0]), _count(checked[-1])
    x, t = _images(images, inputs), _labels(labels, classes)
    held_out = None if test is None else (_images(test[0], inputs), _labels(test[1], classes))
    for data, answers in ((x, t), *(() if held_out is None else (held_out,))):
        if len(data) != len(answers):
            raise _error("NEUC-E616", f"{len(answers)} labels for {len(data)} images", "one label for each image")
    if epochs < 1 or not 1 <= batch <= len(x):
        what = f"{epochs} epochs in batches of {batch} over {len(x)} images"
        raise _error("NEUC-E619", what, "at least one epoch, and a batch of 1 to all images")
    rng = np.random.default_rng(seed)
    y = np.eye(classes, dtype=np.float32)[t]
    trained = Trained(rule, rule.start(checked, rng), tuple(checked))
    learner: Engine = NumpyEngine(rule, trained.layers)
    if engine == "native" and has_program(rule):
        start = time.process_time()
        learner, trained.engine = NativeEngine(rule, trained.layers, (batch, inputs, classes)), "native"
        trained.compile_seconds = time.process_time() - start
    with _progress(epochs) as advance:
        for epoch in range(epochs):
            start = time.process_time()
            order = rng.permutation(len(x))
            for begin in range(0, len(x) - batch + 1, batch):
                chosen = order[begin : begin + batch]
                learner.step(x[chosen], y[chosen], rng, epoch)
            trained.layers = learner.layers
            trained.cpu_seconds += time.process_time() - start
            if not all(np.isfinite(w).all() and np.isfinite(b).all() for w, b in trained.layers):
                raise _error("NEUC-E620", f"in epoch {epoch + 1} weights became infinite", "a smaller rate or dt")
            if curve:
                trained.train_curve.append(trained.accuracy(x, t))
            if curve and held_out is not None:
                trained.test_curve.append(trained.accuracy(*held_out))
            advance()
    trained.peak_bytes = learner.peak(x[:batch], y[:batch], rng)
    return trained


@contextmanager
def _progress(epochs: int) -> Iterator[Callable[[], None]]:
    """A bar on stderr where that is a terminal, nothing elsewhere."""
    if not sys.stderr.isatty() or os.environ.get("CI"):
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("epochs", total=epochs)
        yield lambda: bar.advance(task)


def _sizes(sizes: Sizes) -> Sizes:
    found = list(sizes)
    hint = "inputs, at least one hidden layer, at least two classes: (64, 128, 10), ((1, 28, 28), Conv(16, 5, 2), 10)"
    wrong = _error("NEUC-E618", f"sizes {tuple(found)} make no network that learns", hint)
    flat = [size for size in found if isinstance(size, int)]
    images = [place for place, size in enumerate(found) if isinstance(size, tuple)]
    filters = [place for place, size in enumerate(found) if isinstance(size, Conv)]
    if len(found) < 3 or any(size < 1 for size in flat) or not isinstance(found[-1], int) or found[-1] < 2:
        raise wrong
    # Convolutions come first, one after another, and read an image.
    if images != ([0] if filters else []) or filters != list(range(1, len(filters) + 1)):
        raise wrong
    maps: tuple[Map, ...] = ()
    if not filters or all(
        min(f.channels, f.kernel, f.stride) >= 1 and f.pad >= 0 for f in found if isinstance(f, Conv)
    ):
        maps = maps_of(found)
    if not maps or any(map_.outputs < 1 for map_ in maps):
        raise wrong
    return found


def _count(size: int | tuple[int, int, int] | Conv) -> int:
    """Values of an input or output."""
    assert not isinstance(size, Conv)
    return size if isinstance(size, int) else math.prod(size)


def _images(images: ArrayLike, inputs: int) -> Array:
    found = np.asarray(images, np.float32)
    if found.ndim > 2 and math.prod(found.shape[1:]) == inputs:
        found = found.reshape(len(found), inputs)
    if found.ndim != 2 or not found.size or found.shape[1] != inputs:
        raise _error("NEUC-E617", f"images have shape {list(found.shape)}", f"they should have [images, {inputs}]")
    if not np.isfinite(found).all():
        at = int(np.flatnonzero(~np.isfinite(found).all(1))[0])
        raise _error("NEUC-E617", f"image {at} holds NaN or infinity", "leave such images out, or repair them")
    return found


def _labels(labels: ArrayLike, classes: int) -> Array:
    found = np.asarray(labels)
    if found.ndim != 1 or not np.issubdtype(found.dtype, np.integer):
        what = f"labels are {found.dtype} of shape {list(found.shape)}"
        raise _error("NEUC-E616", what, "a vector of integers, the number of each image's class")
    outside = np.flatnonzero((found < 0) | (found >= classes))
    if len(outside):
        what = f"label {int(outside[0])} is {int(found[outside[0]])}, and there are {classes} classes"
        raise _error("NEUC-E616", what, f"classes are numbered 0 to {classes - 1}; the last of the sizes counts them")
    return found


def _error(code: str, what: str, hint: str) -> Error:
    return Error(code, what, hint=hint, exit_code=Exit.USAGE)
