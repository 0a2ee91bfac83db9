from scripts import chaos


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
