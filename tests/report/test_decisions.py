"""The page's decisions as CSV, by its own code in Node; skipped where there is none."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from deconfuse.corrections.decisions import read

NODE = shutil.which("node")
SOURCES = [
    Path(__file__).parents[2] / f"src/deconfuse/report/web/{name}.js" for name in ("decisions", "exchange")
]
NAMES = ["=1+1", "+a", "-b", "@c", "\td", "\re", "'", "''=x", '"q"', "h,i", "j;k", "l\nm", " n", "-", "o"]
SCRIPT = """
const [sources, names] = [JSON.parse(process.argv[1]), JSON.parse(process.argv[2])];
const n = names.length, ids = names.map((_, i) => i), store = {};
const data = {
  run: { run: "+run", fingerprint: "f", confusions: n, relabels: n, mis_similar: 0, checkpoint_name: "c",
         class_names: [...names, "x", "y"], training_classes: n, explained: {},
         command: "run a=b relabels=old.json" },
  train: { names, labels: ids, recommended: ids.map((i) => (i + 1) % n), suspicion: ids.map((i) => -i),
           vote_recommended: ids.map(() => 0.5) },
  query: { names, labels: ids.map(() => n) },
  confusion: { query: ids, neighbour: ids.map((i) => (i + 2) % n), mirror: ids.map(() => -1) },
};
let written = null;
Object.assign(globalThis, {
  deconfuse: { get: (key) => data[key], load: async () => {}, notice: () => {}, galleryPart: () => "query",
               className: (i) => data.run.class_names[i], el: () => ({ click() {}, remove() {} }) },
  localStorage: { getItem: (key) => store[key] ?? null, setItem: (key, value) => { store[key] = value; } },
  window: { addEventListener() {} }, document: { body: { append() {} } },
  URL: { createObjectURL: () => "", revokeObjectURL() {} },
  Blob: class { constructor(parts) { written = parts[0]; } },
  setTimeout: () => {},
});
for (const source of sources) (0, eval)(require("fs").readFileSync(source, "utf8"));
const [page, files_] = [deconfuse.decisions, deconfuse.exchange];
(async () => {
  page.start();
  ids.forEach((i) => {
    page.decide("confusion", i, ["agree", "disagree", "unsure"][i % 3]);
    const label = i % 4 === 2 ? names[(i + 5) % n] : null;
    page.decide("label", i, ["accept", "reject", "other", "exclude"][i % 4], label);
    if (i % 5 === 0) page.note("label", i, `note, "${names[i]}"`);
    page.decide("query", i, ["other", "exclude"][i % 2], i % 2 ? null : "y");
  });
  page.name("=Ann");
  page.decide("classes", "0-1", "merge");
  await files_.save("json");
  const json = written;
  await files_.save("csv");
  const csv = written, told = {};
  const utf16 = Buffer.concat([Buffer.from([0xff, 0xfe]), Buffer.from(csv, "utf16le")]);
  const header = csv.replace(/^.*\\r\\n/, (line) => line.replaceAll(",", ", ").toUpperCase());
  const files = { plain: Buffer.from(csv), utf16, header: Buffer.from(header) };
  for (const [name, bytes] of Object.entries(files)) {
    page.clear();
    const taken = await files_.read({ name: "d.csv", arrayBuffer: async () => bytes });
    await files_.save("json");
    told[name] = [taken.taken, taken.left, taken.run, written === json];
  }
  console.log(JSON.stringify({ json, csv, told, command: files_.command() }));
})();
"""


@pytest.mark.skipif(NODE is None, reason="no node is installed")
def test_decisions_on_hostile_names_come_back_on_the_page_and_in_python(tmp_path):
    done = subprocess.run(
        [NODE, "-e", SCRIPT, json.dumps([str(source) for source in SOURCES]), json.dumps(NAMES)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["told"] == {
        key: [3 * len(NAMES) + 1, 0, "+run", True] for key in ("plain", "utf16", "header")
    }
    (tmp_path / "d.json").write_text(found["json"], "utf-8")
    (tmp_path / "d.csv").write_bytes(found["csv"].encode())
    one, other = read(tmp_path / "d.json"), read(tmp_path / "d.csv")
    assert one.run == other.run == "+run"
    assert one.pairs.equals(other.pairs)
    assert one.labels.equals(other.labels)
    assert one.tests.equals(other.tests)
    assert one.classes.values.tolist() == other.classes.values.tolist() == [[NAMES[0], NAMES[1], "merge"]]
    assert one.pairs["query"].tolist() == NAMES
    assert one.tests["path"].tolist() == NAMES
    assert found["command"] == "run a=b relabels=decisions.json relabels.test=true"
    notes = [label.get("note", "") for label in json.loads(found["json"])["labels"]]
    assert notes == [f'note, "{name}"' if i % 5 == 0 else "" for i, name in enumerate(NAMES)]
    assert {label["reviewer"] for label in json.loads(found["json"])["labels"]} == {"=Ann"}
