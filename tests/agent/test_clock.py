"""Whether the clock is right: asked of timesyncd, else the kernel, else systemd; what cannot be known is False."""

from __future__ import annotations

from pathlib import Path

import pytest

from asd_agent.service import clock


@pytest.fixture(autouse=True)
def forget(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(clock, "_known", None)
    monkeypatch.setattr(clock, "_TIMESYNCD", tmp_path / "synchronized")


def test_timesyncd_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "_kernel", lambda: False)
    assert not clock.synchronized()
    (tmp_path / "synchronized").touch()
    monkeypatch.setattr(clock, "_known", None)
    assert clock.synchronized()


@pytest.mark.parametrize(
    ("kernel", "timedatectl", "wanted"),
    [(True, False, True), (False, True, False), (None, True, True), (None, False, False)],
)
def test_the_kernel_is_asked_first(
    monkeypatch: pytest.MonkeyPatch, kernel: bool | None, timedatectl: bool, wanted: bool
) -> None:
    monkeypatch.setattr(clock, "_kernel", lambda: kernel)
    monkeypatch.setattr(clock, "_timedatectl", lambda: timedatectl)
    assert clock.synchronized() is wanted


def test_the_answer_is_kept_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    now = [1000.0]
    monkeypatch.setattr(clock, "_kernel", lambda: bool(asked.append(1)) or len(asked) >= 2)
    monkeypatch.setattr(clock.time, "monotonic", lambda: now[0])
    assert [clock.synchronized() for _ in range(5)] == [False] * 5
    now[0] += 31
    assert [clock.synchronized() for _ in range(5)] == [True] * 5
    now[0] += 300
    assert clock.synchronized()
    assert len(asked) == 2
    now[0] += 301
    assert clock.synchronized()
    assert len(asked) == 3


def test_the_real_clock_has_an_answer() -> None:
    assert clock._kernel() in (True, False, None)
    assert clock._timedatectl() in (True, False)
    assert clock.synchronized() in (True, False)
