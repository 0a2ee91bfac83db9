"""Save the dashboard of docs/wandb.md in W&B: python -m scripts.wandb_workspace ENTITY [--project deconfuse].

ENTITY is your user or team name there. With --show nothing is saved: the settings are printed as JSON.
"""

import argparse
import json

from deconfuse.system.errors import UserError, command
from deconfuse.tracking.tracker import logged_in

NAME = "deconfuse"
COLUMNS = ("retrieval/R@1", "retrieval/MAP@R", "confusions", "noise/detector/average_precision", "relabels")
EPOCHS = ("epochs/R@1", "epochs/MAP@R", "epochs/loss")
FOUND = ("noise/detector/average_precision", "noise/absolute_influence/average_precision")
TABLES = ("tables/confusions", "tables/harmful", "tables/relabels")
CURVE = "detection_curve_table"


def main(words: list[str]) -> None:
    """Save the workspace as a new view of the project, or print it."""
    parser = argparse.ArgumentParser(prog="python -m scripts.wandb_workspace", description=__doc__)
    parser.add_argument("entity", help="your user or team name in W&B")
    parser.add_argument("--project", default="deconfuse", help="logger.project of the runs (deconfuse)")
    parser.add_argument("--show", action="store_true", help="print the settings, save nothing")
    args = parser.parse_args(words)
    made = workspace(args.entity, args.project)
    if args.show:
        print(json.dumps(made._to_model().model_dump(by_alias=True, exclude_none=True), indent=2))
        return
    import wandb

    if not logged_in(wandb):
        raise UserError("not logged in to W&B; run wandb login first, or look at the settings with --show")
    try:
        made.save()
    except Exception as error:  # requests, GraphQL and W&B each have their own
        raise UserError(
            f"W&B did not save it ({str(error).strip().splitlines()[0]}); is {args.entity}/{args.project} "
            "there, with a run in it?"
        ) from error
    print(made.url)


def workspace(entity: str, project: str):
    """The view: finished runs grouped by what was trained, then by method; a section of panels a question.

    Panels of what else was logged, the histograms among it, W&B makes by itself below them.
    """
    try:
        from wandb_workspaces import expr
        from wandb_workspaces import workspaces as ws
        from wandb_workspaces.reports import v2 as wr
    except ImportError:
        raise UserError("the dashboard needs a package: pip install 'deconfuse[wandb]'") from None

    curve = wr.CustomChart(
        query={"summaryTable": {"tableKey": CURVE}},
        chart_name="wandb/lineseries/v0",
        chart_fields={"step": "step", "lineKey": "lineKey", "lineVal": "lineVal"},
        chart_strings={"title": "Share of the flipped labels found", "xname": "share checked"},
    )
    sections = {
        "How good is the model?": [
            wr.BarPlot(title=name, metrics=[wr.SummaryMetric(name)]) for name in COLUMNS[:3]
        ],
        "Epochs": [wr.LinePlot(title=name, x="epochs/epoch", y=[name]) for name in EPOCHS],
        "Are the wrong labels found?": [
            *(wr.BarPlot(title=name, metrics=[wr.SummaryMetric(name)]) for name in FOUND),
            curve,
        ],
        "Who is confused, and by which samples?": [
            wr.WeavePanelSummaryTable(table_name=name, layout=wr.Layout(w=24, h=12)) for name in TABLES
        ],
    }
    return ws.Workspace(
        entity=entity,
        project=project,
        name=NAME,
        sections=[ws.Section(name=name, panels=panels, is_open=True) for name, panels in sections.items()],
        runset_settings=ws.RunsetSettings(
            filters=expr.And(expr.Metric("State") == "finished"),
            groupby=[expr.Metric("Group"), expr.Metric("JobType")],
            pinned_columns=[f"summary:{name}" for name in COLUMNS],
        ),
        auto_generate_panels=True,
    )


if __name__ == "__main__":
    command(main)
