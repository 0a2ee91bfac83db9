from deconfuse.experiment import relabels, table5
from deconfuse.launch import tables
from tests.finished import finish


def made(folder, seed, before, after, file="d.json"):
    fates = {"vanished": 4 + seed, "appeared": 2, "moved": 1}
    corrections = {
        "file": file,
        "changed": 18,
        "before": {"R@1": before, "MAP@R": 0.5},
        "after": {"R@1": after, "MAP@R": 0.6},
        **fates,
        "vanished_most": [],
        "appeared_most": [],
    }
    settings = {"relabels": {"file": file, "min_vote": 0.6}}
    return finish(folder, f"{file}-{seed}", seed, settings=settings, corrections=corrections)


def test_the_change_is_of_the_same_seed(tmp_path):
    plain = finish(tmp_path, "plain", settings={})
    runs = [
        made(tmp_path, 0, 0.70, 0.80),
        made(tmp_path, 1, 0.80, 0.88),
        made(tmp_path, 0, 0.7, 0.6, "e.json"),
    ]
    (section,) = relabels.sections([plain, *runs])
    assert len(section.table) == 2
    row = section.table[section.table["corrections"] == "d.json"].iloc[0]
    assert (row["models"], row["changed"]) == (2, "18 ± 0")
    assert row[["R@1 before", "R@1 after"]].tolist() == ["0.750 ± 0.071", "0.840 ± 0.057"]
    assert row[["R@1 change", "MAP@R change"]].tolist() == ["0.090 ± 0.014", "0.100 ± 0.000"]
    assert row[["vanished", "appeared", "moved"]].tolist() == ["4.5 ± 0.7", "2.0 ± 0.0", "1.0 ± 0.0"]
    other = section.table[section.table["corrections"] == "e.json"].iloc[0]
    assert (other["models"], other["R@1 change"]) == (1, "-0.100")
    assert relabels.sections([plain]) == []


def test_corrected_runs_are_in_no_table_of_the_labels_given(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(tables, "experiments", lambda: {"table5": table5, "relabels": relabels})
    kinds = {"centralized": 1, "diversified": 0, "individual": 0, "others": 0}
    classes = {"kind": kinds, "kind_by_share": kinds}
    finish(tmp_path, "plain", settings={}, classes=classes)
    made(tmp_path, 0, 0.7, 0.8)
    tables.main([str(tmp_path)])
    said = capsys.readouterr().out
    assert "| none |" in said
    assert "| none, corrected |" in said
    assert said.count("| glyphs | proxynca | knn | entropy | 1 |") == 1
    assert "## Corrected labels, before and after" in said
