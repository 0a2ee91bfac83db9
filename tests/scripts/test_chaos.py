import os
import subprocess
import sys

from scripts import chaos
from tests.conftest import ROOT

PHASE = """
import sys
from pathlib import Path
from scripts import chaos  # before deconfuse, which it finds in the checkout
import deconfuse

print(deconfuse.__file__)
none = ["dataset=features", "dataset.path=none.npz"]
for words in (["--help", *chaos.RUN], ["--cfg", "job", *chaos.RUN], none):
    command = chaos.Command(tuple(words), Path(sys.argv[1]))
    chaos.until(command, lambda: False)
    print(command.code, command.said())
"""


def test_a_phases_command_is_run_in_a_process_that_was_forked_for_it(tmp_path):
    words = [sys.executable, "-c", PHASE, str(tmp_path / "outputs")]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    file, said = done.stdout.split("\n", 1)
    assert file == str(ROOT / "src" / "deconfuse" / "__init__.py")
    helped, rest = said.split("\n0 ", 1)
    assert "\n  python -m src.run noise=flip_10 " in helped  # as in the command of metrics.json
    settings, failed = rest.split("\n1 ", 1)
    assert "embedding_size: 8\n" in settings  # of chaos.RUN
    assert failed.startswith("error: dataset features: looked for ")


def test_what_differs_or_is_left_over_is_seen(tmp_path):
    home = tmp_path / "run"
    home.mkdir()
    (home / "influence.npy").write_bytes(b"1")
    report = '{"seconds": {"training": %d}, "checkpoint": {"reused": %s}, "seed": %d}'
    (home / "metrics.json").write_text(report % (1, "true", 0))
    before = chaos.results(tmp_path)
    (home / "metrics.json").write_text(report % (2, "false", 0))
    assert chaos.results(tmp_path) == before
    (home / "metrics.json").write_text(report % (1, "true", 1))
    assert chaos.results(tmp_path) != before
    (home / "metrics.json").write_text(report % (1, "true", 0))
    shown = home / "report" / "data" / "run.js"
    shown.parent.mkdir(parents=True)
    call = 'deconfuse.put("run",{"seconds":{"training":%d},"seed":%d});\n'
    shown.write_text(call % (1, 0))
    before = chaos.results(tmp_path)
    shown.write_text(call % (2, 0))
    assert chaos.results(tmp_path) == before
    shown.write_text(call % (1, 1))
    assert chaos.results(tmp_path) != before
    shown.write_text(call % (1, 0))
    (home / "influence.npy").write_bytes(b"2")
    assert chaos.results(tmp_path) != before
    assert chaos.leftovers(tmp_path) == []
    for name in (".x.csv.abc123.7.partial", ".model.ckpt.lock", "last.ckpt"):
        (home / name).write_text("")
    assert len(chaos.leftovers(tmp_path)) == 3
