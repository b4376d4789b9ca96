"""What the science's commands share: one JSON file in, lines of JSON out, an exit status.

Launched by Dagster Pipes, a command also reports to the run that launched it: its log, its
progress, its result, and on bad input the error itself. Without Dagster it does not miss it.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from popcorn_ml.compute.memory import hold_little
from popcorn_ml.errors import PopcornError

LIFELINE = "POPCORN_LIFELINE"
"""Set by a launcher that holds the other end of standard input for as long as it lives."""

LAUNCHED_BY = "POPCORN_LAUNCHED_BY"
"""Set by a launcher to what others shall read of who works on something."""

BAD_INPUT = 2
"""Exit status on input that cannot be used."""

LOG_SECONDS = 5.0

_PIPES = "DAGSTER_PIPES_CONTEXT"


class Report:
    """Where a command's words go: lines of JSON to standard output, and to Dagster if it listens.

    Args:
        pipes: the open Pipes context, or None.
    """

    def __init__(self, pipes: Any = None) -> None:
        self._pipes = pipes
        # A progress bar takes over sys.stdout and would break lines at the terminal's width.
        self._out = sys.stdout
        self._logged = -LOG_SECONDS

    def line(self, content: dict[str, Any]) -> None:
        """One line of JSON; where Dagster listens, it may get lost without harm."""
        try:
            print(json.dumps(content), file=self._out, flush=True)
        except OSError:  # a log's disk is full, or nobody reads any more
            if self._pipes is None:
                raise

    def log(self, message: str) -> None:
        """A sentence for the run's log."""
        if self._pipes is not None:
            self._pipes.log.info(message)

    def device(self, name: str) -> None:
        """In the run's log: which device a name means here."""
        if self._pipes is not None:
            from popcorn_ml.compute.devices import device_name

            self.log(f"on device {device_name(name)}, process {os.getpid()}")

    def note(self, message: str) -> None:
        """A sentence for whoever looks: the run's log, or standard error."""
        if self._pipes is not None:
            self._pipes.log.info(message)
        else:
            print(message, file=sys.stderr, flush=True)

    def tiles(self, done: int, total: int) -> None:
        """Tiles done: a line each, and every few seconds a sentence in the run's log."""
        self.line({"done": done, "total": total})
        now = time.monotonic()
        if total > 1 and (done >= total or now - self._logged >= LOG_SECONDS):
            self._logged = now
            self.log(f"{done} of {total} tiles")

    def result(self, content: dict[str, Any]) -> None:
        """What came of it, as the last line."""
        self.line(content)
        if self._pipes is not None:
            self._pipes.report_custom_message({"result": content})

    def error(self, error: PopcornError) -> None:
        """Why the input cannot be used."""
        print(error, file=sys.stderr, flush=True)
        if self._pipes is not None:
            self._pipes.report_custom_message({"error": describe(error)})

    def crash(self, text: str) -> None:
        """A traceback, which standard error gets anyway."""
        if self._pipes is not None:
            self._pipes.report_custom_message({"crash": text})


def describe(error: PopcornError) -> dict[str, str | None]:
    """An error as plain text, part by part."""

    def text(value: object) -> str | None:
        return None if value is None else str(value)

    return {
        "kind": type(error).__name__,
        "what": error.what,
        "where": text(error.where),
        "expected": text(error.expected),
        "found": text(error.found),
        "remedy": error.remedy,
    }


def restored(described: dict[str, Any]) -> PopcornError:
    """The error that `describe` described."""
    from popcorn_ml import errors

    kind = getattr(errors, described["kind"], None)
    if not (isinstance(kind, type) and issubclass(kind, PopcornError)):
        kind = PopcornError
    what, parts = described["what"], {k: described[k] for k in ("where", "expected", "found")}
    return kind(what, **parts, remedy=described["remedy"])


def run_command(
    prog: str,
    description: str | None,
    work: Callable[[str, Path, Report], dict[str, Any]],
    arguments: list[str] | None = None,
) -> int:
    """Run a command that takes one JSON file; its exit status.

    Args:
        prog: the command, for its help.
        description: what it does.
        work: gets the file's text, its path and where to report; gives what came of it.
        arguments: instead of the command line's.
    """
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument("spec", type=Path, help="JSON file that says what to do")
    path = parser.parse_args(arguments).spec
    hold_little()
    end_with_launcher()
    with _reporting() as report:
        try:
            try:
                text = path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise PopcornError(
                    "the specification cannot be read", where=path, found=str(error)
                ) from error
            report.result(work(text, path, report))
        except PopcornError as error:
            report.error(error)
            return BAD_INPUT
        except Exception:
            report.crash(traceback.format_exc())
            raise
    return 0


@contextmanager
def _reporting() -> Iterator[Report]:
    """A report, connected to Dagster where it launched us and can be spoken to."""
    try:
        if _PIPES not in os.environ:
            raise ImportError
        from dagster_pipes import open_dagster_pipes
    except ImportError:
        yield Report()
        return
    with open_dagster_pipes() as pipes:
        yield Report(pipes)


def end_with_launcher() -> None:
    """Die when the launcher does, which may be killed and then can stop nobody."""
    if not os.environ.pop(LIFELINE, ""):
        return

    def wait() -> None:
        while os.read(0, 1024):
            pass
        if os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait, name="lifeline", daemon=True).start()
