"""Pictures of versions, shown by Dagster's own web server from the store, not from its databases.

Dagster shows what is in an event, and keeps every event for ever: a picture in each would be most
of what its databases hold. Its web server also answers `/logs/...` with the file that the
instance's manager of compute logs names. Ours is Dagster's own for logs, and names a version's
picture for `/logs/pictures/<asset>/<country>/<year>/<version>/png`: the same web server, started in
whatever way, needs nothing else. Only the picture of a version that lies in the store is ever
named; what else is asked for under that address is not there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
from dagster._serdes import ConfigurableClassData

from popcorn_assets.paths import data_root
from popcorn_assets.runs.home import webserver
from popcorn_assets.show import PICTURE
from popcorn_assets.store.versions import Address, Store
from popcorn_ml.errors import StoreError

PICTURES = "pictures"
"""First part of a picture's address, where a log's has the run's identifier."""

EXTENSION = "png"
_NOTHING = "not-there"


class ComputeLogs(LocalComputeLogManager):
    """Dagster's compute logs in files of this machine, and pictures of the store's versions."""

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> ComputeLogs:
        return cls(inst_data=inst_data, **config_value)

    def get_captured_local_path(
        self, log_key: Sequence[str], extension: str, partial: bool = False
    ) -> str:
        """The file of a log, or of a picture; one that is not there where there is no such."""
        if not log_key or log_key[0] != PICTURES:
            return super().get_captured_local_path(log_key, extension, partial)
        found = picture_of(log_key[1:]) if extension == EXTENSION else None
        return str(found or Path(self._base_dir) / PICTURES / _NOTHING)

    def picture_address(self, picture: Path) -> str | None:
        """Where the web server shows a file; None of one that it does not show."""
        try:
            parts = picture.parent.relative_to(data_root()).parts
        except ValueError:
            return None
        if picture_of(parts) != picture:
            return None
        prefix = urlsplit(webserver()).path  # of a web server that is reached below another
        return f"{prefix}/logs/{'/'.join((PICTURES, *parts, EXTENSION))}"


def picture_of(parts: Sequence[str]) -> Path | None:
    """The picture of the version that the parts of a path below the store's root name."""
    *place, version = parts or ("",)
    try:
        if len(place) == 3 and place[2].isascii() and place[2].isdecimal():
            address = Address(place[0], place[1], int(place[2]))
        elif len(place) == 1:
            address = Address(place[0])
        else:
            return None
        return Store(data_root()).version(address, version).file(PICTURE)
    except StoreError:
        return None
