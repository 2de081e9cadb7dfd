"""Live runs on the server: each has a stream, whose kept pictures are bounded by the model's window."""

import asyncio
import hashlib
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from eval.reward.scorer import Reward
from eval.reward.stream import Moment, Stream
from eval.reward.video import reward_row
from eval.server.limits import Refused, ServerLimits
from eval.server.protocol import RewardRow, SessionInfo


@dataclass(eq=False)
class Append:
    """One request's frames. Equal `first` and `digest` are the same request, sent again."""

    first: int
    digest: bytes
    rows: asyncio.Task[list[RewardRow]]


@dataclass(eq=False)
class ServerSession:
    id: str
    stream: Stream
    used: float = field(default_factory=time.monotonic)
    last: Append | None = None
    progress: float | None = None  # of the last frame that had one

    @property
    def kept_bytes(self) -> int:
        """Of the pictures that it keeps, with what the model made of each, when it has as many as its window reaches
        back."""
        moment = sum(p.nbytes for p in self.stream.first.values())
        return moment * (2 + self.stream.window.reach(self.stream.fps)) + sum(
            g.nbytes for g in self.stream.goal.values()
        )

    @property
    def is_busy(self) -> bool:
        return self.last is not None and not self.last.rows.done()

    def repeated(self, first: int, digest: bytes) -> Append | None:
        """The request that this one repeats, if it succeeded or is under way; where it failed, it may be made anew.

        Raises Refused (409) for frames out of turn.
        """
        last = self.last
        # A client whose answer was lost asks again: it gets the first request's rows, and no frame is taken twice.
        if last is not None and (last.first, last.digest) == (first, digest):
            failed = last.rows.done() and (last.rows.cancelled() or last.rows.exception() is not None)
            if not failed:
                return last
        if self.is_busy:
            raise Refused(409, "session_busy", "the frames before these are being scored: wait for their answer")
        if first != self.stream.appended:
            raise Refused(409, "out_of_turn", f"the next frame is number {self.stream.appended}, not {first}")
        return None

    def rows(self, moments: Sequence[Moment], rewards: Sequence[Reward], latency_s: float) -> list[RewardRow]:
        """What was scored, in order; keeps the last progress."""
        made = reward_rows(moments, rewards, latency_s, self.progress)
        self.progress = next((r.progress for r in reversed(made) if r.progress is not None), self.progress)
        return made

    def info(self, limits: ServerLimits) -> SessionInfo:
        stream = self.stream
        return SessionInfo(
            session=self.id,
            task=stream.task,
            cameras=list(stream.cameras),
            fps=stream.fps,
            frames=stream.appended,
            expires_after_s=limits.session_idle_s,
        )


def reward_rows(
    moments: Sequence[Moment], rewards: Sequence[Reward], latency_s: float, before: float | None = None
) -> list[RewardRow]:
    """Rows with their deltas; `before`: the last progress before these."""
    rows = []
    for m, r in zip(moments, rewards, strict=True):
        delta = None if r.progress is None or before is None else r.progress - before
        before = before if r.progress is None else r.progress
        told = reward_row(m.frame_index, m.timestamp_s, r, latency_s, reasoning=True)
        rows.append(RewardRow(delta=delta, **told))
    return rows


class Sessions:
    """All of them; those that nobody uses for `session_idle_s` are forgotten."""

    def __init__(self, limits: ServerLimits) -> None:
        self.limits = limits
        self._all: dict[str, ServerSession] = {}

    def __len__(self) -> int:
        return len(self._all)

    def open(self, stream: Stream) -> ServerSession:
        """Raises Refused (503)."""
        if len(self._all) >= self.limits.max_sessions:
            idle_s = time.monotonic() - min(s.used for s in self._all.values())
            wait = max(1, round(self.limits.session_idle_s - idle_s))
            raise Refused(503, "sessions_full", f"all {self.limits.max_sessions} sessions are taken; try again", wait)
        session = ServerSession(secrets.token_urlsafe(16), stream)
        self._all[session.id] = session
        return session

    def check_memory(self) -> None:
        """Raises Refused (503) where there is no room for the pictures of one more session."""
        if sum(s.kept_bytes for s in self._all.values()) > self.limits.max_kept_bytes:
            raise Refused(
                503, "memory", "the sessions keep too many pictures: send smaller ones, or fewer a second", 60
            )

    def get(self, name: str) -> ServerSession:
        """Raises Refused (404). The session counts as used now."""
        session = self._all.get(name)
        if session is None:
            idle = self.limits.session_idle_s
            raise Refused(404, "no_session", f"no such session: it was closed, or not used for {idle:g} s")
        session.used = time.monotonic()
        return session

    def close(self, name: str) -> None:
        self.get(name)
        del self._all[name]

    def expire(self) -> int:
        """Forget the idle ones; how many."""
        latest = time.monotonic() - self.limits.session_idle_s
        idle = [s for s in self._all.values() if s.used < latest and not s.is_busy]
        for session in idle:
            del self._all[session.id]
        return len(idle)


def digest_of(pictures: Sequence[bytes], more: object) -> bytes:
    """Of a request's content."""
    h = hashlib.sha256(repr(more).encode())
    for data in pictures:
        h.update(len(data).to_bytes(8) + data)
    return h.digest()
