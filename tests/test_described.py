"""What the catalogue says of the assets, and that nothing can be typed into their steps."""

from __future__ import annotations

import dagster as dg
import pytest
from dagster._core.definitions.metadata import CodeReferencesMetadataValue

from popcorn_assets import described
from popcorn_assets.definitions import defs
from popcorn_ml.errors import ConfigError
from popcorn_ml.warehouse.rows import columns_of
from popcorn_ml.warehouse.schema import ROW_TABLES

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
