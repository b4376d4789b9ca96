"""From a season's finished tiles to its files."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from popcorn_ml.errors import ImageryError
from popcorn_ml.files import NUMPY_READS
from popcorn_ml.grid import Grid, Tile
from popcorn_ml.imagery.scratch import Scratch
from popcorn_ml.imagery.season_report import SeasonReport
from popcorn_ml.imagery.source import Encoding, opposite
from popcorn_ml.parallel import Pool, in_order, in_threads
from popcorn_ml.sentinel import BANDS, Orbit, Sensor

if TYPE_CHECKING:
    import numpy as np

    from popcorn_ml.cog.writer import Desk, Share, ShareWriter
    from popcorn_ml.raster import CogWriter

    Sink = CogWriter | ShareWriter

NOT_ASKED_FOR = 65535
"""In clear_count.tif: the pixel lies in a tile outside the country's boundary."""


def missing_of(values: np.ndarray, encoding: Encoding) -> np.ndarray:
    import numpy as np

    return np.isnan(values) if values.dtype.kind == "f" else values == encoding.nodata


class _Tally:
    """What the tiles of a season add up to.

    Attributes:
        stats, aside_stats: of each band, of the preferred and of the other orbit.
        counts: how many pixels have how many clear observations.
        asked, gaps, left: pixels asked for; those with a band missing; those where it is missing
            in the other orbit too.
        aside: indices of the tiles that hold something of the other orbit.
        elsewhere: pixels that the other orbit has a value for.
    """

    def __init__(self, sensor: Sensor, encoding: Encoding) -> None:
        import numpy as np

        from popcorn_ml.imagery.stats import BandStats

        self.bands, self.encoding = BANDS[sensor], encoding
        self.stats = {band: BandStats(sensor) for band in self.bands}
        self.aside_stats = {band: BandStats(sensor) for band in self.bands}
        self.counts = np.zeros(NOT_ASKED_FOR + 1, np.int64)
        self.asked = self.gaps = self.left = self.elsewhere = 0
        self.aside: set[int] = set()

    def add(self, index: int, arrays: dict[str, np.ndarray]) -> None:
        """Count a tile's arrays in."""
        import numpy as np

        other = arrays.get("other")
        if other is not None:
            self.aside.add(index)
        for place, band in enumerate(self.bands):
            self.stats[band].add(arrays["values"][place])
            if other is not None:
                self.aside_stats[band].add(other[place])
        self.counts += np.bincount(arrays["clear"].reshape(-1), minlength=self.counts.size)
        self.asked += arrays["clear"].size
        missing = missing_of(arrays["values"], self.encoding)
        self.gaps += int(missing.any(axis=0).sum())
        if other is not None:
            missing &= missing_of(other, self.encoding)
        self.left += int(missing.any(axis=0).sum())

    def keep(self, path: Path) -> None:
        """Put all of it into a file, for whoever adds it up elsewhere."""
        import numpy as np

        with open(path, "xb") as file:
            np.savez_compressed(
                file,
                stats=[self.stats[band].counts for band in self.bands],
                aside_stats=[self.aside_stats[band].counts for band in self.bands],
                counts=self.counts,
                sums=[self.asked, self.gaps, self.left, self.elsewhere],
                aside=np.array(sorted(self.aside), np.int64),
            )

    def take(self, path: Path) -> None:
        """Count in what was kept in a file."""
        import numpy as np

        with NUMPY_READS, np.load(path, allow_pickle=False) as kept:
            for place, band in enumerate(self.bands):
                self.stats[band].counts += kept["stats"][place]
                self.aside_stats[band].counts += kept["aside_stats"][place]
            self.counts += kept["counts"]
            asked, gaps, left, elsewhere = map(int, kept["sums"])
            self.aside |= set(kept["aside"].tolist())
        self.asked += asked
        self.gaps += gaps
        self.left += left
        self.elsewhere += elsewhere

    def merge(self, other: _Tally) -> None:
        """Count another's tiles in."""
        for band in self.bands:
            self.stats[band].counts += other.stats[band].counts
            self.aside_stats[band].counts += other.aside_stats[band].counts
        self.counts += other.counts
        self.asked += other.asked
        self.gaps += other.gaps
        self.left += other.left
        self.elsewhere += other.elsewhere
        self.aside |= other.aside


def assemble(
    report: SeasonReport,
    encoding: Encoding,
    grid: Grid,
    tiles: Sequence[Tile],
    wanted: Sequence[Tile],
    scratch: Scratch,
    out_dir: Path,
    threads: int = 1,
    pool: Pool | None = None,
) -> None:
    """Write the season's files from the finished tiles, so many of them at once.

    Args:
        pool: of other processes or machines, which then read the tiles and write the blocks.
    """
    from popcorn_ml.imagery.stats import clear_summary
    from popcorn_ml.raster import CogWriter, together

    bands = BANDS[report.sensor]
    tally = _Tally(report.sensor, encoding)
    composite = _composite_writer(out_dir / "composite.tif", report, encoding, grid, report.orbit)
    clear = CogWriter(
        out_dir / "clear_count.tif",
        grid,
        ("clear_count",),
        "uint16",
        NOT_ASKED_FOR,
        tags=_tags(report),
        resampling="nearest",
    )

    facts = _Season(report.sensor, encoding, scratch.folder, frozenset(t.index for t in wanted))
    with together(composite, clear) as sinks:
        for own in _written(facts, _write_tile, sinks, tiles, threads, pool):
            tally.merge(own)
    report.files = ["composite.tif", "clear_count.tif"]
    report.nodata_share = round(tally.gaps / tally.asked, 6)
    report.clear = clear_summary(tally.counts)
    report.bands = {band: tally.stats[band].as_dict() for band in bands}
    if not tally.aside:
        return
    orbit = opposite(report.orbit or "descending")
    facts = _Season(report.sensor, encoding, scratch.folder, frozenset(tally.aside))
    path = out_dir / "other_orbit.tif"
    with together(_composite_writer(path, report, encoding, grid, orbit)) as sinks:
        counted = _written(facts, _write_aside, sinks, tiles, threads, pool)
        aside = sum(own.elsewhere for own in counted)
    report.files.append("other_orbit.tif")
    report.other_orbit = {
        "share": round(aside / tally.asked, 6),
        "nodata_share": round(tally.left / tally.asked, 6),
        "bands": {band: tally.aside_stats[band].as_dict() for band in bands},
    }


@dataclass(frozen=True)
class _Season:
    """What is needed to write a season's tiles, wherever that is done.

    Attributes:
        sensor, encoding: of the season.
        folder: of the finished tiles.
        held: indices of the tiles that have something to write; the others are nodata.
    """

    sensor: Sensor
    encoding: Encoding
    folder: Path
    held: frozenset[int]

    def nothing(self, tile: Tile) -> np.ndarray:
        """Of all bands."""
        import numpy as np

        shape = (len(BANDS[self.sensor]), tile.core.height, tile.core.width)
        return np.full(shape, self.encoding.nodata, self.encoding.dtype)


def _write_tile(season: _Season, sinks: Sequence[Sink], tile: Tile) -> _Tally:
    """Write a tile's composite and its clear observations; what is counted of them."""
    import numpy as np

    composite, clear = sinks
    tally = _Tally(season.sensor, season.encoding)
    if tile.index not in season.held:
        composite.write(season.nothing(tile), tile.core)
        outside = np.full((tile.core.height, tile.core.width), NOT_ASKED_FOR, np.uint16)
        clear.write(outside, tile.core)
        return tally
    arrays, _ = _tile(Scratch.shared(season.folder), tile)
    composite.write(arrays["values"], tile.core)
    clear.write(arrays["clear"], tile.core)
    tally.add(tile.index, arrays)
    return tally


def _write_aside(season: _Season, sinks: Sequence[Sink], tile: Tile) -> _Tally:
    """Write what the other orbit holds of a tile's gaps, and count how many pixels that is."""
    tally = _Tally(season.sensor, season.encoding)
    values = season.nothing(tile)
    if tile.index in season.held:
        values = _tile(Scratch.shared(season.folder), tile)[0]["other"]
        tally.elsewhere = int((~missing_of(values, season.encoding)).any(axis=0).sum())
    sinks[0].write(values, tile.core)
    return tally


def _written(
    season: _Season,
    write: Callable[[_Season, Sequence[Sink], Tile], _Tally],
    sinks: Sequence[CogWriter],
    tiles: Sequence[Tile],
    threads: int,
    pool: Pool | None,
) -> Iterator[_Tally]:
    """Write every tile, in threads here or by a pool's workers; what they counted, in order."""
    if pool is None:
        yield from in_threads(partial(write, season, sinks), tiles, threads)
        return
    elsewhere = partial(_write_elsewhere, season, write, [sink.desk for sink in sinks])
    for shares, counted in in_order(elsewhere, tiles, pool, threads + 1):
        for sink, share in zip(sinks, shares, strict=True):
            sink.take(share)
        tally = _Tally(season.sensor, season.encoding)
        tally.take(counted)
        yield tally


def _write_elsewhere(
    season: _Season,
    write: Callable[[_Season, Sequence[Sink], Tile], _Tally],
    desks: Sequence[Desk],
    tile: Tile,
) -> tuple[list[Share], Path]:
    """One tile's blocks, written by a worker, and the file with what it counted."""
    with ExitStack() as stack:
        sinks = [stack.enter_context(desk.share()) for desk in desks]
        tally = write(season, sinks, tile)
        shares = [sink.finish() for sink in sinks]
        counted = desks[0].folder / f"counted-{tile.index}-{uuid.uuid4().hex}.npz"
        tally.keep(counted)
        return shares, counted


def _composite_writer(
    path: Path, report: SeasonReport, encoding: Encoding, grid: Grid, orbit: Orbit | None
) -> CogWriter:
    from popcorn_ml.raster import CogWriter

    return CogWriter(
        path,
        grid,
        BANDS[report.sensor],
        encoding.dtype,
        encoding.nodata,
        scale=encoding.scale,
        tags={**_tags(report), "orbit": orbit or "", **report.provenance},
    )


def _tags(report: SeasonReport) -> dict[str, object]:
    return {"sensor": report.sensor, "season": report.season, "year": report.year}


def _tile(scratch: Scratch, tile: Tile) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    held = scratch.read_tile(tile.index)
    if held is None:
        raise ImageryError(
            f"tile {tile.index} was finished and can no longer be read",
            where=scratch.folder,
            remedy="see whether something empties this folder, and run again",
        )
    return held
