"""Filterbanks of the encoders as matrix products: the same module trains on a GPU and is exported to ONNX.

Kaldi's per-frame chain (mean removal, pre-emphasis, window, DFT) is linear, so it folds into one matrix per
convention; the power spectrum, the mel triangles and the logarithm follow. No complex numbers, no framing
operator. Everything is float32 whatever the autocast: log-mel values of weak bands need the digits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BINS = 128
FLOOR = 1.1920928955078125e-07  # float32 epsilon, Kaldi's floor under the logarithm
EAT_MULTIPLE = 32  # frames are padded to a multiple of this, as in published use (10 s: 998 -> 1024)


class LogMel(nn.Module):
    """Frames of a clip times `analysis` -> power spectrum -> `mel` triangles -> natural logarithm.

    analysis: [2.5 * hop, 2 * k] real parts, then imaginary parts of k DFT bins; mel: [k, 128].
    A frame is 2.5 hops long in all conventions here, so the product with all frames is the sum of the
    products of the hops and their two successors. The shorter sums also round less than one long one.
    """

    analysis: Tensor
    mel: Tensor

    def __init__(self, analysis: Tensor, mel: Tensor, floor: float, offset: float) -> None:
        super().__init__()
        used = mel.sum(1) > 0  # Nyquist, and whatever lies outside of all triangles
        parts = analysis.reshape(len(analysis), 2, -1)[:, :, used].flatten(1)
        self.register_buffer("analysis", parts.float(), persistent=False)
        # Once for the squared real, once for the squared imaginary parts: their sum costs nothing extra.
        self.register_buffer("mel", mel[used].repeat(2, 1).float(), persistent=False)
        self.hop = analysis.shape[0] * 2 // 5
        self.floor, self.offset = floor, offset

    def forward(self, signal: Tensor) -> Tensor:
        """[B, N] -> [B, 1 + (N - 2.5 hop) // hop, 128]"""
        with _full_precision(signal):
            spectrum = self._spectrum(signal.float())
            return torch.log(torch.clamp(spectrum * spectrum @ self.mel + self.offset, min=self.floor))

    def _spectrum(self, signal: Tensor) -> Tensor:
        """[B, N] -> [B, frames, 2 * k], one frame every hop, incomplete ones dropped."""
        hop, half = self.hop, self.hop // 2
        count = frame_count(signal.shape[1], hop)
        hops = F.pad(signal[:, : (count + 1) * hop + half], (0, half)).reshape(signal.shape[0], -1, hop)
        first, second, third = self.analysis[:hop], self.analysis[hop : 2 * hop], self.analysis[2 * hop :]
        spectrum: Tensor = hops[:, :-2] @ first + hops[:, 1:-1] @ second + hops[:, 2:, :half] @ third
        return spectrum


class KaldiFbank(LogMel):
    """Kaldi's log-mel filterbank at 16 kHz: frames of 400, hop 160, 512-point DFT, 128 bands of 20-8000 Hz.

    Per frame: minus its mean, pre-emphasis 0.97 with the first sample repeated, window, power, natural
    logarithm with floor float32 epsilon. window: "povey" (BEATs; Hann^0.85) or "hanning" (EAT). scale
    multiplies the waveform.
    """

    def __init__(self, window: str, scale: float = 1.0) -> None:
        taper = torch.hann_window(400, periodic=False, dtype=torch.float64)
        taper = taper**0.85 if window == "povey" else taper
        one = torch.eye(400, dtype=torch.float64)
        centred = one - 1 / 400
        emphasised = centred - 0.97 * centred[[0, *range(399)]]  # rows are output samples
        chain = scale * taper[:, None] * emphasised
        super().__init__(chain.T @ dft(400, 512), mel_triangles(16_000, 512, 20, 8000), FLOOR, 0.0)


class BeatsFrontend(nn.Module):
    """BEATs: 16-bit scale, Povey window, fixed normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.fbank = KaldiFbank("povey", scale=2.0**15)

    def forward(self, waveform: Tensor, padding_mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Waveform [B, N] -> (normalised filterbank [B, frames, 128], frame mask [B, frames] | None)"""
        waveform = waveform.float()
        if padding_mask is None:  # a constant has no effect in exact arithmetic, but costs digits
            waveform = waveform - waveform.mean(1, keepdim=True)
        mel = (self.fbank(waveform) - 15.41663) / (2 * 6.55582)
        return mel, None if padding_mask is None else shrink_mask(padding_mask, mel.shape[1])


class EatFrontend(nn.Module):
    """EAT: clip without its mean, Hann window, padded with 0.0 before normalising to a multiple of 32 frames.

    With a padding mask every clip of the batch gets the values that it would get alone.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fbank = KaldiFbank("hanning")

    def forward(self, waveform: Tensor, padding_mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Waveform [B, N] -> (normalised filterbank [B, frames, 128], frame mask [B, frames] | None)"""
        waveform, mask = waveform.float(), None
        if padding_mask is None:
            mel = self.fbank(waveform - waveform.mean(1, keepdim=True))
        else:
            count = (~padding_mask).sum(1, keepdim=True)  # [B, 1] samples
            mean = waveform.masked_fill(padding_mask, 0).sum(1, keepdim=True) / count
            mel = self.fbank(waveform - mean)
            frames = (1 + (count - 400) // 160).clamp(min=1)
            index = torch.arange(mel.shape[1] + -mel.shape[1] % EAT_MULTIPLE, device=mel.device)
            mel = mel.masked_fill((index[: mel.shape[1]] >= frames)[..., None], 0)
            mask = index >= frames + -frames % EAT_MULTIPLE
        mel = F.pad(mel, (0, 0, 0, -mel.shape[1] % EAT_MULTIPLE))
        return (mel + 4.268) / (2 * 4.569), mask


class EfficientAtFrontend(nn.Module):
    """EfficientAT's mel at 32 kHz: pre-emphasis, centred frames of 800, hop 320, 1024 points, to 15 kHz."""

    def __init__(self) -> None:
        super().__init__()
        window = torch.hann_window(800, periodic=False, dtype=torch.float64)
        mel = mel_triangles(32_000, 1024, 0, 15_000)
        self.log_mel = LogMel(window[:, None] * dft(800, 1024), mel, floor=0.0, offset=1e-5)

    def forward(self, waveform: Tensor, padding_mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Waveform [B, N] -> (normalised mel [B, frames, 128], frame mask [B, frames] | None)"""
        waveform = waveform.float()
        emphasised = waveform[:, 1:] - 0.97 * waveform[:, :-1]
        mel = (self.log_mel(F.pad(emphasised, (400, 400), mode="reflect")) + 4.5) / 5
        if padding_mask is None:
            return mel, None
        frames = ((~padding_mask).sum(1, keepdim=True) - 1) // 320 + 1
        return mel, torch.arange(mel.shape[1], device=mel.device) >= frames


def frame_count(samples: int, hop: int) -> int:
    """Whole frames of 2.5 hops in a signal."""
    return (samples - hop * 5 // 2) // hop + 1


def dft(length: int, points: int) -> Tensor:
    """[length, points] float64: real, then imaginary parts of the bins below Nyquist; zero-padded frames."""
    phase = torch.arange(length, dtype=torch.float64)[:, None] * torch.arange(points // 2)
    angle = (phase % points) * (2 * math.pi / points)
    return torch.cat((angle.cos(), -angle.sin()), 1)


def mel_triangles(rate_hz: int, points: int, low_hz: float, high_hz: float) -> Tensor:
    """Kaldi's triangles, linear in mel = 1127 ln(1 + f/700); bins below Nyquist: [points/2, 128] float64"""
    centre = _mel(torch.arange(points // 2, dtype=torch.float64) * rate_hz / points)[:, None]
    edges = torch.linspace(_mel_of(low_hz), _mel_of(high_hz), BINS + 2, dtype=torch.float64)
    rising = (centre - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - centre) / (edges[2:] - edges[1:-1])
    return torch.minimum(rising, falling).clamp(min=0)


def shrink_mask(mask: Tensor, count: int) -> Tensor:
    """BEATs' reduction of a padding mask [B, N] to [B, count]: the last N mod count entries go, then every
    group of N // count that is padding throughout is padding."""
    kept = mask[:, : mask.shape[1] - mask.shape[1] % count]
    return kept.reshape(mask.shape[0], count, -1).all(-1)


def _mel(hertz: Tensor) -> Tensor:
    return 1127 * torch.log1p(hertz / 700)


def _mel_of(hertz: float) -> float:
    return 1127 * math.log1p(hertz / 700)


@contextmanager
def _full_precision(signal: Tensor) -> Iterator[None]:
    """Neither autocast nor TF32: its 10-bit mantissa would bury weak bands under strong ones."""
    before = torch.get_float32_matmul_precision()
    with torch.autocast(signal.device.type, enabled=False):
        if before == "highest":
            yield
            return
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)
