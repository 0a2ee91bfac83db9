"""The report as a person uses it, in the system's Chromium; skipped where there is none."""

import csv
import io
import json
import os
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from deconfuse.launch import tables
from deconfuse.runs import clean
from deconfuse.subcommands.draw import draw
from deconfuse.system.csv_files import unguarded
from tests.conftest import SHARED
from tests.test_story import TINY, go

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium is installed (apt-get install chromium)"
)

NAMES = [
    "<img src=x onerror=alert(1)>",
    "\"double\" and 'single'",
    "😀🐱",
    "שלום עולם",
    "=1+1",
    "a, b;c",
    "__proto__",
    "x" * 90,
]
CONTROLS = "button, a, input, select, canvas, [role=img], [role=listbox], [tabindex='0']"
UNNAMED = f"""[...document.querySelectorAll("{CONTROLS}")]
    .filter((node) => node.getClientRects().length)
    .filter((node) => !node.getAttribute("aria-label") && !node.textContent.trim() && !node.labels?.length)
    .map((node) => node.outerHTML)"""
TOO_WIDE = "Math.max(document.documentElement.scrollWidth - innerWidth, 0)"
PAGES = (
    *("overview", "review", "review?queue=confusion", "samples", "samples?side=query", "grid", "classes"),
    *("classes?view=matrix", "classes?class=0&with=1", "confusions", "duplicates", "map", "map?side=train"),
)
TITLES = {
    **{"o": "Overview", "r": "Review", "s": "Samples", "c": "Confusions"},
    **{"k": "Classes", "d": "Duplicates", "m": "Map"},
}


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as play:
        root = ["--no-sandbox"] if os.geteuid() == 0 else []
        yield play.chromium.launch(executable_path=CHROMIUM, args=root)


@pytest.fixture
def visit(browser):
    """Open a run's report by its file name; whatever the console has to complain of fails the test."""
    complaints, contexts = [], []

    def open_(run, page="overview", **settings):
        context = browser.new_context(accept_downloads=True, **settings)
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda said: said.type in ("error", "warning") and complaints.append(said.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("dialog", lambda dialog: (complaints.append(dialog.message), dialog.dismiss()))
        tab.on(
            "request", lambda asked: asked.url.startswith(("file:", "blob:")) or complaints.append(asked.url)
        )
        tab.goto((run / "report" / "index.html").as_uri() + f"#/{page}")
        tab.wait_for_selector("main h1", state="attached")
        return tab

    yield open_
    for context in contexts:
        context.close()
    assert complaints == []


def settle(tab):
    tab.locator(".loading").first.wait_for(state="detached")
    tab.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def download(tab, button):
    with tab.expect_download() as waited:
        tab.get_by_role("button", name=button).click()
    return waited.value.path().read_bytes().decode()


def progress(tab):
    return tab.locator("#progress").inner_text()


def suspects(run):
    """The samples that are recommended another label: those that are probably wrong, then the others."""
    table = pd.read_csv(run / "samples.csv")
    other = table[table["recommended"] != table["class"]]
    keys = ["first", "suspicion", "sample"]
    other = other.assign(first=other["p_wrong"] > 0.5).sort_values(keys, ascending=[False, False, True])
    return other.reset_index(drop=True)


def cards(run):
    """The confusions that are cards of their own: of two mirror images the first."""
    table = pd.read_csv(run / "confusions.csv")
    at = {(q, n): i for i, (q, n) in enumerate(zip(table["query"], table["neighbour"], strict=True))}
    mirror = [at.get((n, q), -1) for q, n in zip(table["query"], table["neighbour"], strict=True)]
    return table.assign(mirror=mirror)[[m < 0 or m > i for i, m in enumerate(mirror)]]


def data(tab, name):
    return tab.evaluate("name => deconfuse.get(name)", name)


def said(tab):
    return tab.locator("#said").inner_text()


def exported(tab):
    return json.loads(download(tab, "Export decisions.json"))


def test_every_page_by_keyboard_with_names_for_all_controls(reported, visit):
    tab = visit(reported)
    for letter, title in TITLES.items():
        tab.keyboard.press("g")
        tab.keyboard.press(letter)
        tab.locator(f"nav a[aria-current=page]:text-is('{title}')").wait_for()
        settle(tab)
        assert tab.evaluate(UNNAMED) == []
        assert tab.title() == f"{title}, {reported.name}"
        ids = tab.evaluate("[...document.querySelectorAll('[id]')].map((node) => node.id)")
        assert len(set(ids)) == len(ids)
    tab.keyboard.press("?")
    assert tab.locator("dialog[open]").count() == 1
    tab.keyboard.press("Escape")
    tab.keyboard.press("t")
    assert tab.evaluate("document.documentElement.dataset.theme") == "dark"


def test_single_keys_can_be_turned_off(reported, visit):
    tab = visit(reported, "review")
    settle(tab)
    tab.keyboard.press("?")
    tab.locator("#letters").uncheck()
    tab.keyboard.press("Escape")
    for key in "axg1?":
        tab.keyboard.press(key)
    assert progress(tab).startswith("0 of")
    tab.reload()
    settle(tab)
    tab.keyboard.press("a")
    assert progress(tab).startswith("0 of")
    tab.get_by_role("button", name="Keys").click()
    tab.locator("#letters").check()
    tab.keyboard.press("Escape")
    tab.keyboard.press("a")
    assert progress(tab).startswith("1 of")


def test_labels_are_decided_by_one_key_each_and_all_come_back(reported, visit, tmp_path):
    tab = visit(reported)
    settle(tab)
    wrong = suspects(reported)
    train = data(tab, "train")
    assert train["suspects"] == wrong["sample"].tolist()
    word = "label looks" if train["wrong"] == 1 else "labels look"
    assert tab.locator(".headline").inner_text() == f"{train['wrong']} training {word} wrong"
    tab.keyboard.press("l")  # from the first page to the first item that is not decided
    settle(tab)
    assert "#/review?queue=label" in tab.url
    total = train["stop"]
    assert progress(tab) == f"0 of {total} reviewed"
    tab.keyboard.press("a")
    assert said(tab) == f"Accepted: {wrong['recommended'][0]}. U undoes"
    assert tab.locator("#lately").inner_text().startswith("Of the last 1 decisions 1 changed a label.")
    for key in "rxs":
        tab.keyboard.press(key)
    tab.keyboard.press("o")
    third = next(
        n for n in sorted(set(wrong["class"])) if n not in (wrong["class"][4], wrong["recommended"][4])
    )
    tab.keyboard.type(third)
    tab.keyboard.press("Enter")
    settle(tab)
    likely = tab.evaluate("i => deconfuse.likely('label', i)", int(wrong["sample"][5]))
    tab.keyboard.press("2")
    tab.locator(f"#progress:text-is('6 of {total} reviewed')").wait_for()
    second = data(tab, "run")["class_names"][likely[1][0]]
    expected = [
        ("accept", wrong["recommended"][0]),
        ("reject", None),
        ("exclude", None),
        ("unsure", None),
        ("other", third),
        ("reject", None) if second == wrong["class"][5] else ("other", second),
    ]
    tab.get_by_label("Your name, for the export").fill("Ann")
    tab.keyboard.press("Tab")
    file = exported(tab)
    assert [(one["decision"], one["label"]) for one in file["labels"]] == expected
    assert [one["path"] for one in file["labels"]] == wrong["path"][:6].tolist()
    assert {one["reviewer"] for one in file["labels"]} == {file["reviewer"]} == {"Ann"}
    command = tab.locator(".review-after code").inner_text()
    assert (
        command == f"{json.loads((reported / 'metrics.json').read_text())['command']} relabels=decisions.json"
    )

    # Undo survives a reload, and takes back one step at a time.
    tab.reload()
    settle(tab)
    assert progress(tab) == f"6 of {total} reviewed"
    tab.keyboard.press("u")
    assert progress(tab) == f"5 of {total} reviewed"
    assert said(tab) == "Undone. Now: Not decided"
    tab.keyboard.press("Control+z")
    assert progress(tab) == f"4 of {total} reviewed"
    assert [one["decision"] for one in exported(tab)["labels"]] == ["accept", "reject", "exclude", "unsure"]

    path = tmp_path / "decisions.json"
    path.write_text(json.dumps(file))
    other = visit(reported, "review")
    settle(other)
    other.locator("input[type=file]").set_input_files(path)
    other.locator(".notice:has-text('6 decisions imported')").wait_for()
    assert [(one["decision"], one["label"]) for one in exported(other)["labels"]] == expected
    other.keyboard.press("u")
    assert progress(other).startswith("0 of")


def test_the_same_key_twice_changes_nothing(reported, visit):
    tab = visit(reported, "samples")
    settle(tab)
    first = int(suspects(reported)["sample"][0])
    for _ in range(2):
        tab.goto(tab.url.split("#")[0] + f"#/samples/{first}")
        settle(tab)
        tab.keyboard.press("x")
    assert said(tab) == "Excluded: left out of training, as before"
    assert tab.evaluate("deconfuse.decisions.all()") == 1
    tab.keyboard.press("u")
    assert tab.evaluate("deconfuse.decisions.all()") == 0


def test_any_sample_is_decided_where_its_picture_shows(reported, visit):
    tab = visit(reported, "samples?sort=trusted")
    settle(tab)
    table = pd.read_csv(reported / "samples.csv")
    least = table.sort_values(["suspicion", "sample"]).iloc[0]
    tab.keyboard.press("x")  # the least suspicious one
    figure = tab.locator(".strip a.figure[data-part=train]").last
    near = int(figure.get_attribute("data-i"))
    figure.focus()
    tab.keyboard.press("x")
    tab.goto(tab.url.split("#")[0] + "#/samples?side=query")
    settle(tab)
    names = data(tab, "run")["class_names"][data(tab, "run")["training_classes"] :]
    query = int(tab.locator(".picture").get_attribute("data-i"))
    current = data(tab, "query")["labels"][query]
    given = next(name for name in names if name != data(tab, "run")["class_names"][current])
    tab.keyboard.press("o")
    tab.locator(".asked input").fill(given)
    tab.keyboard.press("Enter")
    settle(tab)
    tab.keyboard.press(" ")  # the picture in a dialog, where the same keys decide
    tab.locator("dialog#viewer[open]").wait_for()
    second = int(tab.evaluate("location.hash.match(/samples.(\\d+)/)[1]"))
    tab.keyboard.press("x")
    assert "left out of the test side" in tab.locator(".said-here").inner_text()
    tab.keyboard.press("Escape")
    tab.goto(tab.url.split("#")[0] + "#/review")
    settle(tab)
    file = exported(tab)
    assert {one["path"] for one in file["labels"]} == {least["path"], table["path"][near]}
    found = {one["path"]: (one["kind"], one["decision"], one["label"]) for one in file["tests"]}
    query_names = data(tab, "query")["names"]
    assert found == {
        query_names[query]: ("query", "other", given),
        query_names[second]: ("query", "exclude", None),
    }
    assert (
        tab.locator(".review-after code").inner_text().endswith("relabels=decisions.json relabels.test=true")
    )


def test_confusions_are_decided_once_with_their_mirror_images(reported, visit):
    tab = visit(reported, "review?queue=confusion")
    settle(tab)
    shown, table = cards(reported), pd.read_csv(reported / "confusions.csv")
    assert progress(tab) == f"0 of {len(shown)} reviewed"
    words = {"a": "agree", "d": "disagree", "s": "unsure"}
    for key in "adsaa":
        tab.keyboard.press(key)
    assert progress(tab) == f"5 of {len(shown)} reviewed"
    decided = {}
    for key, (i, row) in zip("adsaa", shown.head(5).iterrows(), strict=True):
        decided[i] = words[key]
        if row["mirror"] >= 0:
            decided[row["mirror"]] = words[key]
    found = {(one["query"], one["neighbour"]): one["decision"] for one in exported(tab)["pairs"]}
    assert found == {(table["query"][i], table["neighbour"][i]): one for i, one in decided.items()}
    tab.goto(tab.url.split("#")[0] + "#/overview")
    tab.wait_for_selector("#agreed-recall")
    metrics = json.loads((reported / "metrics.json").read_text())
    right = metrics["queries"] - metrics["confusions"] + list(decided.values()).count("agree")
    assert tab.locator("#agreed-recall").inner_text() == f"{right / metrics['queries']:.3f}"


def test_many_are_decided_in_the_grid_in_one_step(reported, visit):
    tab = visit(reported, "grid?only=other")
    settle(tab)
    wrong = suspects(reported).sort_values(
        ["suspicion", "sample"], ascending=[False, True], ignore_index=True
    )
    tab.locator(f".count:text-is('{len(wrong)} of 96 samples')").wait_for()
    tab.locator(".cell-box").nth(0).click()
    tab.locator(".cell-box").nth(3).click(modifiers=["Shift"])
    tab.locator(".cell-box").nth(1).click()
    assert tab.locator(".chosen").inner_text() == "3 selected"
    tab.keyboard.press("a")
    assert said(tab) == "3 samples given the recommended label. U undoes them all"
    found = tab.evaluate("[...deconfuse.decisions.entries('label')].map(([i, value]) => [i, value.decision])")
    assert found == [[int(wrong["sample"][i]), "accept"] for i in (0, 2, 3)]
    tab.keyboard.press("u")
    assert tab.evaluate("deconfuse.decisions.all()") == 0
    sure = wrong[wrong["vote_recommended"] >= 0.5]
    tab.get_by_label("Least vote in percent").fill("50")
    tab.get_by_role("button", name="Select all with a vote of at least").click()
    assert tab.locator(".chosen").inner_text() == f"{len(sure)} selected"
    tab.get_by_role("button", name="Exclude").click()
    assert tab.evaluate("deconfuse.decisions.count('label', 'exclude')") == len(sure)
    tab.locator(".grid").focus()
    tab.keyboard.press("Home")
    tab.keyboard.press("Control+a")
    assert tab.locator(".chosen").inner_text() == f"{len(wrong)} selected"


def test_two_classes_are_merged_swapped_and_kept_apart(reported, visit):
    tab = visit(reported, "classes?class=0&with=1")
    settle(tab)
    names = data(tab, "run")["class_names"]
    tab.keyboard.press("m")
    assert said(tab) == f"Merged: {names[0]} becomes {names[1]}. U undoes"
    tab.keyboard.press("m")
    assert said(tab).endswith(", as before")
    tab.keyboard.press("w")
    tab.goto(tab.url.split("#")[0] + "#/classes?class=2&with=3")
    settle(tab)
    tab.keyboard.press("k")
    tab.goto(tab.url.split("#")[0] + "#/review")
    settle(tab)
    found = [(one["class"], one["with"], one["decision"]) for one in exported(tab)["classes"]]
    assert found == [(names[0], names[1], "swap"), (names[2], names[3], "apart")]


def test_classes_are_sorted_and_the_matrix_counts_confusions(reported, visit):
    tab = visit(reported, "classes?sort=name")
    settle(tab)
    names = data(tab, "run")["class_names"]
    rows = tab.locator(".row .line > span:first-child").all_inner_texts()
    assert [name.removesuffix(" test") for name in rows] == sorted(names)[: len(rows)]
    tab.locator(".line-head [data-name=sort-name]").click()
    tab.locator(f".row .line >> text={max(names)}").first.wait_for()
    table = pd.read_csv(reported / "confusions.csv")
    tab.goto(tab.url.split("#")[0] + "#/classes?view=matrix")
    settle(tab)
    cells = [int(text) for text in tab.locator(".matrix td a").all_inner_texts()]
    assert sum(cells) == len(table)  # six classes: all are in the matrix


def test_an_address_that_is_not_there_is_said(reported, visit):
    tab = visit(reported, "nowhere")
    settle(tab)
    assert "There is no page nowhere in this report" in tab.locator(".notice.error").inner_text()
    for address, words in (
        ("samples/9999", "no sample 9999; it has 96"),
        ("confusions/x", "no pair x; it has"),
    ):
        tab.goto(tab.url.split("#")[0] + f"#/{address}")
        tab.locator(f".notice.error:has-text('{words}')").wait_for()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("d.json", "{", "was not imported: it is not whole JSON"),
        ("d.json", "[]", "an object of names and values is expected"),
        ("d.json", '{"format": 3}', "its format is 3, not 1"),
        ("d.json", '{"format": 1, "labels": []}', '"pairs" in it is no list'),
        ("d.csv", "kind,path\n", "it has no column sample, neighbour, class"),
    ],
)
def test_a_file_that_is_none_is_named(reported, visit, tmp_path, name, content, message):
    tab = visit(reported, "review")
    settle(tab)
    (tmp_path / name).write_text(content)
    tab.locator("input[type=file]").set_input_files(tmp_path / name)
    tab.wait_for_selector(".notice.error")
    assert message in tab.locator(".notice.error").inner_text()


def test_another_reviewers_file_is_compared_and_differences_are_kept_beside(reported, visit, tmp_path):
    tab = visit(reported, "review")
    settle(tab)
    for key in "axr":
        tab.keyboard.press(key)
    file = exported(tab)
    for one, decision in zip(file["labels"], ["accept", "reject", "unsure"], strict=True):
        one["decision"] = decision
    file["reviewer"] = "Bob"
    (tmp_path / "b.json").write_text(json.dumps(file))
    tab.locator("input[type=file]").set_input_files(tmp_path / "b.json")
    tab.wait_for_selector(".notice")
    assert "1 of 3 decided by both are equal (33 %); 2 differ" in tab.locator(".notice").inner_text()
    assert [one["decision"] for one in exported(tab)["labels"]] == ["accept", "exclude", "reject"]
    tab.goto(tab.url.split("#")[0] + "#/samples?only=differ")
    settle(tab)
    assert tab.locator(".count").inner_text() == "2 of 96 training samples"
    assert "Bob: The label is right" in tab.locator(".noting").inner_text()


def test_notes_are_kept_exported_and_found(reported, visit):
    tab = visit(reported, "review")
    settle(tab)
    tab.keyboard.press("n")
    tab.keyboard.type("blurred; ask")
    tab.keyboard.press("Tab")
    tab.locator("h2").first.click()
    tab.keyboard.press("s")
    (one,) = exported(tab)["labels"]
    assert (one["decision"], one["note"]) == ("unsure", "blurred; ask")
    tab.goto(tab.url.split("#")[0] + "#/samples?only=noted")
    settle(tab)
    assert tab.locator(".count").inner_text() == "1 of 96 training samples"


def test_the_way_back_from_a_run_to_its_corrected_report(visit, tmp_path, monkeypatch, capsys):
    draw(tmp_path / "letters", 12, 20, 3)
    monkeypatch.chdir(tmp_path)
    words = ["dataset=folder", "dataset.root=letters", "dataset.channels=1", *TINY[1:]]
    run = go(tmp_path / "out", *words)
    tab = visit(run, "review?queue=confusion")
    settle(tab)
    pairs = cards(run).head(4)
    each = [2 if mirror >= 0 else 1 for mirror in pairs["mirror"]]
    for key in "adsa":
        tab.keyboard.press(key)
    tab.keyboard.press("l")
    for key in "aaraxaa":
        tab.keyboard.press(key)
    tab.keyboard.press("o")
    wrong = suspects(run)
    other = wrong.loc[7]
    taken = {other["class"], other["recommended"]}
    given = next(name for name in pd.read_csv(run / "samples.csv")["class"] if name not in taken)
    tab.keyboard.type(given)
    tab.keyboard.press("Enter")
    settle(tab)
    tab.reload()
    settle(tab)
    assert progress(tab).startswith("8 of")
    (tmp_path / "d.json").write_text(download(tab, "Export decisions.json"), "utf-8")
    (tmp_path / "d.csv").write_text(download(tab, "Export CSV"), "utf-8")
    assert tab.locator("main").get_by_text("corrected").count() == 0

    corrected = go(tmp_path / "out", *words, "relabels.file=d.json")
    told = json.loads((corrected / "metrics.json").read_text())["corrections"]
    assert (told["changed"], told["left_out"]) == (6, 1)
    clean_list = pd.read_csv(corrected / "clean_list.csv", encoding="utf-8-sig", keep_default_na=False)
    clean_list = clean_list.head(7).set_index("path")
    accepted = wrong.loc[[0, 1, 3, 5, 6]].set_index("path")["recommended"].to_dict()
    assert clean_list["new_label"].to_dict() == {**accepted, other["path"]: given, wrong["path"][4]: ""}
    go(tmp_path / "out", *words, "relabels.file=d.csv")  # asks for the same: the same folder
    assert len(list((tmp_path / "out").glob("*/metrics.json"))) == 2

    tab = visit(corrected)
    settle(tab)
    card = tab.locator("#corrected")
    text = card.inner_text()
    assert "6 labels were corrected, as d.csv says." in text
    before, after = (told[side] for side in ("before", "after"))
    change = after["confusions"] - before["confusions"]
    sign = "+" if change > 0 else "−" if change < 0 else ""
    cells = card.locator("tbody tr").last.locator("td").all_inner_texts()
    assert cells == [
        "Confusions",
        str(before["confusions"]),
        str(after["confusions"]),
        f"{sign}{abs(change)}",
    ]
    changes = pd.read_csv(corrected / "changes.csv")
    for number, fate in enumerate(("vanished", "appeared", "moved")):
        mine = changes[changes["change"] == fate]
        assert told[fate] == len(mine)
        box = card.locator("details").nth(number)
        assert box.locator("summary").inner_text().startswith(f"{fate.capitalize()}: {len(mine)} quer")
        end = "after" if fate == "appeared" else "before"
        shown = box.locator(".caption > span").all_text_contents()
        both = mine[["query_class", f"class_{end}"]].head(12).to_numpy().flatten().tolist()
        assert shown == both
    assert changes["change"].isin(["vanished", "appeared"]).any()
    card.get_by_role("link", name="The corrected samples").click()
    tab.locator(".count:text-is('6 of 96 training samples')").wait_for()
    settle(tab)
    tab.locator("dd", has_text=", corrected by relabels=").wait_for()

    tables.main([str(tmp_path / "out"), "--review", "d.json", "d.csv"])
    said = capsys.readouterr().out
    agree = each[0] + each[3]
    counts = f"{agree} | {each[1]} | {each[2]} | {agree / (agree + each[1]):.0%}"
    for name in ("d.json", "d.csv"):
        assert f"| folder | {name} | confusion pairs | {counts} |" in said
    assert said.count("| all | 8 | 5 | 1 | 1 | 1 | 0 | 71% | 86% |") == 2
    clean.main([str(corrected), "clean"])
    assert len(list((tmp_path / "clean" / "train").rglob("*.png"))) == 95


def test_decisions_of_another_run_say_so_and_keep_the_label_that_was_meant(reported, visit, tmp_path):
    names = sorted(pd.read_csv(reported / "samples.csv")["class"].unique())
    rows = pd.read_csv(reported / "relabels.csv").to_dict("records")
    third = [next(n for n in names if n not in (row["class"], row["recommended"])) for row in rows]
    test_class = pd.read_csv(reported / "confusions.csv")["query_class"].iloc[0]
    cases = [
        # decision, label, recommended there, what it is here
        ("accept", third[0], third[0], ("other", third[0])),
        ("other", rows[1]["recommended"], third[1], ("accept", rows[1]["recommended"])),
        ("other", rows[2]["class"], third[2], ("reject", None)),
        ("other", test_class, third[3], None),
        ("accept", rows[4]["recommended"], rows[4]["recommended"], ("accept", rows[4]["recommended"])),
    ]
    labels = [
        {
            **{key: row[key] for key in ("sample", "path", "class")},
            **{"decision": decision, "label": label, "recommended": recommended, "vote": 0.5},
        }
        for row, (decision, label, recommended, _) in zip(rows, cases, strict=False)
    ]
    labels.append({**labels[4], "sample": rows[5]["sample"], "path": rows[5]["path"], "class": third[5]})
    file = {"format": 1, "run": "another", "checkpoint": "", "pairs": [], "labels": labels}
    (tmp_path / "d.json").write_text(json.dumps(file))
    head = "kind;sample;path;neighbour;class;neighbour_class;decision;label;recommended;vote;run"
    keys = ("sample", "path", "class", "decision", "label", "recommended")
    lines = ["label;{};{};;{};;{};{};{};0,5;another".format(*(one[key] for key in keys)) for one in labels]
    (tmp_path / "d.csv").write_text("\n".join([head, *lines]))  # as a spreadsheet saves it
    for name in ("d.json", "d.csv"):
        tab = visit(reported, "review")
        settle(tab)
        tab.locator("input[type=file]").set_input_files(tmp_path / name)
        tab.wait_for_selector(".notice")
        said = tab.locator(".notice").inner_text()
        assert "4 decisions imported; 2 decisions fit nothing in this run" in said
        assert "They are of another run, another." in said
        found = json.loads(download(tab, "Export decisions.json"))["labels"]
        wanted = {row["sample"]: case[3] for row, case in zip(rows, cases, strict=False) if case[3]}
        assert {one["sample"]: (one["decision"], one["label"]) for one in found} == wanted


def test_the_focus_stays_on_the_button_that_was_pressed(reported, visit):
    focused = "document.activeElement.dataset.name"
    tab = visit(reported, "review?queue=label")
    settle(tab)
    for name in ("accept", "next"):
        tab.locator(f"[data-name={name}]").focus()
        tab.keyboard.press("Enter")
        settle(tab)
        assert tab.evaluate(focused) == name
    assert tab.locator(".position").inner_text().startswith("3 of")
    for page in ("confusions", "samples"):
        tab.goto(tab.url.split("#")[0] + f"#/{page}")
        settle(tab)
        tab.locator("[data-name=next]").focus()
        tab.keyboard.press("Enter")
        settle(tab)
        assert tab.evaluate(focused) == "next"
        assert tab.locator(".position").inner_text().startswith("2 of")


def test_confusions_are_filtered_sorted_searched_and_linked_to(reported, visit):
    table = cards(reported)
    tab = visit(reported, "confusions")
    settle(tab)
    count = tab.locator(".count")
    assert count.inner_text() == f"{len(table)} of {len(table)} pairs"
    name = table["query"].iloc[-1]
    tab.keyboard.press("/")
    tab.keyboard.type(name)
    wanted = int((table["query"].eq(name) | table["neighbour"].eq(name)).sum())
    tab.locator(f".count:text-is('{wanted} of {len(table)} pairs')").wait_for()
    tab.goto(tab.url.split("#")[0] + f"#/confusions/{table.index[3]}")
    settle(tab)
    assert (
        tab.locator(".big strong").all_inner_texts()
        == table.iloc[3][["query_class", "neighbour_class"]].tolist()
    )
    assert tab.locator(".method").count() == 2
    sides = {word: tab.locator(f".side.{word} .score").all_inner_texts() for word in ("harmful", "helpful")}
    assert all(score.startswith("+") for score in sides["harmful"])
    assert all(score.startswith("−") for score in sides["helpful"])
    tab.locator(".list").focus()
    tab.keyboard.press("ArrowDown")
    settle(tab)
    assert tab.url.endswith(f"#/confusions/{table.index[4]}")
    tab.locator(".list .row").first.click()
    settle(tab)
    assert tab.locator(".position").inner_text() == f"1 of {len(table)}"
    query = table["query_class"].iloc[0]
    number = tab.evaluate("name => deconfuse.get('run').class_names.indexOf(name)", query)
    tab.goto(tab.url.split("#")[0] + f"#/confusions?class={number}")
    settle(tab)
    mine = int((table[["query_class", "neighbour_class"]] == query).any(axis=1).sum())
    assert count.inner_text() == f"{mine} of {len(table)} pairs"


def test_the_map_shows_the_picture_under_the_mouse_and_by_keys(reported, visit):
    tab = visit(reported, "map")
    settle(tab)
    canvas = tab.locator("canvas")
    canvas.focus()
    tab.keyboard.press("n")
    tip = tab.locator(".tip")
    assert (
        tip.locator("strong").inner_text() == pd.read_csv(reported / "confusions.csv")["query_class"].iloc[0]
    )
    assert tip.locator(".thumb").count() == 1
    shown = tip.inner_text()
    tab.keyboard.press("Escape")
    assert tip.is_hidden()
    tab.keyboard.press("n")
    tab.keyboard.press("p")
    tab.keyboard.press("n")
    assert tip.inner_text() == shown
    tab.keyboard.press("Enter")
    settle(tab)
    assert tab.url.endswith("#/confusions/0")


@pytest.mark.parametrize("width", [360, 1440, 3840])
def test_no_page_scrolls_sideways(reported, visit, width):
    tab = visit(reported, viewport={"width": width, "height": 800})
    for page in PAGES:
        tab.goto(tab.url.split("#")[0] + f"#/{page}")
        settle(tab)
        assert tab.evaluate(TOO_WIDE) == 0, page
        main = tab.evaluate(
            "(({scrollWidth, clientWidth}) => scrollWidth - clientWidth)(document.querySelector('main'))"
        )
        assert main <= 0, page


def test_names_of_any_kind_are_text(visit, tmp_path):
    random, rows = np.random.default_rng(0), []
    for c, name in enumerate(NAMES):
        for i in range(4):
            file = f"{c}_{i}.png" if (c, i) != (1, 0) else "<img src=x onerror=alert(document.domain)>.png"
            pixels = random.integers(0, 256, (20 + 10 * (c % 2), 24, 3))  # nothing to tell classes by
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / file)
            rows.append((file, name, "train" if c % 2 == 0 else "test"))
    pd.DataFrame(rows, columns=["path", "label", "split"]).to_csv(tmp_path / "list.csv", index=False)
    words = ["recipe.epochs=1", "recipe.embedding_size=8", "recipe.classes_per_batch=4", "model.width=4"]
    run = go(
        tmp_path / "out",
        "dataset=table",
        f"dataset.csv={tmp_path / 'list.csv'}",
        "dataset.image_size=16",
        *words,
    )
    tab = visit(run)
    said = ""
    for page in PAGES:
        tab.goto(tab.url.split("#")[0] + f"#/{page}")
        settle(tab)
        said += tab.locator("main").inner_text()
        assert tab.locator("img").count() == 0
    shown = set(pd.read_csv(run / "confusions.csv", keep_default_na=False)["query_class"].map(unguarded))
    assert len(shown) > 2
    for name in shown:
        assert name[:20] in said.replace("\n", ""), name

    # What is exported comes back from either file, character by character.
    for queue in ("confusion", "label"):
        tab.goto(tab.url.split("#")[0] + f"#/review?queue={queue}")
        settle(tab)
        for key in "aasa":
            tab.keyboard.press(key)
    file = download(tab, "Export decisions.json")
    table = download(tab, "Export CSV")
    assert not any(cell.startswith(tuple("=+-@")) for row in csv.reader(io.StringIO(table)) for cell in row)
    path = tmp_path / "decisions.csv"
    path.write_bytes(table.encode())
    tab.get_by_role("button", name="Clear all").click()
    assert progress(tab).startswith("0 of")
    tab.locator("input[type=file]").set_input_files(path)
    tab.locator(".notice:has-text('imported')").wait_for()
    assert download(tab, "Export decisions.json") == file
    assert {pair["query_class"] for pair in json.loads(file)["pairs"]} <= set(NAMES)


def test_a_run_with_no_pictures_and_no_confusions_says_so(visit, tmp_path):
    labels = np.repeat(np.arange(8), 4)
    side = np.where(labels < 4, "train", "test")
    np.savez(tmp_path / "f.npz", features=10 * np.eye(8, dtype=np.float32)[labels], labels=labels, split=side)
    words = ["dataset=features", "model=identity", f"dataset.path={tmp_path / 'f.npz'}"]
    run = go(tmp_path / "out", *words, "recipe.epochs=1", "recipe.embedding_size=8", "recipe.lr_head=0")
    assert json.loads((run / "metrics.json").read_text())["confusions"] == 0
    tab, said = visit(run), {}
    for page in PAGES:
        tab.goto(tab.url.split("#")[0] + f"#/{page}")
        settle(tab)
        said[page] = tab.locator("main").inner_text()
    assert "No query is nearest to another class: there is nothing to explain." in said["overview"]
    assert "There are no confusions: every query is nearest to its own class." in said["confusions"]
    assert "There is nothing to review" in said["review"]
    assert tab.evaluate(UNNAMED) == []
    for key in "gs":
        tab.keyboard.press(key)
    tab.locator(".page-samples .thumb.tile").first.wait_for()
    for key in "adsr1jku":
        tab.keyboard.press(key)


def test_a_browser_that_keeps_nothing_says_so(reported, browser, visit):
    context = browser.new_context()
    refuse = "{ get() { throw new DOMException('no', 'SecurityError'); } }"
    context.add_init_script(f"Object.defineProperty(window, 'localStorage', {refuse})")
    tab = context.new_page()
    tab.goto((reported / "report" / "index.html").as_uri() + "#/review")
    settle(tab)
    assert "keeps nothing" in tab.locator(".notice.error").inner_text()
    tab.keyboard.press("a")
    assert progress(tab).startswith("1 of")
    context.close()


def test_a_report_without_its_data_says_what_is_missing(reported, browser, tmp_path):
    shutil.copytree(reported / "report", tmp_path / "report")
    (tmp_path / "report" / "data" / "train.js").unlink()
    tab = browser.new_page()
    tab.goto((tmp_path / "report" / "index.html").as_uri() + "#/samples")
    tab.wait_for_selector("main [role=alert]")
    assert "data/train.js is missing" in tab.locator("main").inner_text()
    (tmp_path / "report" / "data" / "run.js").write_text("deconfuse.put(")
    tab.reload()
    tab.wait_for_selector("main [role=alert]")
    assert "data/run.js is missing or not whole" in tab.locator("main").inner_text()
    tab.close()


@pytest.mark.skipif(not (SHARED / "data" / "omniglot").exists(), reason="no Omniglot in ../shared")
def test_a_report_of_omniglot_opens(visit, tmp_path):
    words = [
        "recipe.epochs=1",
        "recipe.embedding_size=8",
        "recipe.validate_every=1",
        "model.width=4",
        "dataset.image_size=16",
        "dataset.train=[Latin]",
        "dataset.test=[Tagalog]",
    ]
    run = go(tmp_path, "dataset=omniglot", f"dataset.root={SHARED / 'data' / 'omniglot'}", *words)
    tab = visit(run)
    for page in PAGES:
        tab.goto(tab.url.split("#")[0] + f"#/{page}")
        settle(tab)
    tab.goto(tab.url.split("#")[0] + "#/review")
    settle(tab)
    tab.keyboard.press("a")
    assert tab.locator("#progress").inner_text().startswith("1 of")
