"use strict";

// Review items one after another, each decided by a key: confusions, relabels, mis-similar pairs.
(() => {
  const { el, get, load, number, many, go, decisions } = deconfuse;
  const QUEUES = { confusion: "Confusions", label: "Relabels", mis_similar: "Mis-similar pairs" };
  const QUESTIONS = {
    confusion: "Do the two show the same thing?",
    label: "Is the recommended label right?",
    mis_similar: "Are the two really different, as the model has it?",
  };

  deconfuse.pages.review = {
    title: "Review",
    async show(main, route) {
      const run = get("run");
      const gallery = deconfuse.galleryPart();
      await Promise.all(["query", gallery, "train", "confusion", ...(run.mis_similar ? ["mis_similar"] : [])].map(load));
      const items = {
        confusion: get("confusion").query.map((_, i) => i),
        label: get("train").relabels,
        mis_similar: run.mis_similar ? get("mis_similar").query.map((_, i) => i) : [],
      };
      const queues = Object.keys(QUEUES).filter((kind) => items[kind].length);
      let settings = route.settings;
      let asking = false;
      const top = el("div", { class: "review-top" });
      const card = el("section", { class: "review-card", "aria-label": "Item to review", tabindex: "-1" });
      const file = el("input", { type: "file", accept: ".json,.csv,application/json,text/csv", class: "unseen", tabindex: "-1", "aria-label": "Decisions file to import", onchange: () => read() });
      const tools = el("div", { class: "review-tools" });
      main.append(el("h1", { class: "unseen" }, "Review"), el("div", { class: "review" }, top, card, tools, file));

      const kind = () => (queues.includes(settings.get("queue")) ? settings.get("queue") : queues[0]);
      const open = () => settings.get("open") === "1";
      const at = () => Math.max(0, Math.min(items[kind()].length - 1, Number(settings.get("at")) || 0));

      function set(changes) {
        const next = new URLSearchParams(settings);
        next.delete("other");
        for (const [key, value] of Object.entries(changes)) {
          if (value === null || value === "") next.delete(key);
          else next.set(key, value);
        }
        go("review", null, next, true);
      }

      // The next position in a direction that passes the filter; -1 where there is none.
      function next(from, by) {
        for (let i = from + by; i >= 0 && i < items[kind()].length; i += by) {
          if (!open() || !decisions.of(kind(), items[kind()][i])) return i;
        }
        return -1;
      }

      function step(by) {
        const to = next(at(), by);
        if (to >= 0) set({ at: to });
        else deconfuse.say(by > 0 ? "This was the last one" : "This is the first one");
      }

      function decide(decision, label = null) {
        const [queue, position] = [kind(), at()];
        const item = items[queue][position];
        const before = decisions.of(queue, item);
        asking = false;
        if (before && before.decision === decision && before.label === label) {
          decisions.decide(queue, item, null);
          return;
        }
        decisions.decide(queue, item, decision, label);
        const to = next(position, 1);
        const text = deconfuse.choices[queue].find(([key]) => key === decision)[1];
        deconfuse.say(`${text}. ${done()} of ${items[queue].length} reviewed`);
        if (to >= 0) set({ at: to });
        else draw();
      }

      // Give a label by its class: the recommended label is an accept, the current label is a reject.
      function give(sample, id) {
        const train = get("train");
        const { decision, label } = decisions.labelled(deconfuse.className(id), deconfuse.className(train.labels[sample]), deconfuse.className(train.recommended[sample]));
        const found = decisions.of("label", sample);
        if (found && found.decision === decision && found.label === label) return ask(); // as it is already
        decide(decision, label);
      }

      function undo() {
        const back = decisions.undo();
        if (!back) return deconfuse.say("Nothing to undo");
        const position = items[back.kind] ? items[back.kind].indexOf(back.i) : -1;
        deconfuse.say(back.changes > 1 ? `${back.changes} decisions undone` : "Undone");
        if (position >= 0) set({ queue: back.kind, at: position });
        draw();
      }

      async function read() {
        const chosen = file.files[0];
        file.value = "";
        if (!chosen) return;
        try {
          const { taken, left, run: of } = await decisions.read(chosen);
          const other = of && of !== run.run ? ` They are of another run, ${of}.` : "";
          deconfuse.notice(`${chosen.name}: ${many(taken, "decision")} imported${left ? `; ${many(left, "decision")} fit nothing in this run and were left out` : ""}.${other}`);
        } catch (error) {
          deconfuse.notice(`${chosen.name} was not imported: ${error.message}`, "error");
        }
      }

      const done = () => decisions.count(kind());

      function drawTop() {
        const total = items[kind()].length;
        const bar = el("i", {});
        bar.style.inlineSize = `${(100 * done()) / total}%`;
        deconfuse.refill(top,
          el("div", { class: "views", role: "group", "aria-label": "Queue" }, queues.map((queue) =>
            el("button", { type: "button", class: "view-link", "data-name": queue, "aria-current": queue === kind() ? "true" : null, onclick: () => set({ queue, at: null }) }, QUEUES[queue], el("span", { class: "n" }, ` ${number(decisions.count(queue))}/${number(items[queue].length)}`)))),
          el("div", { class: "progress" },
            el("span", { class: "meter-bar", role: "progressbar", "aria-label": "Reviewed", "aria-valuemin": "0", "aria-valuemax": total, "aria-valuenow": done() }, bar),
            el("p", { id: "progress" }, `${number(done())} of ${number(total)} reviewed`),
            el("label", { class: "check" }, el("input", { type: "checkbox", "data-name": "open", checked: open(), onchange: (event) => set({ open: event.target.checked ? "1" : null }) }), "Only what is not reviewed")));
      }

      function drawCard() {
        const [queue, position] = [kind(), at()];
        const item = items[queue][position];
        const buttons = deconfuse.choices[queue].map(([decision, text, key, why]) => {
          const found = decisions.of(queue, item);
          const pressed = found !== null && found.decision === decision;
          return el("button", { type: "button", class: `choice ${decision}`, "data-name": decision, "aria-pressed": String(pressed), "aria-keyshortcuts": key.toUpperCase(), title: why, onclick: () => (decision === "other" ? ask() : decide(decision)) },
            pressed && found.label ? `${text}: ${found.label}` : text, el("kbd", { "aria-hidden": "true" }, key.toUpperCase()));
        });
        const classes = run.class_names.map((_, id) => id).slice(0, run.training_classes);
        const other = asking && queue === "label" ? deconfuse.completion("The label it should have", classes, null, (id) => id !== null && give(item, id), "Type a part of its name") : null;
        deconfuse.refill(card,
          el("div", { class: "detail-bar" },
            el("span", { class: "position" }, `${number(position + 1)} of ${number(items[queue].length)}`),
            el("h2", {}, QUESTIONS[queue]),
            el("button", { type: "button", class: "quiet", "data-name": "previous", onclick: () => step(-1), disabled: next(position, -1) < 0 }, "Previous"),
            el("button", { type: "button", class: "quiet", "data-name": "next", onclick: () => step(1), disabled: next(position, 1) < 0 }, open() ? "Skip" : "Next")),
          queue === "label" ? deconfuse.sampleHead(item) : deconfuse.pairHead(queue, item),
          el("div", { class: "choices", role: "group", "aria-label": "Decision" }, buttons),
          ...(other ? [other] : []),
          ...(queue === "label" ? [deconfuse.sampleMore(item)] : deconfuse.pairDetail(queue, item)));
        if (other) other.querySelector("input").focus();
      }

      function drawTools() {
        const none = decisions.all() === 0;
        deconfuse.refill(tools,
          el("button", { type: "button", "data-name": "undo", onclick: undo, "aria-keyshortcuts": "U Control+Z" }, "Undo", el("kbd", { "aria-hidden": "true" }, "U")),
          el("button", { type: "button", disabled: none, onclick: () => decisions.save("json") }, "Export decisions.json"),
          el("button", { type: "button", disabled: none, onclick: () => decisions.save("csv") }, "Export CSV"),
          el("button", { type: "button", onclick: () => file.click() }, "Import"),
          el("button", { type: "button", class: "quiet", disabled: none, onclick: () => {
            const n = decisions.all();
            decisions.clear();
            deconfuse.notice(`${many(n, "decision")} cleared. U brings them back.`);
          } }, "Clear all"));
      }

      function draw() {
        if (!queues.length) {
          card.replaceChildren(el("p", { class: "none" }, "There is nothing to review: no confusions, and no relabels recommended."));
          return;
        }
        drawTop();
        drawCard();
        drawTools();
      }

      function start(next_) {
        settings = next_.settings;
        asking = settings.get("other") === "1";
        if (queues.length && open() && decisions.of(kind(), items[kind()][at()])) {
          const to = [next(at() - 1, 1), next(at(), -1)].find((i) => i >= 0);
          if (to !== undefined && to !== at()) return set({ at: to });
        }
        draw();
      }

      function ask() {
        asking = !asking;
        drawCard();
      }

      start(route);
      return {
        update: start,
        changed: () => queues.length && (drawTop(), drawTools(), drawCard()),
        undo,
        key: (key) => {
          if (!queues.length) return false;
          const choice = deconfuse.choices[kind()].find(([, , letter]) => letter === key);
          if (choice) choice[0] === "other" ? ask() : decide(choice[0]);
          else if (key === "j" || key === "ArrowRight") step(1);
          else if (key === "k" || key === "ArrowLeft") step(-1);
          else return false;
          return true;
        },
      };
    },
  };
})();
