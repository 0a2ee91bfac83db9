"""The report in the system's Firefox; skipped where there is none."""

import json

import pandas as pd
import pytest

from tests.report.firefox import FIREFOX, Firefox
from tests.report.test_web import PAGES, suspects

pytestmark = pytest.mark.skipif(
    FIREFOX is None, reason="no firefox is installed (apt-get install firefox-esr)"
)


@pytest.fixture(scope="module")
def firefox(tmp_path_factory):
    tab = Firefox(tmp_path_factory.mktemp("firefox") / "profile")
    yield tab
    tab.close()


def test_every_page_opens_without_an_error_and_with_its_pictures(reported, firefox):
    home = (reported / "report" / "index.html").as_uri()
    for page in PAGES:
        firefox.goto(f"{home}#/{page}")
        assert not firefox.run("document.querySelector('main [role=alert]')?.innerText"), page
        wide = firefox.run("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, page


def test_labels_are_decided_kept_undone_and_exported(reported, firefox):
    home = (reported / "report" / "index.html").as_uri()
    wrong = suspects(reported)
    firefox.goto(f"{home}#/overview")
    firefox.press("l")
    firefox.wait("location.hash.startsWith('#/review') && document.querySelector('#progress')")
    firefox.press("arx")
    firefox.wait("document.querySelector('#progress').innerText.startsWith('3 of')")
    firefox.press("u")
    firefox.wait("document.querySelector('#progress').innerText.startsWith('2 of')")
    firefox.goto(f"{home}#/review")
    firefox.wait("document.querySelector('#progress').innerText.startsWith('2 of')")
    assert firefox.run("Number(document.querySelector('.picture').dataset.i)") == int(wrong["sample"][2])
    file = json.loads(firefox.download("[data-name=json]", "decisions.json").read_text())
    assert [(one["path"], one["decision"], one["label"]) for one in file["labels"]] == [
        (wrong["path"][0], "accept", wrong["recommended"][0]),
        (wrong["path"][1], "reject", None),
    ]
    assert isinstance(pd.Timestamp(file["labels"][0]["time"]), pd.Timestamp)
