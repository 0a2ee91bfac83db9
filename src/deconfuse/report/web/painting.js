"use strict";

// What the map draws with: shapes, density where points are many, pictures where they are few, and the lasso.
deconfuse.painting = (() => {
  const { get } = deconfuse;
  const SHAPES = ["circle", "square", "triangle", "diamond"];

  function shape(context, kind, x, y, r) {
    context.beginPath();
    if (kind === 0) context.arc(x, y, r, 0, 2 * Math.PI);
    else if (kind === 1) context.rect(x - 0.9 * r, y - 0.9 * r, 1.8 * r, 1.8 * r);
    else {
      const corners = kind === 2 ? [[0, -1.2], [1.1, 0.8], [-1.1, 0.8]] : [[0, -1.3], [1.2, 0], [0, 1.3], [-1.2, 0]];
      corners.forEach(([dx, dy], i) => (i ? context.lineTo(x + r * dx, y + r * dy) : context.moveTo(x + r * dx, y + r * dy)));
      context.closePath();
    }
    context.fill();
  }

  // How many points lie in each cell of 4 by 4 pixels, on a logarithmic scale.
  function density(context, points, place, w, h, colour) {
    const step = 4;
    const columns = Math.ceil(w / step);
    const counts = new Uint32Array(columns * Math.ceil(h / step));
    let most = 1;
    for (const p of points) {
      const [x, y] = place(p);
      if (x < 0 || y < 0 || x >= w || y >= h) continue;
      most = Math.max(most, (counts[Math.floor(y / step) * columns + Math.floor(x / step)] += 1));
    }
    context.fillStyle = colour;
    counts.forEach((n, at) => {
      if (!n) return;
      context.globalAlpha = 0.15 + (0.85 * Math.log1p(n)) / Math.log1p(most);
      context.fillRect((at % columns) * step, Math.floor(at / columns) * step, step, step);
    });
    context.globalAlpha = 1;
  }

  const sheets = new Map();
  // The sample's thumbnail at its point, with a frame of its colour; false until its sheet has loaded.
  function picture(context, p, x, y, colour, draw) {
    const [images, data] = [get("run").images, get(p.part)];
    const [width, height] = images.size || data.size.slice(2 * p.i, 2 * p.i + 2);
    if (!width) return false;
    const sheet = Math.floor(data.place[p.i] / images.columns ** 2);
    if (!sheets.has(sheet)) {
      const image = new Image();
      image.addEventListener("load", draw);
      image.src = deconfuse.file(`thumbs/${sheet}.${images.suffix}`);
      sheets.set(sheet, image);
    }
    const image = sheets.get(sheet);
    if (!image.complete || !image.naturalWidth) return false;
    const at = data.place[p.i] % images.columns ** 2;
    const scale = 44 / Math.max(width, height);
    const [w, h] = [scale * width, scale * height];
    context.drawImage(image, images.cell * (at % images.columns), images.cell * Math.floor(at / images.columns), width, height, x - w / 2, y - h / 2, w, h);
    context.strokeStyle = colour;
    context.lineWidth = 3;
    context.strokeRect(x - w / 2, y - h / 2, w, h);
    return true;
  }

  // Whether a point is inside the lasso, by the number of its edges to the right of the point.
  function inside(lasso, x, y) {
    let odd = false;
    for (let i = 0, j = lasso.length - 1; i < lasso.length; j = i++) {
      const [[xi, yi], [xj, yj]] = [lasso[i], lasso[j]];
      if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) odd = !odd;
    }
    return odd;
  }

  return { SHAPES, shape, density, picture, inside };
})();
