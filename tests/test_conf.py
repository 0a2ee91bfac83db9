from importlib import import_module

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from src.command_line import CONF
from tests.conftest import ROOT

OPTIONS = sorted(path.relative_to(CONF).with_suffix("").as_posix() for path in CONF.glob("*/*.yaml"))
FILES = [path for path in sorted((ROOT / "src").glob("*/*.py")) if path.stem != "__init__"]
CHOICES = [path for path in FILES if path.parent.name != "callback"]


def composed(*words):
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", list(words))


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_composes_and_its_target_exists(option):
    group, choice = option.split("/")
    config = composed(f"{group}={choice}")
    if group == "experiment":
        return
    module, _, name = config[group]._target_.rpartition(".")
    assert callable(getattr(import_module(module), name))


@pytest.mark.parametrize("path", CHOICES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_file_of_a_choice_has_a_yaml_of_its_name(path):
    name = {"influence_function": "if"}.get(path.stem, path.stem)  # `if` is a keyword of Python's
    option = yaml.safe_load((CONF / path.parent.name / f"{name}.yaml").read_text())
    assert option["_target_"].startswith(f"src.{path.parent.name}.{path.stem}.")


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_opens_with_what_it_is(option):
    lines = (CONF / f"{option}.yaml").read_text().splitlines()
    first = lines[1] if lines[0].startswith("# @package") else lines[0]
    assert first.startswith("# ")
    assert len(first) > 15


def test_the_papers_command_composes():
    config = composed("dataset=cub", "loss=softtriple", "influence=eif")
    assert config.dataset._target_ == "src.dataset.cub.load"
    assert config.loss.centres == 1
