"""Styles and classes: valid XML that says what the legend says, whatever the texts are."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from popcorn_ml.publishing import classes, products, styles

SCRIPT = '<script>alert(1)</script> & "people"'
ALL = [value for value in vars(products).values() if isinstance(value, products.Product)]


def document(style: bytes) -> ET.Element:
    return ET.fromstring(style.partition(b"\n")[2])


@pytest.mark.parametrize("product", ALL, ids=lambda product: product.role)
def test_every_product_has_a_style_with_its_classes(product: products.Product) -> None:
    root = document(styles.raster_style(product.classes, product.unit, product.band))
    renderer = root.find("pipe/rasterrenderer")
    assert renderer.get("band") == str(product.band)
    items = root.findall(".//item") or root.findall(".//paletteEntry")
    assert [item.get("color") for item in items] == [one.colour for one in product.classes]
    if root.findall(".//item"):
        bounds = [float(item.get("value")) for item in items]
        assert bounds == sorted(bounds)
        assert bounds[-1] == float("inf")


def test_roles_and_names_are_given_once() -> None:
    assert len({product.role for product in ALL}) == len(ALL)


def test_markup_in_texts_is_text() -> None:
    style = styles.raster_style(classes.PEOPLE, SCRIPT)
    assert b"<script" not in style
    assert document(style).findall(".//item")[-1].get("label").endswith(SCRIPT)
    units = styles.units_style("density_km2", classes.DENSITY, SCRIPT)
    assert b"<script" not in units
    assert document(units).findall(".//range")[-1].get("label").endswith(SCRIPT)


def test_classes_have_one_colour_more_than_bounds() -> None:
    with pytest.raises(ValueError, match="colours"):
        classes.classes((1, 2), ("#000000",))
    with pytest.raises(ValueError, match="bounds"):
        classes.classes((2, 1), ("#000000", "#111111", "#222222"))
    assert [one.label for one in classes.classes((1, 2), "abc")] == [
        "below 1", "1 to 2", "2 and more",
    ]  # fmt: skip
