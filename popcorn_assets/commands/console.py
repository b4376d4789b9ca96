"""The terminal, as the commands write to it: no line of theirs is ever what fails.

Signs that a terminal cannot show are replaced, and where nobody reads any more, nothing is written.
What a run tells while it works is `progress`'s business.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO

from rich.console import Console

PIPE_WIDTH = 5_000
"""More than any row takes: in a pipe nothing is folded, so that a line is a row."""


class Unfailing(io.TextIOBase):
    """Writes to a stream as long as that takes it, and never raises."""

    def __init__(self, stream: TextIO) -> None:
        self._stream: TextIO | None = stream
        self._name = getattr(stream, "encoding", None) or "utf-8"
        self._terminal = stream.isatty()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._name

    def isatty(self) -> bool:
        return self._terminal

    def fileno(self) -> int:
        if self._stream is None:
            raise OSError("nothing is written any more")
        return self._stream.fileno()

    def write(self, text: str) -> int:
        self._try(lambda stream: stream.write(writable(text, self._name)))
        return len(text)

    def flush(self) -> None:
        self._try(lambda stream: stream.flush())

    def _try(self, act: Callable[[TextIO], object]) -> None:
        if self._stream is None:
            return
        try:
            act(self._stream)
        except (OSError, ValueError):  # no reader, no room; or closed
            _let_go(self._stream)
            self._stream = None


def _let_go(stream: TextIO) -> None:
    """Have what a stream has kept go nowhere, or Python would fail on it at its end."""
    with suppress(OSError, ValueError), open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


def writable(text: str, encoding: str) -> str:
    """A text with a question mark for each sign that an encoding has not."""
    return text.encode(encoding, errors="replace").decode(encoding)


def write_utf8() -> None:
    """Have standard output be UTF-8 whatever the locale: JSON and HTML are, and lose no sign."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")


def open_console(width: int) -> Console:
    """The terminal, or a log file of a width, on standard output.

    Args:
        width: of what no terminal cuts: a log file is no 80 columns wide.
    """
    console = Console(file=Unfailing(sys.stdout))  # type: ignore[arg-type]
    if not console.is_terminal:
        console = Console(file=Unfailing(sys.stdout), width=width)  # type: ignore[arg-type]
    return console
