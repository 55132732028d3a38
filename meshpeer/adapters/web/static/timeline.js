// Which node ran what: a row for each node, a bar for each attempt, in as many lanes as ran at once.

import { byId, clock, count, el, plural, say, set, span } from "./dom.js";
import { table } from "./state.js";
import { theJob } from "./jobs.js";

const [LEFT, LANE, GAP, HEAD, PAD] = [110, 9, 6, 20, 8];
const TALL = 8000;
const EVERY_MS = 400;
const SLICE_MS = 10;
const SHARE = 10;
const canvas = byId("timeline");
const frame = byId("timeline-frame");
const KINDS = ["succeeded", "failed", "running", "lost"];
const colours = {};
let timer = 0;
let bars = [];
let pending = true;

byId("timeline-legend").append(...KINDS.map((one) => el("span", {}, el("i", { class: "fill " + one, "aria-hidden": "true" }), one === "failed" ? "failed (notched)" : one === "running" ? "running (open end)" : one)));
for (const one of ["ink", "soft", "line"]) frame.append(el("i", { class: "colour " + one, "aria-hidden": "true" }));

export function recolour() {
  for (const one of KINDS) {
    const sample = document.querySelector("#timeline-legend .fill." + one);
    if (sample) colours[one] = getComputedStyle(sample).backgroundColor;
  }
  for (const one of ["ink", "soft", "line"]) colours[one] = getComputedStyle(frame.querySelector("." + one)).color;
  pending = true;
  schedule();
}

export function draw(changed, whole) {
  if (!whole && !changed.has("tasks") && !changed.has("job")) return;
  pending = true;
  schedule();
}
addEventListener("resize", () => ((pending = true), schedule()));

// Thousands of bars are drawn seldom rather than at every change, and row by row in slices of time, so that the
// page answers meanwhile. While something runs, time goes on.
function schedule(after = EVERY_MS) {
  if (timer) return;
  timer = setTimeout(() => {
    timer = 0;
    if (byId("view-job").hidden) return;
    const running = theJob()?.state === "running";
    if (!pending && !running) return;
    pending = false;
    const drawing = paint();
    let spent = 0;
    const go = () => {
      const began = performance.now();
      let done = false;
      while (!done && performance.now() - began < SLICE_MS) ({ done } = drawing.next());
      spent += performance.now() - began;
      performance.measure("timeline", { start: began, end: performance.now() });
      if (performance.getEntriesByName("timeline").length > 400) performance.clearMeasures("timeline");
      timer = 0;
      if (!done) timer = setTimeout(go, 0);
      else if (pending || running) schedule(Math.max(EVERY_MS, SHARE * spent));
    };
    go();
  }, after);
}

// Draws all; yields now and then, wherever it may be interrupted.
function* paint() {
  const now = Date.now() / 1000;
  const nodes = new Map();
  let [first, last, looked] = [Infinity, -Infinity, 0];
  for (const it of table("tasks").values()) {
    if (++looked % 2000 === 0) yield;
    for (const [node, state, start, end] of it.tries ?? []) {
      if (!start) continue;
      const until = end || (state === "running" ? now : start);
      let inside = nodes.get(node);
      if (!inside) nodes.set(node, (inside = []));
      inside.push([start, until, state, it.id]);
      if (start < first) first = start;
      if (until > last) last = until;
    }
  }
  const width = Math.max(320, frame.clientWidth - 2);
  const across = width - LEFT - PAD;
  const length = Math.max(0.001, last - first);
  const fresh = [];
  let y = HEAD;
  const rows = [];
  for (const name of [...nodes.keys()].sort()) {
    const inside = nodes.get(name).sort((one, other) => one[0] - other[0]);
    const lanes = [];
    const drawn = inside.map((one) => {
      let lane = lanes.findIndex((free) => free <= one[0]);
      if (lane < 0) lane = lanes.push(0) - 1;
      lanes[lane] = one[1];
      return [LEFT + ((one[0] - first) / length) * across, y + lane * LANE, Math.max(1, ((one[1] - one[0]) / length) * across), one, name];
    });
    fresh.push(...drawn);
    rows.push([name, y, lanes.length * LANE, drawn]);
    y += lanes.length * LANE + GAP;
    yield;
  }
  const height = Math.min(Math.max(y, HEAD + 20), TALL);
  const scale = Math.min(devicePixelRatio || 1, 2);
  const dots = [Math.round(width * scale), Math.round(height * scale)];
  if (canvas.width !== dots[0] || canvas.height !== dots[1]) {
    [canvas.width, canvas.height] = dots;
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
  }
  bars = fresh;
  const pen = canvas.getContext("2d");
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.font = "12px system-ui, sans-serif";
  pen.textBaseline = "middle";
  pen.clearRect(0, 0, width, HEAD);
  const marks = rows.length ? axis(pen, first, length, across) : [];
  for (const [name, top, tall, drawn] of rows) {
    pen.clearRect(0, top, width, tall + GAP);
    pen.fillStyle = colours.line;
    for (const x of marks) pen.fillRect(x, top - 2, 1, tall + GAP);
    pen.fillStyle = colours.ink;
    pen.fillText(name.length > 15 ? name.slice(0, 14) + "…" : name, 2, top + tall / 2);
    for (const [x, at, wide, [, , state]] of drawn) {
      const kind = KINDS.includes(state) ? state : "lost";
      pen.fillStyle = colours[kind];
      pen.fillRect(x, at, Math.max(1, wide - (wide > 3 ? 1 : 0)), LANE - 2);
      if (kind === "failed") pen.clearRect(x + wide / 2 - 1, at, 2, (LANE - 2) / 2);
      if (kind === "running" && wide > 6) pen.clearRect(x + 2, at + 2, wide - 2, LANE - 6);
    }
    yield;
  }
  told(rows, nodes, first, last);
}

// Says when in the first row; returns where its lines stand.
function axis(pen, first, length, across) {
  const steps = Math.max(1, Math.floor(across / 110));
  const marks = [];
  pen.fillStyle = colours.soft;
  for (let at = 0; at <= steps; at++) {
    const x = Math.round(LEFT + (across * at) / steps);
    marks.push(x);
    pen.textAlign = at === steps ? "right" : at ? "center" : "left";
    pen.fillText(at ? `+${span((length * at) / steps)}` : clock(first), x, 8);
  }
  pen.textAlign = "left";
  return marks;
}

// The same in words, for who does not see the drawing.
function told(rows, nodes, first, last) {
  if (!rows.length) {
    say(byId("timeline-said"), "Nothing has run yet.");
    return set(canvas, { "aria-label": "Timeline: nothing has run yet" });
  }
  const parts = rows.slice(0, 12).map(([name]) => `${name} ${plural(nodes.get(name).length, "attempt")}`);
  const more = rows.length > 12 ? ` and ${count(rows.length - 12)} more nodes` : "";
  const words = `${span(last - first)}: ${parts.join(", ")}${more}`;
  say(byId("timeline-said"), words);
  set(canvas, { "aria-label": `Timeline of ${words}` });
}

canvas.addEventListener("mousemove", (event) => {
  const [x, y] = [event.offsetX, event.offsetY];
  const hit = bars.find(([left, top, wide]) => x >= left && x <= left + Math.max(wide, 3) && y >= top && y <= top + LANE);
  canvas.title = hit ? `${hit[3][3]} on ${hit[4]}: ${hit[3][2]}, ${clock(hit[3][0])}, ${span(hit[3][1] - hit[3][0])}` : "";
});
