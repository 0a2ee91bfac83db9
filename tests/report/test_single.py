import base64
import hashlib
import re

import pytest

from deconfuse.report import page, single


@pytest.fixture
def report(tmp_path):
    folder = tmp_path / "report"
    folder.mkdir()
    for path in page.WEB.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "thumbs").mkdir()
    (folder / "thumbs" / "0.png").write_bytes(b"pixels")
    page.put(folder / "data", "run", {"run": "a-run"})
    page.put(folder / "data", "train", {"names": ["</script><img src=x onerror=alert(1)>"]})
    return folder


def test_one_file_has_everything_inside_and_its_policy_allows_nothing_else(report, tmp_path):
    file = tmp_path / "report.html"
    assert single.write(report, file)
    html = file.read_text("utf-8")
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    policy = re.search(r'content="(default-src[^"]*)"', html)[1]
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts]
    assert [f"'sha256-{one}'" for one in hashes] == re.search(r"script-src ([^;]*);", policy)[1].split()
    assert "'self'" not in policy
    assert "unsafe" not in policy
    assert "<script src" not in html
    assert "<link" not in html
    inside = base64.b64encode(b"pixels").decode()
    assert f'deconfuse.inside({{"thumbs/0.png":"data:image/png;base64,{inside}"}});' in scripts
    assert scripts[-1] == (report / "main.js").read_text("utf-8")  # after the data
    # A name cannot end its script: every opening tag has its own closing one.
    assert html.count("<script>") == html.count("</script>") == len(scripts)
    assert "<img src=x" not in html


def test_a_file_that_would_be_too_large_is_not_written(report, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(single, "LARGEST", 1000)
    assert not single.write(report, tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()
    assert "share the folder report/ instead" in capsys.readouterr().err
