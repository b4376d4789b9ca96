"""A country's file: one YAML each, in `countries/` or the folder POPCORN_COUNTRIES names.

Adding a country is adding a file. What its sections mean is defined beside what reads them:
`imagery` in popcorn_ml.imagery.settings, `census` in popcorn_ml.census.settings. Relative paths in
a country's file are taken from the store's root.
"""

from __future__ import annotations

import os
import re
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml
from pydantic import (
    Field,
    ValidationError,
    model_validator,
)

from popcorn_assets.countries.evaluation import ChangeSettings, EvaluationSettings
from popcorn_assets.countries.grid import GridSettings, Section
from popcorn_assets.countries.model import ModelChoice
from popcorn_assets.countries.student import StudentSettings
from popcorn_assets.countries.training import CODE_PATTERN, TrainingSettings
from popcorn_assets.countries.yaml_text import given_twice, read_otherwise, refuse_endless, switches
from popcorn_assets.paths import given_path
from popcorn_ml.census.settings import CensusSettings
from popcorn_ml.errors import ConfigError
from popcorn_ml.grid import Grid
from popcorn_ml.imagery.secrets import scrub
from popcorn_ml.imagery.settings import ImagerySettings

if TYPE_CHECKING:
    from popcorn_ml.imagery.boundary import Boundary

COUNTRIES_VARIABLE = "POPCORN_COUNTRIES"
PACKAGED = Path(__file__).parent / "countries"
MAX_BYTES = 1_000_000
_CODE = re.compile(CODE_PATTERN)
_LOOKS_LIKE_YAML = re.compile(r"\.ya?ml(\.txt)?$", re.IGNORECASE)


class MappingSettings(Section):
    """How the map is computed.

    Attributes:
        tile_px: side of the squares that it is computed in.
        leave_out: share of the country's people that pixels which are hardly built up may hold to
            be left out, and hold no one; 0 computes every pixel.
    """

    tile_px: int = Field(512, ge=64, multiple_of=4)
    leave_out: float = Field(1e-4, ge=0, le=0.01)


class AutomationSettings(Section):
    """What of this country starts by itself; anything can be switched in the UI all the same.

    Attributes:
        refresh: its yearly refresh is on: the year mapped with the deployed model in March.
        ingest: its quarterly ingest is on: a season's composites soon after the season closed.
        stale: what to do about a published map that is older than what it was made from: say so,
            or refresh it as well.
    """

    refresh: bool = Field(False, strict=True)
    ingest: bool = Field(False, strict=True)
    stale: Literal["report", "refresh"] = "report"


class PublicationSettings(Section):
    """Under which terms the country's maps are published; what is not said here is said nowhere.

    Attributes:
        licence: SPDX identifier of the maps' licence, such as CC-BY-4.0, or words.
        citation: how to cite them; `{year}` and `{version}` are replaced. Empty: a sentence made
            from the country's name, the method and the version.
        publisher, contact: who publishes them, and whom to ask.
    """

    licence: str = Field("", max_length=200)
    citation: str = Field("", max_length=2000)
    publisher: str = Field("", max_length=200)
    contact: str = Field("", max_length=200)


class Country(Section):
    """All settings of one country."""

    name: str
    grid: GridSettings
    imagery: ImagerySettings
    census: CensusSettings
    extractor: Literal["published", "demo"] = "published"
    training: TrainingSettings = TrainingSettings()
    model: ModelChoice = ModelChoice()
    student: StudentSettings = StudentSettings()
    mapping: MappingSettings = MappingSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    change: ChangeSettings = ChangeSettings()
    automation: AutomationSettings = AutomationSettings()
    publication: PublicationSettings = PublicationSettings()
    code: str = Field("", exclude=True)

    @model_validator(mode="before")
    @classmethod
    def _code_comes_from_the_file_name(cls, data: Any, info) -> Any:
        if isinstance(data, dict) and info.context:
            if "code" in data:
                raise ValueError("'code' is the file's name and not set inside it")
            data = {**data, "code": info.context["code"]}
        return data

    def pixel_grid(self) -> Grid:
        """The country's one grid.

        Raises:
            ConfigError, RasterError: see `GridSettings.grid`; names the country's file.
        """
        try:
            return self.grid.grid()
        except ConfigError as error:
            files = country_files()
            if self.code not in files or not str(error.where).startswith("grid"):
                raise
            raise ConfigError(
                error.what,
                where=f"{files[self.code]}: {error.where}",
                expected=error.expected,
                found=error.found,
                remedy=error.remedy,
            ) from error

    def trained_on(self) -> list[str]:
        """Codes of the countries whose units its checkpoints are trained on; its own, as a rule."""
        return self.training.countries or [self.code]

    @property
    def trained_with_others(self) -> bool:
        """Whether these are others than the country itself alone."""
        return self.trained_on() != [self.code]

    def outline(self) -> Boundary | None:
        """The vector file outside which nothing is fetched, and what of it is meant; None: the
        whole grid is fetched."""
        return self.grid.outline()

    def grid_files(self) -> list[Path]:
        """The file that the grid is taken from, where it is taken from one."""
        given = self.grid.like or (self.grid.boundary if self.grid.from_boundary else None)
        return [given_path(given)] if given else []


def own_folder() -> Path:
    """The operator's folder of country files: POPCORN_COUNTRIES, or `countries` beside `data`."""
    return Path(os.environ.get(COUNTRIES_VARIABLE) or "countries").absolute()


def is_code(text: str) -> bool:
    """Whether a country may be called so."""
    return _CODE.fullmatch(text) is not None


def folders() -> list[Path]:
    """Where country files are looked for; the operator's folder wins over the packaged ones."""
    own = own_folder()
    asked = os.environ.get(COUNTRIES_VARIABLE) or own.is_dir()
    return [*([own] if asked else []), PACKAGED]


def country_files() -> dict[str, Path]:
    """Code -> file, of every country there is a file for."""
    found: dict[str, Path] = {}
    for folder in folders():
        for path in sorted(folder.glob("*.yaml")):
            if _CODE.fullmatch(path.stem):
                found.setdefault(path.stem, path)
    return dict(sorted(found.items()))


def unused_files() -> dict[Path, str]:
    """What lies where country files do and looks like one, but is none; and why."""
    found = {}
    for folder in folders():
        if not folder.is_dir():
            found[folder] = f"there is no such folder; {COUNTRIES_VARIABLE} names it"
            continue
        for path in sorted(folder.iterdir()):
            name = path.name.strip()
            if name.startswith(".") or not _LOOKS_LIKE_YAML.search(name):
                continue  # of an editor, or something else
            if path.name.endswith(".yaml") and _CODE.fullmatch(path.stem):
                continue
            code = re.sub(r"[^a-z0-9]+", "_", name[: name.lower().index(".y")].lower()).strip("_")
            found[path] = (
                "not used: a country's file is named CODE.yaml, the code in lower-case letters, "
                "digits and _, beginning with a letter"
                + (f"; rename it to {code}.yaml" if _CODE.fullmatch(code) else "")
            )
    return found


def country_codes() -> list[str]:
    """Codes of the countries whose files can be used."""
    files = country_files()
    return [code for code in files if not isinstance(_try(files[code]), ConfigError)]


def broken_countries() -> dict[str, ConfigError]:
    """Code -> what is wrong with its file, of those that cannot be used."""
    tried = {code: _try(path) for code, path in country_files().items()}
    return {code: error for code, error in tried.items() if isinstance(error, ConfigError)}


def load_country(code: str) -> Country:
    """A country's settings.

    Raises:
        ConfigError: unknown, or its file has a wrong or missing key; names file and line.
    """
    path = file_of(code)
    if path is None:
        raise ConfigError(
            f"there is no country {code!r}",
            expected=", ".join(country_files()) or "at least one country file",
            remedy=f"popcorn new {code}, or add {code}.yaml to {own_folder()}",
        )
    return _loaded(path)


def file_of(code: str) -> Path | None:
    """The file of a country, be it broken, without a look at every other; None: there is none."""
    if not _CODE.fullmatch(code):
        return None
    paths = (folder / f"{code}.yaml" for folder in folders())
    return next((path for path in paths if os.path.lexists(path)), None)


def _try(path: Path) -> Country | ConfigError:
    try:
        return _loaded(path)
    except ConfigError as error:
        return error


_read: dict[Path, tuple[int, Country]] = {}
"""What was read of each file, and when it had been changed last."""


def _loaded(path: Path) -> Country:
    """The settings in a file, read again when it has changed."""
    try:
        modified = path.stat().st_mtime_ns
    except OSError as error:
        raise ConfigError(
            "the country's file cannot be read", where=path, found=error.strerror
        ) from error
    held = _read.get(path)
    if held is None or held[0] != modified:
        held = _read[path] = (modified, _load(path))
    return held[1]


def _load(path: Path) -> Country:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise OSError(f"it has more than {MAX_BYTES} bytes")
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            "the country's file cannot be read",
            where=path,
            expected="a text file in UTF-8",
            found=str(error),
        ) from error
    country = country_of_text(text, path)
    if country.trained_with_others:
        _require_countries(country, text, path)
    return country


def _require_countries(country: Country, text: str, path: Path) -> None:
    """Refuse a training with countries that cannot be, with the line that names it.

    Raises:
        ConfigError: there is no file of one.
    """
    nodes = yaml.compose(text, Loader=yaml.SafeLoader)
    for i, code in enumerate(country.trained_on()):
        if code != country.code and file_of(code) is None:
            raise ConfigError(
                "the country is to be trained on the units of one that there is no file of",
                where=f"{path}:{_line(nodes, ['training', 'countries', i])}: training.countries",
                expected=", ".join(country_files()),
                found=code,
                remedy=f"correct the code, or add {code}.yaml (popcorn new {code})",
            )


def country_of_text(text: str, path: Path) -> Country:
    """The settings in the text of a country's file.

    Args:
        path: where it stands or will stand; its name is the country's code.

    Raises:
        ConfigError: a wrong or missing key; names file and line.
    """
    try:
        nodes = yaml.compose(text, Loader=yaml.SafeLoader)
        refuse_endless(path, nodes)
        data = _values(deepcopy(nodes) if "<<" in text else nodes)  # `<<` is replaced in place
    except RecursionError:
        raise ConfigError(
            "the file is not a country's", where=path, found="values nested without measure"
        ) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise ConfigError(
            "the file is not YAML",
            where=f"{path}:{mark.line + 1}" if mark else path,
            found=getattr(error, "problem", str(error)),
        ) from error
    if twice := given_twice(nodes):
        raise ConfigError(
            "the country's file cannot be used:\n  "
            + "\n  ".join(f"{path}:{line}: {key}: given a second time" for line, key in twice),
            remedy="keep one of them: YAML would take the last without a word",
        )
    if misread := read_otherwise(nodes, switches(Country)):
        raise ConfigError(
            "the country's file cannot be used:\n  "
            + "\n  ".join(f"{path}:{line}: {what}" for line, what in misread),
            remedy="write codes and names in quotes, and numbers without leading zeros",
        )
    try:
        return Country.model_validate(data, context={"code": path.stem})
    except ValidationError as error:
        problems = [_problem(path, nodes, item) for item in error.errors()]
        raise ConfigError(
            "the country's file cannot be used:\n  " + "\n  ".join(problems),
            remedy="correct the lines named; docs/countries.md lists every key",
        ) from error


def _values(nodes: yaml.Node | None) -> Any:
    """What composed nodes stand for: the text, which takes longest, is not parsed twice."""
    return None if nodes is None else yaml.SafeLoader("").construct_document(nodes)


def _problem(path: Path, nodes: yaml.Node | None, item: Any) -> str:
    place = [p for p in item["loc"] if isinstance(p, str | int)]
    line = _line(nodes, place)
    message = item["msg"]
    if item["type"] == "extra_forbidden":
        message = f"unknown key; allowed here: {', '.join(_allowed(place[:-1])) or '(see docs)'}"
    elif item["type"] == "missing":
        message = "this key is missing"
    elif item["type"] == "literal_error":
        message = f"allowed: {item['ctx']['expected']}; found: {_found(item)}"
    elif item["type"] in ("bool_type", "bool_parsing"):
        message = f"allowed: true, false; found: {_found(item)}"
    elif not isinstance(item["input"], dict | list):
        message += f"; found: {_found(item)}"
        if item["type"] == "string_type" and item["input"] is not None:
            message += f"; if that is the text, write it in quotes: '{item['input']}'"
    return f"{path}:{line}: {'.'.join(map(str, place))}: {message}"


def _found(item: Any) -> str:
    return scrub(repr(item["input"]))[:80]


def _line(node: yaml.Node | None, place: list[str | int]) -> int:
    """Line of the deepest part of `place` that the file has."""
    line = node.start_mark.line + 1 if node else 1
    for part in place:
        if isinstance(node, yaml.MappingNode):
            hit = next(((k, v) for k, v in node.value if k.value == str(part)), None)
            if hit is None:
                continue  # the name of a union's branch, which is not in the file
            line, node = hit[0].start_mark.line + 1, hit[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            if part >= len(node.value):
                break
            node = node.value[part]
            line = node.start_mark.line + 1
    return line


def _allowed(place: list[str | int]) -> list[str]:
    """Keys of the section at `place`, by walking the models."""
    model: Any = Country
    for part in place:
        field = getattr(model, "model_fields", {}).get(part)
        if field is None:
            return []
        model = field.annotation
    fields = getattr(model, "model_fields", {})
    return sorted({field.alias or name for name, field in fields.items()} - {"code"})
