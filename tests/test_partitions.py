"""Countries and years as partitions: what is none is refused in words."""

import json
import subprocess
import sys
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from popcorn_assets.commands.imagery import imagery
from popcorn_assets.country import PACKAGED
from popcorn_assets.partitions import country_and_year, require_year
from popcorn_ml.errors import ConfigError

NOW = datetime(2026, 11, 28, tzinfo=UTC)


@pytest.mark.parametrize(
    ("key", "remedy"),
    [("2020|demo", "the partition demo|2020"), ("demo", None), ("demo|20", None),
     ("demo|2020|x", None), ("demo|1e3", None)],
)  # fmt: skip
def test_a_key_the_wrong_way_round_is_told_how(key, remedy):
    with pytest.raises(ConfigError, match=r"COUNTRY\|YEAR") as caught:
        country_and_year(SimpleNamespace(partition_key=key))
    assert caught.value.remedy == remedy
    assert country_and_year(SimpleNamespace(partition_key="demo|2020")) == ("demo", 2020)


def test_years_without_imagery_are_refused():
    for year in (1999, 2015, 2027, 20_200):
        with pytest.raises(ConfigError, match=f"no imagery of {year}") as caught:
            require_year(year, NOW)
        assert "from 2016" in str(caught.value.expected)
        assert str(caught.value.expected).endswith("to 2026")
    for year in (2016, 2025, 2026):
        require_year(year, NOW)
    with pytest.raises(ConfigError, match="no imagery of 2027"):
        require_year(2027, datetime(2027, 2, 28, tzinfo=UTC))  # its spring begins in March
    require_year(2027, datetime(2027, 3, 1, tzinfo=UTC))


def test_an_estimate_says_what_cannot_be_had_yet(place):
    said = CliRunner().invoke(imagery, ["estimate", "rwa", "1999"])
    assert isinstance(said.exception, ConfigError)
    said = CliRunner().invoke(imagery, ["estimate", "rwa", "2020"], catch_exceptions=False)
    assert said.exit_code == 0
    assert "not to be had" not in said.output
    year = datetime.now(UTC).year - (datetime.now(UTC).month < 3)
    said = CliRunner().invoke(imagery, ["estimate", "rwa", str(year)], catch_exceptions=False)
    assert f"winter of {year} ends on {year + 1}-03-01" in said.output


def test_a_training_of_several_countries_waits_for_those_of_its_year(place):
    """What Dagster takes to be upstream and downstream, in a process that begins with the files."""
    files = place.home / "countries"
    demo = (PACKAGED / "demo.yaml").read_text()
    for code, named in (("aaa", "[aaa, bbb]"), ("bbb", None), ("ccc", "[aaa, bbb]")):
        given = f"training:\n  countries: {named}" if named else "training:"
        (files / f"{code}.yaml").write_text(demo.replace("training:", given, 1))
    program = """
import json
from popcorn_assets.definitions import defs
from popcorn_assets.country import PACKAGED
from popcorn_assets.partitions import COUNTRY_YEAR as all, OF_COUNTRIES_TRAINED_ON as mapping
graph = defs.resolve_asset_graph()
import dagster as dg
node = graph.get(dg.AssetKey("checkpoints"))
def up(key):
    found = node.partition_mappings[dg.AssetKey("census_counts")]
    wanted = all.subset_with_partition_keys([key])
    told = found.get_upstream_mapped_partitions_result_for_partitions(wanted, all, all)
    return sorted(told.partitions_subset.get_partition_keys())
def down(key):
    wanted = all.subset_with_partition_keys([key])
    found = mapping.get_downstream_partitions_for_partitions(wanted, all, all)
    return sorted(found.get_partition_keys())
print(json.dumps([up("aaa|2020"), up("bbb|2020"), up("ccc|2021"), up("demo|2020"),
                  down("bbb|2020"), down("ccc|2020"),
                  sorted(key.name for key in graph.get(dg.AssetKey("checkpoints")).check_keys)]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *told, checks = json.loads(done.stdout)
    assert told == [
        ["aaa|2020", "bbb|2020"],
        ["bbb|2020"],
        ["aaa|2021", "bbb|2021"],
        ["demo|2020"],
        ["aaa|2020", "bbb|2020", "ccc|2020"],
        [],
    ]
    assert "no_country_much_worse" in checks
