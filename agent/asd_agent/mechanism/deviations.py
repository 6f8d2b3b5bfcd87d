"""Standard scores of many windows against their baseline, as one verdict: what is too little in one window adds up."""

from __future__ import annotations

import numpy as np

from asd_agent.mechanism.baseline import Deviation, Verdict
from asd_agent.mechanism.statistics import log_two_sided_p
from asd_agent.types import Floats

MOST_GAIN = 3.0  # neighbouring windows resemble each other: their mean is never worth more than nine independent ones


class MeanDeviations:
    """Sums only: its size does not depend on the number of windows."""

    def __init__(self) -> None:
        self._sums: dict[str, Floats] = {}  # indicator -> (windows, value, normal value, z)

    def add(self, verdict: Verdict) -> None:
        for d in verdict.deviations:
            known = self._sums.get(d.name)
            values = np.array([1.0, d.value, d.normal, d.z])
            self._sums[d.name] = values if known is None else known + values

    def verdict(self, trials: int = 1) -> Verdict | None:
        """The means, each z scaled by the root of its windows up to MOST_GAIN; p-values pay for `trials`. None before
        the first window."""
        if not self._sums:
            return None
        count, value, normal, z = np.array(list(self._sums.values())).T
        z = z / count * np.minimum(np.sqrt(count), MOST_GAIN)
        p = np.minimum(1.0, trials * np.exp(log_two_sided_p(z)))
        names = list(self._sums)
        found = [
            Deviation(names[i], float(value[i] / count[i]), float(normal[i] / count[i]), float(z[i]), float(p[i]))
            for i in np.argsort(-np.abs(z))
        ]
        return Verdict(None, None, {}, tuple(found))
