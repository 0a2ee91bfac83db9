import re
from importlib import import_module
from types import SimpleNamespace

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate

from deconfuse import CONF, HERE
from deconfuse.loss.softtriple import SoftTriple
from deconfuse.model.small_cnn import SmallCNN
from deconfuse.training.embedder import Embedder

OPTIONS = sorted(path.relative_to(CONF).with_suffix("").as_posix() for path in CONF.glob("*/*.yaml"))
# The files of choices, whose folder has a twin in conf/; tests/test_rooms.py says which have a YAML. Those of
# experiment/ are no targets: their YAML is a set of words.
FILES = [path for path in sorted(HERE.glob("*/*.py")) if (CONF / path.parent.name).is_dir()]
CHOICES = [path for path in FILES if path.stem != "__init__" and path.parent.name != "experiment"]


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
def test_the_yaml_of_a_choice_names_its_file(path):
    name = {"influence_function": "if"}.get(path.stem, path.stem)  # `if` is a keyword of Python's
    option = yaml.safe_load((CONF / path.parent.name / f"{name}.yaml").read_text())
    assert option["_target_"].startswith(f"deconfuse.{path.parent.name}.{path.stem}.")


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_opens_with_what_it_is(option):
    lines = (CONF / f"{option}.yaml").read_text().splitlines()
    first = lines[1] if lines[0].startswith("# @package") else lines[0]
    assert first.startswith("# ")
    assert len(first) > 15


@pytest.mark.parametrize(("name", "batch"), [("paper", (8, 4)), ("paper_inshop", (32, 3))])
def test_the_papers_recipe_is_what_it_states(name, batch):
    recipe = instantiate(composed(f"recipe={name}").recipe)
    assert (recipe.classes_per_batch, recipe.per_class) == batch
    assert (recipe.epochs, recipe.embedding_size, recipe.freeze_batchnorm) == (40, 512, True)
    assert (recipe.clip_norm, recipe.clip_value) == (None, 10)
    assert (recipe.schedule, recipe.step_epochs, recipe.step_factor) == ("step", 20, 0.1)
    model = Embedder(SmallCNN(1, width=2), SoftTriple(4, 512), recipe)
    model._trainer = SimpleNamespace(estimated_stepping_batches=40 * 7, max_epochs=40)
    made = model.configure_optimizers()
    assert type(made["optimizer"]) is torch.optim.Adam
    groups = {group["name"]: group for group in made["optimizer"].param_groups}
    rates = {name: group["initial_lr"] for name, group in groups.items()}
    assert rates == {"backbone": 4e-3, "head": 4e-3, "proxies": 400}
    assert {(group["eps"], group["weight_decay"]) for group in groups.values()} == {(1, 0)}
    (rate,) = set(made["lr_scheduler"]["scheduler"].lr_lambdas)
    assert [rate(step) for step in (0, 139, 140, 279)] == [1, 1, 0.1, 0.1]


def test_the_papers_command_composes():
    config = composed("dataset=cub", "loss=softtriple", "influence=eif")
    assert config.dataset._target_ == "deconfuse.dataset.cub.load"
    assert config.loss.centres == 1


@pytest.mark.parametrize(
    ("words", "data", "batch"),
    [
        (["experiment=paper"], "cub", (8, 4)),
        (["experiment=paper", "dataset=cars", "loss=proxynca"], "cars", (8, 4)),
        (["experiment=paper_inshop"], "inshop", (32, 3)),
    ],
)
def test_the_papers_setting_is_one_word(words, data, batch):
    config = composed(*words)
    assert config.dataset._target_ == f"deconfuse.dataset.{data}.load"
    assert (config.dataset.image_size, config.dataset.image_resize) == (256, 288)
    assert config.model.name == "resnet50"
    recipe = config.recipe
    assert (recipe.classes_per_batch, recipe.per_class) == batch
    assert (recipe.embedding_size, recipe.epochs, recipe.lr_proxies) == (512, 40, 400.0)
    assert (recipe.clip_value, recipe.clip_norm, recipe.freeze_batchnorm) == (10.0, None, True)
    assert recipe.optimizer.eps == 1.0


@pytest.mark.parametrize("data", ["cars", "cub", "inshop", "omniglot", "sop"])
def test_data_dir_is_where_data_sets_with_a_name_are(data):
    first, second = (composed(f"dataset={data}", *words).dataset.root for words in ([], ["data_dir=/mnt"]))
    assert first == second.replace("/mnt/", "data/") != second


def test_retraining_is_off_and_takes_the_authors_numbers_where_it_is_asked_for():
    assert composed().retrain.mode == "none"
    plan = instantiate(composed("retrain.mode=cached", "seed=3").retrain)
    assert (plan.mode, plan.epochs, plan.helpful, plan.harmful, plan.seed) == ("cached", 1, 2.0, 0.0, 3)
    made = plan.optimizer([torch.nn.Parameter(torch.zeros(2, 3))])
    assert type(made) is torch.optim.Adam
    assert made.defaults["lr"] == 4e-5
    words = ["retrain.optimizer._target_=torch.optim.SGD", "+retrain.optimizer.momentum=0.9"]
    made = instantiate(composed(*words).retrain).optimizer([torch.nn.Parameter(torch.zeros(2, 3))])
    assert type(made) is torch.optim.SGD
    assert made.defaults["momentum"] == 0.9


EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))


def test_every_experiment_has_its_table_but_those_of_others_tables():
    modules = {path.stem for path in FILES if path.parent.name == "experiment"} - {"__init__"}
    assert set(EXPERIMENTS) - modules == {"baseline", "paper", "paper_inshop", "sensitivity_if"}
    assert modules <= set(EXPERIMENTS)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_opens_with_its_command_the_time_it_takes_and_what_to_expect(name):
    head = [line for line in (CONF / f"experiment/{name}.yaml").read_text().splitlines() if line[:1] == "#"]
    commands = [line for line in head if line.startswith("#   python -m src.run ")]
    assert any(f"experiment={name}" in line.split() for line in commands)
    text = " ".join(head)
    if not name.startswith("paper"):  # not measured: they want a GPU, and say so
        assert re.search(r"[Tt]wo cores[^.]* (minutes?|hour)", text)
        assert re.search(r"xpect\b", text)
    assert ("not measured" in text) == name.startswith("paper")


def test_slurm_composes_to_submitits_launcher_with_what_sbatch_is_asked_for():
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        words = ["hydra/launcher=slurm", "hydra.launcher.partition=gpu", "output_dir=out"]
        config = compose("config", words, return_hydra_config=True).hydra.launcher
    assert config._target_.endswith("SlurmLauncher")
    assert (config.partition, config.timeout_min, config.cpus_per_task, config.mem_gb) == ("gpu", 480, 8, 32)
    assert (config.nodes, config.tasks_per_node, config.array_parallelism) == (1, 1, 64)
