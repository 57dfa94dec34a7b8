"""Who may do what: users with tokens, sessions of pages, and a limit on wrong guesses.

Of a token the sha256 alone is stored. A token has 256 random bits, so that a slow hash would add nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import sqlite3
import threading
import time
from collections import OrderedDict, deque

from blemish.errors import SettingsError
from blemish.serve.catalog import checked_name
from blemish.serve.core import Core, record_change
from blemish.serve.errors import ConflictError, TooManyFailuresError, UnknownError
from blemish.serve.records import ROLES, Role, User

TOKEN_BYTES = 32
LEAST_LENGTH = 32  # letters of a token that somebody brings along
SESSION_SECONDS = 12 * 3600.0  # a shift, and a little
FAILURES, WINDOW = 10, 60.0  # wrong tokens from one address within so many seconds
ADDRESSES = 4096  # addresses that are remembered

LOCAL = User("local", "engineer")  # whoever sits at the machine of a service without users


def token_hash(token: str) -> str:
    """What is stored of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


class Users:
    """The users of a service; without any, it asks nobody for a token."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._lock = threading.Lock()
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()
        self._accepted: OrderedDict[tuple[str, str], None] = OrderedDict()  # address and hash of tokens that were valid

    def all(self) -> list[User]:
        """All users by name."""
        rows = self._core.store.rows("SELECT name, role, created_at FROM users ORDER BY name")
        return [User(**dict(row)) for row in rows]

    @property
    def are_any(self) -> bool:
        return self._core.store.row("SELECT 1 FROM users") is not None

    def add(self, name: str, role: str, who: str, token: str = "") -> str:
        """Add a user; gives the token, which is shown this once and never again. A `token` may be brought along.

        Raises SettingsError for an unknown role, a name that cannot be or a short token, ConflictError for a name that
        is taken, or a first user who is no engineer: nobody could make changes any more.
        """
        name, token = checked_name(name), token.strip()
        if role not in ROLES:
            raise SettingsError(f"a role: {', '.join(ROLES)}", repr(role), "choose one of them")
        if token and len(token) < LEAST_LENGTH:
            raise SettingsError(
                f"a token of at least {LEAST_LENGTH} letters", f"{len(token)}", "leave it out to have one made"
            )
        token = token or secrets.token_urlsafe(TOKEN_BYTES)
        try:
            with self._core.store.transaction() as connection:
                is_first = connection.execute("SELECT 1 FROM users").fetchone() is None
                if is_first and role != "engineer":
                    raise ConflictError("an engineer as the first user", f"an {role}", "add an engineer first")
                connection.execute(
                    "INSERT INTO users VALUES (?, ?, ?, ?)", (name, role, token_hash(token), time.time())
                )
                record_change(connection, who, "added a user", change={"name": name, "role": role})
        except sqlite3.IntegrityError as error:
            raise ConflictError("the name of a new user", f"{name!r}, who is there", "choose another") from error
        return token

    def remove(self, name: str, who: str) -> None:
        """Remove a user with all sessions. Raises ConflictError for the last engineer, UnknownError for nobody."""
        with self._core.store.transaction() as connection:
            row = connection.execute("SELECT role FROM users WHERE name = ?", (name,)).fetchone()
            if row is None:
                raise UnknownError("the name of a user", repr(name[:80]), "take it from the list of users")
            engineers = connection.execute("SELECT COUNT(*) FROM users WHERE role = 'engineer'").fetchone()[0]
            if row["role"] == "engineer" and engineers == 1:
                raise ConflictError("another engineer who stays", "the last one", "add another engineer first")
            connection.execute("DELETE FROM users WHERE name = ?", (name,))
            record_change(connection, who, "removed a user", change={"name": name})

    def by_token(self, token: str, address: str) -> User | None:
        """The user of a token, None for a wrong one.

        Raises TooManyFailuresError after too many wrong ones from one address, which go on being refused for a while,
        whatever they are; a token that was valid before from there still is, so that nobody's guesses stop a line.
        """
        wanted, found = token_hash(token), None
        with self._lock:
            is_usual = (address, wanted) in self._accepted
        if not is_usual:
            self._check_failures(address)
        for row in self._core.store.rows("SELECT name, role, created_at, token_hash FROM users"):
            if hmac.compare_digest(row["token_hash"], wanted):
                found = User(row["name"], row["role"], row["created_at"])
        if found is None:
            self._add_failure(address)
        elif not is_usual:
            with self._lock:
                self._accepted[address, wanted] = None
                while len(self._accepted) > ADDRESSES:
                    self._accepted.popitem(last=False)
        return found

    def open_session(self, user: User) -> str:
        """A secret for the cookie of a page; it ends after `SESSION_SECONDS`, and with the user."""
        secret, now = secrets.token_urlsafe(TOKEN_BYTES), time.time()
        with self._core.store.transaction() as connection:
            connection.execute("DELETE FROM sessions WHERE expires_at < ?", (now,))
            connection.execute(
                "INSERT INTO sessions VALUES (?, ?, ?)", (token_hash(secret), user.name, now + SESSION_SECONDS)
            )
        return secret

    def by_session(self, secret: str) -> User | None:
        """The user of a session that has not ended; one that would last much longer than any is of a wrong clock."""
        now = time.time()
        row = self._core.store.row(
            "SELECT u.name, u.role, u.created_at FROM sessions s JOIN users u ON u.name = s.user "
            "WHERE s.token_hash = ? AND s.expires_at BETWEEN ? AND ?",
            (token_hash(secret), now, now + 2 * SESSION_SECONDS),
        )
        return None if row is None else User(**dict(row))

    def close_session(self, secret: str) -> None:
        """End a session."""
        with self._core.store.transaction() as connection:
            connection.execute("DELETE FROM sessions WHERE token_hash = ?", (token_hash(secret),))

    def _check_failures(self, address: str) -> None:
        now = time.monotonic()
        with self._lock:
            recent = self._failures.get(address, deque())
            while recent and now - recent[0] > WINDOW:
                recent.popleft()
            if len(recent) >= FAILURES:
                raise TooManyFailuresError(
                    "a valid token", f"{len(recent)} wrong ones within a minute", "wait a minute"
                )

    def _add_failure(self, address: str) -> None:
        with self._lock:
            self._failures.setdefault(address, deque(maxlen=FAILURES)).append(time.monotonic())
            self._failures.move_to_end(address)
            while len(self._failures) > ADDRESSES:
                self._failures.popitem(last=False)


def is_role_enough(user: User, role: Role) -> bool:
    """Whether a user may do what asks for a role; an engineer may do all that an operator may."""
    return user.role == "engineer" or user.role == role
