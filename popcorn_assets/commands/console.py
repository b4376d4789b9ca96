"""What a person sees at the terminal while a run works: a line a step, its messages, its seconds.

Only presentation; what runs is decided elsewhere, and goes on whatever becomes of a line: signs
that a terminal cannot show are replaced, and where nobody reads any more, nothing is written.
"""

from __future__ import annotations

import io
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

import dagster as dg
from dagster import DagsterEventType
from dagster._core.events import EngineEventData
from dagster._core.events.log import EventLogEntry
from rich.console import Console
from rich.markup import escape

from popcorn_assets.runs.pools import pool as get_pool


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


class RunPrinter:
    """Turns a run's events into lines."""

    def __init__(self, console: Console, instance: dg.DagsterInstance) -> None:
        self.console, self.instance, self.started = console, instance, time.monotonic()
        self._step_started: dict[str, float] = {}
        plain = writable("✓✗", console.encoding) != "✓✗"
        self._done, self._failed = ("ok", "failed") if plain else ("✓", "✗")

    def __call__(self, entry: EventLogEntry) -> None:
        """What Dagster calls in the midst of a run, which must not fail of it."""
        try:
            self._tell(entry)
        except Exception:
            logging.getLogger(__name__).debug("an event was not shown", exc_info=True)

    def _tell(self, entry: EventLogEntry) -> None:
        step = entry.step_key or ""
        if not entry.is_dagster_event:
            if int(entry.level) >= logging.INFO and step:
                self._line(f"[dim]{'':>7}  {_title(step)}: {escape(entry.user_message)}[/dim]")
            return
        kind = entry.get_dagster_event().event_type
        if kind == DagsterEventType.STEP_START:
            self._step_started[step] = time.monotonic()
            self._line(f"[dim]{'':>7}  {_title(step)} ...[/dim]")
        elif kind == DagsterEventType.STEP_SUCCESS:
            self._line(f"{self._seconds(step)}  [green]{self._done}[/green] {_title(step)}")
        elif kind == DagsterEventType.STEP_FAILURE:
            self._line(f"{self._seconds(step)}  [red]{self._failed} {_title(step)}[/red]")
        elif kind == DagsterEventType.STEP_SKIPPED:
            self._line(f"[dim]{'':>7}  {_title(step)} skipped[/dim]")
        elif kind == DagsterEventType.ENGINE_EVENT and (pool := _blocking_pool(entry)):
            self._line(f"[yellow]{'':>7}  {_title(step)} {escape(self._holders(pool))}[/yellow]")

    def _holders(self, pool: str) -> str:
        slots = get_pool(self.instance, pool).slots
        held = ", ".join(map(str, slots)) or "nobody now"
        return f"waits for a slot of pool {pool}, held by {held}"

    def _seconds(self, step: str) -> str:
        return f"{time.monotonic() - self._step_started.get(step, time.monotonic()):6.1f}s"

    def _line(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True)


def _blocking_pool(entry: EventLogEntry) -> str | None:
    """The pool that a step has no slot of, which Dagster says at first and every few minutes."""
    data = entry.get_dagster_event().event_specific_data
    value = data.metadata.get("pool") if isinstance(data, EngineEventData) else None
    return str(value.value) if value is not None else None


def _title(step: str) -> str:
    return escape(step.removeprefix("checkpoints."))  # [member_1600] is no markup


@contextmanager
def printing(instance: dg.DagsterInstance, run_id: str, console: Console) -> Iterator[None]:
    """Print a run's events while it works in this process."""
    instance.add_event_listener(run_id, RunPrinter(console, instance))
    yield


def failure_text(instance: dg.DagsterInstance, run_id: str) -> str:
    """What went wrong in a run, in the words of the first error's cause."""
    for record in instance.get_records_for_run(
        run_id, of_type=DagsterEventType.STEP_FAILURE
    ).records:
        entry = record.event_log_entry
        error = entry.get_dagster_event().step_failure_data.error
        while error is not None and error.cause is not None:
            error = error.cause
        if error is not None:
            return f"{entry.step_key}: {error.message.strip()}"
    for record in instance.get_records_for_run(
        run_id, of_type=DagsterEventType.RUN_FAILURE
    ).records:
        return record.event_log_entry.user_message or record.event_log_entry.message
    return "the run failed without saying why; its log is in the UI"
