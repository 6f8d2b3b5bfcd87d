"""One recording and what its name, its folder and the tables beside it say about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Domain = Literal["source", "target", ""]
Split = Literal["train", "test", "supplemental"]
Label = Literal["normal", "anomaly", ""]
Kind = Literal["clip", "noise", "clean"]


@dataclass(frozen=True, slots=True)
class Clip:
    """A recording. `domain` and `label` are empty where nobody says (evaluation without ground truth)."""

    path: str
    machine: str
    year: int = 0  # of the challenge; 0 = a machine of one's own, or unknown
    section: str = "00"  # the machine's id in 2020
    domain: Domain = "source"
    split: Split = "train"
    label: Label = "normal"
    attributes: tuple[tuple[str, str], ...] = ()  # (key, value); empty = none, or hidden
    kind: Kind = "clip"  # noise: the surroundings without the machine; clean: the machine without them

    @property
    def file(self) -> str:
        """The file's name without folders: what the challenge's tables call it."""
        return self.path.rsplit("/", 1)[-1]

    @property
    def group(self) -> tuple[int, str, str]:
        """(year, machine, section): clips that share one set of normals."""
        return self.year, self.machine, self.section
