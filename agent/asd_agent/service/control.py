"""The control socket: one JSON object a line, request and answer, on a local Unix socket.

    -> {"verb": "status", "args": {...}}
    <- {"status": "ok", "data": ...}  |  {"status": "error", "error": "one clear line"}

Who may write to the socket may command the daemon: 0660, the daemon's user and `agent.socket_group`.
"""

from __future__ import annotations

import contextlib
import grp
import os
import shutil
import socket
import socketserver
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import structlog

from asd_agent.config.model import Config
from asd_agent.errors import AsdError, StoreError, UsageError

Handler = Callable[[str, dict[str, Any]], Any]  # raises AsdError, whose line is the answer
MAX_REQUEST = 1 << 20
MOST_CLIENTS = 64  # at once, each a thread
IDLE_S = 60.0
BUSY = b'{"status": "error", "error": "too many clients at once, try again"}\n'
log = structlog.get_logger()


class Request(msgspec.Struct, frozen=True):
    verb: str
    args: dict[str, Any] = {}


def socket_path(config: Config) -> Path:
    """`agent.socket`, else in the runtime directory that systemd made, else in the state directory."""
    if config.agent.socket:
        return Path(config.agent.socket)
    runtime = os.environ.get("RUNTIME_DIRECTORY")
    if runtime:
        return Path(runtime.split(":")[0]) / "control.sock"
    installed = Path("/run/asd-agent/control.sock")  # the unit's runtime directory, seen from a user's shell
    if config.agent.state_dir == "/var/lib/asd-agent" and installed.exists():
        return installed
    return config.state_dir / "control.sock"


class ControlServer:
    """Answers requests in threads of their own until `close()`."""

    def __init__(self, path: Path, handler: Handler, group: str | None = None) -> None:
        class _Connection(socketserver.StreamRequestHandler):
            timeout = IDLE_S  # a client that says nothing, or does not read, must not hold a thread for ever

            def handle(self) -> None:
                for line in iter(lambda: self.rfile.readline(MAX_REQUEST), b""):
                    self.wfile.write(msgspec.json.encode(_answer(handler, line)) + b"\n")
                    if not line.endswith(b"\n"):
                        return  # too long: where the next request begins is not known

        class _Server(socketserver.ThreadingUnixStreamServer):
            daemon_threads = True
            request_queue_size = 128
            room = threading.BoundedSemaphore(MOST_CLIENTS)

            def process_request(self, request: Any, client_address: Any) -> None:
                if not self.room.acquire(blocking=False):
                    with contextlib.suppress(OSError):
                        request.setblocking(False)
                        request.sendall(BUSY)
                    self.shutdown_request(request)
                    return
                try:
                    super().process_request(request, client_address)
                except BaseException:
                    self.room.release()
                    raise

            def process_request_thread(self, request: Any, client_address: Any) -> None:
                try:
                    super().process_request_thread(request, client_address)
                finally:
                    self.room.release()

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that hung up is no error of ours."""

        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)  # the state directory's lock proves that nobody serves it
            self._server = _Server(str(path), _Connection)
            path.chmod(0o660)
            if group:
                shutil.chown(path, group=grp.getgrnam(group).gr_gid)
        except KeyError as exc:
            raise StoreError(f"agent.socket_group: there is no group {group!r} on this machine") from exc
        except OSError as exc:
            raise StoreError(
                f"{path}: the control socket cannot be opened ({exc.strerror or exc}): set agent.socket"
            ) from exc
        threading.Thread(target=self._server.serve_forever, args=(0.2,), name="control", daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self.path.unlink(missing_ok=True)


def _answer(handler: Handler, line: bytes) -> dict[str, Any]:
    try:
        request = msgspec.json.decode(line, type=Request)
        return {"status": "ok", "data": handler(request.verb, request.args)}
    except (msgspec.DecodeError, RecursionError) as exc:
        return {"status": "error", "error": f"not a request: {exc}"}
    except AsdError as exc:
        return {"status": "error", "error": str(exc)}
    except Exception as exc:
        log.exception("request broke")
        return {"status": "error", "error": f"internal error: {exc!r}; see the log"}


class DaemonAbsent(AsdError):  # noqa: N818 - a state, not a mistake
    """Nobody listens on the control socket."""


def ask(config: Config, verb: str, timeout_s: float = 60.0, **args: Any) -> Any:
    """Ask the running daemon; the answer's data. Raises DaemonAbsent, or AsdError with the daemon's own line."""
    path = socket_path(config)
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as sock:
        sock.settimeout(timeout_s)
        try:
            sock.connect(str(path))
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError) as exc:
            raise DaemonAbsent(f"{path}: the daemon is not running (start it, or check agent.state_dir)") from exc
        except PermissionError as exc:
            raise AsdError(
                f"{path}: permission denied; run as root or as a member of the group in agent.socket_group"
            ) from exc
        except OSError as exc:
            raise AsdError(f"{path}: cannot be used as the control socket ({exc.strerror or exc})") from exc
        try:
            try:
                request = msgspec.json.encode({"verb": verb, "args": args}) + b"\n"
            except UnicodeEncodeError as exc:
                raise UsageError(f"{verb}: an argument is not UTF-8 text") from exc
            sock.sendall(request)
            with sock.makefile("rb") as stream:
                line = stream.readline()
        except OSError as exc:
            raise AsdError(f"{path}: the daemon did not answer within {timeout_s:g} s") from exc
    if not line:
        raise AsdError(f"{path}: the daemon closed the connection without an answer")
    answer = msgspec.json.decode(line)
    if answer.get("status") != "ok":
        raise AsdError(str(answer.get("error", "the daemon refused the request")))
    return answer.get("data")
