"use strict";

// Starts the report: chooses the page by the address, handles keys, and switches between light and dark.
(() => {
  const { el, get, pages, route, say, decisions } = deconfuse;
  const main = document.getElementById("main");
  let page = null; // name of the page shown
  let shown = null; // what it gave back: update, changed, key
  let turn = 0;

  const KEYS = [
    ["1 … 5", "Overview, Confusions, Samples, Map, Review"],
    ["/", "Search"],
    ["J K, ← →", "Next and previous"],
    ["↑ ↓, Page Up, Page Down, Home, End", "Move through a list"],
    ["Enter", "Open what is chosen in a list, or on the map"],
    ["A", "Agree with the model; accept the recommended label"],
    ["D, R", "Disagree with the model; reject the recommended label"],
    ["O", "Give another label"],
    ["S", "Unsure"],
    ["U, Ctrl Z", "Undo"],
    ["+ − 0, N P", "On the map: zoom, whole map; next and previous point"],
    ["T", "Light or dark"],
    ["?", "This list"],
  ];

  function fail(error) {
    main.replaceChildren(el("p", { class: "none", role: "alert" }, error.message));
  }

  async function show() {
    const next = route();
    const name = pages[next.page] ? next.page : "overview";
    if (name === page && shown) {
      if (shown.update) shown.update(next);
      return;
    }
    const mine = ++turn;
    page = name;
    shown = null;
    mark(name);
    document.title = `${pages[name].title}, ${get("run").run}`;
    const fresh = el("div", { class: `page page-${name}` });
    main.replaceChildren(el("p", { class: "loading" }, "Loading"));
    try {
      // A page measures its elements, so it is built inside the document.
      main.replaceChildren(fresh);
      const made = await pages[name].show(fresh, next);
      if (mine !== turn) return;
      shown = made;
      main.scrollTop = 0;
      say(pages[name].title);
    } catch (error) {
      if (mine === turn) fail(error);
      if (!(error instanceof Error) || !/^data\//.test(error.message)) throw error;
    }
  }

  function mark(name) {
    for (const tab of document.querySelectorAll("#tabs a")) {
      if (tab.dataset.page === name) tab.setAttribute("aria-current", "page");
      else tab.removeAttribute("aria-current");
    }
  }

  const wantsDark = () => matchMedia("(prefers-color-scheme: dark)").matches;
  const isDark = () => (document.documentElement.dataset.theme || (wantsDark() ? "dark" : "light")) === "dark";

  function theme(name) {
    if (name) document.documentElement.dataset.theme = name;
    const button = document.getElementById("theme");
    button.textContent = isDark() ? "Light" : "Dark";
    button.setAttribute("aria-label", isDark() ? "Switch to light colours" : "Switch to dark colours");
    if (shown && shown.themed) shown.themed();
  }

  function switchTheme() {
    const name = isDark() ? "light" : "dark";
    theme(name);
    try {
      localStorage.setItem("deconfuse:theme", name);
    } catch {
      return; // it holds for this visit
    }
  }

  function keptTheme() {
    try {
      return localStorage.getItem("deconfuse:theme");
    } catch {
      return null;
    }
  }

  const dialog = document.getElementById("keys");
  function help() {
    if (dialog.open) return dialog.close();
    dialog.replaceChildren(
      el("h2", { id: "keys-title" }, "Keys"),
      el("dl", { class: "keys" }, KEYS.map(([key, what]) => el("div", {}, el("dt", {}, el("kbd", {}, key)), el("dd", {}, what)))),
      el("button", { type: "button", onclick: () => dialog.close() }, "Close"));
    dialog.showModal();
  }

  function typing(target) {
    return target.closest("input:not([type=checkbox]), select, textarea, [contenteditable]") !== null;
  }

  function undo() {
    if (shown && shown.undo) shown.undo();
    else say(decisions.undo() ? "Undone" : "Nothing to undo");
  }

  document.addEventListener("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && !event.shiftKey && event.key.toLowerCase() === "z" && !typing(event.target)) {
      event.preventDefault();
      return undo();
    }
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (typing(event.target)) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    if (dialog.open && event.key !== "?") return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const name = Object.keys(pages)[Number(key) - 1];
    if (name) location.hash = `#/${name}`;
    else if (key === "?") help();
    else if (key === "t") switchTheme();
    else if (key === "u") undo();
    else if (key === "/" && main.querySelector("input[type=search]")) main.querySelector("input[type=search]").focus();
    else if (key.startsWith("Arrow") && event.target.closest("[role=listbox], canvas, .scroll")) return;
    else if (!(shown && shown.key && shown.key(key))) return;
    event.preventDefault();
  });

  function start() {
    const run = get("run");
    if (!run) {
      fail(new Error("data/run.js is missing or not whole: keep the folder report/ together, or run again."));
      return;
    }
    document.getElementById("run-name").textContent = run.run;
    document.getElementById("run-name").title = run.run;
    document.getElementById("tabs").append(
      ...Object.entries(pages).map(([name, { title }], i) => el("a", { href: `#/${name}`, "data-page": name, "aria-keyshortcuts": String(i + 1) }, title)));
    document.getElementById("skip").addEventListener("click", () => main.focus());
    document.getElementById("help").addEventListener("click", help);
    document.getElementById("theme").addEventListener("click", switchTheme);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => theme());
    decisions.start();
    decisions.onchange(() => shown && shown.changed && shown.changed());
    addEventListener("hashchange", show);
    show();
  }

  theme(keptTheme());
  start();
})();
