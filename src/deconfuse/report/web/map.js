"use strict";

// The map of the embeddings: a canvas to move and zoom, with points coloured by class and confusions as lines.
(() => {
  const { el, get, load, number, fixed, percent, className, address, decisions } = deconfuse;
  const { SHAPES, shape, density, picture, inside } = deconfuse.painting;
  const COLOURS = 7; // in the style sheet's --map
  const CROWD = 20000; // points from which density is drawn while they overlap
  const PICTURES = 250; // points in sight up to which pictures are drawn in their place
  const BY = { "": "Class", suspicion: "Suspicion", decision: "Decision" };
  const DECIDED = { accept: "--good", other: "--helpful", reject: "--muted", exclude: "--harmful", unsure: "--edge-known" };
  const WORDS = { accept: "accepted", other: "other label", reject: "label is right", exclude: "excluded", unsure: "unsure" };

  deconfuse.pages.map = {
    title: "Map",
    letter: "m",
    async show(main, route) {
      const run = get("run");
      const gallery = deconfuse.galleryPart();
      await Promise.all(["query", gallery, "train", "confusion"].map(load));
      const suspects = new Map(get("train").suspects.map((k, at) => [k, at]));
      let settings = route.settings;
      let points = [];
      let lines = [];
      let lasso = null; // corners while one is drawn
      let lassoing = false;
      let chosen = -1; // a point, by keyboard or touch
      let view = { x: 0, y: 0, scale: 1 };
      const canvas = el("canvas", { tabindex: "0", role: "application", "aria-label": "Map of the embeddings. Arrow keys move it, plus and minus zoom, N and P step through the points, Enter opens one." });
      const tip = el("div", { class: "tip", hidden: true });
      const stage = el("div", { class: "stage" }, canvas, tip);
      const bar = el("div", { class: "filters map-bar" });
      const legend = el("ul", { class: "legend map-legend", "aria-label": "Legend" });
      const note = el("p", { class: "hint" });
      main.append(el("h1", { class: "unseen" }, "Map"), el("div", { class: "map-page" }, bar, stage, legend, note));

      const side = () => (settings.get("side") === "train" ? "train" : "test");
      const by = () => (settings.get("by") in BY && !(settings.get("by") === "suspicion" && side() !== "train") ? settings.get("by") : "");
      const way = () => (run.maps.some((one) => one.way === settings.get("way")) ? settings.get("way") : "pca");

      function set(key, value) {
        const next = new URLSearchParams(settings);
        if (value === "" || value === null) next.delete(key);
        else next.set(key, value);
        deconfuse.go("map", null, next, true);
      }

      function drawBar() {
        const ids = run.class_names.map((_, id) => id);
        const classes = side() === "train" ? ids.slice(0, run.training_classes) : ids.slice(run.training_classes);
        const ways = [...new Set(run.maps.map((one) => one.way))];
        const zoom = (by, text, label) => el("button", { type: "button", "aria-label": label, onclick: () => zoomAt(canvas.clientWidth / 2, canvas.clientHeight / 2, by) }, text);
        bar.replaceChildren(
          ...[
            deconfuse.select("Side", [["", "Test side"], ["train", "Training side"]], side() === "train" ? "train" : "", (value) => set("side", value)),
            ways.length > 1 ? deconfuse.select("Projection", ways.map((one) => [one, one.toUpperCase()]), way(), (value) => set("way", value)) : null,
            deconfuse.completion("Highlight a class", classes, settings.has("class") ? Number(settings.get("class")) : null, (id) => set("class", id), "None"),
            side() === "test" ? deconfuse.select("Lines", [["", "All confusions"], ["open", "Not reviewed"], ["none", "None"]], settings.get("lines") || "", (value) => set("lines", value)) : null,
            deconfuse.select("Colour by", Object.entries(BY).filter(([key]) => key !== "suspicion" || side() === "train"), by(), (value) => set("by", value)),
            el("button", { type: "button", class: "lasso", "data-name": "lasso", "aria-pressed": String(lassoing), title: "Drag around points; what is inside opens in the grid", onclick: (event) => {
              lassoing = !lassoing;
              event.currentTarget.setAttribute("aria-pressed", String(lassoing));
              canvas.style.cursor = lassoing ? "crosshair" : "grab";
            } }, "Lasso"),
            el("div", { class: "zoom", role: "group", "aria-label": "Zoom" }, zoom(1.5, "+", "Zoom in"), zoom(1 / 1.5, "−", "Zoom out"), el("button", { type: "button", onclick: reset }, "Whole map")),
          ].filter((node) => node));
      }

      async function read() {
        const at = await load(`map-${side()}-${way()}`);
        const parts = side() === "train" ? [["train", get("train")]] : [["query", get("query")], ...(gallery === "gallery" ? [["gallery", get("gallery")]] : [])];
        points = [];
        for (const [part, data] of parts) {
          for (let i = 0; i < data.labels.length; i++) points.push({ part, i, label: data.labels[i], x: at.x[points.length], y: at.y[points.length] });
        }
        const behind = gallery === "gallery" ? get("query").labels.length : 0;
        const pairs = get("confusion");
        lines = side() === "train" ? [] : pairs.query.map((a, k) => [a, behind + pairs.neighbour[k], k]);
        const share = run.maps.find((one) => one.side === side() && one.way === way()).share;
        note.textContent = `${number(points.length)} ${side() === "train" ? "training samples" : "test samples"}${share ? `; the two components hold ${percent(share[0], 1)} and ${percent(share[1], 1)} of the variance, so points that lie together here may be far apart` : ""}. Drag to move, wheel or + and − to zoom; near enough, points become pictures.`;
        reset();
      }

      function reset() {
        const [w, h] = [canvas.clientWidth, canvas.clientHeight];
        if (!points.length || !w) return;
        const xs = points.map((p) => p.x);
        const ys = points.map((p) => p.y);
        const span = (values) => [values.reduce((a, b) => Math.min(a, b), Infinity), values.reduce((a, b) => Math.max(a, b), -Infinity)];
        const [[x0, x1], [y0, y1]] = [span(xs), span(ys)];
        const scale = Math.min((w - 40) / Math.max(x1 - x0, 1), (h - 40) / Math.max(y1 - y0, 1));
        view = { scale, x: w / 2 - (scale * (x0 + x1)) / 2, y: h / 2 + (scale * (y0 + y1)) / 2 };
        draw();
      }

      const place = (p) => [view.x + view.scale * p.x, view.y - view.scale * p.y];

      let asked = false;
      function draw() {
        if (asked) return;
        asked = true;
        requestAnimationFrame(() => {
          asked = false;
          paint();
        });
      }

      function paint() {
        const ratio = window.devicePixelRatio || 1;
        const [w, h] = [canvas.clientWidth, canvas.clientHeight];
        if (canvas.width !== Math.round(w * ratio) || canvas.height !== Math.round(h * ratio)) [canvas.width, canvas.height] = [Math.round(w * ratio), Math.round(h * ratio)];
        const style = getComputedStyle(canvas);
        const colours = style.getPropertyValue("--map").split(",").map((colour) => colour.trim());
        const context = canvas.getContext("2d");
        context.setTransform(ratio, 0, 0, ratio, 0, 0);
        context.clearRect(0, 0, w, h);
        const only = settings.has("class") ? Number(settings.get("class")) : null;
        const which = settings.get("lines") || "";
        context.strokeStyle = style.getPropertyValue("--line-strong");
        context.lineWidth = 1;
        context.globalAlpha = lines.length > 800 ? 0.35 : 0.7;
        context.beginPath();
        for (const [a, b, k] of lines) {
          if (which === "none" || (which === "open" && decisions.of("confusion", k))) continue;
          if (only !== null && points[a].label !== only && points[b].label !== only) continue;
          context.moveTo(...place(points[a]));
          context.lineTo(...place(points[b]));
        }
        context.stroke();
        const seen = inSight(w, h);
        drawLegend(style, colours);
        if (points.length > CROWD && seen.length > CROWD / 4 && only === null) return (density(context, points, place, w, h, style.getPropertyValue("--accent")), drawLasso(context, style));
        const wide = 1000 * view.scale; // of a tenth of the map
        const r = Math.max(2, Math.min(7, wide / 45)) * (points.length > 20000 ? 0.7 : 1);
        const small = new Map();
        for (const [n, x, y] of seen) {
          const colour = colourOf(points[n], style, colours);
          if (!small.has(colour)) small.set(colour, []);
          small.get(colour).push([n, x, y]);
        }
        const pictures = run.images && seen.length <= PICTURES && wide > 300;
        for (const [colour, some] of small) {
          context.fillStyle = colour;
          for (const [n, x, y] of some) {
            context.globalAlpha = only === null ? 0.85 : points[n].label === only ? 1 : 0.12;
            if (pictures && picture(context, points[n], x, y, colour, draw)) continue;
            shape(context, by() ? 0 : Math.floor(points[n].label / COLOURS) % SHAPES.length, x, y, only !== null && points[n].label === only ? r * 1.4 : r);
          }
        }
        marks(context, seen, style, r);
        context.globalAlpha = 1;
        drawLasso(context, style);
        if (chosen >= 0) {
          const [x, y] = place(points[chosen]);
          context.strokeStyle = style.getPropertyValue("--text");
          context.lineWidth = 2;
          context.beginPath();
          context.arc(x, y, r + 5, 0, 2 * Math.PI);
          context.stroke();
        }
      }

      function inSight(w, h) {
        const seen = [];
        for (let n = 0; n < points.length; n++) {
          const [x, y] = place(points[n]);
          if (x > -9 && y > -9 && x < w + 9 && y < h + 9) seen.push([n, x, y]);
        }
        return seen;
      }

      const cold = (share) => `hsl(${Math.round(215 - 195 * share)} 75% ${Math.round(46 - 4 * share)}%)`;
      const decided = (p) => decisions.of(deconfuse.kindOf(p.part), p.i);

      function colourOf(p, style, colours) {
        if (by() === "decision") {
          const found = decided(p);
          return style.getPropertyValue(found ? DECIDED[found.decision] : "--line-strong");
        }
        if (by() === "suspicion") {
          const at = suspects.get(p.i);
          return at === undefined ? style.getPropertyValue("--line-strong") : cold(Math.round(10 * (1 - at / Math.max(1, suspects.size))) / 10);
        }
        return colours[p.label % COLOURS];
      }

      // Suspects that look wrong have a ring, also where the colour says something else.
      function marks(context, seen, style, r) {
        if (side() !== "train" || by() === "suspicion") return;
        const { wrong } = get("train");
        context.globalAlpha = 1;
        context.strokeStyle = style.getPropertyValue("--harmful");
        context.lineWidth = 1.5;
        for (const [n, x, y] of seen) {
          const at = suspects.get(points[n].i);
          if (at === undefined || at >= wrong) continue;
          context.beginPath();
          context.arc(x, y, r + 3, 0, 2 * Math.PI);
          context.stroke();
        }
      }

      let told = "";
      function drawLegend(style, colours) {
        const now = `${points.length} ${by()} ${side()} ${document.documentElement.dataset.theme} ${settings.get("class")}`;
        if (now === told) return;
        told = now;
        const entry = (colour, text, ring) => {
          const mark = el("span", { class: `dot ${ring ? "ring" : ""}`, "aria-hidden": "true" });
          mark.style.setProperty("--dot", colour);
          return el("li", { dir: "auto" }, mark, text);
        };
        const entries = by() === "decision"
          ? [...Object.entries(DECIDED).map(([decision, colour]) => entry(style.getPropertyValue(colour), WORDS[decision])), entry(style.getPropertyValue("--line-strong"), "not decided")]
          : by() === "suspicion"
            ? [entry(cold(1), "most suspicious"), entry(cold(0.5), "between"), entry(cold(0), "least suspicious of the suspects"), entry(style.getPropertyValue("--line-strong"), "no suspect")]
            : mostOften().map((id) => entry(colours[id % COLOURS], `${className(id)} (${SHAPES[Math.floor(id / COLOURS) % SHAPES.length]})`));
        if (side() === "train" && by() !== "suspicion") entries.push(entry(style.getPropertyValue("--harmful"), "ring: looks wrong", true));
        legend.replaceChildren(...entries);
      }

      // The classes that the legend names: the highlighted one, or the largest.
      function mostOften() {
        if (settings.has("class")) return [Number(settings.get("class"))];
        const counts = new Map();
        for (const p of points) counts.set(p.label, (counts.get(p.label) || 0) + 1);
        return [...counts].sort((a, b) => b[1] - a[1] || a[0] - b[0]).slice(0, 12).map(([id]) => id);
      }

      function drawLasso(context, style) {
        if (!lasso || lasso.length < 2) return;
        context.strokeStyle = style.getPropertyValue("--accent");
        context.lineWidth = 2;
        context.setLineDash([5, 4]);
        context.beginPath();
        lasso.forEach(([x, y], at) => (at ? context.lineTo(x, y) : context.moveTo(x, y)));
        context.closePath();
        context.stroke();
        context.setLineDash([]);
      }

      // Open what is inside the lasso in the grid; of a test side with a gallery the part with more points.
      function caught() {
        const some = points.filter((p) => inside(lasso, ...place(p)));
        lasso = null;
        const parts = [...new Set(some.map((p) => p.part))];
        const count = (part) => some.filter((p) => p.part === part).length;
        const part = parts.sort((a, b) => count(b) - count(a))[0];
        if (!part) {
          draw();
          return deconfuse.did("No point is inside the lasso");
        }
        const rows = some.filter((p) => p.part === part).map((p) => p.i).slice(0, 4000);
        deconfuse.go("grid", null, new URLSearchParams({ ...(part === "train" ? {} : { side: part }), in: rows.join(".") }));
        deconfuse.did(`${number(rows.length)} samples selected on the map`);
      }

      function nearest(x, y) {
        let [best, least] = [-1, 144];
        const only = settings.has("class") ? Number(settings.get("class")) : null;
        for (let n = 0; n < points.length; n++) {
          if (only !== null && points[n].label !== only) continue;
          const [px, py] = place(points[n]);
          const square = (px - x) ** 2 + (py - y) ** 2;
          if (square < least) [best, least] = [n, square];
        }
        return best;
      }

      function show(n) {
        chosen = n;
        tip.hidden = n < 0;
        canvas.style.cursor = n < 0 ? "grab" : "pointer";
        draw();
        if (n < 0) return;
        const p = points[n];
        const k = lines.findIndex(([a]) => a === n);
        const near = k >= 0 ? `taken for ${className(points[lines[k][1]].label)}, distance ${fixed(get("confusion").distance[k])}` : null;
        tip.replaceChildren(deconfuse.thumb(p.part, p.i), el("strong", { dir: "auto" }, className(p.label)), el("span", { class: "file", dir: "auto" }, get(p.part).names[p.i]), near ? el("span", { dir: "auto" }, near) : "");
        const [x, y] = place(p);
        const [w, h] = [tip.offsetWidth, tip.offsetHeight];
        tip.style.left = `${Math.max(4, Math.min(stage.clientWidth - w - 4, x + 14))}px`;
        tip.style.top = `${Math.max(4, y + 14 + h > stage.clientHeight ? y - h - 14 : y + 14)}px`;
      }

      function open(n) {
        if (n < 0) return;
        const p = points[n];
        if (p.part === "train") return (location.hash = address("samples", p.i));
        const k = lines.findIndex(([a]) => a === n);
        const other = k >= 0 ? k : lines.findIndex(([, b]) => b === n);
        location.hash = other >= 0 ? address("confusions", other) : deconfuse.sampleAddress(p.part, p.i);
      }

      function zoomAt(x, y, by) {
        const scale = Math.max(0.002, Math.min(20, view.scale * by));
        const real = scale / view.scale;
        view = { scale, x: x - real * (x - view.x), y: y - real * (y - view.y) };
        if (chosen >= 0) show(chosen);
        draw();
      }

      const fingers = new Map();
      let moved = 0;
      const spot = (event) => [event.offsetX, event.offsetY];
      canvas.addEventListener("wheel", (event) => {
        event.preventDefault();
        zoomAt(...spot(event), Math.exp(-event.deltaY * (event.deltaMode ? 0.03 : 0.0015)));
      }, { passive: false });
      canvas.addEventListener("pointerdown", (event) => {
        canvas.setPointerCapture(event.pointerId);
        fingers.set(event.pointerId, spot(event));
        if (lassoing || event.shiftKey) lasso = [spot(event)];
        moved = 0;
      });
      canvas.addEventListener("pointermove", (event) => {
        const now = spot(event);
        if (!fingers.has(event.pointerId)) return show(nearest(...now));
        if (lasso) {
          lasso.push(now);
          return draw();
        }
        const before = fingers.get(event.pointerId);
        const others = [...fingers].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
        fingers.set(event.pointerId, now);
        const [dx, dy] = [now[0] - before[0], now[1] - before[1]];
        moved += Math.abs(dx) + Math.abs(dy);
        if (others.length) {
          const gap = (at) => Math.hypot(at[0] - others[0][0], at[1] - others[0][1]);
          zoomAt((now[0] + others[0][0]) / 2, (now[1] + others[0][1]) / 2, gap(now) / Math.max(1, gap(before)));
        } else if (moved > 3) {
          view = { ...view, x: view.x + dx, y: view.y + dy };
          if (!tip.hidden) show(-1);
          draw();
        }
      });
      const release = (event) => {
        const click = fingers.delete(event.pointerId) && moved <= 3 && event.type === "pointerup";
        if (lasso) return lasso.length > 3 ? caught() : (lasso = null);
        if (!click) return;
        const n = nearest(...spot(event));
        if (event.pointerType === "touch" && n !== chosen) show(n); // the first touch shows, the second opens
        else open(n);
      };
      canvas.addEventListener("pointerup", release);
      canvas.addEventListener("pointercancel", release);
      canvas.addEventListener("pointerleave", () => fingers.size || show(-1));
      canvas.addEventListener("keydown", (event) => {
        if (event.ctrlKey || event.metaKey || event.altKey) return;
        const moves = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] };
        const [x, y] = [canvas.clientWidth / 2, canvas.clientHeight / 2];
        if (event.key in moves) {
          view = { ...view, x: view.x + moves[event.key][0], y: view.y + moves[event.key][1] };
          if (chosen >= 0) show(chosen);
          draw();
        } else if (event.key === "+" || event.key === "=") zoomAt(x, y, 1.3);
        else if (event.key === "-") zoomAt(x, y, 1 / 1.3);
        else if (event.key === "0") reset();
        else if (event.key === "n" || event.key === "p") step(event.key === "n" ? 1 : -1);
        else if (event.key === "Enter") open(chosen);
        else if (event.key === "Escape") show(-1);
        else return;
        event.preventDefault();
      });

      // Step through the queries of confusions, or all samples, or those of the highlighted class.
      function step(by) {
        const only = settings.has("class") ? Number(settings.get("class")) : null;
        let order = lines.length ? lines.map(([a]) => a) : points.map((_, n) => n);
        if (only !== null) order = points.map((_, n) => n).filter((n) => points[n].label === only);
        if (!order.length) return;
        const at = order.indexOf(chosen);
        const n = order[(at + by + order.length) % order.length];
        const [x, y] = place(points[n]);
        if (x < 0 || y < 0 || x > canvas.clientWidth || y > canvas.clientHeight) view = { ...view, x: view.x + canvas.clientWidth / 2 - x, y: view.y + canvas.clientHeight / 2 - y };
        show(n);
        deconfuse.say(tip.innerText);
      }

      async function update(next, first) {
        const before = [side(), way(), settings.toString()];
        settings = next.settings;
        if (first || before[2] !== settings.toString()) drawBar();
        if (first || before[0] !== side() || before[1] !== way()) {
          show(-1);
          await read();
        }
        draw();
      }

      let seen = "";
      new ResizeObserver(() => {
        const size = `${canvas.clientWidth} ${canvas.clientHeight}`;
        if (size !== seen) reset();
        seen = size;
      }).observe(canvas);
      await update(route, true);
      return { update, changed: draw, themed: () => ((told = ""), draw()) };
    },
  };
})();
