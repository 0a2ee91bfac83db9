"use strict";

// Starts the report: chooses the page by the address, handles keys, and switches between light and dark.
(() => {
  const { el, get, pages, route, say, decisions } = deconfuse;
  const main = document.getElementById("main");
  let page = null; // name of the page shown
  let shown = null; // what it gave back: update, changed, key
  let turn = 0;

  const KEYS = [
    ["G, then a letter", "Go to a page: O Overview, R Review, S Samples, C Confusions, K Classes, D Duplicates, M Map"],
    ["L, C, M", "On Overview and in Review: labels, confusions, mis-similar pairs"],
    ["A", "Accept the recommended label; of a pair: they show the same thing"],
    ["R", "The label is right as it is"],
    ["1 … 5", "Give one of the likely labels"],
    ["O", "Give any other label"],
    ["X", "Exclude: not a usable picture"],
    ["D", "Of a pair: they are different"],
    ["S", "Unsure"],
    ["N", "Write a note"],
    ["U, Ctrl Z", "Undo"],
    ["Space", "The original picture; the same keys decide there"],
    ["J K, ← →", "Next and previous"],
    ["↑ ↓, Page Up, Page Down, Home, End", "Move through a list; Enter opens"],
    ["Tab to a picture, then a key", "Decide on that picture"],
    ["+ − 0, N P", "On the map: zoom, whole map; next and previous point"],
    ["/", "Search"],
    ["T", "Light or dark"],
    ["?", "This list"],
  ];
  let going = false; // after G: the next letter names a page
  let letters = true; // whether single keys act

  function fail(error) {
    main.replaceChildren(el("p", { class: "none", role: "alert" }, error.message));
  }

  async function show() {
    const next = route();
    const name = pages[next.page] ? next.page : "overview";
    if (!pages[next.page]) deconfuse.notice(`There is no page ${next.page} in this report; this is the overview.`, "error");
    if (page !== null && page !== name) places.set(page, scrolled());
    if (name === page && shown) {
      if (shown.update) shown.update(next);
      return;
    }
    const mine = ++turn;
    const back = returning ? places.get(name) : null;
    returning = false;
    if (shown && shown.gone) shown.gone();
    if (page !== null) document.getElementById("said").hidden = true; // it was about the page that is left
    page = name;
    shown = null;
    mark(pages[name].of || name);
    document.title = `${pages[name].title}, ${get("run").run}`;
    const fresh = el("div", { class: `page page-${name}` });
    main.replaceChildren(el("p", { class: "loading" }, "Loading"));
    try {
      // A page measures its elements, so it is built inside the document.
      main.replaceChildren(fresh);
      const made = await pages[name].show(fresh, next);
      if (mine !== turn) return;
      shown = made;
      main.scrollTop = back ? back[0] : 0;
      const list = main.querySelector(".list");
      if (back && list) list.scrollTop = back[1];
      say(pages[name].title);
    } catch (error) {
      if (mine === turn) fail(error);
      if (!(error instanceof Error) || !/^data\//.test(error.message)) throw error;
    }
  }

  // Where each page was scrolled to when it was left; it is there again on the way back.
  const places = new Map();
  let returning = false;
  addEventListener("popstate", () => (returning = true));
  const scrolled = () => [main.scrollTop, (main.querySelector(".list") || { scrollTop: 0 }).scrollTop];

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
      el("label", { class: "check" }, el("input", { type: "checkbox", id: "letters", checked: letters, onchange: (event) => keepLetters(event.target.checked) }), "Single keys act (turn off where they get in the way of speech input; Tab, Enter and Ctrl Z always work)"),
      el("dl", { class: "keys" }, KEYS.map(([key, what]) => el("div", {}, el("dt", {}, el("kbd", {}, key)), el("dd", {}, what)))),
      el("button", { type: "button", onclick: () => dialog.close() }, "Close"));
    dialog.showModal();
  }

  function keepLetters(on) {
    letters = on;
    document.documentElement.dataset.letters = on ? "on" : "off";
    try {
      localStorage.setItem("deconfuse:letters", on ? "on" : "off");
    } catch {
      return; // it holds for this visit
    }
  }

  function keptLetters() {
    try {
      return localStorage.getItem("deconfuse:letters") !== "off";
    } catch {
      return true;
    }
  }

  function typing(target) {
    return target.closest("input:not([type=checkbox]), select, textarea, [contenteditable]") !== null;
  }

  function undo() {
    const back = decisions.undo();
    if (!back) return deconfuse.did("Nothing to undo");
    deconfuse.did(back.changes > 1 ? `Undone: ${back.changes} decisions` : `Undone. Now: ${deconfuse.sentence(back.kind, back.i, decisions.of(back.kind, back.i))}`);
    if (deconfuse.viewer.open()) deconfuse.viewer.undone();
    else if (shown && shown.undone) shown.undone(back);
  }
  deconfuse.undo = undo;

  // A picture that has the focus is what the keys of decisions act on.
  function focused(key) {
    const figure = document.activeElement && document.activeElement.closest("[data-part][data-i]");
    if (!figure || !main.contains(figure)) return false;
    const [part, i] = [figure.dataset.part, Number(figure.dataset.i)];
    if (key === " ") {
      deconfuse.view(part, i);
      return true;
    }
    if (figure.matches(".picture")) return false; // the page's own item
    return deconfuse.press(deconfuse.kindOf(part), i, key, { after: null, ask: () => deconfuse.view(part, i), write: null });
  }

  function goTo(key) {
    going = false;
    const name = Object.keys(pages).find((one) => pages[one].letter === key && !absent(one));
    if (name) location.hash = `#/${name}`;
    return Boolean(name);
  }

  const absent = (name) => pages[name].hidden || (pages[name].there && !pages[name].there());

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
    if (!letters && key.length === 1 && key !== " ") return;
    if (key === " " && event.target.closest("button:not(.picture), summary, a.button, input")) return;
    if (act(key, event)) event.preventDefault();
  });

  // Do what a key means here; true where it means something.
  function act(key, event) {
    if (deconfuse.viewer.open()) {
      if (key !== "u") return deconfuse.viewer.key(key);
      undo();
    } else if (going) return goTo(key);
    else if (key === "g") going = true;
    else if (key === "?") help();
    else if (key === "t") switchTheme();
    else if (key === "u") undo();
    else if (key === "/" && main.querySelector("input[type=search]")) main.querySelector("input[type=search]").focus();
    else if ((key.startsWith("Arrow") || key === " ") && event.target.closest("[role=listbox], canvas, .scroll")) return false;
    else return focused(key) || Boolean(shown && shown.key && shown.key(key));
    return true;
  }

  function start() {
    const run = get("run");
    if (!run) {
      fail(new Error("data/run.js is missing or not whole: keep the folder report/ together, or run again."));
      return;
    }
    document.getElementById("run-name").textContent = run.run;
    document.getElementById("run-name").title = run.run;
    document.getElementById("tabs").append(
      ...Object.entries(pages).filter(([name]) => !absent(name)).map(([name, { title }]) => el("a", { href: `#/${name}`, "data-page": name }, title)));
    document.getElementById("skip").addEventListener("click", () => main.focus());
    document.getElementById("help").addEventListener("click", help);
    document.getElementById("theme").addEventListener("click", switchTheme);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => theme());
    keepLetters(keptLetters());
    document.getElementById("undo").addEventListener("click", undo);
    decisions.start();
    decisions.onchange(() => shown && shown.changed && shown.changed());
    addEventListener("hashchange", show);
    show();
  }

  theme(keptTheme());
  start();
})();
