import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image

from deconfuse.corrections.corrections import Source
from deconfuse.launch.command_line import CONF
from deconfuse.launch.path_words import KEYS, expand_home, in_hydras_words
from tests.conftest import ROOT

NAMES = [
    *("photos (1)", "a=b", "a,b", "a, b", "it's", "été", "[x]", "{x}", "日本 🙂", "~", "~no-such-user/x"),
    *("2023", "1e5", "true", "a'b\\", "back\\slash", "new\nline", '"', "'", "a\\'b", "#!&;|<>^`"),
    *(" spaces ", "null.json", "x\udce9", "choice(a", "a:b", "@", "%", "$HOME", "*", "?", "(", ")]}"),
]


def read(word):
    """What Hydra reads in a word: its value, or a list of values where it is a sweep."""
    override = OverridesParser.create().parse_override(word)
    if not override.is_sweep_override():
        return override.value()
    return [read(f"x={text}") for text in override.sweep_string_iterator()]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/of me")
    return tmp_path


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("name", NAMES)
def test_a_path_is_read_as_it_is_given_whether_or_not_it_exists(here, key, name):
    want = "/home/of me" if name == "~" else name
    for sign in ("", "+", "++"):
        (word,) = in_hydras_words([f"{sign}{key}={name}"])
        assert word.startswith(f"{sign}{key}=")
        assert read(word) == want
    Path(name).mkdir(parents=True)
    for flags in ([], ["-m"], ["--multirun"]):
        assert read(in_hydras_words([*flags, f"{key}={name}"])[-1]) == want
    # A word that was quoted stays as it is: the command in metrics.json can be given again.
    assert in_hydras_words([word]) == [word]


@pytest.mark.parametrize(
    ("words", "values"),
    [
        (["-m", "dataset.root=a,b"], ["a", "b"]),
        (["-m", "dataset.root=a,b c"], ["a", "b c"]),
        (["dataset.root=a,b"], ["a", "b"]),  # a sweep that lacks its -m, which Hydra then says
        (["dataset.root=a,no"], "a,no"),
        (["-m", "dataset.root=a,no (1)"], ["a", "no (1)"]),
        (["-m", "dataset.root=x,y,a"], ["x,y", "a"]),
        (["-m", "dataset.root=a,x,y"], ["a", "x,y"]),
        (["-m", "dataset.root=x,y"], "x,y"),
        (["-m", "relabels=a,null"], ["a", None]),
        (["-m", "dataset.root=~/p (1),~/q"], ["/home/of me/p (1)", "/home/of me/q"]),
        (["-m", "dataset.root='x,y',a"], ["x,y", "a"]),
        (["-m", "dataset.root=a,'x,y'"], ["a", "x,y"]),
        (["-m", "dataset.root=choice(a,b)"], ["a", "b"]),
        (["-m", "output_dir=a,b"], "a,b"),
    ],
)
def test_a_comma_is_a_sweep_unless_it_is_in_the_name_of_a_path_that_exists(here, words, values):
    for name in ("a", "b", "b c", "x,y"):
        Path(name).mkdir()
    assert read(in_hydras_words(words)[-1]) == values


@pytest.mark.parametrize(
    "word",
    [
        "dataset.root='a b'",
        'dataset.root="it\'s"',
        "output_dir=${oc.env:HOME}/runs",
        "dataset.root=null",
        "model.weights=none",
        "model.weights=imagenet",
        "hydra.sweep.dir=${output_dir}/${now:%Y-%m-%d}",
        "seed=0,1",
        "dataset.test_classes=[a,b]",
        "dataset.root",
        "dataset.root=",
        "--help",
    ],
)
def test_what_hydra_reads_as_it_is_meant_is_left_alone(here, word):
    assert in_hydras_words([word]) == [word]


def test_null_stays_null_whatever_is_called_so(here):
    Path("null").mkdir()
    assert in_hydras_words(["dataset.root=null"]) == ["dataset.root=null"]


def test_an_interpolation_in_a_path_that_hydra_refuses_still_is_one(here):
    (word,) = in_hydras_words(["dataset.root=${oc.env:HOME}/x (1)"])
    assert OmegaConf.create({"root": read(word)}).root == "/home/of me/x (1)"


def test_relabels_is_a_file_and_a_group_of_keys(tmp_path):
    def config(*words):
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return compose("config", in_hydras_words(list(words))).relabels

    odd = tmp_path / "it's décisions (1), {2}.json"
    odd.touch()
    for key in ("relabels", "relabels.file"):
        assert config(f"{key}={odd}").file == str(odd)
        found = config("relabels.min_vote=0.7", f"{key}=a/b-c.json")
        assert found == OmegaConf.merge(config(), {"file": "a/b-c.json", "min_vote": 0.7})
    assert config("relabels=null").file is None
    for given in ("relabels={file: x.json}", "relabels={file:x.json}"):
        assert config(given) == config("relabels=x.json")
        assert instantiate(config(given)) == Source("x.json", 0.6)
    both = config("relabels={file: x.csv, min_vote: 0.7}")
    assert both == config("relabels=x.csv", "relabels.min_vote=0.7")
    assert in_hydras_words(["-m", "seed=0,1", "relabels=a.csv,b.csv"])[2] == "relabels.file=a.csv,b.csv"
    assert in_hydras_words(["relabel=x", "--help"]) == ["relabel=x", "--help"]


def test_home_is_expanded_in_what_a_yaml_file_says(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    root = {"root": "~/birds", "csv": None, "path": "${data_dir}/x"}
    config = OmegaConf.create({"data_dir": "~/data", "output_dir": "~", "dataset": root})
    OmegaConf.set_struct(config, True)
    expand_home(config)
    assert OmegaConf.to_container(config, resolve=True) == {
        "data_dir": "/home/me/data",
        "output_dir": "/home/me",
        "dataset": {"root": "/home/me/birds", "csv": None, "path": "/home/me/data/x"},
    }


def test_every_key_of_the_settings_that_takes_a_path_is_known():
    # By its name, unless it is a group of keys; of Hydra's own, run.dir is where the command is started, and
    # relabel.weights says how votes are weighed.
    found = set()
    for path in [CONF / "config.yaml", *CONF.glob("*/*.yaml")]:
        group = [] if path.parent == CONF else [path.parent.name]
        found |= {".".join([*group, *key]) for key in keys(yaml.safe_load(path.read_text("utf-8")) or {})}
    named = {key for key in found if re.search(r"(\b|_)(dir|file|folder|root|csv|path|shards|weights)$", key)}
    assert named - {"hydra.run.dir", "relabel.weights"} == set(KEYS)


def keys(settings, above=()):
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from keys(value, (*above, key))
        else:
            yield (*above, key)


def test_a_sweeps_folder_is_below_an_output_dir_with_a_tilde(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", ["output_dir='~/out'"], return_hydra_config=True)
    assert config.hydra.sweep.dir.startswith("/home/me/out/multirun/")


@pytest.mark.slow
def test_a_run_and_a_sweep_with_odd_paths_and_the_command_that_they_say(tmp_path):
    folders = [tmp_path / "photos (1), [2]", tmp_path / "it's = été"]
    for seed, folder in enumerate(folders):
        random = np.random.default_rng(seed)
        for c in range(4):
            (folder / f"class{c}").mkdir(parents=True)
            for i in range(4):
                drawing = random.integers(0, 255, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(drawing).save(folder / f"class{c}" / f"{i}.png")
    out = tmp_path / "out, (put)"
    small = ["dataset=folder", "dataset.image_size=16", "model.width=4", "recipe.epochs=1", "report=false"]
    small += ["dataset.augment=none", f"output_dir={out}"]

    def go(*words):
        home = {**os.environ, "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "src.run", *words]
        return subprocess.run(command, cwd=ROOT, env=home, capture_output=True, text=True, timeout=300)

    done = go("-m", *small, "dataset.root=" + ",".join(map(str, folders)))
    assert done.returncode == 0, done.stderr
    reports = [json.loads(path.read_text("utf-8")) for path in sorted(out.glob("*/metrics.json"))]
    assert len(reports) == 2
    roots = set()
    for path in out.glob("*/config.yaml"):
        roots.add(yaml.safe_load(path.read_text("utf-8"))["dataset"]["root"])
    assert roots == {str(folder) for folder in folders}
    # The command in metrics.json is one for a shell: the same again finds its checkpoint.
    words = shlex.split(reports[0]["command"])
    assert words[:3] == ["python", "-m", "src.run"]
    again = go(*words[3:])
    assert again.returncode == 0, again.stderr
    assert "reusing" in again.stderr
