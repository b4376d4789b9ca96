"""Composites that exist already, laid out as the published data set has them.

    <root>/merged/EE/<region>/S1spring/<region>_S1spring.tif      descending
    <root>/merged/EE/<region>/S1springAsc/<region>_S1springAsc.tif  ascending
    <root>/merged/EE/<region>/S2Aspring/<region>_S2Aspring.tif

and so for summer, autumn and winter. Where the merged file is absent but its folder holds other
`.tif` files, these are taken as its tiles, any number of them.

Values are taken over without loss: floating-point backscatter in dB stays float32 with NaN as
nodata, floating-point reflectance too, integer reflectance becomes uint16 with 0 as nodata. What
stands for a missing pixel in files without a nodata tag is nodata too (`_filler`). Files
must lie on the country's lattice of pixels (same CRS, step and phase); they may be larger, and may
fall short of the grid by a little at its edges, where the composite is then nodata.

Sentinel-2 bands are found by their descriptions ("B2" or "B02", ...). A file without them and with
thirteen bands is in the order of the product (B1 ... B8, B8A, B9 ... B12). One with four is in the
order of `s2_bands`: blue, green, red, near infrared, the order in which the published download
script selects them and in which the published loader reads them (bands 3, 2, 1, 4 for R, G, B,
NIR).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from popcorn_ml.edges import WrittenName, WrittenPath, within
from popcorn_ml.errors import ConfigError, GridMismatch, ImageryError, RasterError
from popcorn_ml.grid import Window
from popcorn_ml.imagery.placement import covered_px, placed
from popcorn_ml.imagery.source import (
    FLOAT_ENCODING,
    STANDARD_ENCODING,
    Encoding,
    Scene,
    SceneList,
    SeasonRequest,
    TileAnswer,
    Traffic,
)
from popcorn_ml.sentinel import (
    S1_BANDS,
    S1_DB_LIMITS,
    S1_NODATA,
    S1_SCALE,
    S2_BANDS,
    S2_BASELINE_OFFSET,
    Orbit,
    Sensor,
)

if TYPE_CHECKING:
    import numpy as np

    from popcorn_ml.imagery.secrets import Secrets
    from popcorn_ml.imagery.settings import ImagerySettings

PRODUCT_ORDER = (
    "B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12",
)  # fmt: skip


class Settings(BaseModel):
    """What a country's file may say under `files`.

    Attributes:
        root: folder that holds `merged/EE`; "{year}" stands for the year.
        region: name of the country in the layout; None = must be given by the caller's country.
        s2_bands: order of the bands in a four-band Sentinel-2 file without descriptions.
        s2_product: how the Sentinel-2 folders are called: S2A (L2A) or S21C (L1C).
        min_coverage: share of the grid that the files must cover.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    FINISHED: ClassVar[bool] = True

    root: WrittenPath | None = None
    region: WrittenName | None = None
    s2_bands: tuple[str, ...] = S2_BANDS
    s2_product: Literal["L2A", "L1C"] = "L2A"
    min_coverage: float = Field(default=0.9, gt=0, le=1)


def open_source(
    settings: Settings, imagery: ImagerySettings, secrets: Secrets, workers: int
) -> FilesSource:
    """A source over the files below `settings.root`."""
    if settings.root is None or settings.region is None:
        missing = "root" if settings.root is None else "region"
        raise ConfigError(
            f"the files source needs its {missing}",
            where=f"imagery.files.{missing}",
            remedy="give the folder that holds merged/EE, and the region's name in it",
        )
    return FilesSource(settings, settings.root, settings.region, workers)


class FilesSource:
    """See `popcorn_ml.imagery.source.Source`."""

    def __init__(self, settings: Settings, root: Path, region: str, workers: int) -> None:
        self._settings, self._root, self._region = settings, root, region
        self.parallel_tiles = workers

    def paths(self, request: SeasonRequest) -> list[Path]:
        """The file of a season, or its tiles, in alphabetical order; empty if there are none."""
        merged = self._merged(request)
        return [merged] if merged.exists() else sorted(merged.parent.glob("*.tif"))

    def _merged(self, request: SeasonRequest) -> Path:
        """Where the one file of a season would lie."""
        if request.sensor == "s1":
            name = f"S1{request.season}{'Asc' if request.orbit == 'ascending' else ''}"
        else:
            name = f"{'S2A' if self._settings.s2_product == 'L2A' else 'S21C'}{request.season}"
        folder = self._root_of(request.year) / "merged" / "EE" / self._region / name
        return folder / f"{self._region}_{name}.tif"

    def _root_of(self, year: int) -> Path:
        return Path(str(self._root).replace("{year}", str(year)))

    def scenes(self, request: SeasonRequest) -> SceneList:
        """One entry a file; an orbit that is not there gives an empty list."""
        paths = self.paths(request)
        if not paths and request.sensor == "s1":  # the other orbit may be there
            return SceneList((), sought=str(self._merged(request)))
        if not paths:
            raise ImageryError(
                f"there is no composite of {request}",
                where=self._root_of(request.year) / "merged" / "EE" / self._region,
                expected=str(self._merged(request)),
                remedy="put the file there, or choose another source for this season",
            )
        windows = []
        for path in paths:
            within(path, [self._root_of(request.year)])
            windows.append(placed(path, request.grid))
        covered = covered_px(window for window in windows if window is not None)
        share = covered / (request.grid.width * request.grid.height)
        if share < self._settings.min_coverage:
            raise GridMismatch(
                "the file covers too little of the country's grid",
                where=paths[0] if len(paths) == 1 else paths[0].parent,
                expected=f"at least {self._settings.min_coverage:.0%} of it",
                found=f"{share:.1%}",
                remedy="correct the grid in the country's file, or imagery.files.min_coverage",
            )
        product = self._settings.s2_product if request.sensor == "s2" else "GRD"
        scenes = (
            Scene(
                id=path.stem,
                moment=None,
                product=product,
                orbit=request.orbit,
                assets={"file": str(path)},
            )
            for path in paths
        )
        return SceneList(tuple(scenes))

    def encoding(self, request: SeasonRequest) -> Encoding:
        """That of the files; both orbits of a season have one, for one stands in for the other."""
        from popcorn_ml.raster import opened

        both: tuple[Orbit, ...] = ("descending", "ascending")
        wanted = [request.on_orbit(o) for o in both] if request.sensor == "s1" else [request]
        kinds, scales = set(), set()
        for one in wanted:
            for path in self.paths(one):
                with opened(path) as dataset:
                    kinds |= set(dataset.dtypes)
                    scales |= set(dataset.scales)
        if request.sensor == "s2" and all("int" in kind for kind in kinds):
            return STANDARD_ENCODING["s2"]
        if request.sensor == "s1" and kinds == {"int16"} and scales == {0.01}:
            return STANDARD_ENCODING["s1"]
        return FLOAT_ENCODING

    def tile(self, request: SeasonRequest, window: Window, scenes: Sequence[Scene]) -> TileAnswer:
        import numpy as np

        encoding = self.encoding(request)
        shape = (len(request.bands), window.height, window.width)
        values = np.full(shape, encoding.nodata, encoding.dtype)
        used, traffic = [], Traffic()
        for scene in scenes:
            path = Path(scene.assets["file"])
            traffic.assets += 1
            if _copy(path, request, window, self._band_order(request, path), encoding, values):
                used.append(scene.id)
        present = ~np.isnan(values) if encoding.dtype == "float32" else values != encoding.nodata
        clear = present.all(axis=0).astype(np.uint16)
        return TileAnswer(values, clear, tuple(sorted(used)), (), traffic)

    def _band_order(self, request: SeasonRequest, path: Path) -> list[int]:
        """1-based file bands in the order of the composite."""
        from popcorn_ml.raster import opened

        with opened(path) as dataset:
            said = [_band_name(text) for text in dataset.descriptions]
            count = dataset.count
        wanted = request.bands
        if all(band in said for band in wanted):
            return [said.index(band) + 1 for band in wanted]
        if request.sensor == "s1":
            order: tuple[str, ...] = S1_BANDS
        else:
            order = PRODUCT_ORDER if count == len(PRODUCT_ORDER) else self._settings.s2_bands
        if count != len(order) or any(said):
            raise RasterError(
                "the bands of the composite cannot be told apart",
                where=path,
                expected=f"bands described as {', '.join(wanted)}, "
                f"or {len(order)} bands without description",
                found=", ".join(name or "?" for name in said),
                remedy="describe the bands in the file (gdal_edit.py -set_band_descriptions)",
            )
        return [order.index(band) + 1 for band in wanted]

    def provenance(self, request: SeasonRequest) -> dict[str, str]:
        level = self._settings.s2_product
        return {
            "provider": "files",
            "collection": f"{self._region} in the published layout",
            "quantity": "sigma-nought, dB (Earth Engine S1_GRD)"
            if request.sensor == "s1"
            else f"reflectance x 10000 ({level})",
            "backscatter": "sigma0" if request.sensor == "s1" else "",
            "level": "GRD" if request.sensor == "s1" else level,
            "clear": "unknown: counts are 1 where there is a value",
            "observation": "unknown",
            "resampling": "none",
        }

    def fingerprint(self) -> str:
        folder = Path(str(self._root).split("{year}")[0])
        digest = hashlib.sha256()
        for path in sorted(folder.rglob(f"merged/EE/{self._region}/*/*.tif")):
            state = path.stat()
            digest.update(f"{path}:{state.st_size}:{state.st_mtime_ns}\n".encode())
        return digest.hexdigest()

    def prepare(self, request: SeasonRequest, scenes: Sequence[Scene], folder: Path) -> None:
        pass

    def close(self) -> None:
        pass


def _band_name(text: str | None) -> str:
    """A band's description in the project's spelling ("B2" is "B02"), "" if there is none."""
    found = re.fullmatch(r"(?i)\s*(vv|vh|b\d{1,2}a?)\s*", (text or "").split(" ")[0])
    if not found:
        return (text or "").strip()
    name = found[1].upper()
    return f"B{name[1:].zfill(2)}" if name[0] == "B" else name


def _copy(
    path: Path,
    request: SeasonRequest,
    window: Window,
    order: list[int],
    encoding: Encoding,
    out: np.ndarray,
) -> bool:
    """Copy what a file holds of a window into `out` where that is still empty; whether it was."""
    import numpy as np

    from popcorn_ml.raster import grid_of, read, read_float

    place = placed(path, request.grid)
    if place is None:
        return False
    top, left = max(place.row, window.row), max(place.col, window.col)
    bottom = min(place.row + place.height, window.row + window.height)
    right = min(place.col + place.width, window.col + window.width)
    if bottom <= top or right <= left:
        return False
    part = Window(top, left, bottom - top, right - left)
    found = grid_of(path)
    row = round((found.north - request.grid.north) / request.grid.step) + top
    col = round((request.grid.west - found.west) / request.grid.step) + left
    there = Window(row, col, part.height, part.width)
    target = out[(slice(None), *part.inside(window))]
    if encoding.dtype == "float32":
        values = read_float(path, there, order)
        values[_filler(values, request.sensor)] = np.nan
        new = np.isnan(target) & ~np.isnan(values)
        np.copyto(target, values, where=new)
        return bool(new.any())
    values = read(path, there, order)
    absent = np.isnan(read_float(path, there, order))
    if request.sensor == "s2":
        values = _as_reflectance(np.where(absent, np.array(0, values.dtype), values), path)
    else:
        absent |= _filler(values * S1_SCALE, "s1")
        values = np.where(absent, np.array(S1_NODATA, values.dtype), values)
    new = (target == encoding.nodata) & (values != encoding.nodata)
    np.copyto(target, values, where=new)
    return bool(new.any())


def _filler(values: np.ndarray, sensor: Sensor) -> np.ndarray:
    """Where numbers stand for "no observation", whatever the file's nodata tag says.

    Earth Engine's exports carry no tag: masked pixels come as 0, or as what the script put there
    (`unmask(-9999)`).

    Args:
        values: (bands, rows, columns), dB or reflectance x 10000, NaN where the tag says nodata.
    """
    import numpy as np

    if sensor == "s1":  # 0 dB is a bright pixel, but not to the last bit in both polarisations
        nothing = ((values == 0) | np.isnan(values)).all(axis=0)
        return nothing | (values < S1_DB_LIMITS[0]) | np.isposinf(values)
    return (values == 0) | (values < -S2_BASELINE_OFFSET)  # the least number is 1, less its offset


def _as_reflectance(values: np.ndarray, path: Path) -> Any:
    """Integer reflectance as uint16 with 0 where there is none."""
    import numpy as np

    if values.size and (values.min() < 0 or values.max() > 65535):
        raise RasterError(
            "the numbers are not reflectance x 10000",
            where=path,
            expected="0 (nodata) to 65535",
            found=f"{values.min()} to {values.max()}",
        )
    return values.astype(np.uint16)
