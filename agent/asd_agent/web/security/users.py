"""People and their passwords, in one small file that only the page's user can read.

    {"anna": {"role": "operator", "salt": "...", "digest": "..."}}

scrypt with N = 2^14, r = 8, p = 5 takes 16 MiB and some 0.2 s on a small computer (OWASP Password Storage Cheat Sheet).
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import os
import re
import secrets
import threading
from pathlib import Path

import msgspec

from asd_agent import config
from asd_agent.errors import AsdError, UsageError
from asd_agent.files import write_whole

N, R, P = 1 << 14, 8, 5
SALT_BYTES, DIGEST_BYTES = 16, 32
SHORTEST = 10  # characters of a password
LONGEST = 200
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")
FIRST = "operator"  # the user made at the first start


class Role(enum.StrEnum):
    VIEWER = "viewer"  # looks and listens
    OPERATOR = "operator"  # also acknowledges, calibrates, sets up


class User(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    role: Role
    salt: bytes
    digest: bytes


class Users:
    """The users file. Read anew when it changes, so that a command can set a password while the page runs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp: tuple[int, int] | None = None
        self._users: dict[str, User] = {}
        self._lock = threading.Lock()  # one scrypt at a time: it takes memory

    def all(self) -> dict[str, User]:
        """By name; empty when there is no file. Raises AsdError for one that cannot be read."""
        try:
            found = self.path.stat()
            stamp = (found.st_mtime_ns, found.st_ino)
            if stamp != self._stamp:
                self._users = msgspec.json.decode(self.path.read_bytes(), type=dict[str, User])
                self._stamp = stamp
        except FileNotFoundError:
            self._users, self._stamp = {}, None
        except (OSError, msgspec.DecodeError) as exc:
            raise AsdError(
                f"{self.path}: the users cannot be read ({exc}); delete the file and set the passwords again with "
                "`asd-agent web --set-password NAME`"
            ) from exc
        return self._users

    def check(self, name: str, password: str) -> Role | None:
        """The role when name and password are right. Takes as long for a name that does not exist."""
        user = self.all().get(name)
        salt, expected = (user.salt, user.digest) if user is not None else (b"\0" * SALT_BYTES, b"\0" * DIGEST_BYTES)
        with self._lock:
            digest = _scrypt(password, salt)
        same = hmac.compare_digest(digest, expected)
        return user.role if user is not None and same else None

    def set(self, name: str, password: str, role: Role) -> None:
        """Raises UsageError for a name or a password that will not do, AsdError when it cannot be written."""
        if not NAME.fullmatch(name):
            raise UsageError(f"{name!r} is no user name: letters, digits, '.', '_' and '-', at most 32 of them")
        if not SHORTEST <= len(password) <= LONGEST:
            raise UsageError(f"a password has {SHORTEST} to {LONGEST} characters")
        salt = secrets.token_bytes(SALT_BYTES)
        self._write({**self.all(), name: User(role=role, salt=salt, digest=_scrypt(password, salt))})

    def remove(self, name: str) -> None:
        """Raises UsageError when there is no such user."""
        users = dict(self.all())
        if users.pop(name, None) is None:
            raise UsageError(f"there is no user {name!r} (there are: {', '.join(users) or 'none'})")
        self._write(users)

    def first(self) -> str | None:
        """The password of a first operator, made because nobody could log in otherwise; None when there are users."""
        if self.all():
            return None
        password = "-".join(secrets.token_hex(2) for _ in range(4))
        self.set(FIRST, password, Role.OPERATOR)
        return password

    def _write(self, users: dict[str, User]) -> None:
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            before = os.umask(0o077)
            try:
                write_whole(self.path, msgspec.json.format(msgspec.json.encode(users), indent=1))
            finally:
                os.umask(before)
        except OSError as exc:
            raise AsdError(f"{self.path}: the users cannot be written ({exc.strerror}); set web.users_file") from exc


def users_path(settings: config.Config | None) -> Path:
    """`web.users_file`, else in the unit's own state directory, else below the agent's."""
    if settings is not None and settings.web is not None and settings.web.users_file:
        return Path(settings.web.users_file)
    own = os.environ.get("STATE_DIRECTORY")
    if own:
        return Path(own.split(":")[0]) / "users.json"
    return (settings.state_dir if settings is not None else Path.home() / ".local/state/asd-agent") / "web/users.json"


def _scrypt(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=N, r=R, p=P, dklen=DIGEST_BYTES, maxmem=64 << 20)
