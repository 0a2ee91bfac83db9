import pytest

from deconfuse.subcommands import doctor


@pytest.mark.parametrize(
    ("version", "asked", "fits"),
    [
        ("2.14.1+cu130", ">=2.6,<2.15", True),
        ("2.15.0", ">=2.6,<2.15", False),
        ("2.5.1", ">=2.6,<2.15", False),
        ("2.6", ">=2.6.0", True),
        ("1.3.10", ">=1.3.2,<1.4", True),
        ("1.2.0", "==1.2.0", True),
        ("1.2.1", "!=1.2.1", False),
        ("2.4.9", "~=2.4.1", True),
        ("2.5.0", "~=2.4.1", False),
        ("3.0rc1", ">=3", True),
        ("7", "", True),
    ],
)
def test_versions_are_compared_by_their_numbers(version, asked, fits):
    assert doctor.within(version, asked) == fits


def test_a_line_of_the_metadata_is_taken_apart():
    line = 'cleanlab[datalab]<3,>=2.9; extra == "cleanlab"'
    assert doctor.taken_apart(line) == ("cleanlab", "<3,>=2.9", "cleanlab")
    assert doctor.taken_apart("torch>=2.6,<2.15") == ("torch", "<2.15,>=2.6", None)


@pytest.fixture
def required(monkeypatch):
    """Let the metadata ask for these lines."""
    return lambda *lines: monkeypatch.setattr(doctor.metadata, "requires", lambda name: list(lines))


def test_what_is_missing_is_named_with_the_command_that_installs_it(required, capsys):
    required("torch>=2", "nowhere-to-be-found>=3", 'also-nowhere>=1; extra == "umap"', "numpy<1")
    assert doctor.main([]) == 1
    said = capsys.readouterr().out
    assert "nowhere-to-be-found      -              >=3              missing" in said
    assert "not among the tested versions" in said
    assert "To be right: pip install 'nowhere-to-be-found>=3' 'numpy<1'" in said
    assert "umap                     missing" in said
    assert "deconfuse[" in said


def test_where_all_is_there_it_says_so(required, capsys):
    required("torch>=2", 'numpy>=1; extra == "cleanlab"')
    assert doctor.main([]) == 0
    said = capsys.readouterr().out
    assert "All that is needed is there." in said
    assert "cleanlab                 there" in said
    assert "cores" in said


def test_every_extra_that_is_shown_is_one_of_the_project():
    import tomllib

    from tests.conftest import ROOT

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert doctor.EXTRAS.keys() <= extras.keys()
