"""Tiles kept until a season is done."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from popcorn_ml.imagery.scratch import Scratch


def test_tiles_are_read_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two threads that parsed numpy's headers at once, one failed, on CPython 3.11.7."""
    scratch = Scratch(tmp_path, {"season": "spring"})
    values = np.arange(12, dtype=np.uint16).reshape(3, 4)
    for index in range(4):
        scratch.keep_tile(index, {"values": values + index}, {"scenes": index})
    inside, most = 0, 0
    load, lock = np.load, threading.Lock()

    class Watched:
        def __init__(self, *args: object, **options: object) -> None:
            self._held = load(*args, **options)

        def __enter__(self) -> object:
            nonlocal inside, most
            with lock:
                inside += 1
                most = max(most, inside)
            time.sleep(0.01)
            return self._held.__enter__()

        def __exit__(self, *raised: object) -> None:
            nonlocal inside
            self._held.__exit__(*raised)
            with lock:
                inside -= 1

    monkeypatch.setattr(np, "load", Watched)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(scratch.read_tile, range(4)))
    assert most == 1
    for index, tile in enumerate(found):
        assert tile is not None
        assert (tile[0]["values"] == values + index).all()
        assert tile[1] == {"scenes": index}
