import sys

import pytest

from deconfuse import CONF, HERE
from deconfuse.launch.experiments import experiments, labels_of


def test_every_module_is_found_tables_first_and_then_figures():
    found = experiments()
    assert set(found) == {path.stem for path in (HERE / "experiment").glob("*.py")} - {"__init__"}
    kinds = ["table" if n.startswith("table") else "figure" if n.startswith("figure") else "" for n in found]
    assert kinds == sorted(kinds, key=["table", "figure", ""].index)
    for name, module in found.items():
        assert callable(module.sections)
        assert (CONF / "experiment" / f"{name}.yaml").is_file()


def test_a_module_says_which_labels_its_runs_have():
    assert labels_of("table2") == experiments()["table2"].LABELS
    assert labels_of("baseline") is None  # a YAML without a module
    assert labels_of(None) is None


def test_a_module_that_lacks_an_import_of_its_own_is_an_error(tmp_path, monkeypatch):
    from deconfuse import experiment

    (tmp_path / "odd_one.py").write_text("import no_such_package\n")
    monkeypatch.setattr(experiment, "__path__", [*experiment.__path__, str(tmp_path)])
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        labels_of("odd_one")
    sys.modules.pop("deconfuse.experiment.odd_one", None)
