"""Opening zip archives that strangers made: bounded in size, and nothing outside the folder.

What a Mac or Windows puts beside the files for its own use is no member. Excel workbooks
are zip archives too and pass the same inspection before anything opens them.
"""

from __future__ import annotations

import shutil
import stat
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from popcorn_ml.edges import MAX_NAME_BYTES, MAX_PATH_BYTES
from popcorn_ml.errors import CensusError

OWN_FOLDERS = ("__MACOSX", ".AppleDouble", ".Spotlight-V100", ".Trashes", "@eaDir")
OWN_FILES = ("thumbs.db", "ehthumbs.db", "desktop.ini", ".ds_store")


@dataclass(frozen=True)
class Limits:
    """What an archive may hold.

    Attributes:
        total_bytes: unpacked size of everything together.
        members: number of files.
        ratio: unpacked over packed size of the whole, above which it is held to be a bomb; small
            archives (under `ratio_from_bytes` unpacked) compress as well as they like.
    """

    total_bytes: int = 2 * 1024**3
    members: int = 2000
    ratio: float = 200.0
    ratio_from_bytes: int = 32 * 1024**2


def inspect(
    path: Path, limits: Limits | None = None, noun: str = "archive"
) -> list[zipfile.ZipInfo]:
    """The files of an archive, after refusing what no census file needs.

    Raises:
        CensusError: no zip, damaged, encrypted, a member outside the folder or with a name that
            cannot be written, a link, or more or larger than `limits`.

    An archive inside is a file like any other: it is left packed.
    """
    limits = limits or Limits()
    try:
        with zipfile.ZipFile(path) as archive:
            members = [m for m in archive.infolist() if not m.is_dir()]
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise CensusError(
            f"the {noun} cannot be opened",
            where=path,
            expected="a complete zip file" if noun == "archive" else f"a complete {noun}",
            found=str(error),
            remedy="fetch or save it again",
        ) from error
    unpacked = sum(m.file_size for m in members)
    packed = max(sum(m.compress_size for m in members), 1)
    if len(members) > limits.members:
        raise CensusError(
            f"the {noun} holds too many files",
            where=path,
            expected=f"at most {limits.members}",
            found=len(members),
            remedy="hand in only the census files",
        )
    bomb = unpacked > limits.ratio_from_bytes and unpacked / packed > limits.ratio
    if unpacked > limits.total_bytes or bomb:
        raise CensusError(
            f"the {noun} would unpack to far more than it holds (a zip bomb)",
            where=path,
            expected=f"at most {limits.total_bytes} bytes and {limits.ratio:g} times its size",
            found=f"{unpacked} bytes, {unpacked / packed:.0f} times its size",
            remedy="unpack it yourself, look at it, and hand in the census files",
        )
    for member in members:
        _refuse(path, member)
    return members


def _refuse(path: Path, member: zipfile.ZipInfo) -> None:
    name = member.filename
    parts = PurePosixPath(name.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or PureWindowsPath(name).drive or "\x00" in name:
        raise CensusError(
            "a file in the archive would be written outside its folder",
            where=f"{path}!{name}",
            expected="a relative path without '..'",
            found=name,
            remedy="pack the files again, from inside their folder",
        )
    long = max(len(part.encode("utf-8", "replace")) for part in parts.parts or ("",))
    if long > MAX_NAME_BYTES or len(name.encode("utf-8", "replace")) > MAX_PATH_BYTES:
        raise CensusError(
            "a file in the archive has too long a name",
            where=f"{path}!{name[:60]}...",
            expected=f"at most {MAX_NAME_BYTES} bytes a folder or file, {MAX_PATH_BYTES} in all",
            found=f"{len(name.encode('utf-8', 'replace'))} bytes",
            remedy="pack the files again under shorter names",
        )
    if stat.S_ISLNK(member.external_attr >> 16):
        raise CensusError(
            "a member of the archive is a link",
            where=f"{path}!{name}",
            expected="a plain file",
            found="a symbolic link",
            remedy="pack the file that it points to",
        )
    if member.flag_bits & 0x1:
        raise CensusError(
            "the archive is encrypted",
            where=f"{path}!{name}",
            expected="an archive without a password",
            found="an encrypted member",
            remedy="unpack it and hand in the files",
        )


def systems_own(name: str) -> bool:
    """Whether a path in an archive is what an operating system keeps beside the files."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    last = parts[-1] if parts else ""
    beside = last.startswith("._") or last.casefold() in OWN_FILES
    return beside or any(part in OWN_FOLDERS for part in parts[:-1])


def unpack(path: Path, target: Path, limits: Limits | None = None) -> list[Path]:
    """Unpack an inspected archive below `target`; the files, sorted, the system's own left out.

    Sizes are counted while writing, so that a header that lies about them does not help.

    Raises:
        CensusError: as `inspect`, or a member is damaged or longer than it says.
    """
    limits = limits or Limits()
    members = [m for m in inspect(path, limits) if not systems_own(m.filename)]
    root = target.resolve()
    left = limits.total_bytes
    written: list[Path] = []
    with zipfile.ZipFile(path) as archive:
        for member in members:
            out = (target / member.filename.replace("\\", "/")).resolve()
            if root not in out.parents:
                raise CensusError(
                    "a file in the archive would be written outside its folder",
                    where=f"{path}!{member.filename}",
                    found=member.filename,
                    remedy="pack the files again, from inside their folder",
                )
            out.parent.mkdir(parents=True, exist_ok=True)
            try:
                with archive.open(member) as source, open(out, "wb") as sink:
                    shutil.copyfileobj(_Bounded(source, min(left, member.file_size)), sink, 1 << 20)
            except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, ValueError) as e:
                raise CensusError(
                    "a file in the archive is damaged",
                    where=f"{path}!{member.filename}",
                    found=str(e),
                    remedy="fetch the archive again",
                ) from e
            left -= out.stat().st_size
            written.append(out)
    return sorted(written)


class _Bounded:
    """A stream that refuses to give more than it promised."""

    def __init__(self, stream, limit: int) -> None:
        self._stream, self._left = stream, limit

    def read(self, size: int = -1, /) -> bytes:
        block = self._stream.read(size)
        self._left -= len(block)
        if self._left < 0:
            raise ValueError("it is longer than its header says")
        return block
