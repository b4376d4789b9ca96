"""The sections of a country's file that say what a map is compared with: truth, others, a year."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field

from popcorn_assets.countries.grid import Section
from popcorn_ml.edges import WrittenFile

OWN_PRODUCTS = ("uniform", "builtup", "map", "adjusted", "true")
"""Names that an evaluation has for what is ours."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,30}")


def _product_name(name: str) -> str:
    if not _NAME.fullmatch(name) or name in OWN_PRODUCTS:
        raise ValueError(
            "a product's name has lower-case letters, digits and _, begins with a letter, and is "
            f"none of {', '.join(OWN_PRODUCTS)}"
        )
    return name


ProductName = Annotated[str, AfterValidator(_product_name)]


class EvaluationSettings(Section):
    """What a map is compared with.

    Attributes:
        truth: path of a raster of people per pixel on the country's grid, `{year}` replaced;
            only a simulated country has one.
        compare: name -> path of a raster of people by others, on any grid, `{year}` replaced; each
            is scored like our maps.
    """

    truth: WrittenFile | None = None
    compare: dict[ProductName, WrittenFile] = Field(default_factory=dict)


class ChangeSettings(Section):
    """Which earlier year a map is compared with.

    Attributes:
        from_year: `from` in the file; None: the year before.
    """

    model_config = ConfigDict(populate_by_name=True)

    from_year: int | None = Field(None, alias="from", ge=1900, le=2999)
