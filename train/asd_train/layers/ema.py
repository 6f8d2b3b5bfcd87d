"""Exponential moving average of a model's weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Ema:
    """Averages what training changes: trainable parameters, and float buffers (batch-norm statistics).

    A frozen backbone under LoRA costs nothing. In float32: at a decay of 0.9999 bfloat16 would stand still.

    It begins as a copy of the weights, as EAT's teacher does, so that it is an average of weights from the
    first step on: the bias correction of averages that begin at 0 (Adam's) has nothing to correct. What it began with
    weighs decay^n after n updates: 0.7 % in report D (0.9995, 10,000 steps), which states no correction.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.average = {name: value.detach().float().clone() for name, value in _changing(model)}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        current = [value.detach().float() for _, value in _changing(model)]
        torch._foreach_lerp_(list(self.average.values()), current, 1.0 - self.decay)

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """The model carries the averaged weights inside the block, its own again afterwards."""
        own = {name: value.detach().clone() for name, value in _changing(model)}
        self.write(model)
        try:
            yield
        finally:
            _copy(own, model)

    @torch.no_grad()
    def load(self, average: dict[str, Tensor]) -> None:
        for name, value in self.average.items():
            value.copy_(average[name])

    def write(self, model: nn.Module) -> None:
        """The model carries the averaged weights from now on."""
        _copy(self.average, model)


@torch.no_grad()
def _copy(values: dict[str, Tensor], model: nn.Module) -> None:
    for name, value in _changing(model):
        value.copy_(values[name])


def _changing(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """By name, parameters first; the order never changes."""
    yield from ((n, p) for n, p in model.named_parameters() if p.requires_grad)
    yield from ((n, b) for n, b in model.named_buffers() if b.is_floating_point())
