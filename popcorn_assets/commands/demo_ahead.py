"""Imagery of the demo's second year, made by a process of its own while the first is trained on.

Training leaves a core idle for half of the time, and in a run of one process steps take turns. It
is an ordinary run of the job `ingest`; the run that maps the year takes what is there, and makes
what is not.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

from rich.console import Console

from popcorn_assets.automation import INGEST_JOB
from popcorn_assets.resources import StoreResource
from popcorn_assets.store.versions import Address
from popcorn_ml.compute.command import LIFELINE
from popcorn_ml.compute.devices import cpus
from popcorn_ml.sentinel import SEASONS, SENSORS

LOOK_SECONDS = 0.5
END_SECONDS = 10.0


class Ahead:
    """What makes a year's imagery meanwhile, if anything does.

    Attributes:
        peak_mb: most memory that it has held; 0 before it has ended.
    """

    def __init__(self, process: subprocess.Popen[str] | None) -> None:
        self._process = process
        self.peak_mb = 0.0

    @property
    def started(self) -> bool:
        """Whether anything does."""
        return self._process is not None

    def wait(self, console: Console) -> None:
        """Until it is made, or could not be: then the year's own run says why."""
        if self._process is None:
            return
        if self._process.poll() is None:
            console.print("[dim]its imagery is being made in a run of its own: waiting[/dim]")
        assert self._process.stdout is not None
        said = self._process.stdout.read()
        self.peak_mb = float(said) if said.strip() else 0.0
        self._process.wait()

    def end(self) -> None:
        """Whatever it is at; its run is cancelled."""
        if self._process is None:
            return
        with self._process:
            if self._process.poll() is None:
                self._process.terminate()
                try:
                    self._process.wait(END_SECONDS)
                except subprocess.TimeoutExpired:
                    self._process.kill()


@contextmanager
def imagery_ahead(country: str, first: int, second: int) -> Iterator[Ahead]:
    """Have the second year's imagery made once the first one's is; for the block.

    Nothing is started where there is one core, or where that imagery is there already.
    """
    ahead = Ahead(
        None if cpus() < 2 or _made(country, second) else _started(country, first, second)
    )
    try:
        yield ahead
    finally:
        ahead.end()


def _started(country: str, first: int, second: int) -> subprocess.Popen[str]:
    # It lives as long as we hold its standard input.
    return subprocess.Popen(
        [sys.executable, "-m", __name__, country, str(first), str(second)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, LIFELINE: "1"},
    )


def _made(country: str, year: int) -> bool:
    """Whether all composites of a year are there."""
    store = StoreResource().open()
    names = [f"{sensor}_{season}" for sensor in SENSORS for season in SEASONS]
    return all(store.find(Address(name, country, year)) is not None for name in names)


def peak_rss_mb() -> float:
    """Most memory that this process has held, in MB."""
    status = Path("/proc/self/status")
    if status.is_file():  # elsewhere than on Linux, the figure may start at the parent's
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(country: str, first: int, second: int) -> int:
    """Wait for the first year's imagery, then make the second's; the exit code.

    Prints the most memory that it has held, in MB, at its end and nothing else.
    """
    import dagster as dg

    from popcorn_assets.commands.working import ending_when_asked, work
    from popcorn_ml.compute.command import end_with_launcher

    end_with_launcher()
    with (
        open(os.devnull, "w") as nowhere,
        redirect_stdout(nowhere),
        ending_when_asked(),
        dg.DagsterInstance.get() as instance,
    ):
        while not _made(country, first):
            time.sleep(LOOK_SECONDS)
        made = work(instance, INGEST_JOB, country, second, Console(file=nowhere), small=True).made
    print(peak_rss_mb())
    return 0 if made else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
