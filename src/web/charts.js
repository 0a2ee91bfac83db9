"use strict";

// The graph of confused classes, the detection curve, and bars.
(() => {
  const { el, get, className, number, percent, address } = deconfuse;

  // The connected parts of a graph of [a, b, ...] edges, each with its nodes in order of first sight.
  function components(edges) {
    const home = new Map();
    for (const edge of edges) {
      const [one, other] = [home.get(edge[0]), home.get(edge[1])];
      const part = one || other || { nodes: [], edges: [] };
      if (one && other && one !== other) {
        one.nodes.push(...other.nodes);
        one.edges.push(...other.edges);
        other.nodes.forEach((node) => home.set(node, one));
      }
      for (const node of edge.slice(0, 2)) {
        if (!home.has(node)) {
          home.set(node, part);
          part.nodes.push(node);
        }
      }
      home.get(edge[0]).edges.push(edge);
    }
    return [...new Set(home.values())];
  }

  // Places of a part's nodes: two side by side, more on a circle, the one with most edges in the middle of a star.
  function layout(part, step) {
    const n = part.nodes.length;
    const degree = (node) => part.edges.filter((edge) => edge.includes(node)).length;
    const hub = part.nodes.find((node) => degree(node) === n - 1 && n > 3);
    const round = part.nodes.filter((node) => node !== hub);
    if (n === 2) return { width: 2 * step, height: step, at: new Map(part.nodes.map((node, i) => [node, [step * (i + 0.5), step / 2]])) };
    const radius = Math.max(step * 0.62, (step * 0.95 * round.length) / (2 * Math.PI));
    const size = 2 * radius + step;
    const angle = (i) => (2 * Math.PI * i) / round.length - Math.PI / 2;
    const at = new Map(round.map((node, i) => [node, [size / 2 + radius * Math.cos(angle(i)), size / 2 + radius * Math.sin(angle(i))]]));
    if (hub !== undefined) at.set(hub, [size / 2, size / 2]);
    return { width: size, height: size, at };
  }

  // Fill rows from left to right with the parts, tallest first, each row as tall as its tallest.
  function pack(parts, width, step) {
    const placed = parts.map((part) => ({ part, ...layout(part, step) }));
    placed.sort((a, b) => b.height - a.height);
    let [x, y, tall] = [0, 0, 0];
    for (const one of placed) {
      if (x > 0 && x + one.width > width) [x, y, tall] = [0, y + tall, 0];
      [one.x, one.y] = [x, y];
      x += one.width;
      tall = Math.max(tall, one.height);
    }
    return { placed, height: y + tall };
  }

  function example() {
    const found = new Map();
    get("query").labels.forEach((label, i) => found.has(label) || found.set(label, i));
    return found;
  }

  deconfuse.pairAddress = (a, b) => address("confusions", null, new URLSearchParams({ class: a, with: b }));

  deconfuse.graph = (edges, width) => {
    const step = Math.max(92, Math.min(132, width / 10));
    const { placed, height } = pack(components(edges), width, step);
    const most = Math.max(...edges.map((edge) => edge[2] + edge[3]));
    const first = example();
    const svg = el("svg", { width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true", class: "graph-lines" });
    const box = el("div", { class: "graph", role: "group", "aria-label": "Graph of confused classes; the table below says the same" }, svg);
    box.style.height = `${height}px`;
    const put = (node, x, y) => {
      node.style.left = `${x}px`;
      node.style.top = `${y}px`;
      box.append(node);
    };
    for (const { part, x, y, at } of placed) {
      for (const edge of part.edges) {
        const [a, b, there, back, known] = edge;
        const [[xa, ya], [xb, yb]] = [at.get(a), at.get(b)];
        const thick = 2 + (12 * (there + back)) / most;
        svg.append(el("line", { x1: x + xa, y1: y + ya, x2: x + xb, y2: y + yb, "stroke-width": thick, class: known ? "edge known" : "edge" }));
        const text = `${className(a)} and ${className(b)}: ${number(there + back)} confusions`;
        const link = el("a", { class: "edge-count", href: deconfuse.pairAddress(a, b), title: `${text}, ${there} and ${back} each way`, "aria-label": text }, String(there + back));
        put(link, x + (xa + xb) / 2, y + (ya + yb) / 2);
      }
      for (const node of part.nodes) {
        const [nx, ny] = at.get(node);
        const picture = first.has(node) ? deconfuse.thumb("query", first.get(node), "round") : null;
        if (picture) {
          picture.setAttribute("aria-hidden", "true");
          picture.removeAttribute("title");
        }
        put(el("a", { class: "node", href: address("confusions", null, new URLSearchParams({ class: node })), title: className(node), "aria-label": `Confusions of ${className(node)}` },
          picture, el("span", { dir: "auto" }, className(node))), x + nx, y + ny);
      }
    }
    return box;
  };

  deconfuse.edgeTable = (edges) =>
    el("table", {},
      el("thead", {}, el("tr", {}, ["Class", "Taken for", "Times", "The reverse", "Known to look alike"].map((text) => el("th", { scope: "col" }, text)))),
      el("tbody", {}, edges.map(([a, b, there, back, known]) =>
        el("tr", {}, el("td", { dir: "auto" }, el("a", { href: deconfuse.pairAddress(a, b) }, className(a))), el("td", { dir: "auto" }, className(b)), el("td", { class: "n" }, number(there)), el("td", { class: "n" }, number(back)), el("td", {}, known ? "yes" : "")))));

  // Share of flipped labels found against share of samples checked; a random order is the diagonal.
  deconfuse.curve = (curves) => {
    const [w, h, left, bottom, top, right] = [520, 300, 46, 40, 10, 14];
    const x = (value) => left + value * (w - left - right);
    const y = (value) => h - bottom - value * (h - bottom - top);
    const svg = el("svg", { viewBox: `0 0 ${w} ${h}`, class: "plot", role: "img", "aria-label": `Detection curves: ${curves.map((one) => `${one.name} has found ${percent(at(one, 0.2))} after checking 20 %`).join("; ")}` });
    for (const tick of [0, 0.25, 0.5, 0.75, 1]) {
      svg.append(
        el("line", { x1: x(0), x2: x(1), y1: y(tick), y2: y(tick), class: "grid" }),
        el("text", { x: left - 8, y: y(tick) + 4, class: "tick end" }, percent(tick)),
        el("text", { x: x(tick), y: h - bottom + 18, class: "tick middle" }, percent(tick)),
      );
    }
    svg.append(
      el("text", { x: x(0.5), y: h - 4, class: "tick middle" }, "training samples checked, most suspicious first"),
      el("line", { x1: x(0), y1: y(0), x2: x(1), y2: y(1), class: "chance" }),
      el("text", { x: x(0.6), y: y(0.55) , class: "tick" }, "random order"),
    );
    curves.forEach((one, i) => svg.append(el("polyline", { points: one.checked.map((v, j) => `${x(v)},${y(one.found[j])}`).join(" "), class: `line line-${i}` })));
    const legend = el("ul", { class: "legend" }, curves.map((one, i) => el("li", {}, el("span", { class: `key key-${i}`, "aria-hidden": "true" }), `by ${one.name}: ${percent(at(one, 0.1))} found after checking 10 %`)));
    return el("div", {}, el("p", { class: "axis" }, "Flipped labels found"), svg, legend);
  };

  function at(curve, share) {
    const i = curve.checked.findIndex((value) => value >= share);
    return curve.found[i < 0 ? curve.found.length - 1 : i];
  }

  deconfuse.bars = (pairs, unit) => {
    const most = Math.max(...pairs.map(([, value]) => value), 1e-9);
    return el("ul", { class: "bars" }, pairs.map(([name, value]) => {
      const bar = el("i", { "aria-hidden": "true" });
      bar.style.inlineSize = `${(100 * value) / most}%`;
      return el("li", {}, el("span", {}, name), el("span", { class: "n" }, `${value < 10 ? value.toFixed(1) : Math.round(value)} ${unit}`), el("span", { class: "meter-bar" }, bar));
    }));
  };
})();
