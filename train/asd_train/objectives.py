"""What a system is trained on: classification, OS-SCL, source separation. Each is a learner for the loop."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asd_agent.errors import UsageError
from asd_train import config as cfg
from asd_train import losses
from asd_train.data.dataset import Batch
from asd_train.layers import augment
from asd_train.layers.decoder import ConvDecoder
from asd_train.layers.perturb import FeaturePerturbation
from asd_train.loop import Learner
from asd_train.model import System
from asd_train.noise import NoisePool


class SystemLearner(Learner[Batch]):
    """A system with an objective. `padded`: batches may hold padding, else the mask is not looked at."""

    def __init__(self, system: System, padded: bool, pool: NoisePool | None) -> None:
        super().__init__()
        self.system, self.padded, self.pool = system, padded, pool

    def pretrained(self) -> set[int]:
        return {id(p) for branch in self.system.encoders for p in branch.backbone.parameters()}

    def clip_groups(self) -> list[list[nn.Parameter]]:
        branches = [list(branch.parameters()) for branch in self.system]
        inside = {id(p) for branch in branches for p in branch}
        return [*branches, [p for p in self.parameters() if id(p) not in inside]]

    def padding(self, batch: Batch) -> Tensor | None:
        return batch.padding if self.padded else None

    def with_noise(self, batch: Batch, options: cfg.NoiseMix | None) -> Tensor:
        """The batch's waveforms, some with noise of their machine."""
        if options is None or self.pool is None:
            return batch.waveform
        return self.pool.add_to(batch.waveform, batch.row, options.probability, options.snr_db)


class Classify(SystemLearner):
    """Which machine, attributes and domain a clip is of, over the joined branches."""

    def __init__(
        self,
        system: System,
        config: cfg.Classify,
        classes: Sequence[str],
        padded: bool = False,
        pool: NoisePool | None = None,
    ) -> None:
        super().__init__(system, padded, pool)
        self.config, self.classes = config, len(classes)
        dim, branches = sum(system.widths), len(system.widths)
        self.head = class_loss(config.loss, dim, classes)
        self.exchange_head: nn.Module | None = None
        if config.exchange:
            if branches < 2:
                raise UsageError("objective.exchange needs at least two branches to exchange features between")
            # The classes of exchanged features stand for mixtures of clips: no centre count of their own.
            self.exchange_head = class_loss(config.loss, dim, [""] * (branches + 1) * len(classes))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        x, padding = self.with_noise(batch, self.config.noise), self.padding(batch)
        targets = F.one_hot(batch.label, self.classes).float()
        flipped = self.config.partners == "flipped"
        if self.config.mixup:
            share = augment.mixup_shares(len(x), x, probability=self.config.mixup)
            partner = augment.partners(len(x), x, flipped)
            x, targets = augment.mix(x, partner, share), augment.mix(targets, partner, share)
            padding = None if padding is None else padding & padding[partner]
        branches = self.system.embed_branches(x, padding)
        loss: Tensor = self.head(torch.cat(branches, -1), targets)
        if self.exchange_head is None:
            return {"loss": loss}
        mixed, mixed_targets = augment.exchange_features(branches, targets, self.config.exchange, flipped)
        exchanged: Tensor = self.exchange_head(torch.cat(mixed, -1), mixed_targets)
        return {"loss": loss + exchanged, "class": loss, "exchange": exchanged}


class OsScl(SystemLearner):
    """One-stage supervised contrastive learning (OS-SCL).

    Mixed clips, the margin on the own label; ArcFace and SupCon both work behind the perturbation head, which
    scoring does without.
    """

    def __init__(
        self,
        system: System,
        config: cfg.OsScl,
        classes: Sequence[str],
        padded: bool = False,
        pool: NoisePool | None = None,
    ) -> None:
        super().__init__(system, padded, pool)
        self.config, self.classes = config, len(classes)
        dim = sum(system.widths)
        self.perturbation = FeaturePerturbation(dim)
        self.head = class_loss(config.loss, dim, classes)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        x, padding = self.with_noise(batch, self.config.noise), self.padding(batch)
        targets = F.one_hot(batch.label, self.classes).float()
        if self.config.mixup_beta is not None:
            share = augment.mixup_shares(len(x), x, beta=self.config.mixup_beta)
            partner = augment.partners(len(x), x)
            x, targets = augment.mix(x, partner, share), augment.mix(targets, partner, share)
            padding = None if padding is None else padding & padding[partner]
        features = self.perturbation(torch.cat(self.system.embed_branches(x, padding), -1))
        arcface: Tensor = self.head(features, targets, batch.label)
        contrast = losses.supcon(features, batch.label, self.config.temperature)
        return {"loss": arcface + self.config.supcon * contrast, "arcface": arcface, "supcon": contrast}

    @torch.no_grad()
    def after_update(self, step: int) -> None:
        trained: list[Tensor] = [p for p in self.parameters() if p.requires_grad]
        torch._foreach_mul_(trained, 1.0 - self.config.shrink)


class Separate(SystemLearner):
    """The clean machine's filterbank from a noisy mixture, token by token (source separation).

    Clips of machines with supplemental noise get that noise, all others white noise. Supplemental noise
    itself is no training clip, so that only what is known to hold the machine counts.
    """

    def __init__(
        self,
        system: System,
        config: cfg.Separate,
        supplemental: Sequence[bool],
        padded: bool = False,
        pool: NoisePool | None = None,
    ) -> None:
        """`supplemental` [clips]: training clips of which one copy beside `variants` stays without noise."""
        super().__init__(system, padded, pool)
        if len(system.encoders) != 1 or len(system.encoders[0].layers) != 1:
            raise UsageError("objective separate: needs one encoder branch with one layer")
        self.config, self.branch = config, system.encoders[0]
        self.supplemental = torch.tensor(supplemental)
        backbone, layer = self.branch.backbone, self.branch.layers[0]
        self.patch = backbone.patch_size(layer)
        self.decoder = ConvDecoder(backbone.dims[layer], math.prod(self.patch), blocks=config.decoder_blocks)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        padding = self.padding(batch)
        (tokens,) = self.branch.tokens(self._mixture(batch, padding), padding)
        estimate = self.decoder(tokens.features).flatten(1, 2)
        with torch.no_grad():
            mel, _ = self.branch.backbone.frontend(batch.waveform, padding)
            clean = patches(mel, tokens.features.shape[1], self.patch)
        counted = torch.ones_like(estimate[..., 0]) if tokens.mask is None else (~tokens.mask).flatten(1)
        return {"loss": losses.separation(estimate, clean, counted)}

    def _mixture(self, batch: Batch, padding: Tensor | None) -> Tensor:
        x = batch.waveform
        noise = torch.randn_like(x)
        if self.pool is not None:
            has = self.pool.has(batch.row).to(x.device)[:, None]
            noise = torch.where(has, self.pool.draw(batch.row, x.shape[1]).to(x.device), noise)
        if padding is not None:
            noise = noise.masked_fill(padding, 0.0)
        noisy = augment.add_noise(x, noise, augment.uniform(len(x), *self.config.snr_db, like=x))
        quiet = torch.rand(len(x)) < 1 / (1 + self.config.variants)
        quiet &= self.supplemental[batch.row.cpu()]
        return torch.where(quiet.to(x.device)[:, None], x, noisy)

    def before_update(self, progress: float) -> None:
        if progress >= self.config.decoder_share:  # the encoder goes on alone, through the decoder as it is
            for parameter in self.decoder.parameters():
                parameter.grad = None


def patches(mel: Tensor, times: int, size: tuple[int, int]) -> Tensor:
    """Filterbank [B, frames, bins] -> [B, patches, values of a patch], in the order of the tokens; `size`: frames and
    bins of a patch."""
    frames, bins = size
    mel = F.pad(mel, (0, 0, 0, max(0, times * frames - mel.shape[1])))[:, : times * frames]
    grid = mel.reshape(len(mel), times, frames, -1, bins).transpose(2, 3)
    return grid.reshape(len(mel), -1, frames * bins)


def class_loss(config: cfg.ClassLoss, dim: int, classes: Sequence[str]) -> nn.Module:
    """The configured loss over classes of these names."""
    if isinstance(config, cfg.AdaCos):
        return losses.AdaCos(
            dim, len(classes), centres=config.centres, dynamic=config.dynamic, trainable=config.trainable
        )
    special = config.centres_of.items()
    centres = [next((n for text, n in special if text in name), config.centres) for name in classes]
    return losses.ArcFace(dim, len(classes), scale=config.scale, margin=config.margin, centres=centres)
