"""What an operator reads is rounded, named and in order."""

import pytest

from popcorn_assets.show import markdown_table
from popcorn_assets.wording import columns, rounded, told


def test_a_table_of_scores_reads_from_left_to_right():
    scores = {"approach": "adjusted", "bias": -3.251e-14, "mae": 16.0106, "n": 1320, "per": "unit",
              "r2": 0.95180, "rmse": 1126.6, "unpredicted": 0}  # fmt: skip
    head, _, row = markdown_table([dict(sorted(scores.items()))]).splitlines()
    assert head == (
        "| approach | per | R2 | MAE, people | RMSE, people | bias, people | places compared "
        "| places without a value |"
    )
    assert row == "| adjusted | unit | 0.952 | 16.01 | 1,126.60 | 0.00 | 1,320 | 0 |"


@pytest.mark.parametrize(
    ("value", "key", "text"),
    [
        ({"census 2021": 12}, "methods", "census 2021 12"),
        (
            {"2020": {"people": 13143.0, "rows_matched": 12}, "2021": {"people": 14879.0}},
            "years",
            "2020 (people 13,143, rows matched 12); 2021 (people 14,879)",
        ),
        ([], "units", "none"),
        (["0101", "0102"], "units", "0101, 0102"),
        (-2.738e-07, "bias", "0.00"),
        (-0.0, "", "0"),
        (2.5e-7, "learning_rate", "2.5e-07"),
        (float("nan"), "rate", "none"),
        (None, "from", ""),
        (True, "reused", "yes"),
        (2021, "year", "2021"),
        (1600, "seed", "1600"),
        (14879, "people", "14,879"),
        ("010303", "id", "010303"),
    ],
)
def test_values_are_told_without_a_programs_notation(value, key, text):
    assert told(value, key) == text


def test_what_is_not_known_follows_in_the_order_it_comes():
    assert columns([{"zeal": 1, "alpha": 2, "level": "fine"}]) == ["level", "zeal", "alpha"]
    assert markdown_table([]) == "(none)"
    assert "a\\|b" in markdown_table([{"name": "a|b"}])


def test_figures_keep_the_digits_that_say_something():
    assert rounded(14878.999990965676) == 14879.0
    assert rounded(0.017119387549300914) == 0.0171194
    assert rounded(2.3497984959528996e-09) == 2.3498e-09
    assert rounded({"people": [1234567.891, 3]}) == {"people": [1234567.9, 3]}
    assert rounded(float("inf")) == float("inf")
    assert rounded("0101") == "0101"
