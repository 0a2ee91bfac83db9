"""The pages' links and anchors exist, and the commands in them are ones that the program takes."""

import re
import shlex
from importlib import import_module
from importlib.util import find_spec
from itertools import count

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser

from deconfuse import CONF, HERE
from deconfuse.__main__ import COMMANDS
from deconfuse.launch.path_words import in_hydras_words
from tests.conftest import ROOT

PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
WORDS = "|".join(COMMANDS)
COMMAND = re.compile(rf"(?:python -m src\.|-m src\.|\bdeconfuse )({WORDS})\b([^|]*)")
GROUPS = {path.name for path in CONF.iterdir() if path.is_dir()}


def relative(path):
    return path.relative_to(ROOT).as_posix()


def prose(text):
    """The text without blocks of code, whose brackets are no links and whose # are no headings."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"(?m)^    .*$", "", text)


def anchors(page):
    """The anchors that GitHub gives the headings of a page."""
    found = set()
    for heading in re.findall(r"(?m)^#+ (.*)$", prose(page.read_text("utf-8"))):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        anchor = re.sub(r"[^\w\- ]", "", words).strip().replace(" ", "-")
        found.add(next(name for i in count() if (name := f"{anchor}-{i}" if i else anchor) not in found))
    return found


def links(page):
    text = re.sub(r"`[^`\n]*`", "", prose(page.read_text("utf-8")))
    return [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_relative_links_and_anchors_exist(page):
    for link in links(page):
        name, _, anchor = link.partition("#")
        there = (page.parent / name).resolve() if name else page
        assert there.exists(), link
        assert not anchor or anchor in anchors(there), link


def test_anchors_are_githubs():
    """An example of each rule: case, punctuation, code, and a heading that is there twice."""
    assert "do-the-scores-come-true" in anchors(ROOT / "docs/influence.md")
    assert "many-jobs-hydras-launchers" in anchors(ROOT / "docs/scale.md")
    assert "what-relabels-reads" in anchors(ROOT / "docs/review.md")
    assert {"added", "changed"} <= anchors(ROOT / "CHANGELOG.md")


def test_the_index_lists_every_page():
    index = ROOT / "docs/index.md"
    assert {"../README.md", *(path.name for path in (ROOT / "docs").glob("*.md"))} - {"index.md"} == set(
        links(index)
    )


TESTS = [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "tests").rglob("test_*.py"))]


def meant(name):
    """The test files whose path ends with a name as the pages write it."""
    return [path for path in TESTS if f"/{path}".endswith(f"/{name}")]


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_each_name_of_a_test_file_is_that_of_one_test_file(page):
    """A name that two folders have is written with its folder."""
    for name in re.findall(r"(?:[\w.-]+/)*test_\w+\.py\b", page.read_text("utf-8")):
        assert len(meant(name)) == 1, (name, meant(name))


def test_names_of_test_files_are_whole_and_need_a_folder_where_two_have_them():
    assert meant("test_neighbours.py") == meant("retrieval/test_neighbours.py") != []
    assert meant("bours.py") == meant("labels/test_neighbours.py") == []
    assert len(meant("test_features.py")) == 2


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_each_module_that_a_page_names_exists(page):
    """Files as room/module.py or src/deconfuse/room/module.py, and code as `room.module.name`."""
    text = page.read_text("utf-8")
    files = re.findall(r"(?<![\w./-])(?:[\w-]+/)+\w+\.py\b", text)
    for name in (name for name in files if not name.endswith("/mine.py")):  # an example's
        assert any((base / name).is_file() for base in (ROOT, HERE, ROOT / "tests")), name
    rooms = "|".join(path.parent.name for path in HERE.glob("*/__init__.py"))
    for module, name in re.findall(rf"`(?:deconfuse\.)?((?:{rooms})\.\w+)\.(\w+)[`(]", text):
        if (HERE / f"{module.replace('.', '/')}.py").is_file():
            assert hasattr(import_module(f"deconfuse.{module}"), name), (module, name)
        else:
            assert module.split(".")[0] in GROUPS, module  # a setting, such as influence.path.radius


def commands(text):
    """(subcommand, its words) of each command in a page or in the comments of a YAML file."""
    text = re.sub(r" \\\n\s*", " ", text)
    code = re.findall(r"(?m)^(?:#  | {4}|\$ )(.*)$", text) + re.findall(r"`([^`\n]+)`", prose(text))
    for name, rest in (match for line in code for match in COMMAND.findall(line)):
        rest = re.split(r" {3,}", rest)[0].replace("'s", "")
        yield name, [word for word in shlex.split(rest, comments=True) if word not in ("&&", ";")]


def known(words):
    """The words of `run` that say something: no flag, no placeholder such as ... or a group's NAME."""
    for i, word in enumerate(words):
        key, equals, value = word.partition("=")
        flag = word.startswith("-") or words[i - 1] == "--cfg"
        placeholder = "..." in word or (key in GROUPS and value.isupper())
        plugin = {"joblib": "joblib", "slurm": "submitit", "submitit_local": "submitit"}.get(value)
        missing = key == "hydra/launcher" and not find_spec(f"hydra_plugins.hydra_{plugin}_launcher")
        if equals and not (flag or placeholder or missing):
            yield word


def jobs(words):
    """Some jobs of a sweep, in which each option of each group is used, and the first value of each key."""
    words = in_hydras_words(["-m", *words])[1:]
    overrides = OverridesParser.create().parse_overrides(words)
    keys = [each.input_line.partition("=")[0] for each in overrides]
    values = [
        list(each.sweep_string_iterator()) if each.is_sweep_override() else [each.get_value_element_as_str()]
        for each in overrides
    ]
    values = [own if key in GROUPS else own[:1] for key, own in zip(keys, values, strict=True)]
    for i in range(max(map(len, values), default=1)):
        yield [f"{key}={own[i % len(own)]}" for key, own in zip(keys, values, strict=True)]


SOURCES = [*PAGES, *sorted(CONF.rglob("*.yaml"))]
RUNS = sorted(
    {
        tuple(known(words))
        for path in SOURCES
        for name, words in commands(path.read_text("utf-8"))
        if name == "run"
    }
)


def test_commands_are_found_in_each_of_their_places():
    assert ("dataset=cub", "loss=softtriple", "influence=eif") in RUNS  # an indented line
    assert ("noise=flip_10",) in RUNS  # inline code
    assert (
        "noise=flip_10",
        "dataset.classes=40",
        "recipe.epochs=12",
        "model.width=8",
    ) in RUNS  # after a prompt
    assert ("experiment=table1_pairs",) in RUNS  # a YAML file's comment
    digits = [words for words in RUNS if "dataset.root=data/digits" in words]
    assert [words[-2:] for words in digits] == [("noise=flip_10", "seed=0,1,2")]  # on two lines
    assert len(RUNS) > 40


@pytest.mark.parametrize("words", RUNS, ids=" ".join)
def test_the_words_of_a_command_compose(words):
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for job in jobs(words):
            compose("config", job, return_hydra_config=True)


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_other_commands_modules_and_targets_of_make_exist(page):
    text = page.read_text("utf-8")
    assert {name for name, _ in commands(text)} <= COMMANDS.keys()
    for module in re.findall(r"python -m ((?:src|scripts)\.\w+)", text):
        assert (ROOT / f"{module.replace('.', '/')}.py").is_file(), module
    targets = set(re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8")))
    assert set(re.findall(r"(?m)(?:`|^    )make ([a-z-]+)", text)) <= targets
