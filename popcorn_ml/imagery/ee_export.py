"""A whole season through a bucket: exported by Earth Engine, polled, downloaded, read in windows.

The export's request id is derived from everything that decides its files and from the number of
the attempt, so that asking again after a kill finds the running or finished export instead of
starting another, and one that failed, or whose files are gone, is made again under another number.
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from popcorn_ml.edges import check_name
from popcorn_ml.errors import ImageryError, ProviderDown
from popcorn_ml.files import replacing, write_json
from popcorn_ml.grid import Grid, Window
from popcorn_ml.imagery.backoff import RETRY_STATUS
from popcorn_ml.imagery.ee_client import pixel_grid
from popcorn_ml.imagery.secrets import Secrets, scrub
from popcorn_ml.imagery.source import SeasonRequest, Traffic

if TYPE_CHECKING:
    import numpy as np

    from popcorn_ml.imagery.ee_client import EarthEngine
    from popcorn_ml.imagery.ee_settings import Settings

OPERATION = "operation.txt"
"""Where the attempt is noted, and the name of the operation once it has begun."""

FAILED = ("FAILED", "CANCELLED", "CANCELLING")

MOST_ATTEMPTS = 5
"""Attempts of earlier runs that ended in vain, which one run passes over; the next goes on."""


class ExportedSeason:
    """The files of a finished export, on disk, read as one raster."""

    def __init__(self, files: list[Path], grid: Grid, bands: int) -> None:
        from popcorn_ml.imagery.placement import covered_px, placed

        self._bands, self._parts = bands, []
        for file in files:
            place = placed(file, grid)
            if place is not None:
                self._parts.append((file, place))
        covered = covered_px(place for _, place in self._parts)
        if covered != grid.width * grid.height:
            raise ImageryError(
                "the export does not cover the country's grid",
                where=files[0].parent if files else None,
                expected=f"{grid.width * grid.height} pixels",
                found=f"{covered} in {len(files)} files",
                remedy="delete the export in the bucket and run again",
            )

    def read(self, window: Window) -> np.ndarray:
        """Stored values of a window, (bands, rows, columns)."""
        import numpy as np

        from popcorn_ml import raster

        out: np.ndarray | None = None
        for file, place in self._parts:
            top, left = max(place.row, window.row), max(place.col, window.col)
            bottom = min(place.row + place.height, window.row + window.height)
            right = min(place.col + place.width, window.col + window.width)
            if bottom <= top or right <= left:
                continue
            there = Window(top - place.row, left - place.col, bottom - top, right - left)
            values = raster.read(file, there)
            if out is None:
                out = np.zeros((self._bands, window.height, window.width), values.dtype)
            here = Window(top, left, bottom - top, right - left)
            out[(slice(None), *here.inside(window))] = values
        assert out is not None
        return out

    def close(self) -> None:
        """Nothing is held open."""


def fetch_export(
    client: EarthEngine,
    image: Any,
    request: SeasonRequest,
    settings: Settings,
    secrets: Secrets,
    folder: Path,
) -> ExportedSeason:
    """Have an image written to the bucket, wait for it, and bring its files into `folder`.

    Files that are there already, whole, are not fetched again. What an earlier run has left of an
    export that failed, or whose files are gone, is passed over, and another is begun.

    Raises:
        ImageryError: the export failed or was cancelled, or the bucket cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    identity = [image.serialize(), request.grid.as_dict(), settings.file_px]
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    passed = 0
    while True:
        export = _Export(client, image, request, settings, folder, key)
        operation = export.begun()
        known = _ended(operation)
        if not known:
            operation = export.awaited(operation)
        try:
            export.check(operation)
            files = _download(settings, secrets, export.prefix, folder)
        except _InVain as failure:
            export.note(export.attempt + 1)  # this one the service would return for ever
            passed += 1
            if not known or passed > MOST_ATTEMPTS:
                raise failure.told from None
            continue
        return ExportedSeason(files, request.grid, len(request.bands) + 1)


class _InVain(Exception):
    """An export that has ended and is of no use, and what to tell of it."""

    def __init__(self, told: ImageryError) -> None:
        super().__init__(told.what)
        self.told = told


def _state(operation: dict[str, Any]) -> str:
    return (operation.get("metadata") or {}).get("state", "")


def _ended(operation: dict[str, Any]) -> bool:
    return bool(operation.get("done")) or _state(operation) in FAILED


class _Export:
    """One attempt to have a season exported.

    Attributes:
        attempt: how many were in vain before it, as noted in the folder.
        name: of the export, in the task manager too; prefix: of its files in the bucket.
    """

    def __init__(
        self,
        client: EarthEngine,
        image: Any,
        request: SeasonRequest,
        settings: Settings,
        folder: Path,
        key: str,
    ) -> None:
        self.client, self.image, self.request, self.settings = client, image, request, settings
        self.folder, self.key, self.traffic = folder, key, Traffic()
        self.attempt, self._operation = self._noted()
        orbit, number = request.orbit or "all", f"_{self.attempt}" if self.attempt else ""
        season = f"{request.sensor}_{request.season}_{request.year}"
        self.name = f"{season}_{orbit}_{key[:12]}{number}"
        self.prefix = f"{settings.prefix}/{self.name}/part"

    def _noted(self) -> tuple[int, str]:
        try:
            held = json.loads((self.folder / OPERATION).read_text("utf-8"))
            if held["key"] == self.key:
                return int(held["attempt"]), str(held["operation"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            pass
        return 0, ""

    def note(self, attempt: int, operation: str = "") -> None:
        """Keep for a later run which attempt it is, and the operation if it has begun."""
        held = {"key": self.key, "attempt": attempt, "operation": operation}
        write_json(self.folder / OPERATION, held)

    def begun(self) -> dict[str, Any]:
        """The operation as it is now: the one noted, or one begun now.

        Should the service answer that the request id was used (a run was killed between asking and
        noting), the operation is found by its description.
        """
        handle = self._operation or self._begin()["name"]
        self.note(self.attempt, handle)
        return self._look(handle)

    def _begin(self) -> dict[str, Any]:
        import ee

        task = ee.batch.Export.image.toCloudStorage(
            image=self.image,
            description=self.name,
            bucket=self.settings.bucket,
            fileNamePrefix=self.prefix,
            maxPixels=int(1e13),
            fileDimensions=self.settings.file_px,
            fileFormat="GeoTIFF",
            formatOptions={"cloudOptimized": True},
        )
        # The grid is given as such: from crs, crsTransform and dimensions the client would build an
        # expression that leaves the corner to the service.
        config = {**(task.config or {}), "grid": pixel_grid(self.request.grid)}
        place = f"popcorn:{self.settings.bucket}:{self.prefix}:{self.key}"
        request_id = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{place}:{self.attempt}"))
        try:
            return self.client.call(
                lambda: ee.data.exportImage(request_id, dict(config)),
                self.traffic,
                f"export of {self.name}",
            )
        except ImageryError as refusal:
            if "already" not in str(refusal).lower():
                raise
            known = self.client.call(ee.data.listOperations, self.traffic, "the list of exports")
            for one in known:
                if (one.get("metadata") or {}).get("description") == self.name:
                    return one
            raise

    def _look(self, handle: str) -> dict[str, Any]:
        import ee

        try:
            return self.client.call(
                lambda: ee.data.getOperation(handle), self.traffic, f"state of export {self.name}"
            )
        except ProviderDown:
            raise
        except ImageryError:  # it may be forgotten by now: ask for it anew next time
            self.note(self.attempt)
            raise

    def awaited(self, operation: dict[str, Any]) -> dict[str, Any]:
        """The operation once it has ended."""
        while not _ended(operation):
            time.sleep(self.settings.poll_s)
            operation = self._look(operation["name"])
        return operation

    def check(self, operation: dict[str, Any]) -> None:
        """Make sure that an operation ended well.

        Raises:
            _InVain: it did not.
        """
        state = _state(operation) or "SUCCEEDED"
        if operation.get("error") or state in FAILED:
            raise _InVain(
                ImageryError(
                    f"the export {self.name} ended as {state}",
                    where=f"gs://{self.settings.bucket}/{self.prefix}",
                    found=(operation.get("error") or {}).get("message"),
                    remedy="see the task in Earth Engine's task manager, then run again: another "
                    "export is begun",
                )
            )


def _own_name(blob: str) -> str:
    """The name on disk of a file in the bucket, which others may write to.

    Raises:
        ImageryError: it is none.
    """
    try:
        return check_name(blob.rpartition("/")[2])
    except ValueError as error:
        raise ImageryError(
            "a file in the bucket has a name that cannot be used",
            where=repr(blob[:200]),
            found=str(error),
            remedy="remove it from the bucket and run again",
        ) from None


def _download(settings: Settings, secrets: Secrets, prefix: str, folder: Path) -> list[Path]:
    """Bring every file of a prefix over, whole or not at all.

    Raises:
        _InVain: there are none.
        ImageryError: the bucket cannot be read.
    """
    import requests
    from google.api_core.exceptions import GoogleAPICallError, GoogleAPIError, RetryError
    from google.auth.exceptions import GoogleAuthError, TransportError
    from google.cloud import storage
    from google.cloud.storage.retry import DEFAULT_RETRY

    from popcorn_ml.imagery.ee_client import credentials, project_of

    options = {"api_endpoint": settings.storage_url} if settings.storage_url else None
    first, files = settings.first_wait_s, []
    patience = DEFAULT_RETRY.with_delay(initial=first).with_timeout(first * 2**settings.retries)
    try:
        bucket_client = storage.Client(
            project=project_of(secrets), credentials=credentials(secrets), client_options=options
        )
        for blob in bucket_client.list_blobs(settings.bucket, prefix=prefix, retry=patience):
            file = folder / _own_name(blob.name)
            if not (file.exists() and file.stat().st_size == blob.size):
                with replacing(file) as draft:
                    blob.download_to_filename(str(draft), checksum="crc32c", retry=patience)
            files.append(file)
    except (GoogleAPIError, GoogleAuthError, OSError) as error:
        down = isinstance(error, requests.RequestException | RetryError | TransportError) or (
            isinstance(error, GoogleAPICallError) and error.code in RETRY_STATUS
        )
        kind = ProviderDown if down else ImageryError
        raise kind(
            "the export cannot be read from the bucket",
            where=f"gs://{settings.bucket}/{prefix}",
            found=scrub(str(error)),
            remedy="run again later: the export is kept"
            if down
            else "give the account the role Storage Object Viewer on the bucket",
        ) from None
    if not files:
        raise _InVain(
            ImageryError(
                "the export is finished and its files are not in the bucket",
                where=f"gs://{settings.bucket}/{prefix}",
                remedy="see whether a lifecycle rule deletes them, then run again: another export "
                "is begun",
            )
        )
    return sorted(files)
