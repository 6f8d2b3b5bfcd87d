"""Which bundle a baseline is judged with: the one of the configuration, or the one that came with it."""

from __future__ import annotations

import re

from asd_agent.baseline.manifest import Baseline
from asd_agent.encode.bundle import Bundle
from asd_agent.errors import BaselineError, BundleError

_SHA256 = re.compile(r"[0-9a-f]{64}")


def bundle_of(name: str, baseline: Baseline | None) -> Bundle:
    """The bundle of a name in the configuration; the very one that the baseline was made with, where it was sent along.

    Raises BundleError, BaselineError.
    """
    made_with = baseline.manifest.bundles.get(name, "") if baseline is not None else ""
    if baseline is not None and baseline.bundles is not None and _SHA256.fullmatch(made_with):
        folder = baseline.bundles / made_with
        if folder.is_dir():
            try:
                return Bundle.load(folder)
            except BundleError as exc:
                raise BaselineError(str(exc)) from exc
    return Bundle.load(name)
