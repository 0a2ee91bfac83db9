from deconfuse.runs.columns import COLUMNS, SIGNS


def test_each_column_of_each_table_is_described():
    assert all(name.endswith(".csv") for name in COLUMNS)
    for columns in COLUMNS.values():
        assert all(text.strip() == text and len(text) > 5 for text in columns.values())


def test_each_table_is_told_row_by_row_what_its_first_column_counts():
    ordered = {"confusions.csv": "confusion", "groups.csv": "group", "relabels.csv": "rank"}
    for name, first in ordered.items():
        assert next(iter(COLUMNS[name])) == first
        assert COLUMNS[name][first].startswith("0 is the ")


def test_a_score_above_zero_is_harmful_in_both_directions():
    assert SIGNS.keys() == {1.0, -1.0}
    assert all(text.startswith("> 0 harmful: fitting the sample more ") for text in SIGNS.values())
    assert "closer" in SIGNS[1.0]
    assert "apart" in SIGNS[-1.0]
    for table, column in (("samples.csv", "influence_mean"), ("relabels.csv", "influence_mean")):
        assert "> 0 harmful" in COLUMNS[table][column]
