"""The FFT branch: magnitude spectrum of the whole clip -> 1-D CNN with squeeze-excitation -> embedding."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MagnitudeSpectrum(nn.Module):
    """[batch, samples] -> [batch, samples // 2]: |DFT| below the Nyquist bin.

    samples = rows * columns: two small real matrix products with a twiddle between (Cooley-Tukey), so that
    the exported graph needs no complex operator. 10 s at 16 kHz: 400 x 400, under 2 MB of constants.
    """

    cos_rows: Tensor
    sin_rows: Tensor
    cos_twiddle: Tensor
    sin_twiddle: Tensor
    cos_columns: Tensor
    sin_columns: Tensor

    def __init__(self, samples: int) -> None:
        super().__init__()
        self.rows = rows = next(r for r in range(math.isqrt(samples), 0, -1) if samples % r == 0)
        self.columns = columns = samples // rows
        if columns > 8192:
            raise ValueError(f"{samples} samples have no two factors of similar size; choose a rounder clip length")
        row, column = torch.arange(rows).double(), torch.arange(columns).double()
        half = (samples // 2 + rows - 1) // rows  # columns of the result that lie below the Nyquist bin
        angles = {
            "rows": torch.outer(row, row).remainder(rows) / rows,
            "twiddle": torch.outer(row, column) / samples,
            "columns": torch.outer(column, column[:half]).remainder(columns) / columns,
        }
        for name, turns in angles.items():
            self.register_buffer(f"cos_{name}", (2 * torch.pi * turns).cos().float(), persistent=False)
            self.register_buffer(f"sin_{name}", (2 * torch.pi * turns).sin().float(), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        samples = self.rows * self.columns
        with torch.autocast(waveform.device.type, enabled=False):
            x = waveform.float().reshape(-1, self.rows, self.columns)
            re, im = self.cos_rows @ x, -(self.sin_rows @ x)
            turned = re * self.cos_twiddle + im * self.sin_twiddle
            im = im * self.cos_twiddle - re * self.sin_twiddle
            re = turned @ self.cos_columns + im @ self.sin_columns
            im = im @ self.cos_columns - turned @ self.sin_columns
            magnitude = (re.square() + im.square()).sqrt()
            return magnitude.transpose(1, 2).flatten(1)[:, : samples // 2]


class SpectrumNet(nn.Module):
    """[batch, samples] -> [batch, dim] (Wilkinghoff's spectrum branch). `width` channels, no biases.

    normalise "features" scales the output to length 1.

    The spectrum is divided by its deviation over all clips (a batch norm of one channel), and weights begin as He et
    al. (2015) draw them: without both, the first batch norm of `head` sees variances of 1e-8 to 1e-5 beside its epsilon
    of 1e-5, and the branch hardly learns. The level of a clip against others is still heard.
    """

    KERNELS = ((256, 64), (64, 32), (16, 4))  # (kernel, stride), "same" padding

    def __init__(self, samples: int, dim: int = 128, width: int = 128, normalise: str = "none") -> None:
        super().__init__()
        self.normalise = normalise
        self.spectrum = MagnitudeSpectrum(samples)
        bins, channels, layers = samples // 2, 1, list[nn.Module]()
        for kernel, stride in self.KERNELS:
            layers += [_SameConv(channels, width, kernel, stride, bins), nn.ReLU(), _SqueezeExcite(width)]
            bins, channels = -(-bins // stride), width
        self.scale = nn.BatchNorm1d(1, affine=False)
        self.cnn = nn.Sequential(*layers, nn.Flatten())
        dense, size = list[nn.Module](), bins * width
        for _ in range(4):
            dense += [nn.Linear(size, dim, bias=False), nn.BatchNorm1d(dim), nn.ReLU()]
            size = dim
        self.head = nn.Sequential(*dense, nn.Linear(dim, dim, bias=False))
        for module in self.modules():
            if isinstance(module, nn.Conv1d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, waveform: Tensor) -> Tensor:
        result: Tensor = self.head(self.cnn(self.scale(self.spectrum(waveform)[:, None])))
        return F.normalize(result, dim=-1) if self.normalise == "features" else result


class _SameConv(nn.Conv1d):
    """Output length ceil(n / stride), padded as TensorFlow does."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int, length: int) -> None:
        super().__init__(channels, out, kernel, stride, bias=False)
        total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
        self.margins = (total // 2, total - total // 2)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, self.margins))


class _SqueezeExcite(nn.Module):
    def __init__(self, channels: int, ratio: int = 16) -> None:
        super().__init__()
        inner = max(1, channels // ratio)
        self.gate = nn.Sequential(
            nn.Linear(channels, inner, bias=False),
            nn.ReLU(),
            nn.Linear(inner, channels, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        gated: Tensor = x * self.gate(x.mean(-1))[:, :, None]
        return gated
