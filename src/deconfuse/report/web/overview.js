"use strict";

(() => {
  const { el, get, load, number, fixed, many, className, address, decisions, facts } = deconfuse;
  const FATES = {
    vanished: ["Vanished", "confused before and no more"],
    appeared: ["Appeared", "not confused before"],
    moved: ["Moved", "confused before and now, with another class; shown is the pair before"],
  };

  function tile(title, value, note, more) {
    return el("section", { class: "tile-card" }, el("h2", {}, title), el("p", { class: "value" }, value), el("p", { class: "note" }, note), more);
  }

  // How many confusions the reviewer agrees with, and what Recall@1 would be if these counted as right.
  function agreedRecall() {
    const run = get("run");
    const agreed = decisions.count("confusion", "agree");
    return [agreed, run.retrieval["R@1"] + agreed / Math.max(1, run.queries - run.lone_queries)];
  }

  const FIRST = 8; // suspects shown as pictures

  // "Which labels are wrong?": how many look wrong, the first of them as pictures, and where to begin.
  function suspects() {
    const run = get("run");
    const train = get("train");
    const queues = deconfuse.queues();
    const label = queues.find(([kind]) => kind === "label");
    const done = label ? label[3].reduce((sum, k) => sum + (decisions.of("label", k) !== null), 0) : 0;
    const changing = decisions.changing();
    const noise = run.noise;
    const open = train.suspects.filter((k) => !decisions.of("label", k)).slice(0, FIRST);
    return el("section", { class: "card first", id: "suspects" },
      el("h2", { class: "headline" }, train.wrong ? `${many(train.wrong, "training label looks", "training labels look")} wrong` : train.stop ? `${many(train.stop, "training label")} to look at` : "No training label looks wrong"),
      el("p", { class: "hint" }, train.wrong
        ? [`Of ${number(run.parts.train)}; more likely wrong than right, most suspicious first. `, noise ? `${number(noise.flipped)} were flipped by noise=. ` : "", done ? `${number(done)} decided, ${many(changing, "label")} would change.` : "Below: the label now → the label recommended."]
        : train.stop ? `None of ${number(run.parts.train)} is more likely wrong than right; these are recommended another label, most suspicious first. ${done ? `${number(done)} decided, ${many(changing, "label")} would change.` : "Below: the label now → the label recommended."}`
        : "No sample is recommended another label."),
      open.length ? el("div", { class: "strip wide suspects" }, open.map((k) => deconfuse.figure("train", k, [
        el("span", { dir: "auto" }, deconfuse.named(className(train.labels[k]))),
        el("span", { class: "to", dir: "auto" }, "→ ", deconfuse.named(className(train.recommended[k]))),
      ], address("review", k, new URLSearchParams({ queue: "label" }))))) : null,
      el("p", { class: "begin" }, queues.map(([kind, text, letter, items], at) => {
        const n = items.filter((i) => !decisions.of(kind, i)).length;
        const words = { label: done ? "Go on with the labels" : "Review the labels", confusion: "Review the confusions", mis_similar: "Review the mis-similar pairs" };
        return el("a", { class: at ? "button" : "button main", href: address("review", null, new URLSearchParams({ queue: kind })), "aria-keyshortcuts": letter.toUpperCase(), title: text }, words[kind], el("span", { class: "n" }, `${number(n)} left`), el("kbd", { "aria-hidden": "true" }, letter.toUpperCase()));
      })),
      decisions.all() ? el("p", { class: "hint" }, "When you have decided: ", el("a", { href: address("review") }, "export on Review"), ", and train with ", el("code", {}, "relabels=decisions.json"), ".") : null);
  }

  function tiles() {
    const run = get("run");
    const [agreed, recall] = agreedRecall();
    const known = run.edges.reduce((sum, edge) => sum + edge[4] * (edge[2] + edge[3]), 0);
    const noise = run.noise;
    return [
      tile("Recall@1", fixed(run.retrieval["R@1"]),
        run.trivial ? `${run.trivial}.` : agreed ? [el("strong", { id: "agreed-recall" }, fixed(recall)), ` if the ${many(agreed, "confusion")} that show the same thing counted as right`] : run.confusions ? "The share of test pictures whose nearest other picture is of their class" : "Every query is nearest to its own class"),
      tile("Confusions", number(run.confusions), [`of ${many(run.queries - run.lone_queries, "query", "queries")} are nearest to another class`, known ? `; ${number(known)} between classes known to look alike` : ""],
        run.lone_queries ? el("p", { class: "note", id: "lone" }, `${many(run.lone_queries, "query has", "queries have")} no image of ${run.lone_queries === 1 ? "its" : "their"} class in the gallery: in no recall and no confusion.`) : null),
      noise ? tile("Flipped labels found", fixed(noise.detector && noise.detector.average_precision), `average precision by ${run.choices.detector}; AUROC ${fixed(noise.detector && noise.detector.auroc)}, ${number(noise.flipped)} flipped`) : null,
      tile("Classes to consider merging", number(run.taxonomy.filter((row) => row[8] !== null).length), el("a", { href: address("classes") }, "All classes")),
    ].filter((one) => one);
  }

  // What the labels corrected by relabels= have changed between the model before and this one.
  function corrected() {
    const told = get("run").corrections;
    if (!told) return null;
    const rows = Object.keys(told.after).map((name) => {
      const [before, after] = [told.before[name], told.after[name]];
      const digits = name === "confusions" ? 0 : 3;
      const change = `${after > before ? "+" : after < before ? "−" : ""}${Math.abs(after - before).toFixed(digits)}`;
      return el("tr", {}, el("td", {}, name === "confusions" ? "Confusions" : name), ...[before.toFixed(digits), after.toFixed(digits), change].map((text) => el("td", { class: "n" }, text)));
    });
    const right = told.right === null ? "" : `: ${number(told.right)} rightly, ${number(told.wrong)} wrongly`;
    return el("section", { class: "card span", id: "corrected" },
      el("h2", {}, "What the corrected labels changed"),
      told.left_out || told.classes.length || told.test ? el("p", { class: "hint" }, [
        told.left_out ? `${many(told.left_out, "sample was", "samples were")} left out of training. ` : "",
        told.classes.map(([a, b, what]) => (what === "merge" ? `${a} was merged into ${b}. ` : `${a} and ${b} were swapped. `)).join(""),
        told.test ? (told.test.applied ? `Before and after are measured on a corrected test side: ${many(told.test.changed, "label")} changed, ${many(told.test.left_out, "sample")} left out.` : `${many(told.test.changed + told.test.left_out, "decision")} on test samples were not applied; relabels.test=true measures on them.`) : "",
      ].join("")) : null,
      el("p", { class: "hint" }, `${many(told.changed, "label was", "labels were")} corrected, as `, el("bdi", {}, told.file), ` says${right}. Before: the model trained on the labels as they were. One seed is noise; several tell more. `,
        el("a", { href: address("samples", null, new URLSearchParams({ only: "corrected" })) }, "The corrected samples")),
      el("table", { class: "narrow" }, el("thead", {}, el("tr", {}, ["Measure", "Before", "After", "Change"].map((text, i) => el("th", { scope: "col", class: i ? "n" : null }, text)))), el("tbody", {}, rows)),
      Object.entries(FATES).map(([fate, [word, what]]) => {
        const shown = told.shown[fate] || [];
        return el("details", { open: fate !== "moved" && shown.length > 0 },
          el("summary", {}, `${word}: ${many(told[fate], "query", "queries")}, ${what}${told[fate] > shown.length ? `; the first ${shown.length} of changes.csv` : ""}`),
          shown.length ? el("div", { class: "strip wide" }, shown.map(([a, b]) => couple(a, b))) : el("p", { class: "none" }, "None."));
      }));
  }

  // A query and a neighbour; a link where the two are a confusion of this run.
  function couple(a, b) {
    const [pairs, gallery] = [get("confusion"), deconfuse.galleryPart()];
    const i = pairs.query.findIndex((query, k) => query === a && pairs.neighbour[k] === b);
    const names = [className(get("query").labels[a]), className(get(gallery).labels[b])];
    return el(i < 0 ? "div" : "a", { class: "figure couple", href: i < 0 ? null : address("confusions", i) },
      el("span", { class: "two" }, deconfuse.thumb("query", a), deconfuse.thumb(gallery, b)),
      el("span", { class: "caption" }, names.map((name) => el("span", { dir: "auto" }, deconfuse.named(name)))));
  }

  function settings() {
    const run = get("run");
    const order = ["dataset", "model", "loss", "noise", "recipe", "target", "influence", "detector"];
    const chosen = order.filter((key) => run.choices[key]).map((key) => [key, run.choices[key]]);
    return facts([...chosen, ["params", run.params], ["seed", String(run.seed)], ["checkpoint", run.checkpoint_name], ["run", run.run],
      ["versions", Object.entries(run.versions).map(([name, version]) => `${name} ${version}`).join(", ")]]);
  }

  deconfuse.pages.overview = {
    title: "Overview",
    letter: "o",
    async show(main) {
      const run = get("run");
      await Promise.all(["train", "query", "confusion", deconfuse.galleryPart(), ...(run.mis_similar ? ["mis_similar"] : [])].map(load));
      const names = { train: ["training sample"], query: ["query", "queries"], gallery: ["gallery sample"] };
      const parts = Object.entries(run.parts).map(([part, n]) => many(n, ...names[part])).join(", ");
      const first = el("div", {}, suspects());
      const edges = run.edges.slice(0, run.most_edges);
      const cards = el("div", { class: "tiles" }, tiles());
      const graph = el("div", { class: "graph-box" });
      const command = el("code", { class: "command", tabindex: "0", role: "group", "aria-label": "Command" }, run.command);
      main.append(
        el("div", { class: "page-head" }, el("h1", {}, `${run.choices.dataset}: which labels are wrong, and who is taken for whom`),
          el("p", { class: "lead" }, `${run.choices.model} trained with ${run.choices.loss}; ${parts}; ${number(run.training_classes)} classes to train on and ${number(run.class_names.length - run.training_classes)} others to test with.`)),
        first,
        cards,
        el("div", { class: "cards" },
          corrected(),
          el("section", { class: "card span" },
            el("h2", {}, "Confused classes"),
            edges.length
              ? [el("p", { class: "hint" }, `The ${many(edges.length, "pair")} of classes confused most${run.edges.length > edges.length ? `, of ${number(run.edges.length)}` : ""}. The number says how often, both ways. A number or a class leads to its confusions.`, edges.some((edge) => edge[4]) ? [" ", el("span", { class: "key-known" }, "Green"), " lines: known to look alike."] : []), graph,
                el("details", {}, el("summary", {}, "The same as a table"), el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Confused classes" }, deconfuse.edgeTable(edges)))]
              : el("p", { class: "none" }, "No query is nearest to another class: there is nothing to explain.")),
          run.curves.length ? el("section", { class: "card" }, el("h2", {}, "Finding the flipped labels"), deconfuse.curve(run.curves)) : null,
          el("section", { class: run.curves.length ? "card" : "card span" }, el("h2", {}, "Retrieval on the test classes"), deconfuse.facts(Object.entries(run.retrieval).map(([name, value]) => [name, fixed(value)])),
            el("h2", {}, "Where the time went"), deconfuse.bars(Object.entries(run.seconds).filter(([, value]) => value >= 0.05), "s")),
          el("section", { class: "card span" }, el("h2", {}, "How it was made"), el("div", { class: "command-box" }, command, deconfuse.copy(() => run.command, "Copy")), settings()),
        ),
      );
      if (edges.length) {
        let last = 0;
        const observer = new ResizeObserver(() => {
          const width = Math.floor(graph.clientWidth);
          if (width && Math.abs(width - last) > 8) {
            last = width;
            graph.replaceChildren(deconfuse.graph(edges, width));
          }
        });
        observer.observe(graph);
      }
      return {
        changed: () => {
          first.replaceChildren(suspects());
          cards.replaceChildren(...tiles());
        },
        key: (key) => {
          const queue = deconfuse.queueKeys[key];
          if (!queue || !deconfuse.queues().some(([kind]) => kind === queue)) return false;
          location.hash = address("review", null, new URLSearchParams({ queue }));
          return true;
        },
      };
    },
  };
})();
