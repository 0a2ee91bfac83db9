"use strict";

// A list of any length whose rows exist only while they are visible; all rows have one height, and keys move in it.
deconfuse.list = ({ label, make, pick }) => {
  const { el } = deconfuse;
  const MORE = 6; // rows made above and below what is seen
  let items = [];
  let chosen = -1;
  let height = 0;
  const made = new Map(); // position -> row
  const inner = el("div", { class: "list-inner", role: "presentation" });
  const box = el("div", { class: "list", role: "listbox", tabindex: "0", "aria-label": label }, inner);

  function measure() {
    const probe = el("div", { class: "row" });
    inner.append(probe);
    height = probe.offsetHeight;
    probe.remove();
  }

  function draw() {
    if (!box.isConnected) return;
    if (!height) measure();
    if (!height) return;
    inner.style.height = `${items.length * height}px`;
    const first = Math.max(0, Math.floor(box.scrollTop / height) - MORE);
    const last = Math.min(items.length, Math.ceil((box.scrollTop + box.clientHeight) / height) + MORE);
    for (const [i, row] of made) {
      if (i < first || i >= last) {
        row.remove();
        made.delete(i);
      }
    }
    for (let i = first; i < last; i++) {
      if (!made.has(i)) add(i);
    }
  }

  function add(i) {
    const row = el("div", {
      class: "row", role: "option", id: `row-${items[i]}`, "aria-posinset": i + 1, "aria-setsize": items.length,
      "aria-selected": items[i] === chosen ? "true" : "false",
      onclick: () => choose(items[i], true),
    }, make(items[i]));
    row.style.transform = `translateY(${i * height}px)`;
    made.set(i, row);
    inner.append(row);
  }

  function redraw() {
    made.forEach((row) => row.remove());
    made.clear();
    draw();
  }

  // Mark an item as chosen, and scroll to it where it is not visible.
  function choose(item, tell) {
    chosen = item;
    const i = items.indexOf(item);
    for (const [at, row] of made) row.setAttribute("aria-selected", at === i ? "true" : "false");
    if (i >= 0) {
      if (!height) measure();
      const top = i * height;
      if (top < box.scrollTop) box.scrollTop = top;
      else if (top + height > box.scrollTop + box.clientHeight) box.scrollTop = top + height - box.clientHeight;
      draw();
      box.setAttribute("aria-activedescendant", `row-${item}`);
    } else box.removeAttribute("aria-activedescendant");
    if (tell && i >= 0) pick(item);
  }

  function move(by) {
    if (!items.length) return;
    const i = items.indexOf(chosen);
    choose(items[Math.max(0, Math.min(items.length - 1, i < 0 ? 0 : i + by))], true);
  }

  box.addEventListener("scroll", draw, { passive: true });
  box.addEventListener("keydown", (event) => {
    const page = Math.max(1, Math.floor(box.clientHeight / (height || 1)) - 1);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -items.length, End: items.length };
    if (event.key in steps && !event.altKey && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      move(steps[event.key]);
    }
    if (event.key === "Enter" && chosen >= 0) pick(chosen, true);
  });
  new ResizeObserver(() => {
    height = 0;
    redraw();
  }).observe(box);

  return {
    box, choose, move, redraw,
    // Other items; keep: the place in the list stays, as where only some of them went away.
    show(next, keep = false) {
      items = next;
      if (!keep) box.scrollTop = 0;
      redraw();
    },
    size: () => items.length,
    at: (item) => items.indexOf(item),
    item: (i) => items[i],
  };
};
