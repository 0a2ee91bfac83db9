"use strict";

(() => {
  const { el, get, load, row, number, fixed, percent, score, short, className, address, go, decisions, figure } = deconfuse;
  const NUMBERS = new Set(["Samples", "Suggestions", "Lean", "Entropy"]); // columns

  function search(settings) {
    const train = get("train");
    const word = (settings.get("q") || "").toLowerCase();
    const one = settings.has("class") ? Number(settings.get("class")) : null;
    const only = settings.get("only") || "";
    const found = [];
    const relabels = only === "relabels" ? new Set(train.relabels) : null;
    for (let k = 0; k < train.labels.length; k++) {
      if (one !== null && train.labels[k] !== one && train.recommended[k] !== one) continue;
      if (relabels && !relabels.has(k)) continue;
      if (only === "other" && train.recommended[k] === train.labels[k]) continue;
      if (only === "harmful" && !(train.influence_mean[k] > 0)) continue;
      if (only === "flipped" && train.clean[k] === train.labels[k]) continue;
      if (only === "corrected" && !(train.before && k in train.before)) continue;
      if (word && !train.names[k].toLowerCase().includes(word) && !className(train.labels[k]).toLowerCase().includes(word)) continue;
      found.push(k);
    }
    const by = { "": "suspicion", harm: "influence_mean", help: "influence_mean", size: "influence_abs_mean", vote: "vote_recommended" }[settings.get("sort") || ""] || "suspicion";
    const sign = settings.get("sort") === "help" ? 1 : -1;
    return found.sort((i, j) => sign * ((train[by][i] ?? -Infinity) - (train[by][j] ?? -Infinity)) || i - j);
  }

  deconfuse.sampleRow = (k) => {
    const train = get("train");
    const other = train.recommended[k] !== train.labels[k];
    return deconfuse.rowContent(
      [deconfuse.thumb("train", k)],
      [
        el("span", { class: "row-title", dir: "auto" }, className(train.labels[k])),
        other ? el("span", { class: "row-title second" }, el("span", { "aria-label": "recommended" }, "→ "), el("bdi", {}, className(train.recommended[k]))) : el("span", { class: "row-note" }, "label confirmed"),
        el("span", { class: "row-note" }, `suspicion ${short(train.suspicion[k])}`),
      ],
      deconfuse.badge("label", k));
  };

  // What the model and the neighbours say about one training sample.
  deconfuse.sampleHead = (k) => {
    const train = get("train");
    const other = train.recommended[k] !== train.labels[k];
    const flipped = train.clean && train.clean[k] !== train.labels[k];
    return el("div", { class: "sample-head" },
      el("figure", { class: "big" }, deconfuse.thumb("train", k, "large"), el("figcaption", {}, el("span", { class: "file", dir: "auto" }, deconfuse.named(train.names[k])))),
      el("div", { class: "verdict" },
        el("p", { class: "labels" }, el("span", { class: "what" }, "Label now"), el("strong", { dir: "auto" }, className(train.labels[k]))),
        el("p", { class: `labels ${other ? "recommended" : ""}` }, el("span", { class: "what" }, other ? "Recommended" : "Recommended: the same"), el("strong", { dir: "auto" }, className(train.recommended[k]))),
        deconfuse.meter(`Vote for ${className(train.recommended[k])}`, train.vote_recommended[k], "good"),
        other ? deconfuse.meter(`Vote for ${className(train.labels[k])}`, train.vote_current[k]) : null,
        deconfuse.facts([
          ["Suspicion", short(train.suspicion[k]), "Of the detector; higher: more likely mislabelled"],
          ["Mean influence", score(train.influence_mean[k]), "Over all that was explained; above 0: harmful"],
          ["Harmful in", train.influence_mean[k] === null ? null : `${percent(train.harmful_share[k])} of the explanations`],
          ["Label before", train.before && k in train.before ? el("span", { dir: "auto" }, `${className(train.before[k])}, corrected by relabels=`) : null],
          ["True class", flipped ? el("span", { dir: "auto" }, `${className(train.clean[k])}, flipped by noise=`) : null],
        ])));
  };

  // Its nearest training samples, and the explanations in which it is harmful.
  deconfuse.sampleMore = (k) => {
    const box = el("div", { class: "methods" }, el("p", { class: "loading" }, "Loading"));
    const train = get("train");
    row("sample", k).then((found) => {
      const near = found.near.map((j, at) => figure("train", j, [className(train.labels[j]), el("span", { class: "score" }, fixed(found.distance[at], 3))], address("samples", j), train.labels[j] === train.recommended[k] ? "vote" : ""));
      box.replaceChildren(
        el("h3", { class: "part" }, "Nearest training samples and their distance"),
        near.length ? el("div", { class: "strip" }, near) : el("p", { class: "none" }, "Its neighbours are not known: the vote was taken on candidates alone."),
        el("h3", { class: "part" }, `What it harms most, by ${get("run").methods[0].name}`),
        el("p", { class: "hint" }, `Scores above 0: fitting it more ${get("run").explained.table === "mis_similar.csv" ? "moves these pairs further apart" : "brings these pairs closer"}.`),
        found.harms.length ? el("div", { class: "strip wide" }, found.harms.map((i, at) => harmedFigure(i, found.scores[at]))) : el("p", { class: "none" }, "It scores above 0 in nothing that was explained."),
      );
    }, (error) => box.replaceChildren(el("p", { class: "none" }, error.message)));
    return box;
  };

  function harmedFigure(i, value) {
    const run = get("run");
    const harm = el("span", { class: "score harmful" }, score(value));
    if (run.explained.table === "groups.csv") {
      return el("a", { class: "figure group", href: address("confusions", null, new URLSearchParams({ class: run.groups[i] })) }, el("span", { class: "caption" }, el("span", { dir: "auto" }, className(run.groups[i])), harm));
    }
    const kind = run.explained.table === "confusions.csv" ? "confusion" : "mis_similar";
    const pairs = get(kind);
    const [a, b, gallery] = [pairs.query[i], pairs.neighbour[i], deconfuse.galleryPart()];
    const names = [className(get("query").labels[a]), className(get(gallery).labels[b])];
    return el("a", { class: "figure couple", href: address("confusions", i, kind === "confusion" ? null : new URLSearchParams({ kind })) },
      el("span", { class: "two" }, deconfuse.thumb("query", a), deconfuse.thumb(gallery, b)),
      el("span", { class: "caption" }, names.map((name) => el("span", { dir: "auto" }, deconfuse.named(name))), harm));
  }

  function classes() {
    const run = get("run");
    const merge = run.taxonomy.filter((line) => line[8] !== null);
    const why = {
      centralized: "many suggestions, nearly all for one class: merge the two",
      diversified: "many suggestions for many classes: clean the class",
      individual: "few suggestions: look at the samples",
      others: "neither",
    };
    const link = (id) => el("a", { dir: "auto", href: address("samples", null, new URLSearchParams({ class: id, only: "other" })) }, className(id));
    return el("div", { class: "prose-page" },
      el("div", { class: "tiles" }, Object.entries(run.classes.kind).map(([kind, n]) => el("section", { class: "tile-card" }, el("h2", {}, kind), el("p", { class: "value" }, number(n)), el("p", { class: "note" }, why[kind])))),
      el("section", { class: "card" }, el("h2", {}, "Classes to merge"),
        merge.length ? el("ul", { class: "merges" }, merge.map((line) => el("li", {}, link(line[0]), el("span", { class: "with" }, " into "), link(line[8]), el("span", { class: "hint" }, ` ${number(line[2])} of its ${number(line[1])} samples, ${percent(line[4])} of them say so`))))
          : el("p", { class: "none" }, "No class leans to one other class alone.")),
      el("section", { class: "card" }, el("h2", {}, "All classes with suggestions"),
        run.taxonomy.length ? el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Classes with suggestions" }, el("table", {},
          el("thead", {}, el("tr", {}, ["Class", "Samples", "Suggestions", "Leans to", "Lean", "Entropy", "Kind", "By share"].map((text) => el("th", { scope: "col", class: NUMBERS.has(text) ? "n" : null }, text)))),
          el("tbody", {}, run.taxonomy.map((line) => el("tr", {}, el("td", {}, link(line[0])), el("td", { class: "n" }, number(line[1])), el("td", { class: "n" }, number(line[2])), el("td", { dir: "auto" }, className(line[3])), el("td", { class: "n" }, percent(line[4])), el("td", { class: "n" }, fixed(line[5], 2)), el("td", {}, line[6]), el("td", {}, line[7])))),
        )) : el("p", { class: "none" }, "No harmful sample is recommended another label.")));
  }

  deconfuse.pages.samples = {
    title: "Samples",
    async show(main, route) {
      const run = get("run");
      await Promise.all(["train", "query", deconfuse.galleryPart(), "confusion", ...(run.mis_similar ? ["mis_similar"] : [])].map(load));
      const train = get("train");
      const relabels = new Set(train.relabels);
      let settings = route.settings;
      let item = null;
      let found = [];
      const count = el("p", { class: "count", role: "status" });
      const filters = el("div", { class: "filters" });
      const detail = el("div", { class: "detail-in" });
      const list = deconfuse.list({ label: "Training samples, arrow keys move", make: deconfuse.sampleRow, pick: (k, enter) => {
        go("samples", k, settings, !enter && bench.dataset.open === "yes");
        if (enter) bench.lastChild.focus();
      } });
      const bench = deconfuse.workbench([filters, count], list, detail);
      const view = el("div", { class: "view" });
      const views = el("div", { class: "views", role: "group", "aria-label": "View" });
      main.append(el("h1", { class: "unseen" }, "Training samples"), views, view);

      function set(key, value) {
        const next = new URLSearchParams(settings);
        if (value === "" || value === null) next.delete(key);
        else next.set(key, value);
        go("samples", null, next, true);
      }

      function drawFilters() {
        const ids = run.class_names.map((_, id) => id).slice(0, run.training_classes);
        const only = [["", "All"], ["relabels", "Probably wrong"], ["other", "Recommended another label"], ["harmful", "Harmful on the whole"]];
        if (train.clean) only.push(["flipped", "Flipped by noise="]);
        if (train.before) only.push(["corrected", "Corrected by relabels="]);
        filters.replaceChildren(
          deconfuse.search("Search", settings.get("q"), (value) => set("q", value)),
          deconfuse.completion("Class, now or recommended", ids, settings.has("class") ? Number(settings.get("class")) : null, (id) => set("class", id)),
          deconfuse.select("Show", only, settings.get("only") || "", (value) => set("only", value)),
          deconfuse.select("Sort", [["", "Most suspicious"], ["harm", "Most harmful"], ["help", "Most helpful"], ["size", "Largest influence"], ["vote", "Surest vote"]], settings.get("sort") || "", (value) => set("sort", value)));
      }

      // Giving another label is done on the page Review.
      function ask(k) {
        go("review", null, new URLSearchParams({ queue: "label", at: train.relabels.indexOf(k), other: "1" }));
      }

      function drawDetail() {
        bench.dataset.open = item === null ? "no" : "yes";
        const shown = item !== null ? item : found[0];
        if (shown === undefined) {
          detail.replaceChildren(el("p", { class: "none" }, "No training sample fits these filters."));
          return;
        }
        const at = list.at(shown);
        const step = (by) => list.item(at + by) !== undefined && go("samples", list.item(at + by), settings, true);
        deconfuse.refill(detail,
          deconfuse.listBar(list, at, address("samples", null, settings), address("samples", shown), step),
          deconfuse.sampleHead(shown),
          ...(relabels.has(shown) ? [deconfuse.decide("label", shown, () => ask(shown))] : []),
          deconfuse.sampleMore(shown));
        list.choose(shown, false);
      }

      function update(next, first) {
        const before = settings.toString();
        const view_ = settings.get("view");
        settings = next.settings;
        item = next.item !== null && next.item < train.labels.length ? next.item : null;
        const tables = settings.get("view") === "classes";
        views.replaceChildren(
          ...[["", "Samples"], ["classes", "Classes"]].map(([key, text]) => el("a", { href: address("samples", null, key ? new URLSearchParams({ view: key }) : null), class: "view-link", "aria-current": (tables ? "classes" : "") === key ? "true" : null }, text)));
        if (tables) {
          view.replaceChildren(classes());
          return;
        }
        if (first || view_ !== settings.get("view")) view.replaceChildren(bench);
        if (first || before !== settings.toString()) {
          const focused = document.activeElement && filters.contains(document.activeElement) && document.activeElement.type === "search";
          if (!focused) drawFilters();
          found = search(settings);
          count.textContent = `${number(found.length)} of ${number(train.labels.length)} training samples`;
          list.show(found);
        }
        drawDetail();
      }

      update(route, true);
      return {
        update,
        changed: () => {
          if (settings.get("view") === "classes") return;
          list.redraw();
          drawDetail();
        },
        key: (key) => {
          if (settings.get("view") === "classes") return false;
          const shown = item !== null ? item : found[0];
          const choice = deconfuse.choices.label.find(([, , letter]) => letter === key);
          if (choice && choice[0] === "other" && relabels.has(shown)) ask(shown);
          else if (choice && relabels.has(shown)) decisions.decide("label", shown, choice[0]);
          else if (key === "j" || key === "k") list.move(key === "j" ? 1 : -1);
          else return false;
          return true;
        },
      };
    },
  };
})();
