import pytest

from tests.conftest import ROOT

pytest.importorskip("mkdocs", reason="mkdocs is an extra (docs)")
pytest.importorskip("material", reason="mkdocs-material is an extra (docs)")
pytest.importorskip("mkdocstrings", reason="mkdocstrings is an extra (docs)")


def test_links_to_the_top_of_the_repository_become_pages_and_links_to_code_words():
    from scripts.site_hook import on_page_markdown

    text = "see [the start](../README.md#start), [settings](../pyproject.toml) and [usage](usage.md)"
    made = on_page_markdown(text, None, None, None)
    assert made == "see [the start](readme.md#start), settings and [usage](usage.md)"


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    """Strict: a broken link or a name without a docstring would end it."""
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path / "site")))
    reference = (tmp_path / "site/reference.html").read_text("utf-8")
    assert "Find who is taken for whom" in reference
    assert (tmp_path / "site/readme.html").is_file()
