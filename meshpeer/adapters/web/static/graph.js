// The job's graph: a box for each task of its file, an array as one, with how many are in which state.

import { byId, count, counted, Keyed, say, set, show, STATES, svg } from "./dom.js";
import { row, table } from "./state.js";
import { theJob } from "./jobs.js";
import { pick } from "./tasks.js";

const PAD = 8;
const frame = byId("graph");
const [edgesLayer, boxesLayer] = [svg("g", { class: "edges" }), svg("g", { class: "tasks" })];
frame.append(edgesLayer, boxesLayer);

const edges = new Keyed(
  edgesLayer,
  () => svg("path"),
  (made, key) => {
    const corners = row("edges", key).corners;
    let d = "";
    corners.forEach(([x, y], at) => {
      if (at === 0) d += `M${x} ${y}`;
      else if (at % 2) {
        const [before, level] = corners[at - 1];
        const bow = Math.max(24, (x - before) / 2);
        const end = at === corners.length - 1 ? x - 6 : x;
        d += `C${before + bow} ${level} ${x - bow} ${y} ${end} ${y}`;
      } else d += `L${x} ${y}`;
    });
    const [x, y] = corners.at(-1);
    set(made, { d: d + `M${x} ${y}l-8 -4v8Z` });
  },
);

const boxes = new Keyed(
  boxesLayer,
  (key) => {
    const made = svg("g", { class: "task" });
    made.append(svg("title"), svg("rect", { rx: 6, class: "box" }), svg("text", { class: "name" }), svg("text", { class: "more" }), svg("g"));
    made.addEventListener("click", () => pick(key));
    return made;
  },
  (made, key) => {
    const [title, box, name, more, shares] = made.children;
    const it = row("graph", key);
    const states = it.states ?? {};
    const label = it.array ? `${key} (${count(it.count)})` : key;
    const words = it.array ? counted(states) : Object.keys(states)[0] ?? "";
    say(title, `${label}: ${words}`);
    set(box, { x: it.x, y: it.y, width: it.width, height: it.height });
    say(set(name, { x: it.x + 12, y: it.y + 23 }), short(label, 26));
    say(set(more, { x: it.x + 12, y: it.y + 42 }), short(words, 34));
    const worst = ["failed", "running", "cancelled", "skipped"].find((one) => states[one]);
    set(made, { class: "task " + (worst ?? (states.succeeded === it.count ? "succeeded" : "")) });
    let left = it.x + 12;
    const parts = STATES.filter((one) => states[one]);
    while (shares.children.length > parts.length) shares.lastElementChild.remove();
    parts.forEach((one, at) => {
      if (!shares.children[at]) shares.append(svg("rect", { height: 6 }));
      const width = ((it.width - 24) * states[one]) / it.count;
      set(shares.children[at], { x: left, y: it.y + it.height - 14, width, class: "fill " + one });
      left += width;
    });
  },
);

const short = (text, letters) => (text.length > letters ? text.slice(0, letters - 1) + "…" : text);

export function draw(changed, whole) {
  if (!whole && !changed.has("graph") && !changed.has("edges") && !changed.has("job")) return;
  const keys = [...table("graph").keys()];
  show(byId("graph-frame"), keys.length > 0);
  show(byId("no-graph"), keys.length === 0 && table("tasks").size > 0);
  edges.patch([...table("edges").keys()], whole ? null : changed.get("edges") ?? new Set());
  boxes.patch(keys, whole ? null : changed.get("graph") ?? new Set());
  let [width, height] = [0, 0];
  for (const it of table("graph").values()) [width, height] = [Math.max(width, it.x + it.width), Math.max(height, it.y + it.height)];
  set(frame, { width: width + 2 * PAD, height: height + 2 * PAD, viewBox: `${-PAD} ${-PAD} ${width + 2 * PAD} ${height + 2 * PAD}` });
  const it = theJob();
  if (it) set(frame, { "aria-label": `Graph of ${it.name}: ${keys.map((key) => `${key} ${counted(row("graph", key).states ?? {})}`).slice(0, 50).join("; ")}` });
}
