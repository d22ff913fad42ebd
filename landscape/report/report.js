"use strict";
(() => {
  const data = JSON.parse(document.getElementById("points").textContent);
  const tip = document.getElementById("tip");
  const filters = document.getElementById("filters");
  const plots = [...document.querySelectorAll("svg.plot")];
  const NEAR = 28; // pixels within which the pointer catches a point
  let focused = null;

  // The points of a panel, read once.
  const cache = new WeakMap();
  const pointsOf = (svg) => {
    if (!cache.has(svg)) cache.set(svg, read(svg));
    return cache.get(svg);
  };
  const read = (svg) => {
    const points = [];
    for (const group of svg.querySelectorAll("g[data-runs]")) {
      const runs = group.dataset.runs.split(" ").map(Number);
      let element = group.firstElementChild;
      for (const run of runs) {
        const [, x, y] = element.getAttribute("d").match(/^M([-.\d]+) ([-.\d]+)/);
        points.push({ svg, group, element, run, x: Number(x), y: Number(y) });
        element = element.nextElementSibling;
      }
    }
    return points;
  };
  const isShown = (point) => !point.group.hasAttribute("display");
  const shown = (svg) => pointsOf(svg).filter(isShown);

  const LONG = 60; // letters that no longer fit beside their label

  // What a point tells: its settings in one line, what this plot shows, the evidence, all else.
  const add = (parent, tag, text, name) => {
    const element = document.createElement(tag);
    if (name) element.className = name;
    // d_θ and its like are set with an index.
    text.split(/\b([dw])_([θX])/).forEach((part, i) => {
      if (i % 3 === 0) element.append(part);
      else add(element, i % 3 === 1 ? "i" : "sub", part);
    });
    parent.append(element);
    return element;
  };
  const factsOf = (run) =>
    data.fields.map(([name, label, section], i) => ({ name, label, section, fact: data.facts[run][i] })).filter(({ fact }) => fact);
  const tell = (point) => {
    const { x, y } = point.svg.dataset;
    const facts = factsOf(point.run);
    const inSection = (wanted) => facts.filter(({ section }) => section === wanted);
    const isHere = ({ name }) => name === x || name === y;
    const others = inSection("quantities").filter((fact) => !isHere(fact));
    tip.replaceChildren();
    add(tip, "b", data.names[point.run]);
    add(tip, "p", inSection("settings").map(({ label, fact }) => `${label} ${fact}`).join(" · "));
    const list = add(tip, "dl", "");
    for (const fact of [...facts.filter(isHere), ...inSection("evidence"), ...others]) {
      const kind = isHere(fact) ? "here" : fact.name === "grade" || fact === others[0] ? "first" : "";
      const name = fact.fact.length > LONG ? `${kind} long` : kind;
      add(list, "dt", fact.label, name);
      add(list, "dd", fact.fact, name);
    }
    tip.hidden = false;
    place(point);
  };
  // Beside the panel where there is room, so that it hides no other point; on a narrow screen away from the point.
  const place = (point) => {
    const at = onScreen(point);
    tip.classList.toggle("above", at.y > innerHeight / 2);
    tip.style.left = "";
    tip.style.top = "";
    if (matchMedia("(max-width: 40rem)").matches) return;
    const panel = point.svg.getBoundingClientRect();
    const { width, height } = tip.getBoundingClientRect();
    const places = [panel.right + 8, panel.left - width - 8, at.x + 16, at.x - width - 16];
    const left = places.find((edge) => edge >= 8 && edge + width <= innerWidth - 8);
    tip.style.left = `${left ?? 8}px`;
    tip.style.top = `${Math.max(8, Math.min(at.y - height / 2, innerHeight - height - 8))}px`;
  };
  const onScreen = (point) => new DOMPoint(point.x, point.y).matrixTransform(point.svg.getScreenCTM());

  // Rings: one around the point, and around the same run in all other panels.
  const unring = () => document.querySelectorAll(".ring").forEach((ring) => ring.remove());
  const ring = (point, isFocused) => {
    const circle = document.createElementNS("http://www.w3.org/2000/svg", "circle");
    circle.setAttribute("class", isFocused ? "ring focused" : "ring");
    circle.setAttribute("cx", point.x);
    circle.setAttribute("cy", point.y);
    circle.setAttribute("r", 8);
    point.svg.append(circle);
  };
  const select = (point, isFocused) => {
    unring();
    for (const svg of plots) {
      const same = svg === point.svg ? point : shown(svg).find((other) => other.run === point.run);
      if (same) ring(same, isFocused && same === point);
    }
    quiet(point);
    tell(point);
  };
  const hideTip = () => {
    unring();
    tip.hidden = true;
  };
  // The browser's own tooltip would lie over ours: its text becomes the label.
  const quiet = ({ element, run }) => {
    if (element.hasAttribute("aria-label")) return;
    const title = element.querySelector("title");
    const facts = factsOf(run).map(({ label, fact }) => `${label} ${fact}`);
    element.setAttribute("aria-label", [data.names[run], ...facts].join(", "));
    element.setAttribute("role", "img");
    if (title) title.remove();
  };

  // Pointer and finger.
  const nearest = (svg, event) => {
    let best = null;
    let least = NEAR;
    const matrix = svg.getScreenCTM();
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(matrix.inverse());
    for (const point of pointsOf(svg)) {
      const distance = Math.hypot(point.x - at.x, point.y - at.y) * matrix.a;
      if (distance < least && isShown(point)) [best, least] = [point, distance];
    }
    return best;
  };
  const hover = (event) => {
    const found = nearest(event.currentTarget, event);
    if (found) select(found, found === focused);
    else leave();
  };
  const leave = () => (focused ? select(focused, true) : hideTip());
  const press = (event) => {
    const found = nearest(event.currentTarget, event);
    if (found) moveTo(found);
    else if (focused) focused.element.blur();
  };

  // Keyboard: one point of a panel is in the order of Tab, arrow keys move it.
  const enter = (svg) => {
    svg.querySelectorAll("[tabindex]").forEach((element) => element.removeAttribute("tabindex"));
    const first = ordered(svg, "x")[0];
    if (first) first.element.setAttribute("tabindex", "0");
  };
  const ordered = (svg, axis) => {
    const sign = axis === "y" ? -1 : 1;
    const other = axis === "y" ? "x" : "y";
    return shown(svg).sort((a, b) => sign * (a[axis] - b[axis]) || a[other] - b[other] || a.run - b.run);
  };
  const moveTo = (next) => {
    next.svg.querySelectorAll("[tabindex]").forEach((element) => element.removeAttribute("tabindex"));
    next.element.setAttribute("tabindex", "0");
    quiet(next);
    next.element.focus();
  };
  const moves = { ArrowLeft: ["x", -1], ArrowRight: ["x", 1], ArrowDown: ["y", -1], ArrowUp: ["y", 1] };
  const key = (event) => {
    if (!focused || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape") return focused.element.blur();
    const [axis, step] = moves[event.key] || ["x", 0];
    const line = ordered(focused.svg, axis);
    const ends = { Home: 0, End: line.length - 1 };
    if (!step && !(event.key in ends)) return;
    event.preventDefault();
    const at = step ? line.indexOf(focused) + step : ends[event.key];
    if (line[at]) moveTo(line[at]);
  };
  const arrive = (event) => {
    const svg = event.currentTarget.querySelector("svg.plot");
    focused = pointsOf(svg).find((point) => point.element === event.target) || null;
    if (focused) select(focused, true);
  };
  const depart = () => {
    focused = null;
    hideTip();
  };

  // Filters.
  const boxes = [...filters.querySelectorAll("input")];
  const count = () => {
    const off = boxes.filter((box) => !box.checked).map((box) => [Number(box.dataset.filter), Number(box.value)]);
    const passes = (values) => !off.some(([filter, value]) => Number(values[filter]) === value);
    const optimizers = off.filter(([filter]) => filter === 0).map(([, value]) => value);
    for (const svg of plots) {
      svg.closest(".panel").hidden = optimizers.includes(Number(svg.closest(".panel").dataset.optimizer));
      for (const group of svg.querySelectorAll("g[data-key]")) {
        if (passes(group.dataset.key.split("."))) group.removeAttribute("display");
        else group.setAttribute("display", "none");
      }
    }
    const number = data.keys.filter(passes).length;
    const all = data.keys.length;
    document.getElementById("shown").textContent =
      number === all ? "" : `${number.toLocaleString("en")} of ${all.toLocaleString("en")} runs are shown.`;
  };
  const filter = () => {
    if (focused) focused.element.blur();
    hideTip();
    count();
    plots.forEach(enter);
  };

  for (const svg of plots) {
    svg.addEventListener("pointermove", hover);
    svg.addEventListener("pointerleave", leave);
    svg.addEventListener("click", press);
    // Not on the drawing itself, which would become a stop of Tab by it.
    const panel = svg.closest(".panel");
    panel.addEventListener("keydown", key);
    panel.addEventListener("focusin", arrive);
    panel.addEventListener("focusout", depart);
  }
  boxes.forEach((box) => box.addEventListener("change", filter));
  document.getElementById("all").addEventListener("click", () => {
    boxes.forEach((box) => (box.checked = true));
    filter();
  });
  addEventListener("scroll", () => (focused ? place(focused) : hideTip()), { passive: true });
  if (boxes.length) filters.hidden = false;
  // Browsers keep ticks over a reload.
  if (boxes.some((box) => !box.checked)) count();
  plots.forEach(enter);
})();
