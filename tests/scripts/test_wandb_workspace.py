import json
import sys

import pytest

from deconfuse.system.errors import UserError
from scripts import wandb_workspace
from tests.tracking.test_dashboard import findings, publish


def spec(capsys, *words):
    wandb_workspace.main(["me", "--show", *words])
    return json.loads(capsys.readouterr().out)


def test_panels_show_what_a_run_logs(tmp_path, capsys):
    page = publish(tmp_path, findings(), reused=False)
    logged = {key for line in page.history for key in line} | set(page.summary)
    tables = {key.removesuffix("/_type") for key in logged if key.endswith("/_type")}
    sections = spec(capsys)["spec"]["section"]["panelBankConfig"]["sections"]
    panels = [panel for section in sections for panel in section["panels"]]
    kinds = {}
    for panel in panels:
        kinds.setdefault(panel["viewType"], []).append(panel["config"])
    bars = [name.removeprefix("summary_metrics.") for bar in kinds["Bar Chart"] for name in bar["metrics"]]
    lines = [line["metrics"] + [line["xAxis"]] for line in kinds["Run History Line Plot"]]
    assert len(bars) == 5
    assert set(bars) <= set(page.summary)
    assert lines == [[f"epochs/{name}", "epochs/epoch"] for name in ("R@1", "MAP@R", "loss")]
    assert {name for line in lines for name in line} <= logged
    assert [name in json.dumps(kinds["Weave"]) for name in sorted(tables)] == [
        name in wandb_workspace.TABLES for name in sorted(tables)
    ]
    (curve,) = kinds["Vega2"]
    assert wandb_workspace.CURVE in tables
    assert wandb_workspace.CURVE in json.dumps(curve)
    # The fields are the columns of the table that the curve is drawn from.
    assert set(curve["fieldSettings"].values()) == set(page.table("detection_curve")[0])


def test_runs_are_grouped_by_what_was_trained_then_by_method_and_must_have_finished(capsys):
    found = spec(capsys, "--project", "mine")
    (runs,) = found["spec"]["section"]["runSets"]
    assert (found["entity"], found["project"], found["displayName"]) == ("me", "mine", "deconfuse")
    assert [key["name"] for key in runs["grouping"]] == ["group", "jobType"]
    (rule,) = runs["filters"]["filters"]
    assert (rule["key"]["name"], rule["op"], rule["value"]) == ("state", "=", "finished")
    assert [name for name in runs["runFeed"]["columnOrder"] if name.startswith("summary:")] == [
        f"summary:{name}" for name in wandb_workspace.COLUMNS
    ]


def test_without_a_login_one_line_says_what_to_do(tmp_path, monkeypatch):
    for name, value in (("HOME", str(tmp_path)), ("NETRC", str(tmp_path / "none"))):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    with pytest.raises(UserError, match="not logged in to W&B; run wandb login first"):
        wandb_workspace.main(["me"])


def test_without_the_package_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    with pytest.raises(UserError, match=r"pip install 'deconfuse\[wandb\]'"):
        wandb_workspace.main(["me", "--show"])
