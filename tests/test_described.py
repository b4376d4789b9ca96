"""What the catalogue says of the assets, and that nothing can be typed into their steps."""

from __future__ import annotations

import json
import re

import dagster as dg
import pytest
from dagster._core.definitions.metadata import CodeReferencesMetadataValue

from popcorn_assets import described
from popcorn_assets.assets.imagery import FILLED_TEXTS, SEASON_TEXTS
from popcorn_assets.checks.countries import no_country_much_worse
from popcorn_assets.commands.run import JOBS as RUN_JOBS
from popcorn_assets.definitions import defs
from popcorn_assets.guidance import LOOK
from popcorn_assets.store.versions import Address, Store
from popcorn_assets.upkeep.judged import JUDGED_AFTER
from popcorn_assets.upkeep.standing import ASSETS
from popcorn_ml.errors import ConfigError
from popcorn_ml.imagery.checks import FILLED_CHECKS, SEASON_CHECKS
from popcorn_ml.warehouse.rows import columns_of
from popcorn_ml.warehouse.schema import ROW_TABLES
from tests.platforms import REPOSITORY

IN_MANIFESTS = (
    "finite_training",
    "evaluation_levels_kept_out",
    "finite_and_not_negative",
    "covers_the_units",
    "units_sum_to_the_census",
    "hectares_keep_every_person",
)
"""Checks of their own that are judged before publication, and so are kept in manifests."""

GRAPH = defs.get_repository_def().asset_graph


def spec(asset: str):
    return GRAPH.get(dg.AssetKey(asset))


def test_every_asset_says_where_its_code_and_its_page_are():
    for key in GRAPH.materializable_asset_keys:
        node = GRAPH.get(key)
        assert isinstance(node.metadata["dagster/code_references"], CodeReferencesMetadataValue)
        assert node.metadata["docs"].path.endswith(".md")
        assert node.tags[described.STAGE_TAG] == node.group_name
        assert node.owners == []  # nobody is invented


@pytest.mark.parametrize("table", sorted({t for of in described.TABLES.values() for t in of}))
def test_columns_are_those_of_the_warehouse(table):
    if table not in ROW_TABLES:
        assert described.columns(table) == ()
        return
    assert described.columns(table) == tuple(columns_of(table))


def test_tables_show_their_columns():
    shown = spec("evaluation").metadata
    assert {"product", "level", "metric", "value"} <= {
        column.name for column in shown["dagster/column_schema"].columns
    }
    assert "people" in {column.name for column in shown["columns of map_sums"].columns}
    assert all(column.description for column in shown["dagster/column_schema"].columns)


def test_owners_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("POPCORN_OWNERS", "team:population, someone@example.org,")
    assert described.owners() == ["team:population", "someone@example.org"]

    @dg.asset(group_name="maps")
    def one():
        """One."""

    (told,) = described.described([one])
    assert next(iter(told.specs_by_key.values())).owners == described.owners()
    for wrong in ("somebody", "team:", "a b@example.org", "team:x;y"):
        monkeypatch.setenv("POPCORN_OWNERS", wrong)
        with pytest.raises(ConfigError, match="POPCORN_OWNERS"):
            described.owners()


def test_documentation_may_lie_elsewhere(monkeypatch):
    monkeypatch.setenv("POPCORN_DOCS_URL", "https://example.org/popcorn/docs/")
    assert described._page("imagery", described.docs_address())["docs"].url == (
        "https://example.org/popcorn/docs/imagery.md"
    )
    for wrong in ("docs", "javascript:alert(1)", "https://"):
        monkeypatch.setenv("POPCORN_DOCS_URL", wrong)
        with pytest.raises(ConfigError, match="POPCORN_DOCS_URL"):
            described.docs_address()


def test_nothing_can_be_typed_into_a_step():
    """Of any job of assets: what a step took would be ignored, and kept in clear text."""
    repository = defs.get_repository_def()
    for job in repository.get_all_jobs():
        if job.name.startswith(("promote", "roll", "candidates", "reject", "approve")):
            continue
        steps = [
            handle
            for handle in job.graph.nodes
            if handle.name
            in {n for k in GRAPH.materializable_asset_keys for n in [k.to_python_identifier()]}
        ]
        for step in steps:
            if isinstance(step.definition, dg.GraphDefinition):
                continue
            config = {"ops": {step.name: {"config": {"password": "secret"}}}}
            with pytest.raises(dg.DagsterInvalidConfigError):
                dg.validate_run_config(job, config)


SOURCES = "".join(
    path.read_text("utf-8") for path in (REPOSITORY / "popcorn_assets" / "assets").glob("*.py")
)
JOBS = [job for job in defs.get_repository_def().get_all_jobs() if not job.name.startswith("__")]


@pytest.mark.parametrize(
    "asset", sorted(k.to_user_string() for k in GRAPH.materializable_asset_keys)
)
def test_every_asset_says_what_it_is_what_to_look_at_and_what_to_do(asset):
    said = spec(asset).description
    what, *rest = said.split("\n\n")
    assert len(what) > 40
    (look,) = [part for part in rest if part.startswith("**Look at** ")]
    (red,) = [part for part in rest if part.startswith("**When it is red:** ")]
    assert len(look) > 60
    assert len(red) > 60
    known = {node.key.to_user_string() for node in map(GRAPH.get, GRAPH.get_all_asset_keys())}
    known |= {job.name for job in JOBS}
    for name in re.findall(r"`([a-z0-9]+_[a-z0-9_]+)`", said):
        assert name in known | {"geometry_findings"}, f"{name} is no asset and no job"


def test_what_to_look_at_is_there(in_tiny):
    """Figures are named as the page has them."""
    store = Store(in_tiny.data)
    for asset, text in LOOK.items():
        place = Address(asset) if asset == "builtup_extractor" else Address(asset, "demo", 2020)
        found = store.find(place)
        if asset == "change":
            found = store.find(Address(asset, "demo", 2021))
        shown = json.dumps(found.manifest()["shown"], ensure_ascii=False)
        for figure in re.findall(r"`([^`]+)`", text):
            # Not every country has all of them: those are in the words of what shows them.
            assert figure in shown or figure in LOOK or f'{figure}"' in SOURCES, (asset, figure)


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
def test_every_job_says_what_it_is_for_and_how_to_go_on(job):
    assert len(job.description) > 120
    assert "Failed" in job.description
    assert job.name in {*RUN_JOBS, "promote_model", "roll_back_model"}, (
        "what would one click it for?"
    )


@pytest.mark.parametrize("key", sorted(GRAPH.asset_check_keys, key=str), ids=str)
def test_every_check_says_what_passes(key):
    assert len(GRAPH.get(key).description or "") > 15


def test_checks_of_imagery_are_those_that_are_carried_out():
    assert tuple(SEASON_TEXTS) == SEASON_CHECKS
    assert tuple(FILLED_TEXTS) == FILLED_CHECKS


def test_schedules_and_sensors_say_what_they_do():
    repository = defs.get_repository_def()
    for one in (*repository.schedule_defs, *repository.sensor_defs):
        assert len(one.description or "") > 80, one.name


def test_what_show_tells_is_what_there_is():
    """Its lists are kept apart, so that it need not load the definitions."""
    partitioned = {
        key.to_user_string()
        for key in GRAPH.materializable_asset_keys
        if GRAPH.get(key).is_partitioned
    }
    assert set(ASSETS) == partitioned
    kept = {(asset, name) for asset, names in JUDGED_AFTER.items() for name in names}
    # One is there only with a country's file that names several; show asks for it all the same.
    of_several = no_country_much_worse
    checks = [
        one for one in [*defs.asset_checks, of_several] if isinstance(one, dg.AssetChecksDefinition)
    ]
    apart = {(k.asset_key.to_user_string(), k.name) for one in checks for k in one.check_keys}
    assert kept == {one for one in apart if one[1] not in IN_MANIFESTS}
