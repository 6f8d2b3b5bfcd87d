"""Losses over embeddings: ArcFace, sub-center ArcFace, AdaCos/SCAdaCos, SupCon, source separation.

Every classification loss is called as `loss(x, targets, primary)`:
    x        [batch, dim]      embeddings, any length (they are normalised here)
    targets  [batch, classes]  label weights, each row sums to 1 (one-hot, or mixed)
    primary  [batch]           the label that a margin applies to; None = the heaviest one
and returns a scalar. Everything is computed in float32: a margin of 0.2 is lost in bfloat16.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def centre_index(classes: int, centres: int | Sequence[int]) -> Tensor:
    """Rows of the centre matrix by class, [classes, max centres]; short rows repeat their first centre.

    Centres are stored class by class. Repeating one leaves a maximum over the row unchanged.
    """
    counts = [centres] * classes if isinstance(centres, int) else list(centres)
    if len(counts) != classes or min(counts, default=0) < 1:
        raise ValueError(f"{len(counts)} centre counts (smallest {min(counts, default=0)}) for {classes} classes")
    index = torch.empty(classes, max(counts), dtype=torch.long)
    first = 0
    for row, count in zip(index, counts, strict=True):
        row[:] = first
        row[:count] = torch.arange(first, first + count)
        first += count
    return index


class ArcFace(nn.Module):
    """Additive angular margin (Deng et al. 2019); several centres per class = sub-center ArcFace (2020).

    cos_c is the largest cosine to the centres of class c; the primary class gets cos(theta + m).
    Beyond theta > pi - m that would rise again, so cos - m sin(m) takes over (as in the authors' code).
    """

    index: Tensor

    def __init__(
        self, dim: int, classes: int, *, scale: float, margin: float, centres: int | Sequence[int] = 1
    ) -> None:
        super().__init__()
        self.scale, self.margin = scale, margin
        self.register_buffer("index", centre_index(classes, centres), persistent=False)
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(int(self.index.max()) + 1, dim)))

    def cosines(self, x: Tensor) -> Tensor:
        """[batch, dim] -> [batch, classes], the best centre of each class."""
        cos = F.linear(F.normalize(x.float(), dim=-1), F.normalize(self.weight.float(), dim=-1))
        return cos[:, self.index].amax(-1)

    def logits(self, x: Tensor, primary: Tensor) -> Tensor:
        cos = self.cosines(x)
        own = cos.gather(1, primary[:, None])
        sin = (1.0 - own.square()).clamp_min(1e-12).sqrt()
        shifted = own * math.cos(self.margin) - sin * math.sin(self.margin)
        fallback = own - self.margin * math.sin(self.margin)
        shifted = torch.where(own > -math.cos(self.margin), shifted, fallback)
        return self.scale * cos.scatter(1, primary[:, None], shifted)

    def forward(self, x: Tensor, targets: Tensor, primary: Tensor | None = None) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            logits = self.logits(x, targets.argmax(1) if primary is None else primary)
            return F.cross_entropy(logits, targets.float())


class AdaCos(nn.Module):
    """(Sub-cluster) AdaCos (Zhang et al. 2019; Wilkinghoff 2021): a softmax over cosines without a margin.

    The scale starts at sqrt(2) ln(C S - 1); with `dynamic` it follows the batch's median angle.
    The probability of a class is the sum over its S sub-centres.
    `trainable=False` keeps the centres at their random initial directions.
    """

    scale: Tensor

    def __init__(
        self, dim: int, classes: int, *, centres: int = 16, dynamic: bool = False, trainable: bool = True
    ) -> None:
        super().__init__()
        self.classes, self.centres, self.dynamic = classes, centres, dynamic
        rows = nn.init.xavier_uniform_(torch.empty(classes * centres, dim))
        self.weight = nn.Parameter(rows, requires_grad=trainable)
        # At two centres the formula gives 0 and nothing would be learnt.
        scale = math.sqrt(2) * math.log(max(classes * centres - 1, 2))
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32))

    def forward(self, x: Tensor, targets: Tensor, primary: Tensor | None = None) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            targets = targets.float()
            cos = F.linear(F.normalize(x.float(), dim=-1), F.normalize(self.weight.float(), dim=-1))
            if self.dynamic and self.training:
                self._follow(cos.detach(), targets)
            log_p = (self.scale * cos).log_softmax(-1)
            log_p = log_p.reshape(len(x), self.classes, self.centres).logsumexp(-1)
            return -(targets * log_p).sum(-1).mean()

    @torch.no_grad()
    def _follow(self, cos: Tensor, targets: Tensor) -> None:
        """s <- (M + ln B) / cos(min(pi/4, median angle to the own centres))."""
        logits = self.scale * cos
        peak = logits.max()
        mean = (logits - peak).exp().sum(-1).mean()
        angles = cos.clamp(-1 + 1e-7, 1 - 1e-7).acos()
        own = (targets.repeat_interleave(self.centres, dim=1) * angles).sum(-1)
        self.scale.copy_((peak + mean.log()) / own.median().clamp_max(math.pi / 4).cos())


def supcon(x: Tensor, labels: Tensor, temperature: float, base_temperature: float = 0.07) -> Tensor:
    """Supervised contrastive loss (Khosla et al. 2020), one view: x [batch, dim], labels [batch] -> scalar.

    Each clip against all others of the batch. A clip without a partner of its class contributes 0.
    """
    with torch.autocast(x.device.type, enabled=False):
        x = F.normalize(x.float(), dim=-1)
        self_pair = torch.eye(len(x), dtype=torch.bool, device=x.device)
        log_p = (x @ x.T / temperature).masked_fill(self_pair, -torch.inf).log_softmax(-1)
        positive = (labels[:, None] == labels[None, :]) & ~self_pair
        per_anchor = log_p.masked_fill(~positive, 0.0).sum(-1) / positive.sum(-1).clamp_min(1)
        return -(temperature / base_temperature) * per_anchor.mean()


def separation(estimate: Tensor, clean: Tensor, counted: Tensor) -> Tensor:
    """Squared error of separated features: estimate, clean [batch, tokens, values]; counted [batch, tokens].

    Only counted tokens enter: no padding, no clip whose clean component is unknown. 0 when none counts.
    """
    error = (estimate.float() - clean.float()).square().mean(-1)
    return (error * counted).sum() / counted.sum().clamp_min(1)
