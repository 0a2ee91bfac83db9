"use strict";

// Review items one after another, each decided by one key: labels, confusions, mis-similar pairs.
(() => {
  const { el, get, number, many, go, decisions, exchange } = deconfuse;
  const QUEUES = { label: ["Labels", "l"], confusion: ["Confusions", "c"], mis_similar: ["Mis-similar pairs", "m"] };
  const QUESTIONS = {
    label: "Is the label right?",
    confusion: "Do the two show the same thing?",
    mis_similar: "Are the two really different, as the model has it?",
  };
  deconfuse.queueKeys = Object.fromEntries(Object.entries(QUEUES).map(([kind, [, letter]]) => [letter, kind]));

  // The items of a queue in its order. Labels: the suspects until where to stop; all: all samples by suspicion;
  // harmful: those that score harmful. A pair and its mirror image are one item.
  deconfuse.queue = (kind, settings) => {
    if (kind !== "label") {
      const pairs = get(kind);
      if (!pairs) return [];
      return pairs.query.map((_, i) => i).filter((i) => kind !== "confusion" || pairs.mirror[i] < 0 || pairs.mirror[i] > i);
    }
    const train = get("train");
    let items = train.suspects;
    if (settings.get("all") === "1") {
      const there = new Set(items);
      const rest = train.labels.map((_, k) => k).filter((k) => !there.has(k) && !train.left_out.includes(k));
      rest.sort((i, j) => (train.suspicion[j] ?? -Infinity) - (train.suspicion[i] ?? -Infinity) || i - j);
      items = [...items, ...rest];
    } else items = items.slice(0, train.stop);
    return settings.get("harmful") === "1" ? items.filter((k) => train.influence_mean[k] > 0) : items;
  };

  // The queues that have items, as [kind, text, letter, items].
  deconfuse.queues = (settings = new URLSearchParams()) =>
    Object.entries(QUEUES).map(([kind, [text, letter]]) => [kind, text, letter, deconfuse.queue(kind, settings)]).filter(([kind, , , items]) => items.length || (kind === "label" && get("train").suspects.length));

  deconfuse.pages.review = {
    title: "Review",
    letter: "r",
    async show(main, route) {
      await deconfuse.sampleData();
      const run = get("run");
      let settings = route.settings;
      let items = [];
      let item = null;
      let panel = null;
      const top = el("div", { class: "review-top" });
      const card = el("section", { class: "review-card", "aria-label": "Item to review", tabindex: "-1" });
      const file = el("input", { type: "file", multiple: true, accept: ".json,.csv,application/json,text/csv", class: "unseen", tabindex: "-1", "aria-label": "Decisions file to import", onchange: () => read() });
      const tools = el("div", { class: "review-tools" });
      const after = el("div", { class: "review-after" });
      main.append(el("h1", { class: "unseen" }, "Review"), el("div", { class: "review" }, top, card, tools, after, file));

      const there = () => deconfuse.queues(settings).map(([kind]) => kind);
      const kind = () => (there().includes(settings.get("queue")) ? settings.get("queue") : there()[0]);
      const open = () => settings.get("open") === "1";
      const at = () => items.indexOf(item);
      const done = () => items.reduce((sum, i) => sum + (decisions.of(kind(), i) !== null), 0);

      function set(changes, to = null) {
        let next = settings;
        for (const [key, value] of Object.entries(changes)) next = deconfuse.changed(next, key, value);
        go("review", to, next, true);
      }

      // The next position in a direction; with the filter the next one that is not decided; -1 where there is none.
      function next(from, by) {
        for (let i = from + by; i >= 0 && i < items.length; i += by) {
          if (!open() || !decisions.of(kind(), items[i])) return i;
        }
        return -1;
      }

      function step(by) {
        const to = next(at(), by);
        if (to >= 0) go("review", items[to], settings, true);
        else deconfuse.say(by > 0 ? "This was the last one" : "This is the first one");
      }

      const settled = () => {
        const to = next(at(), 1);
        if (to >= 0) go("review", items[to], settings, true);
        else drawAll();
      };

      async function read() {
        const chosen = [...file.files];
        file.value = "";
        const said = [];
        for (const one of chosen) {
          try {
            const { taken, same, differ, left, run: of } = await exchange.read(one);
            const both = same + differ;
            said.push(`${one.name}: ${many(taken, "decision")} imported${left ? `; ${many(left, "decision")} fit nothing in this run and were left out` : ""}.`
              + (differ ? ` ${number(same)} of ${number(both)} decided by both are equal (${Math.round((100 * same) / both)} %); ${number(differ)} differ, see Samples, Show: Reviewers differ.` : "")
              + (of && of !== run.run ? ` They are of another run, ${of}.` : ""));
          } catch (error) {
            deconfuse.notice(`${one.name} was not imported: ${error.message}`, "error");
            return;
          }
        }
        if (said.length) deconfuse.notice(said.join(" "));
      }

      function drawTop() {
        const total = items.length;
        const bar = el("i", {});
        bar.style.inlineSize = `${total ? (100 * done()) / total : 0}%`;
        const check = (name, text) => el("label", { class: "check" }, el("input", { type: "checkbox", "data-name": name, checked: settings.get(name) === "1", onchange: (event) => set({ [name]: event.target.checked ? "1" : "" }, item) }), text);
        deconfuse.refill(top,
          el("div", { class: "views", role: "group", "aria-label": "Queue" }, deconfuse.queues(settings).map(([queue, text, letter, some]) => {
            const n = some.reduce((sum, i) => sum + (decisions.of(queue, i) !== null), 0);
            return el("button", { type: "button", class: "view-link", "data-name": queue, "aria-current": queue === kind() ? "true" : null, "aria-keyshortcuts": letter.toUpperCase(), onclick: () => set({ queue }) }, text, el("span", { class: "n" }, ` ${number(n)}/${number(some.length)}`), el("kbd", { "aria-hidden": "true" }, letter.toUpperCase()));
          })),
          el("div", { class: "progress" },
            el("span", { class: "meter-bar", role: "progressbar", "aria-label": "Reviewed", "aria-valuemin": "0", "aria-valuemax": total, "aria-valuenow": done() }, bar),
            el("p", { id: "progress" }, `${number(done())} of ${number(total)} reviewed`),
            check("open", "Only what is not reviewed"),
            ...(kind() === "label" ? [check("all", "Past where to stop"), check("harmful", "Only harmful")] : [])),
          ...(kind() === "label" ? [stopping()] : []));
      }

      // When to stop: how many of the last decisions changed a label, and the curve of suspicion with its bend.
      function stopping() {
        const train = get("train");
        const { of, changed } = decisions.lately();
        const said = of ? `Of the last ${number(of)} decisions ${number(changed)} changed a label.` : `Most suspicious first; the curve bends at ${number(train.stop)}.`;
        return el("div", { class: "stopping" }, deconfuse.falling(train, at()), el("p", { class: "hint", id: "lately" }, said, of === 25 && changed <= 2 ? " This is a good place to stop." : ""));
      }

      function drawCard() {
        const queue = kind();
        if (item === null || item === undefined) {
          panel = null;
          card.replaceChildren(el("p", { class: "none" }, "Nothing is left in this queue."));
          return;
        }
        panel = deconfuse.decide(queue, item, settled);
        const label = queue === "label";
        deconfuse.refill(card,
          el("div", { class: "detail-bar" },
            el("h2", {}, QUESTIONS[queue]),
            el("span", { class: "position" }, at() >= 0 ? `${number(at() + 1)} of ${number(items.length)}` : "not in this queue"),
            el("button", { type: "button", class: "quiet", "data-name": "previous", onclick: () => step(-1), disabled: next(at(), -1) < 0 }, "Previous"),
            el("button", { type: "button", class: "quiet", "data-name": "next", onclick: () => step(1), disabled: next(at(), 1) < 0 }, open() ? "Skip" : "Next")),
          label ? deconfuse.sampleHead("train", item) : deconfuse.pairHead(queue, item),
          panel.box,
          ...(label ? [deconfuse.sampleMore("train", item)] : [deconfuse.pairLabels(queue, item), ...deconfuse.pairDetail(queue, item)]));
      }

      function drawTools() {
        const none = decisions.all() === 0;
        const who = el("input", { type: "text", value: decisions.reviewer(), "data-name": "reviewer", autocomplete: "name", maxlength: 80, onchange: (event) => decisions.name(event.target.value) });
        const save = (form, text) => el("button", { type: "button", "data-name": form, disabled: none && form !== "labelstudio", onclick: () => exchange.save(form).then(told) }, text);
        deconfuse.refill(tools,
          el("button", { type: "button", "data-name": "undo", onclick: () => deconfuse.undo(), "aria-keyshortcuts": "U Control+Z" }, "Undo", el("kbd", { "aria-hidden": "true" }, "U")),
          save("json", "Export decisions.json"), save("csv", "Export CSV"), save("labelstudio", "Export for Label Studio"),
          el("button", { type: "button", "data-name": "import", onclick: () => file.click() }, "Import"),
          el("button", { type: "button", class: "quiet", "data-name": "clear", disabled: none, onclick: () => {
            const n = decisions.all();
            decisions.clear();
            deconfuse.did(`${many(n, "decision")} cleared. U brings them back`);
          } }, "Clear all"),
          deconfuse.field("Your name, for the export", who));
      }

      let exported = false;
      function told() {
        exported = true;
        drawAfter();
      }

      function drawAfter() {
        const n = decisions.changing();
        deconfuse.refill(after, ...(exported ? [
          el("p", {}, `${many(n, "label")} would change. Put the file beside where you ran the command, and train on what you decided:`),
          el("div", { class: "command-box" }, el("code", { class: "command", tabindex: "0", role: "group", "aria-label": "Command" }, exchange.command()), deconfuse.copy(exchange.command, "Copy command")),
        ] : []));
      }

      function drawAll() {
        if (!there().length) {
          card.replaceChildren(el("p", { class: "none" }, "There is nothing to review: no confusions, and no sample is recommended another label."));
          return;
        }
        drawTop();
        drawCard();
        drawTools();
        drawAfter();
      }

      const size = () => (kind() === "label" ? get("train").labels.length : get(kind()).query.length);

      function update(next_) {
        settings = next_.settings;
        if (!there().length) return drawAll();
        const before = item;
        items = deconfuse.queue(kind(), settings);
        item = deconfuse.itemOf(next_, size(), "item");
        if (item !== null && kind() === "confusion") item = Math.min(...decisions.twins("confusion", item));
        if (item === null || (open() && decisions.of(kind(), item) && before === null)) item = items.find((i) => !decisions.of(kind(), i)) ?? items[0] ?? null;
        drawAll();
        if (before !== item) main.parentElement.scrollTop = 0;
      }

      deconfuse.reviewing = true; // the true class is not shown before the decision
      update(route);
      return {
        update,
        gone: () => (deconfuse.reviewing = false),
        changed: () => there().length && drawAll(),
        undone: ({ kind: of, i }) => QUEUES[of] && set({ queue: of }, i),
        key: (key) => {
          if (deconfuse.queueKeys[key] && there().includes(deconfuse.queueKeys[key])) set({ queue: deconfuse.queueKeys[key] });
          else if (!there().length || item === null) return false;
          else if (key === "j" || key === "ArrowRight") step(1);
          else if (key === "k" || key === "ArrowLeft") step(-1);
          else if (key === " ") deconfuse.view(kind() === "label" ? "train" : "query", kind() === "label" ? item : get(kind()).query[item]);
          else return deconfuse.press(kind(), item, key, { after: settled, ask: panel.ask, write: panel.write });
          return true;
        },
      };
    },
  };
})();
