"""What user code writes while a step or a body runs: through `logging`, and to standard output and error.

Nothing changes for the code itself: its own logging configuration decides which records there are, and every line still
appears where it would without this. A line belongs to the step or body whose context it is written in: its thread,
threads that it has started, its asyncio tasks. What is written elsewhere, or after the end, is nobody's.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from contextvars import ContextVar, Token
from threading import get_ident
from types import TracebackType
from typing import Any, NamedTuple

from dalsegno.v1.executor_service_pb2 import TaskToken, WrittenLine
from dalsegno.v1.log_pb2 import LogLine
from dalsegno_executor.attempts import timestamp

LONGEST_LINE = 16 * 1024
"""Bytes of text; what is longer is cut."""

_formatter = logging.Formatter()
_NAMES = ("stdout", "stderr")


class Who(NamedTuple):
    """Who writes.

    Attributes:
        token: The task.
        number: The number of the invocation; 0 for the body of a flow.
        invocation_id: Its invocation ID.
        attempt: The attempt, or for a body which run of it this is.
    """

    token: TaskToken
    number: int
    invocation_id: str
    attempt: int


class Writer:
    """Takes what one run of a step or a body writes, from ``__enter__`` or `begin` to its end.

    Args:
        who: Says who it is; not asked before there is a line, as most steps write none.
        keep: Takes the lines.
    """

    __slots__ = ("_ended", "_keep", "_parts", "_reset", "_who")

    def __init__(self, who: Callable[[], Who], keep: Callable[[WrittenLine], object]) -> None:
        self._who = who
        self._keep = keep
        # Each thread writes its lines by itself. No lock: a finaliser may print at any time.
        self._parts: dict[tuple[str, int], _Part] | None = None
        self._reset: Token[Writer | None] | None = None
        self._ended = False

    def __enter__(self) -> None:
        self._reset = self.begin()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._reset is not None
        current_writer.reset(self._reset)
        self.end()

    def begin(self) -> Token[Writer | None]:
        """Take what is written in this context from now on."""
        _watch_streams()
        return current_writer.set(self)

    def end(self) -> None:
        """Take nothing more; a line that has no end yet ends here."""
        self._ended = True
        if self._parts is not None:
            for (stream, _), part in list(self._parts.items()):
                if part.length:
                    self._add_printed(stream, part)

    def printed(self, stream: str, text: str) -> None:
        """Take a piece of what is printed."""
        if self._ended:
            return
        if self._parts is None:
            self._parts = {}
        part = self._parts.setdefault((stream, get_ident()), _Part())
        *ended, rest = text.split("\n")
        for piece in ended:
            part.add(piece)
            self._add_printed(stream, part)
            part.clear()
        part.add(rest)

    def logged(self, record: logging.LogRecord) -> None:
        """Take a record."""
        if not self._ended:
            text = _text_of(record)
            self._add(record.levelname, record.name, text, len(text), int(record.created * 1e9))

    def _add_printed(self, stream: str, part: _Part) -> None:
        self._add(stream, "", part.text.removesuffix("\r"), part.length)

    def _add(self, level: str, logger: str, text: str, length: int, at: int | None = None) -> None:
        who = self._who()
        line = LogLine(
            time=timestamp(time.time_ns() if at is None else at),
            number=who.number,
            invocation_id=who.invocation_id,
            attempt=who.attempt,
            level=_sendable(level),
            logger=_sendable(logger),
            text=_cut(text, length),
        )
        self._keep(WrittenLine(token=who.token, line=line))


current_writer: ContextVar[Writer | None] = ContextVar("dalsegno_writer", default=None)
"""Whose the lines are that are written in this context."""
_known: ContextVar[bool] = ContextVar("dalsegno_known", default=False)
"""Whether what is printed now is known already: by a record's handlers, or by a stream that writes to another one."""


def capture() -> None:
    """Have what user code writes in this process taken, wherever there is a `current_writer`."""
    _watch_streams()
    if logging.Logger.callHandlers is not _call_handlers:
        # Not a handler of the root logger: with one, `logging.basicConfig` and the handler of last resort do nothing.
        logging.Logger.callHandlers = _call_handlers  # type: ignore[method-assign, assignment]


_original_call_handlers = logging.Logger.callHandlers


def _call_handlers(logger: logging.Logger, record: logging.LogRecord) -> None:
    present = current_writer.get()
    if present is None:
        _original_call_handlers(logger, record)
        return
    present.logged(record)
    token = _known.set(True)
    try:
        _original_call_handlers(logger, record)
    finally:
        _known.reset(token)


class _Tee:
    """The `write` of a stream, which also tells the present writer."""

    __slots__ = ("_name", "_write")

    def __init__(self, name: str, write: Callable[[str], Any]) -> None:
        self._name = name
        self._write = write

    def __call__(self, text: str, /) -> Any:
        present = current_writer.get()
        if present is None or _known.get():
            return self._write(text)
        written = _quietly(self._write, text)
        if isinstance(text, str):
            present.printed(self._name, text)
        return written


class _Flush:
    """The `flush` of a stream: one that stands before another hands on then what it was told before."""

    __slots__ = ("_flush",)

    def __init__(self, flush: Callable[[], Any]) -> None:
        self._flush = flush

    def __call__(self) -> Any:
        return _quietly(self._flush)


def _quietly(call: Callable[..., Any], *arguments: object) -> Any:
    """Write to a stream, of which others that it writes to in turn tell nobody: a live display redraws itself below."""
    token = _known.set(True)
    try:
        return call(*arguments)
    finally:
        _known.reset(token)


_watched: list[object] = [None, None]


def _watch_streams() -> None:
    """See to what is printed to the standard streams that there are now; tests and notebooks exchange them."""
    if sys.stdout is not _watched[0] or sys.stderr is not _watched[1]:
        for place, name in enumerate(_NAMES):
            stream = getattr(sys, name)
            _watched[place] = stream
            if stream is not None and not isinstance(stream.write, _Tee):
                try:
                    stream.write = _Tee(name, stream.write)
                    stream.flush = _Flush(stream.flush)
                except AttributeError:
                    continue  # a stream of somebody's own that cannot be told


class _Part:
    """A line that has no end yet: as much of it as is kept, and its length."""

    __slots__ = ("length", "text")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.text = ""
        self.length = 0

    def add(self, piece: str) -> None:
        _, returned, after = piece.rpartition("\r")
        # A progress bar: a terminal shows what was written last.
        if returned and after:
            self.clear()
            piece = after
        elif piece and self.text.endswith("\r"):
            self.clear()
        if len(self.text) <= LONGEST_LINE:
            self.text += piece[: LONGEST_LINE + 1]
        self.length += len(piece)


def _text_of(record: logging.LogRecord) -> str:
    try:
        return _formatter.format(record)
    except Exception:  # noqa: BLE001 - logging never raises at what its user formats wrongly, and nor may this
        return f"{record.msg} (its arguments do not fit)" if isinstance(record.msg, str) else type(record.msg).__name__


def _sendable(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _cut(text: str, length: int) -> str:
    data = text.encode("utf-8", "backslashreplace")
    if len(data) <= LONGEST_LINE:
        return data.decode()
    return data[:LONGEST_LINE].decode("utf-8", "ignore") + f" … (cut: {length:,} characters)"
