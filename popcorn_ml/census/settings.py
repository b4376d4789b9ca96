"""The census section of a country's file: levels, files, columns, growth, national totals.

Only what is read from YAML; light to import. How each reader reads is in `readers`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from popcorn_ml.edges import WrittenFile

Role = Literal["train", "evaluate"]
Kind = Literal["census", "estimate", "projection"]
ReaderName = Literal[
    "table", "cod", "worldpop", "geoboundaries", "us_census", "gridded", "published"
]
SmallUnits = Literal["best_pixel", "merge"]

MAX_LEVEL_NAME = 60
"""It becomes part of file names."""


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def as_texts(value: object) -> object:
    """One value or several, as texts."""
    values = value if isinstance(value, (list, tuple)) else [value]
    return [str(v) for v in values]


class Strict(BaseModel):
    """A section that refuses words it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class BoundaryColumns(Strict):
    """Names of the attributes of a boundary file.

    Attributes:
        id: the unit's identifier, kept as text. Several columns are concatenated, such as
            `[STATEFP, COUNTYFP]`.
        name: the unit's name.
        parent: name or identifier of the unit it lies in, needed for joins by name.
    """

    id: Annotated[tuple[str, ...], BeforeValidator(_as_list)] = ()
    name: str | None = None
    parent: str | None = None


class CountColumns(BoundaryColumns):
    """Names of the columns of a counts table.

    Attributes:
        people: the column of counts, or for a wide table a mapping from year to column. A pattern
            with `{year}`, such as `P_{year}`, stands for every column that fits it.
        year: the column of years of a long table.
        annual_growth: a column with the unit's own growth, as a fraction a year.
        ages: columns that should add up to `people`.
    """

    people: str | dict[int, str] | None = None
    year: str | None = None
    annual_growth: str | None = None
    ages: tuple[str, ...] = ()


class FileSettings(Strict):
    """A file and where it is from.

    Attributes:
        file: path, relative to the folders the caller searches. A zip archive is opened.
        member: the file inside a zip archive, where there are several.
        encoding: of text; None detects it (UTF-8 first).
        licence, url: kept with the file's hash.
        retrieved: when it was fetched, ISO date.
        where: keep only rows in which these columns have this value (or one of these), such as
            `{ISO: RWA}` for a world table.
    """

    file: WrittenFile
    member: WrittenFile | None = None
    encoding: str | None = None
    licence: str | None = None
    url: str | None = None
    retrieved: str | None = None
    where: dict[str, Annotated[tuple[str, ...], BeforeValidator(as_texts)]] = Field(
        default_factory=dict
    )

    @field_validator("retrieved", mode="before")
    @classmethod
    def _date_as_text(cls, value: object) -> object:
        return value.isoformat() if hasattr(value, "isoformat") else value


class BoundarySettings(FileSettings):
    """Boundaries: polygons (GeoPackage, GeoJSON, Shapefile, GeoParquet, TopoJSON) or, for the
    `published` and `worldpop` readers, a GeoTIFF of unit numbers.

    Attributes:
        layer: the layer, where the file has several.
        columns: attribute names; a reader for an agency's format has its own defaults.
        crs: the CRS of a file that does not say; refused when it contradicts one that does.
        shift: added to x and y, in CRS units, for a set that is known to lie off.
        vintage: year in which the boundaries were in force.
        year_column: attribute that says for which years a polygon is in force (a set of several
            vintages in one file); the latest not after the partition's year is taken.
    """

    layer: str | None = None
    columns: BoundaryColumns = BoundaryColumns()
    crs: str | None = None
    shift: tuple[float, float] = (0.0, 0.0)
    vintage: int | None = None
    year_column: str | None = None


class CountSettings(FileSettings):
    """One table of counts (CSV, Parquet, Excel) or, for `gridded`, a GeoTIFF of people per cell.

    `{year}` in `file` stands for four digits: every file that fits it is a table of that year.

    Attributes:
        sheet: of an Excel file; None takes the only one that is shown, or that has the columns.
        columns: column names; a reader for an agency's format has its own defaults.
        year: the year of the counts, where no column says.
        kind: what the counts are.
        delimiter, decimal, thousands: of a text table; None detects the delimiter, and from each
            column of counts as a whole which mark is which.
        nil: what stands for nobody, such as `-`; without it that is a missing count.
        header_row: 1-based line of the header; None looks for it.
        id_width: pad identifiers with zeros on the left to this many characters.
        boundaries: the boundary set that these counts belong to, where it is not the level's own;
            the two are then matched one to one by largest overlap.
        min_overlap: share of the union of two polygons that must be common for a match.
        cell_m: for `gridded`, pool cells to this side in metres (a whole multiple).
    """

    sheet: str | None = None
    columns: CountColumns = CountColumns()
    year: int | None = None
    kind: Kind | None = None
    delimiter: str | None = None
    decimal: str | None = Field(None, min_length=1, max_length=1)
    thousands: str | None = Field(None, min_length=1, max_length=1)
    nil: Annotated[tuple[str, ...], BeforeValidator(as_texts)] = ()
    header_row: int | None = Field(None, ge=1)
    id_width: int | None = None
    boundaries: BoundarySettings | None = None
    min_overlap: float = Field(0.5, gt=0, le=1)
    cell_m: int | None = Field(None, ge=10)


class ChangeColumns(Strict):
    """Names of the columns of a table of changes.

    Attributes:
        old, new: identifiers before and after.
        share: of the old unit's people that came to the new one; None: by the people counted.
        year: the first year whose counts are of the new units.
    """

    old: str = "old"
    new: str = "new"
    share: str | None = "share"
    year: str | None = None


class ChangeSettings(FileSettings):
    """A table of units that were split, merged or redrawn: old id, new id, share.

    Attributes:
        sheet, delimiter: as of counts.
        columns: column names.
        year: the first year whose counts are of the new units, where no column says.
    """

    sheet: str | None = None
    delimiter: str | None = None
    columns: ChangeColumns = ChangeColumns()
    year: int | None = None

    @model_validator(mode="after")
    def _dated(self) -> ChangeSettings:
        if self.year is None and self.columns.year is None:
            raise ValueError("year: say from which year on the new units are counted")
        return self


Side = Literal["real", "later", "earlier", "both"]
"""What a country says of a step in a series: it is real growth; only the later or only the earlier
counts are to be used; or each side for its own years."""


class LevelSettings(Strict):
    """One level of units.

    Attributes:
        role: `train` for the level that training and adjustment use, `evaluate` for the others.
        reader: how the files are read.
        boundaries: the polygons, or the raster of unit numbers.
        counts: one table, or several of different years.
        join: by identifier or by (parent, name); None takes identifiers where both sides have them.
        small_units: what becomes of a unit without a pixel centre: it gets the pixel it covers
            most, or is merged with the unit that has that pixel.
        kind: of the counts, where the table's settings do not say.
        changes: tables of units that were split, merged or redrawn between two counts.
        breaks: first year behind a step that no growth explains -> which counts to use.
    """

    role: Role
    reader: ReaderName = "table"
    boundaries: BoundarySettings | None = None
    counts: Annotated[
        tuple[CountSettings, ...],
        BeforeValidator(lambda v: [v] if isinstance(v, (dict, CountSettings)) else v),
    ]
    join: Literal["id", "name"] | None = None
    small_units: SmallUnits = "best_pixel"
    kind: Kind | None = None
    changes: Annotated[
        tuple[ChangeSettings, ...],
        BeforeValidator(lambda v: [v] if isinstance(v, (dict, ChangeSettings)) else v),
    ] = ()
    breaks: dict[int, Side] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _complete(self) -> LevelSettings:
        if not self.counts:
            raise ValueError("counts: name at least one table")
        if self.reader != "gridded" and self.boundaries is None:
            raise ValueError(f"boundaries: the reader {self.reader!r} needs them")
        if self.reader == "gridded" and len(self.counts) > 1:
            raise ValueError("counts: a gridded census is one raster; make one level of each")
        return self


class CensusSettings(Strict):
    """The `census` section of a country's file.

    Attributes:
        levels: by name, in the order of the file; exactly one has the role `train`.
        annual_growth: national growth a year as a fraction (0.023 is 2.3 %), used where neither
            two censuses nor the unit's own growth say more.
        national_totals: stated national figures, by year.
        national_tolerance: largest relative difference from them that passes.
        max_people_per_ha: density above which a unit is held to be wrong.
        box: west, south, east, north in degrees that all units should touch, west greater than
            east across the antimeridian; None takes the grid's own.
        least_on_grid: share of a unit's ground that has to lie on the grid, which gets all its
            people.
    """

    levels: dict[str, LevelSettings]
    annual_growth: float | None = Field(None, gt=-0.2, lt=0.2)
    national_totals: dict[int, float] = Field(default_factory=dict)
    national_tolerance: float = Field(0.02, gt=0, lt=1)
    max_people_per_ha: float = Field(2000.0, gt=0)
    box: tuple[float, float, float, float] | None = None
    least_on_grid: float = Field(0.5, ge=0, le=1)

    @model_validator(mode="after")
    def _one_training_level(self) -> CensusSettings:
        trained = [name for name, level in self.levels.items() if level.role == "train"]
        if len(trained) != 1:
            raise ValueError(f"levels: exactly one must have the role train, found {trained}")
        for name in self.levels:
            plain = name.replace("_", "").replace("-", "")
            if not plain.isalnum() or not name.isascii() or len(name) > MAX_LEVEL_NAME:
                raise ValueError(
                    f"levels: {name[:80]!r} must be letters, digits, - and _ only, "
                    f"at most {MAX_LEVEL_NAME}"
                )
        return self

    @property
    def train_level(self) -> str:
        """Name of the level that training and adjustment use."""
        return next(name for name, level in self.levels.items() if level.role == "train")

    @property
    def evaluation_levels(self) -> tuple[str, ...]:
        """Names of the levels that only evaluation may use."""
        return tuple(name for name, level in self.levels.items() if level.role == "evaluate")
