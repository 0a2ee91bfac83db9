"use strict";

// Large pictures: the preview of a sample on a page, and a dialog with the original, its path, and its decisions.
(() => {
  const { el, get, load, number, className, decisions } = deconfuse;
  let shown = null; // [part, i] in the dialog
  const dialog = document.getElementById("viewer");

  const previewed = (part, i) => ((get("previews") || {})[part] || {})[i] || null;

  // The address of the original's file as seen from the report, or null.
  function original(part, i) {
    const where = (get("run").previews || {})[part];
    if (!where) return null;
    const path = where.listed ? (get(`files-${part}`) || [])[i] : where.prefix + get(part).names[i];
    return path ? path.split("/").map(encodeURIComponent).join("/").replaceAll("%3A", ":") : null;
  }

  const large = (size) => size && Math.max(...size) > get("run").images.cell;

  // The sample's preview where there is one, else its thumbnail; a click or Space opens it in the dialog.
  deconfuse.picture = (part, i) => {
    const box = deconfuse.thumb(part, i, "large");
    const size = previewed(part, i);
    if (large(size)) {
      const scale = Math.min(1, 320 / Math.max(...size));
      const image = el("img", { src: deconfuse.file(`previews/${part}-${i}.webp`), alt: "", width: Math.round(scale * size[0]), height: Math.round(scale * size[1]), decoding: "async" });
      image.addEventListener("load", () => box.classList.add("has-preview"));
      image.addEventListener("error", () => image.remove());
      box.append(image);
    }
    return el("button", { type: "button", class: "picture", "data-name": `picture-${part}`, "data-part": part, "data-i": i, "aria-label": `${className(get(part).labels[i])}, ${get(part).names[i]}: original and details`, title: "Click or Space: the original", onclick: () => deconfuse.view(part, i) }, box);
  };

  deconfuse.view = async (part, i) => {
    shown = [part, i];
    const where = (get("run").previews || {})[part];
    await Promise.all([load(part), get("run").images ? load("previews") : null, where && where.listed ? load(`files-${part}`) : null].filter((one) => one));
    draw();
    if (!dialog.open) dialog.showModal();
  };

  function draw(asking = false) {
    const [part, i] = shown;
    const [data, kind, size, path] = [get(part), deconfuse.kindOf(part), previewed(part, i), original(part, i)];
    const stage = el("div", { class: "viewer-stage" });
    const fallback = () => (large(size) ? el("img", { src: deconfuse.file(`previews/${part}-${i}.webp`), alt: data.names[i] }) : deconfuse.thumb(part, i, "huge"));
    if (path) {
      const image = el("img", { src: path, alt: data.names[i] });
      image.addEventListener("error", () => stage.replaceChildren(fallback()));
      image.addEventListener("load", () => (note.textContent = `${number(image.naturalWidth)} × ${number(image.naturalHeight)} pixels`));
      stage.append(image);
    } else stage.append(fallback());
    const note = el("span", {}, size ? `${number(size[0])} × ${number(size[1])} pixels` : "");
    const panel = deconfuse.decide(kind, i, () => draw(), asking);
    dialog.replaceChildren(
      el("div", { class: "viewer-in" },
        stage,
        el("div", { class: "viewer-side" },
          el("h2", { dir: "auto" }, className(data.labels[i])),
          el("p", { class: "file", dir: "auto" }, path ? el("a", { href: path, target: "_blank", rel: "noopener" }, deconfuse.named(data.names[i])) : deconfuse.named(data.names[i])),
          el("p", { class: "hint" }, note),
          el("p", {}, el("a", { href: deconfuse.sampleAddress(part, i), onclick: () => dialog.close() }, "Its page, with what is similar to it")),
          panel.box,
          el("p", { class: "said-here", role: "status" }, decisions.of(kind, i) ? `${deconfuse.sentence(kind, i, decisions.of(kind, i))}.` : ""),
          el("button", { type: "button", onclick: () => dialog.close() }, "Close", el("kbd", { "aria-hidden": "true" }, "Esc")))));
  }

  dialog.addEventListener("close", () => {
    dialog.replaceChildren();
    shown = null;
  });

  // Keys in the dialog: Space closes it, the others decide.
  deconfuse.viewer = {
    open: () => dialog.open,
    key: (key) => {
      if (key === " ") {
        dialog.close();
        return true;
      }
      const [part, i] = shown;
      return deconfuse.press(deconfuse.kindOf(part), i, key, { after: () => draw(), ask: () => draw(true), write: () => dialog.querySelector("[data-name=note]").focus() });
    },
    undone: () => draw(),
  };

  // The address of a sample's own page.
  deconfuse.sampleAddress = (part, i) => deconfuse.address("samples", i, part === "train" ? null : new URLSearchParams({ side: part }));
})();
