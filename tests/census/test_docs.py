"""docs/census.md and docs/warehouse.md say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from popcorn_ml.census.findings import CHECKS
from popcorn_ml.census.settings import CensusSettings, ReaderName
from popcorn_ml.warehouse.schema import TABLES, VIEWS
from popcorn_ml.warehouse.warehouse import Warehouse

DOCS = Path(__file__).parents[2] / "docs"


def test_the_examples_are_accepted() -> None:
    first, second = re.findall(r"```yaml\n(.*?)```", (DOCS / "census.md").read_text("utf-8"), re.S)
    census = CensusSettings.model_validate(yaml.safe_load(first)["census"])
    assert census.train_level == "district"
    for name, level in yaml.safe_load(second)["levels"].items():
        CensusSettings.model_validate({"levels": {name: {**level, "role": "train"}}})


def test_every_check_and_reader_is_described() -> None:
    text = (DOCS / "census.md").read_text("utf-8")
    table = text[text.index("## Checks") : text.index("## The inbox")]
    assert {name for name in CHECKS if f"`{name}`" not in table} == set()
    assert {name for name in ReaderName.__args__ if f"| `{name}` |" not in text} == set()


def test_every_table_view_and_column_is_described_and_the_queries_run(tmp_path: Path) -> None:
    text = (DOCS / "warehouse.md").read_text("utf-8")
    warehouse = Warehouse(tmp_path / "w.duckdb")
    for name in (*TABLES, *VIEWS):
        assert f"**{name}**" in text or f"| {name} |" in text
    for table in TABLES:
        for column, *_ in warehouse.query(f"DESCRIBE {table}"):
            assert column in text, f"{table}.{column}"
    queries = ";".join(re.findall(r"```sql\n(.*?)```", text, re.S)).split(";")
    plain = [q for q in queries if q.strip() and "ST_" not in q and "LOAD" not in q]
    assert len(plain) >= 6
    for query in plain:
        # Nothing is in there yet, but what its columns hold is said.
        assert (warehouse.query(query) == []) is ("duckdb_columns" not in query)
