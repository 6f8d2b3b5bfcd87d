"""The verbs that a person or a program may send, over the control socket or as an MQTT request.

Each verb is a struct: its fields are the arguments, an unknown or missing one is an error that names it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import msgspec
import structlog
from msgspec import Meta

from asd_agent.bank import Widen
from asd_agent.calibration.workflow import CalibrationOptions
from asd_agent.errors import CalibrationError, StoreError, UsageError
from asd_agent.log import tail
from asd_agent.service.clip_request import ClipChunk, ClipRequest
from asd_agent.service.install import InstallRequest
from asd_agent.service.live import Heard, check_allowed
from asd_agent.store import Store
from asd_agent.whatif import episodes

if TYPE_CHECKING:
    from asd_agent.service.daemon import Daemon
    from asd_agent.service.machine import Machine

log = structlog.get_logger()
S = TypeVar("S", bound=msgspec.Struct)


class _Verb(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class _ForMachine(_Verb, frozen=True, kw_only=True):
    machine: str


class Status(_Verb, frozen=True, kw_only=True):
    pass


class Acknowledge(_ForMachine, frozen=True, kw_only=True):
    by: str = ""
    reason: str = ""


class Shelve(_ForMachine, frozen=True, kw_only=True):
    until: Annotated[datetime, Meta(tz=True)] | None = None
    minutes: Annotated[float, Meta(gt=0, le=60 * 24 * 365)] | None = None  # from now, where no clock is at hand
    by: str = ""
    reason: str = ""


class Unshelve(_ForMachine, frozen=True, kw_only=True):
    by: str = ""
    reason: str = ""


class OutOfService(_ForMachine, frozen=True, kw_only=True):
    on: bool = True
    by: str = ""
    reason: str = ""


class Mark(_ForMachine, frozen=True, kw_only=True):
    """What a person says of an alarm afterwards."""

    alarm_id: str
    verdict: Literal["fault", "nothing"]
    by: str = ""
    reason: str = ""


class Promote(_ForMachine, frozen=True, kw_only=True):
    version: str | None = None


class Rollback(_ForMachine, frozen=True, kw_only=True):
    pass


class Calibrate(_ForMachine, frozen=True, kw_only=True):
    duration_s: Annotated[float, Meta(gt=0, le=7 * 86400)] | None = None
    paths: list[str] | None = None  # recordings that the daemon can read, instead of the live source
    promote: bool = False
    extend: bool = False  # a further state beside those of the active baseline
    name: str = ""  # of the further state
    widen: Widen = "smote"  # how a few windows of it are made more
    shadow: bool = False  # a candidate of the shadow's bundle


class CalibrateWithout(_ForMachine, frozen=True, kw_only=True):
    """The last calibration without some of its outliers: no new sound is needed."""

    outliers: list[Annotated[int, Meta(ge=1)]] = []  # as numbered in the report; none = all of them
    promote: bool = False


class Extend(_ForMachine, frozen=True, kw_only=True):
    """The unknown operating state of now becomes a known one."""

    name: str = ""
    since: Annotated[datetime, Meta(tz=True)] | None = None  # None = since the unknown state began
    last_s: Annotated[float, Meta(gt=0)] | None = None  # instead, where no clock is at hand
    promote: bool = True
    despite_alarm: bool = False  # also windows during which there was an alarm


class RenameState(_ForMachine, frozen=True, kw_only=True):
    old: str
    new: str


class Calibration(_ForMachine, frozen=True, kw_only=True):
    """Its progress."""


class CancelCalibration(_ForMachine, frozen=True, kw_only=True):
    pass


class Live(_ForMachine, frozen=True, kw_only=True):
    """The newest sound: level and spectrogram; `sound`: also itself. For the local page, never over MQTT."""

    after: int = 0  # frame up to which it is known
    sound: bool = False


class Log(_Verb, frozen=True, kw_only=True):
    """The newest lines of the daemon's log. Never over MQTT."""

    lines: Annotated[int, Meta(ge=1, le=500)] = 200


VERBS: dict[str, type[msgspec.Struct]] = {
    "status": Status,
    "ack": Acknowledge,
    "shelve": Shelve,
    "unshelve": Unshelve,
    "out_of_service": OutOfService,
    "promote": Promote,
    "rollback": Rollback,
    "calibrate": Calibrate,
    "calibrate_without": CalibrateWithout,
    "calibration": Calibration,
    "cancel_calibration": CancelCalibration,
    "extend": Extend,
    "rename_state": RenameState,
    "clip": ClipRequest,
    "mark": Mark,
    "install": InstallRequest,
}


LONGEST_TEXT = 4096
QUIET = (Status, Calibration, ClipRequest, InstallRequest, Live, Log)  # asked all the time; what is installed is logged


def _check_texts(verb: str, request: msgspec.Struct) -> None:
    """Raises UsageError for texts that no path, log line or message should hold."""
    for name, value in msgspec.structs.asdict(request).items():
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and ("\0" in text or len(text) > LONGEST_TEXT):
                raise UsageError(f"{verb}: {name} holds a NUL character or more than {LONGEST_TEXT} characters")


class Commands:
    """Checks a request and passes it to the machine or the daemon."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._verbs: dict[str, tuple[type[msgspec.Struct], Callable[[Any], Any]]] = {
            "status": (Status, lambda _: daemon.status()),
            "ack": (Acknowledge, self._acknowledge),
            "shelve": (Shelve, self._shelve),
            "unshelve": (Unshelve, lambda a: self._machine(a).alarm.unshelve(a.by, a.reason)),
            "out_of_service": (OutOfService, lambda a: self._machine(a).alarm.out_of_service(a.on, a.by, a.reason)),
            "promote": (Promote, lambda a: self._machine(a).active.promote(a.version)),
            "rollback": (Rollback, lambda a: self._machine(a).active.rollback()),
            "calibrate": (Calibrate, self._calibrate),
            "calibrate_without": (CalibrateWithout, self._calibrate_without),
            "extend": (Extend, self._extend),
            "rename_state": (RenameState, lambda a: self._machine(a).calibrator.rename_state(a.old, a.new)),
            "calibration": (Calibration, lambda a: self._machine(a).calibrator.progress()),
            "mark": (Mark, lambda a: self._machine(a).alarm.mark(a.alarm_id, a.verdict == "fault", a.by, a.reason)),
            "clip": (ClipRequest, lambda a: msgspec.to_builtins(self._clip(a))),
            "install": (InstallRequest, lambda a: msgspec.to_builtins(daemon.installer.take(a, daemon.settings))),
            "live": (Live, self._live),
            "log": (Log, lambda a: tail(a.lines)),
            "cancel_calibration": (CancelCalibration, lambda a: self._machine(a).calibrator.cancel()),
        }

    def __call__(self, verb: str, args: dict[str, Any]) -> Any:
        """The answer's data. Raises AsdError."""
        if verb not in self._verbs:
            raise UsageError(f"unknown verb {verb!r} (one of: {', '.join(sorted(self._verbs))})")
        kind, act = self._verbs[verb]
        try:
            request = msgspec.convert(args, kind)
        except msgspec.ValidationError as exc:
            raise UsageError(f"{verb}: {exc}") from exc
        _check_texts(verb, request)
        if kind in QUIET:
            return act(request)
        log.info("request", verb=verb, **{k: v for k, v in args.items() if k != "verb"})
        with self._daemon.changing:  # a reload must not replace the machine meanwhile: the answer would be forgotten
            return act(request)

    def _clip(self, args: ClipRequest) -> ClipChunk:
        self._daemon.machine(args.machine)  # raises for one that is not configured
        return self._daemon.clip(args)

    def _live(self, args: Live) -> Heard | None:
        check_allowed(self._daemon.settings, args.sound)
        return self._machine(args).live.heard(args.after, args.sound)

    def _machine(self, args: _ForMachine) -> Machine:
        return self._daemon.machine(args.machine)

    def _acknowledge(self, args: Acknowledge) -> str:
        return self._machine(args).alarm.acknowledge(args.by, args.reason)

    def _shelve(self, args: Shelve) -> str:
        if (args.until is None) == (args.minutes is None):
            raise UsageError("shelve: give one of until (RFC 3339) and minutes")
        now = time.time()
        until = args.until.timestamp() if args.until is not None else now + 60 * (args.minutes or 0.0)
        if until <= now:
            raise UsageError("shelve: the time has passed already")
        return self._machine(args).alarm.shelve(until, args.by, args.reason)

    def _calibrate(self, args: Calibrate) -> str:
        if (args.duration_s is None) == (args.paths is None):
            raise UsageError("calibrate: give one of duration_s and paths")
        calibrator = self._machine(args).calibrator
        options = CalibrationOptions(extend=args.extend, name=args.name, widen=args.widen, shadow=args.shadow)
        if args.shadow and (args.promote or args.extend):
            raise UsageError("calibrate: a candidate of the shadow's bundle cannot be promoted or extended")
        if args.paths is not None:
            return calibrator.calibrate_from(args.paths, args.promote, options)
        assert args.duration_s is not None
        return calibrator.calibrate(args.duration_s, args.promote, options)

    def _calibrate_without(self, args: CalibrateWithout) -> dict[str, Any]:
        manifest = self._machine(args).calibrator.calibrate_without(args.outliers, args.promote).manifest
        return {"version": manifest.version, "report": msgspec.to_builtins(manifest.report)}

    def _extend(self, args: Extend) -> str:
        if args.since is not None and args.last_s is not None:
            raise UsageError("extend: give one of since (RFC 3339) and last_s, or neither")
        since_utc_s = args.since.timestamp() if args.since is not None else None
        if args.last_s is not None:
            since_utc_s = time.time() - args.last_s
        machine = self._machine(args)
        if not args.despite_alarm:
            refuse_alarms(machine, since_utc_s)
        return machine.calibrator.extend(args.name, since_utc_s, args.promote)


def refuse_alarms(machine: Machine, since_utc_s: float | None) -> None:
    """What raised an alarm becomes normal only by a person's explicit word. Raises CalibrationError."""
    windows, _ = machine.active.windows_since(since_utc_s)
    try:
        with Store.reader(machine.baselines.state_dir) as store:
            alarms = episodes(store.events(machine=machine.id, limit=1000))
    except StoreError:
        return  # no database yet, so no alarm
    first_s, last_s = windows[0].utc_s, windows[-1].utc_s + windows[-1].duration_s
    for alarm in alarms:
        if alarm.raised_utc_s <= last_s and (alarm.cleared_utc_s or last_s) >= first_s:
            raise CalibrationError(
                f"{machine.id}: these windows raised the alarm {alarm.alarm_id[:8]} ({alarm.reason}). Only if they are "
                "normal all the same: baseline extend --despite-alarm"
            )
