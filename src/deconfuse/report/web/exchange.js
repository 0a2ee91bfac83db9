"use strict";

// Decisions as files: decisions.json and CSV, out and in, and the forms that other tools read.
deconfuse.exchange = (() => {
  const { get, load, decisions } = deconfuse;
  const CSV = ["kind", "sample", "path", "neighbour", "class", "neighbour_class", "decision", "label", "recommended", "vote", "run", "note", "reviewer", "time"];
  const NEEDED = CSV.slice(0, 10);
  const PAIRS = ["confusion", "mis_similar"];

  async function parts() {
    const gallery = deconfuse.galleryPart();
    await Promise.all(["train", "query", gallery, "confusion", ...(get("run").mis_similar ? ["mis_similar"] : [])].map(load));
    return { train: get("train"), query: get("query"), gallery: get(gallery) };
  }

  // What is said of a decision beside itself; who and when only where known.
  const beside = (found) => ({
    ...(found.note ? { note: found.note } : {}),
    ...(found.reviewer || decisions.reviewer() ? { reviewer: found.reviewer || decisions.reviewer() } : {}),
    ...(found.time ? { time: found.time } : {}),
  });

  // The file decisions.json, in the order of the tables.
  async function collect() {
    const { train, query, gallery } = await parts();
    const run = get("run");
    const name = deconfuse.className;
    const numeric = (kind) => [...decisions.entries(kind)].sort((a, b) => a[0] - b[0]);
    const pairs = PAIRS.flatMap((kind) => numeric(kind).map(([i, found]) => {
      const [a, b] = [get(kind).query[i], get(kind).neighbour[i]];
      return { kind, query: query.names[a], neighbour: gallery.names[b], query_class: name(query.labels[a]), neighbour_class: name(gallery.labels[b]), decision: found.decision, ...beside(found) };
    }));
    const labels = [...decisions.entries("label")].sort(([i], [j]) => (train.suspicion[j] ?? -Infinity) - (train.suspicion[i] ?? -Infinity) || i - j).map(([sample, found]) => {
      const recommended = name(train.recommended[sample]);
      return {
        sample, path: train.names[sample], class: name(train.labels[sample]), decision: found.decision,
        label: found.decision === "accept" ? recommended : found.decision === "other" ? found.label : null,
        recommended, vote: train.vote_recommended[sample], ...beside(found),
      };
    });
    const tests = ["query", "gallery"].flatMap((kind) => numeric(kind).map(([i, found]) => ({
      kind, path: get(kind).names[i], class: name(get(kind).labels[i]), decision: found.decision, label: found.decision === "other" ? found.label : null, ...beside(found),
    })));
    const classes = [...decisions.entries("classes")].map(([both, found]) => {
      const [a, b] = both.split("-").map(Number);
      return { class: name(a), with: name(b), decision: found.decision, ...beside(found) };
    });
    const who = decisions.reviewer() ? { reviewer: decisions.reviewer() } : {};
    return { format: 1, run: run.run, checkpoint: run.checkpoint_name, ...who, pairs, labels, tests, classes };
  }

  // Text is always quoted, with quotes doubled (RFC 4180), and numbers never, so that both are read as written.
  // A ' is put before text that a spreadsheet would compute, and before a ', as in the run's own tables.
  const guarded = (text) => (/^[=+\-@\t\r']/.test(text) && text !== "-" ? `'${text}` : text);
  const unguarded = (text) => (text.startsWith("'") ? text.slice(1) : text);
  const quote = (value) => (value === null || value === undefined ? "" : typeof value === "number" ? String(value) : `"${guarded(value).replaceAll('"', '""')}"`);

  function toCsv(file) {
    const end = (one) => [file.run, one.note, one.reviewer, one.time];
    const rows = [
      ...file.pairs.map((one) => [one.kind, null, one.query, one.neighbour, one.query_class, one.neighbour_class, one.decision, null, null, null, ...end(one)]),
      ...file.labels.map((one) => ["label", one.sample, one.path, null, one.class, null, one.decision, one.label, one.recommended, one.vote, ...end(one)]),
      ...file.tests.map((one) => [one.kind, null, one.path, null, one.class, null, one.decision, one.label, null, null, ...end(one)]),
      ...file.classes.map((one) => ["classes", null, null, null, one.class, one.with, one.decision, null, null, null, ...end(one)]),
    ];
    return [CSV.join(","), ...rows.map((row) => row.map(quote).join(","))].join("\r\n") + "\r\n";
  }

  function fromCsv(text) {
    const whole = text.replace(/^\uFEFF/, "");
    const first = whole.split(/[\r\n]/, 1)[0];
    const number = (cut) => first.split(cut).length;
    const cut = [",", ";", "\t"].reduce((most, other) => (number(other) > number(most) ? other : most)); // as spreadsheets save it
    const [names, ...rows] = cells(whole, cut, first.includes(`${cut} `));
    const header = names && names.map((name) => name.trim().toLowerCase());
    const missing = header ? NEEDED.filter((name) => !header.includes(name)) : NEEDED;
    if (missing.length) throw new Error(`it has no column ${missing.join(", ")}; a decisions CSV has ${NEEDED.join(", ")}`);
    const file = { format: 1, run: null, pairs: [], labels: [], tests: [], classes: [] };
    for (const row of rows) {
      const cell = (name) => unguarded(row[header.indexOf(name)] ?? "");
      file.run = cell("run") || null;
      const more = { decision: cell("decision"), note: cell("note"), reviewer: cell("reviewer"), time: cell("time") };
      const kind = cell("kind");
      if (kind === "label") file.labels.push({ path: cell("path"), class: cell("class"), label: cell("label") || null, recommended: cell("recommended"), ...more });
      else if (kind === "query" || kind === "gallery") file.tests.push({ kind, path: cell("path"), class: cell("class"), label: cell("label") || null, ...more });
      else if (kind === "classes") file.classes.push({ class: cell("class"), with: cell("neighbour_class"), ...more });
      else file.pairs.push({ kind, query: cell("path"), neighbour: cell("neighbour"), ...more });
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

  const LISTS = ["pairs", "labels", "tests", "classes"];

  // Import the decisions that fit this run, as one step that can be undone. Of another reviewer's decisions those
  // that differ from the ones here are kept beside them, and the ones here stay.
  async function take(found) {
    if (found === null || typeof found !== "object" || Array.isArray(found)) throw new Error("it is no decisions file: an object of names and values is expected");
    if (found.format !== 1) throw new Error(`its format is ${JSON.stringify(found.format)}, not 1: it is no decisions file of this report`);
    const file = { tests: [], classes: [], ...found };
    for (const name of LISTS) if (!Array.isArray(file[name])) throw new Error(`"${name}" in it is no list`);
    const targets = await places();
    const told = { taken: 0, same: 0, differ: 0, left: 0, run: file.run };
    const changes = new Map();
    for (const name of LISTS) {
      for (const one of file[name]) {
        const target = one && typeof one === "object" ? targets[name](one) : null;
        if (!target) told.left += 1;
        else place(target, one, file.reviewer || null, changes, told);
      }
    }
    if (changes.size) decisions.change([...changes]);
    return told;
  }

  function place([kind, i, value], one, of, changes, told) {
    const who = one.reviewer || of;
    const more = Object.fromEntries(["note", "time"].filter((name) => one[name]).map((name) => [name, String(one[name])]));
    const [name, mine] = [decisions.key(kind, i), decisions.raw(kind, i)];
    const next = { ...value, ...more, ...(who && who !== decisions.reviewer() ? { reviewer: who } : {}) };
    if (mine && mine.decision) {
      const same = mine.decision === value.decision && (mine.label || null) === value.label;
      told[same ? "same" : "differ"] += 1;
      if (same) return;
      if (who !== (mine.reviewer || decisions.reviewer() || null)) {
        const others = [...(mine.others || []).filter((other) => other.reviewer !== who), { reviewer: who, decision: value.decision, label: value.label }];
        changes.set(name, { ...mine, others });
        return;
      }
    }
    changes.set(name, next);
    told.taken += 1;
  }

  // By list of a file: a function from an entry to [kind, item, {decision, label}] of this run, or null.
  async function places() {
    const { train, query, gallery } = await parts();
    const pairs = new Map();
    for (const kind of PAIRS) {
      if (!get(kind)) continue;
      get(kind).query.forEach((a, i) => pairs.set(JSON.stringify([kind, query.names[a], gallery.names[get(kind).neighbour[i]]]), i));
    }
    const rows = Object.fromEntries(Object.entries({ label: train, query, gallery: get("gallery") }).filter(([, part]) => part).map(([kind, part]) => [kind, new Map(part.names.map((name, i) => [name, i]))]));
    const ids = new Map(get("run").class_names.map((name, id) => [name, id]));
    const sample = (kind, one) => {
      const i = rows[kind] && rows[kind].get(one.path);
      const part = kind === "label" ? train : get(kind);
      if (i === undefined || one.class !== deconfuse.className(part.labels[i]) || !decisions.KINDS[kind].includes(one.decision)) return null;
      const value = judged(kind, one, one.class, kind === "label" ? deconfuse.className(train.recommended[i]) : null);
      return value && [kind, i, value];
    };
    return {
      pairs: (one) => {
        const i = pairs.get(JSON.stringify([one.kind, one.query, one.neighbour]));
        return i !== undefined && decisions.KINDS[one.kind].includes(one.decision) ? [one.kind, i, { decision: one.decision, label: null }] : null;
      },
      labels: (one) => sample("label", one),
      tests: (one) => (one.kind === "query" || one.kind === "gallery" ? sample(one.kind, one) : null),
      classes: (one) => {
        const [a, b] = [ids.get(one.class), ids.get(one.with)];
        return a !== undefined && b !== undefined && a !== b && decisions.KINDS.classes.includes(one.decision) ? ["classes", `${a}-${b}`, { decision: one.decision, label: null }] : null;
      },
    };
  }

  // A file's decision on a label as a decision on this run's label and recommendation; null where there is none.
  // Where the other run recommends another label, its accept is other here, and its other may be accept.
  function judged(kind, one, current, recommended) {
    if (["reject", "unsure", "exclude"].includes(one.decision)) return { decision: one.decision, label: null };
    return decisions.labelled(kind, one.label || (one.decision === "accept" ? one.recommended : null), current, recommended);
  }

  async function read(file) {
    const bytes = new Uint8Array(await file.arrayBuffer());
    const mark = bytes[0] * 256 + bytes[1];
    const text = new TextDecoder(mark === 0xfffe ? "utf-16le" : mark === 0xfeff ? "utf-16be" : "utf-8").decode(bytes);
    if (file.name.toLowerCase().endsWith(".csv")) return take(fromCsv(text));
    let found;
    try {
      found = JSON.parse(text);
    } catch (error) {
      throw new Error(`it is not whole JSON (${error.message})`);
    }
    return take(found);
  }

  // For other tools, all training samples: Label Studio's tasks with the recommended labels as predictions.
  async function labelStudio() {
    const { train } = await parts();
    const choice = (label) => [{ from_name: "label", to_name: "image", type: "choices", value: { choices: [label] } }];
    return train.names.map((path, i) => {
      const [current, recommended] = [deconfuse.className(train.labels[i]), deconfuse.className(train.recommended[i])];
      const found = decisions.of("label", i);
      const given = found && { accept: recommended, other: found.label, reject: current }[found.decision];
      return {
        data: { image: path, path, label_now: current, recommended, suspicion: train.suspicion[i] },
        predictions: [{ model_version: get("run").run, score: train.vote_recommended[i], result: choice(recommended) }],
        annotations: given ? [{ result: choice(given), was_cancelled: false }] : [],
      };
    });
  }

  const FORMS = {
    json: ["decisions.json", "application/json", async () => `${JSON.stringify(await collect(), null, 2)}\n`],
    csv: ["decisions.csv", "text/csv", async () => toCsv(await collect())],
    labelstudio: ["labelstudio.json", "application/json", async () => `${JSON.stringify(await labelStudio())}\n`],
  };

  async function save(form) {
    const [name, type, make] = FORMS[form];
    const link = deconfuse.el("a", { href: URL.createObjectURL(new Blob([await make()], { type })), download: name });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  // The run's own command with the exported decisions.
  function command() {
    const words = get("run").command.replace(/\s+relabels(\.file)?=\S+/g, "").replace(/\s+relabels\.test=\S+/g, "");
    const tested = decisions.count("query") + decisions.count("gallery");
    return `${words} relabels=decisions.json${tested ? " relabels.test=true" : ""}`;
  }

  return { read, save, command };
})();
