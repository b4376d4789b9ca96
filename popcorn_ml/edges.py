"""What comes in from outside as a name, a path or an address: which are taken, where they lead.

A country's file may come from a colleague, an item collection from a provider: neither may make the
platform read outside the folders it was given. Those are the store, and what the environment
variable POPCORN_FOLDERS opens besides. What an archive may hold is `census.archive`'s business;
the names of the store's own folders are checked by the store.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator

from popcorn_ml.errors import ConfigError

FOLDERS_VARIABLE = "POPCORN_FOLDERS"
"""Folders besides the store that files may be read from, absolute, separated by `:`."""

MAX_NAME_BYTES = 200
"""A folder entry may have 255; drafts put something before and after."""
MAX_PATH_BYTES = 1000

_INVISIBLE = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode categories that no name needs: control, format (also right-to-left marks), surrogates,
line and paragraph separators."""


def text_problem(text: str) -> str | None:
    """Why a text cannot be part of a path, or None."""
    if "\\" in text:
        return "a backslash"
    if any(unicodedata.category(character) in _INVISIBLE for character in text):
        return "a control or invisible character"
    for part in text.split("/"):
        if len(part.encode()) > MAX_NAME_BYTES:
            return f"a name of more than {MAX_NAME_BYTES} bytes"
        plain = unicodedata.normalize("NFKC", part).strip()
        if plain != part and (plain in (".", "..") or "/" in plain or "\\" in plain):
            return "a character that looks like a separator or like '..'"
    if len(text.encode()) > MAX_PATH_BYTES:
        return f"more than {MAX_PATH_BYTES} bytes"
    return None


def check_path(text: str) -> str:
    """A path as a country's file may write it, `{year}` allowed.

    Raises:
        ValueError: empty, with '..', an address, a path of GDAL's own (`/vsi...`), another
            placeholder, or with characters that no path needs.
    """
    problem = text_problem(text)
    parts = PurePosixPath(text).parts
    if problem is None and not parts:
        problem = "nothing"
    elif problem is None and ".." in parts:
        problem = "'..'"
    elif problem is None and ("://" in text or text.lower().startswith("/vsi")):
        problem = "an address"
    elif problem is None and set("{}") & set(text.replace("{year}", "")):
        problem = "a placeholder other than {year}"
    if problem is not None:
        raise ValueError(f"expected the path of a file or folder, found {problem} in it")
    return text


def check_name(text: str) -> str:
    """A single folder or file name.

    Raises:
        ValueError: empty, hidden, or a path.
    """
    problem = text_problem(text)
    if problem is None and (not text or "/" in text or text.startswith(".")):
        problem = "a path, nothing, or a dot in front"
    if problem is not None:
        raise ValueError(f"expected a name, found {problem} in it")
    return text


def check_address(text: str) -> str:
    """The address of a service.

    Raises:
        ValueError: not http or https, or with a user, a query or a fragment in it: settings are
            kept in manifests, and what lets one in must not be.
    """
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("expected an address that begins with http:// or https://")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError(
            "the address holds a user, a query or a fragment; credentials do not belong here"
        )
    return text


def _path_checked(value: object) -> object:
    return check_path(os.fspath(value)) if isinstance(value, str | os.PathLike) else value


WrittenPath = Annotated[Path, BeforeValidator(_path_checked)]
"""A path in a country's file."""
WrittenFile = Annotated[str, AfterValidator(check_path)]
"""The same, kept as text."""
WrittenName = Annotated[str, AfterValidator(check_name)]
"""A single name in a country's file."""
ServiceAddress = Annotated[str, AfterValidator(check_address)]
"""An address in a country's file."""


def opened_folders() -> list[Path]:
    """The folders that POPCORN_FOLDERS opens.

    Raises:
        ConfigError: one of them is not absolute.
    """
    folders = [Path(p) for p in os.environ.get(FOLDERS_VARIABLE, "").split(os.pathsep) if p]
    for folder in folders:
        if not folder.is_absolute():
            raise ConfigError(
                f"{FOLDERS_VARIABLE} names a folder that is not absolute",
                found=str(folder),
                remedy=f"give absolute paths, separated by {os.pathsep!r}",
            )
    return folders


def within(path: str | Path, folders: Iterable[str | Path]) -> Path:
    """`path`, if it lies in one of some folders, or in an opened one, with every link followed.

    Raises:
        ConfigError: it leads elsewhere. Whether there is anything is not looked at.
    """
    allowed = [Path(folder) for folder in folders] + opened_folders()
    try:
        real = Path(os.path.realpath(path))
    except (ValueError, OSError) as error:
        raise ConfigError(
            "this is no path", where=repr(str(path)[:200]), found=str(error)
        ) from None
    if not any(real.is_relative_to(os.path.realpath(folder)) for folder in allowed):
        raise ConfigError(
            "the path leads out of the folders that may be read",
            where=str(path),
            expected=f"something in {', '.join(map(str, allowed)) or 'no folder at all'}",
            found=str(real),
            remedy=f"put the file into the store, or open its folder: set {FOLDERS_VARIABLE}",
        )
    return Path(path)
