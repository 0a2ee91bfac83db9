import pytest

from deconfuse.system.errors import UserError
from scripts.publish_tables import MARK, publish

BELOW = "## Figure 1: who, by EIF?\n\n![Figure 1]({})\n\n| a |\n| --- |\n| 1 |\n"
RESULTS = "# Tables and figures\n\n" + BELOW.format("figure1_my-data.png")


@pytest.fixture
def outputs(tmp_path):
    tables = tmp_path / "outputs" / "tables"
    tables.mkdir(parents=True)
    (tables / "results.md").write_text(RESULTS)
    (tables / "figure1_my-data.png").write_bytes(b"a picture")
    return tables.parent


def test_what_is_below_the_mark_is_replaced_and_the_rest_kept(outputs, tmp_path):
    page = tmp_path / "docs" / "results.md"
    page.parent.mkdir()
    page.write_text(f"# Ours\n\nBy hand.\n\n{MARK}\n\n## Old\n")
    for _ in range(2):  # a second time says the same
        publish(outputs, page)
        below = f"- [Figure 1: who, by EIF?](#figure-1-who-by-eif)\n\n{BELOW}"
        below = below.format("images/figure1_my-data.png")
        assert page.read_text() == f"# Ours\n\nBy hand.\n\n{MARK}\n\n{below}"
        assert (page.parent / "images" / "figure1_my-data.png").read_bytes() == b"a picture"


def test_what_is_missing_is_said(outputs, tmp_path):
    page = tmp_path / "page.md"
    with pytest.raises(UserError, match=r"page\.md: has no line"):
        publish(outputs, page)
    page.write_text("# No mark\n")
    with pytest.raises(UserError, match=r"page\.md: has no line"):
        publish(outputs, page)
    assert page.read_text() == "# No mark\n"
    page.write_text(f"{MARK}\n\n## Old\n")
    (outputs / "tables" / "figure1_my-data.png").unlink()
    with pytest.raises(UserError, match=r"lacks figure1_my-data\.png; make it anew"):
        publish(outputs, page)
    (outputs / "tables" / "results.md").write_text("# Tables and figures\n")
    with pytest.raises(UserError, match="lacks every table"):
        publish(outputs, page)
    assert page.read_text() == f"{MARK}\n\n## Old\n"
    assert not (tmp_path / "images").exists()
    (outputs / "tables" / "results.md").unlink()
    with pytest.raises(UserError, match=r"python -m src\.tables"):
        publish(outputs, page)
