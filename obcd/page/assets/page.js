// Keeps the page up to date: asks for state.json every two seconds and changes only what differs, so that focus,
// selection and a screen reader's place stay. Without this script the page is complete and can be reloaded.
"use strict";
(() => {
  const POLL = 2000, MOST_PAUSE = 30000, HISTORY = 60000, LIMIT = 10000;
  // The markup comes from this server, which escapes every text in it; the policy lets nothing else through.
  const policy = window.trustedTypes?.createPolicy("obcd", { createHTML: (text) => text, createScriptURL: (url) => url });
  const files = document.currentScript.dataset;
  const find = (id) => document.getElementById(id);
  const moment = find("moment"), pause = find("pause"), updated = find("updated");
  let isPaused = false, failures = 0, lastGood = new Date(), timer = 0, stateTag = "";

  async function ask(url, tag) {
    const reply = await fetch(url, {
      headers: tag ? { "If-None-Match": tag } : {}, cache: "no-store", credentials: "omit",
      signal: AbortSignal.timeout(LIMIT),
    });
    if (reply.status === 304) return null;
    if (!reply.ok) throw new Error(String(reply.status));
    return reply;
  }

  const parse = (markup) =>
    new DOMParser().parseFromString(policy ? policy.createHTML(markup) : markup, "text/html");

  // --- what changes ---

  // Makes the children of `old` those of `fresh`; an element with the same id, or of the same kind and place, stays.
  function morph(old, fresh) {
    const keyed = new Map();
    for (const child of old.children) if (child.id) keyed.set(child.id, child);
    let place = old.firstChild;
    for (const wanted of [...fresh.childNodes]) {
      let match = wanted.id ? keyed.get(wanted.id) : null;
      if (!match && place && isAlike(place, wanted)) match = place;
      if (!match) {
        old.insertBefore(document.importNode(wanted, true), place);
        continue;
      }
      if (match === place) place = place.nextSibling;
      else old.insertBefore(match, place);
      if (match.nodeType === Node.ELEMENT_NODE) {
        copyAttributes(match, wanted);
        morph(match, wanted);
      } else if (match.nodeValue !== wanted.nodeValue) match.nodeValue = wanted.nodeValue;
    }
    while (place) {
      const next = place.nextSibling;
      place.remove();
      place = next;
    }
  }

  function isAlike(one, two) {
    return one.nodeType === two.nodeType && one.nodeName === two.nodeName && (one.id || "") === (two.id || "");
  }

  function copyAttributes(old, fresh) {
    for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
    for (const { name, value } of [...fresh.attributes])
      if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }

  function show(state) {
    if (document.title !== state.title) document.title = state.title;
    for (const [id, markup] of Object.entries(state.sections)) {
      const place = find(id);
      if (!place) continue;
      place.hidden = !markup;
      morph(place, parse(markup).body);
    }
  }

  async function poll() {
    clearTimeout(timer);
    if (isPaused || document.hidden) return;
    try {
      const reply = await ask("state.json", stateTag);
      if (reply) {
        show(await reply.json());
        stateTag = reply.headers.get("ETag") || "";
      }
      failures = 0;
      lastGood = new Date();
    } catch {
      failures += 1;
    }
    sayFreshness();
    clearTimeout(timer);
    timer = setTimeout(poll, Math.min(POLL * 2 ** failures, MOST_PAUSE));
  }

  function sayFreshness() {
    const time = lastGood.toLocaleTimeString(), isLost = failures > 1;
    updated.classList.toggle("lost", isLost);
    const text = isLost ? `this page's server has not answered since ${time}`
      : isPaused ? `paused at ${time}` : `up to date at ${time}`;
    if (moment.textContent !== text) moment.textContent = text;
  }

  pause.hidden = false;
  pause.addEventListener("click", () => {
    isPaused = !isPaused;
    pause.setAttribute("aria-pressed", String(isPaused));
    sayFreshness();
    poll();
  });
  document.addEventListener("visibilitychange", poll);
  window.addEventListener("online", poll);

  // --- plots ---

  const DASHES = [[], [6, 4], [2, 3]];
  let plots = [], span = document.body.dataset.span, data = null, dataTag = "";

  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const figure = (value) => value == null ? "–" : value === 0 ? "0" : value < 1 ? value.toFixed(2)
    : value < 10 ? value.toFixed(1) : Math.round(value).toLocaleString("en").replaceAll(",", "\u202f");
  const tick = (value) => value >= 1e6 ? `${+(value / 1e6).toPrecision(3)}M`
    : value >= 1e4 ? `${+(value / 1e3).toPrecision(3)}k` : String(+value.toPrecision(4));

  const twoDigits = (value) => String(value).padStart(2, "0");
  const clock = (seconds) => {
    const time = new Date(seconds * 1000);
    if (span === "fortnight") return `${time.getDate()} ${time.toLocaleString("en", { month: "short" })}`;
    return `${twoDigits(time.getHours())}:${twoDigits(time.getMinutes())}`;
  };

  function forget() {
    plots.forEach((plot) => plot.destroy());
    plots = [];
  }

  function draw() {
    forget();
    if (!data || !window.uPlot) return;
    const axis = {
      stroke: style("--faint"), grid: { stroke: style("--edge"), width: 1 }, ticks: { show: false },
      font: "11px system-ui, sans-serif",
    };
    for (const place of document.querySelectorAll("figure[data-lines]")) {
      const lines = place.dataset.lines.split(";").map((each) => each.split(":"));
      if (lines.every(([field]) => data[field])) drawOne(place, lines, axis);
    }
  }

  function drawOne(place, lines, axis) {
    const canvas = place.querySelector(".canvas"), marks = place.querySelectorAll(".legend b");
    const say = (plot) => lines.forEach(([field], number) => {
      const values = data[field], at = plot.cursor.idx;
      marks[number].textContent = figure(at == null ? values.findLast((value) => value != null) : values[at]);
    });
    place.classList.add("live");
    canvas.replaceChildren();
    plots.push(new window.uPlot({
      width: canvas.clientWidth, height: 138, padding: [8, 18, 0, 0], legend: { show: false },
      cursor: { y: false, points: { size: 6 }, drag: { x: false, y: false }, sync: { key: "obcd" } },
      scales: { x: { time: true }, y: { range: (plot, low, high) => [0, high > 0 ? high * 1.05 : 1] } },
      axes: [
        { ...axis, size: 20, gap: 3, space: 64, values: (plot, ticks) => ticks.map(clock) },
        { ...axis, size: 40, gap: 4, space: 34, values: (plot, ticks) => ticks.map(tick) },
      ],
      series: [{}, ...lines.map(([, label], number) => ({
        label, stroke: style(`--line-${number}`), width: 1.6, dash: DASHES[number], points: { show: false },
      }))],
      hooks: { setCursor: [say] },
    }, [data.time, ...lines.map(([field]) => data[field])], canvas));
  }

  async function loadHistory() {
    const reply = await ask(`history.json?span=${span}`, dataTag);
    if (!reply) return;
    const fresh = await reply.json();
    if (fresh.span !== span) return;
    dataTag = reply.headers.get("ETag") || "";
    data = fresh.columns;
    draw();
  }

  // The server makes the figures of another span, and the first ones when the first history is there.
  async function loadFigures() {
    const reply = await ask(`?span=${span}`, "");
    const section = parse(await reply.text()).getElementById("plots");
    if (!section) return;
    forget();
    find("plots").replaceChildren(...[...section.childNodes].map((node) => document.importNode(node, true)));
  }

  async function keepHistory() {
    try {
      if (!isPaused && !document.hidden) {
        if (find("no-plots")) await loadFigures();
        await loadHistory();
      }
    } catch {
      // what is drawn stays; the state says that the server does not answer
    }
    setTimeout(keepHistory, find("no-plots") ? HISTORY / 6 : HISTORY);
  }

  find("plots").addEventListener("click", async (event) => {
    const link = event.target.closest("a[data-span]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    span = link.dataset.span;
    dataTag = "";
    history.replaceState(null, "", `?span=${span}`);
    try {
      await loadFigures();
      await loadHistory();
    } catch {
      location.reload();
    }
    find("plots").querySelector(`a[data-span="${span}"]`)?.focus();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  let width = window.innerWidth;
  window.addEventListener("resize", () => {
    if (window.innerWidth === width) return;
    width = window.innerWidth;
    requestAnimationFrame(draw);
  });

  function load(kind, attributes) {
    return new Promise((done, fail) =>
      document.head.append(Object.assign(document.createElement(kind), attributes, { onload: done, onerror: fail })));
  }

  async function begin() {
    sayFreshness(); // the words of a time cost 15 ms at their first use
    const src = policy ? policy.createScriptURL(files.plots) : files.plots;
    await Promise.allSettled([load("link", { rel: "stylesheet", href: files.plotsCss }), load("script", { src })]);
    keepHistory();
  }

  // What the server drew is seen first; then the page comes to life.
  timer = setTimeout(poll, POLL);
  requestAnimationFrame(() => setTimeout(begin));
})();
