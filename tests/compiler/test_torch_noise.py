"""Noise-aware training: what the torch wrapper computes has the statistics of the compiled model's devices."""

from __future__ import annotations

import numpy as np
import pytest

from neuc.compiler.analog.torch_noise import TileNoise, noise_model
from neuc.errors import Error


def test_held_weights_have_the_devices_error() -> None:
    weights = np.random.default_rng(0).integers(-1, 2, (300, 300)).astype(np.float32)
    held, noise = TileNoise.of("xbar-pcm{tile=150x150}", 86400.0, 0).held(weights, 0)
    # 0.0914: relative error of ternary weights after a day, as in test_analog_devices.py.
    assert np.linalg.norm(held - weights) / np.linalg.norm(weights) == pytest.approx(0.0914, rel=0.03)
    np.testing.assert_allclose(noise, 0.04 * np.sqrt(2), rtol=1e-6)
    again, _ = TileNoise.of("xbar-pcm{tile=150x150}", 86400.0, 0).held(weights, 0)
    np.testing.assert_array_equal(held, again)


@pytest.mark.parametrize("target", ["cpu", "cpu-tl2"])
def test_targets_without_noise_are_refused(target: str) -> None:
    with pytest.raises(Error) as caught:
        TileNoise.of(target, 0.0, 0)
    assert caught.value.code == "NEUC-E659"


@pytest.mark.torch
def test_a_wrapped_network_trains_its_own_parameters() -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(4 * 36, 5))
    noisy = noise_model(net, "xbar-pcm", time=86400.0)
    x, labels = torch.randn(40, 1, 8, 8), torch.randint(0, 5, (40,))
    first, second = noisy(x), noisy(x)
    clean = net(x)
    spread = ((first - second).norm() / clean.norm()).item()
    assert 0.01 < spread < 0.5
    before = net[3].weight.detach().clone()
    torch.nn.functional.cross_entropy(noisy(x), labels).backward()
    assert net[3].weight.grad.abs().sum() > 0
    np.testing.assert_array_equal(before, net[3].weight.detach())
    assert {id(p) for p in noisy.parameters()} == {id(p) for p in net.parameters()}
    with pytest.raises(Error) as caught:
        noise_model("net")
    assert caught.value.code == "NEUC-E659"


@pytest.mark.torch
def test_the_report_says_how_accuracy_moved_and_training_with_noise_helps() -> None:
    """Noise 12 times that of real devices, so that a small network and few samples tell the difference."""
    torch = pytest.importorskip("torch")
    target = "xbar-pcm{prog_noise=12,read_noise=12,out_noise=0}"
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(6, 20, generator=generator)
    labels = torch.randint(0, 6, (600,), generator=generator)
    x = centres[labels] + 0.7 * torch.randn(600, 20, generator=generator)
    reports = {}
    for noisy_training in (False, True):
        torch.manual_seed(1)
        net = torch.nn.Sequential(torch.nn.Linear(20, 24), torch.nn.ReLU(), torch.nn.Linear(24, 6))
        noisy = noise_model(net, target)
        optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
        for _ in range(150):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy((noisy if noisy_training else net)(x[:400]), labels[:400]).backward()
            optimizer.step()
        reports[noisy_training] = noise_model(net, target, seed=1000).accuracy(x[400:], labels[400:], draws=20)
    plain, trained = reports[False], reports[True]
    assert plain.mean < plain.digital - 0.02
    assert trained.mean > plain.mean
    assert str(plain).startswith(f"digital {plain.digital:.2%}, on devices {plain.mean:.2%}")
    with pytest.raises(Error, match="0 draws"):
        noise_model(net, target).accuracy(x, labels, draws=0)
