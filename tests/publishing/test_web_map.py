"""The web map in a real browser: its numbers are the files' and the tables', and it asks nobody."""

from __future__ import annotations

import json
import re
import threading

import geopandas as gpd
import numpy as np
import pytest
import shapely
from playwright.sync_api import expect, sync_playwright

from popcorn_ml import raster
from popcorn_ml.intervals.zones import asked as people_in
from popcorn_ml.publishing.web import write_web_map
from popcorn_ml.publishing.web.server import MapServer, of_folder
from tests import arrangement
from tests.publishing.made_folder import DEGREES, HOSTILE, UTM, asked, make_folder

CHROMIUM = arrangement.chromium()
pytestmark = [
    pytest.mark.long(40),
    pytest.mark.skipif(CHROMIUM is None, reason=arrangement.NO_BROWSER),
]
QUANTILES = ("p2_5", "p10", "p90", "p97_5")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("map") / "maps"


@pytest.fixture(scope="module")
def made(folder):
    return make_folder(folder)


@pytest.fixture(scope="module")
def degrees(folder):
    return make_folder(folder, "deg", 2021, grid=DEGREES, seed=3)


@pytest.fixture(scope="module")
def address(folder, made, degrees):
    make_folder(folder, year=2022, whole=False, seed=2)
    write_web_map(folder)
    with MapServer("127.0.0.1", 0, of_folder(folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.address
        server.shutdown()


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--no-first-run",
                  "--disable-background-networking", "--disable-component-update"],
        )  # fmt: skip
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, address):
    """Opens the page; at the end it has asked nobody outside, and nothing went wrong in it."""
    asked_for, said = [], []
    page = browser.new_page(viewport={"width": 1200, "height": 800})
    page.on("request", lambda request: asked_for.append(request.url))
    page.on("console", lambda line: said.append((line.type, line.text)))
    page.on("pageerror", lambda error: said.append(("error", str(error))))

    def open_page(where: str = ""):
        page.goto(f"{address}{where}")
        page.wait_for_selector("body[data-drawn]", timeout=30_000)
        return page

    yield open_page
    assert page.evaluate("window.planted") is None
    page.close()
    assert [url for url in asked_for if not url.startswith((address, "data:", "blob:"))] == []
    assert [line for line in said if line[0] == "error"] == []


def tell(page, lon: float, lat: float) -> None:
    """Click the map at a place."""
    before = page.get_attribute("#answer", "data-ready") or "0"
    x, y = page.evaluate(
        "([lon, lat]) => { const p = popcorn.panes[0].map.project([lon, lat]);"
        " return [p.x, p.y]; }",
        [lon, lat],
    )
    box = page.locator("#map").bounding_box()
    page.mouse.click(box["x"] + x, box["y"] + y)
    page.wait_for_selector(f'#answer[data-ready="{int(before) + 1}"]', timeout=20_000)


def numbers(page, table: str) -> dict[str, float | tuple[float, float]]:
    """Label -> number, or pair of numbers, as a table of the answer has them."""
    found: dict[str, float | tuple[float, float]] = {}
    for cell in page.locator(f"#answer table.{table} td").all():
        of = cell.get_attribute("data-of")
        if (value := cell.get_attribute("data-value")) is not None:
            found.setdefault(of, float(value))
        elif (low := cell.get_attribute("data-low")) is not None:
            found.setdefault(of, (float(low), float(cell.get_attribute("data-high"))))
    return found


def places(made, count: int = 4):
    """Places in cells, in degrees, with row and column.

    None is so near a unit's edge that a pixel of the screen could be on its other side.
    """
    cells = made.grid.hectares()
    edges = made.units.boundary.union_all()
    drawn = np.random.default_rng(0)
    while count:
        row, col = int(drawn.integers(3, 27)), int(drawn.integers(4, 40))
        x = cells.west + (col + 0.37) * cells.step
        y = cells.north - (row + 0.61) * cells.step
        if edges.distance(shapely.Point(x, y)) < 0.3 * cells.step:
            continue
        count -= 1
        point = gpd.GeoSeries([shapely.Point(x, y)], crs=cells.crs).to_crs(4326)[0]
        yield point.x, point.y, row, col


@pytest.mark.parametrize("which", ["made", "degrees"])
def test_a_click_tells_the_numbers_of_the_rasters_and_the_table(opened, request, which):
    made = request.getfixturevalue(which)
    page = opened(f"#{made.facts['code']}/2021/people")
    people = raster.read_float(made.path("population"), bands=1)
    bounds = raster.read_float(made.path("intervals"))
    table = gpd.read_parquet(made.folder / f"{made.stem}_units.parquet")
    for lon, lat, row, col in places(made):
        tell(page, lon, lat)
        cell, unit = numbers(page, "cell"), numbers(page, "unit")
        assert cell["people"] == people[row, col]
        assert cell["95 % interval"] == (bounds[0, row, col], bounds[3, row, col])
        assert cell["80 % interval"] == (bounds[1, row, col], bounds[2, row, col])
        point = gpd.GeoSeries([shapely.Point(lon, lat)], crs=4326).to_crs(table.crs)[0]
        told = table[table.contains(point)].iloc[0]
        assert unit["people"] == told["adjusted"]
        assert unit["by the model alone"] == told["map"]
        assert unit["its 95 % interval"] == (told["p2_5"], told["p97_5"])
        assert page.get_by_role("heading", name=told["name"], exact=False).count() == 1


def drawn_areas(grid):
    """Areas in the grid's CRS: a part of a unit, over several, all and more, one with a hole."""
    west, south, east, north = grid.bounds
    wide, high = east - west, north - south

    def at(*points):
        # by no round part, or edges would go through pixels' very centres
        return [(west + (x + 1e-4) * wide, south + (y + 3e-4) * high) for x, y in points]

    yield shapely.Polygon(at((0.1, 0.62), (0.18, 0.6), (0.16, 0.7)))
    yield shapely.Polygon(at((0.2, 0.2), (0.8, 0.3), (0.7, 0.9), (0.45, 0.5), (0.25, 0.8)))
    yield shapely.box(west - wide, south - high, east + wide, north + high)
    ring = at((0.2, 0.2), (0.9, 0.2), (0.9, 0.8), (0.2, 0.8))
    yield shapely.Polygon(ring, [at((0.4, 0.4), (0.6, 0.4), (0.6, 0.6))])


@pytest.mark.parametrize("which", ["made", "degrees"])
def test_an_area_has_the_people_and_the_interval_that_python_gives_it(
    opened, request, which, tmp_path
):
    made = request.getfixturevalue(which)
    page = opened(f"#{made.facts['code']}/2021/people")
    areas = gpd.GeoDataFrame(geometry=list(drawn_areas(made.grid)), crs=made.grid.crs).to_crs(4326)
    expected = people_in(areas, asked(made))
    for k, (_, want) in enumerate(expected.iterrows()):
        path = tmp_path / f"{k}.geojson"
        areas.iloc[[k]].to_file(path, driver="GeoJSON", COORDINATE_PRECISION=15)
        ready = page.get_attribute("#answer", "data-ready") or "0"
        page.set_input_files("#file", path)
        page.wait_for_selector(f'#answer[data-ready="{int(ready) + 1}"]', timeout=30_000)
        told = numbers(page, "area")
        assert told["people"] == pytest.approx(want["people"], rel=1e-9)
        for name, ends in (("95 % interval", ("p2_5", "p97_5")), ("80 % interval", ("p10", "p90"))):
            shown = told.get(name, told.get("interval"))
            assert shown == pytest.approx([want[end] for end in ends], rel=1e-6, abs=1e-6)


def test_a_very_large_area_is_summed_by_whole_cells(opened, made):
    """As beyond 40 million pixels: here the page is kept from the pixels' raster."""
    page = opened("#tst/2021/people")
    area = gpd.GeoDataFrame(geometry=[list(drawn_areas(made.grid))[1]], crs=made.grid.crs)
    ring = [list(point) for point in area.to_crs(4326).geometry[0].exterior.coords]
    found = page.evaluate(
        """async (rings) => {
          const { measure } = await import('/web/areas.mjs');
          const map = popcorn.maps.find((one) => one.key === 'tst_2021');
          const rasters = { population: map.raster('population'), units: map.raster('units') };
          const { people, cells, parts, whole } = await measure(map, rasters, rings);
          return { people, cells, whole, parts: [...parts] };
        }""",
        [ring],
    )
    cells = made.grid.hectares()
    x = cells.west + (np.arange(cells.width) + 0.5) * cells.step
    y = cells.north - (np.arange(cells.height) + 0.5) * cells.step
    inside = shapely.contains_xy(area.geometry[0], *np.meshgrid(x, y))
    people = raster.read_float(made.path("population"), bands=1)
    assert found["whole"]
    assert found["people"] == pytest.approx(np.nansum(people[inside], dtype=np.float64), rel=1e-9)
    exact = people_in(area, asked(made)).iloc[0]
    assert found["people"] == pytest.approx(exact["people"], rel=0.05)
    assert {number for number, _ in found["parts"]} == {1, 2, 3, 4, 5, 6}


def test_an_area_is_drawn_with_the_mouse_and_closed(opened, made):
    page = opened("#tst/2021/builtup")
    page.click("#draw")
    corners = [(31.325, -2.225), (31.335, -2.226), (31.334, -2.232)]
    box = page.locator("#map").bounding_box()
    for lon, lat in corners:
        x, y = page.evaluate(
            "(at) => { const p = popcorn.panes[0].map.project(at); return [p.x, p.y]; }", [lon, lat]
        )
        page.mouse.click(box["x"] + round(x), box["y"] + round(y))
        page.wait_for_timeout(350)  # two quick clicks are a double-click
    page.click("#done")
    page.wait_for_selector("#answer[data-ready]", timeout=20_000)
    rings = page.evaluate("popcorn.area")
    zone = gpd.GeoDataFrame(geometry=[shapely.Polygon(rings[0])], crs=4326)
    [want] = people_in(zone, asked(made))["people"]
    assert want > 0
    assert numbers(page, "area")["people"] == pytest.approx(want, rel=1e-9)


def test_the_keyboard_asks_at_the_middle_of_the_map(opened):
    page = opened("#tst/2021/people")
    page.focus("#map canvas")
    page.keyboard.press("Enter")
    page.wait_for_selector("#answer[data-ready]", timeout=20_000)
    assert numbers(page, "cell")["people"] > 0


def colours(page) -> set[tuple[int, ...]]:
    """Colours of a strip through the first map's picture."""
    import io

    from PIL import Image

    box = page.locator("#map").bounding_box()
    picture = Image.open(io.BytesIO(page.screenshot(clip=box))).convert("RGB")
    return {picture.getpixel((x, picture.height // 2)) for x in range(picture.width)}


def test_every_layer_is_drawn_with_its_legend(opened):
    page = opened("#tst/2021/people")
    seen = []
    for layer in ("people", "interval", "change", "builtup"):
        page.select_option("#layer", layer)
        expect(page.locator("#legend li")).not_to_have_count(0)
        page.wait_for_timeout(700)
        found = colours(page)
        assert len(found) > 5, layer
        assert found not in seen
        seen.append(found)
    page.select_option("#layer", "none")
    expect(page.locator("#legend")).to_be_hidden()


def test_a_place_is_drawn_where_it_lies(opened, made):
    """The colour of a pixel of the screen is that of the value that lies there."""
    page = opened("#tst/2021/people")
    page.wait_for_timeout(500)
    people = raster.read_float(made.path("population"), bands=1)
    classes = next(p for p in made.facts["products"] if p["role"] == "population")["classes"]
    import io

    from PIL import Image

    box = page.locator("#map").bounding_box()
    picture = Image.open(io.BytesIO(page.screenshot(clip=box))).convert("RGB")
    right = 0
    asked_places = list(places(made, 30))
    for lon, lat, row, col in asked_places:
        x, y = page.evaluate(
            "(at) => { const p = popcorn.panes[0].map.project(at); return [p.x, p.y]; }", [lon, lat]
        )
        shade = next(
            c["colour"] for c in classes if c["upper"] is None or people[row, col] < c["upper"]
        )
        want = np.array([int(shade[i : i + 2], 16) for i in (1, 3, 5)])
        right += np.abs(np.array(picture.getpixel((int(x), int(y)))) - want).max() < 26
    assert right >= 26  # a line or a name lies over a few


def test_two_years_move_in_step(opened):
    page = opened("#tst/2022/people/2021")
    assert page.locator("#year-of-second").inner_text() == "2021"
    page.focus("#map canvas")
    page.keyboard.press("+")
    page.keyboard.press("ArrowLeft")
    page.wait_for_timeout(1200)
    views = page.evaluate(
        "popcorn.panes.map(({ map }) => [map.getZoom(), map.getCenter().lng, map.getCenter().lat])"
    )
    assert views[0] == pytest.approx(views[1])
    page.keyboard.press("Enter")
    page.wait_for_selector("#answer[data-ready]", timeout=20_000)
    headings = page.locator("#answer h2").all_inner_texts()
    assert [re.sub(r".*, ", "", text) for text in headings] == ["2022", "2021"]


def test_what_there_is_not_is_said(opened):
    page = opened("#tst/2022/people")
    assert page.locator('#layer option[value="change"]').count() == 0
    expect(page.locator("#about")).to_contain_text("Not here: intervals; this version of the map")


def test_names_of_units_are_text(opened, made):
    page = opened("#tst/2021/people")
    for lon, lat, *_ in places(made, 6):
        tell(page, lon, lat)
        [heading] = page.locator("#answer h3 + p.note").locator("..").locator("h3").nth(1).all()
        assert any(name in heading.inner_text() for name in HOSTILE)
    assert page.locator("#answer script, #answer img, #about b").count() == 0


def test_a_file_that_holds_no_area_is_told_of(opened, tmp_path):
    page = opened("#tst/2021/people")
    for content, told in (
        (json.dumps({"type": "Point", "coordinates": [31, -2]}), "no polygon"),
        ("not json", "could not be told"),
        (json.dumps(shapely.geometry.mapping(shapely.box(*UTM.bounds))), "no longitudes"),
    ):
        path = tmp_path / "some.geojson"
        path.write_text(content)
        page.set_input_files("#file", path)
        expect(page.locator("#answer")).to_contain_text(told)
        page.set_input_files("#file", [])


def test_without_a_server_the_page_says_what_it_needs(browser, folder, address):
    page = browser.new_page()
    page.goto((folder / "index.html").as_uri())
    expect(page.locator("#trouble")).to_contain_text("popcorn view")
    page.close()
