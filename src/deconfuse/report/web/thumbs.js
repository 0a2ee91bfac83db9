"use strict";

// The picture of a sample: its cell of a sheet, or the initials of its class where samples are no images.
(() => {
  const { el, get, className } = deconfuse;
  const TILES = 6;

  // The part of the data that contains the neighbours of queries.
  deconfuse.galleryPart = () => (get("run").parts.gallery === undefined ? "query" : "gallery");

  function initials(name) {
    const number = /(\d{1,3})\s*$/.exec(name); // of class_12 and class_13 the number tells more
    if (number) return number[1];
    const words = name.trim().split(/[\s_./-]+/).filter((word) => word);
    return words.slice(0, 2).map((word) => [...word][0]).join("") || "?";
  }

  function label(part, i) {
    const data = get(part);
    return `${className(data.labels[i])}, ${data.names[i]}`;
  }

  // part: train, query or gallery; it must be loaded. The size is set by --s in the style sheet.
  deconfuse.thumb = (part, i, kind = "") => {
    const images = get("run").images;
    const data = get(part);
    const text = label(part, i);
    const box = el("span", { class: `thumb ${kind}`, role: "img", "aria-label": text, title: text });
    if (!images) return tile(box, data.labels[i]);
    const [width, height] = images.size || data.size.slice(2 * i, 2 * i + 2);
    if (!width) {
      box.classList.add("gone");
      box.append("no picture");
      return box;
    }
    const sheet = images.columns * images.columns;
    const place = data.place[i] % sheet;
    const longer = Math.max(width, height);
    const picture = el("i", { "aria-hidden": "true" });
    const numbers = {
      "--w": width / longer,
      "--h": height / longer,
      "--bw": (images.cell * images.columns) / longer,
      "--bx": (-images.cell * (place % images.columns)) / longer,
      "--by": (-images.cell * Math.floor(place / images.columns)) / longer,
    };
    for (const [key, value] of Object.entries(numbers)) picture.style.setProperty(key, value);
    picture.style.backgroundImage = `url("${deconfuse.file(`thumbs/${Math.floor(data.place[i] / sheet)}.${images.suffix}`)}")`;
    if (longer < 48) box.classList.add("tiny");
    box.append(picture);
    return box;
  };

  function tile(box, label) {
    box.classList.add("tile", `tile-${label % TILES}`);
    box.append(el("b", { "aria-hidden": "true" }, initials(className(label))));
    return box;
  }

  // A picture with a caption below it; href: the target of its link. While it has the focus, the keys of decisions
  // and Space act on it.
  deconfuse.figure = (part, i, lines, href, kind) =>
    el(
      href ? "a" : "div",
      { class: `figure ${kind || ""}`, href, "data-part": part, "data-i": i, "aria-label": href && !lines.length ? label(part, i) : null },
      el("span", { class: "figure-picture" }, deconfuse.thumb(part, i), deconfuse.badge(deconfuse.kindOf(part), i)),
      el("span", { class: "caption" }, lines.map((line) => (typeof line === "string" ? el("span", { dir: "auto" }, deconfuse.named(line)) : line))),
    );
})();
