import json
import statistics
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from deconfuse import experiment
from deconfuse.launch.experiments import experiments
from deconfuse.launch.rehearsal import of_its_table
from deconfuse.launch.tables import collect, latex, main, markdown, ordered, over_seeds, show
from deconfuse.runs import takes
from deconfuse.runs.finished import RESULTS_FORMAT, find, read, read_all
from deconfuse.runs.section import Section
from deconfuse.system.errors import UserError
from deconfuse.system.files import write_json
from tests.conftest import ROOT
from tests.finished import REPORT, SETTINGS

CHOICES = {
    "logger": "csv",
    "trainer": "auto",
    "detector": "knn",
    "influence": "eif",
    "recipe": "small",
    "noise": "flip_10",
    "loss": "softtriple",
    "model": "small_cnn",
    "dataset": "glyphs",
    "target": "all",
}


def run(
    folder,
    seed,
    recall,
    *,
    noise=True,
    confusions=500,
    name=None,
    lds=None,
    sha256="",
    format=RESULTS_FORMAT,
    settings=None,
    **choices,
):
    """A finished run's metrics.json; the numbers of the noise report follow from recall."""
    report = {
        **REPORT,
        "choices": {**CHOICES, **({} if noise else {"noise": "none"}), **choices},
        "seed": seed,
        "format": format,
        "queries": 10,
        "checkpoint": {"sha256": sha256},
        "params": "head",
        "counterfactual": None if lds is None else {"mean": lds, "low": lds - 0.02, "high": lds + 0.02},
        "retrieval": {"R@1": recall, "R@2": 0.99, "MAP@R": recall / 2, "NMI": None},
        "confusions": confusions,
        "noise": {
            "flipped": 192,
            "detector": {"auroc": recall + 0.2, "average_precision": recall + 0.1},
            "absolute_influence": {"auroc": recall + 0.05, "average_precision": recall - 0.05},
            "recommended_right": recall - 0.1,
            "recommended_right_all": recall - 0.15,
        }
        if noise
        else None,
    }
    home = folder / (name or f"{choices.get('loss', 'softtriple')}-seed{seed}")
    write_json(home / "metrics.json", report)
    noisy = {"ratio": 0.1 if noise else 0.0, "kind": "symmetric"}
    (home / "config.yaml").write_text(
        yaml.safe_dump({"seed": seed, **SETTINGS, "noise": noisy, **(settings or {})})
    )


def runs(folder):
    return [read(path) for path in find(folder)]


SOFTTRIPLE, PROXYNCA = [0.701, 0.713, 0.728], [0.65, 0.66]


@pytest.fixture
def outputs(tmp_path):
    """Two settings, three and two seeds."""
    for seed, recall in enumerate(SOFTTRIPLE):
        run(tmp_path, seed, recall, confusions=500 + 7 * seed)
    for seed, recall in enumerate(PROXYNCA):
        run(tmp_path, seed, recall, loss="proxynca")
    return tmp_path


def tables(folder):
    command = [sys.executable, "-m", "src.tables", str(folder)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8")


def spread(values, digits=3):
    return f"{statistics.mean(values):.{digits}f} ± {statistics.stdev(values):.{digits}f}"


def test_every_run_is_a_row_with_its_numbers(outputs):
    rows = collect(runs(outputs))
    assert len(rows) == 5
    row = rows[(rows["loss"] == "proxynca") & (rows["seed"] == 1)].iloc[0]
    assert row["dataset"] == "glyphs"
    assert row[["R@1", "MAP@R", "confusions"]].tolist() == [0.66, 0.33, 500]
    measured = ["AUROC", "AP", "AUROC |influence|", "AP |influence|", "recommended right"]
    assert row[measured].tolist() == pytest.approx([0.86, 0.76, 0.71, 0.61, 0.56])


def test_a_setting_is_a_row_with_mean_and_standard_deviation_over_its_seeds(outputs):
    table = over_seeds(collect(runs(outputs))).set_index("loss")
    assert list(table.index) == ["proxynca", "softtriple"]
    assert table["runs"].tolist() == [2, 3]
    for loss, recalls in (("proxynca", PROXYNCA), ("softtriple", SOFTTRIPLE)):
        assert table.loc[loss, "R@1"] == spread(recalls)
        assert table.loc[loss, "MAP@R"] == spread([r / 2 for r in recalls])
        assert table.loc[loss, "AUROC"] == spread([r + 0.2 for r in recalls])
        assert table.loc[loss, "AP |influence|"] == spread([r - 0.05 for r in recalls])
    assert table.loc["softtriple", "R@1"] == "0.714 ± 0.014"
    assert table.loc["softtriple", "confusions"] == "507 ± 7"
    assert table.loc["proxynca", "confusions"] == "500 ± 0"


def test_one_seed_has_no_spread(tmp_path):
    run(tmp_path, 0, 0.7)
    row = over_seeds(collect(runs(tmp_path))).iloc[0]
    assert row["runs"] == 1
    assert row[["R@1", "confusions"]].tolist() == ["0.700", "500"]


def test_what_was_not_measured_is_a_dash(tmp_path):
    run(tmp_path, 0, 0.7, noise=False)
    run(tmp_path, 1, 0.8, noise=False)
    row = over_seeds(collect(runs(tmp_path))).iloc[0]
    assert row["R@1"] == "0.750 ± 0.071"
    for column in ("AUROC", "AP", "AUROC |influence|", "AP |influence|", "recommended right"):
        assert row[column] == "-"


def test_a_setting_without_noise_stands_beside_one_with_it(outputs):
    run(outputs, 0, 0.8, noise=False, name="clean")
    table = over_seeds(collect(runs(outputs))).set_index(["noise", "loss"])
    assert table.loc[("none", "softtriple"), ["R@1", "AUROC"]].tolist() == ["0.800", "-"]
    assert table.loc[("10 % symmetric", "softtriple"), "runs"] == 3


def test_a_number_that_one_run_lacks_is_the_mean_of_the_others(tmp_path):
    # Without a confusion there is no influence to rank by.
    for seed, recall in enumerate((0.7, 0.72, 0.9)):
        run(tmp_path, seed, recall)
    file = tmp_path / "softtriple-seed2" / "metrics.json"
    report = pd.read_json(file, typ="series").to_dict()
    report["noise"] = {**report["noise"], "absolute_influence": None, "recommended_right": None}
    write_json(file, report)
    row = over_seeds(collect(runs(tmp_path))).iloc[0]
    assert row["runs"] == 3
    assert row["AUROC |influence|"] == f"{spread([0.75, 0.77])} (2 of 3)"
    assert row["recommended right"] == f"{spread([0.6, 0.62])} (2 of 3)"


def test_a_seed_is_counted_once_in_a_mean_over_seeds(tmp_path):
    # The same choices with another number (recipe.epochs=30) are another setting, no second seed.
    run(tmp_path, 0, 0.7, name="glyphs-seed0-aaaaaaaa", settings={"recipe": {"epochs": 15}})
    run(tmp_path, 0, 0.9, name="glyphs-seed0-bbbbbbbb", settings={"recipe": {"epochs": 30}})
    table = over_seeds(collect(runs(tmp_path)))
    assert table["runs"].tolist() == [1, 1]
    assert table["R@1"].tolist() == ["0.700", "0.900"]
    assert table["setting"].tolist() == ["recipe.epochs=15", "recipe.epochs=30"]
    assert "| recipe.epochs=15 |" in markdown(table)
    assert "setting" not in markdown(table[:1].assign(setting=""))


def test_noise_is_named_by_its_ratio(tmp_path):
    for name, ratio in (("a", 0.1), ("b", 0.3)):
        run(tmp_path, 0, 0.7, name=name, settings={"noise": {"ratio": ratio, "kind": "shift"}})
    assert over_seeds(collect(runs(tmp_path)))["noise"].tolist() == ["10 % shift", "30 % shift"]


@pytest.mark.parametrize("hidden", [".softtriple-seed0.123.partial", ".softtriple-seed0.before"])
def test_what_a_killed_run_left_is_no_run(outputs, hidden):
    run(outputs, 0, 0.1, name=hidden)
    assert len(collect(runs(outputs))) == 5


def test_folders_that_are_no_runs_are_let_be(outputs):
    (outputs / "checkpoints" / "a").mkdir(parents=True)
    (outputs / "multirun").mkdir()
    assert len(collect(runs(outputs))) == 5


@pytest.mark.parametrize("exists", [True, False])
def test_without_a_run_the_folder_is_named_with_the_fix(tmp_path, exists):
    folder = tmp_path / "outputs"
    if exists:
        (folder / "checkpoints").mkdir(parents=True)
    with pytest.raises(UserError) as caught:
        find(folder)
    assert str(caught.value) == (
        f"{folder}: no finished run (no */metrics.json); make one with deconfuse run"
    )


def test_a_damaged_report_is_named(outputs):
    path = outputs / "proxynca-seed0" / "metrics.json"
    path.write_text(path.read_text()[:99])
    with pytest.raises(UserError, match=rf"^{path}: not whole"):
        collect(runs(outputs))


def test_markdown_says_once_what_all_rows_share_and_escapes_bars(outputs):
    lines = markdown(over_seeds(collect(runs(outputs)))).splitlines()
    assert lines[0] == (
        "All rows: dataset glyphs, noise 10 % symmetric, model small_cnn, target all, params head, "
        "influence eif, detector knn."
    )
    assert lines[1] == ""
    assert lines[2] == (
        "| loss | runs | R@1 | MAP@R | confusions | AUROC | AP | AUROC \\|influence\\| | "
        "AP \\|influence\\| | recommended right |"
    )
    assert lines[3] == "|" + " --- |" * 10  # no NMI: it was not measured
    assert lines[4].startswith("| proxynca | 2 | 0.655 ± 0.007 | 0.328 ± 0.004 | 500 ± 0 | 0.855 ± 0.007 |")
    assert lines[5].startswith("| softtriple | 3 | 0.714 ± 0.014 | 0.357 ± 0.007 | 507 ± 7 | 0.914 ± 0.014 |")
    assert len(lines) == 6


def test_markdown_of_one_setting_has_all_its_columns(tmp_path):
    run(tmp_path, 0, 0.7)
    lines = markdown(over_seeds(collect(runs(tmp_path)))).splitlines()
    assert lines[0].startswith(
        "| dataset | noise | model | loss | target | params | influence | detector | runs | R@1 |"
    )
    assert lines[2].startswith(
        "| glyphs | 10 % symmetric | small_cnn | softtriple | all | head | eif | knn | 1 | 0.700 |"
    )


def also(folder, name, **report):
    """Say more in a run's metrics.json."""
    path = folder / name / "metrics.json"
    write_json(path, {**json.loads(path.read_text("utf-8")), **report})


def test_runs_of_changed_data_and_without_scores_are_counted_and_left_out(outputs, capsys):
    also(outputs, "softtriple-seed0", data="before")
    for name in ("softtriple-seed1", "softtriple-seed2", "proxynca-seed0", "proxynca-seed1"):
        also(outputs, name, data="after", explained={"rows": 3, "unscored": 0})
    also(outputs, "proxynca-seed0", explained={"rows": 3, "unscored": 3})
    main([str(outputs)])
    said = capsys.readouterr().out
    assert "\n1 of 5 runs is of data that has changed since, and is only in runs.csv\n" in said
    assert "\n1 of 4 runs has no score but 0 (influence=if solved no system? raise influence.damping)" in said
    summary = pd.read_csv(outputs / "tables" / "summary.csv").set_index("loss")
    assert summary["runs"].to_dict() == {"proxynca": 2, "softtriple": 2}
    assert summary.loc["softtriple", "R@1"] == spread(SOFTTRIPLE[1:])
    table2 = pd.read_csv(outputs / "tables" / "table2.csv").set_index("loss")
    assert table2.loc["proxynca", "models"].tolist().count("1") == 1
    assert len(pd.read_csv(outputs / "tables" / "runs.csv")) == 5


def test_what_was_done_with_a_model_has_its_columns(outputs):
    also(outputs, "proxynca-seed0", retrain={"mean": 2e-5})
    also(outputs, "softtriple-seed0", corrections={"before": {"R@1": 0.5}})
    also(
        outputs, "proxynca-seed1", retrain={"mean": -4e-5}, explained={"table": "mis_similar.csv", "rows": 1}
    )
    table = over_seeds(collect(runs(outputs))).set_index(["loss", "noise"])
    assert table.loc[("proxynca", "10 % symmetric"), "change of d"] == "3.0e-05 ± 1.4e-05"
    before = {"10 % symmetric": "-", "10 % symmetric, corrected": "0.500"}
    assert table.loc["softtriple", "R@1 before"].to_dict() == before


def test_main_prints_and_writes_the_tables(outputs, capsys):
    main([str(outputs)])
    text = capsys.readouterr().out
    folder = outputs / "tables"
    assert sorted(path.name for path in folder.iterdir()) == [
        "results.md", "runs.csv", "summary.csv", "summary.md", "table2.csv", "table2.md", "table2.tex",
    ]  # fmt: skip
    table2 = (folder / "table2.md").read_text(encoding="utf-8")
    assert text.startswith((folder / "summary.md").read_text(encoding="utf-8") + "\n" + table2)
    assert (folder / "results.md").read_text(encoding="utf-8") == f"# Tables and figures\n\n{table2}"
    summary = pd.read_csv(folder / "summary.csv")
    assert summary["R@1"].tolist() == [spread(PROXYNCA), spread(SOFTTRIPLE)]
    rows = pd.read_csv(folder / "runs.csv")
    assert sorted(rows["R@1"]) == sorted(SOFTTRIPLE + PROXYNCA)
    assert text.splitlines()[-2:] == [
        "Not there yet: table1_groups, table1_pairs, table3, table5, figure1, figure2, figure3, closed_loop, "
        "counterfactual, detection, leave_out, relabels, sensitivity. "
        "Make one with deconfuse run -m experiment=NAME",
        f"Written to {folder}/: results.md, and of each table .md, .csv and .tex",
    ]


def test_the_papers_tables_come_first_and_those_of_one_experiment_stay_together():
    def sections(*titles):
        return [Section("name", title, pd.DataFrame(), "") for title in titles]

    found = [
        sections("Table 1, groups", "Change"),
        [],
        sections("Table 1, confusion pairs", "More"),
        sections("Away"),
    ]
    found += [sections("Figure 1"), sections("Table 2")]
    titles = [section.title for section in ordered(found)]
    assert titles == [
        "Table 1, confusion pairs", "More", "Table 1, groups", "Change", "Table 2", "Figure 1", "Away",
    ]  # fmt: skip


def test_a_picture_is_written_beside_its_table(outputs):
    for seed, queries in enumerate((["a", "b"], ["b", "c", "d"])):
        run(outputs, seed, 0.8, noise=False, name=f"clean{seed}", sha256=f"model{seed}")
        rows = "".join(f"{query},x\n" for query in queries)
        (outputs / f"clean{seed}" / "confusions.csv").write_text("query,neighbour_class\n" + rows)
    main([str(outputs)])
    with Image.open(outputs / "tables" / "figure1.png") as image:
        assert image.size == (880, int(1.9 * 110))
        assert len(np.unique(np.asarray(image.convert("L")))) > 9
    assert "![Figure 1: do other models make the same confusions?](figure1.png)" in (
        outputs / "tables" / "figure1.md"
    ).read_text("utf-8")


def test_a_damaged_table_of_a_run_is_one_line_and_nothing_is_written(outputs):
    for seed in (0, 1):
        run(outputs, seed, 0.8, noise=False, name=f"clean{seed}", sha256=f"model{seed}")
        (outputs / f"clean{seed}" / "confusions.csv").write_text("query,neighbour_class\na,x\n")
    path = outputs / "clean1" / "confusions.csv"
    for text, reason in (
        ("query,neigh", "Usecols do not match columns, columns expected but not found: ['neighbour_class']"),
        ("", "No columns to parse from file"),
        (None, "No such file or directory"),
    ):
        path.unlink() if text is None else path.write_text(text)
        with pytest.raises(UserError) as caught:
            main([str(outputs)])
        assert str(caught.value) == (
            f"{path}: can't be read ({reason}); run again with the command in "
            f"{path.parent / 'metrics.json'}, or delete the folder"
        )
        assert not (outputs / "tables").exists()


def test_latex_shows_every_character_as_it_is():
    table = pd.DataFrame({"a_b": [r"1 % & $x$ #2 {3} ~^ \ 0.5 ± 0.1", "eif > if < |x|"], "n": [1, 2]})
    assert latex(table, "50 % of_it").splitlines() == [
        r"\begin{table}",
        r"\centering",
        r"\caption{50 \% of\_it}",
        r"\begin{tabular}{ll}",
        r"\toprule",
        r"a\_b & n \\",
        r"\midrule",
        r"1 \% \& \$x\$ \#2 \{3\} \textasciitilde{}\textasciicircum{} \textbackslash{} 0.5 $\pm$ 0.1 & 1 \\",
        r"eif $>$ if $<$ \textbar{}x\textbar{} & 2 \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]


def test_runs_of_another_version_are_counted_said_and_left_out(tmp_path, capsys):
    run(tmp_path, 0, 0.7, name="a")
    run(tmp_path, 1, 0.1, name="b", format=1)
    write_json(tmp_path / "b" / "metrics.json", {"format": 1})  # whatever else it says
    main([str(tmp_path)])
    text = capsys.readouterr().out
    assert "| 1 | 0.700 |" in text
    assert "\n1 of 2 runs was written by another version of deconfuse and is left out; the commands" in text
    assert len(pd.read_csv(tmp_path / "tables" / "runs.csv")) == 1
    with pytest.raises(UserError, match=rf"^{tmp_path}/b/metrics.json: written by another version"):
        show(find(tmp_path))
    run(tmp_path, 0, 0.7, name="a", format=99)
    with pytest.raises(UserError, match=rf"^{tmp_path}: its 2 runs were written by another version"):
        main([str(tmp_path)])


def test_an_experiment_says_itself_which_runs_its_table_takes(tmp_path, monkeypatch, capsys):
    """One new module is a table of `deconfuse tables`, and is asked at the start of a run."""
    home = tmp_path / "more"
    home.mkdir()
    body = "from deconfuse.runs.section import Section\nimport pandas as pd\n"
    body += (
        "def sections(runs):\n    table = pd.DataFrame({'runs': [' '.join(r.folder.name for r in runs)]})\n"
    )
    body += "    return [Section(__name__.rpartition('.')[2], __name__, table)]\n"
    for name, constants in {
        "of_all": "", "of_flipped": "LABELS = 'flipped'\n", "of_given": "LABELS = 'given'\n",
        "of_any_score": "SCORES = False\n", "of_corrected": "CORRECTED = True\n",
    }.items():  # fmt: skip
        (home / f"{name}.py").write_text(constants + body)
    monkeypatch.setattr(experiment, "__path__", [*experiment.__path__, str(home)])
    out = tmp_path / "out"
    for name, flipped in (("clean", False), ("flipped", True), ("unscored", True), ("corrected", False)):
        run(out, 0, 0.7, name=name, noise=flipped)
    also(out, "unscored", explained={"table": "confusions.csv", "rows": 3, "unscored": 3})
    also(out, "corrected", corrections={"before": {"R@1": 0.5}})
    runs = read_all(out)[0]
    found = {
        name: [run.folder.name for run in takes.taken(module, runs)]
        for name, module in experiments().items()
        if name.startswith("of_")
    }
    assert found == {
        "of_all": ["clean", "flipped"],
        "of_any_score": ["clean", "flipped", "unscored"],
        "of_corrected": ["clean", "corrected", "flipped"],
        "of_flipped": ["flipped"],
        "of_given": ["clean"],
    }
    of_its_table("of_given", flipped=True)
    of_its_table("of_flipped", flipped=False)
    of_its_table("of_all", flipped=False)
    of_its_table("of_flipped", flipped=True)
    assert capsys.readouterr().err == (
        "warning: experiment=of_given takes runs with labels as they are: this run will not be in its table\n"
        "warning: experiment=of_flipped takes runs with flipped labels: this run will not be in its table\n"
    )


def test_main_a_second_time_says_the_same(outputs, capsys):
    main([str(outputs)])
    first = capsys.readouterr().out
    main([str(outputs)])
    assert capsys.readouterr().out == first


def test_the_module_runs_and_ends_in_one_line_where_there_is_nothing(outputs, tmp_path_factory):
    done = tables(outputs)
    assert (done.returncode, done.stderr) == (0, "")
    assert "| softtriple | 3 | 0.714 ± 0.014 |" in done.stdout
    empty = tmp_path_factory.mktemp("empty")
    done = tables(empty)
    assert done.returncode == 1
    assert done.stderr == (
        f"error: {empty}: no finished run (no */metrics.json); make one with python -m src.run\n"
    )


def test_seeds_that_follow_the_runs_are_no_setting_and_the_data_sets_is(tmp_path):
    for seed, data, recall in ((0, 0, 0.7), (1, 0, 0.8), (1, 1, 0.1)):
        name = f"glyphs-seed{seed}-{data}"
        noise = {"ratio": 0.1, "kind": "symmetric", "seed": seed}
        settings = {"output_dir": f"o{seed}", "dataset": {"seed": data}, "noise": noise}
        run(tmp_path, seed, recall, name=name, settings=settings)
    assert over_seeds(collect(runs(tmp_path)))["runs"].tolist() in ([2, 1], [1, 2])


def test_a_sweep_over_methods_says_once_what_is_the_models(tmp_path):
    for influence, lds in (("if", 0.81), ("random", 0.0)):
        run(tmp_path, 0, 0.701, name=influence, influence=influence, lds=lds)
    lines = show(find(tmp_path)).splitlines()
    assert "noise 10 % symmetric" in lines[0]
    assert "R@1 0.701" in lines[0]
    header, first, second = (
        [cell.strip() for cell in line.replace("\\|", "/").strip("|").split("|")]
        for line in (lines[2], *lines[4:])
    )
    assert "R@1" not in header
    one, other = dict(zip(header, first, strict=True)), dict(zip(header, second, strict=True))
    assert (one["influence"], one["LDS"], one["LDS ±"]) == ("if", "0.810", "0.020")
    assert (other["influence"], other["LDS"], other["LDS ±"]) == ("random", "0.000", "0.020")
