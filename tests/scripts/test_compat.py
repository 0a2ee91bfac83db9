import re
import sys
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deconfuse.system.errors import UserError
from scripts import compat
from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_lowest_versions_are_the_lower_bounds_of_the_project():
    lines = (ROOT / "constraints/lowest.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    bounds = {}
    for line in PROJECT["dependencies"]:
        name, low = re.fullmatch(r"([\w-]+)>=([\d.]+),<[\d.]+", line).groups()
        bounds[name] = low
    assert pinned.keys() == bounds.keys()
    for name, low in bounds.items():
        width = low.count(".") + 1
        assert ".".join(pinned[name].split(".")[:width]) == low, name


def asked(extra=None):
    """The requirements of the project, or of an extra and of those that it names."""
    for line in PROJECT["dependencies"] if extra is None else PROJECT["optional-dependencies"][extra]:
        requirement = Requirement(line)
        if requirement.name == "deconfuse":
            for name in requirement.extras:
                yield from asked(name)
        else:
            yield requirement


def test_the_lock_file_has_all_that_developers_install_in_the_ranges_of_the_project():
    lines = (ROOT / "constraints/lock.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    pinned = {canonicalize_name(name): version for name, version in pinned.items()}
    for requirement in (*asked(), *asked("dev"), *asked("oracles")):
        name = canonicalize_name(requirement.name)
        assert name in pinned, name
        assert requirement.specifier.contains(pinned[name]), (name, pinned[name])


def test_each_supported_python_has_an_environment_and_its_constraints():
    named = {word.rsplit(" ", 1)[-1] for word in PROJECT["classifiers"] if "Python :: 3." in word}
    assert {run.python for run in compat.RUNS.values()} == named
    for run in compat.RUNS.values():
        assert run.constraints is None or (ROOT / run.constraints).is_file()
    for name in compat.CORE + compat.PAGES:
        assert (ROOT / name).exists(), name


def test_an_interpreter_is_found_or_not():
    assert compat.interpreter("{}.{}".format(*sys.version_info[:2])) == sys.executable
    assert compat.interpreter("3.99") is None


def test_without_its_python_an_environment_is_left_out(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(compat, "HOME", tmp_path)
    assert compat.made("future", compat.Run("3.99", None), tmp_path / "none.whl") is None
    assert "future: left out, as there is no Python 3.99 here" in capsys.readouterr().out


def test_an_unknown_environment_is_refused():
    with pytest.raises(UserError, match="RUNS=lowst is not known; did you mean lowest"):
        compat.main(["lowst"])
