"""Writes the page into a folder: its files, `web/maps.json` and the units of each map."""

from __future__ import annotations

import hashlib
import html
import json
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any

from popcorn_ml.errors import StoreError
from popcorn_ml.files import write_bytes, write_json
from popcorn_ml.publishing.web.entries import entry_of, law_json

PAGE = "index.html"
PARTS = "web"
MAPS = "maps.json"
LAW = "law.json"
FACTS = "*_facts.json"

STATIC = resources.files("popcorn_ml.publishing.web") / "static"
SCRIPTS = (
    "answers.mjs", "areas.mjs", "drawing.mjs", "layers.mjs", "page.css", "page.mjs",
    "rasters.mjs", "start.js", "text.mjs",
)  # fmt: skip
VENDOR = (
    "README.md", "geotiff.LICENSE.txt", "geotiff.js", "maplibre-gl-worker.mjs",
    "maplibre-gl.LICENSE.txt", "maplibre-gl.css", "maplibre-gl.mjs", "proj4.LICENSE.txt",
    "proj4.js",
)  # fmt: skip


STATIC_SHA256 = "6d361f2624867846d1460c4ecadde22b3ca48d72ea29c34a9e0a73ccbc1632b2"
"""What `static_digest` gives. A publication's code version counts Python files: so it counts these
as well, and a changed page has maps published again."""


def write_web_map(folder: Path) -> Path:
    """Write `index.html` and `web/` for every map whose facts lie in a folder.

    What was there of an earlier page is replaced; the same folder gives the same bytes.

    Args:
        folder: with `{code}_{year}_facts.json` and the files that those name.

    Returns:
        The page's path.

    Raises:
        StoreError: facts that are unreadable, or name a file that is not there.
    """
    parts = folder / PARTS
    parts.mkdir(exist_ok=True)
    entries = [entry_of(folder, facts, parts) for facts in facts_in(folder)]
    write_json(parts / MAPS, {"schema": 1, "maps": in_order(entries)})
    write_bytes(parts / LAW, law_json())
    (parts / "vendor").mkdir(exist_ok=True)
    same = page_files()
    for name, content in same.items():
        write_bytes(folder / name, content)
    units = {level["file"] for entry in entries for level in entry["levels"]}
    _remove_others(folder, {*same, *units, f"{PARTS}/{MAPS}", f"{PARTS}/{LAW}"})
    write_bytes(folder / PAGE, page_html([entry["title"] for entry in entries]))
    return folder / PAGE


def _remove_others(folder: Path, written: set[str]) -> None:
    """Remove what an earlier page had in its own folder and this one has not."""
    for path in (folder / PARTS).rglob("*"):
        if path.is_file() and path.relative_to(folder).as_posix() not in written:
            path.unlink()


def static_digest() -> str:
    """SHA-256 over the page's own files and the report's template; see `STATIC_SHA256`."""
    report = resources.files("popcorn_ml.publishing.report") / "report.html.j2"
    digest = hashlib.sha256()
    for source in (STATIC / PAGE, *(STATIC / name for name in SCRIPTS), report):
        digest.update(hashlib.sha256(source.read_bytes()).digest())
    for name in VENDOR:
        digest.update((STATIC / "vendor" / name).read_bytes())
    return digest.hexdigest()


def page_files() -> dict[str, bytes]:
    """Path below the folder -> contents, of all that is the same for every folder but the page."""
    own = {f"{PARTS}/{name}": STATIC / name for name in SCRIPTS}
    vendor = {f"{PARTS}/vendor/{name}": STATIC / "vendor" / name for name in VENDOR}
    return {path: source.read_bytes() for path, source in (own | vendor).items()}


def page_html(titles: Iterable[str]) -> bytes:
    """The page, titled for browsers that show a title before any script has run."""
    found = list(titles)
    title = html.escape(found[0] if len(found) == 1 else "Population maps")
    text = (STATIC / PAGE).read_text("utf-8")
    return text.replace("Population maps", title).encode()


def facts_in(folder: Path) -> list[dict[str, Any]]:
    """The facts of each map in a folder, in the order of their names.

    Raises:
        StoreError: a file is no JSON object with code and year.
    """
    found = []
    for path in sorted(folder.glob(FACTS)):
        try:
            facts = json.loads(path.read_text("utf-8"))
            if path.name != f"{facts['code']}_{int(facts['year'])}_facts.json":
                raise ValueError(f"it is of {facts['code']!r} and {facts['year']!r}")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(
                "the facts of a published map cannot be read",
                where=path,
                expected="JSON with the country and year that its name says",
                found=f"{type(error).__name__} {error}".strip(),
                remedy="export the map again",
            ) from error
        found.append(facts)
    return found


def in_order(entries: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """By country's name, then year."""
    return sorted(entries, key=lambda entry: (entry["name"], entry["code"], entry["year"]))
