"use strict";

// Functions that every page uses: data by name, elements, formats of numbers, addresses.
const deconfuse = (() => {
  const CHUNKS = 96; // chunks kept in memory; the page asks again for older ones
  const values = new Map();
  const asked = new Map();
  const pages = {};

  // Each script in data/ calls this with its value.
  function put(name, value) {
    values.set(name, value);
  }

  // The files that a report in one file has inside, by their paths; of a folder there are none.
  let contained = {};
  const inside = (files) => (contained = files);
  const file = (path) => contained[path] || path;

  function get(name) {
    return values.get(name);
  }

  function load(name) {
    if (asked.has(name)) {
      const promise = asked.get(name);
      if (isChunk(name)) {
        asked.delete(name);
        asked.set(name, promise);
      }
      return promise;
    }
    const promise = values.has(name) ? Promise.resolve(values.get(name)) : fetchScript(name);
    asked.set(name, promise);
    forget();
    return promise;
  }

  function isChunk(name) {
    return /-\d+$/.test(name);
  }

  function fetchScript(name) {
    return new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = `data/${name}.js`;
      script.onload = () => {
        script.remove();
        if (values.has(name)) resolve(values.get(name));
        else reject(new Error(`data/${name}.js is not whole; run again`));
      };
      script.onerror = () => {
        script.remove();
        asked.delete(name);
        reject(new Error(`data/${name}.js is missing; keep the folder report/ together, or run again`));
      };
      document.head.append(script);
    });
  }

  function forget() {
    const chunks = [...asked.keys()].filter(isChunk);
    if (Object.keys(contained).length) return; // nothing can be read again
    for (const name of chunks.slice(0, Math.max(0, chunks.length - CHUNKS))) {
      asked.delete(name);
      values.delete(name);
    }
  }

  // One row of a chunked column.
  async function row(prefix, i) {
    const size = get("run").chunk;
    const chunk = await load(`${prefix}-${Math.floor(i / size)}`);
    const at = i % size;
    return Object.fromEntries(Object.entries(chunk).map(([key, column]) => [key, column[at]]));
  }

  const SVG = new Set(["svg", "line", "path", "polyline", "rect", "circle", "text", "g", "title"]);

  // Make an element. Text is always inserted as text, never as HTML. Attributes that start with "on" are listeners.
  function el(tag, attributes, ...children) {
    const node = SVG.has(tag) ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
    for (const [key, value] of Object.entries(attributes || {})) {
      if (value === null || value === undefined || value === false) continue;
      if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
      else if (key in node && (key === "value" || key === "checked" || key === "selected")) node[key] = value;
      else node.setAttribute(key, value === true ? "" : value);
    }
    node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
    return node;
  }

  const whole = new Intl.NumberFormat("en");
  const number_ = (value) => whole.format(value);
  const number = (value) => (value === null || value === undefined ? "–" : whole.format(value));
  const fixed = (value, digits = 3) => (value === null || value === undefined ? "–" : value.toFixed(digits));
  const percent = (value, digits = 0) =>
    value === null || value === undefined ? "–" : `${(100 * value).toFixed(digits)} %`;
  // A score, signed, with two significant digits.
  function score(value) {
    if (value === null || value === undefined) return "–";
    const size = Math.abs(value);
    const text = size === 0 ? "0" : size >= 0.001 && size < 100 ? size.toPrecision(2) : size.toExponential(1);
    return `${value > 0 ? "+" : value < 0 ? "−" : ""}${text.replace("e-", "e−")}`;
  }
  // A number of unknown size with four significant digits.
  const short = (value) => (value === null || value === undefined ? "–" : String(Number(value.toPrecision(4))).replace("-", "−"));
  const many = (n, one, more) => `${number(n)} ${n === 1 ? one : more || `${one}s`}`;

  function className(id) {
    return get("run").class_names[id];
  }

  // A name that may be broken into lines after / _ . and -, but not within words.
  function named(text) {
    return text.split(/(?<=[/_.\-])/).flatMap((part, i) => (i ? [el("wbr"), part] : [part]));
  }

  // An address such as "#/confusions/12?class=3": the page, the item and the settings that are shown. strange: an
  // item that is no number, as text.
  function route() {
    const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
    const [page, item] = path.split("/");
    const number = /^\d+$/.test(item || "");
    return {
      page: page || "overview",
      item: number ? Number(item) : null,
      strange: item && !number ? decodeURIComponent(item) : null,
      settings: new URLSearchParams(query || ""),
    };
  }

  // The item of an address, or null; says where a run has no such item. size: how many there are.
  function itemOf({ item, strange }, size, what) {
    if (strange === null && (item === null || item < size)) return item;
    notice(`This run has no ${what} ${strange ?? item}; it has ${number_(size)}, counted from 0. The first is shown.`, "error");
    return null;
  }

  function address(page, item, settings) {
    const query = new URLSearchParams([...(settings || [])].filter(([, value]) => value !== "")).toString();
    return `#/${page}${item === null || item === undefined ? "" : `/${item}`}${query ? `?${query}` : ""}`;
  }

  // Go to an address. replace: without a step in the browser's history, as for each key typed into a search.
  function go(page, item, settings, replace) {
    const next = address(page, item, settings);
    if (next === location.hash) return;
    if (replace) {
      history.replaceState(null, "", next);
      window.dispatchEvent(new HashChangeEvent("hashchange"));
    } else location.hash = next;
  }

  // Replace the contents and keep the focus: it moves to the control whose data-name is that of the focused one,
  // or, where that control is gone or disabled, to the box.
  function refill(box, ...nodes) {
    const held = box.contains(document.activeElement) && box !== document.activeElement;
    const name = held ? document.activeElement.dataset.name : null;
    box.replaceChildren(...nodes.filter((node) => node));
    if (!held) return;
    const next = [...box.querySelectorAll("[data-name]")].find((node) => node.dataset.name === name && !node.disabled);
    (next || box.closest("[tabindex]") || document.getElementById("main")).focus({ preventScroll: true });
  }

  // What an action did, in a line that stays visible until the next one; also read aloud.
  function did(text) {
    const line = document.getElementById("said");
    line.replaceChildren(el("span", {}, text));
    line.hidden = false;
    say(text);
  }

  function say(text) {
    const live = document.getElementById("live");
    live.textContent = "";
    requestAnimationFrame(() => (live.textContent = text));
  }

  function notice(text, kind = "info") {
    const box = document.getElementById("notices");
    const close = el("button", { type: "button", class: "quiet", onclick: () => note.remove() }, "Close");
    const note = el("div", { class: `notice ${kind}`, role: kind === "error" ? "alert" : "status" }, el("p", {}, text), close);
    box.replaceChildren(note);
  }

  return { pages, put, get, load, inside, file, row, el, number, fixed, percent, score, short, many, className, named, route, itemOf, address, go, refill, say, did, notice };
})();
