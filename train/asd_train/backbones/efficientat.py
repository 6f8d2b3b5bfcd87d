"""EfficientAT mn (Schmid et al. 2023): MobileNetV3-large on log-mel, any width; official module names."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import msgspec
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asd_train.backbones.interface import Backbone, Tokens
from asd_train.frontend import BINS, EfficientAtFrontend
from asd_train.pooling import masked_mean

# in, kernel, expanded, out, squeeze-excitation, activation, stride; before the width multiplier
ROWS = (
    (16, 3, 16, 16, False, nn.ReLU, 1),
    (16, 3, 64, 24, False, nn.ReLU, 2),
    (24, 3, 72, 24, False, nn.ReLU, 1),
    (24, 5, 72, 40, True, nn.ReLU, 2),
    (40, 5, 120, 40, True, nn.ReLU, 1),
    (40, 5, 120, 40, True, nn.ReLU, 1),
    (40, 3, 240, 80, False, nn.Hardswish, 2),
    (80, 3, 200, 80, False, nn.Hardswish, 1),
    (80, 3, 184, 80, False, nn.Hardswish, 1),
    (80, 3, 184, 80, False, nn.Hardswish, 1),
    (80, 3, 480, 112, True, nn.Hardswish, 1),
    (112, 3, 672, 112, True, nn.Hardswish, 1),
    (112, 5, 672, 160, True, nn.Hardswish, 2),
    (160, 5, 960, 160, True, nn.Hardswish, 1),
    (160, 5, 960, 160, True, nn.Hardswish, 1),
)
HIDDEN = 1280


class EfficientAtConfig(msgspec.Struct, frozen=True):
    width: float = 1.0
    num_classes: int = 527


class EfficientAt(Backbone):
    """Layer k is the output of `features.k` as tokens [B, time, frequency, channels]; 0 = first convolution.

    Padding counts in batch statistics and squeeze-excitation; only the token mask leaves it out.
    """

    name: ClassVar[str] = "efficientat"
    rate_hz = 32_000
    adapter_targets: ClassVar[tuple[str, ...]] = ("fc1", "fc2")
    SIZES: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "base": {"width": 1.0},
        "tiny": {"width": 0.1, "num_classes": 11},
        **{f"mn{round(10 * width):02d}": {"width": width} for width in (0.1, 0.2, 0.4, 0.5, 1.0, 2.0)},
    }

    def __init__(self, config: EfficientAtConfig) -> None:
        super().__init__()
        self._config = config
        self.min_samples = 514  # reflection at both ends of a 1024-point frame
        self.frontend = EfficientAtFrontend()
        widths = [channels(row[0], config.width) for row in ROWS] + [channels(ROWS[-1][3], config.width)]
        self._dims = (widths[0], *widths[1:], 6 * widths[-1])
        self.features = nn.Sequential(
            conv_norm(1, widths[0], 3, stride=2, activation=nn.Hardswish),
            *(InvertedResidual(row, config.width) for row in ROWS),
            conv_norm(widths[-1], 6 * widths[-1], 1, activation=nn.Hardswish),
        )
        hidden = channels(HIDDEN, config.width)
        self.classifier = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(1),
            nn.Linear(6 * widths[-1], hidden),
            nn.Hardswish(),
            nn.Dropout(0.2),
            nn.Linear(hidden, config.num_classes),
        )

    @classmethod
    def from_config(cls, values: Mapping[str, Any]) -> EfficientAt:
        return cls(msgspec.convert(dict(values), EfficientAtConfig, strict=False))

    @staticmethod
    def widths(width: float) -> tuple[int, int]:
        """Channels of the first and the last stage: what tells the width of a checkpoint."""
        return channels(ROWS[0][0], width), 6 * channels(ROWS[-1][3], width)

    @property
    def config(self) -> dict[str, Any]:
        return msgspec.structs.asdict(self._config)

    @property
    def layers(self) -> int:
        return len(self.features) - 1

    @property
    def dims(self) -> tuple[int, ...]:
        return self._dims

    def frequencies(self, layer: int) -> int:
        return BINS // self._stride(layer)

    def encode(
        self, mel: Tensor, frame_mask: Tensor | None = None, layers: Sequence[int] | None = None
    ) -> tuple[Tokens, ...]:
        wished = self.wished(layers)
        x, found = mel.transpose(1, 2)[:, None], {}
        for number in range(max(wished) + 1):
            x = self.features[number](x)
            if number in wished:
                found[number] = self._tokens(x, number, frame_mask)
        return tuple(found[layer] for layer in wished)

    def logits(self, last: Tokens) -> Tensor:
        logits: Tensor = self.classifier[2:](masked_mean(last))
        return logits

    def _tokens(self, x: Tensor, layer: int, frame_mask: Tensor | None) -> Tokens:
        features = x.permute(0, 3, 2, 1)
        if frame_mask is None:
            return Tokens(features)
        mask = frame_mask[:, :: self._stride(layer)]
        return Tokens(features, mask[..., None].expand(features.shape[:3]))

    def _stride(self, layer: int) -> int:
        return 2 * math.prod(row[6] for row in ROWS[:layer])


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise, squeeze-excitation, project 1x1; residual where the shape allows it."""

    def __init__(self, row: tuple[int, int, int, int, bool, type[nn.Module], int], width: float) -> None:
        super().__init__()
        before, kernel, expanded, after, squeeze, activation, stride = row
        expand = expanded != before
        before, expanded, after = (channels(value, width) for value in (before, expanded, after))
        self.residual = stride == 1 and before == after
        parts: list[nn.Module] = []
        if expand:
            parts.append(conv_norm(before, expanded, 1, activation=activation))
        parts.append(conv_norm(expanded, expanded, kernel, stride, expanded, activation))
        if squeeze:
            parts.append(SqueezeExcitation(expanded))
        parts.append(conv_norm(expanded, after, 1))
        self.block = nn.Sequential(*parts)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.block(x)
        return x + y if self.residual else y


class SqueezeExcitation(nn.Module):
    """Scales the channels by a sigmoid of their means over frequency and time."""

    def __init__(self, width: int) -> None:
        super().__init__()
        squeezed = channels(width // 4, 1.0)
        linears = {"fc1": nn.Linear(width, squeezed), "fc2": nn.Linear(squeezed, width)}
        self.conc_se_layers = nn.Sequential(nn.ModuleDict(linears))

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.conc_se_layers[0].children()
        scale = torch.sigmoid(second(F.relu(first(x.mean((2, 3))))))
        return x * scale[..., None, None]


def conv_norm(
    before: int,
    after: int,
    kernel: int,
    stride: int = 1,
    groups: int = 1,
    activation: type[nn.Module] | None = None,
) -> nn.Sequential:
    """Convolution without bias, batch norm, activation."""
    conv = nn.Conv2d(before, after, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False)
    norm = nn.BatchNorm2d(after, eps=1e-3, momentum=0.01)
    return nn.Sequential(conv, norm, *([activation()] if activation else []))


def channels(value: float, width: float) -> int:
    """value x width to a multiple of 8, at least 8 and never below 90 % of the product."""
    wanted = value * width
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * wanted else rounded
