"""C sources, compiled where there is a compiler, and kept for the next process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from popcorn_ml.compute import kernels

pytestmark = pytest.mark.skipif(
    not any(map(shutil.which, kernels.COMPILERS)), reason="no C compiler here"
)


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A source, and a cache of its own."""
    monkeypatch.setenv(kernels.CACHE, str(tmp_path / "cache"))
    path = tmp_path / "one.c"
    path.write_text("int popcorn_one(void) { return 1; }")
    return path


def load(source: Path) -> kernels.Library | None:
    """As a process does that has not loaded it yet."""
    kernels._library_of.cache_clear()
    return kernels.library_of(source)


def kept(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache" / "popcorn" / "kernels").iterdir())


def test_what_was_compiled_is_kept_and_found_again(tmp_path, source, monkeypatch):
    library = load(source)
    assert library.calls.popcorn_one() == 1
    assert library.compiler == kernels.compiler_version()
    (first,) = kept(tmp_path)
    monkeypatch.setattr(kernels, "_made", None)  # whoever would compile fails
    assert load(source).calls.popcorn_one() == 1
    assert kept(tmp_path) == [first]


def test_another_source_or_processor_is_compiled_anew(tmp_path, source, monkeypatch):
    load(source)
    source.write_text("int popcorn_one(void) { return 2; }")
    assert load(source).calls.popcorn_one() == 2
    monkeypatch.setattr(kernels, "_processor", lambda: ("another",))
    assert load(source).calls.popcorn_one() == 2
    assert len(kept(tmp_path)) == 3


def test_what_cannot_be_loaded_is_made_again(tmp_path, source):
    load(source)
    (path,) = kept(tmp_path)
    path.unlink()
    path.write_bytes(b"\x7fELF, cut off")
    assert load(source).calls.popcorn_one() == 1
    assert kept(tmp_path) == [path]


@pytest.mark.parametrize("trouble", ["file", "writable by others", "full"])
def test_where_nothing_can_be_kept_it_is_compiled_all_the_same(
    tmp_path, source, monkeypatch, trouble
):
    cache = tmp_path / "cache"
    folder = cache / "popcorn" / "kernels"
    if trouble == "file":
        cache.write_text("")
    else:
        folder.mkdir(parents=True)
    if trouble == "writable by others":
        folder.chmod(0o777)
    if trouble == "full":

        def full(*_given: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "replace", full)
    assert load(source).calls.popcorn_one() == 1
    assert cache.is_file() or not list(folder.iterdir())


def test_processes_that_begin_at_once_do_not_disturb_one_another(tmp_path, source):
    program = (
        "import sys; from pathlib import Path; from popcorn_ml.compute.kernels import library_of; "
        "print(library_of(Path(sys.argv[1])).calls.popcorn_one())"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", program, source], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    assert [process.communicate()[0] for process in started] == ["1\n"] * 3
    assert len(kept(tmp_path)) == 1
