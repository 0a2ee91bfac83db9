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
from deconfuse.system.files import unguarded
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
PAGES = ("overview", "confusions", "samples", "samples?view=classes", "map", "review", "review?queue=label")


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


def test_every_page_by_keyboard_with_names_for_all_controls(reported, visit):
    tab = visit(reported)
    for number, title in enumerate(("Overview", "Confusions", "Samples", "Map", "Review"), 1):
        tab.keyboard.press(str(number))
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


def test_ten_reviews_are_kept_undone_exported_and_imported(reported, visit, tmp_path):
    tab = visit(reported, "review")
    settle(tab)
    confusions = pd.read_csv(reported / "confusions.csv")
    pressed = ["a", "d", "s", "a", "a"]
    for key in pressed:
        tab.keyboard.press(key)
    assert progress(tab) == f"5 of {len(confusions)} reviewed"
    tab.get_by_role("button", name="Relabels").click()
    for key in ("a", "r", "s", "a"):
        tab.keyboard.press(key)
    tab.keyboard.press("o")
    chosen = sorted(pd.read_csv(reported / "samples.csv")["class"].unique())[2]
    tab.keyboard.type(chosen[:6])
    tab.locator("[role=combobox]").press("Enter")
    settle(tab)
    relabels = pd.read_csv(reported / "relabels.csv")
    assert progress(tab) == f"5 of {len(relabels)} reviewed"

    tab.keyboard.press("a")
    assert progress(tab) == f"6 of {len(relabels)} reviewed"
    tab.keyboard.press("u")
    assert progress(tab) == f"5 of {len(relabels)} reviewed"
    tab.keyboard.press("Control+z")
    assert progress(tab) == f"4 of {len(relabels)} reviewed"
    tab.keyboard.press("s")  # the fifth again
    tab.reload()
    settle(tab)
    assert progress(tab) == f"5 of {len(relabels)} reviewed"

    text = download(tab, "Export decisions.json")
    found = json.loads(text)
    assert list(found) == ["format", "run", "checkpoint", "pairs", "labels"]
    assert (found["format"], found["run"]) == (1, reported.name)
    home = json.loads((reported / "metrics.json").read_text())["checkpoint"]["path"]
    assert found["checkpoint"] == home.split("/")[-2]
    words = {"a": "agree", "d": "disagree", "s": "unsure"}
    columns = ["query", "neighbour", "query_class", "neighbour_class"]
    told = [
        {"kind": "confusion", **row, "decision": words[key]}
        for row, key in zip(confusions[columns].head(5).to_dict("records"), pressed, strict=True)
    ]
    assert found["pairs"] == told
    decided = ["accept", "reject", "unsure", "accept", "unsure"]
    for one, row, decision in zip(found["labels"], relabels.to_dict("records"), decided, strict=False):
        assert list(one) == ["sample", "path", "class", "decision", "label", "recommended", "vote"]
        same = {key: row[key] for key in ("sample", "path", "class", "recommended")}
        assert one == {
            **same,
            "decision": decision,
            "label": row["recommended"] if decision == "accept" else None,
            "vote": pytest.approx(row["vote_recommended"], rel=1e-6),
        }
    assert len(found["labels"]) == 5

    table = list(csv.DictReader(io.StringIO(download(tab, "Export CSV"), newline="")))
    header = "kind,sample,path,neighbour,class,neighbour_class,decision,label,recommended,vote,run"
    assert ",".join(table[0]) == header
    assert [row["decision"] for row in table] == [one["decision"] for one in found["pairs"] + found["labels"]]
    assert [row["path"] for row in table[:5]] == [one["query"] for one in found["pairs"]]
    assert [int(row["sample"]) for row in table[5:]] == [one["sample"] for one in found["labels"]]

    assert {row["run"] for row in table} == {reported.name}

    other = visit(reported, "review")
    settle(other)
    assert progress(other) == f"0 of {len(confusions)} reviewed"
    stranger = {**found["pairs"][0], "query": "of another data set"}
    path = tmp_path / "decisions.json"
    path.write_text(json.dumps({**found, "pairs": [*found["pairs"], stranger]}))
    other.locator("input[type=file]").set_input_files(path)
    other.wait_for_selector(".notice")
    assert "10 decisions imported; 1 decision fit nothing" in other.locator(".notice").inner_text()
    assert json.loads(download(other, "Export decisions.json")) == found
    other.keyboard.press("u")
    assert progress(other) == f"0 of {len(confusions)} reviewed"
    path.write_text("{")
    other.locator("input[type=file]").set_input_files(path)
    other.wait_for_selector(".notice.error")


def test_another_label_is_chosen_by_typing_and_recall_counts_what_is_agreed(reported, visit):
    tab = visit(reported, "review?queue=label")
    settle(tab)
    names = sorted(pd.read_csv(reported / "samples.csv")["class"].unique())
    shown = pd.read_csv(reported / "relabels.csv").iloc[0]
    third = next(name for name in names if name not in (shown["class"], shown["recommended"]))
    tab.keyboard.press("o")
    tab.keyboard.type(third)
    tab.keyboard.press("Enter")
    settle(tab)
    (one,) = json.loads(download(tab, "Export decisions.json"))["labels"]
    assert (one["decision"], one["label"]) == ("other", third)
    tab.get_by_role("button", name="Confusions").click()
    tab.keyboard.press("a")
    tab.keyboard.press("a")
    tab.keyboard.press("1")
    tab.wait_for_selector("#agreed-recall")
    metrics = json.loads((reported / "metrics.json").read_text())
    right = metrics["queries"] - metrics["confusions"] + 2
    assert tab.locator("#agreed-recall").inner_text() == f"{right / metrics['queries']:.3f}"


def test_the_way_back_from_a_run_to_its_corrected_report(visit, tmp_path, monkeypatch, capsys):
    draw(tmp_path / "letters", 12, 20, 3)
    monkeypatch.chdir(tmp_path)
    words = ["dataset=folder", "dataset.root=letters", "dataset.channels=1", *TINY[1:]]
    run = go(tmp_path / "out", *words)
    tab = visit(run, "review")
    settle(tab)
    for key in "adsa":
        tab.keyboard.press(key)
    tab.get_by_role("button", name="Relabels").click()
    for key in "aarasaa":
        tab.keyboard.press(key)
    tab.keyboard.press("o")
    other = pd.read_csv(run / "relabels.csv").loc[7]
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
    relabels = pd.read_csv(run / "relabels.csv").head(8)
    told = json.loads((corrected / "metrics.json").read_text())["corrections"]
    assert told["changed"] == 6
    clean_list = pd.read_csv(corrected / "clean_list.csv", encoding="utf-8-sig").head(6).set_index("path")
    accepted = relabels.loc[[0, 1, 3, 5, 6]].set_index("path")["recommended"].to_dict()
    assert clean_list["new_label"].to_dict() == {**accepted, other["path"]: given}
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
    assert "| folder | d.json | confusion pairs | 2 | 1 | 1 | 67% |" in said
    assert "| folder | d.csv | confusion pairs | 2 | 1 | 1 | 67% |" in said
    assert said.count("| all | 8 | 5 | 1 | 1 | 1 | 71% | 86% |") == 2
    clean.main([str(corrected), "clean"])
    assert len(list((tmp_path / "clean" / "train").rglob("*.png"))) == 96


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
        assert [(one["decision"], one["label"]) for one in found] == [case[3] for case in cases if case[3]]


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
    table = pd.read_csv(reported / "confusions.csv")
    tab = visit(reported, "confusions")
    settle(tab)
    count = tab.locator(".count")
    assert count.inner_text() == f"{len(table)} of {len(table)} pairs"
    name = table["query"].iloc[-1]
    tab.keyboard.press("/")
    tab.keyboard.type(name)
    wanted = int((table["query"].eq(name) | table["neighbour"].eq(name)).sum())
    tab.locator(f".count:text-is('{wanted} of {len(table)} pairs')").wait_for()
    tab.goto(tab.url.split("#")[0] + "#/confusions/3")
    settle(tab)
    assert (
        tab.locator(".big strong").all_inner_texts()
        == table.loc[3, ["query_class", "neighbour_class"]].tolist()
    )
    assert tab.locator(".method").count() == 2
    sides = {word: tab.locator(f".side.{word} .score").all_inner_texts() for word in ("harmful", "helpful")}
    assert all(score.startswith("+") for score in sides["harmful"])
    assert all(score.startswith("−") for score in sides["helpful"])
    tab.locator(".list").focus()
    tab.keyboard.press("ArrowDown")
    settle(tab)
    assert tab.url.endswith("#/confusions/4")
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
    tab.keyboard.press("2")
    tab.keyboard.press("3")
    settle(tab)
    assert tab.locator(".thumb.tile").count() > 0
    for key in "adsrojku":
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
    tab.keyboard.press("a")
    assert tab.locator("#progress").inner_text().startswith("1 of")
