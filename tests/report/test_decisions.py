"""The page's decisions as CSV, by its own code in Node; skipped where there is none."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from deconfuse.labels.decisions import read

NODE = shutil.which("node")
SOURCE = Path(__file__).parents[2] / "src/deconfuse/report/web/decisions.js"
NAMES = ["=1+1", "+a", "-b", "@c", "\td", "\re", "'", "''=x", '"q"', "h,i", "j;k", "l\nm", " n", "-", "o"]
SCRIPT = """
const [source, names] = [process.argv[1], JSON.parse(process.argv[2])];
const n = names.length, ids = names.map((_, i) => i), store = {};
const data = {
  run: { run: "+run", fingerprint: "f", confusions: n, relabels: n, mis_similar: 0, checkpoint_name: "c",
         class_names: names, training_classes: n, explained: {} },
  train: { names, labels: ids, relabels: ids, recommended: ids.map((i) => (i + 1) % n),
           vote_recommended: ids.map(() => 0.5) },
  query: { names, labels: ids },
  confusion: { query: ids, neighbour: ids.map((i) => (i + 2) % n) },
};
let written = null;
Object.assign(globalThis, {
  deconfuse: { get: (key) => data[key], load: async () => {}, notice: () => {}, galleryPart: () => "query",
               className: (i) => names[i], el: () => ({ click() {}, remove() {} }) },
  localStorage: { getItem: (key) => store[key] ?? null, setItem: (key, value) => { store[key] = value; } },
  window: { addEventListener() {} }, document: { body: { append() {} } },
  URL: { createObjectURL: () => "", revokeObjectURL() {} },
  Blob: class { constructor(parts) { written = parts[0]; } },
  setTimeout: () => {},
});
(0, eval)(require("fs").readFileSync(source, "utf8"));
const page = deconfuse.decisions;
(async () => {
  page.start();
  ids.forEach((i) => {
    page.decide("confusion", i, ["agree", "disagree", "unsure"][i % 3]);
    const label = i % 4 === 2 ? names[(i + 5) % n] : null;
    page.decide("label", i, ["accept", "reject", "other", "unsure"][i % 4], label);
  });
  await page.save("json");
  const json = written;
  await page.save("csv");
  const csv = written, told = {};
  const utf16 = Buffer.concat([Buffer.from([0xff, 0xfe]), Buffer.from(csv, "utf16le")]);
  const header = csv.replace(/^.*\\r\\n/, (line) => line.replaceAll(",", ", ").toUpperCase());
  const files = { plain: Buffer.from(csv), utf16, header: Buffer.from(header) };
  for (const [name, bytes] of Object.entries(files)) {
    page.clear();
    const taken = await page.read({ name: "d.csv", arrayBuffer: async () => bytes });
    await page.save("json");
    told[name] = [taken.taken, taken.left, taken.run, written === json];
  }
  console.log(JSON.stringify({ json, csv, told }));
})();
"""


@pytest.mark.skipif(NODE is None, reason="no node is installed")
def test_decisions_on_hostile_names_come_back_on_the_page_and_in_python(tmp_path):
    done = subprocess.run(
        [NODE, "-e", SCRIPT, str(SOURCE), json.dumps(NAMES)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["told"] == {key: [2 * len(NAMES), 0, "+run", True] for key in ("plain", "utf16", "header")}
    (tmp_path / "d.json").write_text(found["json"], "utf-8")
    (tmp_path / "d.csv").write_bytes(found["csv"].encode())
    one, other = read(tmp_path / "d.json"), read(tmp_path / "d.csv")
    assert one.run == other.run == "+run"
    assert one.pairs.equals(other.pairs)
    assert one.labels.equals(other.labels)
    assert one.pairs["query"].tolist() == NAMES
