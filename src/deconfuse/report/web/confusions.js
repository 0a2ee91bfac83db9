"use strict";

(() => {
  const { el, get, load, number, short, className, address, go, decisions } = deconfuse;

  function search(kind, settings) {
    const pairs = get(kind);
    const [query, gallery] = [get("query"), get(deconfuse.galleryPart())];
    const word = (settings.get("q") || "").toLowerCase();
    const [one, other] = ["class", "with"].map((key) => (settings.has(key) ? Number(settings.get(key)) : null));
    const state = settings.get("state") || "";
    const found = [];
    for (let i = 0; i < pairs.query.length; i++) {
      const [a, b] = [query.labels[pairs.query[i]], gallery.labels[pairs.neighbour[i]]];
      if (one !== null && a !== one && b !== one) continue;
      if (other !== null && !((a === one && b === other) || (a === other && b === one))) continue;
      if (state && !fits(state, decisions.of(kind, i))) continue;
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
      [el("span", { class: "row-title", dir: "auto" }, className(get("query").labels[a])), el("span", { class: "row-title second", dir: "auto" }, className(get(gallery).labels[b])), el("span", { class: "row-note" }, `d ${short(pairs.distance[i])}`)],
      deconfuse.badge(kind, i));
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
    async show(main, route) {
      const run = get("run");
      const gallery = deconfuse.galleryPart();
      await Promise.all(["query", gallery, "confusion", "train", ...(run.mis_similar ? ["mis_similar"] : [])].map(load));
      let settings = route.settings;
      let kind = kindOf(settings);
      let item = null;
      let found = [];
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
            deconfuse.select("Decision", [["", "Any"], ["open", "Not reviewed"], ["agree", "Agreed"], ["disagree", "Disagreed"], ["unsure", "Unsure"]], settings.get("state") || "", (value) => set("state", value)),
            other !== null && one !== null
              ? el("p", { class: "chip" }, el("span", { dir: "auto" }, `only with ${className(other)}`), el("button", { type: "button", class: "quiet", onclick: () => set("with", null) }, "Remove"))
              : null,
          ].filter((node) => node),
        );
      }

      function drawList() {
        found = search(kind, settings);
        count.textContent = `${number(found.length)} of ${number(get(kind).query.length)} pairs`;
        list.show(found);
      }

      function drawDetail() {
        bench.dataset.open = item === null ? "no" : "yes";
        const shown = item !== null ? item : found[0];
        if (shown === undefined) {
          detail.replaceChildren(el("p", { class: "none" }, get(kind).query.length ? "No pair fits these filters." : "There are no confusions: every query is nearest to its own class."));
          return;
        }
        const at = list.at(shown);
        const step = (by) => at >= 0 && list.item(at + by) !== undefined && go("confusions", list.item(at + by), settings, true);
        const link = address("confusions", shown, new URLSearchParams(kind === "confusion" ? {} : { kind }));
        deconfuse.refill(detail,
          deconfuse.listBar(list, at, address("confusions", null, settings), link, step),
          deconfuse.pairHead(kind, shown),
          deconfuse.decide(kind, shown),
          ...deconfuse.pairDetail(kind, shown));
        list.choose(shown, false);
      }

      function update(next) {
        const before = [settings.toString(), kind];
        settings = next.settings;
        kind = kindOf(settings);
        item = next.item !== null && next.item < get(kind).query.length ? next.item : null;
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
          list.redraw();
          drawDetail();
        },
        key: (key) => {
          const choice = deconfuse.choices[kind].find(([, , letter]) => letter === key);
          const shown = item !== null ? item : found[0];
          if (choice && shown !== undefined) decisions.decide(kind, shown, choice[0]);
          else if (key === "j" || key === "k") list.move(key === "j" ? 1 : -1);
          else return false;
          return true;
        },
      };
    },
  };
})();
