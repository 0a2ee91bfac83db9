"use strict";

// Near-identical pictures: one picture with two labels, on both sides of the split, and copies within a class.
(() => {
  const { el, get, load, number, many, fixed, short, className, address, decisions } = deconfuse;
  const KINDS = {
    "two labels": ["One picture, two labels", "At least one of the labels is wrong: the strongest evidence there is."],
    "both sides": ["On both sides of the split", "The model is tested on a picture that it was trained with."],
    copies: ["Copies within a class", "The picture counts several times; exclude all but one if that is not meant."],
  };
  const MOST = 60; // groups drawn at once
  const SIDES = { train: "training", query: "query", gallery: "gallery" };

  function member([part, row, distance, bits]) {
    const figure = deconfuse.figure(part, row, [
      className(get(part).labels[row]),
      el("span", { class: "hint" }, SIDES[part]),
      el("span", { class: "hint", title: deconfuse.DISTANCE }, `distance ${short(distance)}${bits >= 0 ? `; ${number(bits)} of 256 bits differ` : ""}`),
    ], deconfuse.sampleAddress(part, row));
    const kind = deconfuse.kindOf(part);
    const found = decisions.of(kind, row);
    const exclude = el("button", { type: "button", class: "quiet", "data-name": `exclude-${part}-${row}`, "aria-pressed": String(found !== null && found.decision === "exclude"), onclick: () => deconfuse.settle(kind, row, "exclude", null) }, "Exclude");
    return el("div", { class: "member" }, figure, exclude);
  }

  // One label for all training samples of a group, in one step.
  function giveAll(group, id) {
    const rows = group.members.filter(([part]) => part === "train").map(([, row]) => row);
    const train = get("train");
    const time = new Date().toISOString().slice(0, 19) + "Z";
    decisions.change(rows.map((k) => [decisions.key("label", k), { ...(decisions.raw("label", k) || {}), ...decisions.labelled("label", className(id), className(train.labels[k]), className(train.recommended[k])), time }]));
    deconfuse.did(`${many(rows.length, "copy is", "copies are")} ${className(id)}. U undoes`);
  }

  function card(group) {
    const labels = [...new Set(group.members.filter(([part]) => part === "train").map(([, row]) => get("train").labels[row]))];
    return el("li", { class: "card" },
      el("div", { class: "strip wide" }, group.members.slice(0, 12).map(member)),
      group.members.length > 12 ? el("p", { class: "hint" }, `and ${number(group.members.length - 12)} more`) : null,
      labels.length > 1 ? el("p", { class: "choices", role: "group", "aria-label": "The label of all of them" }, labels.map((id) => el("button", { type: "button", "data-name": `all-${id}`, dir: "auto", onclick: () => giveAll(group, id) }, `All are ${className(id)}`))) : null);
  }

  deconfuse.pages.duplicates = {
    title: "Duplicates",
    letter: "d",
    there: () => Boolean(get("run").duplicates),
    async show(main, route) {
      await Promise.all([deconfuse.sampleData(), load("duplicates")]);
      const told = get("run").duplicates;
      const all = get("duplicates");
      let settings = route.settings;
      const views = el("div", { class: "views", role: "group", "aria-label": "Kind" });
      const body = el("div", {});
      main.append(el("h1", {}, "Near-identical pictures"), el("div", { class: "page-head" },
        el("p", { class: "lead" }, all.length ? `${many(all.length, "group")}, found and confirmed by their pixels, whatever the model says of them.` : "No two pictures are near-identical."),
        told.copied ? el("p", {}, `${many(told.copied, "query has", "queries have")} a copy in training or among the pictures that are searched: `, told["R@1"] === null ? "no query is left without." : [el("strong", {}, `Recall@1 without them is ${fixed(told["R@1"])}`), `, with them ${fixed(get("run").retrieval["R@1"])}.`]) : null), views, body);
      const kinds = Object.keys(KINDS).filter((kind) => told[kind]);
      const kind = () => (kinds.includes(settings.get("kind")) ? settings.get("kind") : kinds[0]);

      function draw() {
        views.replaceChildren(...kinds.map((one) => el("a", { class: "view-link", href: address("duplicates", null, new URLSearchParams({ kind: one })), "aria-current": one === kind() ? "true" : null }, KINDS[one][0], el("span", { class: "n" }, ` ${number(told[one])}`))));
        if (!kinds.length) return;
        const some = all.filter((group) => group.kind === kind());
        const shown = Number(settings.get("shown")) || MOST;
        deconfuse.refill(body,
          el("p", { class: "hint" }, KINDS[kind()][1]),
          el("ul", { class: "groups" }, some.slice(0, shown).map(card)),
          some.length > shown ? el("a", { class: "button", href: address("duplicates", null, deconfuse.changed(settings, "shown", shown + MOST)) }, `Show more of the ${number(some.length)}`) : null);
      }

      draw();
      return {
        update: (next) => {
          settings = next.settings;
          draw();
        },
        changed: draw,
      };
    },
  };
})();
