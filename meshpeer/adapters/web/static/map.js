// The map: regions as boxes, members as signs, lines for the paths of this node. The agent says where all stands.

import { byId, el, Keyed, say, set, show, svg, trip } from "./dom.js";
import { row, table } from "./state.js";
import { choose } from "./mesh.js";

const frame = byId("map");
const layers = {};
for (const name of ["boxes", "pairs", "paths", "titles", "members"]) frame.append((layers[name] = svg("g", { class: name })));

const boxes = new Keyed(
  layers.boxes,
  () => svg("rect", { rx: 8, class: "box" }),
  (made, key) => {
    const it = row("boxes", key);
    set(made, { x: it.x + 0.5, y: it.y + 0.5, width: it.width - 1, height: it.height - 1 });
  },
);

const titles = new Keyed(
  layers.titles,
  () => svg("text", { class: "title" }),
  (made, key) => {
    const it = row("boxes", key);
    say(set(made, { x: it.x + 12, y: it.y + 18 }), it.title);
  },
);

const pairs = new Keyed(
  layers.pairs,
  () => svg("path", { class: "planned" }),
  (made, key) => {
    const it = row("pairs", key);
    set(made, { d: line(row("places", it.source), row("places", it.target)) });
  },
);

const paths = new Keyed(
  layers.paths,
  () => svg("path"),
  (made, key) => {
    const it = row("members", key);
    const from = it.path === "hub" && it.via_id ? row("places", it.via_id) : row("places", me());
    const at = row("places", key);
    // Lines to hundreds of dots say nothing: each has its path below it instead.
    const d = at.label ? line(from, at) : `M${at.x - 8} ${at.y + 10}h16`;
    set(made, { d, class: `path ${it.path ?? "none"}${at.label ? "" : " below"}` });
  },
);

const members = new Keyed(
  layers.members,
  (key) => {
    const made = svg("g", { class: "member" });
    made.append(svg("title"), svg("rect", { class: "back", rx: 6 }), svg("path", { class: "sign" }), svg("path", { class: "mark" }));
    made.append(svg("text", { class: "name" }), svg("text", { class: "more" }));
    made.addEventListener("click", () => choose(key));
    return made;
  },
  (made, key) => {
    const [title, back, shape, mark, name, more] = made.children;
    const [it, at] = [row("members", key), row("places", key)];
    const state = it.state ?? "alive";
    const named = Boolean(at.label);
    set(made, { class: `member ${state}${it.me ? " me" : ""}${it.hub ? " " + it.hub : ""}` });
    say(title, [it.name, state, it.me ? "this node" : how(it), it.because].filter(Boolean).join("; "));
    set(shape, { d: outline(at, it.hub, named ? 6 : 5) });
    set(mark, { d: state === "dead" ? cross(at) : state === "suspect" ? half(at, named ? 6 : 5) : "" });
    say(set(name, { x: at.x + 13, y: at.y - 2 }), named ? fitted(it.name, at.label, 7.2) : "");
    const detail = it.me ? (it.hub ? `this node, ${it.hub}` : "this node") : [it.hub, state === "alive" ? "" : state, how(it)].filter(Boolean).join(", ");
    say(set(more, { x: at.x + 13, y: at.y + 12 }), named ? fitted(detail, at.label, 6) : "");
    // Behind the text alone, so that lines are seen to end at the sign.
    const wide = Math.min(at.label + 6, 8 + Math.max(name.textContent.length * 8, more.textContent.length * 6));
    set(back, it.me ? { x: at.x - 13, y: at.y - 18, width: wide + 26, height: 36 } : named ? { x: at.x + 10, y: at.y - 14, width: wide, height: 30 } : { x: at.x - 9, y: at.y - 9, width: 18, height: 18 });
  },
);

const keysOf = (name) => [...table(name).keys()];
let mine = "";
const me = () => mine;
function how(it) {
  const way = it.path === "none" ? "not reached" : it.path === "link" ? "link only" : it.via ? `by ${it.via}` : it.path;
  return it.rtt_ms == null ? way : `${way}, ${trip(it.rtt_ms)}`;
}

export function draw(changed, whole) {
  const placed = whole || changed.has("places") || changed.has("map");
  const moved = changed.get("members");
  if (!placed && !moved && !changed.has("pairs")) return;
  const size = row("map", "map");
  if (!size) return;
  set(frame, { viewBox: `0 0 ${size.width} ${size.height}`, width: size.width, height: size.height });
  if (placed || changed.has("boxes")) {
    boxes.patch([...table("boxes").keys()]);
    titles.patch([...table("boxes").keys()]);
  }
  if (placed) {
    show(byId("map-dense"), Boolean(size.dense));
    const hubs = keysOf("members").some((key) => row("members", key).hub);
    for (const one of document.querySelectorAll("#map-legend .of-hubs")) show(one, hubs);
  }
  const keys = [...table("places").keys()].filter((key) => row("members", key));
  mine = keys.find((key) => row("members", key).me) ?? "";
  const touched = placed ? null : moved ?? new Set();
  members.patch(keys, touched);
  if (mine) paths.patch(keys.filter((key) => key !== mine && row("members", key).path !== "none" && stands(key)), touched);
  if (placed || changed.has("pairs")) {
    pairs.patch([...table("pairs").keys()].filter((key) => {
      const it = row("pairs", key);
      return row("places", it.source) && row("places", it.target);
    }));
  }
  const states = row("mesh", "mesh")?.states ?? {};
  const said = Object.entries(states).map(([state, number]) => `${number} ${state}`).join(", ");
  set(frame, { "aria-label": `Map of the mesh: ${keys.length} members in ${table("boxes").size} regions, ${said}. The table below says the same.` });
}

// A hub of a path may be of a version that has no place yet.
function stands(key) {
  const it = row("members", key);
  return it.path !== "hub" || !it.via_id || row("places", it.via_id);
}

function line(from, to) {
  if (!from || !to) return "";
  // Bowed, so that a line between two does not seem to lead to who stands between them.
  const [across, down] = [to.x - from.x, to.y - from.y];
  return `M${from.x} ${from.y}Q${from.x + across / 2 + down * 0.12} ${from.y + down / 2 - Math.abs(across) * 0.12} ${to.x} ${to.y}`;
}

function outline({ x, y }, hub, r) {
  if (hub) {
    const far = r * 1.5;
    return `M${x} ${y - far}L${x + far} ${y}L${x} ${y + far}L${x - far} ${y}Z`;
  }
  return `M${x - r} ${y}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0Z`;
}
const cross = ({ x, y }) => `M${x - 3} ${y - 3}l6 6M${x - 3} ${y + 3}l6 -6`;
const half = ({ x, y }, r) => `M${x} ${y - r}a${r} ${r} 0 0 1 0 ${2 * r}Z`;

function fitted(text, width, letter) {
  const letters = Math.floor(width / letter);
  return text.length > letters ? text.slice(0, Math.max(1, letters - 1)) + "…" : text;
}

// --- legend ---

const LEGEND = [
  ["path direct", "direct tunnel"], ["path hub", "by a hub"], ["path relay", "by a relay"], ["path link", "control link only"],
  ["planned", "planned between hubs"],
];
const SIGNS = [["alive", "", "alive"], ["suspect", "", "suspect"], ["dead", "", "dead"], ["alive", "hub", "hub"], ["alive", "standby", "stands by"]];
byId("map-legend").append(
  ...LEGEND.map(([kind, text]) => {
    const drawing = svg("svg", { width: 34, height: 12, "aria-hidden": "true" });
    drawing.append(svg("path", { class: kind, d: "M1 6H33" }));
    return el("span", { class: ["planned", "path hub"].includes(kind) ? "of-hubs" : "" }, drawing, text);
  }),
  ...SIGNS.map(([state, hub, text]) => {
    const drawing = svg("svg", { width: 20, height: 20, "aria-hidden": "true" });
    const made = svg("g", { class: `member ${state} ${hub}` });
    const at = { x: 10, y: 10 };
    made.append(svg("path", { class: "sign", d: outline(at, hub, 6) }));
    made.append(svg("path", { class: "mark", d: state === "dead" ? cross(at) : state === "suspect" ? half(at, 6) : "" }));
    drawing.append(made);
    return el("span", { class: hub ? "of-hubs" : "" }, drawing, text);
  }),
  el("span", {}, "no line: not reached"),
  el("span", { id: "map-dense", hidden: true }, "the line below a dot is its path"),
);
