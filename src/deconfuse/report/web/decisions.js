"use strict";

// The reviewer's decisions: stored in the browser, undone, counted, exported to a file and imported from one.
deconfuse.decisions = (() => {
  const { get, load, notice } = deconfuse;
  const UNDO = 1000;
  const CSV = ["kind", "sample", "path", "neighbour", "class", "neighbour_class", "decision", "label", "recommended", "vote", "run"];
  const KINDS = { confusion: ["agree", "disagree", "unsure"], label: ["accept", "reject", "other", "unsure"] };
  KINDS.mis_similar = KINDS.confusion;
  let made = new Map(); // "confusion:12" -> {decision, label}
  let kept = true;
  const before = [];
  const listeners = new Set();

  const key = (kind, i) => `${kind}:${i}`;
  const place = () => `deconfuse:${get("run").run}:${get("run").fingerprint}`;

  function start() {
    try {
      made = new Map(Object.entries(JSON.parse(localStorage.getItem(place()) || "{}")));
    } catch (error) {
      if (error instanceof SyntaxError) made = new Map();
      else refused();
    }
    window.addEventListener("storage", (event) => {
      if (event.key !== place()) return; // another tab with this report
      made = new Map(Object.entries(JSON.parse(event.newValue || "{}")));
      tell();
    });
    window.addEventListener("beforeunload", (event) => {
      if (!kept && made.size) event.preventDefault();
    });
  }

  function refused() {
    kept = false;
    notice("This browser keeps nothing for this page. Export your decisions before you close it.", "error");
  }

  function keep() {
    if (kept) {
      try {
        localStorage.setItem(place(), JSON.stringify(Object.fromEntries(made)));
      } catch {
        refused();
      }
    }
    tell();
  }

  const tell = () => listeners.forEach((listener) => listener());

  const of = (kind, i) => made.get(key(kind, i)) || null;

  // Make a decision, or take it back (null).
  function decide(kind, i, decision, label = null) {
    change([[key(kind, i), decision === null ? null : { decision, label }]]);
  }

  function change(changes) {
    before.push(changes.map(([name]) => [name, made.get(name) || null]));
    if (before.length > UNDO) before.shift();
    apply(changes);
  }

  function apply(changes) {
    for (const [name, value] of changes) {
      if (value) made.set(name, value);
      else made.delete(name);
    }
    keep();
  }

  // Undo the last step; returns the item that it changed, or null where there is no step.
  function undo() {
    const last = before.pop();
    if (!last) return null;
    apply(last);
    const [kind, i] = last[0][0].split(":");
    return { kind, i: Number(i), changes: last.length };
  }

  function count(kind, decision) {
    let n = 0;
    for (const [name, value] of made) n += name.startsWith(`${kind}:`) && (!decision || value.decision === decision);
    return n;
  }

  // How many items of each kind can be reviewed.
  function sizes() {
    const run = get("run");
    return { confusion: run.confusions, label: run.relabels, mis_similar: run.mis_similar };
  }

  async function parts() {
    const gallery = deconfuse.galleryPart();
    await Promise.all(["train", "query", gallery, "confusion", ...(get("run").mis_similar ? ["mis_similar"] : [])].map(load));
    return { train: get("train"), query: get("query"), gallery: get(gallery) };
  }

  // The file decisions.json, in the order of the tables.
  async function collect() {
    const { train, query, gallery } = await parts();
    const run = get("run");
    const pairs = [];
    for (const kind of ["confusion", "mis_similar"]) {
      for (let i = 0; i < sizes()[kind]; i++) {
        const found = of(kind, i);
        if (!found) continue;
        const [a, b] = [get(kind).query[i], get(kind).neighbour[i]];
        pairs.push({
          kind,
          query: query.names[a],
          neighbour: gallery.names[b],
          query_class: deconfuse.className(query.labels[a]),
          neighbour_class: deconfuse.className(gallery.labels[b]),
          decision: found.decision,
        });
      }
    }
    const labels = [];
    for (const sample of train.relabels) {
      const found = of("label", sample);
      if (!found) continue;
      const recommended = deconfuse.className(train.recommended[sample]);
      labels.push({
        sample,
        path: train.names[sample],
        class: deconfuse.className(train.labels[sample]),
        decision: found.decision,
        label: found.decision === "accept" ? recommended : found.decision === "other" ? found.label : null,
        recommended,
        vote: train.vote_recommended[sample],
      });
    }
    return { format: 1, run: run.run, checkpoint: run.checkpoint_name, pairs, labels };
  }

  // Text is always quoted, with quotes doubled (RFC 4180), and numbers never, so that both are read as written.
  // A ' is put before text that a spreadsheet would compute, and before a ', as in the run's own tables.
  const guarded = (text) => (/^[=+\-@\t\r']/.test(text) && text !== "-" ? `'${text}` : text);
  const unguarded = (text) => (text.startsWith("'") ? text.slice(1) : text);

  function toCsv(file) {
    const quote = (value) => (value === null ? "" : typeof value === "number" ? String(value) : `"${guarded(value).replaceAll('"', '""')}"`);
    const rows = file.pairs.map((pair) => [
      pair.kind, null, pair.query, pair.neighbour, pair.query_class, pair.neighbour_class, pair.decision, null, null, null, file.run,
    ]);
    const labels = file.labels.map((one) => [
      "label", one.sample, one.path, null, one.class, null, one.decision, one.label, one.recommended, one.vote, file.run,
    ]);
    return [CSV.join(","), ...[...rows, ...labels].map((row) => row.map(quote).join(","))].join("\r\n") + "\r\n";
  }

  function fromCsv(text) {
    const whole = text.replace(/^\uFEFF/, "");
    const first = whole.split(/[\r\n]/, 1)[0];
    const number = (cut) => first.split(cut).length;
    const cut = [",", ";", "\t"].reduce((most, other) => (number(other) > number(most) ? other : most)); // as spreadsheets save it
    const [names, ...rows] = cells(whole, cut, first.includes(`${cut} `));
    const header = names && names.map((name) => name.trim().toLowerCase());
    if (!header || CSV.some((name) => name !== "run" && !header.includes(name))) throw new Error(`a decisions CSV has the columns ${CSV.join(", ")}`);
    const file = { format: 1, run: null, pairs: [], labels: [] };
    for (const row of rows) {
      const cell = (name) => unguarded(row[header.indexOf(name)] ?? "");
      file.run = cell("run") || null;
      if (cell("kind") === "label") {
        file.labels.push({ sample: Number(cell("sample")), path: cell("path"), class: cell("class"), decision: cell("decision"), label: cell("label") || null, recommended: cell("recommended") });
      } else {
        file.pairs.push({ kind: cell("kind"), query: cell("path"), neighbour: cell("neighbour"), decision: cell("decision") });
      }
    }
    return file;
  }

  // spaced: spaces after delimiters are ignored.
  function cells(text, cut, spaced) {
    const rows = [];
    let [row, at] = [[], 0];
    while (at < text.length) {
      let value = "";
      while (spaced && text[at] === " ") at++;
      if (text[at] === '"') {
        for (at++; at < text.length; at++) {
          if (text[at] !== '"') value += text[at];
          else if (text[at + 1] === '"') value += text[at++];
          else break;
        }
        at++;
      } else {
        const start = at;
        while (at < text.length && text[at] !== cut && text[at] !== "\r" && text[at] !== "\n") at++;
        value = text.slice(start, at);
      }
      row.push(value);
      if (text[at] === cut) {
        at++;
        if (at === text.length) row.push("");
        continue;
      }
      while (text[at] === "\r" || text[at] === "\n") at++;
      rows.push(row);
      row = [];
    }
    return rows;
  }

  // Import the decisions that fit this run, as one step that can be undone. run: named in the file, or null.
  async function take(file) {
    if (file === null || typeof file !== "object" || file.format !== 1 || !Array.isArray(file.pairs) || !Array.isArray(file.labels)) {
      throw new Error('it is no decisions file: "format": 1, "pairs" and "labels" are expected');
    }
    const { train, query, gallery } = await parts();
    const rows = new Map();
    for (const kind of ["confusion", "mis_similar"]) {
      for (let i = 0; i < sizes()[kind]; i++) {
        rows.set(JSON.stringify([kind, query.names[get(kind).query[i]], gallery.names[get(kind).neighbour[i]]]), i);
      }
    }
    const changes = [];
    for (const pair of file.pairs) {
      const i = rows.get(JSON.stringify([pair.kind, pair.query, pair.neighbour]));
      if (i !== undefined && KINDS[pair.kind].includes(pair.decision)) changes.push([key(pair.kind, i), { decision: pair.decision, label: null }]);
    }
    const relabels = new Set(train.relabels);
    for (const one of file.labels) {
      if (!relabels.has(one.sample) || train.names[one.sample] !== one.path) continue;
      const found = judged(one, deconfuse.className(train.labels[one.sample]), deconfuse.className(train.recommended[one.sample]));
      if (found) changes.push([key("label", one.sample), found]);
    }
    if (changes.length) change(changes);
    return { taken: changes.length, left: file.pairs.length + file.labels.length - changes.length, run: file.run };
  }

  // A file's decision on a label as a decision on this run's label and recommendation; null where there is none.
  // Where the other run recommends another label, its accept is other here, and its other may be accept.
  function judged(one, current, recommended) {
    if (!KINDS.label.includes(one.decision) || one.class !== current) return null;
    if (one.decision === "reject" || one.decision === "unsure") return { decision: one.decision, label: null };
    return labelled(one.label || (one.decision === "accept" ? one.recommended : null), current, recommended);
  }

  // The decision that gives this label: accept where it is recommended, reject where it is the current label.
  function labelled(label, current, recommended) {
    if (label === recommended) return { decision: "accept", label: null };
    if (label === current) return { decision: "reject", label: null };
    const run = get("run");
    return run.class_names.slice(0, run.training_classes).includes(label) ? { decision: "other", label } : null;
  }

  async function read(file) {
    const bytes = new Uint8Array(await file.arrayBuffer());
    const mark = bytes[0] * 256 + bytes[1];
    const text = new TextDecoder(mark === 0xfffe ? "utf-16le" : mark === 0xfeff ? "utf-16be" : "utf-8").decode(bytes);
    if (file.name.toLowerCase().endsWith(".csv")) return take(fromCsv(text));
    let found;
    try {
      found = JSON.parse(text);
    } catch {
      throw new Error("it is no JSON");
    }
    return take(found);
  }

  async function save(kind) {
    const file = await collect();
    const text = kind === "csv" ? toCsv(file) : `${JSON.stringify(file, null, 2)}\n`;
    const type = kind === "csv" ? "text/csv" : "application/json";
    const link = deconfuse.el("a", { href: URL.createObjectURL(new Blob([text], { type })), download: `decisions.${kind}` });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  function clear() {
    if (made.size) change([...made.keys()].map((name) => [name, null]));
  }

  return {
    start, of, decide, undo, count, sizes, labelled, read, save, clear,
    all: () => made.size,
    onchange: (listener) => listeners.add(listener),
  };
})();
