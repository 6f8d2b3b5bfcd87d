"""Clips -> classes, as the reports differ in it."""

from __future__ import annotations

import pytest

from asd_agent.errors import UsageError
from asd_train.data import ClassMap, ClassOptions, Clip

X = (("m-n", "X"),)
CLIPS = [
    Clip("a.wav", "fan", 2025, attributes=X),
    Clip("b.wav", "fan", 2025, attributes=(("m-n", "W"),), domain="target"),
    Clip("c.wav", "fan", 2023, attributes=X),
    Clip("d.wav", "slider", 2025),
    Clip("e.wav", "slider", 2025, domain="target"),
    Clip("f.wav", "slider", 2025, split="supplemental", kind="noise"),
    Clip("g.wav", "fan", 2025, split="supplemental", kind="clean", attributes=X),
]


def names(**options):
    return ClassMap.build(CLIPS, ClassOptions(**options)).names


def test_domain_only_where_no_attributes_are_known():
    assert names() == (
        "2023/fan/00/m-n=X",
        "2025/fan/00/m-n=W",
        "2025/fan/00/m-n=X",
        "2025/slider/00/source",
        "2025/slider/00/target",
    )


def test_noise_and_clean_as_classes():
    assert set(names(noise="class", clean="class")) - set(names()) == {"2025/slider/00/noise", "2025/fan/00/clean"}


def test_the_other_options():
    assert names(attributes=False, domain="never", years="together") == ("fan/00", "slider/00")
    assert "2025/fan/00/m-n=W,target" in names(domain="always")
    assert "2025/slider/00" in names(domain="never")


def test_labels_of_clips_and_of_strangers():
    classes = ClassMap.build(CLIPS)
    assert classes.labels(CLIPS).tolist() == [2, 1, 0, 3, 4, -1, 2]  # the clean clip joins its attributes' class
    assert classes.label(Clip("x.wav", "valve", 2025)) == -1
    assert [c.path for c in classes.keep(CLIPS)] == ["a.wav", "b.wav", "c.wav", "d.wav", "e.wav", "g.wav"]
    assert classes.counts(CLIPS)["2025/fan/00/m-n=X"] == 2


def test_one_class_is_no_classification():
    with pytest.raises(UsageError, match="only 1 class"):
        ClassMap.build(CLIPS[:1])
