// Which node ran what: a row for each node, a bar for each attempt, in as many lanes as ran at once.

import { byId, clock, count, el, plural, say, set, span } from "./dom.js";
import { table } from "./state.js";
import { theJob } from "./jobs.js";

const [LEFT, LANE, GAP, HEAD, PAD] = [110, 9, 6, 20, 8];
const EVERY_MS = 400;
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

// Thousands of bars are drawn seldom rather than at every change; while something runs, time goes on.
function schedule() {
  if (timer) return;
  timer = setTimeout(() => {
    timer = 0;
    if (byId("view-job").hidden) return;
    const running = ["running"].includes(theJob()?.state);
    if (pending || running) {
      const began = performance.now();
      paint();
      performance.measure("timeline", { start: began, end: performance.now() });
      if (performance.getEntriesByName("timeline").length > 200) performance.clearMeasures("timeline");
    }
    pending = false;
    if (running) schedule();
  }, EVERY_MS);
}

function paint() {
  const now = Date.now() / 1000;
  const nodes = new Map();
  let [first, last] = [Infinity, -Infinity];
  for (const it of table("tasks").values()) {
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
  const names = [...nodes.keys()].sort();
  const width = Math.max(320, frame.clientWidth - 2);
  const across = width - LEFT - PAD;
  const length = Math.max(0.001, last - first);
  bars = [];
  let y = HEAD;
  const rows = names.map((name) => {
    const inside = nodes.get(name).sort((one, other) => one[0] - other[0]);
    const lanes = [];
    for (const one of inside) {
      let lane = lanes.findIndex((free) => free <= one[0]);
      if (lane < 0) lane = lanes.push(0) - 1;
      lanes[lane] = one[1];
      bars.push([LEFT + ((one[0] - first) / length) * across, y + lane * LANE, Math.max(1, ((one[1] - one[0]) / length) * across), one, name]);
    }
    const row = [name, y, lanes.length * LANE];
    y += lanes.length * LANE + GAP;
    return row;
  });
  const height = Math.max(y, HEAD + 20);
  const scale = Math.min(devicePixelRatio || 1, 2);
  const dots = [Math.round(width * scale), Math.round(Math.min(height, 8000) * scale)];
  if (canvas.width !== dots[0] || canvas.height !== dots[1]) {
    [canvas.width, canvas.height] = dots;
    canvas.style.width = `${width}px`;
    canvas.style.height = `${Math.min(height, 8000)}px`;
  }
  const pen = canvas.getContext("2d");
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.clearRect(0, 0, width, height);
  pen.font = "12px system-ui, sans-serif";
  pen.textBaseline = "middle";
  axis(pen, first, length, across, height, names.length > 0);
  for (const [name, top, tall] of rows) {
    pen.fillStyle = colours.ink;
    pen.fillText(name.length > 15 ? name.slice(0, 14) + "…" : name, 2, top + tall / 2);
  }
  for (const kind of KINDS) {
    pen.fillStyle = colours[kind];
    for (const [x, top, wide, one] of bars) {
      if (one[2] !== kind && !(kind === "lost" && !KINDS.includes(one[2]))) continue;
      pen.fillRect(x, top, Math.max(1, wide - (wide > 3 ? 1 : 0)), LANE - 2);
      if (kind === "failed") pen.clearRect(x + wide / 2 - 1, top, 2, (LANE - 2) / 2);
      if (kind === "running" && wide > 6) pen.clearRect(x + 2, top + 2, wide - 2, LANE - 6);
    }
  }
  told(rows, nodes, first, last);
}

function axis(pen, first, length, across, height, any) {
  if (!any) return;
  const steps = Math.max(1, Math.floor(across / 110));
  pen.lineWidth = 1;
  for (let at = 0; at <= steps; at++) {
    const x = Math.round(LEFT + (across * at) / steps) + 0.5;
    pen.strokeStyle = colours.line;
    pen.beginPath();
    pen.moveTo(x, HEAD - 4);
    pen.lineTo(x, height);
    pen.stroke();
    pen.fillStyle = colours.soft;
    pen.textAlign = at === steps ? "right" : at ? "center" : "left";
    pen.fillText(at ? `+${span((length * at) / steps)}` : clock(first), x, 8);
  }
  pen.textAlign = "left";
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
