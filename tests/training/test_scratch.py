"""What does not fit into memory is put aside on disk, comes back as it was, and leaves nothing."""

from __future__ import annotations

import os
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from popcorn_ml import raster
from popcorn_ml.sentinel import SEASONS
from popcorn_ml.training import scratch as module
from popcorn_ml.training.fit import train_member
from popcorn_ml.training.samples import Samples
from popcorn_ml.training.scratch import Scratch
from popcorn_ml.training.units import find_units

KINDS = st.sampled_from([np.uint16, np.int16, np.int32, np.float32, np.bool_])
ANY = KINDS.flatmap(lambda kind: arrays(kind, array_shapes(min_dims=1, max_dims=3, min_side=0)))


@given(st.dictionaries(st.integers(), st.lists(ANY, max_size=3), max_size=6))
def test_what_is_put_aside_comes_back(tmp_path_factory, given_arrays):
    scratch = Scratch(tmp_path_factory.getbasetemp() / "scratch")
    try:
        for key, wanted in given_arrays.items():
            assert scratch.get(key) is None
            scratch.put(key, wanted)
        assert scratch.bytes == sum(a.nbytes for many in given_arrays.values() for a in many)
        for key, wanted in given_arrays.items():
            found = scratch.get(key)
            assert found is not None
            assert [a.dtype for a in found] == [a.dtype for a in wanted]
            for one, other in zip(found, wanted, strict=True):
                np.testing.assert_array_equal(one, other)
    finally:
        scratch.close()


def test_by_several_threads_at_once(tmp_path):
    scratch = Scratch(tmp_path)
    wanted = {n: [np.full((50, 1 + n), n, np.int32)] for n in range(40)}

    def there_and_back(number: int) -> bool:
        scratch.put(number % 40, wanted[number % 40])
        found = scratch.get(number % 40)
        # Another thread may be writing it just now.
        return found is None or np.array_equal(found[0], wanted[number % 40][0])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(there_and_back, range(400)))
    assert all(np.array_equal(scratch.get(n)[0], wanted[n][0]) for n in wanted)
    assert scratch.bytes == sum(a.nbytes for (a,) in wanted.values())
    scratch.close()


def test_its_file_has_no_name(tmp_path):
    scratch = Scratch(tmp_path / "made")
    scratch.put("a", [np.arange(10)])
    assert os.listdir(tmp_path / "made") == []
    scratch.close()


Disk = namedtuple("Disk", "f_bavail f_frsize")


def test_half_of_what_was_free_stays_free_whoever_takes_it(tmp_path, monkeypatch):
    free = 1000
    monkeypatch.setattr(module.os, "fstatvfs", lambda _: Disk(free, 1))
    scratch = Scratch(tmp_path)
    scratch.put("a", [np.zeros(400, np.uint8)])
    assert scratch.get("a") is not None
    free = 600  # of that, and of others
    scratch.put("b", [np.zeros(200, np.uint8)])
    assert scratch.get("b") is None
    assert scratch.get("a") is not None
    scratch.close()


def test_a_disk_that_is_full_after_all(tmp_path, monkeypatch):
    scratch = Scratch(tmp_path)
    scratch.put("a", [np.arange(5)])

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "pwrite", full)
    scratch.put("b", [np.arange(5)])
    assert scratch.get("b") is None
    assert np.array_equal(scratch.get("a")[0], np.arange(5))
    monkeypatch.setattr(module.os, "preadv", full)  # nor does it give back what it holds
    assert scratch.get("a") is None
    scratch.close()


@pytest.fixture
def hidden(place, tmp_path):
    """The place, parts of it unseen by either sensor or without a score, and one with a mask."""
    for season in SEASONS:
        for name in (f"s1_{season}.tif", f"s2_{season}.tif"):
            with raster.opened(place.folder / name) as dataset:
                values, profile = dataset.read(), dataset.profile
                tags = {"scales": dataset.scales, "names": dataset.descriptions}
            values[:, 3:30, 5:40] = profile["nodata"]
            if "s2" in name:
                values[:, 90:, 100:] = profile["nodata"]
            raster.write(
                tmp_path / name,
                values,
                place.grid,
                tags["names"],
                profile["nodata"],
                scale=tags["scales"][0],
            )
    scores = place.scores.copy()
    scores[1, 50:70] = np.nan
    raster.write(tmp_path / "builtup_score.tif", scores, place.grid, SEASONS, float("nan"))
    return place.spec(
        s1={s: str(tmp_path / f"s1_{s}.tif") for s in SEASONS},
        s2={s: str(tmp_path / f"s2_{s}.tif") for s in SEASONS},
        builtup=str(tmp_path / "builtup_score.tif"),
        work=str(tmp_path / "work"),
    )


def test_samples_put_aside_are_those_read_from_the_rasters(hidden):
    grid, units = find_units(hidden.units, hidden.builtup, hidden.counts, hidden.seasons, 0.0)
    for tiled in ({}, {"max_pixels_per_step": 128 * 128 * 2}):
        spec = replace(hidden, **tiled)
        in_memory = Samples(spec, grid, units.trained)
        aside = Samples(replace(spec, cache_mb=0), grid, units.trained)
        assert in_memory._scratch is None
        assert aside._scratch is not None
        some_missing = False
        with raster.bounded_cache():
            for unit in units.trained:
                for season in range(len(SEASONS)):
                    for key in in_memory.keys(unit, season):
                        wanted = in_memory.get(key)
                        first, again = aside._read(key), aside._read(key)
                        assert aside._scratch.get(key) is not None
                        some_missing |= wanted.s2_missing is not None
                        for found in (first, again):
                            assert torch.equal(found.channels, wanted.channels)
                            assert torch.equal(found.pixels, wanted.pixels)
                            assert torch.equal(found.score, wanted.score)
                            if wanted.s2_missing is None:
                                assert found.s2_missing is None
                            else:
                                assert torch.equal(found.s2_missing, wanted.s2_missing)
        assert some_missing
        in_memory.close()
        aside.close()


def test_a_training_ends_with_the_same_bytes_whatever_memory_holds(place):
    weights = []
    for cache_mb in (64, 0):
        spec = place.spec(f"scratch_{cache_mb}", cache_mb=cache_mb, epochs=2)
        weights.append(train_member(spec).weights.read_bytes())
        assert not any(n.startswith(".scratch") for n in os.listdir(spec.work))
    assert weights[0] == weights[1]
