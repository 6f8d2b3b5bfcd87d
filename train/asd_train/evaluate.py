"""Embeddings of a data set -> scores, figures and files as the challenge wants them.

Each machine and section is judged by itself: its normal training clips make the bank, its test clips are
scored. The banks are those of the agent, so a score here is the score there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from asd_agent.bank import Bank
from asd_agent.errors import UsageError
from asd_agent.types import Floats
from asd_train.data.clip import Clip
from asd_train.metrics import Rules, Scored
from asd_train.scoring import Normals, Scoring, fit, score
from asd_train.weighting import Weights, excess_weights, twfr

LogMel = Callable[[str], Floats]  # path -> [frames, bands]


@dataclass(frozen=True)
class Section:
    """The scores of one section of one machine."""

    year: int
    machine: str
    section: str
    clips: tuple[Clip, ...]  # test clips, by file name
    scores: Floats  # [clips]
    normals: tuple[Clip, ...]  # normal training clips that a bank without them has scored
    held_out: Floats  # [normals] those scores; may be empty

    @property
    def name(self) -> str:
        """`fan`, or `fan 02` where sections go beyond the first."""
        return self.machine if self.section == "00" else f"{self.machine} {self.section}"

    @property
    def labelled(self) -> bool:
        """Whether figures can be computed: every clip has a label and a domain, and both labels occur."""
        return all(c.label and c.domain for c in self.clips) and len({c.label for c in self.clips}) == 2

    def scored(self) -> Scored:
        return Scored(
            f"{self.year} {self.name}" if self.year else self.name,
            self.scores,
            np.array([c.label == "anomaly" for c in self.clips]),
            np.array([c.domain == "target" for c in self.clips]),
        )


def sections_of(clips: Sequence[Clip]) -> dict[tuple[int, str, str], list[int]]:
    """Rows of each (year, machine, section) that has test clips; raises UsageError without any."""
    groups: dict[tuple[int, str, str], list[int]] = {}
    for row, clip in enumerate(clips):
        groups.setdefault(clip.group, []).append(row)
    tested = {g: rows for g, rows in groups.items() if any(clips[r].split == "test" for r in rows)}
    if not tested:
        raise UsageError("no test clips: nothing to evaluate (their folder is <machine>/test)")
    for year, machine, section in tested:
        if not any(is_normal(clips[r]) for r in tested[year, machine, section]):
            raise UsageError(f"{machine} {section}: test clips, but no normal clips in train to compare them with")
    return dict(sorted(tested.items()))


def evaluate(
    clips: Sequence[Clip],
    vectors: Floats,
    scoring: Scoring,
    log_mel: LogMel | None = None,
    blocks: Sequence[int] = (),
) -> list[Section]:
    """Score every section; `vectors` [clips, dim] belong to `clips`, `blocks` are the values in each of their bands.

    `log_mel` is needed for `scoring.weight` of energy. Raises UsageError when a section cannot be scored.
    """
    return [
        _evaluate([clips[r] for r in rows], vectors[rows], scoring, log_mel, blocks)
        for rows in sections_of(clips).values()
    ]


def bank_of(clips: Sequence[Clip], vectors: Floats, scoring: Scoring, blocks: Sequence[int] = ()) -> Bank:
    """The bank that `evaluate` scores a machine's test clips by; clips of one machine and section, and their `vectors`
    [clips, dim]. Raises UsageError for what only an evaluation can do."""
    if scoring.weight is not None:
        raise UsageError("scoring.weight compares all test clips with the training: no bank can do that")
    source, target = _normal_rows(clips, scoring)
    return fit(Normals(vectors[source], vectors[target]), scoring, blocks)


def rules_of(clips: Sequence[Clip]) -> Rules:
    """The rules of the clips' year; raises UsageError when their years have different ones."""
    found: set[Rules] = {_rules(clip.year) for clip in clips}
    if len(found) > 1:
        raise UsageError("clips of years with different rules: evaluate them apart, or choose --rules")
    return found.pop() if found else "2022"


def _rules(year: int) -> Rules:
    by_year: Mapping[int, Rules] = {2020: "2020", 2021: "2021"}
    return by_year.get(year, "2022")


def is_normal(clip: Clip) -> bool:
    """Of the recordings that a bank is made of."""
    return clip.split == "train" and clip.kind == "clip" and clip.label == "normal"


def _evaluate(
    clips: list[Clip], vectors: Floats, scoring: Scoring, log_mel: LogMel | None, blocks: Sequence[int]
) -> Section:
    test = sorted((r for r, c in enumerate(clips) if c.split == "test"), key=lambda r: clips[r].file)
    source, target = _normal_rows(clips, scoring)
    normals = Normals(vectors[source], vectors[target])
    weights = None
    if scoring.weight is not None:
        weights = _weights(clips, vectors, (source, target), test, scoring, log_mel)
    try:
        scores = score(normals, vectors[test], scoring, weights, blocks)
    except UsageError as exc:
        raise UsageError(f"{clips[0].machine} {clips[0].section}: {exc}") from exc
    year, machine, section = clips[0].group
    usable = np.flatnonzero(np.isfinite(scores.held_out))
    normal_rows = [*source, *target]
    return Section(
        year,
        machine,
        section,
        tuple(clips[r] for r in test),
        scores.test,
        tuple(clips[normal_rows[r]] for r in usable),
        scores.held_out[usable],
    )


def _normal_rows(clips: Sequence[Clip], scoring: Scoring) -> tuple[list[int], list[int]]:
    """Rows of the source's and of the target's normal clips; supplemental ones count to the source."""
    joining = {"none": (), "clean": ("clean",), "all": ("clean", "noise")}[scoring.supplemental]
    normal = [r for r, c in enumerate(clips) if is_normal(c)]
    source = [r for r in normal if clips[r].domain != "target"]
    target = [r for r in normal if clips[r].domain == "target"]
    more = [r for r, c in enumerate(clips) if c.split == "supplemental" and c.kind in joining]
    return (source or target) + more, target if source else []


def _weights(
    clips: Sequence[Clip],
    vectors: Floats,
    normals: tuple[list[int], list[int]],
    test: list[int],
    scoring: Scoring,
    log_mel: LogMel | None,
) -> Weights:
    """`normals`: rows of the source's and of the target's normal clips."""
    weight = scoring.weight
    assert weight is not None
    both = [*normals[0], *normals[1]]
    more = [r for r, c in enumerate(clips) if c.split == "supplemental"] if weight.supplemental else []
    total = np.ones(len(test)), np.ones(len(both))
    for kind in weight.of:
        x = vectors
        if kind == "energy":
            if log_mel is None:
                raise UsageError("weight of energy: needs the recordings, embeddings alone do not do")
            x = np.array([twfr(log_mel(clip.path), weight.r) for clip in clips])
        parts = excess_weights([x[normals[0]], x[normals[1]], x[more]], x[both], x[test], weight.strength)
        total = total[0] * parts[0], total[1] * parts[1]
    return total
