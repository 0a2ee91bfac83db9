"use strict";

// Many samples at once: a grid to select in by click, range, or a rule, and to decide in one step.
(() => {
  const { el, get, number, many, percent, className, go, decisions } = deconfuse;

  deconfuse.pages.grid = {
    title: "Grid",
    hidden: true, // it is a view of Samples
    of: "samples",
    async show(main, route) {
      await deconfuse.sampleData();
      let settings = route.settings;
      let found = [];
      let cursor = 0; // a position in found
      let anchor = 0;
      let shape = { columns: 1, width: 0, height: 0 };
      const chosen = new Set();
      const made = new Map();
      const side = () => deconfuse.sideOf(settings);
      const kind = () => deconfuse.kindOf(side());
      const views = el("div", { class: "view-bar" });
      const filters = el("div", { class: "filters grid-filters" });
      const count = el("p", { class: "count", role: "status" });
      const inner = el("div", { class: "list-inner", role: "presentation" });
      const box = el("div", { class: "list grid", role: "listbox", tabindex: "0", "aria-multiselectable": "true", "aria-label": "Samples; arrow keys move, Enter selects, Shift selects a range, Control A all" }, inner);
      const tools = el("div", { class: "grid-tools" });
      main.append(el("h1", { class: "unseen" }, "Grid of samples"), views, filters, count, box, tools);

      const set = (key, value) => go("grid", null, deconfuse.changed(settings, key, value), true);

      function cell(k) {
        const data = get(side());
        const other = side() === "train" && data.recommended[k] !== data.labels[k];
        return [
          deconfuse.thumb(side(), k, "cell"),
          el("span", { class: "cell-text", dir: "auto" }, className(data.labels[k])),
          other ? el("span", { class: "cell-text to", dir: "auto" }, `→ ${className(data.recommended[k])}`, el("span", { class: "n" }, ` ${percent(data.vote_recommended[k])}`)) : null,
          deconfuse.badge(kind(), k),
        ];
      }

      function measure() {
        const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
        const room = box.clientWidth;
        const columns = Math.max(1, Math.floor(room / (7.6 * rem)));
        shape = { columns, width: room / columns, height: 9.4 * rem };
      }

      function draw() {
        if (!box.isConnected || !shape.width) return;
        const { columns, width, height } = shape;
        inner.style.height = `${Math.ceil(found.length / columns) * height}px`;
        const first = Math.max(0, (Math.floor(box.scrollTop / height) - 1) * columns);
        const last = Math.min(found.length, (Math.ceil((box.scrollTop + box.clientHeight) / height) + 1) * columns);
        for (const [at, node] of made) if (at < first || at >= last) (node.remove(), made.delete(at));
        for (let at = first; at < last; at++) {
          if (made.has(at)) continue;
          const node = el("div", { class: "cell-box", role: "option", id: `cell-${at}`, "aria-selected": String(chosen.has(found[at])), "aria-posinset": at + 1, "aria-setsize": found.length, onclick: (event) => press(at, event), ondblclick: () => deconfuse.view(side(), found[at]) }, cell(found[at]));
          node.style.transform = `translate(${(at % columns) * width}px, ${Math.floor(at / columns) * height}px)`;
          node.style.inlineSize = `${width}px`;
          node.classList.toggle("cursor", at === cursor);
          made.set(at, node);
          inner.append(node);
        }
      }

      function redraw() {
        made.forEach((node) => node.remove());
        made.clear();
        draw();
        drawTools();
      }

      function mark() {
        for (const [at, node] of made) {
          node.setAttribute("aria-selected", String(chosen.has(found[at])));
          node.classList.toggle("cursor", at === cursor);
        }
        if (made.has(cursor)) box.setAttribute("aria-activedescendant", `cell-${cursor}`);
        drawTools();
      }

      // A click or Enter on a cell: alone it is added or taken away, with Shift all from the last one to it.
      function press(at, event) {
        cursor = at;
        if (event.shiftKey) {
          const [low, high] = [Math.min(anchor, at), Math.max(anchor, at)];
          for (let i = low; i <= high; i++) chosen.add(found[i]);
        } else {
          if (chosen.has(found[at])) chosen.delete(found[at]);
          else chosen.add(found[at]);
          anchor = at;
        }
        mark();
      }

      function move(by) {
        if (!found.length) return;
        cursor = Math.max(0, Math.min(found.length - 1, cursor + by));
        const top = Math.floor(cursor / shape.columns) * shape.height;
        if (top < box.scrollTop) box.scrollTop = top;
        else if (top + shape.height > box.scrollTop + box.clientHeight) box.scrollTop = top + shape.height - box.clientHeight;
        draw();
        mark();
      }

      // Decide on all that is selected, as one step. Accept is for those that are recommended another label.
      function decide(decision, label = null) {
        const train = get("train");
        const items = [...chosen].filter((k) => decision !== "accept" || train.recommended[k] !== train.labels[k]);
        if (!items.length) return deconfuse.did("Nothing that is selected can be decided so");
        if (label !== null && side() === "train") {
          const changes = items.map((k) => [k, decisions.labelled("label", label, className(train.labels[k]), className(train.recommended[k]))]);
          bulk(changes);
        } else bulk(items.map((k) => [k, { decision, label }]));
        const words = { accept: "given the recommended label", reject: "right as they are", exclude: "excluded", unsure: "unsure", other: `given the label ${label}` };
        chosen.clear();
        deconfuse.did(`${many(items.length, "sample")} ${words[decision]}. U undoes them all`);
        redraw();
      }

      function bulk(changes) {
        const time = new Date().toISOString().slice(0, 19) + "Z";
        decisions.change(changes.map(([k, value]) => [decisions.key(kind(), k), { ...(decisions.raw(kind(), k) || {}), ...value, time }]));
      }

      // All that pass the filters and have at least this vote for the recommended label.
      function byVote(least) {
        const train = get("train");
        chosen.clear();
        for (const k of found) if (train.recommended[k] !== train.labels[k] && train.vote_recommended[k] >= least && !decisions.of("label", k)) chosen.add(k);
        deconfuse.did(`${many(chosen.size, "sample")} with a vote of ${percent(least)} or more selected; look through them, then decide`);
        mark();
      }

      function drawTools() {
        const n = chosen.size;
        const button = (decision, text, key) => el("button", { type: "button", class: `choice ${decision}`, "data-name": decision, disabled: !n, "aria-keyshortcuts": key, onclick: () => decide(decision) }, text, el("kbd", { "aria-hidden": "true" }, key));
        const least = el("input", { type: "number", min: 0, max: 100, step: 5, value: 90, "aria-label": "Least vote in percent" });
        deconfuse.refill(tools,
          el("p", { class: "chosen", role: "status" }, `${number(n)} selected`),
          el("div", { class: "picks" },
            side() === "train" ? el("button", { type: "button", "data-name": "vote", onclick: () => byVote(Number(tools.querySelector("input[type=number]").value) / 100) }, "Select all with a vote of at least") : null,
            side() === "train" ? el("label", { class: "least" }, least, "%") : null,
            el("button", { type: "button", class: "quiet", "data-name": "none", disabled: !n, onclick: () => (chosen.clear(), mark()) }, "Select none")),
          el("div", { class: "choices", role: "group", "aria-label": "Decide on what is selected" },
            side() === "train" ? button("accept", "Accept", "A") : null, button("reject", "Labels are right", "R"), button("exclude", "Exclude", "X"), button("unsure", "Unsure", "S")),
          n ? deconfuse.completion("Give them all the label", deconfuse.classesOf(kind()), null, (id) => id !== null && decide("other", className(id)), "Type a part of its name") : null);
      }

      function update(next, first) {
        const before = settings.toString();
        settings = next.settings;
        if (first || before !== settings.toString()) {
          views.replaceChildren(deconfuse.sampleViews("grid", settings));
          const focused = document.activeElement && filters.contains(document.activeElement) && document.activeElement.type === "search";
          if (!focused) filters.replaceChildren(...deconfuse.sampleFilters(settings, set, "grid"));
          search();
          box.scrollTop = 0;
          cursor = anchor = 0;
          chosen.clear();
        }
        redraw();
      }

      function search() {
        found = deconfuse.find(settings);
        count.textContent = `${number(found.length)} of ${number(get(side()).labels.length)} samples`;
      }

      box.addEventListener("scroll", draw, { passive: true });
      box.addEventListener("keydown", (event) => {
        if (event.altKey) return;
        const page = Math.max(1, Math.floor(box.clientHeight / (shape.height || 1))) * shape.columns;
        const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: shape.columns, ArrowUp: -shape.columns, PageDown: page, PageUp: -page, Home: -found.length, End: found.length };
        if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "a") {
          found.forEach((k) => chosen.add(k));
          mark();
        } else if (event.ctrlKey || event.metaKey) return;
        else if (event.key in steps) {
          move(steps[event.key]);
          if (event.shiftKey) press(cursor, event);
        } else if (event.key === "Enter") press(cursor, event);
        else if (event.key === " ") deconfuse.view(side(), found[cursor]);
        else return;
        event.preventDefault();
      });
      new ResizeObserver(() => {
        measure();
        redraw();
      }).observe(box);
      measure();
      update(route, true);
      return {
        update,
        changed: () => {
          search();
          redraw();
        },
        key: (key) => {
          const choice = { a: "accept", r: "reject", x: "exclude", s: "unsure" }[key];
          if (!choice || (choice === "accept" && side() !== "train")) return false;
          decide(choice);
          return true;
        },
      };
    },
  };
})();
