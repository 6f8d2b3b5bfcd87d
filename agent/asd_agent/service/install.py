"""The verb `install`: a signed baseline or bundle arrives in chunks over MQTT, or is fetched from the plant's server.

Nothing of a payload is taken before the signature of its header is found to be that of `artefacts.public_key`. Names of
files never come with a request: a baseline goes to the machine that the signed header names, as its candidate, and a
bundle into `<state_dir>/bundles/<checksum>`, where the baselines that were made with it find it.
"""

from __future__ import annotations

import fnmatch
import hashlib
import http.client
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Annotated, Any

import msgspec
import structlog
from msgspec import Meta

from asd_agent import config
from asd_agent.artefact.signed import Header, Signed, prefix, verified
from asd_agent.baseline import BaselineStore
from asd_agent.baseline.packed import add
from asd_agent.encode.packed import unpack
from asd_agent.errors import ArtefactError, StoreError

CHUNK = 32 << 10  # bytes; as base64 a request of it fits into what an agent takes
FETCH_S = 60.0  # without a byte from the server
log = structlog.get_logger()


class InstallRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of an artefact, or with `url` where it is to be fetched."""

    header: str  # as it was signed
    signature: str  # base64
    offset: Annotated[int, Meta(ge=0)] = 0  # of `data` in the payload
    data: bytes = b""  # base64, at most 32 KiB; none = only ask how much is there
    url: str = ""  # of the artefact's file, below `artefacts.url`


class InstallProgress(msgspec.Struct, frozen=True, kw_only=True):
    received: int  # bytes; the next chunk begins there
    size: int
    installed: str = ""  # version of the baseline, or checksum of the bundle; empty = not complete yet


class Installer:
    """Of one agent. Thread-safe: one artefact is received at a time."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._lock = threading.Lock()

    def take(self, request: InstallRequest, settings: config.Config) -> InstallProgress:
        """Raises ArtefactError for what is not signed, not for this agent, or damaged; BaselineError, BundleError."""
        if settings.artefacts is None:
            raise ArtefactError("this agent takes no artefacts: set artefacts.public_key in its configuration")
        header = verified(Signed(request.header, request.signature), settings.artefacts.public_key)
        _check(header, settings, settings.artefacts)
        with self._lock:
            if known := self._known(header):
                return InstallProgress(received=header.size, size=header.size, installed=known)
            try:
                part = self._part(header)
                if request.url:
                    received = self._fetch(request, part, header, settings.artefacts)
                else:
                    received = self._append(part, request, header)
                if received < header.size:
                    return InstallProgress(received=received, size=header.size)
                payload = part.read_bytes()
                part.unlink()
            except OSError as exc:
                raise StoreError(f"{self._state_dir}: the artefact cannot be stored ({exc.strerror or exc})") from exc
            installed = self._install(header, payload)
        log.info("artefact installed", kind=header.kind, machine=header.machine, version=installed)
        return InstallProgress(received=header.size, size=header.size, installed=installed)

    def _known(self, header: Header) -> str:
        """What is there already; a baseline becomes the candidate again."""
        if header.kind == "bundle":
            return header.version if (self._bundles / header.version).is_dir() else ""
        return ""

    def _part(self, header: Header) -> Path:
        """Where the payload gathers; what another artefact has left is removed."""
        folder = self._state_dir / "incoming"
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.iterdir():
            if old.name != header.sha256:
                old.unlink()
        return folder / header.sha256

    def _append(self, part: Path, request: InstallRequest, header: Header) -> int:
        """A chunk that comes again, or out of turn, changes nothing: the answer says what is wanted."""
        received = part.stat().st_size if part.exists() else 0
        if not request.data or request.offset != received:
            return received
        if len(request.data) > CHUNK or received + len(request.data) > header.size:
            raise ArtefactError("the chunk is longer than what is missing, or than 32 KiB")
        with part.open("ab") as file:
            file.write(request.data)
        return received + len(request.data)

    def _fetch(self, request: InstallRequest, part: Path, header: Header, settings: config.Artefacts) -> int:
        """Raises ArtefactError for an address that the configuration does not allow, or that does not answer."""
        url = request.url
        if settings.url is None or not url.startswith(settings.url) or ".." in url:
            allowed = f"below {settings.url}" if settings.url else "none: set artefacts.url"
            raise ArtefactError(f"{url[:200]!r} is not fetched (allowed is {allowed})")
        try:
            with _opener.open(url, timeout=FETCH_S) as answer, part.open("wb") as file:
                before = prefix(Signed(request.header, request.signature))
                if answer.read(len(before)) != before:
                    raise ArtefactError(f"{url[:200]}: is not the artefact that was asked for")
                received = 0
                while chunk := answer.read(min(CHUNK, header.size + 1 - received)):
                    received += len(chunk)
                    file.write(chunk)
        except (urllib.error.URLError, TimeoutError, ConnectionError, http.client.HTTPException, ValueError) as exc:
            raise ArtefactError(f"{url[:200]}: cannot be fetched ({getattr(exc, 'reason', exc)})") from exc
        if received != header.size:
            part.unlink()
            raise ArtefactError(f"{url[:200]}: is not the artefact that was signed (its size differs)")
        return received

    def _install(self, header: Header, payload: bytes) -> str:
        if hashlib.sha256(payload).hexdigest() != header.sha256:
            raise ArtefactError("the payload is not the one that was signed: send it again")
        if header.kind == "baseline":
            return add(BaselineStore(self._state_dir, header.machine), payload)
        return unpack(payload, self._bundles).sha256

    @property
    def _bundles(self) -> Path:
        return self._state_dir / "bundles"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect could lead anywhere."""

    def redirect_request(self, *args: Any, **more: Any) -> None:
        return None


_opener = urllib.request.build_opener(_NoRedirect)


def _check(header: Header, settings: config.Config, artefacts: config.Artefacts) -> None:
    if not fnmatch.fnmatchcase(settings.agent.id, header.agent):
        raise ArtefactError(f"the artefact is for {header.agent!r}, this is {settings.agent.id!r}")
    if header.kind == "baseline" and settings.machine(header.machine) is None:
        raise ArtefactError(f"the artefact is for the machine {header.machine!r}, which is not configured here")
    if header.size > artefacts.most_mb * 1e6:
        raise ArtefactError(f"the artefact has {header.size / 1e6:.0f} MB, artefacts.most_mb is {artefacts.most_mb:g}")
