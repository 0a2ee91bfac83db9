"use strict";

// Which samples a list or a grid shows, and in which order; the fields of these filters.
(() => {
  const { el, get, number, className, address, go, decisions } = deconfuse;

  const SIDES = { train: "Training samples", query: "Queries", gallery: "Gallery" };
  deconfuse.sideOf = (settings) => (settings.get("side") in SIDES && get("run").parts[settings.get("side")] !== undefined ? settings.get("side") : "train");

  // Everything that lists and grids of samples choose from. The columns of the sort menu, by side.
  deconfuse.SORTS = {
    train: [["", "Most suspicious"], ["trusted", "Least suspicious"], ["harm", "Most harmful"], ["help", "Most helpful"], ["size", "Largest influence"], ["vote", "Surest vote"], ["class", "By label"], ["name", "By name"]],
    test: [["", "Confused first"], ["class", "By label"], ["name", "By name"]],
  };
  const COLUMNS = { "": ["suspicion", -1], trusted: ["suspicion", 1], harm: ["influence_mean", -1], help: ["influence_mean", 1], size: ["influence_abs_mean", -1], vote: ["vote_recommended", -1] };

  // Which samples to show, as [key, text, test of a row] each.
  function shows(side) {
    const train = get("train");
    const kind = deconfuse.kindOf(side);
    const state = [
      ["open", "Not decided", (k) => !decisions.of(kind, k)],
      ["done", "Decided", (k) => decisions.of(kind, k) !== null],
      ["noted", "With a note", (k) => decisions.noteOf(kind, k) !== ""],
      ["differ", "Reviewers differ", (k) => (decisions.of(kind, k) || {}).others !== undefined],
    ];
    if (side !== "train") return [["", "All", () => true], ["confused", "Nearest to another class", (k) => confused().has(k)], ...state];
    const wrong = new Set(train.suspects.slice(0, train.wrong));
    return [
      ["", "All", () => true],
      ["wrong", "Look wrong", (k) => wrong.has(k)],
      ["other", "Recommended another label", (k) => train.recommended[k] !== train.labels[k]],
      ["harmful", "Harmful on the whole", (k) => train.influence_mean[k] > 0],
      ["relabels", "Harmful, and recommended another", (k) => train.influence_mean[k] > 0 && train.recommended[k] !== train.labels[k]],
      ...(train.clean ? [["flipped", "Flipped by noise=", (k) => train.clean[k] !== train.labels[k]]] : []),
      ...(train.before ? [["corrected", "Corrected by relabels=", (k) => k in train.before]] : []),
      ...(train.left_out.length ? [["left", "Left out by relabels=", (k) => train.left_out.includes(k)]] : []),
      ...state,
    ];
  }
  deconfuse.shows = shows;

  let confusedRows = null;
  // The queries that are nearest to another class, each with its confusion.
  function confused() {
    if (!confusedRows) confusedRows = new Map(get("confusion").query.map((a, i) => [a, i]));
    return confusedRows;
  }

  // The rows that pass the settings, in their order. vote: the least vote for the recommended label, in percent.
  deconfuse.find = (settings) => {
    const side = deconfuse.sideOf(settings);
    const data = get(side);
    const train = side === "train";
    if (settings.has("in")) return settings.get("in").split(".").map(Number).filter((k) => k < data.labels.length);
    const word = (settings.get("q") || "").toLowerCase();
    const classes = settings.getAll("class").map(Number);
    const [low, high] = ["vote", "upto"].map((name) => (settings.has(name) && settings.get(name) !== "" ? Number(settings.get(name)) / 100 : null));
    const passes = (shows(side).find(([key]) => key === (settings.get("only") || "")) || [, , () => true])[2];
    const found = [];
    for (let k = 0; k < data.labels.length; k++) {
      if (classes.length && !classes.includes(data.labels[k]) && !(train && classes.includes(data.recommended[k]))) continue;
      if (train && low !== null && !(data.vote_recommended[k] >= low)) continue;
      if (train && high !== null && !(data.vote_recommended[k] <= high)) continue;
      if (!passes(k)) continue;
      if (word && !data.names[k].toLowerCase().includes(word) && !className(data.labels[k]).toLowerCase().includes(word)) continue;
      found.push(k);
    }
    return sorted(found, data, train, settings.get("sort") || "");
  };

  function sorted(found, data, train, how) {
    if (how === "name") return found.sort((i, j) => (data.names[i] < data.names[j] ? -1 : 1));
    if (how === "class") return found.sort((i, j) => data.labels[i] - data.labels[j] || i - j);
    if (!train) return found.sort((i, j) => (confused().get(i) ?? Infinity) - (confused().get(j) ?? Infinity) || i - j);
    const [column, sign] = COLUMNS[how] || COLUMNS[""];
    return found.sort((i, j) => sign * ((data[column][i] ?? -Infinity) - (data[column][j] ?? -Infinity)) || i - j);
  }
  deconfuse.confused = confused;

  let ranks = null;
  // In words, how suspicious a training sample is among those that are recommended another label.
  deconfuse.rankOf = (k) => {
    const { suspects } = get("train");
    if (!ranks) ranks = new Map(suspects.map((row, at) => [row, at + 1]));
    return ranks.has(k) ? `suspect ${number(ranks.get(k))} of ${number(suspects.length)}` : "no suspect";
  };

  // The fields that both the list and the grid are filtered by. set(key, value) changes a setting.
  deconfuse.sampleFilters = (settings, set, page) => {
    const run = get("run");
    const side = deconfuse.sideOf(settings);
    const ids = deconfuse.classesOf(deconfuse.kindOf(side));
    const chosen = settings.getAll("class").map(Number);
    const sides = Object.entries(SIDES).filter(([part]) => run.parts[part] !== undefined);
    const range = (name, label) => {
      const control = el("input", { type: "number", min: 0, max: 100, step: 5, value: settings.get(name) || "", onchange: () => set(name, control.value) });
      return deconfuse.field(label, control);
    };
    return [
      deconfuse.select("Side", sides, side, (value) => go(page, null, new URLSearchParams(value === "train" ? {} : { side: value }), true)),
      deconfuse.search("Search", settings.get("q"), (value) => set("q", value)),
      deconfuse.completion(chosen.length ? "And the class" : side === "train" ? "Class, now or recommended" : "Class", ids, null, (id) => id !== null && !chosen.includes(id) && set("class", [...chosen, id])),
      deconfuse.select("Show", shows(side).map(([key, text]) => [key, text]), settings.get("only") || "", (value) => set("only", value)),
      deconfuse.select("Sort", deconfuse.SORTS[side === "train" ? "train" : "test"], settings.get("sort") || "", (value) => set("sort", value)),
      ...(side === "train" ? [range("vote", "Vote from, %"), range("upto", "to, %")] : []),
      ...chosen.map((id) => el("p", { class: "chip" }, el("span", { dir: "auto" }, className(id)), el("button", { type: "button", class: "quiet", "aria-label": `Remove ${className(id)}`, onclick: () => set("class", chosen.filter((one) => one !== id)) }, "Remove"))),
      ...(settings.has("in") ? [el("p", { class: "chip" }, el("span", {}, "Only what was selected on the map"), el("button", { type: "button", class: "quiet", onclick: () => set("in", "") }, "Remove"))] : []),
    ];
  };

  // A copy of settings with one changed; a list gives several values, "" none.
  deconfuse.changed = (settings, key, value) => {
    const next = new URLSearchParams(settings);
    next.delete(key);
    for (const one of [value].flat()) if (one !== "" && one !== null) next.append(key, one);
    return next;
  };

  deconfuse.sampleViews = (now, settings) => {
    const side = settings && settings.get("side") ? { side: settings.get("side") } : {};
    return el("div", { class: "views", role: "group", "aria-label": "View" }, [["samples", "List"], ["grid", "Grid, many at once"]].map(([page, text]) =>
      el("a", { href: address(page, null, new URLSearchParams(side)), class: "view-link", "aria-current": page === now ? "true" : null }, text)));
  };
})();
