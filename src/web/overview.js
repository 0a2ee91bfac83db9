"use strict";

(() => {
  const { el, get, load, number, fixed, percent, many, className, decisions, facts } = deconfuse;

  function tile(title, value, note, more) {
    return el("section", { class: "tile-card" }, el("h2", {}, title), el("p", { class: "value" }, value), el("p", { class: "note" }, note), more);
  }

  // What Recall@1 would be if the confusions that the reviewer agrees with counted as right.
  deconfuse.agreedRecall = () => {
    const run = get("run");
    return (run.queries - run.confusions + decisions.count("confusion", "agree")) / run.queries;
  };

  function tiles() {
    const run = get("run");
    const agreed = decisions.count("confusion", "agree");
    const known = run.edges.reduce((sum, edge) => sum + edge[4] * (edge[2] + edge[3]), 0);
    const sizes = decisions.sizes();
    const total = sizes.confusion + sizes.label + sizes.mis_similar;
    const done = decisions.count("confusion") + decisions.count("label") + decisions.count("mis_similar");
    const bar = el("i", {});
    bar.style.inlineSize = `${total ? (100 * done) / total : 0}%`;
    const noise = run.noise;
    return [
      tile("Recall@1", fixed(run.retrieval["R@1"]),
        agreed ? [el("strong", { id: "agreed-recall" }, fixed(deconfuse.agreedRecall())), ` if the ${many(agreed, "confusion")} you agree with counted as right`] : run.confusions ? "Agree with confusions in Review to see what it would be if they counted as right" : "Every query is nearest to its own class"),
      tile("Confusions", number(run.confusions), [`of ${many(run.queries, "query", "queries")} are nearest to another class`, known ? `; ${number(known)} between classes known to look alike` : ""]),
      noise
        ? tile("Flipped labels found", fixed(noise.detector && noise.detector.average_precision), `average precision by ${run.choices.detector}; AUROC ${fixed(noise.detector && noise.detector.auroc)}, ${number(noise.flipped)} flipped`)
        : tile("Classes to merge", number(run.taxonomy.filter((row) => row[8] !== null).length), "of the training classes: their suggestions lean to one other class"),
      tile("Relabels recommended", number(run.relabels), noise ? `${number(noise.relabels_right)} of them give a flipped sample its true label` : `of ${many(run.parts.train, "training sample")}`),
      tile("Reviewed", [number(done), el("small", {}, ` of ${number(total)}`)], el("span", { class: "meter-bar", "aria-hidden": "true" }, bar), total ? el("a", { class: "button", href: "#/review" }, done ? "Go on reviewing" : "Start reviewing") : el("p", { class: "note" }, "Nothing to review")),
    ];
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
    async show(main) {
      const run = get("run");
      await load("query");
      const parts = Object.entries(run.parts).map(([part, n]) => `${number(n)} ${part}`).join(", ");
      const edges = run.edges.slice(0, run.most_edges);
      const cards = el("div", { class: "tiles" }, tiles());
      const graph = el("div", { class: "graph-box" });
      const command = el("code", { class: "command", tabindex: "0", "aria-label": "Command" }, run.command);
      main.append(
        el("div", { class: "page-head" }, el("h1", {}, `${run.choices.dataset}: who is taken for whom`),
          el("p", { class: "lead" }, `${run.choices.model} trained with ${run.choices.loss}, ${run.noise ? `${number(run.noise.flipped)} labels flipped, ` : ""}${parts} samples, ${number(run.training_classes)} training classes and ${number(run.class_names.length - run.training_classes)} others.`)),
        cards,
        el("div", { class: "cards" },
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
      return { changed: () => cards.replaceChildren(...tiles()) };
    },
  };
})();
