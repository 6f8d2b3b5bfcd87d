"""Each loss against a literal loop over samples and classes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_train import losses


def unit(v: np.ndarray) -> np.ndarray:
    return v / np.linalg.norm(v)


def random_batch(seed: int, batch: int = 6, dim: int = 5, classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, dim, generator=generator), torch.randint(classes, (batch,), generator=generator)


def one_hot(labels: torch.Tensor, classes: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(labels, classes).float()


def literal_arcface(x, weight, targets, primary, centres, scale, margin) -> float:
    total = 0.0
    for i in range(len(x)):
        logits, first = [], 0
        for c, count in enumerate(centres):
            cos = max(float(unit(x[i]) @ unit(weight[first + k])) for k in range(count))
            first += count
            if c == primary[i]:
                theta = math.acos(cos)
                cos = math.cos(theta + margin) if theta < math.pi - margin else cos - margin * math.sin(margin)
            logits.append(scale * cos)
        log_sum = max(logits) + math.log(sum(math.exp(v - max(logits)) for v in logits))
        total -= sum(float(targets[i][c]) * (logits[c] - log_sum) for c in range(len(centres)))
    return total / len(x)


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 10_000),
    centres=st.lists(st.integers(1, 3), min_size=4, max_size=4),
    margin=st.floats(0.0, 1.2),
    mix=st.floats(0.0, 1.0),
)
def test_arcface_with_any_centres_per_class_is_the_literal_formula(seed, centres, margin, mix) -> None:
    x, labels = random_batch(seed)
    targets = mix * one_hot(labels, 4) + (1 - mix) * one_hot(labels.roll(1), 4)
    torch.manual_seed(seed)
    loss = losses.ArcFace(5, 4, scale=30.0, margin=margin, centres=centres)
    expected = literal_arcface(
        x.double().numpy(),
        loss.weight.detach().double().numpy(),
        targets.numpy(),
        labels.tolist(),
        centres,
        30,
        margin,
    )
    assert loss(x, targets, labels).item() == pytest.approx(expected, rel=2e-4, abs=2e-4)


def test_arcface_takes_the_margin_only_from_the_own_class() -> None:
    """A margin on every class (a known mistake) would nearly cancel."""
    x, labels = random_batch(1)
    torch.manual_seed(0)
    loss = losses.ArcFace(5, 4, scale=30.0, margin=0.5)
    plain, shifted = loss.scale * loss.cosines(x), loss.logits(x, labels)
    other = one_hot(labels, 4) == 0
    assert torch.equal(plain[other], shifted[other])
    assert (shifted[~other] < plain[~other]).all()


def test_arcface_keeps_falling_beyond_pi_minus_margin() -> None:
    loss = losses.ArcFace(2, 2, scale=1.0, margin=0.5)
    with torch.no_grad():
        loss.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    angles = torch.linspace(0.01, math.pi - 0.01, 200)
    own = loss.logits(torch.stack([angles.cos(), angles.sin()], 1), torch.zeros(200, dtype=torch.long))[:, 0]
    assert (own.diff() < 0).all()


def test_arcface_gradient_is_finite_on_its_own_centre() -> None:
    loss = losses.ArcFace(3, 2, scale=64.0, margin=0.5)
    x = loss.weight.detach()[:1].clone().requires_grad_()
    loss(x, torch.tensor([[1.0, 0.0]])).backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_centre_counts_must_fit_the_classes() -> None:
    with pytest.raises(ValueError, match="2 centre counts"):
        losses.centre_index(3, [1, 2])


def literal_adacos(x, weight, targets, centres, scale) -> float:
    total = 0.0
    for i in range(len(x)):
        e = [math.exp(scale * float(unit(x[i]) @ unit(w))) for w in weight]
        for c in range(targets.shape[1]):
            total -= float(targets[i][c]) * math.log(sum(e[c * centres : (c + 1) * centres]) / sum(e))
    return total / len(x)


def literal_adacos_scale(x, weight, targets, centres, scale) -> float:
    cos = [[float(unit(v) @ unit(w)) for w in weight] for v in x]
    peak = max(scale * c for row in cos for c in row)
    mean = float(np.mean([sum(math.exp(scale * c - peak) for c in row) for row in cos]))
    angle = [
        sum(float(targets[i][j // centres]) * math.acos(cos[i][j]) for j in range(len(weight))) for i in range(len(x))
    ]
    median = sorted(angle)[(len(angle) - 1) // 2]
    return (peak + math.log(mean)) / math.cos(min(math.pi / 4, median))


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), centres=st.integers(1, 4), mix=st.floats(0.0, 1.0), dynamic=st.booleans())
def test_adacos_is_the_literal_formula(seed, centres, mix, dynamic) -> None:
    x, labels = random_batch(seed)
    x = x + 1.5  # angles below pi/4 occur too
    targets = mix * one_hot(labels, 4) + (1 - mix) * one_hot(labels.roll(1), 4)
    torch.manual_seed(seed)
    loss = losses.AdaCos(5, 4, centres=centres, dynamic=dynamic)
    scale = math.sqrt(2) * math.log(4 * centres - 1)
    assert loss.scale.item() == pytest.approx(scale)
    arrays = x.double().numpy(), loss.weight.detach().double().numpy(), targets.double().numpy(), centres
    if dynamic:
        scale = literal_adacos_scale(*arrays, scale)
    assert loss(x, targets).item() == pytest.approx(literal_adacos(*arrays, scale), rel=1e-4)
    assert loss.scale.item() == pytest.approx(scale, rel=1e-4)


def test_adacos_scale_rests_in_evaluation_and_fixed_centres_have_no_gradient() -> None:
    x, labels = random_batch(3)
    loss = losses.AdaCos(5, 4, dynamic=True, trainable=False).eval()
    before = loss.scale.item()
    value = loss(x.requires_grad_(), one_hot(labels, 4))
    value.backward()
    assert loss.scale.item() == before
    assert loss.weight.grad is None
    assert x.grad is not None


def literal_supcon(x, labels, temperature, base) -> float:
    x = [unit(v) for v in x]
    total = 0.0
    for i in range(len(x)):
        others = [j for j in range(len(x)) if j != i]
        partners = [j for j in others if labels[j] == labels[i]]
        if partners:
            log_sum = math.log(sum(math.exp(float(x[i] @ x[j]) / temperature) for j in others))
            total -= np.mean([float(x[i] @ x[j]) / temperature - log_sum for j in partners])
    return float(temperature / base * total / len(x))


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), temperature=st.sampled_from([0.04, 0.2, 1.0]))
def test_supcon_is_the_literal_formula(seed, temperature) -> None:
    x, labels = random_batch(seed, batch=7)
    expected = literal_supcon(x.double().numpy(), labels.tolist(), temperature, 0.07)
    assert losses.supcon(x, labels, temperature).item() == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_supcon_without_any_partner_is_zero_with_finite_gradients() -> None:
    x = torch.randn(4, 3, requires_grad=True)
    value = losses.supcon(x, torch.arange(4), 0.04)
    value.backward()
    assert value.item() == 0
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_separation_counts_only_what_it_is_told_to() -> None:
    estimate, clean = torch.randn(3, 4, 5), torch.randn(3, 4, 5)
    counted = torch.tensor([[1, 1, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]])
    total = n = 0
    for b in range(3):
        for t in range(4):
            if counted[b, t]:
                total += sum((float(estimate[b, t, v]) - float(clean[b, t, v])) ** 2 for v in range(5)) / 5
                n += 1
    assert losses.separation(estimate, clean, counted).item() == pytest.approx(total / n, rel=1e-5)
    assert losses.separation(estimate, clean, torch.zeros(3, 4)).item() == 0


@pytest.mark.parametrize("kind", ["arcface", "adacos"])
def test_a_few_steps_separate_the_classes(kind: str) -> None:
    torch.manual_seed(0)
    x, labels = torch.randn(30, 8), torch.arange(30) % 3
    model = torch.nn.Linear(8, 8)
    loss = losses.ArcFace(8, 3, scale=16, margin=0.2) if kind == "arcface" else losses.AdaCos(8, 3, centres=2)
    optimiser = torch.optim.Adam([*model.parameters(), *loss.parameters()], lr=0.02)
    values = []
    for _ in range(60):
        value = loss(model(x), one_hot(labels, 3))
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        values.append(value.item())
    assert values[-1] < 0.5 * values[0]
