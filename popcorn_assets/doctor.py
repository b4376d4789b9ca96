"""`popcorn doctor`: what stands in the way of a run on this machine, and what to type."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import psutil

from popcorn_assets.country import broken_countries, country_codes, load_country
from popcorn_assets.paths import data_root, published_weights
from popcorn_assets.resources import imagery_resource
from popcorn_ml.errors import PopcornError, StoreError
from popcorn_ml.imagery.doctor import Finding
from popcorn_ml.imagery.doctor import examine as examine_imagery

MIN_FREE_GB = 10
MIN_MEMORY_GB = 4


def examine(countries: list[str] | None = None, connect: bool = False) -> list[Finding]:
    """Look at the machine, the store and the countries' imagery sources.

    Args:
        countries: codes; None looks at every country's file and at no source.
        connect: also ask each source one question.

    Raises:
        ConfigError: a country that there is not, or whose file cannot be used.
    """
    findings = [_disk(), _memory(), _device(), _warehouse()]
    findings += [
        Finding(False, f"country {code}: {error.what}", str(error))
        for code, error in broken_countries().items()
    ]
    if countries is None:
        findings.append(Finding(True, f"countries: {', '.join(country_codes())}"))
    for code in countries or ():
        findings += _country(code, connect)
    return findings


def _disk() -> Finding:
    root = data_root()
    place = next(folder for folder in (root, *root.parents) if folder.exists())
    free = shutil.disk_usage(place).free / 1e9
    if not os.access(place, os.W_OK):
        return Finding(
            False, f"store {root} cannot be written", "make it writable, or set POPCORN_DATA"
        )
    return Finding(
        free >= MIN_FREE_GB,
        f"store {root}: {free:.0f} GB free",
        f"make room for at least {MIN_FREE_GB} GB, or set POPCORN_DATA to a larger disk",
    )


def _memory() -> Finding:
    available = psutil.virtual_memory().available / 1e9
    return Finding(
        available >= MIN_MEMORY_GB,
        f"memory: {available:.1f} GB available, {os.cpu_count()} cores",
        f"{MIN_MEMORY_GB} GB are needed; lower mapping.tile_px in the country's file otherwise",
    )


def _device() -> Finding:
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return Finding(True, f"GPU: {', '.join(names)}")
    return Finding(True, "GPU: none; training and mapping use the CPU")


def _warehouse() -> Finding:
    from popcorn_ml.warehouse import Warehouse

    path = data_root() / "warehouse.duckdb"
    if not path.exists():
        return Finding(True, f"warehouse {path}: not made yet")
    try:
        Warehouse(path, timeout_s=5).query("SELECT 1")
    except StoreError as error:
        return Finding(False, f"warehouse {path}: {error.what}", error.remedy or str(error))
    return Finding(True, f"warehouse {path}: opens")


def _country(code: str, connect: bool) -> list[Finding]:
    from popcorn_assets.census import census_files

    country = load_country(code)
    source = imagery_resource().process_config_and_initialize()
    findings = examine_imagery(source.settings_of(country), source.secrets(), connect)
    if country.extractor == "published":
        findings.append(_published(published_weights()))
    try:
        files = census_files(country)
        findings.append(Finding(True, f"census: {len(files)} files"))
    except PopcornError as error:
        findings.append(Finding(False, f"census: {error.what} ({error.where})", error.remedy or ""))
    return findings


def _published(path: Path) -> Finding:
    return Finding(
        path.is_file(),
        f"published extractor {path}",
        "popcorn weights fetch, or popcorn weights import FILE; then materialise builtup_extractor",
    )
