"""One tile of a season fetched and kept: by threads here, or by workers that see the same folder.

A worker opens the source anew from its settings, reads the season's scenes where they were kept
when the fetch began, and sends back the tile's record alone. No credentials go to it: what a
provider lets anybody read is read, the rest is refused as anywhere without a key.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from popcorn_ml.grid import Tile
from popcorn_ml.imagery.assembling import missing_of
from popcorn_ml.imagery.choice import open_source
from popcorn_ml.imagery.scene_lists import kept_lists
from popcorn_ml.imagery.scratch import Scratch
from popcorn_ml.imagery.season_report import lost_in
from popcorn_ml.imagery.source import (
    Encoding,
    SceneList,
    SeasonRequest,
    Source,
    TileAnswer,
    opposite,
)
from popcorn_ml.parallel import Pool, in_order

if TYPE_CHECKING:
    import numpy as np

    from popcorn_ml.imagery.settings import ImagerySettings

ELSEWHERE = ("files", "stac")
"""Sources whose tiles other machines can fetch; the others' quotas are one account's."""


@dataclass(frozen=True)
class TileJob:
    """What a worker needs to fetch tiles of a season.

    Attributes:
        request, settings: as here.
        folder: of the finished tiles and the kept scenes, which all machines see.
    """

    request: SeasonRequest
    settings: ImagerySettings
    folder: Path


def fetch_tile(
    source: Source,
    request: SeasonRequest,
    main: SceneList,
    other: SceneList | None,
    scratch: Scratch,
    tile: Tile,
) -> dict[str, Any]:
    """Fetch and keep a tile; its record, or the earlier one where no more was to be had."""
    answer = source.tile(request, tile.core, main.scenes)
    arrays = {"values": answer.values, "clear": answer.clear}
    record: dict[str, Any] = {"main": _note(answer)}
    if other and other.scenes and not answer.clear.all():
        aside = source.tile(
            request.on_orbit(opposite(request.orbit or "descending")), tile.core, other.scenes
        )
        values = _only_gaps(aside.values, answer.values, source.encoding(request))
        if values is not None:
            arrays["other"] = values
        record["other"] = _note(aside)
    before = scratch.read_record(tile.index)
    if before is not None and lost_in(before) <= lost_in(record):
        return before
    scratch.keep_tile(tile.index, arrays, record)
    return record


def in_threads_here(
    source: Source,
    request: SeasonRequest,
    main: SceneList,
    other: SceneList | None,
    scratch: Scratch,
    tiles: Sequence[Tile],
) -> Generator[dict[str, Any] | None, None, None]:
    """Records of tiles as they are finished, as many at once as the source can.

    The first failure ends it: tiles in flight are finished and kept, no other is begun. So does
    whoever takes no more of them.
    """
    failed = threading.Event()

    def fetch(tile: Tile) -> dict[str, Any] | None:
        if failed.is_set():
            return None
        try:
            return fetch_tile(source, request, main, other, scratch, tile)
        except BaseException:
            failed.set()
            raise

    pool = ThreadPoolExecutor(max(1, source.parallel_tiles), thread_name_prefix="tiles")
    try:
        for future in as_completed([pool.submit(fetch, tile) for tile in tiles]):
            yield future.result()
    except BaseException:
        failed.set()
        raise
    finally:
        failed.set()
        pool.shutdown(cancel_futures=True)


def in_pool(
    job: TileJob, pool: Pool, at_once: int, tiles: Sequence[Tile]
) -> Generator[dict[str, Any] | None, None, None]:
    """Records of tiles that workers fetch and keep, in the tiles' order."""
    with closing(in_order(partial(fetch_elsewhere, job), tiles, pool, at_once + 1)) as records:
        yield from records


def fetch_elsewhere(job: TileJob, tile: Tile) -> dict[str, Any]:
    """One tile in a worker process, which keeps the source open between its tiles."""
    from popcorn_ml.imagery.secrets import Secrets, guarded
    from popcorn_ml.raster import bounded_cache

    scratch = Scratch.shared(job.folder)
    lists = kept_lists(scratch)
    with guarded(Secrets()), bounded_cache():
        source = _source(job.settings.model_dump_json(), job)
        return fetch_tile(source, job.request, lists[0], lists[1], scratch, tile)


_OPEN: dict[str, Source] = {}


def _source(text: str, job: TileJob) -> Source:
    """The source of some settings, one at a time."""
    if text not in _OPEN:
        for other in list(_OPEN):
            _OPEN.pop(other).close()
        _OPEN[text] = open_source(job.settings, workers=1)
    return _OPEN[text]


def _note(answer: TileAnswer) -> dict[str, Any]:
    return {
        "used": list(answer.used),
        "lost": [asdict(one) for one in answer.lost],
        "traffic": asdict(answer.traffic),
    }


def _only_gaps(values: np.ndarray, main: np.ndarray, encoding: Encoding) -> np.ndarray | None:
    """The other orbit's values where the preferred one has none; None where that is nowhere."""
    import numpy as np

    gap = missing_of(main, encoding)
    if not (gap & ~missing_of(values, encoding)).any():
        return None
    return np.where(gap, values, np.array(encoding.nodata, values.dtype))
