"""A deviation becomes the words that a fitter would use."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from asd_agent.encode.bundle import Bundle
from asd_agent.encode.deviation import band, describe
from asd_agent.encode.meta import Axis, Output

HZ = [100.0 * 2 ** (i / 4) for i in range(20)]  # 100 Hz .. 2.69 kHz
LEVEL = Output(name="spectrum", dim=20, distance="whitened", axes=[Axis(quantity="level", values=HZ)])
BOTH = Output(
    name="both",
    dim=40,
    distance="whitened",
    axes=[Axis(quantity="level", values=HZ), Axis(quantity="unsteadiness", values=HZ)],
)
RATES = Output(
    name="rates",
    dim=31,
    distance="whitened",
    axes=[Axis(quantity="modulation", values=[float(i) for i in range(1, 32)])],
)

CARRIERS = [(500.0, 800.0), (800.0, 1300.0), (1300.0, 2100.0), (2100.0, 3400.0)]
PER_BAND = Output(
    name="per_band",
    dim=12,
    distance="whitened",
    axes=[Axis(quantity="modulation", values=[5.0, 30.0, 90.0], band_hz=band_hz) for band_hz in CARRIERS],
)


def deviation(dim: int, **values: float) -> np.ndarray:
    z = np.zeros(dim)
    for index, value in values.items():
        z[int(index[1:])] = value
    return z


@pytest.mark.parametrize(
    ("output", "z", "words"),
    [
        (LEVEL, deviation(20, i12=7.2), "800 Hz louder (z 7)"),
        (LEVEL, deviation(20, i12=-7.2), "800 Hz quieter (z 7)"),
        (LEVEL, deviation(20, i16=4, i17=9, i18=4), "1.6-2.26 kHz louder (z 9)"),
        (LEVEL, deviation(20, i12=5, i13=5, i14=5), "800 Hz-1.13 kHz louder (z 5)"),
        (LEVEL, deviation(20, i4=5, i5=5), "200-238 Hz louder (z 5)"),
        (LEVEL, deviation(20, i2=4, i12=-9), "800 Hz quieter (z 9), 141 Hz louder (z 4)"),
        (LEVEL, deviation(20, i12=5000), "800 Hz louder (z 999)"),
        (BOTH, deviation(40, i32=6), "800 Hz less steady (z 6)"),
        (BOTH, deviation(40, i32=-6), "800 Hz steadier (z 6)"),
        (RATES, deviation(31, i11=8), "more modulation at 12 Hz (z 8)"),
        (RATES, deviation(31, i11=-8, i12=-8), "less modulation at 12-13 Hz (z 8)"),
        (PER_BAND, deviation(12, i5=8), "more modulation at 90 Hz of the sound at 800 Hz-1.3 kHz (z 8)"),
        (PER_BAND, deviation(12, i2=4, i5=8, i8=5), "more modulation at 90 Hz of the sound at 500 Hz-2.1 kHz (z 8)"),
        (
            PER_BAND,
            deviation(12, i2=7, i8=8),
            "more modulation at 90 Hz of the sound at 1.3-2.1 kHz (z 8), "
            "more modulation at 90 Hz of the sound at 500-800 Hz (z 7)",
        ),
        (
            PER_BAND,
            deviation(12, i5=8, i6=-7),
            "more modulation at 90 Hz of the sound at 800 Hz-1.3 kHz (z 8), "
            "less modulation at 5 Hz of the sound at 1.3-2.1 kHz (z 7)",
        ),
    ],
)
def test_words(output: Output, z: np.ndarray, words: str) -> None:
    assert describe(output, z) == words


def test_the_band_of_a_modulation_is_the_one_whose_envelope_it_is() -> None:
    assert band(PER_BAND, deviation(12, i5=8, i8=5)) == (800.0, 2100.0)
    assert band(RATES, deviation(31, i11=8)) is None


def test_a_hole_does_not_split_a_band_and_a_wide_gap_does() -> None:
    assert describe(LEVEL, deviation(20, i10=6, i13=6)) == "566-951 Hz louder (z 6)"
    assert describe(LEVEL, deviation(20, i10=6, i14=6)).count("louder") == 2


def test_a_wide_band_comes_before_a_higher_peak() -> None:
    wide = deviation(20, **{f"i{i}": 6.0 for i in range(10, 18)}, i1=8)
    assert describe(LEVEL, wide, parts=1) == "566 Hz-1.9 kHz louder (z 6)"


def test_small_changes_are_called_small() -> None:
    assert describe(LEVEL, deviation(20, i12=1.6)) == "many small changes, most: 800 Hz louder (z 2)"


def test_nothing_to_say() -> None:
    assert describe(LEVEL, np.zeros(20)) == ""
    assert describe(Output(name="learnt", dim=3, distance="cosine"), np.ones(3)) == ""


def test_a_deviation_of_another_embedding_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="spectrum"):
        describe(LEVEL, np.zeros(19))


@given(arrays(np.float64, 128, elements=st.floats(allow_nan=True, allow_infinity=True)))
def test_any_deviation_of_a_shipped_embedding_can_be_told(z: np.ndarray) -> None:
    output = Bundle.load("default").meta.outputs[1]
    text = describe(output, z)
    assert "\n" not in text
    assert len(text) < 200
