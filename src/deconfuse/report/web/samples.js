"use strict";

// Samples of any side: a list with filters beside what is known of one of them.
(() => {
  const { el, get, load, row, number, percent, score, short, className, address, go, decisions, figure } = deconfuse;

  deconfuse.sampleRow = (side, k) => {
    const data = get(side);
    const other = side === "train" && data.recommended[k] !== data.labels[k];
    return deconfuse.rowContent(
      [deconfuse.thumb(side, k)],
      [
        el("span", { class: "row-title", dir: "auto" }, className(data.labels[k])),
        other ? el("span", { class: "row-title second" }, el("span", { "aria-label": "recommended" }, "→ "), el("bdi", {}, className(data.recommended[k]))) : el("span", { class: "row-note" }, side !== "train" ? (deconfuse.confused().has(k) ? "nearest to another class" : "nearest to its own class") : "label confirmed"),
        side === "train" ? el("span", { class: "row-note" }, deconfuse.rankOf(k)) : el("span", { class: "row-note", dir: "auto" }, data.names[k]),
      ],
      deconfuse.badge(deconfuse.kindOf(side), k));
  };

  // Six typical samples of a class; side: train or test.
  deconfuse.typicalOf = (side, id, title, tone = "") => {
    const rows = (get("typical") || {})[side] ? get("typical")[side][id] || [] : [];
    const part = side === "train" ? "train" : deconfuse.galleryPart();
    return el("section", { class: `typical ${tone}` },
      el("h2", {}, title, " ", el("bdi", {}, className(id))),
      rows.length ? el("div", { class: "strip six" }, rows.map((k) => figure(part, k, [], deconfuse.sampleAddress(part, k)))) : el("p", { class: "none" }, "It has no samples."));
  };

  // What the model and the neighbours say about one sample, with typical samples of the labels in question.
  deconfuse.sampleHead = (side, k) => {
    const data = get(side);
    const train = side === "train";
    const other = train && data.recommended[k] !== data.labels[k];
    const revealed = decisions.of("label", k) !== null || !deconfuse.reviewing;
    const flipped = train && data.clean && data.clean[k] !== data.labels[k];
    const truth = train && data.clean ? (revealed ? (flipped ? `${className(data.clean[k])}; flipped by noise=` : "the label it has") : null) : null;
    const near = train ? null : deconfuse.confused().get(k);
    return el("div", { class: "sample-head" },
      el("figure", { class: "big" }, deconfuse.picture(side, k), el("figcaption", {}, el("span", { class: "file", dir: "auto" }, deconfuse.named(data.names[k])))),
      el("div", { class: "verdict" },
        el("p", { class: "labels" }, el("span", { class: "what" }, "Label now"), el("strong", { dir: "auto" }, className(data.labels[k]))),
        train ? el("p", { class: `labels ${other ? "recommended" : ""}` }, el("span", { class: "what" }, other ? "Recommended" : "Recommended: the same"), other ? el("strong", { dir: "auto" }, className(data.recommended[k])) : null) : null,
        deconfuse.facts(train ? [
          ["Suspicion", `${short(data.suspicion[k])}, ${deconfuse.rankOf(k)}`, "How unlikely its label is, by the detector; higher: more likely mislabelled. Suspects are the samples that are recommended another label"],
          ["Effect on the confusions", data.influence_mean[k] === null ? "none explained" : data.influence_mean[k] > 0 ? `harmful in ${percent(data.harmful_share[k])} of them` : `helpful on the whole; harmful in ${percent(data.harmful_share[k])}`, `Mean influence ${score(data.influence_mean[k])}; above 0: learning this sample more brings confused pairs closer`],
          ["Label before", data.before && k in data.before ? el("span", { dir: "auto" }, `${className(data.before[k])}, corrected by relabels=`) : null],
          ["Training", data.left_out.includes(k) ? "left out by relabels=" : null],
          ["True class", truth === null ? null : el("span", { dir: "auto" }, truth)],
        ] : [
          ["Confusion", near === undefined ? "nearest to its own class" : el("a", { href: address("confusions", near) }, "nearest to another class")],
        ])),
      el("div", { class: "beside" },
        deconfuse.typicalOf(train ? "train" : "test", data.labels[k], "Typical of the label now:"),
        other ? deconfuse.typicalOf("train", data.recommended[k], "Typical of what is recommended:", "good") : near !== undefined && near !== null ? deconfuse.typicalOf("test", get(deconfuse.galleryPart()).labels[get("confusion").neighbour[near]], "Typical of what it is taken for:") : null));
  };

  // Its nearest samples, and the explanations in which it is harmful.
  deconfuse.sampleMore = (side, k) => {
    const box = el("div", { class: "methods" }, el("p", { class: "loading" }, "Loading"));
    const part = side === "train" ? "train" : deconfuse.galleryPart();
    if (side === "gallery") return el("p", { class: "none" }, "Neighbours are known of queries and of training samples.");
    row(side === "train" ? "sample" : "query", k).then((found) => {
      const data = get(part);
      const wanted = side === "train" ? data.recommended[k] : get(side).labels[k];
      const near = found.near.map((j, at) => figure(part, j, [className(data.labels[j]), el("span", { class: "score", title: deconfuse.DISTANCE }, `distance ${short(found.distance[at])}`)], deconfuse.sampleAddress(part, j), data.labels[j] === wanted ? "vote" : ""));
      box.replaceChildren(
        el("h2", { class: "part" }, "Similar to this: nearest first"),
        near.length ? el("div", { class: "strip" }, near) : el("p", { class: "none" }, "Its neighbours are not known: the vote was taken on candidates alone."),
        ...(side === "train" ? harms(found) : []));
    }, (error) => box.replaceChildren(el("p", { class: "none" }, error.message)));
    return box;
  };

  function harms(found) {
    return [
      el("h2", { class: "part" }, `What it harms most, by ${get("run").methods[0].name}`),
      el("p", { class: "hint" }, `Scores above 0: learning it more ${get("run").explained.table === "mis_similar.csv" ? "moves these pairs further apart" : "brings these pairs closer"}.`),
      found.harms.length ? el("div", { class: "strip wide" }, found.harms.map((i, at) => harmedFigure(i, found.scores[at]))) : el("p", { class: "none" }, "It scores above 0 in nothing that was explained."),
    ];
  }

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

  deconfuse.sampleData = () => Promise.all(["train", "query", deconfuse.galleryPart(), "confusion", "typical", ...(get("run").previews ? ["previews"] : []), ...(get("run").mis_similar ? ["mis_similar"] : [])].map(load));

  deconfuse.pages.samples = {
    title: "Samples",
    letter: "s",
    async show(main, route) {
      await deconfuse.sampleData();
      let settings = route.settings;
      let item = null;
      let found = [];
      let panel = null;
      const side = () => deconfuse.sideOf(settings);
      const kind = () => deconfuse.kindOf(side());
      const count = el("p", { class: "count", role: "status" });
      const filters = el("div", { class: "filters" });
      const detail = el("div", { class: "detail-in" });
      const list = deconfuse.list({ label: "Samples, arrow keys move", make: (k) => deconfuse.sampleRow(side(), k), pick: (k, enter) => {
        go("samples", k, settings, !enter && bench.dataset.open === "yes");
        if (enter) bench.lastChild.focus();
      } });
      const bench = deconfuse.workbench([filters, count], list, detail);
      const views = el("div", { class: "view-bar" });
      main.append(el("h1", { class: "unseen" }, "Samples"), views, el("div", { class: "view" }, bench));

      const set = (key, value) => go("samples", null, deconfuse.changed(settings, key, value), true);
      const shown = () => (item !== null ? item : found[0]);

      function drawList(keep) {
        found = deconfuse.find(settings);
        count.textContent = `${number(found.length)} of ${number(get(side()).labels.length)} ${side() === "train" ? "training samples" : side() === "query" ? "queries" : "gallery samples"}`;
        list.show(found, keep);
      }

      // After a decision: the next one in the list as it was; then the list without those that no longer fit.
      function after() {
        const at = found.indexOf(shown());
        const next = found[at + 1] ?? found[at - 1] ?? null;
        if (next === null) drawDetail();
        else go("samples", next, settings, true);
      }

      function drawDetail() {
        bench.dataset.open = item === null ? "no" : "yes";
        const k = shown();
        if (k === undefined) {
          panel = null;
          detail.replaceChildren(el("p", { class: "none" }, "No sample fits these filters."));
          return;
        }
        const at = list.at(k);
        const step = (by) => list.item(at + by) !== undefined && go("samples", list.item(at + by), settings, true);
        panel = deconfuse.decide(kind(), k, after);
        deconfuse.refill(detail,
          deconfuse.listBar(list, at, address("samples", null, settings), deconfuse.sampleAddress(side(), k), step),
          deconfuse.sampleHead(side(), k), panel.box, deconfuse.sampleMore(side(), k));
        list.choose(k, false);
      }

      function update(next, first) {
        const before = settings.toString();
        settings = next.settings;
        item = deconfuse.itemOf(next, get(side()).labels.length, "sample");
        if (first || before !== settings.toString()) {
          views.replaceChildren(deconfuse.sampleViews("samples", settings));
          const focused = document.activeElement && filters.contains(document.activeElement) && document.activeElement.type === "search";
          if (!focused) filters.replaceChildren(...deconfuse.sampleFilters(settings, set, "samples"));
          drawList();
        }
        drawDetail();
      }

      update(route, true);
      return {
        update,
        changed: () => {
          drawList(true);
          drawDetail();
        },
        key: (key) => {
          const k = shown();
          if (key === "j" || key === "k") list.move(key === "j" ? 1 : -1);
          else if (k === undefined) return false;
          else if (key === " ") deconfuse.view(side(), k);
          else return deconfuse.press(kind(), k, key, { after, ask: panel.ask, write: panel.write });
          return true;
        },
        undone: ({ kind: of, i }) => of === kind() && go("samples", i, settings, true),
      };
    },
  };
})();
