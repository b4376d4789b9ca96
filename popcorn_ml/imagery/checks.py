"""What must hold of a composite before anything is learned from it. Plain functions, no Dagster.

    season_checks(folder, report, grid, settings) -> list[CheckResult]   one season
    filled_checks(folder, report, grid, settings) -> list[CheckResult]   the four filled seasons
    backscatter_check(trained_on, applied_to) -> CheckResult             two provenances

`report` is `SeasonReport.as_dict()` or `FillReport.as_dict()`. A failed "error" poisons training
and should block what follows; a failed "warn" should be looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from popcorn_ml.errors import RasterError
from popcorn_ml.grid import Grid
from popcorn_ml.imagery.settings import ImagerySettings
from popcorn_ml.sentinel import BANDS, CHANNEL_MEAN, CHANNEL_STD, S1_DB_LIMITS, SEASONS

SEASON_CHECKS = (
    "grid",
    "nodata_share",
    "clear_observations",
    "value_ranges",
    "baseline_offset",
    "season_dates",
    "lost_assets",
)
"""Names of the results of `season_checks`, in order."""

FILLED_CHECKS = ("grid", "empty_share", "filled_share")
"""Names of the results of `filled_checks`, in order."""


@dataclass(frozen=True)
class CheckResult:
    """One verdict.

    Attributes:
        name: of the check, fit for an asset check's name.
        passed: whether it holds.
        severity: what a failure means: "error" blocks, "warn" does not.
        message: one sentence with what was expected and found.
        metadata: numbers behind it.
    """

    name: str
    passed: bool
    severity: Literal["error", "warn"]
    message: str
    metadata: dict[str, Any] = field(default_factory=dict)


def season_checks(
    folder: Path, report: Mapping[str, Any], grid: Grid, settings: ImagerySettings
) -> list[CheckResult]:
    """All checks of one season's composite.

    Args:
        folder: what `build_season` wrote.
        report: its report.
        grid: the country's.
        settings: `checks` holds the limits.
    """
    return [
        check_grid({name: folder / name for name in report["files"]}, grid),
        check_nodata_share(report, settings),
        check_clear_observations(report, settings),
        check_value_ranges(report, settings),
        check_baseline_offset(report),
        check_season_dates(report),
        check_lost_assets(report),
    ]


def filled_checks(
    folder: Path, report: Mapping[str, Any], grid: Grid, settings: ImagerySettings
) -> list[CheckResult]:
    """All checks of the four gap-filled seasons; arguments as `season_checks`."""
    return [
        check_grid({f"{s}.tif": folder / f"{s}.tif" for s in SEASONS}, grid),
        check_empty_share(report, settings),
        check_filled_share(report, settings),
    ]


def check_grid(files: Mapping[str, Path], grid: Grid) -> CheckResult:
    """Every file lies on the country's grid, to a thousandth of a pixel."""
    from popcorn_ml.raster import check

    for name, path in files.items():
        try:
            check(path, grid)
        except RasterError as error:
            return CheckResult("grid", False, "error", f"{name}: {error.what}", {"file": str(path)})
    return CheckResult("grid", True, "error", f"{len(files)} files are on the country's grid")


def check_nodata_share(report: Mapping[str, Any], settings: ImagerySettings) -> CheckResult:
    """Not too many of the pixels asked for are without a value.

    Refused is what lacks a value from either of Sentinel-1's orbits, where the gaps are filled from
    the other one; doubted is what the preferred one lacks.
    """
    share, limits = float(report["nodata_share"]), settings.checks
    facts, aside = {"nodata_share": share}, ""
    blocking = share
    if settings.gaps.other_orbit and (other := report.get("other_orbit")):
        blocking = float(other.get("nodata_share", share))
        facts |= {"other_orbit_share": other["share"], "nodata_share_of_both_orbits": blocking}
        aside = f", {blocking:.1%} where the other orbit stands in"
    choice, more = report.get("choice") or {}, ""
    if left := float(choice.get("left_without_share", 0.0)):
        facts["left_without_share"] = left
        more = f"; max_cloud_cover leaves {left:.1%} without any scene"
    severe = blocking > limits.max_nodata_share
    limit = limits.max_nodata_share if severe else limits.warn_nodata_share
    return CheckResult(
        "nodata_share",
        not severe and share <= limit,
        "error" if severe else "warn",
        f"{share:.1%} of the pixels are nodata{aside} (limit {limit:.0%}){more}",
        {**facts, "limit": limit},
    )


def check_clear_observations(report: Mapping[str, Any], settings: ImagerySettings) -> CheckResult:
    """Not too many pixels rest on a single observation: its cloud or shadow would be the median."""
    single, limit = float(report["clear"]["single_share"]), settings.checks.warn_single_share
    known = report["provenance"].get("observation") != "unknown"
    return CheckResult(
        "clear_observations",
        known and single <= limit,
        "warn",
        f"{single:.1%} of the pixels rest on one clear observation (limit {limit:.0%}), "
        f"median {report['clear']['median']}"
        if known
        else "not judged: the source does not say how many observations the pixels rest on",
        dict(report["clear"]),
    )


def check_value_ranges(report: Mapping[str, Any], settings: ImagerySettings) -> CheckResult:
    """The values are what the networks were trained on: dB, and reflectance x 10000.

    Each band's median lies within so many published standard deviations of the published mean.
    That alone would let linear power pass for VV and bytes for reflectance, so also: the median of
    Sentinel-1 is below -1 dB, its brightest 2 % reach further than its darkest by at least 1 dB,
    and the brightest 2 % of Sentinel-2 reach at least 300 (3 % reflectance) in some band. And not
    a single pixel of Sentinel-1 lies beyond `S1_DB_LIMITS`: a filler that was taken for data may
    make up less than any share.

    Where Sentinel-1's other orbit holds more values than the preferred one, its medians are judged
    as well; a few of its pixels (a lake) say nothing about them.
    """
    tolerance, faults = settings.checks.value_tolerance_std, []
    aside = (report.get("other_orbit") or {}).get("bands") or {}
    bands = {name: stats for name, stats in report["bands"].items() if stats["n"]}
    for name, stats in aside.items():
        if stats["n"] > report["bands"][name]["n"]:
            bands[f"{name} of the other orbit"] = stats
    if report["sensor"] == "s1":
        faults += [
            f"{name}: {stats['min']:g} to {stats['max']:g} dB, of which "
            f"{' or '.join(map('{:g}'.format, S1_DB_LIMITS))} and beyond is no backscatter"
            for name, stats in (*report["bands"].items(), *aside.items())
            if stats["n"] and not S1_DB_LIMITS[0] < stats["min"] <= stats["max"] < S1_DB_LIMITS[1]
        ]
    for label, stats in bands.items():
        name = label.split()[0]
        distance = (stats["median"] - CHANNEL_MEAN[name]) / CHANNEL_STD[name]
        if abs(distance) > tolerance:
            faults.append(
                f"{label}: median {stats['median']:g} is {distance:+.1f} standard deviations from "
                f"the published mean {CHANNEL_MEAN[name]:g}"
            )
        if report["sensor"] == "s1":
            if stats["median"] > -1 or stats["p02"] >= 0:
                faults.append(
                    f"{label}: median {stats['median']:g}, 2 % to 98 % {stats['p02']:g} to "
                    f"{stats['p98']:g}: this is linear power or digital numbers, not dB"
                )
            elif stats["p98"] - stats["p02"] < 1:
                faults.append(f"{label}: values are all alike ({stats['p02']:g} dB)")
    if report["sensor"] == "s2" and bands and max(b["p98"] for b in bands.values()) < 300:
        faults.append("no band reaches 300: this is not reflectance x 10000")
    if not bands:
        faults.append("there is not a single value")
    return CheckResult(
        "value_ranges",
        not faults,
        "error",
        "; ".join(faults) or "the values are like those the networks were trained on",
        {name: stats["median"] for name, stats in bands.items()},
    )


def check_baseline_offset(report: Mapping[str, Any]) -> CheckResult:
    """Sentinel-2: the offset of baseline 04.00 was removed, or dark pixels would start at 1000."""
    if report["sensor"] == "s1":
        return CheckResult("baseline_offset", True, "warn", "Sentinel-1 has no baseline offset")
    dark = {n: stats["p02"] for n, stats in report["bands"].items() if stats["n"]}
    if not dark:
        return CheckResult("baseline_offset", False, "warn", "not judged: no band has a value")
    suspicious = min(dark.values()) >= 1000
    return CheckResult(
        "baseline_offset",
        not suspicious,
        "warn",
        f"the darkest 2 % of every band begin at {min(dark.values()):g}: an offset of 1000 may "
        "still be in the numbers (or the country is desert or snow)"
        if suspicious
        else "dark pixels are dark",
        dark,
    )


def check_season_dates(report: Mapping[str, Any]) -> CheckResult:
    """Every scene was sensed from the season's start up to, not including, its end."""
    start, end = datetime.fromisoformat(report["start"]), datetime.fromisoformat(report["end"])
    scenes = [*report["scenes"], *((report.get("other_orbit") or {}).get("scenes") or [])]
    unknown = [scene["id"] for scene in scenes if not scene["datetime"]]
    outside = [
        scene["id"]
        for scene in scenes
        if scene["datetime"] and not start <= datetime.fromisoformat(scene["datetime"]) < end
    ]
    if outside:
        message = f"{len(outside)} of {len(scenes)} scenes lie outside the season: {outside[0]}"
    elif unknown:
        message = f"not judged: {len(unknown)} of {len(scenes)} scenes say no date"
    else:
        message = f"{len(scenes)} scenes lie within the season"
    return CheckResult(
        "season_dates",
        not outside and not unknown,
        "error" if outside or not unknown else "warn",
        message,
        {"scenes": len(scenes), "outside": outside, "without_date": len(unknown)},
    )


def check_lost_assets(report: Mapping[str, Any]) -> CheckResult:
    """Nothing was lost on the way; the composite stands without what was."""
    lost = report["lost"]
    first = f", first {lost[0]['scene']} {lost[0]['asset']}: {lost[0]['reason']}" if lost else ""
    return CheckResult(
        "lost_assets",
        not lost,
        "warn",
        f"{len(lost)} scene assets could not be read{first}",
        {"lost": len(lost), "retries": report["traffic"].get("retries", 0)},
    )


def check_empty_share(report: Mapping[str, Any], settings: ImagerySettings) -> CheckResult:
    """Not too much is left without a value after filling."""
    shares = _shares(report, "empty")
    worst = max(shares, key=lambda key: shares[key])
    limit = settings.checks.max_empty_share
    return CheckResult(
        "empty_share",
        shares[worst] <= limit,
        "error",
        f"{shares[worst]:.1%} of {worst} stay nodata (limit {limit:.0%})",
        shares,
    )


def check_filled_share(report: Mapping[str, Any], settings: ImagerySettings) -> CheckResult:
    """Not too much of any season comes from elsewhere than its own observations."""
    shares = {key: 1 - value for key, value in _shares(report, "observed").items()}
    worst = max(shares, key=lambda key: shares[key])
    limit = max(settings.checks.warn_nodata_share, settings.checks.max_empty_share)
    return CheckResult(
        "filled_share",
        shares[worst] <= limit,
        "warn",
        f"{shares[worst]:.1%} of {worst} are not its own observations (limit {limit:.0%})",
        {key: round(value, 6) for key, value in shares.items()},
    )


def _shares(report: Mapping[str, Any], rule: str) -> dict[str, float]:
    return {
        f"{season} {band}": float(report["shares"][season][band][rule])
        for season in SEASONS
        for band in BANDS[report["sensor"]]
    }


def backscatter_check(trained_on: Mapping[str, str], applied_to: Mapping[str, str]) -> CheckResult:
    """A model meets the kind of backscatter and reflectance that it was trained on.

    Gamma-nought is brighter than sigma-nought by 10 log10 of the cosine of the incidence angle
    (about 1 to 1.5 dB within the swath), and terrain is flattened in it.

    Args:
        trained_on, applied_to: `provenance` of two season reports of one sensor.
    """
    differing = {
        key: [trained_on.get(key, ""), applied_to.get(key, "")]
        for key in ("backscatter", "level")
        if trained_on.get(key, "") != applied_to.get(key, "")
    }
    text = ", ".join(f"{a or '?'} in training, {b or '?'} here" for a, b in differing.values())
    return CheckResult(
        "same_quantity",
        not differing,
        "warn",
        f"the model meets another quantity: {text}" if differing else "the same quantity",
        differing,
    )
