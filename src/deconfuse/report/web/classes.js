"use strict";

// Classes: a table of all, two of them side by side, and the matrix of those that are confused most.
(() => {
  const { el, get, number, percent, className, address, go, decisions, figure } = deconfuse;
  const KINDS = {
    centralized: "many of its samples are recommended one other label",
    diversified: "many are recommended another label, of many classes: clean the class",
    individual: "few are recommended another label: look at the samples",
    others: "some are recommended another label",
  };
  const MATRIX = 40; // classes in the matrix

  // A line for each class: [id, samples, recommended another label, confusions, kind, leans to, its share, decided].
  function lines() {
    const run = get("run");
    const c = run.training_classes;
    const found = run.class_names.map((_, id) => ({ id, side: id < c ? "train" : "test", samples: 0, suggestions: 0, confused: 0, kind: "", leans: null, share: null, merge: null }));
    for (const label of get("train").labels) found[label].samples += 1;
    for (const part of ["query", "gallery"]) if (get(part) && (part === "gallery" || run.shared_gallery)) for (const label of get(part).labels) found[label].samples += 1;
    for (const [a, b, there, back] of run.edges) {
      found[a].confused += there + back;
      found[b].confused += there + back;
    }
    for (const [id, , suggestions, leans, share, , kind, , merge] of run.taxonomy) Object.assign(found[id], { suggestions, leans, share, kind, merge });
    return found;
  }

  const SORTS = {
    name: ["Class", null],
    suggestions: ["Relabels", (line) => line.suggestions],
    samples: ["Samples", (line) => line.samples],
    confused: ["Confusions", (line) => line.confused],
    leans: ["Recommended most", (line) => line.share || 0],
  };

  const both = (a, b) => `${a}-${b}`;
  // The decision on two classes, in either order: [the item's name, the decision] or null.
  deconfuse.classDecision = (a, b) => [both(a, b), both(b, a)].map((name) => [name, decisions.of("classes", name)]).find(([, found]) => found) || null;

  function decidePair(a, b, decision, after) {
    const old = deconfuse.classDecision(a, b);
    const name = decision === "merge" ? both(a, b) : old ? old[0] : both(a, b);
    if (old && old[0] !== name) decisions.change([[decisions.key("classes", old[0]), null]]);
    deconfuse.settle("classes", name, decision, null, after);
  }

  function members(id, side) {
    const part = side === "train" ? "train" : deconfuse.galleryPart();
    const labels = get(part).labels;
    const typical = ((get("typical") || {})[side] || [])[id] || [];
    const shown = new Set(typical);
    const rest = labels.map((_, k) => k).filter((k) => labels[k] === id && !shown.has(k));
    return [part, [...typical, ...rest.slice(0, 24)], typical.length + rest.length];
  }

  function pane(id, side) {
    const [part, some, total] = members(id, side);
    return el("section", { class: "card" }, el("h2", { dir: "auto" }, className(id)),
      el("p", { class: "hint" }, `${number(total)} samples; the most typical first. `, el("a", { href: address("grid", null, new URLSearchParams(side === "train" ? { class: id } : { class: id, side: part })) }, "All of them in the grid")),
      el("div", { class: "strip" }, some.map((k) => figure(part, k, [], deconfuse.sampleAddress(part, k)))));
  }

  function compared(a, b, redraw) {
    const run = get("run");
    const side = a < run.training_classes ? "train" : "test";
    const mixed = (a < run.training_classes) !== (b < run.training_classes);
    const edge = run.edges.find((one) => (one[0] === a && one[1] === b) || (one[0] === b && one[1] === a));
    const found = deconfuse.classDecision(a, b);
    const merge = found && found[1].decision === "merge" ? found[0].split("-").map(Number) : [a, b];
    const buttons = deconfuse.choices.classes.map(([decision, text, key, why]) =>
      el("button", { type: "button", class: `choice ${decision}`, "data-name": decision, title: why, "aria-keyshortcuts": key.toUpperCase(), "aria-pressed": String(found !== null && found[1].decision === decision), onclick: () => decidePair(merge[0], merge[1], decision, redraw) },
        decision === "merge" ? `Merge into ${className(merge[1])}` : text, el("kbd", { "aria-hidden": "true" }, key.toUpperCase())));
    return el("div", { class: "prose-page" },
      el("p", {}, el("a", { href: address("classes") }, "‹ All classes")),
      el("div", { class: "two-classes" }, pane(a, side), pane(b, b < run.training_classes ? "train" : "test")),
      edge ? el("p", { class: "hint" }, `${number(edge[2])} queries of ${className(edge[0])} are nearest to ${className(edge[1])}, ${number(edge[3])} the other way round. `, el("a", { href: deconfuse.pairAddress(a, b) }, "Their confusions")) : null,
      mixed ? el("p", { class: "hint" }, "One is trained on and the other tested with: they cannot be merged or swapped.") : el("div", { class: "choices", role: "group", "aria-label": "Decision on the two classes" }, buttons),
      side === "test" && !mixed ? el("p", { class: "hint" }, "Test classes: applied with relabels.test=true alone.") : null,
      found ? el("p", {}, deconfuse.sentence("classes", found[0], found[1]), ". ", el("button", { type: "button", class: "quiet", onclick: () => decisions.change([[decisions.key("classes", found[0]), null]]) }, "Take it back")) : null);
  }

  // Counts of queries of a row's class that are nearest to a column's class.
  function matrix() {
    const run = get("run");
    const counts = new Map();
    for (const [a, b, there, back] of run.edges) {
      for (const id of [a, b]) counts.set(id, (counts.get(id) || 0) + there + back);
    }
    // Classes that are confused with each other stand side by side.
    const most = [...counts].sort((x, y) => y[1] - x[1] || x[0] - y[0]).slice(0, MATRIX).map(([id]) => id);
    const ids = [];
    for (const id of most) {
      if (ids.includes(id)) continue;
      ids.push(id);
      for (const [a, b] of run.edges) {
        const other = a === id ? b : b === id ? a : null;
        if (other !== null && most.includes(other) && !ids.includes(other)) ids.push(other);
      }
    }
    const at = new Map();
    for (const [a, b, there, back] of run.edges) {
      at.set(both(a, b), there);
      at.set(both(b, a), back);
    }
    const largest = Math.max(1, ...at.values());
    const head = el("tr", {}, el("td", {}), ids.map((id) => el("th", { scope: "col", title: className(id) }, el("span", { dir: "auto" }, className(id)))));
    const body = ids.map((row) => el("tr", {}, el("th", { scope: "row", dir: "auto", title: className(row) }, className(row)), ids.map((column) => {
      const n = at.get(both(row, column)) || 0;
      if (!n) return el("td", { class: row === column ? "own" : "" });
      const cell = el("td", { class: "some" }, el("a", { href: address("classes", null, new URLSearchParams({ class: row, with: column })), title: `${number(n)} queries of ${className(row)} are nearest to ${className(column)}` }, String(n)));
      cell.style.setProperty("--share", `${Math.round(15 + (85 * n) / largest)}%`);
      return cell;
    })));
    return el("div", { class: "prose-page" },
      el("p", { class: "hint" }, `The ${number(ids.length)} test classes that are confused most. A row's queries are nearest to a column's class; a number leads to the two side by side.`),
      ids.length ? el("div", { class: "scroll matrix", tabindex: "0", role: "region", "aria-label": "Confusion matrix" }, el("table", {}, el("thead", {}, head), el("tbody", {}, body))) : el("p", { class: "none" }, "No query is nearest to another class."));
  }

  function consider() {
    const proposed = lines().filter((line) => line.merge !== null && !(deconfuse.classDecision(line.id, line.merge)));
    if (!proposed.length) return el("p", { class: "none" }, "No two classes look like one: it is proposed where four or more relabels are a fifth of a class, and three quarters of them agree.");
    return el("ul", { class: "merges" }, proposed.map((line) => {
      const thumbs = (id) => (((get("typical") || {}).train || [])[id] || []).slice(0, 3).map((k) => deconfuse.thumb("train", k));
      return el("li", {},
        el("span", { class: "merge-pictures" }, thumbs(line.id), el("span", { class: "with", "aria-hidden": "true" }, "→"), thumbs(line.merge)),
        el("span", {}, "Consider: ", el("a", { dir: "auto", href: address("classes", null, new URLSearchParams({ class: line.id, with: line.merge })) }, `${className(line.id)} and ${className(line.merge)} side by side`),
          el("span", { class: "hint" }, ` ${number(line.suggestions)} of the ${number(line.samples)} samples of the first are recommended another label, ${percent(line.share)} of them the second`)));
    }));
  }

  deconfuse.pages.classes = {
    title: "Classes",
    letter: "k",
    async show(main, route) {
      await deconfuse.sampleData();
      const run = get("run");
      let settings = route.settings;
      const views = el("div", { class: "views", role: "group", "aria-label": "View" });
      const view = el("div", { class: "view" });
      main.append(el("h1", { class: "unseen" }, "Classes"), el("div", { class: "view-bar" }, views), view);
      const pair = () => {
        const ids = ["class", "with"].map((name) => (settings.has(name) ? Number(settings.get(name)) : NaN));
        return ids.every((id) => Number.isInteger(id) && id >= 0 && id < run.class_names.length) && ids[0] !== ids[1] ? ids : null;
      };

      function table() {
        const sort = settings.get("sort") || "suggestions";
        const up = settings.get("up") === "1";
        const all = lines();
        const word = (settings.get("q") || "").toLowerCase();
        const some = all.filter((line) => !word || className(line.id).toLowerCase().includes(word));
        const value = (SORTS[sort] || SORTS.suggestions)[1];
        some.sort((x, y) => (up ? 1 : -1) * (value ? value(x) - value(y) : className(x.id) < className(y.id) ? 1 : -1) || x.id - y.id);
        const head = el("div", { class: "line line-head", role: "group", "aria-label": "Sort by" }, Object.entries(SORTS).map(([key, [text]]) => el("span", {},
          el("button", { type: "button", class: "quiet", "data-name": `sort-${key}`, "aria-pressed": String(key === sort), onclick: () => go("classes", null, deconfuse.changed(deconfuse.changed(settings, "sort", key), "up", key === sort && !up ? "1" : ""), true) }, text, key === sort ? (up !== (key === "name") ? " ▲" : " ▼") : ""))));
        const rows = deconfuse.list({ label: "Classes: name, relabels, samples, confusions, recommended most; Enter opens", make: (at) => line(some[at]), pick: (at, enter) => (enter || !byKey) && open(some[at]) });
        // Arrow keys move without opening; a click and Enter open.
        let byKey = false;
        rows.box.addEventListener("keydown", () => (byKey = true), true);
        rows.box.addEventListener("pointerdown", () => (byKey = false), true);
        requestAnimationFrame(() => rows.show(some.map((_, at) => at)));
        return el("div", { class: "class-table" },
          el("details", { class: "card", open: all.some((one) => one.merge !== null) }, el("summary", {}, "Classes to consider merging"), consider()),
          el("div", { class: "filters" }, deconfuse.search("Search", settings.get("q"), (text) => go("classes", null, deconfuse.changed(settings, "q", text), true)), el("p", { class: "count" }, `${number(some.length)} of ${number(all.length)} classes`)),
          head, rows.box);
      }

      // A class beside the one that is recommended most for it, else its samples.
      function open(one) {
        if (one.leans !== null) location.hash = address("classes", null, new URLSearchParams({ class: one.id, with: one.leans }));
        else location.hash = address("samples", null, new URLSearchParams({ class: one.id, ...(one.side === "train" ? {} : { side: "query" }) }));
      }

      function line(one) {
        return el("span", { class: "line" },
          el("span", { dir: "auto" }, className(one.id), el("span", { class: "hint" }, one.side === "train" ? "" : " test")),
          el("span", { class: "n" }, one.side === "train" ? number(one.suggestions) : "–"), el("span", { class: "n" }, number(one.samples)), el("span", { class: "n" }, one.side === "test" ? number(one.confused) : "–"),
          el("span", { title: KINDS[one.kind] }, one.leans === null ? "" : el("bdi", {}, className(one.leans)), one.share === null ? "" : ` ${percent(one.share)} of them`));
      }

      function draw() {
        const two = pair();
        const now = two ? "two" : settings.get("view") === "matrix" ? "matrix" : "";
        views.replaceChildren(...[["", "All classes"], ["matrix", "Confusion matrix"]].map(([key, text]) => el("a", { href: address("classes", null, key ? new URLSearchParams({ view: key }) : null), class: "view-link", "aria-current": now === key ? "true" : null }, text)));
        const searching = document.activeElement && view.contains(document.activeElement) && document.activeElement.type === "search" ? document.activeElement.selectionStart : null;
        deconfuse.refill(view, two ? compared(...two, draw) : now === "matrix" ? matrix() : table());
        if (searching !== null) {
          const field = view.querySelector("input[type=search]");
          field.focus();
          field.setSelectionRange(searching, searching);
        }
      }

      draw();
      return {
        update: (next) => {
          settings = next.settings;
          draw();
        },
        changed: draw,
        key: (key) => {
          const two = pair();
          const choice = deconfuse.choices.classes.find(([, , letter]) => letter === key);
          const side = (id) => id < run.training_classes;
          if (!two || !choice || side(two[0]) !== side(two[1])) return false;
          const found = deconfuse.classDecision(...two);
          const [a, b] = found && found[1].decision === "merge" ? found[0].split("-").map(Number) : two;
          decidePair(a, b, choice[0], draw);
          return true;
        },
      };
    },
  };
})();
