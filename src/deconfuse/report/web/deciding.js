"use strict";

// How an item is decided: its buttons and keys, the likely labels on 1 to 5, recent labels, and notes.
(() => {
  const { el, get, row, percent, className, decisions } = deconfuse;

  const WORDS = {
    agree: "Agreed", disagree: "Disagreed", unsure: "Unsure", accept: "Accepted", reject: "Label is right", other: "Other label", exclude: "Excluded",
    merge: "Merge", swap: "Swap", apart: "Keep apart",
  };
  const PAIR = [
    ["agree", "Same thing", "a", "The two do show the same thing: the model is right, a label is at fault"],
    ["disagree", "Different", "d", "They are different things: the model is wrong"],
    ["unsure", "Unsure", "s", "Cannot be told from the pictures"],
  ];
  const REST = [
    ["reject", "Label is right", "r", "The label that it has is right"],
    ["other", "Other label", "o", "Type the label that it should have"],
    ["exclude", "Exclude", "x", "Not a usable picture: training leaves it out"],
    ["unsure", "Unsure", "s", "Cannot be told from the picture"],
  ];
  deconfuse.choices = {
    confusion: PAIR,
    mis_similar: [
      ["agree", "Really different", "a", "The model is right to keep them apart: they do not show the same thing, a label is at fault"],
      ["disagree", "Same thing", "d", "They do show the same thing: the model is wrong"],
      PAIR[2],
    ],
    label: [["accept", "Accept", "a", "Give it the recommended label"], ...REST],
    query: REST,
    gallery: REST,
    classes: [
      ["merge", "Merge", "m", "All samples of the first class get the second one"],
      ["swap", "Swap", "w", "The two names were mixed up: each class gets the other's samples"],
      ["apart", "Keep apart", "k", "They are rightly two classes; no merge is proposed again"],
    ],
  };
  const isLabel = (kind) => kind === "label" || kind === "query" || kind === "gallery";
  const partOf = (kind) => (kind === "label" ? "train" : kind);
  deconfuse.kindOf = (part) => (part === "train" ? "label" : part);

  // The labels that are offered on the keys 1 to 5, as [class id, share or null], most likely first.
  const offered = new Map();
  deconfuse.likely = async (kind, i) => {
    const name = `${kind}:${i}`;
    if (!offered.has(name)) {
      if (offered.size > 400) offered.clear();
      offered.set(name, kind === "label" ? await voted(i) : kind === "query" ? await nearby(i) : [[get(partOf(kind)).labels[i], null]]);
    }
    return offered.get(name);
  };

  async function voted(i) {
    const { likely, votes } = await row("sample", i);
    return likely.map((id, at) => [id, votes[at]]);
  }

  // A test sample's nearest others as a vote, weighted by exp(-distance); the label that it has is among them.
  async function nearby(i) {
    const { near, distance } = await row("query", i);
    const gallery = get(deconfuse.galleryPart());
    const [sums, weights] = [new Map(), distance.map((d) => Math.exp(-Math.sqrt(Math.max(0, d))))];
    const total = weights.reduce((a, b) => a + b, 0) || 1;
    near.forEach((j, at) => sums.set(gallery.labels[j], (sums.get(gallery.labels[j]) || 0) + weights[at] / total));
    const own = get("query").labels[i];
    if (!sums.has(own)) sums.set(own, 0);
    return [...sums].sort((a, b) => b[1] - a[1] || a[0] - b[0]).slice(0, 5);
  }

  const current = (kind, i) => className(get(partOf(kind)).labels[i]);
  const recommended = (kind, i) => (kind === "label" ? className(get("train").recommended[i]) : null);

  // What a decision says in one line.
  deconfuse.sentence = (kind, i, found) => {
    if (!found) return "Not decided";
    if (kind === "classes") {
      const [a, b] = i.split("-").map((id) => className(Number(id)));
      return { merge: `Merged: ${a} becomes ${b}`, swap: `Swapped: ${a} and ${b}`, apart: `Kept apart: ${a} and ${b}` }[found.decision];
    }
    if (!isLabel(kind)) return deconfuse.choices[kind].find(([decision]) => decision === found.decision)[1];
    return {
      accept: `Accepted: ${recommended(kind, i)}`, reject: `The label is right: ${current(kind, i)}`, other: `Other label: ${found.label}`,
      exclude: "Excluded: left out of " + (kind === "label" ? "training" : "the test side"), unsure: "Unsure",
    }[found.decision];
  };

  deconfuse.badge = (kind, i) => {
    const found = decisions.of(kind, i);
    return found && el("span", { class: `badge ${found.decision}` }, found.decision === "other" ? found.label : WORDS[found.decision]);
  };

  // Decide, and say in the line below the page what was done; after(): go on, where something changed.
  deconfuse.settle = (kind, i, decision, label, after) => {
    const changed = decisions.decide(kind, i, decision, label);
    const said = deconfuse.sentence(kind, i, decisions.of(kind, i));
    deconfuse.did(changed ? `${said}. U undoes` : `${said}, as before`);
    if (changed && after) after();
    return changed;
  };

  deconfuse.give = (kind, i, id, after) => {
    if (kind === "label" && className(id) === recommended(kind, i) && current(kind, i) !== recommended(kind, i)) return deconfuse.settle(kind, i, "accept", null, after);
    const { decision, label } = decisions.labelled(kind, className(id), current(kind, i), recommended(kind, i));
    return deconfuse.settle(kind, i, decision, label, after);
  };

  // A key on an item: true where it means something. ask(): open the field for another label; write(): the note.
  deconfuse.press = (kind, i, key, { after, ask, write }) => {
    if (isLabel(kind) && /^[1-5]$/.test(key)) {
      deconfuse.likely(kind, i).then((some) => some[key - 1] && deconfuse.give(kind, i, some[key - 1][0], after));
      return true;
    }
    if (key === "n" && write) {
      write();
      return true;
    }
    const choice = deconfuse.choices[kind].find(([, , letter]) => letter === key);
    if (!choice) return false;
    if (choice[0] === "other") {
      if (!ask) return false;
      ask();
    } else if (choice[0] === "accept" && recommended(kind, i) === current(kind, i)) deconfuse.settle(kind, i, "reject", null, after);
    else deconfuse.settle(kind, i, choice[0], null, after);
    return true;
  };

  // The buttons, the likely and the recent labels, the field for any other, and the note, of one item.
  // asking: with the field open. Returns {box, ask, write}.
  deconfuse.decide = (kind, i, after, asking = false) => {
    const found = decisions.of(kind, i);
    const same = isLabel(kind) && recommended(kind, i) === current(kind, i);
    const field = el("div", { class: "asked" });
    const ask = () => {
      if (field.childElementCount) return field.replaceChildren();
      field.append(deconfuse.completion("The label it should have", deconfuse.classesOf(kind), null, (id) => id !== null && deconfuse.give(kind, i, id, after), "Type a part of its name"));
      field.querySelector("input").focus();
    };
    const buttons = deconfuse.choices[kind].filter(([decision]) => !(decision === "accept" && same)).map(([decision, text, key, why]) => {
      const pressed = found !== null && found.decision === decision;
      const what = decision === "accept" ? `Accept: ${recommended(kind, i)}` : pressed && found.label ? `${text}: ${found.label}` : text;
      return el("button", { type: "button", class: `choice ${decision}`, "data-name": decision, "aria-pressed": String(pressed), title: why, "aria-keyshortcuts": key.toUpperCase(), onclick: () => (decision === "other" ? ask() : deconfuse.settle(kind, i, decision, null, after)) },
        el("span", { class: "choice-text", dir: "auto" }, what), el("kbd", { "aria-hidden": "true" }, key.toUpperCase()));
    });
    const note = el("input", { type: "text", value: decisions.noteOf(kind, i), maxlength: 500, "data-name": "note", placeholder: "For you, or for the next reviewer", dir: "auto", onchange: (event) => decisions.note(kind, i, event.target.value.trim()) });
    const box = el("div", { class: "deciding" },
      ...(isLabel(kind) ? [likelyBox(kind, i, after)] : []),
      el("div", { class: "choices", role: "group", "aria-label": "Decision" }, buttons),
      field,
      el("div", { class: "noting" }, deconfuse.field("Note (N)", note), others(kind, i, found)));
    if (asking) requestAnimationFrame(ask);
    return { box, ask, write: () => note.focus() };
  };

  // What other reviewers decided, where it differs.
  function others(kind, i, found) {
    if (!found || !found.others || !found.others.length) return null;
    return el("p", { class: "hint" }, `Decided otherwise: ${found.others.map((one) => `${one.reviewer || "another reviewer"}: ${deconfuse.sentence(kind, i, one)}`).join("; ")}`);
  }

  function likelyBox(kind, i, after) {
    const box = el("div", { class: "likely", role: "group", "aria-label": "Likely labels" });
    deconfuse.likely(kind, i).then((some) => {
      const now = get(partOf(kind)).labels[i];
      const left = some.every(([, share]) => share !== null) ? 1 - some.reduce((sum, [, share]) => sum + share, 0) : 0;
      const given = decisions.of(kind, i);
      const label = given && { accept: recommended(kind, i), other: given.label, reject: current(kind, i) }[given.decision];
      const buttons = some.map(([id, share], at) => {
        const bar = el("i", {});
        bar.style.inlineSize = `${100 * (share || 0)}%`;
        return el("button", { type: "button", class: "likely-one", "data-name": `likely-${at}`, "aria-pressed": String(label === className(id)), "aria-keyshortcuts": String(at + 1), onclick: () => deconfuse.give(kind, i, id, after) },
          el("kbd", { "aria-hidden": "true" }, String(at + 1)),
          el("span", { class: "likely-name", dir: "auto" }, className(id), id === now ? el("span", { class: "hint" }, " (label now)") : null),
          share === null ? null : el("span", { class: "n" }, percent(share)),
          share === null ? null : el("span", { class: "meter-bar", "aria-hidden": "true" }, bar));
      });
      const recent = decisions.recent(some.map(([id]) => className(id)), kind);
      const ids = new Map(recent.length ? get("run").class_names.map((name, id) => [name, id]) : []);
      box.replaceChildren(
        el("p", { class: "what" }, kind !== "label" ? "Votes of its nearest neighbours" : get("run").choices.detector === "evidence" ? "How likely each label is, by its neighbours, the model and copies" : "Votes of its neighbours, of 100 %"),
        ...buttons,
        ...(left > 0.005 ? [el("p", { class: "hint" }, `${percent(left)} for further labels`)] : []),
        ...(recent.length ? [el("p", { class: "recents" }, el("span", { class: "what" }, "Given last "), recent.map((name) => el("button", { type: "button", class: "chip-button", dir: "auto", onclick: () => deconfuse.give(kind, i, ids.get(name), after) }, name)))] : []));
    }, () => box.replaceChildren());
    return box;
  }
})();
