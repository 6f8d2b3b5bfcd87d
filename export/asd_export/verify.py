"""Repeats the comparison of a bundle with the checkpoint that it was exported from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from asd_agent.encode.bundle import Bundle
from asd_agent.errors import BundleError
from asd_export import parity
from asd_export.subject import read_subject


def verify_bundle(
    folder: str | Path, checkpoint: str | Path | None = None, sounds: Sequence[str | Path] = ()
) -> dict[str, Any]:
    """The parity report. BundleError when the bundle is damaged or was made from another checkpoint."""
    bundle = Bundle.load(folder)
    if checkpoint is None:
        return parity.report(bundle, None, sounds)
    made = bundle.meta.provenance
    settings = {key: value for key, value in made.settings.items() if key not in ("layout", "window_s", "selected")}
    subject = read_subject(checkpoint, **settings)
    if subject.sha256 != made.source_sha256:
        raise BundleError(
            f"{checkpoint}: not what {folder} was exported from ({made.source}); its checksum is another one"
        )
    return parity.report(bundle, subject.module, sounds)
