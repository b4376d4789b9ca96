"""The store's published maps in a browser, beside `popcorn ui`.

The server of `popcorn ui` is a process of its own, which ends with the one that started it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from popcorn_ml.errors import StoreError
from popcorn_ml.published.versions import LATEST, Address, Published, Version
from popcorn_ml.publishing.web.entries import law_json
from popcorn_ml.publishing.web.page import (
    LAW,
    MAPS,
    PAGE,
    PARTS,
    in_order,
    page_files,
    page_html,
)
from popcorn_ml.publishing.web.server import Find, MapServer, Served, of_folder, serve

PUBLICATION = "publication"
"""The asset whose versions are shown."""
_CODE = re.compile(r"[a-z0-9][a-z0-9_]*")
_YEAR = re.compile(r"_(\d{4})(?=_)")
"""In names of a publication's files: `CODE_YEAR_...`, of a change `CODE_YEAR_change_YEAR_...`."""


def start_beside(root: Path, host: str, port: int) -> None:
    """Start a process that serves the store's maps for as long as this process lives.

    It reads from a pipe of which this process, whatever program it becomes, has the other end.

    Args:
        root: of the store.
        host, port: free ones, see `ports.require_port`.
    """
    read, write = os.pipe()
    os.set_inheritable(write, True)
    command = [sys.executable, "-m", __name__, str(root), host, str(port)]
    subprocess.Popen(command, stdin=read, pass_fds=(), start_new_session=False)
    os.close(read)


def of_store(root: Path) -> Find:
    """The current publications of a store as one folder of maps.

    Args:
        root: of the store; it need not be there yet.
    """
    store = Published(root)
    same = page_files()
    law = law_json()

    def find(name: str) -> Served | None:
        if name == PAGE:
            return Served(content=page_html([]))
        if name == f"{PARTS}/{MAPS}":
            return Served(content=_maps(store))
        if name == f"{PARTS}/{LAW}":
            return Served(content=law)
        if name in same:
            return Served(content=same[name])
        for code, year in _owners(name):
            try:
                version = store.find(Address(PUBLICATION, code, year))
            except StoreError:
                continue
            if version is not None and (served := of_folder(version.path)(name)) is not None:
                return served
        return None

    return find


def _owners(name: str) -> Iterator[tuple[str, int]]:
    """Whose file it may be: a code may have a year in it, and the name of a change has two."""
    base = name.removeprefix(f"{PARTS}/")
    for year in _YEAR.finditer(base) if "/" not in base else ():
        if _CODE.fullmatch(base[: year.start()]):
            yield base[: year.start()], int(year[1])


def _maps(store: Published) -> bytes:
    """`maps.json` of all current publications; one that cannot be read is left out."""
    entries = []
    for version in _current(store):
        try:
            told = json.loads((version.path / PARTS / MAPS).read_text("utf-8"))
            entries += [one for one in told["maps"] if one["code"] == version.address.country]
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return json.dumps({"schema": 1, "maps": in_order(entries)}, ensure_ascii=False).encode()


def _current(store: Published) -> Iterator[Version]:
    for path in sorted((store.root / PUBLICATION).glob(f"*/*/{LATEST}")):
        try:
            version = store.find(Address(PUBLICATION, path.parts[-3], int(path.parts[-2])))
        except (StoreError, ValueError):
            continue
        if version is not None:
            yield version


def main(root: str, host: str, port: str) -> None:
    """Serve a store's maps until standard input ends."""
    with MapServer(host, int(port), of_store(Path(root))) as server:
        threading.Thread(target=_end_with_input, args=(server,), daemon=True).start()
        serve(server)


def _end_with_input(server: MapServer) -> None:
    sys.stdin.buffer.read()
    server.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
