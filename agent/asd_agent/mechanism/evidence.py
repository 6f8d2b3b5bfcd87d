"""How much a line at a given frequency speaks for a hypothesis that predicts one there.

A line is weighed by its rank among all lines of the same spectrum, so no noise model is needed and a spectrum that is
full of lines of something else gives little. A rank gives a p-value, and p -> KAPPA p^(KAPPA - 1) turns it into an
e-value (Vovk & Wang, Annals of Statistics 49, 2021): under the null hypothesis its mean is 1 at most. E-values of
different lines multiply, and their average over all that was searched (speed, slip, spacing) is an e-value again: this
is how trials are counted. 1 / e is a p-value that holds without further correction.
"""

from __future__ import annotations

import numpy as np
from scipy.special import gammainccinv

from asd_agent.mechanism.spectrum import Floor, Spectrum, local_maximum
from asd_agent.types import Floats, Samples

KAPPA = 0.25
CELL = 3  # bins: a line is looked for in the best of three
LOWEST_HZ = 2.0  # below it an envelope holds slow changes of load
MUTED_BINS = 2
LINE_P = 3e-3  # a line stands out by itself when noise gives its like this rarely
TAIL, LEAST_P = 0.05, 1e-4
RAW_FLOOR_HZ = 6.0


class LineEvidence:
    """Of one whitened power spectrum, `df_hz` per bin."""

    def __init__(self, power: Samples, df_hz: float, muted_hz: Floats, windows: int = 1, lowest_hz: float = LOWEST_HZ):
        """power [bins]: 1 on average where there is only noise; the mean of `windows` such spectra. Lines at `muted_hz`
        speak neither for nor against anything."""
        self.df_hz = df_hz
        self._best = local_maximum(power)
        cells = np.sort(self._best[::CELL])
        p = _upper_tail(cells, self._best, LEAST_P / windows)
        self._e = np.asarray(KAPPA * p ** (KAPPA - 1), np.float32)
        self._e[: max(1, int(lowest_hz / df_hz))] = 1.0
        centres = np.rint(muted_hz / df_hz).astype(np.intp)
        self.mute_bins(centres)
        self._line = float(gammainccinv(windows, LINE_P / CELL) / windows)
        self._log_e: dict[float, Samples] = {}

    def mute_bins(self, centres: np.ndarray, reach: int = MUTED_BINS) -> None:
        """Bins around the centres say nothing from now on."""
        at = (centres[:, None] + np.arange(-reach, reach + 1)).ravel()
        self._e[at[(at >= 0) & (at < len(self._e))]] = 1.0
        self._log_e = {}

    def without(self, lines_hz: Floats) -> LineEvidence:
        """A copy in which the named lines are muted."""
        copy = object.__new__(LineEvidence)
        copy.df_hz, copy._best, copy._line = self.df_hz, self._best, self._line
        copy._e, copy._log_e = self._e.copy(), {}
        copy.mute_bins(np.rint(lines_hz / self.df_hz).astype(np.intp))
        return copy

    @property
    def top_hz(self) -> float:
        return (len(self._e) - 1) * self.df_hz

    def log_e(self, hz: Floats, presence: float) -> Samples:
        """ln e-value of the lines at `hz` [...], each there with the probability `presence` under the hypothesis; 0
        outside the spectrum."""
        table = self._log_e.get(presence)
        if table is None:
            table = self._log_e[presence] = np.log((1 - presence) + presence * self._e)
            table[0] = table[-1] = 0.0
        bins = (hz * (1 / self.df_hz) + 0.5).astype(np.int32)
        return np.asarray(table.take(np.clip(bins, 0, len(table) - 1)))

    def stands_out(self, hz: Floats) -> np.ndarray:
        """[...] bool: the best of three bins exceeds what noise gives once in 1 / LINE_P places."""
        bins = np.clip(np.rint(hz / self.df_hz).astype(np.intp), 0, len(self._best) - 1)
        return np.asarray((self._best[bins] > self._line) & (hz < self.top_hz))

    def power(self, hz: Floats) -> Samples:
        """[...] whitened power, the best of three bins."""
        bins = np.clip(np.rint(hz / self.df_hz).astype(np.intp), 0, len(self._best) - 1)
        return np.asarray(self._best[bins])


def _upper_tail(cells: Samples, values: Samples, least_p: float) -> Floats:
    """[n] p-values: ranks among the sorted cells; a line far above all others counts more than its rank says, by the
    exponential tail through the mean excess of the highest twentieth, but not without limit."""
    above = len(cells) - np.searchsorted(cells, values, side="left")
    ranks = (above + 1.0) / (len(cells) + 1.0)
    high = cells[int((1 - TAIL) * len(cells)) :]
    excess = float(np.mean(high - high[0])) + 1e-6
    tail = TAIL * np.exp(-np.maximum(values - high[0], 0.0) / excess)
    return np.asarray(np.where(values > high[-1] / 2, np.maximum(np.minimum(ranks, tail), least_p), ranks))


def raw_power(spectrum: Spectrum, top_hz: float) -> Samples:
    """[bins] power of the vibration itself up to `top_hz`, over the floor around each bin: harmonics of the shaft."""
    stop = min(len(spectrum.log_power), int(top_hz / spectrum.df_hz) + 8)
    log_power = spectrum.log_power[:stop]
    floor = Floor.of(log_power, round(RAW_FLOOR_HZ / spectrum.df_hz)).at(np.arange(stop))
    return np.asarray(np.exp(np.minimum(log_power - floor, 60.0)) * np.float32(np.log(2)))
