"""The bank of one machine's training clips, which goes with a bundle: source and target apart, as in evaluation."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from asd_agent.bank import Bank
from asd_agent.encode.meta import BankFile
from asd_agent.errors import UsageError
from asd_train.data import Clip, DataSource, load_clips
from asd_train.evaluate import bank_of, is_normal
from asd_train.subject import Options, open_subject

FILE = "bank.npz"


def machine_bank(system: Path, machine: str, folders: Sequence[str] = ()) -> Bank:
    """By the system's own scoring, of the clips of a machine in `folders`, or in the data that the system was trained
    on. Raises UsageError."""
    if not any((folder / "system.json").is_file() for folder in (system, system / "system")):
        raise UsageError(f"--bank: {system} is no trained system, it has no scoring; make one with asd-train fit")
    subject = open_subject(system, Options(device="cpu"))
    clips = _clips(machine, [DataSource(path=folder) for folder in folders] or list(subject.data))
    return bank_of(clips, subject.embed(clips, lambda what, done, total: None), subject.scoring, subject.blocks)


def packed(bank: Bank, machine: str) -> tuple[BankFile, bytes]:
    """What `bundle.json` says of a bank, but for the checksum, and the file."""
    stream = io.BytesIO()
    np.savez(stream, **bank.arrays())  # type: ignore[arg-type]
    return BankFile(file=FILE, kind=bank.kind, machine=machine), stream.getvalue()


def _clips(machine: str, sources: Sequence[DataSource]) -> list[Clip]:
    """Of one machine and section, without the test clips."""
    found = [clip for clip in load_clips(list(sources)) if clip.split != "test"]
    clips = [clip for clip in found if clip.machine == machine]
    if not any(map(is_normal, clips)):
        known = ", ".join(sorted({clip.machine for clip in found if is_normal(clip)}))
        raise UsageError(f"--bank {machine}: no normal clips of it in the data, only of {known or 'no machine'}")
    groups = sorted({clip.group for clip in clips if is_normal(clip)})
    if len(groups) > 1:
        names = ", ".join(f"{year or ''} section {section}".strip() for year, _, section in groups)
        raise UsageError(f"--bank {machine}: several in the data ({names}); name the folder of one with --data")
    return [clip for clip in clips if clip.group == groups[0]]
