"""What every audio encoder looks like to training, evaluation and export."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, NamedTuple

import msgspec
import torch
from torch import Tensor, nn

from asd_agent.errors import UsageError
from asd_train.frontend import BINS

# A configuration comes from a checkpoint that anybody may have written: its numbers are bounded.
Size = Annotated[int, msgspec.Meta(ge=1, le=1 << 20)]
Depth = Annotated[int, msgspec.Meta(ge=1, le=256)]


class Tokens(NamedTuple):
    """The output of one layer for a batch of clips."""

    features: Tensor  # [batch, time, frequency, dim]
    mask: Tensor | None = None  # [batch, time, frequency] bool, True = padding; None = all is sound
    cls: Tensor | None = None  # [batch, dim * class tokens], where the encoder has them


class Backbone(nn.Module, ABC):
    """An audio encoder: waveform -> filterbank (`frontend`, always float32) -> tokens of the wished layers.

    Layer 0 is what enters the blocks, layer k comes out of block k, `layers` is the last.
    SpecAug or mixup on the filterbank go between the two steps of `forward`:

        mel, frame_mask = backbone.frontend(waveform, padding_mask)
        (tokens,) = backbone.encode(specaug(mel), frame_mask)
    """

    name: ClassVar[str]  # of the architecture: "beats", "eat", "efficientat", "bandsplit"
    rate_hz: int
    adapter_targets: ClassVar[tuple[str, ...]]  # Linear modules that LoRA usually adapts, by name suffix

    frontend: nn.Module  # (waveform, padding_mask | None) -> (mel [B, frames, bins], frame_mask | None)
    min_samples: int  # the shortest clip that gives a token

    @property
    @abstractmethod
    def layers(self) -> int:
        """Index of the last layer."""

    @property
    @abstractmethod
    def dims(self) -> tuple[int, ...]:
        """Token dim of layer 0, 1, ... `layers`."""

    @property
    def dim(self) -> int:
        """Token dim of the last layer."""
        return self.dims[-1]

    @property
    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Plain values that `build(name, config)` makes the same architecture from."""

    @property
    def class_count(self) -> int:
        """Class tokens of a clip; 0 = none."""
        return 0

    @abstractmethod
    def frequencies(self, layer: int) -> int:
        """Tokens along frequency in a layer."""

    def patch_size(self, layer: int) -> tuple[int, int]:
        """Frames and bins of the filterbank that a token of a layer stands for."""
        size = BINS // self.frequencies(layer)
        return size, size

    @abstractmethod
    def encode(
        self, mel: Tensor, frame_mask: Tensor | None = None, layers: Sequence[int] | None = None
    ) -> tuple[Tokens, ...]:
        """Normalised filterbank [B, frames, bins] -> one Tokens per wished layer, in the wished order.

        frame_mask: [B, frames] bool, True = padding. layers: None = the last one only.
        """

    def forward(
        self, waveform: Tensor, padding_mask: Tensor | None = None, layers: Sequence[int] | None = None
    ) -> tuple[Tokens, ...]:
        """Waveform [B, N] at `rate_hz`, full scale 1.0 -> one Tokens per wished layer.

        padding_mask: [B, N] bool, True = padding after the end of a shorter clip.
        """
        if waveform.shape[1] < self.min_samples and not torch.onnx.is_in_onnx_export():
            raise UsageError(
                f"a clip of {waveform.shape[1]} samples is too short for {self.name}: "
                f"it needs at least {self.min_samples} at {self.rate_hz} Hz"
            )
        mel, frame_mask = self.frontend(waveform, padding_mask)
        return self.encode(mel, frame_mask, layers)

    @abstractmethod
    def logits(self, last: Tokens) -> Tensor:
        """Label logits [B, classes] of a fine-tuned checkpoint from its last layer, or UsageError."""

    def wished(self, layers: Sequence[int] | None) -> tuple[int, ...]:
        """Layer numbers as 0..layers; None = the last, negative counts from the end. UsageError outside."""
        chosen = (self.layers,) if layers is None else tuple(layers)
        for layer in chosen:
            if not -self.layers - 1 <= layer <= self.layers:
                raise UsageError(f"{self.name} has layers 0 to {self.layers}: there is no layer {layer}")
        return tuple(layer % (self.layers + 1) for layer in chosen)
