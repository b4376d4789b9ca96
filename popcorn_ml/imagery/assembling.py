"""From a season's finished tiles to its files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from popcorn_ml.errors import ImageryError
from popcorn_ml.grid import Grid, Tile
from popcorn_ml.imagery.scratch import Scratch
from popcorn_ml.imagery.season_report import SeasonReport
from popcorn_ml.imagery.source import Encoding, opposite
from popcorn_ml.parallel import in_threads
from popcorn_ml.sentinel import BANDS, Orbit, Sensor

if TYPE_CHECKING:
    import numpy as np

    from popcorn_ml.raster import CogWriter


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
    """

    def __init__(self, sensor: Sensor, encoding: Encoding) -> None:
        import numpy as np

        from popcorn_ml.imagery.stats import BandStats

        self.bands, self.encoding = BANDS[sensor], encoding
        self.stats = {band: BandStats(sensor) for band in self.bands}
        self.aside_stats = {band: BandStats(sensor) for band in self.bands}
        self.counts = np.zeros(NOT_ASKED_FOR + 1, np.int64)
        self.asked = self.gaps = self.left = 0
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

    def merge(self, other: _Tally) -> None:
        """Count another's tiles in."""
        for band in self.bands:
            self.stats[band].counts += other.stats[band].counts
            self.aside_stats[band].counts += other.aside_stats[band].counts
        self.counts += other.counts
        self.asked += other.asked
        self.gaps += other.gaps
        self.left += other.left
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
) -> None:
    """Write the season's files from the finished tiles, so many of them at once."""
    import numpy as np

    from popcorn_ml.imagery.stats import clear_summary
    from popcorn_ml.raster import CogWriter, together

    bands = BANDS[report.sensor]
    tally = _Tally(report.sensor, encoding)
    chosen = {tile.index for tile in wanted}
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

    def work(tile: Tile) -> _Tally | None:
        """Write a tile; what is counted of it."""
        shape = (len(bands), tile.core.height, tile.core.width)
        if tile.index not in chosen:
            composite.write(np.full(shape, encoding.nodata, encoding.dtype), tile.core)
            clear.write(np.full(shape[1:], NOT_ASKED_FOR, np.uint16), tile.core)
            return None
        arrays, _ = _tile(scratch, tile)
        composite.write(arrays["values"], tile.core)
        clear.write(arrays["clear"], tile.core)
        own = _Tally(report.sensor, encoding)
        own.add(tile.index, arrays)
        return own

    with together(composite, clear):
        for own in in_threads(work, tiles, threads):
            if own is not None:
                tally.merge(own)
    report.files = ["composite.tif", "clear_count.tif"]
    report.nodata_share = round(tally.gaps / tally.asked, 6)
    report.clear = clear_summary(tally.counts)
    report.bands = {band: tally.stats[band].as_dict() for band in bands}
    if not tally.aside:
        return
    aside = _write_aside(report, encoding, grid, tiles, tally.aside, scratch, out_dir, threads)
    report.files.append("other_orbit.tif")
    report.other_orbit = {
        "share": round(aside / tally.asked, 6),
        "nodata_share": round(tally.left / tally.asked, 6),
        "bands": {band: tally.aside_stats[band].as_dict() for band in bands},
    }


def _write_aside(
    report: SeasonReport,
    encoding: Encoding,
    grid: Grid,
    tiles: Sequence[Tile],
    aside: set[int],
    scratch: Scratch,
    out_dir: Path,
    threads: int,
) -> int:
    """Write what the other orbit holds of the gaps; how many pixels that is."""
    import numpy as np

    orbit = opposite(report.orbit or "descending")
    path = out_dir / "other_orbit.tif"
    with _composite_writer(path, report, encoding, grid, orbit) as writer:

        def work(tile: Tile) -> int:
            if tile.index not in aside:
                shape = (len(BANDS[report.sensor]), tile.core.height, tile.core.width)
                writer.write(np.full(shape, encoding.nodata, encoding.dtype), tile.core)
                return 0
            values = _tile(scratch, tile)[0]["other"]
            writer.write(values, tile.core)
            return int((~missing_of(values, encoding)).any(axis=0).sum())

        return sum(in_threads(work, tiles, threads))


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
