import pytest

from scripts.blocks import blocks, run
from tests.conftest import ROOT

# The pages whose Python runs as it stands; docs/architecture.md and docs/runs.md show parts of files.
PAGES = ("api", "own_model")


def test_blocks_share_their_names_and_errors_name_the_page_and_line(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A\n\n```python\na = 2\n```\n\n```bash\nexit 1\n```\n\n```python\nb = a + 1\n```\n")
    assert len(blocks(page.read_text())) == 2
    assert run(page)["b"] == 3
    page.write_text("text\n```python\n1 / 0\n```\n")
    with pytest.raises(ZeroDivisionError) as raised:
        run(page)
    assert (raised.traceback[-1].path, raised.traceback[-1].lineno) == (page, 2)


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*log_every_n_steps")
def test_the_code_of_a_page_runs_as_it_stands(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run(ROOT / f"docs/{name}.md")
    assert len(names["found"].confusions) > 0
    assert list(tmp_path.rglob("index.html"))
