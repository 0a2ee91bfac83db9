"""No page breaks a rule of axe-core (WCAG 2.2 A and AA, and its best practices), in both themes.

Skipped where axe-core is not installed: npm install axe-core, which puts it into node_modules/.
"""

from pathlib import Path

import pytest

from tests.report.test_web import PAGES, browser, settle, visit  # noqa: F401 - fixtures

AXE = Path(__file__).parents[2] / "node_modules" / "axe-core" / "axe.min.js"
pytestmark = pytest.mark.skipif(not AXE.exists(), reason="axe-core is not installed (npm install axe-core)")
RUN = """async () => (await axe.run(document, { resultTypes: ["violations"], preload: false })).violations
    .map((one) => `${one.id}: ${one.nodes.map((node) => node.html.slice(0, 160)).slice(0, 3).join(" | ")}`)"""


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_no_page_breaks_a_rule(reported, visit, theme, width):  # noqa: F811
    tab = visit(reported, viewport={"width": width, "height": 800}, color_scheme=theme, bypass_csp=True)
    found = {}
    for page in PAGES:
        tab.goto(tab.url.split("#")[0] + f"#/{page}")
        settle(tab)
        tab.add_script_tag(path=str(AXE))
        broken = tab.evaluate(RUN)
        if broken:
            found[page] = broken
    assert found == {}
