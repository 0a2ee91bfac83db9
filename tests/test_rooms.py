"""The package's folders: a folder with a twin in conf/ is a choice, any other folder is a room."""

import ast
import tomllib

import pytest

from deconfuse import CONF, HERE
from tests.conftest import ROOT

FOLDERS = sorted(path.parent for path in HERE.glob("*/__init__.py"))
CHOICES = [path for path in FOLDERS if (CONF / path.name).is_dir()]
ROOMS = [path for path in FOLDERS if path not in CHOICES]
LARGEST = 12  # modules of a room
LONGEST = 60  # lines of a function, with its docstring
PARAMETERS = 7  # of a function at most, beside self or cls
FACE = {"__init__", "__main__", "story"}  # the modules that lie directly in the package
KEYWORDS = {"influence_function": "if"}  # `if` cannot be a module's name
# Endings of test files that check the same source file against independent computations.
SUFFIXES = ("_truths",)
# Test files that are not named after one source file, with what they test.
OF_SEVERAL = {
    "test_pretended_device": "methods, detectors, votes and metrics on a pretended device",
    "detector/test_detectors": "all detectors but cleanlab, by the same contract",
    "target/test_targets": "all targets, by the same contract",
    "report/test_colours": "the contrast of the colours in report/web/style.css",
    "report/test_decisions": "report/web/decisions.js and exchange.js",
    "report/test_axe": "the report's pages by the rules of axe-core",
    "report/test_firefox": "the report's pages in Firefox",
    "report/test_web": "the report's pages in a browser",
    "influence/test_processes": "every influence method, in two processes and in one",
    "scripts/test_notebooks": "notebooks/",
    "test_conf": "conf/",
    "test_docs": "README.md and docs/",
    "test_oracles": "influence methods against other libraries",
    "test_package": "the wheel and the source archive",
    "test_rooms": "the folders of the package",
    "test_run": "the entries of a checkout in src/",
}
# Source files that are tested in a test file of another name.
TESTED_IN = {
    **{f"detector/{name}": "detector/test_detectors" for name in ("evidence", "influence", "knn", "loss")},
    **{
        f"detector/{name}": "detector/test_detectors"
        for name in ("held_out", "margin", "random", "self_influence")
    },
    **{f"target/{name}": "target/test_targets" for name in ("groups", "mis_similar", "pairs")},
    **{f"adapt/{name}": "api/test_explain" for name in ("arrays", "freezing", "prepare", "proxies")},
    **{f"adapt/{name}": "api/test_explain" for name in ("questions", "samples")},
    **{f"api/{name}": "api/test_found" for name in ("comparison", "html", "written")},
    "__main__": "test_run",
    "retrieval/queries": "retrieval/test_confusion",
}


def modules(folder):
    return sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")


def imported(folder):
    """The other folders of the package that a folder's modules import from."""
    found = set()
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                assert not any(alias.name.startswith("deconfuse") for alias in node.names), path
            elif isinstance(node, ast.ImportFrom) and node.module == "deconfuse":
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module.startswith("deconfuse."):
                found.add(node.module.split(".")[1])
    return found & {path.name for path in FOLDERS} - {folder.name}


def below(folder):
    """The folders that the layers in pyproject.toml allow a folder to import from."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = (each["layers"] for each in contracts if each["type"] == "layers")
    layers = [layer.split(" | ") for layer in layers]
    (place,) = (i for i, layer in enumerate(layers) if folder.name in layer)
    return {name for layer in layers[place + 1 :] for name in layer}


def test_the_package_has_both_kinds_of_folders_and_only_its_face_lies_beside_them():
    assert {path.stem for path in HERE.glob("*.py")} == FACE
    assert {"dataset", "loss", "experiment"} <= {path.name for path in CHOICES}
    assert {"data", "system", "launch"} <= {path.name for path in ROOMS}
    code = {path.relative_to(HERE).parts[0] for path in HERE.glob("*/**/*.py")}
    assert code == {path.name for path in FOLDERS}


@pytest.mark.parametrize("folder", CHOICES, ids=lambda path: path.name)
def test_each_module_of_a_choice_has_a_yaml_of_its_name(folder):
    options = {path.stem for path in (CONF / folder.name).glob("*.yaml")}
    assert {KEYWORDS.get(name, name) for name in modules(folder)} <= options


@pytest.mark.parametrize("folder", ROOMS, ids=lambda path: path.name)
def test_a_room_has_at_most_a_dozen_modules(folder):
    assert 0 < len(modules(folder)) <= LARGEST


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_each_folder_opens_with_one_line_that_is_true_of_what_it_imports(folder):
    text = (folder / "__init__.py").read_text("utf-8")
    line = ast.get_docstring(ast.parse(text))
    assert text == f'"""{line}"""\n'
    what, _, names = line.removesuffix(".").partition("; may import ")
    assert len(what) > 20
    words = {"no other room": set(), "all rooms below": below(folder)}
    allowed = words[names] if names in words else set(names.split(", "))
    assert imported(folder) <= allowed <= below(folder)


def functions():
    """(place, lines, number of parameters) of each function of the package, methods and inner ones too.

    The __init__ that @dataclass makes is not written in a file, so a dataclass may have more fields. A kernel
    of a GPU is left out: it takes each array, and each of their sizes, on its own.
    """
    for path in sorted(HERE.rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        methods = {f for c in ast.walk(tree) if isinstance(c, ast.ClassDef) for f in c.body}
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                if "triton.jit" in map(ast.unparse, node.decorator_list):
                    continue
                given = node.args
                names = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
                static = any(isinstance(d, ast.Name) and d.id == "staticmethod" for d in node.decorator_list)
                count = len(list(filter(None, names))) - (node in methods and not static)
                yield f"{path.relative_to(HERE)}: {node.name}", node.end_lineno - node.lineno + 1, count


def test_no_function_is_long_and_none_has_many_parameters():
    found = list(functions())
    assert len(found) > 500
    assert [place for place, lines, _ in found if lines > LONGEST] == []
    assert [place for place, _, count in found if count > PARAMETERS] == []


def test_the_folders_of_tests_are_those_of_the_code():
    beside = {"scripts"}  # the tests of scripts/, which is no part of the package
    folders = {path.parent.name for path in (ROOT / "tests").glob("*/__init__.py")}
    assert folders == {path.name for path in FOLDERS} | beside


TESTS = sorted(
    path.relative_to(ROOT / "tests").with_suffix("").as_posix()
    for path in (ROOT / "tests").rglob("test_*.py")
)


@pytest.mark.parametrize("name", TESTS)
def test_each_test_file_is_named_after_a_source_file(name):
    *folder, file = name.split("/")
    source = file.removeprefix("test_")
    for suffix in SUFFIXES:
        source = source.removesuffix(suffix)
    home = ROOT / "scripts" if folder == ["scripts"] else HERE.joinpath(*folder)
    named = (home / f"{source}.py").is_file()
    assert named != (name in OF_SEVERAL), "a test file is named after a source file or listed in OF_SEVERAL"


def test_each_source_file_has_a_test_file_of_its_name_or_is_listed_with_another():
    sources = {
        path.relative_to(HERE).with_suffix("") for path in HERE.rglob("*.py") if path.stem != "__init__"
    }
    tested = {source for source in sources if str(source.parent / f"test_{source.name}") in TESTS}
    assert {str(source) for source in sources - tested} == set(TESTED_IN)


def test_no_exception_is_listed_that_does_not_exist():
    assert set(OF_SEVERAL) <= set(TESTS)
    assert set(TESTED_IN.values()) <= set(TESTS)
