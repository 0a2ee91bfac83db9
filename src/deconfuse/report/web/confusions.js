"use strict";

(() => {
  const { el, get, number, short, className, address, go, decisions } = deconfuse;

  function search(kind, settings) {
    const pairs = get(kind);
    const [query, gallery] = [get("query"), get(deconfuse.galleryPart())];
    const word = (settings.get("q") || "").toLowerCase();
    const [one, other] = ["class", "with"].map((key) => (settings.has(key) ? Number(settings.get(key)) : null));
    const state = settings.get("state") || "";
    const found = [];
    for (let i = 0; i < pairs.query.length; i++) {
      if (pairs.mirror[i] >= 0 && pairs.mirror[i] < i) continue; // one card with the pair the other way round
      const [a, b] = [query.labels[pairs.query[i]], gallery.labels[pairs.neighbour[i]]];
      if (one !== null && a !== one && b !== one) continue;
      if (other !== null && !((a === one && b === other) || (a === other && b === one))) continue;
      if (state && !fits(state, decisions.of(kind, i))) continue;
      if (settings.get("known") && String(pairs.known && pairs.known[i] ? 1 : 0) !== settings.get("known")) continue;
      if (word && ![query.names[pairs.query[i]], gallery.names[pairs.neighbour[i]], className(a), className(b)].some((text) => text.toLowerCase().includes(word))) continue;
      found.push(i);
    }
    return sorted(found, pairs, query, gallery, settings.get("sort") || "");
  }

  function fits(state, decision) {
    return state === "open" ? decision === null : decision !== null && decision.decision === state;
  }

  function sorted(found, pairs, query, gallery, how) {
    const classes = (i) => [query.labels[pairs.query[i]], gallery.labels[pairs.neighbour[i]]];
    if (how === "far") return found.reverse();
    if (how === "class") {
      const order = new Map(found.map((i) => [i, classes(i).map(className)]));
      return found.sort((i, j) => order.get(i)[0].localeCompare(order.get(j)[0]) || order.get(i)[1].localeCompare(order.get(j)[1]) || i - j);
    }
    if (how === "often") {
      const name = (i) => classes(i).sort((a, b) => a - b).join();
      const [counts, names] = [new Map(), new Map(found.map((i) => [i, name(i)]))];
      for (const text of names.values()) counts.set(text, (counts.get(text) || 0) + 1);
      return found.sort((i, j) => counts.get(names.get(j)) - counts.get(names.get(i)) || names.get(i).localeCompare(names.get(j)) || i - j);
    }
    return found;
  }

  deconfuse.pairRow = (kind, i) => {
    const pairs = get(kind);
    const [a, b, gallery] = [pairs.query[i], pairs.neighbour[i], deconfuse.galleryPart()];
    return deconfuse.rowContent(
      [deconfuse.thumb("query", a), deconfuse.thumb(gallery, b)],
      [el("span", { class: "row-title", dir: "auto" }, className(get("query").labels[a])), el("span", { class: "row-title second", dir: "auto" }, className(get(gallery).labels[b])), el("span", { class: "row-note" }, `distance ${short(pairs.distance[i])}${kind === "confusion" && pairs.mirror[i] >= 0 ? ", each other's nearest" : ""}`)],
      deconfuse.badge(kind, i));
  };

  // What the labels of both samples of a pair should be; open where the reviewer said that a label is at fault.
  deconfuse.pairLabels = (kind, i) => {
    const found = decisions.of(kind, i);
    const [a, b, gallery] = [get(kind).query[i], get(kind).neighbour[i], deconfuse.galleryPart()];
    const one = (part, k, what) => el("section", { class: "fix" }, el("h3", {}, what, " ", el("bdi", {}, className(get(part).labels[k]))), deconfuse.decide(deconfuse.kindOf(part), k, null).box);
    return el("details", { class: "fixes", open: found !== null && found.decision === "agree" },
      el("summary", {}, "What should their labels be? (test labels: applied with relabels.test=true)"),
      el("div", { class: "two-fixes" }, one("query", a, "The query is labelled"), one(gallery, b, "The other is labelled")));
  };

  deconfuse.pairDetail = (kind, i) => {
    const explained = el("div", { class: "methods" }, el("p", { class: "loading" }, "Loading the explanation"));
    const at = deconfuse.explainedRow(kind, i);
    const group = get("run").explained.table === "groups.csv" && at >= 0;
    const fail = (error) => explained.replaceChildren(el("p", { class: "none" }, error.message));
    if (at >= 0) deconfuse.explanations(at).then((nodes) => explained.replaceChildren(...nodes), fail);
    else explained.replaceChildren(el("p", { class: "none" }, "This pair was not explained: target= chose other pairs."));
    return [
      el("h2", { class: "part" }, group ? `Training samples to blame for all confusions of ${className(get("query").labels[get(kind).query[i]])}` : "Training samples to blame"),
      explained,
    ];
  };

  deconfuse.pages.confusions = {
    title: "Confusions",
    letter: "c",
    async show(main, route) {
      const run = get("run");
      await deconfuse.sampleData();
      let settings = route.settings;
      let kind = kindOf(settings);
      let item = null;
      let found = [];
      let panel = null;
      const count = el("p", { class: "count", role: "status" });
      const filters = el("div", { class: "filters" });
      const detail = el("div", { class: "detail-in" });
      const list = deconfuse.list({ label: "Pairs, arrow keys move", make: (i) => deconfuse.pairRow(kind, i), pick: (i, enter) => {
        go("confusions", i, settings, !enter && bench.dataset.open === "yes");
        if (enter) bench.lastChild.focus();
      } });
      const bench = deconfuse.workbench([filters, count], list, detail);
      main.append(el("h1", { class: "unseen" }, "Confusions"), bench);

      function kindOf(settings) {
        return settings.get("kind") === "mis_similar" && run.mis_similar ? "mis_similar" : "confusion";
      }

      function set(key, value) {
        const next = new URLSearchParams(settings);
        if (value === "" || value === null) next.delete(key);
        else next.set(key, value);
        if (key === "class") next.delete("with");
        go("confusions", null, next, true);
      }

      function drawFilters() {
        const classes = run.class_names.map((_, id) => id).slice(run.training_classes);
        const one = settings.has("class") ? Number(settings.get("class")) : null;
        const other = settings.has("with") ? Number(settings.get("with")) : null;
        filters.replaceChildren(
          ...[
            run.mis_similar ? deconfuse.select("Pairs", [["confusion", "Confusions"], ["mis_similar", "Mis-similar pairs"]], kind, (value) => set("kind", value)) : null,
            deconfuse.search("Search", settings.get("q"), (value) => set("q", value)),
            deconfuse.completion("Class", classes, one, (id) => set("class", id)),
            deconfuse.select("Sort", [["", kind === "confusion" ? "Closest" : "Farthest"], ["far", kind === "confusion" ? "Farthest" : "Closest"], ["often", "Most confused classes"], ["class", "By class name"]], settings.get("sort") || "", (value) => set("sort", value)),
            deconfuse.select("Decision", [["", "Any"], ["open", "Not reviewed"], ...deconfuse.choices[kind].map(([decision, text]) => [decision, text])], settings.get("state") || "", (value) => set("state", value)),
            other !== null && one !== null
              ? el("p", { class: "chip" }, el("span", { dir: "auto" }, `only with ${className(other)}`), el("button", { type: "button", class: "quiet", onclick: () => set("with", null) }, "Remove"))
              : null,
          ].filter((node) => node),
        );
      }

      function drawList(keep) {
        found = search(kind, settings);
        const all = deconfuse.queue(kind, settings).length;
        count.textContent = `${number(found.length)} of ${number(all)} pairs`;
        list.show(found, keep);
      }

      // After a decision: the next one in the list as it was.
      function after() {
        const at = found.indexOf(shownNow());
        const next = found[at + 1] ?? found[at - 1] ?? null;
        if (next === null) drawDetail();
        else go("confusions", next, settings, true);
      }

      const shownNow = () => (item !== null ? item : found[0]);

      function drawDetail() {
        bench.dataset.open = item === null ? "no" : "yes";
        const shown = shownNow();
        if (shown === undefined) {
          panel = null;
          detail.replaceChildren(el("p", { class: "none" }, get(kind).query.length ? "No pair fits these filters." : "There are no confusions: every query is nearest to its own class."));
          return;
        }
        const at = list.at(shown);
        const step = (by) => at >= 0 && list.item(at + by) !== undefined && go("confusions", list.item(at + by), settings, true);
        const link = address("confusions", shown, new URLSearchParams(kind === "confusion" ? {} : { kind }));
        panel = deconfuse.decide(kind, shown, after);
        deconfuse.refill(detail,
          deconfuse.listBar(list, at, address("confusions", null, settings), link, step),
          deconfuse.pairHead(kind, shown),
          panel.box,
          deconfuse.pairLabels(kind, shown),
          ...deconfuse.pairDetail(kind, shown));
        list.choose(shown, false);
      }

      function update(next) {
        const before = [settings.toString(), kind];
        settings = next.settings;
        kind = kindOf(settings);
        item = deconfuse.itemOf(next, get(kind).query.length, "pair");
        if (item !== null) item = Math.min(...decisions.twins(kind, item));
        if (before[0] !== settings.toString() || before[1] !== kind || !filters.childElementCount) {
          const focused = document.activeElement && filters.contains(document.activeElement) && document.activeElement.type === "search";
          if (!focused) drawFilters();
          drawList();
        }
        drawDetail();
      }

      update(route);
      return {
        update,
        changed: () => {
          drawList(true);
          drawDetail();
        },
        undone: ({ kind: of, i }) => of === kind && go("confusions", Math.min(...decisions.twins(kind, i)), settings, true),
        key: (key) => {
          const shown = shownNow();
          if (key === "j" || key === "k") list.move(key === "j" ? 1 : -1);
          else if (shown === undefined) return false;
          else if (key === " ") deconfuse.view("query", get(kind).query[shown]);
          else return deconfuse.press(kind, shown, key, { after, ask: null, write: panel.write });
          return true;
        },
      };
    },
  };
})();
