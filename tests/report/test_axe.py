"""No page breaks a rule of axe-core (WCAG 2.2 A and AA, and its best practices), in both themes and browsers.

Skipped where axe-core is not installed: npm install axe-core, which puts it into node_modules/.
"""

from pathlib import Path

import pytest

from tests.report.firefox import FIREFOX
from tests.report.test_firefox import firefox  # noqa: F401 - a fixture
from tests.report.test_web import CHROMIUM, PAGES, browser, settle, visit  # noqa: F401 - fixtures

AXE = Path(__file__).parents[2] / "node_modules" / "axe-core" / "axe.min.js"
pytestmark = pytest.mark.skipif(not AXE.exists(), reason="axe-core is not installed (npm install axe-core)")
RUN = """axe.run(document, { resultTypes: ["violations"], preload: false })
    .then((found) => found.violations.map((one) => {
        const nodes = one.nodes.map((node) => node.html.slice(0, 160)).slice(0, 3);
        return `${one.id}: ${nodes.join(" | ")}`;
    }))"""
SETTLED = """new Promise((done) => {
    const look = () => document.querySelector(".loading") || !document.querySelector("main h1")
        ? setTimeout(look, 20) : requestAnimationFrame(() => requestAnimationFrame(() => done(true)));
    look();
})"""


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed (apt-get install chromium)")
@pytest.mark.parametrize("width", [1280, 360])
def test_no_page_breaks_a_rule_in_chromium(reported, visit, width):  # noqa: F811
    size = {"width": width, "height": 800}
    still = {"color_scheme": "light", "reduced_motion": "reduce"}  # no colour is looked at while it changes
    tab = visit(reported, viewport=size, bypass_csp=True, **still)
    tab.add_script_tag(path=str(AXE))
    found = {}
    for page in PAGES:
        tab.goto(tab.url.split("#")[0] + f"#/{page}")
        for theme in ("light", "dark"):
            settle(tab)
            assert tab.evaluate("document.documentElement.dataset.theme || 'light'") == theme
            found[page, theme] = tab.evaluate(RUN)
            tab.keyboard.press("t")
    assert {key: broken for key, broken in found.items() if broken} == {}


@pytest.mark.skipif(FIREFOX is None, reason="no firefox is installed (apt-get install firefox-esr)")
def test_no_page_breaks_a_rule_in_firefox(reported, firefox):  # noqa: F811
    firefox.goto((reported / "report" / "index.html").as_uri())
    firefox.inject(AXE.read_text("utf-8"))
    found = {}
    for page in PAGES:
        firefox.run(f"location.hash = '#/{page}'")
        for theme in ("light", "dark"):
            firefox.run_async(SETTLED)
            assert firefox.run("document.documentElement.dataset.theme || 'light'") == theme
            found[page, theme] = firefox.run_async(RUN)
            firefox.press("t")
    assert {key: broken for key, broken in found.items() if broken} == {}
