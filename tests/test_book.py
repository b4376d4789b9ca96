"""The documentation as one book: built strictly, whole by itself, and true to the program."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.arrangement import NO_BROWSER, chromium
from tools import remedies

REPOSITORY = Path(__file__).resolve().parents[1]
DOCS = REPOSITORY / "docs"
CONFIGURATION = tomllib.loads((REPOSITORY / "zensical.toml").read_text("utf-8"))["project"]
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))

absent = importlib.util.find_spec("zensical") is None
builds = pytest.mark.skipif(absent, reason="the extra docs is not installed")


def build(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict", "--clean"],
        cwd=folder,
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A copy of what the book is made from, so that nothing is written into the checkout."""
    folder = tmp_path_factory.mktemp("book")
    shutil.copytree(DOCS, folder / "docs")
    for name in ("zensical.toml", "CHANGELOG.md"):
        shutil.copy2(REPOSITORY / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def book(source) -> Path:
    done = build(source)
    assert done.returncode == 0, done.stdout + done.stderr
    return source / "site"


@builds
def test_every_page_is_in_the_book(book):
    made = {path.relative_to(book).as_posix() for path in book.rglob("*.html")}
    assert {page.removesuffix(".md") + ".html" for page in PAGES} <= made
    assert "the first hour" in (book / "changelog.html").read_text("utf-8")


@builds
def test_every_link_of_it_leads_somewhere(book):
    """Also those that come from the change log, which is kept outside of docs/."""
    pages = {path: path.read_text("utf-8") for path in book.rglob("*.html")}
    for page, text in pages.items():
        if page.name == "404.html":
            continue
        for link in re.findall(r'(?:href|src)="?([^"\s>]+)', text):
            target, _, anchor = link.partition("#")
            if re.match(r"[a-z]+:", link):
                continue
            there = (page.parent / target).resolve() if target else page
            there = there / "index.html" if there.is_dir() else there
            assert there.is_file(), f"{page.name}: {link}"
            if anchor and there.suffix == ".html" and there in pages:
                assert re.search(rf'id="?{re.escape(anchor)}["\s>]', pages[there]), link


@builds
def test_what_is_written_as_a_list_or_a_table_is_shown_as_one(book):
    for page in book.rglob("*.html"):
        shown = re.sub(r"<(pre|script|style).*?</\1>", "", page.read_text("utf-8"), flags=re.S)
        assert not re.search(r"\n(- |\* |\d+\. |\|)", shown), page


@builds
def test_nothing_of_it_comes_from_elsewhere(book):
    """It is read on a machine without a network, and tells nobody that it is read."""
    loaded = re.compile(
        r"""<(?:script|img|iframe|source|video)[^>]*\ssrc=["']?(https?:)?//|"""
        r"""<link[^>]*rel=["']?(?:stylesheet|preconnect|icon|preload)[^>]*href=["']?(https?:)?//|"""
        r"""url\(["']?(https?:)?//|@import\s+["'](https?:)?//"""
    )
    for path in book.rglob("*"):
        if path.suffix in (".html", ".css"):
            assert not loaded.search(path.read_text("utf-8")), path


@builds
@pytest.mark.skipif(chromium() is None, reason=NO_BROWSER)
def test_its_search_works_without_a_server(book):
    from playwright.sync_api import expect, sync_playwright

    asked: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        page = browser.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.goto((book / "tutorials" / "year.html").as_uri())
        page.keyboard.press("Control+k")
        page.keyboard.type("max_pixels_per_step")
        expect(page.get_by_text("A unit too large for memory").first).to_be_visible(timeout=60_000)
        browser.close()
    assert not [url for url in asked if not url.startswith(("file:", "blob:", "data:"))]


@builds
def test_a_broken_link_is_an_error(source, tmp_path):
    copy = tmp_path / "broken"
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("site", ".cache"))
    page = copy / "docs" / "store.md"
    whole = page.read_text("utf-8")
    for link in ("[there](nowhere.md)", "[there](audit.md#no-such-heading)"):
        page.write_text(f"{whole}\n{link}\n", "utf-8")
        done = build(copy)
        assert done.returncode != 0, link
        assert "store.md" in done.stdout + done.stderr


def in_the_navigation(entry: object) -> list[str]:
    if isinstance(entry, str):
        return [entry]
    values = entry.values() if isinstance(entry, dict) else entry
    return [page for value in values for page in in_the_navigation(value)]


def test_every_page_has_one_place_in_the_navigation():
    named = in_the_navigation(CONFIGURATION["nav"])
    assert sorted(named) == PAGES


def test_what_to_do_is_what_the_program_says():
    told = remedies.PAGE.read_text("utf-8")
    assert told == remedies.page(), "texts of errors changed: python tools/remedies.py"


def test_remedies_are_read_as_they_are_said(tmp_path):
    import ast

    code = '''
SAY_WHY = "say why, with --reason TEXT"
def refuse(path, many, level):
    raise CensusError("files are missing" if many else "a file is missing", remedy="put it there")
    raise ConfigError(f"the {level} is | not *so*", where=path, remedy=SAY_WHY)
    raise StoreError(what, remedy="a text without what is said")
    raise StoreError("nothing can be done about this")
def sound(store):
    """Every weight is a number.

    More of it.
    """
    return verdict(found.passed, found.message, remedy="train " + "again")
    yield Finding(True, "fine", "nothing")
    yield Finding(False, "the disk is full", "make room")
'''
    tree = ast.parse(code)
    assert list(remedies.rows_of(tree, remedies.constants_of({"x": tree}))) == [
        ("files are missing / a file is missing", "put it there"),
        ("the … is | not *so*", "say why, with --reason TEXT"),
        ("`sound`: every weight is a number", "train again"),
        ("the disk is full", "make room"),
    ]
    with pytest.raises(KeyError, match="SECTIONS"):
        remedies.section_of("popcorn_ml/unheard_of.py")


def test_every_file_with_remedies_has_a_heading():
    page = remedies.page()
    assert page.count("\n| ") > 300
    for heading in remedies.SECTIONS:
        if heading != "Borders or counts cannot be fetched":
            assert f"\n## {heading}\n" in page


@pytest.mark.parametrize("package", ["popcorn_ml", "popcorn_assets"])
def test_every_folder_is_described(package):
    told = (DOCS / "code.md").read_text("utf-8")
    for folder in (REPOSITORY / package).iterdir():
        if (folder / "__init__.py").is_file():
            assert re.search(rf"^ +(\w+/ )?{folder.name}/ ", told, re.M), folder
