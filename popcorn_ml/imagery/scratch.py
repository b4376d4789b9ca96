"""Tiles that are done, kept on disk until the season is: what makes a killed fetch resumable.

One folder a request, named by a hash of everything that decides its pixels; in it the scene list
as it was when the fetch began, and one file a finished tile. Files appear whole or not at all; one
that cannot be read counts as absent.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from popcorn_ml.files import NUMPY_READS, replacing

if TYPE_CHECKING:
    import numpy as np


class Scratch:
    """The folder of one request."""

    def __init__(self, root: Path, identity: Mapping[str, Any]) -> None:
        text = json.dumps(identity, sort_keys=True, default=str)
        self.folder = root / f"imagery-{hashlib.sha256(text.encode()).hexdigest()[:20]}"
        self.folder.mkdir(parents=True, exist_ok=True)
        for left in self.folder.rglob(".*"):  # drafts of a run that was killed
            if left.is_file():
                left.unlink(missing_ok=True)

    @classmethod
    def shared(cls, folder: Path) -> Scratch:
        """The folder of a request that somebody else has begun, and may still write into."""
        made = cls.__new__(cls)
        made.folder = folder
        return made

    def read_json(self, name: str) -> Any | None:
        """A document kept earlier; None if there is none."""
        try:
            return json.loads((self.folder / name).read_text("utf-8"))
        except (FileNotFoundError, ValueError):
            return None

    def keep_json(self, name: str, document: Any) -> None:
        """Keep a document for a later run."""
        text = json.dumps(document)  # in the order given, so that nothing changes by resuming
        self._write(name, lambda handle: handle.write(text.encode()))

    def read_tile(self, index: int) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
        """Arrays and record of a finished tile; None if it has to be fetched."""
        import numpy as np

        try:
            with NUMPY_READS, np.load(self._tile(index), allow_pickle=False) as held:
                arrays = {name: held[name] for name in held.files}
            record = json.loads(arrays.pop("record").tobytes())
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        return arrays, record

    def read_record(self, index: int) -> dict[str, Any] | None:
        """The record of a finished tile alone."""
        import numpy as np

        try:
            with NUMPY_READS, np.load(self._tile(index), allow_pickle=False) as held:
                return json.loads(held["record"].tobytes())
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None

    def keep_tile(
        self, index: int, arrays: Mapping[str, np.ndarray], record: Mapping[str, Any]
    ) -> None:
        """Keep a finished tile."""
        import numpy as np

        note = np.frombuffer(json.dumps(record, sort_keys=True).encode(), np.uint8)
        held: dict[str, Any] = {**arrays, "record": note}
        self._write(self._tile(index).name, lambda handle: np.savez(handle, **held))

    def drop_tile(self, index: int) -> None:
        """Forget a tile, so that it is fetched again."""
        self._tile(index).unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove the folder: the season is done."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _tile(self, index: int) -> Path:
        return self.folder / f"tile_{index:06d}.npz"

    def _write(self, name: str, fill: Any) -> None:
        with replacing(self.folder / name) as draft, draft.open("wb") as out:
            fill(out)
