"use strict";

// Parts that several pages share: fields, completion, lists, explanations.
(() => {
  const { el, get, row, number, percent, score, short, className, figure, galleryPart } = deconfuse;
  let ids = 0;

  deconfuse.field = (label, control, wide) => {
    control.id = control.id || `field-${++ids}`;
    return el("div", { class: `field ${wide ? "wide" : ""}` }, el("label", { for: control.id }, label), control);
  };

  deconfuse.select = (label, options, value, onpick) => {
    const control = el("select", { onchange: () => onpick(control.value) }, options.map(([key, text]) => el("option", { value: key, selected: key === value }, text)));
    return deconfuse.field(label, control);
  };

  deconfuse.search = (label, value, onpick) => {
    let timer;
    const control = el("input", { type: "search", value: value || "", placeholder: "Part of a name", autocomplete: "off", spellcheck: "false" });
    control.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(() => onpick(control.value), 150);
    });
    return deconfuse.field(label, control, true);
  };

  // Choose a class by typing a part of its name. onpick gets the class id, or null where the field was emptied.
  deconfuse.completion = (label, classes, value, onpick, placeholder = "All classes") => {
    const MOST = 50;
    const listId = `options-${++ids}`;
    const options = el("ul", { id: listId, role: "listbox", class: "options", hidden: true, "aria-label": label });
    const input = el("input", {
      type: "text", role: "combobox", "aria-autocomplete": "list", "aria-expanded": "false", "aria-controls": listId,
      autocomplete: "off", spellcheck: "false", dir: "auto", placeholder, value: value === null ? "" : className(value),
    });
    let shown = [];
    let at = -1;

    function open() {
      const typed = input.value.trim().toLowerCase();
      const named = classes.map((id) => [id, className(id).toLowerCase()]);
      const found = named.filter(([, name]) => name.includes(typed));
      found.sort((a, b) => Number(!a[1].startsWith(typed)) - Number(!b[1].startsWith(typed)));
      shown = found.slice(0, MOST).map(([id]) => id);
      at = typed && shown.length ? 0 : -1;
      options.replaceChildren(
        ...shown.map((id, i) =>
          el("li", { id: `${listId}-${i}`, role: "option", dir: "auto", "aria-selected": String(i === at), onmousedown: (event) => (event.preventDefault(), choose(i)) }, className(id)),
        ),
      );
      if (!shown.length) options.append(el("li", { class: "empty", role: "option", "aria-disabled": "true", "aria-selected": "false" }, "No such class"));
      options.hidden = false;
      input.setAttribute("aria-expanded", "true");
      mark();
    }

    function close() {
      options.hidden = true;
      input.setAttribute("aria-expanded", "false");
      input.removeAttribute("aria-activedescendant");
    }

    function mark() {
      [...options.children].forEach((option, i) => option.setAttribute("aria-selected", String(i === at)));
      if (at < 0) return input.removeAttribute("aria-activedescendant");
      input.setAttribute("aria-activedescendant", `${listId}-${at}`);
      options.children[at].scrollIntoView({ block: "nearest" });
    }

    function choose(i) {
      input.value = className(shown[i]);
      close();
      onpick(shown[i]);
    }

    input.addEventListener("input", open);
    input.addEventListener("focus", () => input.select());
    input.addEventListener("click", open);
    input.addEventListener("blur", () => {
      close();
      if (!input.value.trim() && value !== null) onpick(null);
    });
    input.addEventListener("keydown", (event) => {
      const open_ = !options.hidden;
      if (event.key === "ArrowDown" || event.key === "ArrowUp") {
        event.preventDefault();
        if (!open_) return open();
        at = (at + (event.key === "ArrowDown" ? 1 : -1) + shown.length) % Math.max(1, shown.length);
        mark();
      } else if (event.key === "Enter") {
        event.preventDefault();
        if (!input.value.trim()) {
          close();
          onpick(null);
        } else if (open_ && at >= 0) choose(at);
      } else if (event.key === "Escape" && open_) {
        event.stopPropagation();
        close();
      }
    });
    const box = deconfuse.field(label, input, true);
    box.classList.add("completion");
    box.append(options);
    return box;
  };

  // A share in [0, 1] as a bar with its number.
  deconfuse.meter = (label, value, tone = "") => {
    const bar = el("i", {});
    bar.style.inlineSize = `${100 * Math.max(0, Math.min(1, value || 0))}%`;
    return el("div", { class: `meter ${tone}` }, el("span", { class: "meter-label", dir: "auto" }, label), el("span", { class: "meter-value" }, percent(value)), el("span", { class: "meter-bar", "aria-hidden": "true" }, bar));
  };

  deconfuse.facts = (pairs) =>
    el("dl", { class: "facts" }, pairs.filter(([, value]) => value !== null && value !== undefined).map(([name, value, why]) =>
      el("div", {}, el("dt", { title: why }, name), el("dd", {}, value))));

  // A row of the list: one or two pictures, lines of text, a badge.
  deconfuse.rowContent = (thumbs, lines, badge) => [
    el("span", { class: "row-thumbs" }, thumbs),
    el("span", { class: "row-text" }, lines),
    badge,
  ];

  function strip(title, tone, samples, scores) {
    const body = samples.length
      ? el("div", { class: "strip" }, samples.map((k, j) =>
          figure("train", k, [className(get("train").labels[k]), el("span", { class: `score ${tone}` }, score(scores[j]))], deconfuse.address("samples", k))))
      : el("p", { class: "none" }, tone === "harmful" ? "No training sample scores above 0." : "No training sample scores below 0.");
    return el("div", { class: `side ${tone}` }, el("h4", {}, el("span", { "aria-hidden": "true" }, tone === "harmful" ? "▲ " : "▼ "), title), body);
  }

  // The most harmful and most helpful training samples of row i, for each method.
  deconfuse.explanations = async (i) => {
    const run = get("run");
    const parts = await Promise.all(run.methods.map(async (method, m) => (i < method.rows ? [method, await row(`explained-${m}`, i)] : null)));
    const told = parts.filter((part) => part);
    if (!told.length) {
      return [el("p", { class: "none" }, "This pair was not explained: target= chose other pairs.")];
    }
    return [
      ...told.map(([method, found]) =>
        el("section", { class: "method", "aria-label": `Explained by ${method.name}` },
          el("h3", {}, method.name, method.unit && el("span", { class: "unit", title: `In the tables' words: ${method.unit.replaceAll("`", "")}` }, "score: how much fitting the sample more changes the distance")),
          strip("Most harmful", "harmful", found.harmful, found.harmful_scores),
          strip("Most helpful", "helpful", found.helpful, found.helpful_scores),
        )),
      el("p", { class: "sign" }, signText()),
    ];
  };

  function signText() {
    const apart = get("run").explained.table === "mis_similar.csv";
    return apart
      ? "A score above 0 is harmful: fitting that training sample more moves this pair further apart. Below 0 is helpful. Scores of different methods have different units."
      : "A score above 0 is harmful: fitting that training sample more brings this pair closer. Below 0 is helpful. Scores of different methods have different units.";
  }

  // The row of influence.npy that explains a pair, or -1.
  deconfuse.explainedRow = (kind, i) => {
    const { explained, groups } = get("run");
    if (explained.table === "groups.csv") return kind === "confusion" ? groups.indexOf(get("query").labels[get("confusion").query[i]]) : -1;
    return explained.table === (kind === "confusion" ? "confusions.csv" : "mis_similar.csv") ? i : -1;
  };

  deconfuse.DISTANCE = "0: the model sees no difference; 4: opposite. The squared distance of the embeddings, scaled to length one, on every page and in every table";

  // Two pictures, the classes, and how far apart they are.
  deconfuse.pairHead = (kind, i) => {
    const pairs = get(kind);
    const [a, b, gallery] = [pairs.query[i], pairs.neighbour[i], galleryPart()];
    const side = (part, k, what) =>
      el("figure", { class: "big" }, deconfuse.picture(part, k), el("figcaption", {},
        el("span", { class: "what" }, what), el("strong", { dir: "auto" }, deconfuse.named(className(get(part).labels[k]))), el("span", { class: "file", dir: "auto" }, deconfuse.named(get(part).names[k]))));
    const total = pairs.query.length;
    const rank = kind === "confusion" ? `${number(i + 1)} of ${number(total)}, closest first` : `${number(i + 1)} of ${number(total)}, farthest first`;
    return el("div", { class: "pair" },
      el("div", { class: "pictures" }, side("query", a, "Query"), el("span", { class: "versus", "aria-hidden": "true" }, kind === "confusion" ? "taken for" : "far from"), side(gallery, b, kind === "confusion" ? "Nearest neighbour" : "Farthest of its class")),
      deconfuse.facts([
        ["Distance", `${short(pairs.distance[i])} of 4`, deconfuse.DISTANCE],
        ["Rank", rank],
        ["Each other's nearest", kind === "confusion" && pairs.mirror[i] >= 0 ? "yes: both pairs are decided together" : null],
        ["Known to look alike", pairs.known && pairs.known[i] ? "yes" : null, "By the data set"],
      ]));
  };

  // An item's position in its list, with buttons to the previous and the next item; step(by) goes there.
  deconfuse.listBar = (list, at, back, link, step) =>
    el("div", { class: "detail-bar" },
      el("a", { class: "button back", href: back }, "‹ List"),
      el("span", { class: "position" }, at >= 0 ? `${number(at + 1)} of ${number(list.size())}` : "not in the list"),
      el("button", { type: "button", class: "quiet", "data-name": "previous", onclick: () => step(-1), disabled: at <= 0 }, "Previous"),
      el("button", { type: "button", class: "quiet", "data-name": "next", onclick: () => step(1), disabled: at < 0 || at + 1 >= list.size() }, "Next"),
      deconfuse.copy(() => location.href.split("#")[0] + link, "Copy link"));

  deconfuse.copy = (text, what) =>
    el("button", { type: "button", class: "quiet copy", "data-name": "copy", onclick: async (event) => {
      const button = event.currentTarget;
      try {
        await navigator.clipboard.writeText(text());
        button.textContent = "Copied";
      } catch {
        button.textContent = "Select it and copy";
      }
      deconfuse.say(button.textContent);
      setTimeout(() => (button.textContent = what), 1500);
    } }, what);

  // A list beside the chosen item; a narrow screen shows one of the two.
  deconfuse.workbench = (filters, list, detail) =>
    el("div", { class: "bench" },
      el("section", { class: "master", "aria-label": "List" }, filters, list.box),
      el("section", { class: "detail", "aria-label": "What is chosen", tabindex: "-1" }, detail));
})();
