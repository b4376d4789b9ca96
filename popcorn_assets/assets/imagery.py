"""Imagery assets: eight seasonal composites, then the same with their gaps filled, a sensor each.

One factory makes the season assets, so that one season can be made again alone. How a composite
comes about is popcorn_ml.imagery's business.
"""

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import dagster as dg

from popcorn_assets.country import Country, load_country
from popcorn_assets.partitions import COUNTRY_YEAR
from popcorn_assets.resources import NOTHING, ComputeResource, ImageryResource, StoreResource
from popcorn_assets.runs.launch import tile_pool
from popcorn_assets.runs.pools import source_slot
from popcorn_assets.runs.retry import again_later
from popcorn_assets.show import check_specs, save_picture
from popcorn_assets.store.catalogue import CATALOGUES, items_used
from popcorn_assets.store.code import code_digest
from popcorn_assets.store.making import Making, Outcome
from popcorn_assets.store.sources import outside
from popcorn_assets.store.versions import Address, Version
from popcorn_ml.errors import ImageryError, StoreError
from popcorn_ml.imagery.checks import CheckResult
from popcorn_ml.mapping.pictures import Kind
from popcorn_ml.mapping.spec import Composites
from popcorn_ml.sentinel import BANDS, SEASONS, SENSORS, Period, Season, Sensor, season_period

GROUP = "imagery"
CODE = code_digest("imagery")
POOL = "imagery"

SENSOR_NAMES: dict[Sensor, str] = {"s1": "Sentinel-1", "s2": "Sentinel-2"}
UNITS: dict[Sensor, str] = {"s1": "dB", "s2": "surface reflectance x 10000"}
COMPOSITE = "composite.tif"
FILLED = ("s1_composites", "s2_composites")
LOOKS: dict[Sensor, Kind] = {"s1": "sar", "s2": "rgb"}

SEASON_TEXTS = {
    "grid": "The composite lies on the country's grid.",
    "nodata_share": "Not too many of the pixels that were asked for are without a value.",
    "clear_observations": "Not too many pixels rest on one observation, whose cloud would stay.",
    "value_ranges": "Values are like those that the networks were trained on.",
    "baseline_offset": "Sentinel-2: the offset of baseline 04.00 was removed.",
    "season_dates": "Every scene is of the season.",
    "lost_assets": "No file of a scene was lost on the way.",
}
FILLED_TEXTS = {
    "grid": "The four composites lie on the country's grid.",
    "empty_share": "Not too much is left without a value after filling.",
    "filled_share": "Not too much of any season comes from elsewhere than its own observations.",
}


def season_asset(sensor: Sensor, season: Season) -> dg.AssetsDefinition:
    """The asset of one sensor's composite of one season."""

    @dg.asset(
        name=f"{sensor}_{season}",
        partitions_def=COUNTRY_YEAR,
        group_name=GROUP,
        pool=POOL,
        kinds={"cog", sensor},
        code_version=CODE,
        description=f"{SENSOR_NAMES[sensor]} composite of {season}: per-pixel median of the clear "
        f"observations, {', '.join(BANDS[sensor])} in {UNITS[sensor]}, with their count.",
        check_specs=check_specs(f"{sensor}_{season}", SEASON_TEXTS),
        config_schema=NOTHING,
    )
    def composite(
        context: dg.AssetExecutionContext,
        store: StoreResource,
        imagery: ImageryResource,
        compute: ComputeResource,
    ) -> dg.MaterializeResult:
        from popcorn_ml.imagery.build import build_season
        from popcorn_ml.imagery.checks import season_checks

        making = Making(context, store.open(), f"{sensor}_{season}", code_version=CODE)
        country = load_country(making.country)
        settings = imagery.settings_of(country)
        grid = making.grid(country)
        period = season_period(making.year, season)
        _note_files(making, country, imagery.catalogue_files(settings))
        making.parameter(
            grid=grid.as_dict(),
            imagery=imagery.chosen(country).pixel_identity(sensor),
            source=imagery.fingerprint(settings),
            period=[period.start.isoformat(), period.end.isoformat()],
        )
        note_unless_over(making, period, datetime.now(UTC))

        def make(folder: Path) -> Outcome:
            with (
                again_later(context),
                source_slot(context, settings.source),
                tile_pool(context, compute, settings.source) as (pool, at_once),
            ):
                report = build_season(
                    sensor,
                    season,
                    making.year,
                    grid,
                    settings,
                    folder,
                    making.lone_work(),
                    boundary=country.outline(),
                    workers=at_once,
                    progress=making.progress("tiles"),
                    secrets=imagery.secrets(),
                    keep_work=True,
                    pool=pool,
                )
            title = f"{SENSOR_NAMES[sensor]}, {season}, {making.place()}"
            save_picture(folder, folder / COMPOSITE, LOOKS[sensor], title)
            facts = report.as_dict()
            facts["scene_files"] = scene_files(making, facts)
            facts[CATALOGUES] = items_used(making, imagery.catalogue_files(settings), facts)
            facts["lost_tries"] = tries_of(making, facts)
            return said(folder, facts)

        def said(folder: Path, facts: dict[str, Any]) -> Outcome:
            checks = season_checks(folder, facts, grid, settings)
            return Outcome(_shown(facts), facts, checks, unfinished=bool(facts["lost"]))

        def judge(found: Version) -> Outcome | None:
            facts = found.manifest()["facts"]
            if worth_a_try(facts) or facts["lost_share"] > settings.max_lost_share:
                return None
            return said(found.path, facts)

        return making.publish(make, judge)

    return composite


def _note_files(making: Making, country: Country, catalogues: Iterable[Path]) -> None:
    """The files from outside that say where to look, and for which images."""
    outline = country.outline()
    for path in catalogues if outline is None else (outline.path, *catalogues):
        making.source(path)
    if outline is not None and (said := outline.as_dict()):  # the file's digest is not all of it
        making.parameter(boundary=said)


LOST_TRIES = 3
"""How often in a row the same may be lost before it counts as gone: `popcorn imagery retry`, and
every run that does not take what is in the store, try all the same."""


def worth_a_try(facts: dict[str, Any]) -> bool:
    """Whether a season lost something that a later run may get."""
    return bool(facts["lost"]) and facts["lost_tries"] < LOST_TRIES


def tries_of(making: Making, facts: dict[str, Any]) -> int:
    """How often in a row a season has lost exactly this; 0 where it lost nothing."""
    if not facts["lost"]:
        return 0
    try:
        found = making.store.find(making.address)
        before = found.manifest() if found else {}
    except StoreError:  # damaged
        before = {}
    known = before.get("facts", {})
    same = before.get("recipe") == making.recipe() and known.get("lost") == facts["lost"]
    return 1 + (known.get("lost_tries", 0) if same else 0)


def note_unless_over(making: Making, period: Period, now: datetime) -> None:
    """Set a composite of part of a season apart from that of the whole season.

    Its recipe names the day, so that neither it nor its half-done work is taken for the season's
    once that is over, and it is never taken from the store: scenes still come in.

    Raises:
        ImageryError: the season has not begun.
    """
    if period.start > now:
        raise ImageryError(
            f"{making.address} has not begun",
            expected="a season that is over, or under way",
            found=f"it begins on {period.start:%Y-%m-%d} and ends on {period.end:%Y-%m-%d}",
            remedy="of a running year, the job ingest makes the seasons that are over; the whole "
            "year can be made when its winter is",
        )
    if period.end > now:
        making.context.log.warning(
            f"{making.address} ends on {period.end:%Y-%m-%d}: scenes will still come in"
        )
        making.parameter(scenes_until=now.date().isoformat())
        making.reuse = False


def filled_asset(sensor: Sensor) -> dg.AssetsDefinition:
    """The asset of one sensor's four seasons with their gaps filled."""
    upstream = [f"{sensor}_{season}" for season in SEASONS]

    @dg.asset(
        name=f"{sensor}_composites",
        deps=upstream,
        partitions_def=COUNTRY_YEAR,
        group_name=GROUP,
        kinds={"cog", sensor},
        code_version=CODE,
        description=f"{SENSOR_NAMES[sensor]} composites of the four seasons, gaps filled by stated "
        "rules (neighbouring seasons, the other orbit, nearest pixel of the same band); what "
        "stays empty stays nodata. What the networks read.",
        check_specs=check_specs(f"{sensor}_composites", FILLED_TEXTS),
        config_schema=NOTHING,
    )
    def composites(
        context: dg.AssetExecutionContext, store: StoreResource, imagery: ImageryResource
    ) -> dg.MaterializeResult:
        from popcorn_ml.imagery.build import fill_gaps
        from popcorn_ml.imagery.checks import filled_checks, season_checks

        making = Making(context, store.open(), f"{sensor}_composites", code_version=CODE)
        country = load_country(making.country)
        settings = imagery.settings_of(country)
        grid = making.grid(country)
        versions = {season: making.input(f"{sensor}_{season}") for season in SEASONS}
        for version in versions.values():
            facts = version.manifest()["facts"]
            refuse_failing(version, season_checks(version.path, facts, grid, settings))
        quantity = _one_provenance(list(versions.values()))
        seasons = {season: version.path for season, version in versions.items()}

        making.parameter(grid=grid.as_dict(), gaps=settings.gaps.model_dump(mode="json"))

        def make(folder: Path) -> Outcome:
            report = fill_gaps(
                sensor, seasons, grid, settings, folder, progress=making.progress("blocks")
            )
            title = f"{SENSOR_NAMES[sensor]}, summer, gaps filled, {making.place()}"
            save_picture(folder, folder / "summer.tif", LOOKS[sensor], title)
            return said(folder, {**report.as_dict(), "provenance": quantity})

        def said(folder: Path, facts: dict[str, Any]) -> Outcome:
            return Outcome(
                _shown_filled(facts), facts, filled_checks(folder, facts, grid, settings)
            )

        return making.publish(make, lambda found: said(found.path, found.manifest()["facts"]))

    return composites


def refuse_failing(version: Version, checks: Iterable[CheckResult]) -> None:
    """Refuse a stored composite that does not meet the limits of today's country file.

    It may have met those of the day it was made.

    Raises:
        StoreError: it fails a check that blocks.
    """
    failed = [check for check in checks if not check.passed and check.severity == "error"]
    if failed:
        raise StoreError(
            f"{version.address} does not meet the limits of the country's file",
            where=version.path,
            expected="every check that blocks to pass",
            found="; ".join(f"{check.name}: {check.message}" for check in failed)[:2000],
            remedy="put right what they name, or the limits (imagery.checks), and materialise "
            f"{version.address} again",
        )


def scene_files(making: Making, facts: dict[str, Any]) -> list[dict[str, Any]]:
    """The files on disk that a season's scenes were read from, with their digests.

    They take the place of the paths in `facts`, and are read once more for it: a catalogue on disk
    says of its scenes only where they are. Those that were lost are not there.
    """
    other = facts["other_orbit"] or {}
    wounded = {one["scene"] for one in facts["lost"]}
    return [
        {"scene": scene["id"], **outside(making.store.root, Path(path))}
        for scene in (*facts["scenes"], *other.get("scenes", ()))
        for path in scene.pop("files")
        if scene["id"] not in wounded or Path(path).is_file()
    ]


def provenance(making: Making) -> dict[Sensor, dict[str, str]]:
    """Provider, product and physical quantity of this country-year's composites, by sensor."""
    return {
        sensor: making.store.latest(
            Address(f"{sensor}_composites", making.country, making.year)
        ).manifest()["facts"]["provenance"]
        for sensor in SENSORS
    }


def looks_at_text(sensors: str) -> str:
    """For people, what a model looks at: "both", "s2" or "s1"."""
    return " and ".join(SENSOR_NAMES[one] for one in SENSORS if sensors in ("both", one))


def _one_provenance(seasons: list[Version]) -> dict[str, str]:
    """What the four seasons have in common.

    Raises:
        ImageryError: they hold different physical quantities.
    """
    found = [season.manifest()["facts"]["provenance"] for season in seasons]
    for key in ("backscatter", "level"):
        if len({one.get(key) for one in found}) > 1:
            raise ImageryError(
                "the four seasons do not hold the same quantity",
                where=str(seasons[0].path.parent),
                found=", ".join(
                    f"{season.address.asset}: {one.get(key)}"
                    for season, one in zip(seasons, found, strict=True)
                ),
                remedy="materialise all four seasons from one source",
            )
    return found[0]


def _shown(report: dict[str, Any]) -> dict[str, Any]:
    """What an operator looks at of a season's report."""
    shown: dict[str, Any] = {
        "scenes": len(report["scenes"]),
        "nodata share": report["nodata_share"],
        "clear observations, median": report["clear"]["median"],
        "from": report["start"][:10],
        "until, exclusive": report["end"][:10],
        "bands": [{"band": band, **stats} for band, stats in report["bands"].items()],
        "tiles": report["tiles"],
        "traffic": report["traffic"],
        "provenance": report["provenance"],
    }
    if report["orbit"]:
        shown["orbit"] = report["orbit"]
    if report["other_orbit"]:
        shown["held by the other orbit, share"] = report["other_orbit"]["share"]
        shown["nodata share of both orbits"] = report["other_orbit"]["nodata_share"]
    shown |= _shown_choice(report)
    if report["lost"]:
        shown["lost scene assets"] = report["lost"]
    if report["left_out"]:
        shown["scenes of another kind, left out"] = len(report["left_out"])
        counted = Counter(one["reason"] for one in report["left_out"])
        shown["of another kind"] = [
            {"kind": reason, "scenes": count} for reason, count in counted.most_common()
        ]
    return shown


def _shown_choice(report: dict[str, Any]) -> dict[str, Any]:
    """What `max_scenes` and `max_cloud_cover` kept of a season; of older reports nothing."""
    choice = report.get("choice")
    if not choice or "offered" not in choice:
        return {}
    held = choice["observations_a_place"]
    shown = {
        "scenes offered": choice["offered"],
        "scenes chosen": choice["kept"],
        "passed over, too cloudy": choice["too_cloudy"],
        "passed over, beyond max_scenes": choice["beyond_max_scenes"],
        "observations a place, median": f"{held['kept']['median']} of {held['offered']['median']}",
    }
    if choice["left_without_share"]:
        shown["left without any scene, share"] = choice["left_without_share"]
    return shown


def _shown_filled(facts: dict[str, Any]) -> dict[str, Any]:
    """What an operator looks at of four filled seasons."""
    return {
        "pixels": facts["pixels_inside"],
        "largest empty share": max(
            shares["empty"] for bands in facts["shares"].values() for shares in bands.values()
        ),
        "where pixels come from": [
            {"season": season, "band": band, **shares}
            for season, bands in facts["shares"].items()
            for band, shares in bands.items()
        ],
    }


def composites_by_season(making: Making) -> dict[Season, tuple[Path, Path]]:
    """Season -> Sentinel-1 and Sentinel-2 composite, noted as inputs.

    Raises:
        StoreError: they do not meet the limits of today's country file.
    """
    return cast(dict[Season, tuple[Path, Path]], composites_seen(making, "both"))


def composites_seen(making: Making, sensors: str) -> dict[Season, Composites]:
    """As `composites_by_season`, for what looks at "both" sensors or at one, "s2" or "s1".

    Both are noted; the files of a sensor that is not looked at may be damaged or gone, and None
    stands in their place.

    Raises:
        StoreError: those looked at are not there, or do not meet the limits of today's country
            file.
    """
    from popcorn_ml.imagery.checks import filled_checks

    country = load_country(making.country)
    grid, settings = country.pixel_grid(), country.imagery
    found = [making.input(name) for name in FILLED]
    seen = [sensors in ("both", sensor) for sensor in SENSORS]
    for version in (version for version, is_seen in zip(found, seen, strict=True) if is_seen):
        facts = version.manifest()["facts"]
        refuse_failing(version, filled_checks(version.path, facts, grid, settings))

    def of(season: Season) -> Composites:
        s1, s2 = (
            version.file(f"{season}.tif") if is_seen else None
            for version, is_seen in zip(found, seen, strict=True)
        )
        return s1, s2

    return {season: of(season) for season in SEASONS}


assets: list[dg.AssetsDefinition] = [
    *(season_asset(sensor, season) for sensor in SENSORS for season in SEASONS),
    *(filled_asset(sensor) for sensor in SENSORS),
]
