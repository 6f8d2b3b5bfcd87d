"""The feature-perturbation head of OS-SCL."""

from __future__ import annotations

from torch import Tensor, nn


class FeaturePerturbation(nn.Module):
    """[batch, dim] -> [batch, dim]: Linear-ReLU-BN down to half and up again; only training uses it."""

    def __init__(self, dim: int, hidden: int | None = None) -> None:
        super().__init__()
        hidden = hidden or dim // 2
        self.layers = nn.Sequential(
            nn.Linear(dim, hidden), nn.ReLU(), nn.BatchNorm1d(hidden), nn.Linear(hidden, dim), nn.ReLU(),
            nn.BatchNorm1d(dim),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layers(x)
        return result
