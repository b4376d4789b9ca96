"""A whole season through a bucket: exported by Earth Engine, polled, downloaded, read in windows.

The export's request id is derived from everything that decides its pixels, so that asking again
after a kill finds the running or finished export instead of starting another.
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from popcorn_ml.edges import check_name
from popcorn_ml.errors import ImageryError
from popcorn_ml.files import replacing, write_bytes
from popcorn_ml.grid import Grid, Window
from popcorn_ml.imagery.ee_client import pixel_grid
from popcorn_ml.imagery.secrets import Secrets, scrub
from popcorn_ml.imagery.source import SeasonRequest, Traffic

if TYPE_CHECKING:
    import numpy as np

    from popcorn_ml.imagery.ee_client import EarthEngine
    from popcorn_ml.imagery.ee_settings import Settings

OPERATION = "operation.txt"
"""Where the name of a begun export is noted."""

FAILED = ("FAILED", "CANCELLED", "CANCELLING")


class ExportedSeason:
    """The files of a finished export, on disk, read as one raster."""

    def __init__(self, files: list[Path], grid: Grid, bands: int) -> None:
        from popcorn_ml.imagery.placement import placed

        self._bands, self._parts = bands, []
        covered = 0
        for file in files:
            place = placed(file, grid)
            if place is not None:
                self._parts.append((file, place))
                covered += place.height * place.width
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

    Files that are there already, whole, are not fetched again.

    Raises:
        ImageryError: the export failed or was cancelled, or the bucket cannot be read.
    """
    import ee

    traffic = Traffic()
    key = hashlib.sha256(
        json.dumps([image.serialize(), request.grid.as_dict()], sort_keys=True).encode()
    ).hexdigest()
    name = f"{request.sensor}_{request.season}_{request.year}_{request.orbit or 'all'}_{key[:12]}"
    prefix = f"{settings.prefix}/{name}/part"
    folder.mkdir(parents=True, exist_ok=True)
    operation = _started(client, image, request, settings, name, prefix, key, folder, traffic)
    handle = operation["name"]
    while not operation.get("done"):
        time.sleep(settings.poll_s)
        try:
            operation = client.call(
                lambda: ee.data.getOperation(handle), traffic, f"state of export {name}"
            )
        except ImageryError:  # it may be forgotten by now: ask for it anew next time
            (folder / OPERATION).unlink(missing_ok=True)
            raise
        if (operation.get("metadata") or {}).get("state") in FAILED:
            break
    state = (operation.get("metadata") or {}).get("state", "SUCCEEDED")
    if operation.get("error") or state in FAILED:
        (folder / OPERATION).unlink(missing_ok=True)
        raise ImageryError(
            f"the export {name} ended as {state}",
            where=f"gs://{settings.bucket}/{prefix}",
            found=(operation.get("error") or {}).get("message"),
            remedy="see the task in Earth Engine's task manager, then run again",
        )
    files = _download(settings, secrets, prefix, folder)
    return ExportedSeason(files, request.grid, len(request.bands) + 1)


def _started(
    client: EarthEngine,
    image: Any,
    request: SeasonRequest,
    settings: Settings,
    name: str,
    prefix: str,
    key: str,
    folder: Path,
    traffic: Traffic,
) -> dict[str, Any]:
    """The export's operation: the one noted in `folder`, or one begun now.

    Should the service answer that the request id was used (a run was killed between asking and
    noting), the operation is found by its description.
    """
    import ee

    note = folder / OPERATION
    if note.exists():
        return {"name": note.read_text("utf-8").strip()}
    task = ee.batch.Export.image.toCloudStorage(
        image=image,
        description=name,
        bucket=settings.bucket,
        fileNamePrefix=prefix,
        maxPixels=int(1e13),
        fileDimensions=settings.file_px,
        fileFormat="GeoTIFF",
        formatOptions={"cloudOptimized": True},
    )
    # The grid is given as such: from crs, crsTransform and dimensions the client would build an
    # expression that leaves the corner to the service.
    config = {**(task.config or {}), "grid": pixel_grid(request.grid)}
    request_id = str(uuid.uuid5(uuid.NAMESPACE_URL, f"popcorn:{settings.bucket}:{prefix}:{key}"))
    try:
        operation = client.call(
            lambda: ee.data.exportImage(request_id, dict(config)), traffic, f"export of {name}"
        )
    except ImageryError as refusal:
        if "already" not in str(refusal).lower():
            raise
        known = client.call(ee.data.listOperations, traffic, "the list of exports")
        same = [o for o in known if (o.get("metadata") or {}).get("description") == name]
        if not same:
            raise
        operation = same[0]
    write_bytes(note, operation["name"].encode())
    return operation


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
    """Bring every file of a prefix over, whole or not at all."""
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError
    from google.cloud import storage

    from popcorn_ml.imagery.ee_client import credentials, project_of

    options = {"api_endpoint": settings.storage_url} if settings.storage_url else None
    files = []
    try:
        bucket_client = storage.Client(
            project=project_of(secrets), credentials=credentials(secrets), client_options=options
        )
        for blob in bucket_client.list_blobs(settings.bucket, prefix=prefix):
            file = folder / _own_name(blob.name)
            if not (file.exists() and file.stat().st_size == blob.size):
                with replacing(file) as draft:
                    blob.download_to_filename(str(draft), checksum="crc32c")
            files.append(file)
    except (GoogleAPIError, GoogleAuthError, OSError) as error:
        raise ImageryError(
            "the export cannot be read from the bucket",
            where=f"gs://{settings.bucket}/{prefix}",
            found=scrub(str(error)),
            remedy="give the account the role Storage Object Viewer on the bucket",
        ) from None
    if not files:
        raise ImageryError(
            "the export is finished and its files are not in the bucket",
            where=f"gs://{settings.bucket}/{prefix}",
            remedy="see whether a lifecycle rule deletes them",
        )
    return sorted(files)
