"""Machines of `scenes`, calibrated, and what they hear: described once, kept on disk, judged again in seconds."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from scenes import Day, Episode, Site

from asd_agent import config
from asd_agent.calibration import build as calibrate
from asd_agent.decide.blocks import sessions
from asd_agent.scoring.pipeline import Pipeline, open_pipeline
from asd_agent.types import Block, Cause, Description, Quality, Samples, Transient, WindowResult
from asd_agent.windowing.windower import Windower

LEAD_S, TAIL_S = 900.0, 90.0
CHUNK_S = 60.0
VERSION = 2  # of the scenes: another one makes what is cached void


@dataclass(frozen=True)
class Cache:
    folder: Path

    def descriptions(self, key: str, make: Callable[[], list[Description]]) -> list[Description]:
        path = self.folder / f"{hashlib.sha256(f'{VERSION} {key}'.encode()).hexdigest()[:24]}.npz"
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            temporary = path.with_suffix(".part.npz")
            np.savez(temporary, **_packed(make()))  # type: ignore[arg-type]
            temporary.replace(path)
        with np.load(path) as stored:
            return _unpacked({k: stored[k] for k in stored.files})


def _packed(found: Sequence[Description]) -> dict[str, Any]:
    good = [d for d in found if d.embeddings]
    names = list(good[0].embeddings) if good else []
    return {
        "when": np.array([(d.index, d.start_s, d.duration_s, d.utc_s) for d in found]),
        "origin": np.array([d.origin for d in found]),
        "reasons": np.array([" ".join(d.quality.causes) for d in found]),
        "quality": np.array([(q.level_dbfs, q.peak, q.dc, q.clipped) for q in (d.quality for d in found)]),
        "transient": np.array([(t.at_s, t.excess_db) if (t := d.transient) else (np.nan, np.nan) for d in found]),
        **{f"embedding {k}": np.stack([d.embeddings[k] for d in good]) for k in names},
    }


def _unpacked(a: dict[str, Any]) -> list[Description]:
    row, out = 0, []
    names = [k for k in a if k.startswith("embedding ")]
    for i, (index, start_s, duration_s, utc_s) in enumerate(a["when"]):
        causes = tuple(map(Cause, str(a["reasons"][i]).split()))
        at_s, excess_db = a["transient"][i]
        out.append(
            Description(
                index=int(index),
                start_s=start_s,
                duration_s=duration_s,
                utc_s=utc_s,
                origin=str(a["origin"][i]),
                quality=Quality(causes, *map(float, a["quality"][i])),
                embeddings={} if causes else {k[10:]: a[k][row] for k in names},
                transient=None if np.isnan(at_s) else Transient(float(at_s), float(excess_db)),
            )
        )
        row += not causes
    return out


# -- a machine, calibrated


class Calibrated:
    """A site with its baseline; describes what is heard there."""

    def __init__(self, site: Site, bundles: list[str], cache: Cache) -> None:
        self.site = site
        self._cache = cache
        self.machine = config.Machine(
            id="m", source=config.StdinSource(rate_hz=site.rate_hz), window_s=site.window_s, hop_s=site.hop_s,
            bundle=bundles,
        )  # fmt: skip
        self._bare = open_pipeline(self.machine, None)
        made_with = sorted(e.bundle.sha256 for e in self._bare.encoders.values())
        self._key = f"{site.name} {site.window_s} {site.hop_s} {made_with}"
        origins = [recording.origin for recording in site.calibration]
        normal = cache.descriptions(f"{self._key} calibration {origins}", self._calibration)
        self._normal = normal
        self.baseline = calibrate.build(self.machine, normal, self._bare, "benchmark")
        self.pipeline = Pipeline(self.machine, self._bare.encoders, self.baseline)

    @cached_property
    def held_out(self) -> list[float]:
        """Fused scores of the calibration's windows, each judged without its block; as if there were one state."""
        usable = [d for d in self._normal if d.quality.assessable]
        session = sessions([d.utc_s for d in usable], [d.origin for d in usable])
        return list(calibrate.fit_state("all", self.machine, self._bare, usable, session).held_out)

    def _calibration(self) -> list[Description]:
        return [
            d for r in self.site.calibration
            for d in self._describe([(r.samples, True)], r.origin, self._bare)
        ]  # fmt: skip

    def clean(self, day: Day, seconds: float) -> list[WindowResult]:
        """The first `seconds` of a day."""
        found = self._cache.descriptions(
            f"{self._key} {day.name} clean {seconds}",
            lambda: self._described(lambda a, b: _span(day, a, b), 0, seconds),
        )
        return [self.pipeline.judge(d) for d in found]

    def episode(self, episode: Episode, clean: Sequence[WindowResult]) -> list[WindowResult]:
        """From `LEAD_S` before to `TAIL_S` after the episode; what lies outside it is the clean stream."""
        hop_s, window_s = self.site.hop_s, self.site.window_s
        first = int((episode.start_s - window_s) // hop_s) + 1  # the windows that hear some of it
        end = int((episode.start_s + episode.seconds) // hop_s) + 1
        touched = self._cache.descriptions(
            f"{self._key} {episode.name}",
            lambda: self._described(episode.span, first * hop_s, end * hop_s - hop_s + window_s),
        )
        shift = first - touched[0].index
        before = round(LEAD_S / hop_s)
        lead = [*clean, *clean[:first]][-before:]
        tail = clean[end - round(episode.seconds / hop_s) :][: round(TAIL_S / hop_s)]  # the clean stream may be short
        loud = [moved(self.pipeline.judge(d), d.index + shift, hop_s) for d in touched[: end - first]]
        lead = [moved(r, first - before + i, hop_s) for i, r in enumerate(lead)]
        return [*lead, *loud, *(moved(r, end + i, hop_s) for i, r in enumerate(tail))]

    def _described(self, span: Callable[[float, float], Samples], first_s: float, end_s: float) -> list[Description]:
        cuts = [*np.arange(first_s, end_s, CHUNK_S), end_s]
        parts = ((span(a, b), b == end_s) for a, b in itertools.pairwise(cuts))
        return self._describe(parts, "", self._bare)

    def _describe(self, parts: Iterable[tuple[Samples, bool]], origin: str, pipeline: Pipeline) -> list[Description]:
        rate_hz, at, out = self.site.rate_hz, 0, []
        windower = Windower(rate_hz, self.site.window_s, self.site.hop_s, pipeline.rates)
        for samples, last in parts:
            block = Block(samples[:, None], rate_hz, at, at / rate_hz, 0.0, origin=origin, last=last)
            out += [pipeline.describe(w) for w in windower.push(block, 0)]
            at += len(samples)
        return out


def _span(day: Day, first_s: float, end_s: float) -> Samples:
    return day.span(round(first_s * day.rate_hz), round(end_s * day.rate_hz))


def moved(result: WindowResult, index: int, hop_s: float) -> WindowResult:
    return replace(result, index=index, start_s=index * hop_s, utc_s=index * hop_s)
