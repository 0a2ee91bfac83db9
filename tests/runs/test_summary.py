import io

from rich.console import Console

from deconfuse.runs.summary import show

METRICS = {
    "choices": {"detector": "knn", "influence": "eif"},
    "params": "last_block",
    "explained": {"table": "groups.csv", "rows": 30, "unscored": 0},
    "trivial": None,
    "lone_queries": 0,
    "influence_epochs": None,
    "counterfactual": None,
    "retrain": None,
    "loop": None,
    "corrections": None,
    "duplicates": None,
    "retrieval": {"R@1": 0.7328, "R@2": 0.85, "MAP@R": 0.384},
    "queries": 1920,
    "confusions": 513,
    "confused_most": [
        {"classes": ["Κ Greek Kappa", "К Cyrillic Ka"], "confusions": 22, "same_thing": True},
        {"classes": ["a[b]", "c"], "confusions": 3, "same_thing": False},
    ],
    "noise": {
        "flipped": 192,
        "detector": {"auroc": 0.9935, "average_precision": 0.9374},
        "absolute_influence": {"auroc": 0.9497, "average_precision": 0.7148},
        "recommended_right": 0.699,
        "relabels": 373,
        "relabels_right": 78,
    },
    "relabels": 373,
    "start": None,
    "wrong": {
        **{
            "labels": 190.4,
            "low": 170.2,
            "high": 211.8,
            "listed": 185,
            "agree": 0.748,
            "leave_one_out": 0.8125,
        },
        **{"true": 192, "listed_wrong": 180, "listed_right": 150},
        **{"calibration_error": 0.0123, "average_precision": 0.9812},
    },
    "seconds": {"training": 89.4, "influence": 0.5},
}


def shown(**changes):
    console = Console(file=io.StringIO(), width=60, highlight=False)
    show({**METRICS, **changes}, "outputs/" + "x" * 90, console)
    return console.file.getvalue().splitlines()[1:]


def test_every_number_is_said_with_its_name():
    assert shown() == [
        "Recall@1           0.733   (R@2 0.850  MAP@R 0.384)",
        "Confusions         513 of 1920 queries are nearest to another class",
        "Confused most       22 x Κ Greek Kappa / К Cyrillic Ka  (known to look alike)",
        "                     3 x a[b] / c",
        "Explained          30 confusion groups, by eif on the last block",
        "192 flipped found  AUROC 0.994  AP 0.937  by knn",
        "                   AUROC 0.950  AP 0.715  by |influence|",
        "Recommended right  69.9% of those that score harmful",
        "Probably wrong     190 labels [170, 212]; 185 of them more likely wrong than right, in relabels.csv",
        "                   192 are; of those listed 180, 150 of them recommended rightly; AP 0.981, "
        "calibration error 0.012",
        "Trust              held out, 75% of the labels given are the likeliest; R@1 on training classes, "
        "leave-one-out: 0.812",
        "                   errors between classes that look alike are hardly counted",
        "Time               training 89 s, influence 0 s",
        f"Results            outputs/{'x' * 90}/",
    ]


def test_the_report_is_named_where_there_is_one(tmp_path):
    console = Console(file=io.StringIO(), width=60, highlight=False)
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "index.html").touch()
    show(METRICS, str(tmp_path), console)
    assert console.file.getvalue().splitlines()[-1] == f"Report             {tmp_path}/report/index.html"


def test_what_there_was_before_training():
    start = {"backbone": {"R@1": 0.349, "MAP@R": 0.05}, "whitened": {"R@1": 0.446, "MAP@R": 0.0812}}
    line = "Backbone alone     R@1 0.349, whitened 0.446   (MAP@R 0.050, 0.081)"
    assert shown(start=start)[1] == line


def test_labels_that_nobody_flipped_on_purpose():
    wrong = {"labels": 3.2, "low": 0.0, "high": 9.7, "listed": 2, "agree": 0.5, "leave_one_out": None}
    lines = shown(wrong=wrong)
    place = lines.index(
        "Probably wrong     3 labels [0, 10]; 2 of them more likely wrong than right, in relabels.csv"
    )
    assert lines[place + 1] == "Trust              held out, 50% of the labels given are the likeliest"


def test_without_noise_and_without_confusions():
    lines = shown(noise=None, confused_most=[], confusions=0)
    assert not [line for line in lines if "flipped" in line or "most" in line]


def test_where_no_flipped_sample_scored_harmful():
    noise = {**METRICS["noise"], "recommended_right": None}
    assert "Recommended right  none of them scored harmful" in shown(noise=noise)


def test_what_the_counterfactual_check_found():
    found = {"mean": 0.8123, "low": 0.8, "high": 0.8246, "n": 100, "subsets": 64, "share": 0.5}
    lines = shown(counterfactual=found)
    assert "Counterfactual     LDS 0.812 [0.800, 0.825]  retrained without 64 random subsets of 50%" in lines


def test_what_retraining_changed():
    found = {"mean": 0.01234, "low": -0.00004, "high": 0.0246, "n": 100, "mode": "cached"}
    found |= {"epochs": 1, "helpful": 2.0, "harmful": 0.0}
    line = "d changes by +0.0123 [-0.0000, +0.0246]  helpful x 2, harmful x 0, 1 epoch, cached"
    assert f"Retrained          {line}" in shown(retrain=found)
    alone = shown(retrain={**found, "low": None, "high": None, "epochs": 3, "harmful": 0.25})
    assert "Retrained          d changes by +0.0123  helpful x 2, harmful x 0.25, 3 epochs, cached" in alone
    small = shown(retrain={**found, "mean": 2.34e-5, "low": -1e-6, "high": 5e-5})
    assert any("d changes by +2.3e-05 [-1.0e-06, +5.0e-05]  helpful" in line for line in small)
    nothing = shown(retrain={**found, "mean": 0.0, "low": 0.0, "high": 0.0})
    assert any("d changes by +0.0000 [+0.0000, +0.0000]  helpful" in line for line in nothing)
    far = shown(retrain=found, explained={"table": "mis_similar.csv", "rows": 9, "unscored": 0})
    assert f"Retrained          -{line}" in far


def test_what_each_round_won_back():
    line = {"round": 0, "R@1": 0.75, "MAP@R": 0.37, "relabelled": 0, "left_out": 0, "wrong": 816, "broken": 0}
    line |= {"won_back_R@1": 0.0, "won_back_MAP@R": 0.0}
    after = {"round": 1, "R@1": 0.781, "MAP@R": 0.43, "relabelled": 640, "left_out": 260, "wrong": 104}
    after |= {"broken": 3, "won_back_R@1": 0.824, "won_back_MAP@R": None}
    loop = {"rounds": [line, after], "clean": {"R@1": 0.786, "MAP@R": 0.445}, "sure": 0.9}
    lines = shown(loop=loop)
    assert (
        "Round 1            R@1 0.781  MAP@R 0.430  640 relabelled, 260 left out, 104 wrong (3 broken), "
        "won back 82% of R@1" in lines
    )
    assert "Clean labels       R@1 0.786  MAP@R 0.445" in lines
    unknown = {**after, "wrong": None, "broken": None, "won_back_R@1": None}
    lines = shown(loop={**loop, "rounds": [unknown], "clean": None})
    assert "Round 1            R@1 0.781  MAP@R 0.430  640 relabelled, 260 left out" in lines


def test_when_samples_turned_harmful():
    kinds = {"flipped": {"median": 3.0, "never": 0.0156}, "others": {"median": 7.5, "never": 0.607}}
    epochs = {"epochs": [3, 15], "harmful": [466, 554], "first_harmful": kinds}
    lines = shown(influence_epochs=epochs)
    assert "Harmful samples    466 at epoch 3, 554 at epoch 15" in lines
    assert "first, by median   flipped at epoch 3, 2% never; others at epoch 7.5, 61% never" in lines
    none = {"all": {"median": None, "never": 1.0}}
    assert not [line for line in shown(influence_epochs={**epochs, "first_harmful": none}) if "never" in line]
    assert not [line for line in shown() if "Harmful" in line]


def test_corrections_are_told_before_and_after():
    corrections = {
        "file": "d.json",
        "changed": 18,
        "left_out": 0,
        "test": None,
        "right": 17,
        "wrong": 1,
        "before": {"R@1": 0.7854, "MAP@R": 0.461, "confusions": 103},
        "after": {"R@1": 0.8083, "MAP@R": 0.504, "confusions": 92},
        "vanished": 38,
        "appeared": 27,
        "moved": 25,
        "vanished_most": [
            {"classes": ["a", "b"], "confusions": 11},
            {"classes": ["c", "d"], "confusions": 3},
        ],
        "appeared_most": [],
    }
    lines = shown(corrections=corrections)
    at = [line.split("  ")[0] for line in lines].index("Corrected")
    assert lines[at : at + 5] == [
        "Corrected          18 labels, as d.json says (17 rightly, 1 wrongly)",
        "Before             R@1 0.785  MAP@R 0.461  103 confusions",
        "After              R@1 0.808  MAP@R 0.504  92 confusions: 38 vanished, 27 appeared, 25 moved",
        "Vanished most       11 x a / b",
        "                     3 x c / d",
    ]
    assert not [line for line in lines if "Appeared" in line]
    unknown = shown(corrections={**corrections, "right": None, "wrong": None})
    assert "Corrected          18 labels, as d.json says" in unknown
    test = {"applied": False, "changed": 2, "left_out": 1}
    lines = shown(corrections={**corrections, "left_out": 3, "test": test})
    assert (
        lines[at].split("  ")[-1] == "18 labels, as d.json says; 3 samples left out (17 rightly, 1 wrongly)"
    )
    assert lines[at + 1].endswith(
        "not applied: 2 labels corrected, 1 samples left out in the file; relabels.test=true measures on that"
    )
    lines = shown(corrections={**corrections, "test": {**test, "applied": True}})
    assert lines[at + 1].endswith("before and after are measured on it")


def test_near_identical_pictures_are_counted_by_what_is_wrong_with_them():
    found = {"groups": 9, "two labels": 2, "both sides": 0, "copies": 7, "copied": 1, "R@1": 0.71}
    (line,) = [line for line in shown(duplicates=found) if line.startswith("Duplicates")]
    assert line.split("  ")[-1].strip() == (
        "9 groups: 2 with two labels, 7 within a class; 1 query has a copy; R@1 without them 0.710"
    )
    assert not any(line.startswith("Duplicates") for line in shown(duplicates={**found, "groups": 0}))


def test_a_gallery_of_one_class_is_said_below_its_recall():
    told = "R@1 is 1 by construction: all images to be found are of one class, x"
    lines = shown(trivial=told)
    assert lines[0].startswith("Recall@1")
    assert lines[1].strip() == told
    assert shown(trivial=None) == shown() == [lines[0], *lines[2:]]


def test_queries_without_an_image_of_their_class_are_said_and_not_counted():
    said = shown(lone_queries=60)
    assert "Confusions         513 of 1860 queries are nearest to another class" in said
    assert "60 queries have no image of their class in the gallery: in no recall and no" in " ".join(said)
    assert "Left out           1 query has no image of its class in the gallery" in "\n".join(
        shown(lone_queries=1)
    )
