"""Taking in a census file that somebody put into the inbox.

A file is copied aside, looked at as if it were already in its place, and then either takes that
place (its predecessor is kept) or goes to `rejected/` with a report that says what to do. Watching
the folder and asking for partitions is the orchestration's business.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from popcorn_ml.census.destinations import lay_out
from popcorn_ml.census.examine import examine
from popcorn_ml.census.findings import CheckResult
from popcorn_ml.census.settings import CensusSettings
from popcorn_ml.census.tables import sha256
from popcorn_ml.compute.locks import holder, try_lock
from popcorn_ml.edges import within
from popcorn_ml.errors import CensusError, PopcornError
from popcorn_ml.files import replacing, write_bytes
from popcorn_ml.grid import Grid

if TYPE_CHECKING:
    from popcorn_ml.warehouse.warehouse import Warehouse

REJECTED = "rejected"
HISTORY = ".history"
MAX_BYTES = 2 * 1024**3
MAX_NAME = 200
UNFINISHED = (".part", ".partial", ".tmp", ".crdownload", ".filepart", ".swp", "~")
QUIET_S = 5.0
SAFE_NAME = re.compile(r"[^\x00-\x1f\x7f/\\]+")


class InboxBusy(CensusError):
    """Somebody takes a file of this inbox in just now; the file is left for the next look."""


@dataclass(frozen=True)
class Received:
    """What became of a file.

    Attributes:
        accepted: whether it is now in its place.
        country: whose inbox it was in.
        file: its name.
        sha256: of its bytes, "" where it was not even opened.
        bytes: its size.
        levels: levels whose files it is, or holds.
        years: years in which it counts people (all that the levels' tables count, where it holds
            boundaries); their partitions, and later ones, are out of date.
        stored: where its files are now (in `accepted_dir`, or in `rejected/`); nowhere if it was
            replaced before it was even opened, and refused.
        report: the text beside a rejected file.
        message: for the log: why it was rejected, or what was noted.
        checks: results of the census checks, as far as it got.
    """

    accepted: bool
    country: str
    file: str
    sha256: str
    bytes: int
    levels: tuple[str, ...]
    years: tuple[int, ...]
    stored: tuple[Path, ...]
    report: Path | None
    message: str
    checks: tuple[CheckResult, ...]


def waiting(inbox_dir: Path, quiet_s: float = QUIET_S) -> list[Path]:
    """Files of one country's inbox that are complete: sorted, subfolders and drafts left out.

    Args:
        inbox_dir: the country's, such as `data/inbox/rwa`.
        quiet_s: a file that changed within this many seconds is still being written.
    """
    return [path for path, why in _look(inbox_dir, quiet_s) if not why]


def unfinished(inbox_dir: Path, quiet_s: float = QUIET_S) -> list[tuple[Path, str]]:
    """Files of one country's inbox that are left for a later look, each with the reason.

    Args:
        inbox_dir: the country's, such as `data/inbox/rwa`.
        quiet_s: as for `waiting`.
    """
    return [(path, why) for path, why in _look(inbox_dir, quiet_s) if why]


def _look(inbox_dir: Path, quiet_s: float) -> Iterator[tuple[Path, str]]:
    """Every file of an inbox, by name, and why it is not taken in now; "" where it is."""
    if not inbox_dir.is_dir():
        return
    now = time.time()
    for entry in sorted(os.scandir(inbox_dir), key=lambda e: e.name):
        if entry.name.startswith(".") or entry.is_dir(follow_symlinks=False):
            continue
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:  # taken in or taken away since the folder was listed
            continue
        # A copy may keep the time of its original, and another machine's clock may be ahead; when
        # something was last done to the file here, only this machine's clock says.
        changed = status.st_mtime if status.st_mtime <= now else status.st_ctime
        why = ""
        if entry.name.endswith(UNFINISHED):
            why = "named like a file that is still being written"
        elif changed > now:
            told = datetime.fromtimestamp(changed, UTC).isoformat(timespec="seconds")
            why = f"dated ahead of this machine's clock, {told}; set its time with touch"
        elif now - changed < quiet_s:
            why = f"changed {now - changed:.0f} s ago"
        yield Path(entry.path), why


def receive(
    file: Path,
    country: str,
    settings: CensusSettings,
    grid: Grid,
    inbox_dir: Path,
    accepted_dir: Path,
    base_dir: Path | Sequence[Path] = (),
    warehouse: Warehouse | None = None,
) -> Received:
    """Take in or reject one file; the inbox no longer holds it afterwards.

    One at a time: two that judged the same file would both register it.

    Args:
        file: in `inbox_dir`. Its name must be one that the settings name, or that of a zip archive
            that holds such files (a shapefile comes with its companions).
        country: its code.
        settings: the census section of the country's file.
        grid: the country's.
        inbox_dir: the country's inbox, such as `data/inbox/rwa`.
        accepted_dir: where accepted files go, under the paths of the settings; search it first.
        base_dir: further folders where the other files of the settings are.
        warehouse: where the file is registered, if given.

    Returns:
        What became of it. Bad files do not raise.

    Raises:
        InboxBusy: another process or thread takes a file of this inbox in.
        CensusError: `file` is not in `inbox_dir`, or no longer; it is then left alone.
        StoreError: the warehouse cannot be written; the file is then still in the inbox.
    """
    file, inbox_dir, accepted_dir = Path(file), Path(inbox_dir), Path(accepted_dir)
    _inside(file, inbox_dir)
    folders = [Path(base_dir)] if isinstance(base_dir, (str, Path)) else list(map(Path, base_dir))
    with _alone(inbox_dir, file):
        return _receive(file, country, settings, grid, inbox_dir, accepted_dir, folders, warehouse)


@contextmanager
def _alone(inbox_dir: Path, file: Path) -> Iterator[None]:
    """Keep others from taking in files of the same inbox.

    Raises:
        InboxBusy: somebody does at present.
    """
    path = inbox_dir.parent / f".{inbox_dir.name}.lock"
    started = datetime.now(UTC).isoformat(timespec="seconds")
    lock = try_lock(path, f"{file.name!a}, since {started}")
    if lock is None:
        raise InboxBusy(
            "another file of this inbox is being taken in",
            where=inbox_dir,
            found=holder(path),
            remedy="none is needed: what is left here is looked at again",
        )
    try:
        yield
    finally:
        os.close(lock)


def _receive(
    file: Path,
    country: str,
    settings: CensusSettings,
    grid: Grid,
    inbox_dir: Path,
    accepted_dir: Path,
    folders: Sequence[Path],
    warehouse: Warehouse | None,
) -> Received:
    """As `receive`, by whoever has the inbox to himself."""
    out = Received(False, country, file.name, "", 0, (), (), (), None, "", ())
    try:
        before = os.lstat(file)
    except FileNotFoundError as error:
        raise CensusError(
            "the file is no longer in the inbox", where=file, found="no such file"
        ) from error
    with tempfile.TemporaryDirectory(prefix="popcorn-inbox-") as scratch:
        copy = Path(scratch) / "file" / file.name
        try:
            _refuse_odd(file, before)
            copy.parent.mkdir()
            _copy(file, copy)
            out = replace(out, sha256=sha256(copy), bytes=before.st_size)
            staged = Path(scratch) / "staged"
            placed = lay_out(copy, settings, staged)
            levels = tuple(dict.fromkeys(level for _, level in placed))
            out = replace(out, levels=levels)
            found = examine(settings, grid, [staged, accepted_dir, *folders], levels)
            out = replace(out, checks=found.checks, years=found.years)
            if not found.usable:
                raise CensusError(
                    "the file did not pass the census checks",
                    where=file.name,
                    found="\n".join(c.message for c in found.checks if c.blocks),
                    remedy="correct the rows below and put the file into the inbox again",
                )
        except (PopcornError, OSError) as error:
            return _reject(file, before, copy, inbox_dir, out, str(error))
        stored = tuple(
            _store(staged / name, accepted_dir, name)
            for name in sorted({name for name, _ in placed})
        )
        # Only once it is in its place, and before the inbox forgets it: what is registered can be
        # read, and a death in between leaves the file to be taken in again.
        if warehouse is not None:
            warehouse.register_received(
                country, file.name, out.sha256, out.bytes, out.levels, out.years
            )
    if _is_still(file, before):
        file.unlink()
    notes = [c.message for c in out.checks if not c.passed] + list(found.missing)
    return replace(out, accepted=True, stored=stored, message="\n".join(notes))


def _inside(file: Path, inbox_dir: Path) -> None:
    """Refuse what does not lie directly in the inbox, however its path is written."""
    parent = os.path.realpath(file.parent)
    if parent != os.path.realpath(inbox_dir) or file.name in ("", ".", ".."):
        raise CensusError(
            "the path leaves the inbox; the file was left alone",
            where=file,
            expected=f"a file directly in {inbox_dir}",
            found=parent,
            remedy="put the file itself into the inbox",
        )


def _refuse_odd(file: Path, status: os.stat_result) -> None:
    """Refuse links, devices and names that no census file has."""
    if stat.S_ISLNK(status.st_mode):
        raise CensusError(
            "a link was put into the inbox",
            where=file.name,
            expected="a plain file",
            found=f"a link to {os.readlink(file)}",
            remedy="copy the file itself into the inbox",
        )
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        raise CensusError(
            "what was put into the inbox is no plain file of its own",
            where=file.name,
            expected="a plain file",
            found="a second name of another file" if status.st_nlink > 1 else "something else",
            remedy="copy the file itself into the inbox",
        )
    if not SAFE_NAME.fullmatch(file.name) or len(file.name.encode()) > MAX_NAME:
        raise CensusError(
            "the file's name cannot be used",
            where=repr(file.name[:60]),
            expected=f"a name of at most {MAX_NAME} bytes without control characters",
            found=f"{len(file.name.encode())} bytes",
            remedy="rename it as the country's file names it",
        )
    if status.st_size == 0:
        raise CensusError(
            "the file is empty",
            where=file.name,
            found="0 bytes",
            remedy="export or fetch it again",
        )
    if status.st_size > MAX_BYTES:
        raise CensusError(
            "the file is too large",
            where=file.name,
            expected=f"at most {MAX_BYTES} bytes",
            found=status.st_size,
            remedy="keep the country that is needed",
        )


def _copy(file: Path, copy: Path) -> None:
    """Copy a plain file; one that was turned into a link meanwhile is not followed."""
    descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(descriptor, "rb") as source, open(copy, "wb") as sink:
        shutil.copyfileobj(source, sink, 1 << 20)


def _store(staged: Path, accepted_dir: Path, relative: str) -> Path:
    """Put one file in its place; the one that was there goes to the history, by its hash."""
    target = within(accepted_dir / relative, [accepted_dir])
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        kept = accepted_dir / HISTORY / sha256(target)[:16] / relative
        kept.parent.mkdir(parents=True, exist_ok=True)
        if not kept.exists():
            os.link(target, kept)  # so that there is no moment without the file
    with replacing(target) as draft:
        shutil.copyfile(staged, draft)
    return target


def _is_still(file: Path, before: os.stat_result) -> bool:
    """Whether what was judged is there yet, and nobody has put another file in its place."""
    try:
        now = os.lstat(file)
    except FileNotFoundError:
        return False
    return (now.st_ino, now.st_mtime_ns, now.st_size) == (
        before.st_ino, before.st_mtime_ns, before.st_size
    )  # fmt: skip


def _reject(
    file: Path, before: os.stat_result, copy: Path, inbox_dir: Path, out: Received, reason: str
) -> Received:
    """Put what was judged aside with a report; a file that has replaced it meanwhile stays.

    Args:
        copy: what was judged, if it came to that; put aside where the file itself is gone.
    """
    folder = inbox_dir / REJECTED
    folder.mkdir(parents=True, exist_ok=True)
    safe = "".join(c for c in file.name if c.isprintable() and c not in "/\\")[:100] or "file"
    stem, suffix = Path(safe).stem, Path(safe).suffix
    mark = out.sha256[:8] or f"{time.time_ns():x}"
    target = folder / f"{stem}-{mark}{suffix}"
    report = folder / f"{stem}-{mark}{suffix}.report.txt"
    stays = not _is_still(file, before)
    if stays:
        reason += "\n\nMeanwhile the file in the inbox was replaced or taken away: what is there "
        reason += "now is looked at by itself. This is about the one before."
    write_bytes(report, report_text(out, reason).encode())
    if not stays:
        os.replace(file, target)
    elif out.sha256:
        shutil.copyfile(copy, target)
    stored = () if stays and not out.sha256 else (target,)
    return replace(out, stored=stored, report=report, message=reason)


def report_text(received: Received, reason: str) -> str:
    """The report beside a rejected file: reason, then every check that failed with its rows."""
    lines = [
        f"Census file rejected: {received.file!r}"
        if not received.file.isprintable()
        else f"Census file rejected: {received.file}",
        f"country:  {received.country}",
        f"when:     {datetime.now(UTC).isoformat(timespec='seconds')}",
        f"sha256:   {received.sha256 or '(not opened)'}",
        "",
        reason,
    ]
    for check in received.checks:
        if check.passed:
            continue
        lines += ["", f"[{'must be corrected' if check.blocks else 'note'}] {check.name}"]
        lines += [f"  {line}" for line in check.message.splitlines()]
        lines += [
            "  - " + ", ".join(f"{k}={v}" for k, v in row.items() if v not in ("", None))
            for row in check.rows
        ]
    return "\n".join(lines) + "\n"
