"""Who is logged in. Sessions live in memory: a restart of the page logs everybody out.

The cookie holds a random token; the server keeps its sha256 only. A CSRF token is a nonce and its HMAC under a key of
the session, another one on every page, so that compressed answers do not give it away (BREACH).
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from asd_agent.web.security.users import Role

IDLE_S = 12 * 3600.0
LONGEST_S = 7 * 86400.0
MOST = 1000  # the one that was used longest ago goes
NONCE_BYTES = 12


@dataclass
class Session:
    user: str
    role: Role
    began_s: float
    used_s: float
    salt: bytes = b""  # of the user's password: another password ends the session
    key: bytes = field(default_factory=lambda: secrets.token_bytes(32))

    def csrf(self) -> str:
        """A new token for a page."""
        nonce = secrets.token_hex(NONCE_BYTES)
        return nonce + self._mac(nonce)

    def proves(self, token: str) -> bool:
        """Whether the token was given to this session."""
        nonce, mac = token[: 2 * NONCE_BYTES], token[2 * NONCE_BYTES :]
        return hmac.compare_digest(mac.encode(), self._mac(nonce).encode())

    def _mac(self, nonce: str) -> str:
        return hmac.new(self.key, nonce.encode(), hashlib.sha256).hexdigest()


class Sessions:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._sessions: OrderedDict[bytes, Session] = OrderedDict()

    def begin(self, user: str, role: Role, salt: bytes = b"") -> tuple[str, Session]:
        """The token for the cookie, and the session."""
        token = secrets.token_urlsafe(32)
        now = self._clock()
        session = Session(user, role, now, now, salt)
        self._sessions[_key(token)] = session
        while len(self._sessions) > MOST:
            self._sessions.popitem(last=False)
        return token, session

    def find(self, token: str) -> Session | None:
        key, now = _key(token), self._clock()
        session = self._sessions.get(key)
        if session is None:
            return None
        if now - session.used_s > IDLE_S or now - session.began_s > LONGEST_S:
            del self._sessions[key]
            return None
        session.used_s = now
        self._sessions.move_to_end(key)
        return session

    def end(self, token: str) -> None:
        self._sessions.pop(_key(token), None)


def _key(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
