"""The step of a training that is kept, where the configuration asks for a choice: `select: dev_score`.

Every snapshot is evaluated on the labelled test clips of the training's data, and the one with the best official score
becomes RUN/system. Whoever selects so has used the test labels: the run's log, the system's card, what is exported from
it, and every evaluation of it say so.

    run/selection.json     official score of each step, and the step that was kept
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec

from asd_agent.errors import UsageError
from asd_train.config import System
from asd_train.curve import points_of
from asd_train.data import Clip, load_clips
from asd_train.evaluate import evaluate, rules_of, sections_of
from asd_train.folders import written_whole
from asd_train.logmel import log_mel_of
from asd_train.model import CARD, Card
from asd_train.results import Remarks, summarise
from asd_train.subject import Options, open_subject


def labelled_clips(config: System) -> list[Clip]:
    """The clips that a choice is made on, with the normals that they are compared with; raises UsageError without
    labels."""
    clips = load_clips(config.data)
    rules_of(clips)
    groups = sections_of(clips)
    if not all(clips[row].label and clips[row].domain for rows in groups.values() for row in rows):
        raise UsageError(f"{config.name}: select: dev_score needs the labels of all test clips; leave select out")
    return clips


def keep_best(config: System, run: Path, device: str) -> tuple[int, dict[int, float]]:
    """Evaluate the snapshots of a run and make RUN/system of the best; (step, official score of each step).

    The earlier of equal ones is taken.
    """
    clips = labelled_clips(config)
    scores = {step: _score(folder, clips, device) for step, folder in points_of(run).items()}
    best = max(scores, key=lambda step: scores[step])
    source = run / "snapshots" / f"step-{best:08d}"
    card = msgspec.json.decode((source / CARD).read_bytes(), type=Card)
    card = msgspec.structs.replace(card, training={**card.training, "selected": words(best, len(scores))})
    with written_whole(run / "system") as part:
        shutil.copytree(source, part, dirs_exist_ok=True)
        (part / CARD).write_bytes(msgspec.json.format(msgspec.json.encode(card), indent=1) + b"\n")
    told: dict[str, Any] = {"by": config.select, "kept": best, "scores": scores, "note": words(best, len(scores))}
    (run / "selection.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return best, scores


def words(step: int, count: int) -> str:
    return f"step {step} of {count} was chosen by the official score of labelled test clips (select: dev_score)"


def _score(folder: Path, clips: list[Clip], device: str) -> float:
    subject = open_subject(folder, Options(device=device))
    vectors = subject.embed(clips, lambda what, done, total: None)
    sections = evaluate(clips, vectors, subject.scoring, log_mel_of, subject.blocks)
    score: float = summarise(sections, rules_of(clips), 0, Remarks())["score"]
    return score
