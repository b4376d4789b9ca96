"""The networks, training and mapping import where only torch, numpy and lightning are installed.

Also fault 1 of the published code: it ran on CUDA only, on its authors' disks, and parsed arguments
and probed hardware when imported.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
ALLOWED = ("torch", "numpy", "lightning")
PACKAGES = ("compute", "launching", "model", "training", "mapping")
MODULES = [
    "popcorn_ml.inputs",
    *sorted(
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for package in PACKAGES
        for file in (ROOT / "popcorn_ml" / package).glob("*.py")
    ),
]


def _needed(names: tuple[str, ...]) -> dict[str, importlib.metadata.Distribution]:
    """Installed distributions that some names need, themselves included."""
    found: dict[str, importlib.metadata.Distribution] = {}
    waiting = [Requirement(name) for name in names]
    while waiting:
        requirement = waiting.pop()
        key = re.sub(r"[-_.]+", "-", requirement.name).lower()
        try:
            distribution = found.get(key) or importlib.metadata.distribution(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            continue  # of another platform, or a CUDA build's
        is_new = key not in found
        found[key] = distribution
        for line in (distribution.requires or []) if is_new or requirement.extras else []:
            one = Requirement(line)
            extras = {"", *requirement.extras}
            if one.marker is None or any(one.marker.evaluate({"extra": e}) for e in extras):
                waiting.append(one)
    return found


@pytest.fixture(scope="module")
def bare_site(tmp_path_factory) -> Path:
    """A folder of links to only what torch, numpy and lightning need, as on a bare GPU node."""
    site = tmp_path_factory.mktemp("site")
    for distribution in _needed(ALLOWED).values():
        for file in distribution.files or []:
            top = file.parts[0]
            if top in ("..", "__pycache__") or (site / top).exists():
                continue
            (site / top).symlink_to(Path(str(distribution.locate_file(top))))
    (site / "popcorn_ml").symlink_to(ROOT / "popcorn_ml")
    assert not (site / "rasterio").exists()
    assert not (site / "safetensors").exists()
    return site


def _run(site: Path, code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-S", "-B", "-c", code, "--strange", "argument"],
        env={"PYTHONPATH": str(site), "PATH": os.environ["PATH"], "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=120,
        cwd=site,
    )


def test_imports_with_torch_numpy_and_lightning_only(bare_site):
    done = _run(
        bare_site,
        "import importlib, sys\n"
        f"for name in {MODULES!r}: importlib.import_module(name)\n"
        "absent = ('rasterio', 'pandas', 'safetensors', 'pydantic', 'matplotlib', 'scipy',\n"
        "          'pyproj', 'geopandas', 'duckdb', 'dagster', 'ee', 'popcorn_assets')\n"
        "assert not [n for n in absent if n in sys.modules]\n"
        "import torch\n"
        "assert not torch.cuda.is_initialized()\n",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


def test_the_bare_environment_is_really_bare(bare_site):
    """The test above can fail: what is not among the three cannot be imported there."""
    done = _run(bare_site, "import rasterio")
    assert done.returncode != 0
    assert "ModuleNotFoundError" in done.stderr


def test_fault_1_the_networks_run_without_cuda(bare_site):
    done = _run(
        bare_site,
        "import torch\n"
        "from popcorn_ml.model.popcorn import BuiltupExtractor, from_extractor, population\n"
        "extractor = BuiltupExtractor().eval()\n"
        "image = torch.zeros(1, 6, 40, 40)\n"
        "people = population(from_extractor(extractor, 1.0, 0)(image), extractor(image))\n"
        "assert people.shape == (1, 40, 40) and bool(torch.isfinite(people).all())\n",
    )
    assert done.returncode == 0, done.stderr
