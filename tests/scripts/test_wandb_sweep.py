from types import SimpleNamespace

from scripts import wandb_sweep

TAGS = [f"{kind}:x" for kind in ("dataset", "noise", "model", "loss", "target", "influence", "detector")]


def page(i, **changes):
    """A run's page as it should be: the i-th of twelve, of two groups and four models."""
    file = SimpleNamespace(path="model.ckpt", local_path=__file__)
    model = SimpleNamespace(
        name=f"model-{i % 4}", user_created=i >= 4, manifest=SimpleNamespace(contents=[file])
    )
    run = SimpleNamespace(display_name=f"run {i}", run_group=f"group-{i % 2}", job_type="eif", tags=TAGS)
    values = {"run": run, "config": {"seed": 0}, "summary": {"confusions": 1}, "steps": {}, "code": 0}
    values |= {"artifacts": [model], "history": []} | changes
    return SimpleNamespace(**values, table=lambda key: (["a"], [[1]]), artifact=lambda kind: model)


def test_twelve_runs_as_they_should_be_have_no_fault():
    assert wandb_sweep.faults([page(i) for i in range(12)], "all is well") == []


def test_each_fault_is_named():
    pages = [page(i) for i in range(11)]
    pages.append(page(11, summary={"confusions": 1, "more": 2}, code=1))
    pages[3].artifacts[0].manifest.contents[0].local_path = "/nowhere/model.ckpt"
    pages[2].run.tags = TAGS[1:]
    pages[5].run.run_group = "group-0"
    pages[6].artifact("model").user_created = False
    found = wandb_sweep.faults(pages, "WARNING step 3 < 5\nfine")
    for text in (
        "run 11: ended with 1",
        "summary: keys that only some runs have: more",
        "run 2: no tag of dataset",
        "run 3: model.ckpt is not at /nowhere/model.ckpt",
        "model-2: the output of 2 runs",
        "model-2: the input of 1 runs",
        "WARNING step 3 < 5",
    ):
        assert text in found, (text, found)
    assert any(line.startswith("groups: ") for line in found)


def test_a_run_that_is_missing_is_named():
    assert "11 runs instead of 12" in wandb_sweep.faults([page(i) for i in range(11)], "")
