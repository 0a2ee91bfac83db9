"use strict";

// The reviewer's decisions: stored in the browser with their history, so that undo outlives a reload.
// Kinds: confusion, mis_similar (pairs), label (training samples), query and gallery (test samples), and classes,
// whose items are "3-7", two class ids.
deconfuse.decisions = (() => {
  const { get, notice } = deconfuse;
  const UNDO = 300; // steps that can be undone
  const RECENT = 5; // labels given last
  const LAST = 25; // decisions that "of the last 25" is about
  const PAIR = ["agree", "disagree", "unsure"];
  const TEST = ["reject", "other", "exclude", "unsure"];
  const KINDS = {
    confusion: PAIR, mis_similar: PAIR, label: ["accept", ...TEST], query: TEST, gallery: TEST, classes: ["merge", "swap", "apart"],
  };
  const CHANGES = new Set(["accept", "other", "exclude"]); // decisions that change what is trained on
  let made = new Map(); // "confusion:12" -> {decision, label, note, time, others}
  let before = []; // steps, each [name, earlier value or null] of what it changed
  let reviewer = "";
  let kept = true;
  const listeners = new Set();

  const key = (kind, i) => `${kind}:${i}`;
  const place = () => `deconfuse:${get("run").run}:${get("run").fingerprint}`;

  function read(text) {
    const found = JSON.parse(text || "{}");
    made = new Map(Object.entries(found.made || {}));
    before = found.before || [];
  }

  function start() {
    try {
      reviewer = localStorage.getItem("deconfuse:reviewer") || "";
      read(localStorage.getItem(place()));
    } catch (error) {
      if (!(error instanceof SyntaxError)) refused();
    }
    window.addEventListener("storage", (event) => {
      if (event.key !== place()) return; // another tab with this report
      read(event.newValue);
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
        localStorage.setItem(place(), JSON.stringify({ made: Object.fromEntries(made), before }));
      } catch {
        refused();
      }
    }
    tell();
  }

  const tell = () => listeners.forEach((listener) => listener());
  const of = (kind, i) => (made.has(key(kind, i)) && made.get(key(kind, i)).decision ? made.get(key(kind, i)) : null);
  const noteOf = (kind, i) => (made.get(key(kind, i)) || {}).note || "";

  // A pair and its mirror image, each other's nearest neighbours, are decided together.
  function twins(kind, i) {
    const mirror = kind === "confusion" && get("confusion") ? get("confusion").mirror[i] : -1;
    return mirror >= 0 ? [i, mirror] : [i];
  }

  // Decide on items of a kind in one step; false where that is what they have. The note of an item stays.
  function decide(kind, items, decision, label = null) {
    const time = new Date().toISOString().slice(0, 19) + "Z";
    const changes = [];
    for (const item of [items].flat()) {
      for (const i of twins(kind, item)) {
        const found = made.get(key(kind, i));
        if (found && found.decision === decision && (found.label || null) === label) continue;
        changes.push([key(kind, i), { ...(found || {}), decision, label, time }]);
      }
    }
    if (changes.length) change(changes);
    return changes.length > 0;
  }

  function note(kind, i, text) {
    const found = made.get(key(kind, i));
    if (((found && found.note) || "") === text) return;
    change(twins(kind, i).map((j) => {
      const { note: _, ...rest } = made.get(key(kind, j)) || {};
      const next = text ? { ...rest, note: text } : rest;
      return [key(kind, j), Object.keys(next).length ? next : null];
    }));
  }

  // changes: [name, value or null] each, as one step.
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
    return { kind, i: kind === "classes" ? i : Number(i), changes: last.length };
  }

  function* entries(kind) {
    for (const [name, value] of made) {
      if (value.decision && name.startsWith(`${kind}:`)) yield [kind === "classes" ? name.slice(8) : Number(name.split(":")[1]), value];
    }
  }

  function count(kind, decision) {
    let n = 0;
    for (const [, value] of entries(kind)) n += !decision || value.decision === decision;
    return n;
  }

  // How many decisions there are on anything, and how many of them change a label or leave a sample out.
  const all = () => [...made.values()].filter((value) => value.decision || value.note).length;
  const changing = () => [...entries("label")].filter(([, value]) => CHANGES.has(value.decision)).length;

  // Of the last decisions on training labels: how many there are, at most LAST, and how many change the label.
  function lately() {
    const last = [...entries("label")].map(([, value]) => value).sort((a, b) => (a.time < b.time ? 1 : -1)).slice(0, LAST);
    return { of: last.length, changed: last.filter((value) => CHANGES.has(value.decision)).length };
  }

  // The labels given last, as names, without those in `but`.
  function recent(but, kind = "label") {
    const given = [...entries(kind)].map(([, value]) => value).filter((value) => value.label && !but.includes(value.label));
    given.sort((a, b) => (a.time < b.time ? 1 : -1));
    return [...new Set(given.map((value) => value.label))].slice(0, RECENT);
  }

  // The decision that gives a sample this label, by names: reject where it has the label, accept where it is
  // recommended (training samples alone), null where it is no class of that side.
  function labelled(kind, label, current, recommended) {
    if (label === current) return { decision: "reject", label: null };
    if (kind === "label" && label === recommended) return { decision: "accept", label: null };
    return deconfuse.classesOf(kind).some((id) => deconfuse.className(id) === label) ? { decision: "other", label } : null;
  }

  function clear() {
    if (made.size) change([...made.keys()].map((name) => [name, null]));
  }

  function name(text) {
    reviewer = text.trim();
    try {
      localStorage.setItem("deconfuse:reviewer", reviewer);
    } catch {
      return; // it holds for this visit
    }
  }

  return {
    KINDS, start, of, noteOf, decide, note, change, undo, entries, count, all, changing, lately, recent, labelled, clear, name, key, twins,
    raw: (kind, i) => made.get(key(kind, i)) || null,
    reviewer: () => reviewer,
    onchange: (listener) => listeners.add(listener),
  };
})();

// The class ids of the side that a kind of item is of: training classes, or those to test with.
deconfuse.classesOf = (kind) => {
  const { class_names: names, training_classes: c } = deconfuse.get("run");
  const ids = names.map((_, id) => id);
  return kind === "label" || kind === "train" ? ids.slice(0, c) : ids.slice(c);
};
