"""New and changed country files: broken ones are reported, and what needs it is reloaded.

Most of a country's file is read anew by every step. Only three things are fixed when the code
location loads: which countries there are (their partitions and schedules), whether their schedules
are on, and on which other countries' units they are trained. When one of these changed, the web
server is asked to reload the location, a few times at most; where it cannot be asked, the operator
is told which button to press.
"""

import hashlib
import json
import threading
from typing import Any

import dagster as dg

from popcorn_assets.country import broken_countries, country_codes, country_files, load_country
from popcorn_assets.runs.home import webserver
from popcorn_ml.errors import PopcornError

ATTEMPTS = 3
SECONDS = 2.0
"""How long a tick waits for a refusal; a reload itself takes longer, and ends this very process."""

BY_HAND = "press Deployment > Reload in the UI, or restart it"

RELOAD = """
mutation Reload($location: String!) {
  reloadRepositoryLocation(repositoryLocationName: $location) { __typename }
}
"""


def fixed_at_load() -> dict[str, Any]:
    """What a code location knows of the countries from when it loaded.

    Code -> which schedules are on, and where it is trained with others, with which.
    """
    found: dict[str, Any] = {}
    for code in country_codes():
        country = load_country(code)
        settings = country.automation
        found[code] = {"refresh": settings.refresh, "ingest": settings.ingest}
        if country.trained_with_others:
            found[code]["trained on"] = country.trained_on()
    return found


AS_LOADED = fixed_at_load()


def outdated(loaded: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Countries that are new, or whose file says otherwise of what is fixed than when loaded.

    One that is gone, or that cannot be read for a while, is no reason: reloading would take its
    partitions and its schedules away.
    """
    return sorted(code for code, settings in now.items() if loaded.get(code) != settings)


def contents() -> dict[str, str]:
    """Digest of every country file, by code."""
    found = {}
    for code, path in country_files().items():
        try:
            found[code] = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        except OSError as error:
            found[code] = f"unreadable: {error.strerror}"
    return found


def changes(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """What happened to the files, in words."""
    told = [f"{code} is new" for code in sorted(after.keys() - before.keys())]
    told += [f"{code} has changed" for code in sorted(after) if before.get(code, "") != after[code]
             and code in before]  # fmt: skip
    return told + [
        f"{code} is gone: its partitions stay until the location is reloaded"
        for code in sorted(before.keys() - after.keys())
    ]


def ask_for_reload(location: str) -> str | None:
    """Ask the web server to load a code location again; what went wrong, or None.

    Does not wait for it to be done.
    """
    address = webserver()
    wrong: list[str] = []

    def ask() -> None:
        import requests

        try:
            answer = requests.post(
                f"{address}/graphql",
                json={"query": RELOAD, "variables": {"location": location}},
                timeout=120,
            )
            answer.raise_for_status()
            kind = answer.json()["data"]["reloadRepositoryLocation"]["__typename"]
            if kind != "WorkspaceLocationEntry":
                wrong.append(f"the web server answered {kind}")
        except (requests.RequestException, ValueError, KeyError, TypeError) as error:
            wrong.append(f"no web server could be asked at {address} ({type(error).__name__})")

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(SECONDS)
    return wrong[0] if wrong else None


@dg.sensor(
    name="country_files",
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Watches the country files: reports new, changed and broken ones (with file and "
    "line), and has the code location reloaded when a country is new or its schedules are "
    "switched in its file.",
)
def country_files_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
    cursor = _cursor(context.cursor)
    before, after = cursor.get("files"), contents()
    told = [] if before is None else changes(before, after)
    for text in told:
        context.log.info(f"the country file of {text}")
    broken = broken_countries()
    for code, error in broken.items():
        if before is None or before.get(code) != after.get(code):
            context.log.error(f"{code} cannot be used; the other countries can. {error}")
    summary = [*told, *(f"{code} is broken (see docs/countries.md)" for code in broken)]

    try:
        now = fixed_at_load()
    except PopcornError:  # a file broke between two looks: the next tick tells
        now = AS_LOADED
    asked: dict[str, int] = {}
    if waiting := outdated(AS_LOADED, now):
        names = ", ".join(waiting)
        state = hashlib.sha256(json.dumps(now, sort_keys=True).encode()).hexdigest()[:16]
        asked = {state: cursor.get("asked", {}).get(state, 0)}
        if asked[state] >= ATTEMPTS:
            summary.append(f"{names}: not reloaded after {ATTEMPTS} attempts; {BY_HAND}")
        else:
            asked[state] += 1
            wrong = ask_for_reload(_location(context))
            if wrong:
                context.log.warning(f"{names} will appear after a reload, but {wrong}: {BY_HAND}")
            else:
                context.log.info(f"the code location is reloaded for {names}")
            summary.append(f"{names}: {wrong or 'reload asked for'}")
    return dg.SensorResult(
        skip_reason="; ".join(summary) or "no country file has changed",
        cursor=json.dumps({"files": after, "asked": asked}),
    )


def _location(context: dg.SensorEvaluationContext) -> str:
    origin = context.code_location_origin
    return origin.location_name if origin is not None else "popcorn"


def _cursor(text: str | None) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
