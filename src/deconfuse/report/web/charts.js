"use strict";

// The graph of confused classes, the detection curve, and bars.
(() => {
  const { el, get, className, number, percent, address } = deconfuse;
  const NUMBERS = new Set(["Times", "The reverse"]); // columns

  // The connected parts of a graph of [a, b, ...] edges, each with its nodes in the order of the edges.
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

  // Steps between the nodes of a part along its edges; at most FAR, so that a long chain does not fill the page.
  const FAR = 3;
  function steps(part) {
    const near = new Map(part.nodes.map((node) => [node, []]));
    for (const [a, b] of part.edges) {
      near.get(a).push(b);
      near.get(b).push(a);
    }
    return part.nodes.map((from) => {
      const found = new Map([[from, 0]]);
      for (const node of found.keys()) {
        for (const next of near.get(node)) if (!found.has(next)) found.set(next, found.get(node) + 1);
      }
      return part.nodes.map((node) => Math.min(FAR, found.get(node)));
    });
  }

  // The places of a part's nodes, whose distances are as close to the steps as possible, by stress majorisation
  // (Gansner, Koren and North 2004) from a circle; two nodes lie side by side.
  function layout(part, step, width) {
    const [n, far] = [part.nodes.length, steps(part)];
    const least = 1.25 * step * Math.max(1, Math.sqrt(part.edges.length / n)); // what is dense needs room
    let at = part.nodes.map((_, i) => (n === 2 ? [i * step, 0] : [Math.sin((2 * Math.PI * i) / n), -Math.cos((2 * Math.PI * i) / n)].map((v) => v * least)));
    for (let turn = 0; n > 2 && turn < 200; turn++) {
      at = at.map(([x, y], i) => {
        let [sx, sy, sum] = [0, 0, 0];
        for (let j = 0; j < n; j++) {
          if (i === j) continue;
          const [dx, dy] = [x - at[j][0], y - at[j][1]];
          const wanted = least * far[i][j];
          const weight = 1 / wanted ** 2;
          const scale = wanted / Math.max(1e-9, Math.hypot(dx, dy));
          sx += weight * (at[j][0] + dx * scale);
          sy += weight * (at[j][1] + dy * scale);
          sum += weight;
        }
        return [sx / sum, sy / sum];
      });
    }
    at = apart(turned(at, width - step), step, width - step);
    const span = (k) => [Math.min(...at.map((p) => p[k])), Math.max(...at.map((p) => p[k]))];
    const [[x0, x1], [y0, y1]] = [span(0), span(1)];
    const fit = Math.min(1, (width - step) / Math.max(1, x1 - x0));
    const placed = new Map(part.nodes.map((node, i) => [node, [step / 2 + fit * (at[i][0] - x0), step * 0.42 + (at[i][1] - y0)]]));
    return { width: step + fit * (x1 - x0), height: step * 0.95 + (y1 - y0), at: placed };
  }

  // The part is enlarged where two nodes would overlap and the page has room.
  function apart(at, step, width) {
    const gaps = at.flatMap((p, i) => at.slice(i + 1).map((q) => Math.hypot(p[0] - q[0], p[1] - q[1])));
    const wide = Math.max(...at.map(([x]) => x)) - Math.min(...at.map(([x]) => x));
    const scale = Math.max(1, Math.min((0.9 * step) / Math.max(1, Math.min(...gaps)), width / Math.max(1, wide)));
    return at.map(([x, y]) => [scale * x, scale * y]);
  }

  // The longer axis is horizontal, or vertical where the page is too narrow.
  function turned(at, width) {
    const mean = [0, 1].map((k) => at.reduce((sum, p) => sum + p[k], 0) / at.length);
    const [xx, yy, xy] = at.reduce(([a, b, c], [x, y]) => [a + (x - mean[0]) ** 2, b + (y - mean[1]) ** 2, c + (x - mean[0]) * (y - mean[1])], [0, 0, 0]);
    if (Math.hypot(xx - yy, 2 * xy) < 0.05 * (xx + yy)) return at; // as long as wide: a triangle stands as it is
    const angle = Math.atan2(2 * xy, xx - yy) / 2;
    const [c, s] = [Math.cos(angle), Math.sin(angle)];
    const flat = at.map(([x, y]) => [c * x + s * y, c * y - s * x]);
    const xs = flat.map(([x]) => x);
    return Math.max(...xs) - Math.min(...xs) > width ? flat.map(([x, y]) => [y, x]) : flat;
  }

  // Put the parts in rows, the tallest first, centred on the page.
  function pack(parts, width, step) {
    const laid = parts.map((part) => ({ part, ...layout(part, step, width) })).sort((a, b) => b.height - a.height);
    const rows = [];
    for (const one of laid) {
      const row = rows.find((each) => each.used + one.width <= width);
      if (row) {
        row.parts.push(one);
        row.used += one.width;
      } else rows.push({ parts: [one], used: one.width });
    }
    let y = 0;
    for (const row of rows) {
      const height = Math.max(...row.parts.map((one) => one.height));
      const gap = Math.min(step, (width - row.used) / row.parts.length);
      let x = (width - row.used - gap * (row.parts.length - 1)) / 2;
      for (const one of row.parts) {
        [one.x, one.y] = [x, y + (height - one.height) / 2];
        x += one.width + gap;
      }
      y += height;
    }
    return { placed: laid, height: y };
  }

  function example() {
    const found = new Map();
    get("query").labels.forEach((label, i) => found.has(label) || found.set(label, i));
    return found;
  }

  deconfuse.pairAddress = (a, b) => address("confusions", null, new URLSearchParams({ class: a, with: b }));

  deconfuse.graph = (edges, width) => {
    const step = 5.9 * parseFloat(getComputedStyle(document.documentElement).fontSize);
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
        // The node's name stands below it, so on a steep line the number moves towards the lower node.
        const along = 0.5 + (0.14 * (yb - ya)) / Math.hypot(xb - xa, yb - ya);
        put(link, x + xa + along * (xb - xa), y + ya + along * (yb - ya));
      }
      for (const node of part.nodes) {
        const [nx, ny] = at.get(node);
        const picture = first.has(node) ? deconfuse.thumb("query", first.get(node), "round") : null;
        if (picture) {
          picture.setAttribute("aria-hidden", "true");
          picture.removeAttribute("title");
        }
        put(el("a", { class: "node", href: address("confusions", null, new URLSearchParams({ class: node })), title: className(node), "aria-label": `Confusions of ${className(node)}` },
          picture, el("span", { dir: "auto" }, deconfuse.named(className(node)))), x + nx, y + ny);
      }
    }
    return box;
  };

  deconfuse.edgeTable = (edges) =>
    el("table", {},
      el("thead", {}, el("tr", {}, ["Class", "Taken for", "Times", "The reverse", "Known to look alike"].map((text) => el("th", { scope: "col", class: NUMBERS.has(text) ? "n" : null }, text)))),
      el("tbody", {}, edges.map(([a, b, there, back, known]) =>
        el("tr", {}, el("td", { dir: "auto" }, el("a", { href: deconfuse.pairAddress(a, b) }, className(a))), el("td", { dir: "auto" }, className(b)), el("td", { class: "n" }, number(there)), el("td", { class: "n" }, number(back)), el("td", {}, known ? "yes" : "")))));

  // Share of flipped labels found against share of samples checked; a random order is the diagonal.
  deconfuse.curve = (curves) => {
    const [w, h, left, bottom, top, right] = [520, 300, 46, 40, 10, 26];
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

  // The suspicion of the suspects, falling, with where to stop and the place that is looked at.
  deconfuse.falling = (train, now) => {
    const [w, h, most] = [240, 44, 200];
    const n = train.suspects.length;
    if (n < 2) return null;
    const values = Array.from({ length: Math.min(most, n) }, (_, i) => Math.round((i * (n - 1)) / (Math.min(most, n) - 1)));
    const of = (at) => train.suspicion[train.suspects[at]];
    const [top, low] = [of(0), of(n - 1)];
    const x = (at) => 2 + ((w - 4) * at) / (n - 1);
    const y = (at) => 4 + (h - 8) * (1 - (of(at) - low) / Math.max(1e-9, top - low));
    const svg = el("svg", { viewBox: `0 0 ${w} ${h}`, class: "falling", role: "img", "aria-label": `Suspicion of ${number(n)} suspects, falling; the curve bends at ${number(train.stop)}` });
    svg.append(el("line", { x1: x(Math.min(train.stop, n - 1)), x2: x(Math.min(train.stop, n - 1)), y1: 0, y2: h, class: "stop" }), el("polyline", { points: values.map((at) => `${x(at)},${y(at)}`).join(" "), class: "line line-0" }));
    if (now >= 0 && now < n) svg.append(el("circle", { cx: x(now), cy: y(now), r: 4, class: "now" }));
    return svg;
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
