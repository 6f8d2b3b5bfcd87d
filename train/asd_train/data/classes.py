"""Which class a training clip belongs to: the labels of the auxiliary classification task.

Every class is named, so that a checkpoint can say what its head's rows are: `2025/fan/00/m-n=X`,
`2025/slider/00/source` (no attributes known), `2025/fan/00/noise`, `2025/valve/00/clean`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from asd_agent.errors import UsageError
from asd_train.data.clip import Clip


class ClassOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`classes:` of a training configuration.

    Reports: A attributes, domain without them, clean joins, noise out; B attributes, noise and clean as
    classes of their own; C and E as A; D attributes and domain always.
    """

    attributes: bool = True  # False: one class a machine and section
    domain: Literal["never", "without_attributes", "always"] = "without_attributes"
    noise: Literal["class", "drop"] = "drop"  # supplemental clips without the machine
    clean: Literal["class", "join", "drop"] = "join"  # join: named like any other clip of the machine
    years: Literal["apart", "together"] = "apart"  # the fan of 2023 and that of 2025 are two machines, or one


@dataclass(frozen=True)
class ClassMap:
    """Names of the classes, in the order of the head's rows."""

    names: tuple[str, ...]
    options: ClassOptions

    @classmethod
    def build(cls, clips: Iterable[Clip], options: ClassOptions | None = None) -> ClassMap:
        """The classes of these training clips, by name; raises UsageError when there are fewer than two."""
        options = options or ClassOptions()
        names = tuple(sorted({name for clip in clips if (name := class_name(clip, options)) is not None}))
        if len(names) < 2:
            raise UsageError(
                f"only {len(names)} class in the training data, a classifier needs two: "
                "add machines, attributes (attributes.csv) or supplemental clips"
            )
        return cls(names, options)

    def __len__(self) -> int:
        return len(self.names)

    def label(self, clip: Clip) -> int:
        """Row of the clip's class; -1 when the clip has no class or one that was not trained."""
        name = class_name(clip, self.options)
        return self._rows.get(name, -1) if name is not None else -1

    def labels(self, clips: Sequence[Clip]) -> npt.NDArray[np.int64]:
        """Rows [n] of the clips' classes, -1 as in `label`."""
        return np.array([self.label(clip) for clip in clips], np.int64)

    def keep(self, clips: Iterable[Clip]) -> list[Clip]:
        """The clips that have a class: what the training set consists of."""
        return [clip for clip in clips if self.label(clip) >= 0]

    def counts(self, clips: Iterable[Clip]) -> dict[str, int]:
        """Class name -> number of clips, in the order of the rows."""
        found = Counter(class_name(clip, self.options) for clip in clips)
        return {name: found[name] for name in self.names}

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.names)}


def class_name(clip: Clip, options: ClassOptions) -> str | None:
    """Name of the clip's class; None when the options leave the clip out."""
    year = f"{clip.year}/" if clip.year and options.years == "apart" else ""
    machine = f"{year}{clip.machine}/{clip.section}"
    if clip.kind == "noise":
        return f"{machine}/noise" if options.noise == "class" else None
    if clip.kind == "clean" and options.clean != "join":
        return f"{machine}/clean" if options.clean == "class" else None
    parts = [f"{key}={value}" for key, value in clip.attributes] if options.attributes else []
    if options.domain == "always" or (options.domain == "without_attributes" and not parts):
        parts.append(clip.domain)
    return "/".join([machine, ",".join(parts)]).rstrip("/")
