"""`popcorn doctor`: what stands in the way of a run on this machine, and what to type."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

from popcorn_assets.country import broken_countries, country_codes, load_country, unused_files
from popcorn_assets.paths import data_root, published_weights
from popcorn_assets.resources import (
    KEY_FILE,
    PROJECT,
    SUBSCRIPTION_KEY,
    ImageryResource,
    StoreResource,
    compute_resource,
)
from popcorn_assets.runs.instance import POSTGRES_VARIABLE
from popcorn_assets.store.versions import failed_checks
from popcorn_assets.upkeep.health import examine_dagster
from popcorn_assets.upkeep.inventory import folders_of, linked_folders
from popcorn_ml.errors import NoLocks, PopcornError, StoreError
from popcorn_ml.files import require_locks
from popcorn_ml.imagery.doctor import Finding
from popcorn_ml.imagery.doctor import examine as examine_imagery
from popcorn_ml.surroundings import WHERE_ITS_FILES_ARE, changes_results, set_aside

MIN_FREE_GB = 10
MIN_MEMORY_GB = 4
WAREHOUSE_WAIT_S = 5.0

CREDENTIALS = (
    PROJECT,
    KEY_FILE,
    SUBSCRIPTION_KEY,
    POSTGRES_VARIABLE,
    "POPCORN_WEBHOOK",
)
"""Environment variables that hold secrets, or say where one is."""


def examine(countries: list[str] | None = None, connect: bool = False) -> list[Finding]:
    """Look at the machine, the store, Dagster and the countries' imagery sources.

    Args:
        countries: codes; None looks at every country's file and at no source.
        connect: also ask each source, and the dask scheduler, one question.

    Raises:
        ConfigError: a country that there is not, or whose file cannot be used.
    """
    findings = [_disk(), *_locks(), *_other_disks(), _memory(), *_gpus(), _compute(connect)]
    findings += [*_gdal(), *_credentials(), _warehouse(), *_rejected(), *examine_dagster()]
    findings += [
        Finding(False, f"country {code}: {error.what}", str(error))
        for code, error in broken_countries().items()
    ]
    findings += [Finding(False, f"{path} is not used", why) for path, why in unused_files().items()]
    if countries is None:
        findings.append(Finding(True, f"countries: {', '.join(country_codes())}"))
    for code in countries or ():
        findings += country_findings(code, connect)
    return findings


def _disk() -> Finding:
    root = data_root()
    place = next(folder for folder in (root, *root.parents) if folder.exists())
    if not os.access(place, os.W_OK):
        return Finding(
            False, f"store {root} cannot be written", "make it writable, or set POPCORN_DATA"
        )
    return _room(f"store {root}", place)


def _other_disks() -> Iterator[Finding]:
    """Other disks that folders of the store are on, each by the first folder there."""
    store = StoreResource().open()
    if not store.root.is_dir():
        return
    try:
        linked = [p for p in linked_folders(store) if p.stat().st_dev != store.root.stat().st_dev]
    except PopcornError as error:
        yield Finding(False, f"store: {error.where}: {error.what}", error.remedy or str(error))
        return
    for path in {path.stat().st_dev: path for path in reversed(linked)}.values():
        yield _room(f"{path}, on a disk of its own", path)


def _room(what: str, place: Path) -> Finding:
    free = shutil.disk_usage(place).free / 1e9
    return Finding(
        free >= MIN_FREE_GB,
        f"{what}: {free:.0f} GB free",
        f"make room for at least {MIN_FREE_GB} GB, or set POPCORN_DATA to a larger disk",
    )


def _locks() -> Iterator[Finding]:
    """Whether files of the store can be locked; nothing is said where this user may not write."""
    root = data_root()
    place = next(folder for folder in (root, *root.parents) if folder.exists())
    try:
        require_locks(place)
    except NoLocks as error:
        yield Finding(False, f"store {root}: {error.what} ({error.found})", error.remedy or "")
    except OSError:
        return
    else:
        yield Finding(True, f"store {root}: files can be locked")


def _rejected() -> Iterator[Finding]:
    """Versions that failed a check that blocks, where nothing better was made since."""
    store = StoreResource().open()
    try:
        addresses = list(folders_of(store))
    except (OSError, StoreError):  # other findings name what cannot be looked into
        return
    for address in addresses:
        try:
            rejected = store.rejected(address)
            if rejected is None:
                continue
            current = store.find(address)
            failed = ", ".join(check["name"] for check in failed_checks(rejected))
        except PopcornError as error:
            yield Finding(False, f"{address}: {error.what} ({error.where})", error.remedy or "")
            continue
        instead = f"version {current.version} stays current" if current else "none is current"
        yield Finding(
            False,
            f"{address}: its newest version, {rejected.version}, failed {failed}; {instead}",
            f"put right what the checks name and materialise it again; see {rejected.path}",
        )


def _memory() -> Finding:
    available = psutil.virtual_memory().available / 1e9
    return Finding(
        available >= MIN_MEMORY_GB,
        f"memory: {available:.1f} GB available, {os.cpu_count()} cores",
        f"{MIN_MEMORY_GB} GB are needed; lower mapping.tile_px in the country's file otherwise",
    )


def _gpus() -> Iterator[Finding]:
    """GPUs as their driver tells of them; without a driver, nothing is said."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return
    fields = "index,name,memory.total,memory.free,driver_version"
    try:
        told = subprocess.run(
            [tool, f"--query-gpu={fields}", "--format=csv,noheader"],
            capture_output=True, text=True, timeout=30, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        yield Finding(False, f"GPU: the driver does not answer ({error})", "nvidia-smi")
        return
    for line in told.stdout.strip().splitlines():
        index, name, total, free, driver = (part.strip() for part in line.split(","))
        yield Finding(True, f"GPU {index}: {name}, {free} of {total} free, driver {driver}")


def _compute(connect: bool) -> Finding:
    """What a step would work on here."""
    import torch

    try:
        compute = compute_resource()
        if compute.launcher != "dask" or connect:
            compute.require_here()
    except PopcornError as error:
        return Finding(False, f"compute: {error.what} ({error.found})", error.remedy or str(error))
    here = torch.cuda.is_available()
    if shutil.which("nvidia-smi") and not here and compute.device != "cpu":
        return Finding(
            False,
            f"compute: there is a GPU, but torch {torch.__version__} cannot use it",
            "install a build of torch for the driver's CUDA, or set POPCORN_DEVICE=cpu",
        )
    gives = {"auto": "a free GPU" if here else "the CPU", "cuda": "a free GPU"}
    device = gives.get(compute.device, compute.device)
    where = {
        "dask": "the workers of the dask cluster"
        + ("" if connect else ", not asked: popcorn doctor --connect"),
    }.get(compute.launcher, f"{device}, {compute.thread_count()} threads")
    return Finding(
        True,
        f"compute: device {compute.device} gives {where}; {compute.precision}, "
        f"engine {compute.engine}, "
        f"launcher {compute.launcher}" + ("" if here or compute.launcher == "dask" else _trains()),
    )


def _trains() -> str:
    """How a CPU would train and map."""
    from popcorn_ml.compute.kernels import compiler

    found = compiler()
    if found is not None:
        return f"; trains and maps with what {found} compiles"
    return "; without a C compiler a CPU trains at less than half the speed, and maps slower"


def _gdal() -> Iterator[Finding]:
    import pyogrio
    import rasterio
    from rasterio.env import GDALVersion

    with rasterio.Env() as environment:
        rasters = environment.drivers()
    vectors = pyogrio.list_drivers(write=True)
    there = {name: name in rasters for name in ("GTiff", "COG")}
    there["GPKG"] = "GPKG" in vectors
    missing = [name for name, found in there.items() if not found]
    version = GDALVersion.runtime()
    again = "pip install --force-reinstall rasterio pyogrio pyproj"
    yield Finding(
        not missing,
        f"GDAL {version} with {', '.join(name for name in there if name not in missing)}"
        + (f"; without {', '.join(missing)}" if missing else ""),
        again,
    )
    if not missing:
        problem = _tried_out()
        named = [n for n in os.environ if n in WHERE_ITS_FILES_ARE or changes_results(n)]
        yield Finding(
            problem is None,
            f"coordinate systems, rasters and polygons: {problem or 'written and read back'}",
            f"unset {' '.join(named)}" if named else again,
        )
    if set_aside():
        yield Finding(True, f"set in the environment, and without effect: {', '.join(set_aside())}")


def _tried_out() -> str | None:
    """Write, read and project a little with each library; what went wrong, if anything."""
    import geopandas
    import numpy as np
    import pyproj
    from rasterio.crs import CRS
    from rasterio.io import MemoryFile
    from rasterio.transform import from_origin
    from rasterio.warp import transform
    from shapely.geometry import box

    zone, place = 32635, (29.0, -2.0)
    x, y = 722460.64, -221196.54
    try:
        found = transform(CRS.from_epsg(4326), CRS.from_epsg(zone), [place[0]], [place[1]])
        there = pyproj.Transformer.from_crs(4326, zone, always_xy=True).transform(*place)
        if not np.allclose([*np.ravel(found), *there], [x, y, x, y], atol=0.01):
            return f"{place} was projected to {np.ravel(found)} and {there}, not {(x, y)}"
        profile = {
            "width": 1, "height": 1, "count": 1, "dtype": "float32", "crs": CRS.from_epsg(zone),
            "transform": from_origin(x, y, 10, 10),
        }  # fmt: skip
        for driver in ("GTiff", "COG"):
            with MemoryFile() as file:
                with file.open(driver=driver, **profile) as raster:
                    raster.write(np.full((1, 1, 1), 2.5, np.float32))
                with file.open() as raster:
                    same = (raster.crs.to_epsg(), raster.transform) == (zone, profile["transform"])
                    if not same or raster.read()[0, 0, 0] != 2.5:
                        return f"a {driver} was not read as it was written"
        with tempfile.TemporaryDirectory() as folder:
            units = geopandas.GeoDataFrame(geometry=[box(0, 0, 10, 10)], crs=zone)
            units.to_file(Path(folder) / "units.gpkg")
            read = geopandas.read_file(Path(folder) / "units.gpkg")
            if read.crs.to_epsg() != zone or read.area.sum() != 100:
                return "a GeoPackage was not read as it was written"
    except Exception as error:  # whatever a library says of files that are not its own
        return f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
    return None


def _credentials() -> Iterator[Finding]:
    """Which secrets are set, by name; their values are shown nowhere."""
    given = [name for name in CREDENTIALS if os.environ.get(name)]
    absent = [name for name in CREDENTIALS if name not in given]
    yield Finding(
        True,
        f"credentials: {', '.join(given) or 'none'} set; {', '.join(absent) or 'none'} not set",
    )
    key = os.environ.get(KEY_FILE)
    if key and not os.access(key, os.R_OK):
        yield Finding(
            False, f"{KEY_FILE} names a file that cannot be read", f"export {KEY_FILE}=/path/to/key"
        )


def _warehouse() -> Finding:
    from popcorn_ml.warehouse.warehouse import Warehouse

    path = StoreResource().open().warehouse
    if not path.exists():
        return Finding(True, f"warehouse {path}: not made yet")
    try:
        Warehouse(path, timeout_s=WAREHOUSE_WAIT_S).query("SELECT 1")
    except StoreError as error:
        holders = [h for suffix in ("", ".gate", ".lock") for h in lock_holders(f"{path}{suffix}")]
        who = f", held by {', '.join(dict.fromkeys(holders))}" if holders else ""
        return Finding(False, f"warehouse {path}: {error.what}{who}", error.remedy or str(error))
    return Finding(True, f"warehouse {path}: opens")


def lock_holders(path: str | Path) -> list[str]:
    """Processes that hold a lock on a file, as the kernel lists them; none where it does not."""
    try:
        inode = os.stat(path).st_ino
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        words = line.split()
        if "->" in words or len(words) < 6 or words[5].rpartition(":")[2] != str(inode):
            continue
        pid = int(words[4])
        try:
            found.append(f"process {pid} ({psutil.Process(pid).name()})")
        except psutil.Error:
            found.append(f"process {pid}")
    return found


def country_findings(code: str, connect: bool = False) -> list[Finding]:
    """What a country needs before a run: its imagery's source, grid, weights, census files.

    Raises:
        ConfigError: there is no such country, or its file cannot be used.
    """
    from popcorn_assets.assets.census import census_files

    country = load_country(code)
    source = ImageryResource()
    findings = examine_imagery(source.settings_of(country), source.secrets(), connect)
    try:
        grid = country.pixel_grid()
        findings.append(Finding(True, f"grid: {grid.width} x {grid.height} pixels, {grid.crs}"))
    except PopcornError as error:
        findings.append(Finding(False, f"grid: {error.what} ({error.where})", error.remedy or ""))
    if country.extractor == "published":
        findings.append(_published(published_weights()))
    try:
        files = census_files(country)
        findings.append(Finding(True, f"census: {len(files)} files"))
    except PopcornError as error:
        told = error.expected or error.where
        findings.append(Finding(False, f"census: {error.what}: {told}", error.remedy or ""))
    return findings


def _published(path: Path) -> Finding:
    return Finding(
        path.is_file(),
        f"published extractor {path}",
        "popcorn weights fetch, or popcorn weights import FILE; then materialise builtup_extractor",
    )
