"""What the student learns from a mixture: which family of everyday sound and which fault is in it, how much of each,
which machine it is, and what a teacher says of the parts."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asd_train.distil.faults import FRAME, RATE_HZ
from asd_train.distil.mixtures import KNOTS, MODULATION, NONE, Mixture
from asd_train.distil.recipe import Losses
from asd_train.distil.student import BANDS, LOW_HZ, SUMMARY, Student, decibel
from asd_train.layers.mel import mel_filters
from asd_train.loop import Learner

INAUDIBLE_DB, AUDIBLE_DB = -15.0, -5.0  # of a part over the rest, where its own energy lies
LOUDNESS = 0.3  # Stevens' exponent of power: how a teacher's tokens of the parts are weighed


class StudentLearner(Learner[Mixture]):
    """The student and the heads that only training needs."""

    knots: Tensor  # [bands, knots]
    meeting: Tensor  # [bands]
    bandwidth: Tensor  # [bands]

    def __init__(self, student: Student, losses: Losses, machines: int, tokens: int) -> None:
        super().__init__()
        self.student, self.weights = student, losses
        self.ratios = nn.Linear(SUMMARY, 2)
        self.identity = nn.Linear(SUMMARY, machines)
        self.teacher = nn.Linear(SUMMARY + sum(student.dims()), tokens) if tokens else None
        filters, centres_hz = mel_filters(BANDS, FRAME // 2 + 1, RATE_HZ / FRAME, LOW_HZ, RATE_HZ / 2)
        octaves = np.linspace(np.log2(LOW_HZ), np.log2(RATE_HZ / 2), KNOTS)
        spread = np.maximum(0, 1 - np.abs(np.log2(centres_hz)[:, None] - octaves) / (octaves[1] - octaves[0]))
        # The square of a cosine has the mean 1/2; a Hann window makes neighbours alike: 1.5 bins count as one.
        meeting = np.sqrt(0.5 * np.minimum(1.0, 1.5 * np.square(filters).sum(axis=0)))
        bandwidth = np.gradient(centres_hz) / np.gradient(centres_hz).sum()
        for name, value in (("knots", spread), ("meeting", meeting), ("bandwidth", bandwidth)):
            self.register_buffer(name, torch.from_numpy(value).float(), persistent=False)

    def forward(self, batch: Mixture) -> dict[str, Tensor]:
        db, ratio_db = self.heard(batch)
        heard = self.student(db)
        summary = torch.relu(heard.summary)
        audible = ((ratio_db - INAUDIBLE_DB) / (AUDIBLE_DB - INAUDIBLE_DB)).clamp(0, 1)  # [batch, nuisance and fault]
        found = {
            "nuisance": _tagging(heard.families, batch.family, audible[:, 0]),
            "fault": _tagging(heard.faults, batch.fault, audible[:, 1]),
            "ratio": self._ratio(summary, ratio_db),
            "identity": F.cross_entropy(self.identity(summary), batch.machine),
        }
        if self.teacher is not None:
            estimate = self.teacher(torch.cat((heard.summary, *heard.stages), 1))
            found["teacher"] = F.mse_loss(estimate, _mixed(batch))
        weights = {name: getattr(self.weights, name, 1.0) for name in found}
        return {"loss": torch.stack([weights[n] * v for n, v in found.items()]).sum(), **found}

    @torch.no_grad()
    def heard(self, batch: Mixture) -> tuple[Tensor, Tensor]:
        """dB [batch, bands, frames] of the mixture, and by how many dB nuisance and fault [batch, 2] stand above all
        else where their own energy lies."""
        gain_db = batch.response_db @ self.knots.T + 20 * torch.log10(batch.level.clamp_min(1e-6))[..., None]
        power = 10 ** ((batch.db + gain_db[..., None]) / 10) * (batch.level > 0)[..., None, None]
        power[:, 0] *= batch.swell[:, None]
        machine, nuisance, fault = power.unbind(1)
        modulated = (batch.fault == MODULATION)[:, None, None]  # is in the machine's power already
        mixed = self._added(self._added(machine, nuisance), fault.masked_fill(modulated, 0.0))
        share = power / power.sum(1, keepdim=True).clamp_min(1e-12)
        own = (power * share).sum((2, 3)) / power.sum((2, 3)).clamp_min(1e-12)
        own = own[:, 1:].clamp(1e-3, 1 - 1e-3)
        level = (self.bandwidth @ mixed).mean(1)  # the mean over the spectrum
        return decibel(mixed / level[:, None, None]), 10 * torch.log10(own / (1 - own))

    def _added(self, one: Tensor, other: Tensor) -> Tensor:
        """Mean powers of bands, two sounds together: their phases meet at random in every bin, and a band of few bins
        averages little of that out. Neighbouring frames share most of their samples. [batch, bands, frames]"""
        phases = torch.randn(one.shape[0], one.shape[1], one.shape[2] + 2, device=one.device)
        smooth = (phases[..., :-2] + phases[..., 1:-1] + phases[..., 2:]) / 3**0.5
        return one + other + 2 * (one * other).sqrt() * (self.meeting[:, None] * smooth).clamp(-0.95, 0.95)

    def _ratio(self, summary: Tensor, ratio_db: Tensor) -> Tensor:
        return F.smooth_l1_loss(self.ratios(summary), ratio_db.clamp(-20, 20) / 10)


def _tagging(logits: Tensor, label: Tensor, audible: Tensor) -> Tensor:
    """Binary cross-entropy over labels; one that can hardly be heard counts as far as it can."""
    target = torch.zeros_like(logits)
    present = label != NONE
    target[present, label[present]] = audible[present]
    return F.binary_cross_entropy_with_logits(logits, target, reduction="none").sum(1).mean()


def _mixed(batch: Mixture) -> Tensor:
    """The teacher's tokens of the parts, weighed by their loudness: the student retains what it hears, and does not
    denoise (arXiv 2510.25182). [batch, dim]"""
    loudness = batch.level ** (2 * LOUDNESS)
    known = batch.tokens.abs().sum(2) > 0  # a modulation has no tokens of its own
    weight = loudness * known
    return (batch.tokens * (weight / weight.sum(1, keepdim=True).clamp_min(1e-12))[..., None]).sum(1)
