"""asd-agent doctor: what is wrong here, and what to do about it; one line a check; exit 1 if any fails."""

from __future__ import annotations

import argparse
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asd_agent import config
from asd_agent.baseline import BaselineStore
from asd_agent.cli.options import add_config, add_json
from asd_agent.cli.words import console, print_json, progress, wrapped
from asd_agent.errors import AsdError, EndOfSource
from asd_agent.service import client, clock
from asd_agent.service.control import DaemonAbsent, ask
from asd_agent.types import Samples

OLDEST_CLOCK_UTC_S = 1_767_225_600.0  # 2026-01-01: this version did not exist before
LITTLE_DISK = 500 << 20
LISTEN_S = 3.0
STYLE = {"ok": "green", "warn": "yellow", "fail": "bold red"}


@dataclass(frozen=True)
class Finding:
    grade: str  # ok, warn, fail
    what: str
    words: str  # what was found; what to do


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    settings = config.load(args.config)
    findings = []
    for finding in _findings(args, settings):
        findings.append(finding)
        if not args.json:
            _print(finding)
    failures = sum(f.grade == "fail" for f in findings)
    warnings = sum(f.grade == "warn" for f in findings)
    if args.json:
        print_json(findings)
        return 1 if failures else 0
    print(f"{failures} failure(s), {warnings} warning(s)" if failures or warnings else "all is well")
    return 1 if failures else 0


def _findings(args: argparse.Namespace, settings: config.Config) -> Iterator[Finding]:
    yield Finding("ok", "configuration", f"{args.config}: {len(settings.machines)} machine(s)")
    for check in (_state_directory, _disk, _damage, _clock, _bundles, _baselines, _sources, _broker):
        yield from _guarded(check, settings)


def _print(finding: Finding) -> None:
    from rich.text import Text

    out = console()
    words = wrapped(f"{finding.what}: {finding.words}", out.width - 5).replace("\n", "\n     ")
    grade = "FAIL" if finding.grade == "fail" else finding.grade
    out.print(Text.assemble((f"{grade:4} ", STYLE[finding.grade]), words), soft_wrap=True)


def _guarded(check: Callable[[config.Config], Iterator[Finding]], settings: config.Config) -> Iterator[Finding]:
    try:
        yield from check(settings)
    except AsdError as exc:
        yield Finding("fail", check.__name__.strip("_").replace("_", " "), str(exc))


def _state_directory(settings: config.Config) -> Iterator[Finding]:
    path = settings.state_dir
    existing = next(p for p in (path, *path.parents) if p.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        yield Finding(
            "fail", "state directory", f"{path}: you may not write here; run as the service's user, or mend its rights"
        )
    elif not path.is_dir():
        yield Finding("warn", "state directory", f"{path} does not exist yet; the daemon makes it")
    else:
        yield Finding("ok", "state directory", str(path))
    try:
        ask(settings, "status")
    except DaemonAbsent:
        yield Finding("warn", "daemon", "not running: systemctl start asd-agent, or asd-agent run")
    else:
        yield Finding("ok", "daemon", "running")


def _disk(settings: config.Config) -> Iterator[Finding]:
    existing = next(p for p in (settings.state_dir, *settings.state_dir.parents) if p.exists())
    free = shutil.disk_usage(existing).free
    words = f"{free / 2**30:.1f} GiB free at {existing}"
    if free < LITTLE_DISK:
        yield Finding("fail", "disk", f"{words}: free some, or lower agent.score_days and evidence.max_total_mb")
    else:
        yield Finding("ok", "disk", words)


def _damage(settings: config.Config) -> Iterator[Finding]:
    from asd_agent.store import Reader

    reader = Reader(settings.state_dir)
    if not reader.path.exists():
        return
    reader.events(limit=1_000_000)
    reader.states()
    words = reader.damage()
    for line in words:
        yield Finding("warn", "database", line)
    if not words:
        yield Finding("ok", "database", "all alarm events and states can be read")


def _clock(settings: config.Config) -> Iterator[Finding]:
    if time.time() < OLDEST_CLOCK_UTC_S:
        yield Finding("fail", "clock", f"says {time.strftime('%Y-%m-%d')}: set it, and enable time synchronisation")
    elif not clock.synchronized():
        yield Finding(
            "warn", "clock", "not synchronised: enable systemd-timesyncd or chrony; times carry time_synced: false"
        )
    else:
        yield Finding("ok", "clock", "synchronised")


def _bundles(settings: config.Config) -> Iterator[Finding]:
    from asd_agent.encode.bundle import Bundle
    from asd_agent.encode.encoder import Encoder

    for name in sorted({n for machine in settings.machines for n in (*machine.bundles, *machine.shadowed.bundles)}):
        encoder = Encoder(Bundle.load(name))
        meta = encoder.bundle.meta
        outputs = ", ".join(output.name for output in meta.outputs)
        yield Finding("ok", f"bundle {name}", f"{meta.name}, {meta.rate_hz} Hz, {encoder.variant}: {outputs}")


def _baselines(settings: config.Config) -> Iterator[Finding]:
    from asd_agent.scoring.pipeline import open_pipeline

    for machine in settings.machines:
        what = f"baseline of {machine.id}"
        try:
            baseline = BaselineStore(settings.state_dir, machine.id).active()
            if baseline is None:
                yield Finding("warn", what, f"none is active: asd-agent calibrate {machine.id}, then baseline promote")
                continue
            open_pipeline(machine, baseline)
        except AsdError as exc:
            yield Finding("fail", what, str(exc))
            continue
        except PermissionError as exc:
            yield Finding(
                "fail", what, f"{exc.filename}: permission denied; run doctor as root or as the service's user"
            )
            continue
        report = baseline.manifest.report
        age_days = (time.time() - baseline.manifest.created_utc_s) / 86400
        words = f"{baseline.manifest.version}, {report.windows} windows, {age_days:.0f} days old"
        yield Finding(
            "ok" if report.good else "warn", what, words if report.good else f"{words}. {' '.join(report.advice)}"
        )


def _sources(settings: config.Config) -> Iterator[Finding]:
    """Listen for a moment to each source that the daemon does not hold."""
    for machine in settings.machines:
        what = f"source of {machine.id}"
        try:
            known = next((m for m in client.status(settings).machines if m.machine == machine.id), None)
        except AsdError:
            known = None
        if known is not None:
            good = "ok" if known.health.source_available else "fail"
            yield Finding(good, what, f"held by the daemon: {known.health.source_detail}")
            if known.health.source_available and known.health.reasons:
                yield Finding("warn", f"health of {machine.id}", "; ".join(known.health.reasons))
            continue
        try:
            yield _listen(machine, what)
        except AsdError as exc:
            yield Finding("fail", what, str(exc))


def _listen(machine: config.Machine, what: str) -> Finding:
    from asd_agent.capture import open_source

    if isinstance(machine.source, config.StdinSource):
        return Finding("ok", what, "standard input of the daemon")
    if (
        isinstance(machine.source, config.FileSource | config.DirectorySource)
        and not Path(machine.source.path).exists()
    ):
        return Finding("fail", what, f"{machine.source.path}: no such file or folder")
    wanted = max(machine.channels)
    heard: list[Samples] = []
    rate_hz, delivers = 0, ""
    with open_source(machine.source, machine.channels) as source, progress(f"listening to {machine.id}") as update:
        deadline = time.monotonic() + LISTEN_S
        while (left_s := deadline - time.monotonic()) > 0:
            update(1 - left_s / LISTEN_S, "")
            try:
                block = source.read(0.5)
            except EndOfSource:
                break
            if block is not None and block.samples.shape[1] <= wanted:
                return Finding("fail", what, f"has {block.samples.shape[1]} channel(s), channel {wanted} is wanted")
            if block is None:
                continue
            rate_hz, delivers = block.rate_hz, f"delivers at {block.rate_hz} Hz"
            if machine.reference is None:
                return Finding("ok", what, delivers)
            heard.append(block.samples[:, list(machine.channels)])
            if sum(map(len, heard)) >= LISTEN_S / 2 * rate_hz:
                break
        if not heard:
            return Finding("fail", what, f"{source.status().detail}; names and holders: asd-agent devices")
    return _reference(machine, what, delivers, np.concatenate(heard), rate_hz)


def _reference(machine: config.Machine, what: str, delivers: str, samples: Samples, rate_hz: int) -> Finding:
    """Of the second microphone; samples [n, 2]."""
    from asd_agent.decide.reason import too_coherent
    from asd_agent.windowing.reference import frame_of, hears_machine, room_sound, subtract

    near, far = samples.T
    if 10 * math.log10(max(float(np.var(far)), 1e-30)) < machine.quality.silence_dbfs:
        return Finding("fail", what, f"{delivers}, but the reference (channel {machine.channels[1]}) is silent")
    room = room_sound(subtract(near, far, frame_of(rate_hz, len(near))), rate_hz)
    if (coherence := hears_machine([room])) is not None:
        return Finding("warn", what, f"{delivers}; {too_coherent(coherence)}")
    return Finding("ok", what, f"{delivers}; the reference microphone explains {room.coherence:.0%} of the sound")


def _broker(settings: config.Config) -> Iterator[Finding]:
    if settings.mqtt is None:
        yield Finding("warn", "broker", "none configured: alarms stay on this machine")
        return
    from asd_agent.publish.connection import Connection, VersionRefused
    from asd_agent.publish.mqtt import V5, VERSIONS

    what, where = "broker", settings.mqtt.url
    versions = VERSIONS[settings.mqtt.protocol]
    for version in versions:
        connection = Connection(settings.mqtt, version, f"asd-agent-doctor-{os.getpid()}")
        try:
            connection.open()
        except VersionRefused:
            if version is versions[-1]:
                raise
            continue
        connection.close()
        yield Finding("ok", what, f"connected to {where} (MQTT {'5' if version is V5 else '3.1.1'})")
        return
