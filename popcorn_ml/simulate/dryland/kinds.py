"""Kinds of settlement of the dry valley: how each is built and who lives there. Draws nothing."""

from __future__ import annotations

from dataclasses import dataclass

ROOFS = ("mud", "lime", "gravelled", "clay_tile", "sheet", "plastic")


@dataclass(frozen=True)
class Kind:
    """One kind of settlement.

    Attributes:
        gap_m: how far a building stands from the next that faces it.
        storey_m: height of a storey.
        storeys: of its buildings, each as likely as the next; projects draw one of their own.
        dwelling_m2: floor of a dwelling; 0: a building is one dwelling, whatever its size.
        household: mean number of people in a dwelling that is lived in.
        empty: share of dwellings that are not.
        roofs: weights of `ROOFS`.
        ground: shares of asphalt, paving, trodden dust, garden and trees between the buildings.
        glint: how strongly walls return the radar's pulse, relative to plastered masonry.
    """

    gap_m: float
    storey_m: float
    storeys: tuple[int, ...]
    dwelling_m2: float
    household: float
    empty: float
    roofs: tuple[float, float, float, float, float, float]
    ground: tuple[float, float, float, float, float]
    glint: float = 1.0


KINDS: dict[str, Kind] = {
    "medina": Kind(  # old town: houses around a court, wall to wall
        gap_m=2.5, storey_m=3.2, storeys=(1, 2, 2, 3), dwelling_m2=0, household=7.2, empty=0.2,
        roofs=(0.45, 0.35, 0.2, 0, 0, 0), ground=(0.0, 0.4, 0.55, 0.02, 0.03),
    ),
    "flats": Kind(  # slabs of one height a project
        gap_m=24, storey_m=2.9, storeys=(3, 4, 4, 5, 6), dwelling_m2=92, household=3.5, empty=0.12,
        roofs=(0, 0.15, 0.8, 0.05, 0, 0), ground=(0.38, 0.12, 0.3, 0.12, 0.08),
    ),
    "terrace": Kind(  # attached houses in rows
        gap_m=9, storey_m=2.8, storeys=(1, 2, 2), dwelling_m2=0, household=4.9, empty=0.08,
        roofs=(0, 0.2, 0.25, 0.55, 0, 0), ground=(0.3, 0.2, 0.36, 0.08, 0.06),
    ),
    "villa": Kind(  # walled gardens, many of them second homes
        gap_m=14, storey_m=3.1, storeys=(1, 2), dwelling_m2=0, household=3.4, empty=0.38,
        roofs=(0, 0.55, 0.15, 0.3, 0, 0), ground=(0.14, 0.16, 0.24, 0.26, 0.2),
    ),
    "works": Kind(  # yards with sheds
        gap_m=16, storey_m=6.5, storeys=(1,), dwelling_m2=0, household=0.0, empty=1.0,
        roofs=(0, 0.1, 0.25, 0, 0.65, 0), ground=(0.3, 0.25, 0.43, 0.01, 0.01),
    ),
    "ribbon": Kind(  # villages in file along a canal or a track
        gap_m=9, storey_m=2.7, storeys=(1, 1, 2), dwelling_m2=0, household=6.1, empty=0.1,
        roofs=(0.6, 0.12, 0.2, 0, 0.08, 0), ground=(0.0, 0.04, 0.62, 0.18, 0.16),
    ),
    "compound": Kind(  # huts within a wall, far from the next
        gap_m=8, storey_m=2.5, storeys=(1,), dwelling_m2=0, household=3.3, empty=0.12,
        roofs=(0.75, 0, 0.05, 0, 0.2, 0), ground=(0.0, 0.0, 0.93, 0.03, 0.04), glint=0.7,
    ),
    "glasshouse": Kind(  # plastic tunnels between the fields
        gap_m=4, storey_m=3.4, storeys=(1,), dwelling_m2=0, household=0.0, empty=1.0,
        roofs=(0, 0, 0, 0, 0, 1), ground=(0.0, 0.02, 0.7, 0.28, 0.0), glint=0.2,
    ),
}  # fmt: skip
KIND_NAMES = tuple(KINDS)
PROJECTS = ("flats", "terrace", "villa", "works")
"""Kinds that come in projects of one builder each."""
