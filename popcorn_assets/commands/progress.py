"""What a person sees at the terminal while a run works: a line a step, its messages, its seconds.

Only presentation; what runs is decided elsewhere, and goes on whatever becomes of a line.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
from dagster import DagsterEventType
from dagster._core.events import EngineEventData
from dagster._core.events.log import EventLogEntry
from rich.console import Console
from rich.markup import escape

from popcorn_assets.commands.console import writable
from popcorn_assets.runs.pools import pool as get_pool

LOOK_SECONDS = 0.4
"""Between two looks at the records of a run whose steps are processes of their own."""


class RunPrinter:
    """Turns a run's events into lines."""

    def __init__(self, console: Console, instance: dg.DagsterInstance) -> None:
        self.console, self.instance = console, instance
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
            self._step_started[step] = entry.timestamp
            self._line(f"[dim]{'':>7}  {_title(step)} ...[/dim]")
        elif kind == DagsterEventType.STEP_SUCCESS:
            self._line(f"{self._seconds(entry)}  [green]{self._done}[/green] {_title(step)}")
        elif kind == DagsterEventType.STEP_FAILURE:
            self._line(f"{self._seconds(entry)}  [red]{self._failed} {_title(step)}[/red]")
        elif kind == DagsterEventType.STEP_SKIPPED:
            self._line(f"[dim]{'':>7}  {_title(step)} skipped[/dim]")
        elif kind == DagsterEventType.ENGINE_EVENT and (pool := _blocking_pool(entry)):
            self._line(f"[yellow]{'':>7}  {_title(step)} {escape(self._holders(pool))}[/yellow]")

    def _holders(self, pool: str) -> str:
        slots = get_pool(self.instance, pool).slots
        held = ", ".join(map(str, slots)) or "nobody now"
        return f"waits for a slot of pool {pool}, held by {held}"

    def _seconds(self, entry: EventLogEntry) -> str:
        began = self._step_started.get(entry.step_key or "", entry.timestamp)
        return f"{entry.timestamp - began:6.1f}s"

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
    """Print a run's events while all of it works in this process."""
    instance.add_event_listener(run_id, RunPrinter(console, instance))
    yield


@contextmanager
def following(instance: dg.DagsterInstance, run_id: str, console: Console) -> Iterator[None]:
    """Print a run's events for as long as the block, whichever processes they come from.

    They are read from the records, and so come a moment late. What is on record already when the
    block begins is not told.
    """
    printer, ended = RunPrinter(console, instance), threading.Event()
    cursor = _end_of(instance, run_id)

    def look() -> None:
        nonlocal cursor
        last = False
        while not last:
            last = ended.wait(LOOK_SECONDS)
            cursor = _tell(instance, run_id, printer, cursor)

    thread = threading.Thread(target=look, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _end_of(instance: dg.DagsterInstance, run_id: str) -> str | None:
    """Behind all that is on record of a run."""
    cursor, more = None, True
    while more:
        found = instance.get_records_for_run(run_id, cursor=cursor)
        cursor, more = found.cursor, found.has_more
    return cursor


def _tell(
    instance: dg.DagsterInstance, run_id: str, printer: RunPrinter, cursor: str | None
) -> str | None:
    """Print what has come on record behind the cursor; the new one."""
    more = True
    while more:
        try:
            found = instance.get_records_for_run(run_id, cursor=cursor)
        except Exception:  # a database that is busy is asked again
            logging.getLogger(__name__).debug("records could not be read", exc_info=True)
            return cursor
        for record in found.records:
            printer(record.event_log_entry)
        cursor, more = found.cursor, found.has_more
    return cursor


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
