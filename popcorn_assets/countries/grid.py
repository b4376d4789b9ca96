"""The grid section of a country's file: which pixels a country has, and which are fetched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from popcorn_assets.paths import given_path
from popcorn_ml.census.settings import as_texts
from popcorn_ml.edges import WrittenFile, WrittenPath
from popcorn_ml.grid import Grid, check_grid, default_step

if TYPE_CHECKING:
    from popcorn_ml.imagery.boundary import Boundary


class Section(BaseModel):
    """A section that refuses words it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class GridSettings(Section):
    """The country's grid, given in exactly one of five ways; any may come with a boundary.

    Attributes:
        preset: one of the published countries (rwa, che, pricp2, uga), on their own grid.
        box: west, south, east, north in degrees.
        boundary: vector file of the country; tiles outside it are not fetched. Alone, it gives the
            grid as well.
        margin_m: how far beyond the boundary is still fetched (and, where the boundary gives it,
            on the grid): for an outline that is coarser than the ground.
        bounds: west, south, east, north in `crs`.
        like: a raster whose grid is taken as it is, such as a published composite; hectares are
            then counted from its corner.
        layer, member, where, boundary_crs: as of the boundaries of census units: which layer of
            the boundary file, which file of a zip archive, which features, and the CRS of a file
            that does not say.
        crs: authority code; without it, the UTM zone of the box's or the boundary's centre.
        step: pixel side in CRS units; None: 10 m, in degrees what Earth Engine takes for it.
    """

    preset: str | None = None
    box: tuple[float, float, float, float] | None = None
    boundary: WrittenPath | None = None
    margin_m: float = Field(0, ge=0, le=100_000)
    bounds: tuple[float, float, float, float] | None = None
    layer: str | None = None
    member: WrittenFile | None = None
    where: dict[str, Annotated[tuple[str, ...], BeforeValidator(as_texts)]] = Field(
        default_factory=dict
    )
    boundary_crs: str | None = None
    like: WrittenPath | None = None
    crs: str | None = None
    step: float | None = Field(None, gt=0)

    @field_validator("preset")
    @classmethod
    def _known_preset(cls, value: str | None) -> str | None:
        from popcorn_ml.imagery.presets import PUBLISHED_BOXES

        if value is not None and value not in PUBLISHED_BOXES:
            raise ValueError(f"allowed: {', '.join(PUBLISHED_BOXES)}")
        return value

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        ways = ("preset", "box", "boundary", "bounds", "like")
        given = [way for way in ways if getattr(self, way) is not None]
        if not given or len([way for way in given if way != "boundary"]) > 1:
            raise ValueError(
                f"give one of {', '.join(ways)}, or a boundary with one of the others; found: "
                f"{', '.join(given) or 'none'}"
            )
        if self.bounds and not self.crs:
            raise ValueError("bounds need a crs")
        kinds = ("layer", "member", "where", "boundary_crs", "margin_m")
        of_file = [kind for kind in kinds if getattr(self, kind)]
        if of_file and self.boundary is None:
            raise ValueError(f"{', '.join(of_file)}: belongs to a boundary")
        return self

    def outline(self) -> Boundary | None:
        """The boundary file and what of it is meant; None: there is none."""
        from popcorn_ml.imagery.boundary import Boundary

        if self.boundary is None:
            return None
        path = given_path(self.boundary)
        return Boundary(path, self.member, self.layer, self.where, self.boundary_crs, self.margin_m)

    @property
    def from_boundary(self) -> bool:
        """Whether the boundary file is what gives the grid."""
        return self.boundary is not None and not (
            self.preset or self.box or self.bounds or self.like
        )

    def grid(self) -> Grid:
        """The grid; paths are taken from the store's root.

        Raises:
            ConfigError, RasterError: a file or a value that gives no grid, or one whose pixels
                are not of the size or the area that they would be taken for.
        """
        grid = self._as_given()
        check_grid(grid)
        return grid

    def _as_given(self) -> Grid:
        from popcorn_ml.imagery.presets import grid_of_boundary, grid_of_box, preset_grid

        if self.preset:
            return preset_grid(self.preset)
        if self.box:
            return grid_of_box(self.box, self.crs, self.step)
        if self.from_boundary:
            outline = self.outline()
            assert outline is not None
            return grid_of_boundary(outline, self.crs, self.step)
        if self.like:
            from popcorn_ml.raster import grid_of

            return grid_of(given_path(self.like))
        crs = self.crs or ""
        return Grid.covering(crs, self.bounds or (0, 0, 0, 0), self.step or default_step(crs))
