"""The report of a country's year: one page that holds all it shows, whatever the texts in it."""

from __future__ import annotations

import json
import re

import pytest
from playwright.sync_api import sync_playwright

from popcorn_ml.errors import StoreError
from popcorn_ml.publishing.report import write_report
from popcorn_ml.publishing.report.contents import people
from tests import arrangement
from tests.publishing.made_folder import DEGREES, HOSTILE, make_folder

CHROMIUM = arrangement.chromium()
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason=arrangement.NO_BROWSER)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("report") / "whole")


@pytest.fixture(scope="module")
def poor(tmp_path_factory):
    """A map in degrees without intervals and change."""
    return make_folder(tmp_path_factory.mktemp("report") / "poor", grid=DEGREES, whole=False)


def test_it_says_the_numbers_of_the_tables(made):
    text = write_report(made.folder, made.facts).read_text("utf-8")
    assert f"{people(made.facts['totals']['adjusted'])} in this map" in text
    rows = re.findall(r"<tr><td class=\"text\">(\d\d)</td>.*?</tr>", text)
    table = {row[:2] for row in rows}
    assert table == {"01", "02", "03", "04", "05", "06"}
    assert "popcorn audit tst 2021" in text
    assert "the model, of units it had not seen" in text
    assert "coarse, by maps that knew about 4 units joined" in text
    assert "<dd>3 cells &lt;gained&gt;</dd>" in text
    assert text.count("data:image/png;base64,") == 6  # three maps, two charts, the differences


def test_it_says_in_a_sentence_what_there_is_not(poor):
    text = write_report(poor.folder, poor.facts).read_text("utf-8")
    assert "This map has no intervals: this version of the map was made without intervals." in text
    assert "No change is shown: it is the first year." in text
    assert text.count("data:image/png;base64,") == 3


def test_the_same_folder_gives_the_same_bytes(made):
    assert (
        write_report(made.folder, made.facts).read_bytes()
        == write_report(made.folder, made.facts).read_bytes()
    )


def test_texts_from_files_are_never_markup(made):
    text = write_report(made.folder, made.facts).read_text("utf-8")
    assert "<script" not in text
    assert "&lt;script&gt;window.planted = 1&lt;/script&gt;" in text
    assert 'href="javascript' not in text
    assert "{{ 7 * 7 }}" in text


def test_a_file_that_is_not_there_is_named(made, tmp_path):
    with pytest.raises(StoreError, match=r"tst_2021_units\.parquet"):
        write_report(tmp_path, json.loads(json.dumps(made.facts)))


@needs_browser
def test_a_browser_shows_and_prints_it_without_asking_anybody(made):
    page_file = write_report(made.folder, made.facts)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 390, "height": 800})
        said, asked = [], []
        page.on("console", lambda message: said.append(message.text))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(page_file.as_uri())
        assert page.title() == made.facts["title"]
        assert page.evaluate("[...document.images].every((i) => i.naturalWidth > 300)")
        assert page.evaluate("window.planted === undefined")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390  # a telephone
        for name in HOSTILE:
            assert page.get_by_text(name, exact=True).count() >= 1
        assert page.pdf(prefer_css_page_size=True).startswith(b"%PDF")
        browser.close()
    assert said == []
    assert [url for url in asked if not url.startswith(("data:", page_file.as_uri()))] == []
