"""Filterbanks of the encoders as matrix products: the same module trains on a GPU and is exported to ONNX.

Kaldi's per-frame chain (mean removal, pre-emphasis, window, DFT) is linear, so it folds into products with two
matrices; the power spectrum, the mel triangles and the logarithm follow. No complex numbers, no framing
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
EMPHASIS = 0.97
LINEAR_HZ = 40  # between the bins of a linear spectrum: frames of 25 ms
LINEAR_FLOOR = 1e-12  # of the power; about what 16 bits leave in a bin
LINEAR_MEAN, LINEAR_SD = -18.5, 3.5  # of the log power of recorded machines at 16 kHz
EAT_MULTIPLE = 32  # frames are padded to a multiple of this, as in published use (10 s: 998 -> 1024)


class LogMel(nn.Module):
    """Frames of a signal, tapered -> power spectrum -> `mel` triangles -> natural logarithm.

    taper: [2.5 * hop], symmetric; mel: [points / 2, 128]. `mean_weight` of a frame's value among `means` is taken from
    its samples.

    Power does not depend on where time begins. Seen from the middle of the frame the real part of its spectrum is that
    of its symmetric half, the imaginary part that of its antisymmetric half: half the products, and sums that are half
    as long and round less.
    """

    cosines: Tensor  # [1.25 * hop, bins]
    sines: Tensor
    mel: Tensor  # [bins, 128]

    def __init__(
        self, taper: Tensor, points: int, mel: Tensor, floor: float, offset: float, mean_weight: float = 0.0
    ) -> None:
        super().__init__()
        used = mel.sum(1) > 0  # Nyquist, and whatever lies outside of all triangles
        half = len(taper) // 2
        waves = taper[:half, None, None] * dft(half, points, -half + 0.5)[:, :, used]
        for name, part in (("cosines", waves[:, 0]), ("sines", waves[:, 1]), ("mel", mel[used])):
            self.register_buffer(name, part.float().contiguous(), persistent=False)
        self.hop = len(taper) * 2 // 5
        self.floor, self.offset, self.mean_weight = floor, offset, mean_weight

    def forward(self, signal: Tensor, means: Tensor | None = None) -> Tensor:
        """[B, N], and [B, frames, 1] or None -> [B, frames = 1 + (N - 2.5 hop) // hop, 128]"""
        with _full_precision(signal):
            first, last = self._halves(signal.float())
            symmetric = first + last if means is None else first + last - 2 * self.mean_weight * means
            real, imaginary = symmetric @ self.cosines, (first - last) @ self.sines
            power = (real * real + imaginary * imaginary) @ self.mel
            return torch.log(torch.clamp(power + self.offset, min=self.floor))

    def _halves(self, signal: Tensor) -> tuple[Tensor, Tensor]:
        """[B, N] -> first half of every frame, and the other one backwards [B, frames, 1.25 * hop]"""
        quarter = self.hop // 4
        parts = whole_hops(signal, self.hop).reshape(len(signal), -1, self.hop)
        last = torch.cat([parts[:, 1:-1, quarter:], parts[:, 2:, : self.hop // 2]], 2)
        return torch.cat([parts[:, :-2], parts[:, 1:-1, :quarter]], 2), last.flip(2)


class KaldiFbank(nn.Module):
    """Kaldi's log-mel filterbank at 16 kHz: frames of 400, hop 160, 512-point DFT, 128 bands of 20-8000 Hz.

    Per frame: minus its mean, pre-emphasis 0.97 with the first sample repeated, window, power, natural
    logarithm with floor float32 epsilon. window: "povey" (BEATs; Hann^0.85) or "hanning" (EAT). scale
    multiplies the waveform.

    The windows begin with 0, so that the repeated sample has no effect and pre-emphasis can come first; 0.03 of the
    mean of the plain samples is what it leaves of that.
    """

    def __init__(self, window: str, scale: float = 1.0) -> None:
        super().__init__()
        with torch.device("cpu"):  # constants are computed even where the weights around them are not ("meta")
            taper = torch.hann_window(400, periodic=False, dtype=torch.float64)
            taper = taper**0.85 if window == "povey" else taper
            mel = mel_triangles(16_000, 512, 20, 8000)
            self.log_mel = LogMel(scale * taper, 512, mel, FLOOR, 0.0, mean_weight=1 - EMPHASIS)

    def forward(self, signal: Tensor) -> Tensor:
        """[B, N] -> [B, 1 + (N - 400) // 160, 128]"""
        signal = signal.float()
        hop = self.log_mel.hop
        halves = whole_hops(signal, hop).reshape(len(signal), -1, hop // 2).sum(2)
        means = (halves[:, :-4:2] + halves[:, 1:-4:2] + halves[:, 2:-2:2] + halves[:, 3:-2:2] + halves[:, 4::2]) / 400
        before = F.pad(signal[:, :-1], (1, 0))
        emphasised = (signal - before) + (1 - EMPHASIS) * before  # rounds less than signal - 0.97 before
        mel: Tensor = self.log_mel(emphasised, means[..., None])
        return mel


class BeatsFrontend(nn.Module):
    """BEATs: 16-bit scale, Povey window, fixed normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.fbank = KaldiFbank("povey", scale=2.0**15)

    def forward(self, waveform: Tensor, padding_mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Waveform [B, N] -> (normalised filterbank [B, frames, 128], frame mask [B, frames] | None)"""
        waveform = waveform.float()
        # A constant has no effect in exact arithmetic, but costs digits.
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
        with torch.device("cpu"):
            window = torch.hann_window(800, periodic=False, dtype=torch.float64)
            self.log_mel = LogMel(window, 1024, mel_triangles(32_000, 1024, 0, 15_000), floor=0.0, offset=1e-5)

    def forward(self, waveform: Tensor, padding_mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Waveform [B, N] -> (normalised mel [B, frames, 128], frame mask [B, frames] | None)"""
        waveform = waveform.float()
        emphasised = waveform[:, 1:] - EMPHASIS * waveform[:, :-1]
        mel = (self.log_mel(F.pad(emphasised, (400, 400), mode="reflect")) + 4.5) / 5
        if padding_mask is None:
            return mel, None
        frames = ((~padding_mask).sum(1, keepdim=True) - 1) // 320 + 1
        return mel, torch.arange(mel.shape[1], device=mel.device) >= frames


class LinearFrontend(nn.Module):
    """Linear spectrum of 25 ms Hann frames every 10 ms, at the same frequencies in Hz whatever the sampling rate.

    Window and waves are taken at the times of the samples, and the window sums to 1: a tone has the same level, and so
    has noise of the same density, at every rate. Frames are cut to whole patches of `multiple`; with a padding mask
    every clip of the batch gets the values that it would get alone. `hertz` [bins]; rate_hz is a multiple of 100.
    """

    cosines: Tensor  # [frame, bins]
    sines: Tensor

    def __init__(self, rate_hz: int, hertz: Tensor, multiple: int) -> None:
        super().__init__()
        self.hop, self.frame, self.multiple = rate_hz // 100, math.ceil(rate_hz / LINEAR_HZ), multiple
        with torch.device("cpu"):
            times = torch.arange(self.frame, dtype=torch.float64) / rate_hz - 0.5 / LINEAR_HZ
            window = torch.cos(math.pi * LINEAR_HZ * times) ** 2
            angle = 2 * math.pi * times[:, None] * hertz
            for name, wave in (("cosines", angle.cos()), ("sines", angle.sin())):
                self.register_buffer(name, (window[:, None] / window.sum() * wave).float(), persistent=False)

    def forward(self, waveform: Tensor, padding_mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Waveform [B, N] -> (normalised log power [B, frames, bins], frame mask [B, frames] | None)"""
        with _full_precision(waveform):
            waveform, mask = waveform.float(), None
            if padding_mask is None:
                frames = self._frames(waveform - waveform.mean(1, keepdim=True))
            else:
                count = (~padding_mask).sum(1, keepdim=True)  # [B, 1] samples
                mean = waveform.masked_fill(padding_mask, 0).sum(1, keepdim=True) / count
                frames = self._frames(waveform - mean)
                whole = (1 + (count - self.frame) // self.hop) // self.multiple * self.multiple
                mask = torch.arange(frames.shape[1], device=frames.device) >= whole.clamp(min=self.multiple)
            real, imaginary = frames @ self.cosines, frames @ self.sines
            power = real * real + imaginary * imaginary
            return (torch.log(power + LINEAR_FLOOR) - LINEAR_MEAN) / (2 * LINEAR_SD), mask

    def _frames(self, signal: Tensor) -> Tensor:
        """[B, N] -> [B, frames, frame]"""
        count = (signal.shape[1] - self.frame) // self.hop + 1
        parts = F.pad(signal, (0, self.hop))[:, : (count + 2) * self.hop].reshape(len(signal), -1, self.hop)
        last = parts[:, 2:, : self.frame - 2 * self.hop]
        return torch.cat((parts[:, :-2], parts[:, 1:-1], last), 2)[:, : count // self.multiple * self.multiple]


def frame_count(samples: int, hop: int) -> int:
    """Whole frames of 2.5 hops in a signal."""
    return (samples - hop * 5 // 2) // hop + 1


def whole_hops(signal: Tensor, hop: int) -> Tensor:
    """[B, N] -> [B, (frames + 2) * hop]: cut where the last frame ends, and filled up."""
    count = frame_count(signal.shape[1], hop)
    return F.pad(signal[:, : (count + 1) * hop + hop // 2], (0, hop // 2))


def dft(length: int, points: int, start: float) -> Tensor:
    """[length, 2, points / 2] float64: cosines and sines of the bins below Nyquist, of times from `start` on."""
    times = torch.arange(length, dtype=torch.float64) + start
    angle = (times[:, None] * torch.arange(points // 2) % points) * (2 * math.pi / points)
    return torch.stack((angle.cos(), angle.sin()), 1)


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
