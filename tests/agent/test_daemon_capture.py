"""The thread between a source and the machines that listen to it."""

from __future__ import annotations

import threading

import numpy as np
import soundfile

from asd_agent import config
from asd_agent.service import capture as capture_module
from asd_agent.service.capture import CaptureThread
from asd_agent.service.systemd import Progress


class Listener:
    channels = (0,)

    def __init__(self):
        self.blocks, self.lines, self.ended = 0, [], threading.Event()
        self.failed = threading.Event()
        self.waiting = 0

    @property
    def busy(self):
        return self.waiting >= 3

    def offer(self, block):
        self.blocks += 1
        self.waiting += 1

    def source_ended(self):
        self.ended.set()

    def source_failed(self, line):
        self.lines.append(line)
        self.failed.set()


def capture_of(source, listener):
    thread = CaptureThread("m", source, [listener], Progress(), lambda: None)
    thread.start()
    return thread


def test_recordings_wait_for_the_worker(tmp_path):
    listener = Listener()
    thread = capture_of(config.SimulatedSource(pace="fast", duration_s=5.0), listener)
    done = 0
    while not listener.ended.wait(0.02):
        assert listener.waiting <= 3
        done, listener.waiting = done + listener.waiting, 0
    assert listener.blocks == 20
    assert not thread.status().available
    assert "read to its end" in thread.status().detail
    thread.close()


def test_a_mistake_is_told_and_tried_again(monkeypatch, tmp_path):
    monkeypatch.setattr(capture_module, "REOPEN_S", 0.01)
    path, listener = tmp_path / "later.wav", Listener()
    thread = capture_of(config.FileSource(path=str(path), pace="fast"), listener)
    assert listener.failed.wait(10)
    assert "later.wav" in listener.lines[0]
    assert "later.wav" in thread.status().detail
    soundfile.write(tmp_path / "part.wav", 0.1 * np.random.default_rng(0).standard_normal(8000), 16_000)
    (tmp_path / "part.wav").rename(path)
    assert listener.ended.wait(10)
    assert listener.blocks == 2
    thread.close()


def test_a_bug_does_not_make_the_agent_deaf(monkeypatch):
    monkeypatch.setattr(capture_module, "REOPEN_S", 0.01)
    listener = Listener()
    calls = []

    def offer(block):
        calls.append(block)
        if len(calls) == 1:
            raise ZeroDivisionError("oops")

    listener.offer = offer
    thread = capture_of(config.SimulatedSource(pace="fast", duration_s=1.0), listener)
    assert listener.ended.wait(10)
    assert "internal error: ZeroDivisionError" in listener.lines[0]
    assert len(calls) == 1 + 4
    thread.close()
