// The list of tasks: of thousands only the rows that are in sight exist. And one task in detail, with its log.

import { byId, clock, count, el, plural, say, set, show, span, state, STATES } from "./dom.js";
import { row, table } from "./state.js";
import { button } from "./actions.js";
import { explain, theId, theJob } from "./jobs.js";
import { closeLog, logOf } from "./log.js";

const ROW = 30;
const SPARE = 8;
const frame = byId("tasks-frame");
const body = document.querySelector("#tasks tbody");
const [above, below] = [el("tr", { "aria-hidden": "true" }, el("td", { colspan: 6 })), el("tr", { "aria-hidden": "true" }, el("td", { colspan: 6 }))];
body.append(above, below);
const rows = [];
let order = [];
let stale = true;
let sifted = 0;
let chosen = "";

byId("task-state").append(el("option", { value: "" }, "any"), ...STATES.map((one) => el("option", { value: one }, one)));
byId("task-state").addEventListener("change", again);
byId("task-name").addEventListener("input", again);
frame.addEventListener("scroll", () => requestAnimationFrame(inSight), { passive: true });
addEventListener("resize", () => requestAnimationFrame(inSight));

// Shows the tasks of one box of the graph.
export function pick(name) {
  byId("task-name").value = byId("task-name").value === name ? "" : name;
  again();
  frame.scrollTop = 0;
  byId("title-tasks").scrollIntoView({ block: "nearest" });
}

export function forget() {
  byId("task-name").value = byId("task-state").value = "";
  frame.scrollTop = 0;
  choose("");
}

function again() {
  stale = true;
  draw(new Map(), true);
}

function sift() {
  const [wanted, name] = [byId("task-state").value, byId("task-name").value];
  order = [];
  for (const [key, it] of table("tasks")) {
    if ((!wanted || it.state === wanted) && (!name || it.id.includes(name))) order.push(key);
  }
  order.sort((one, other) => one - other);
  stale = false;
  sifted = table("tasks").size;
  const all = theJob()?.total ?? table("tasks").size;
  const shown = table("tasks").size < all ? `; the first ${count(table("tasks").size)} of ${count(all)} are listed` : "";
  say(byId("task-count"), plural(order.length, "task") + shown);
}

export function draw(changed, whole) {
  const keys = changed.get("tasks");
  if (!whole && !keys) return;
  const filtered = byId("task-state").value !== "";
  if (whole || stale || filtered || sifted !== table("tasks").size) sift();
  inSight();
  if (chosen && (whole || keys.has(chosen))) detail();
}

function inSight() {
  const first = Math.max(0, Math.floor(frame.scrollTop / ROW) - SPARE);
  const last = Math.min(order.length, Math.ceil((frame.scrollTop + frame.clientHeight) / ROW) + SPARE);
  const shown = Math.max(0, last - first);
  height(above, first * ROW);
  height(below, (order.length - first - shown) * ROW);
  while (rows.length > shown) rows.pop().remove();
  while (rows.length < shown) {
    const made = fresh();
    rows.push(made);
    body.insertBefore(made, below);
  }
  for (let at = 0; at < shown; at++) fill(rows[at], order[first + at], first + at);
  set(byId("tasks"), { "aria-rowcount": order.length + 1 });
}

function height(spacer, pixels) {
  spacer.hidden = pixels === 0;
  spacer.firstChild.style.height = `${pixels}px`;
}

function fresh() {
  const made = el("tr");
  const name = el("button", { type: "button", class: "plain", on: { click: () => choose(made.dataset.key) } });
  made.append(el("th", { scope: "row" }, name), el("td", {}, el("span")), el("td"), el("td", { class: "number" }), el("td", { class: "number" }), el("td"));
  return made;
}

function fill(made, key, at) {
  const it = row("tasks", key);
  if (!it) return;
  const [name, is, node, tries, took, why] = made.children;
  made.dataset.key = key;
  set(made, { "aria-rowindex": at + 2 });
  say(name.firstChild, it.id);
  set(name.firstChild, { "aria-pressed": key === chosen });
  state(is.firstChild, it.state);
  say(node, it.node ?? "–");
  say(tries, String(it.tries?.length ?? 0));
  const last = it.tries?.at(-1);
  say(took, last?.[2] && last[3] ? span(last[3] - last[2]) : last?.[2] && it.state === "running" ? `since ${clock(last[2])}` : "–");
  say(why, it.error ?? "");
  set(why, { title: it.error });
}

// --- one task ---

function choose(key) {
  chosen = chosen === key ? "" : key;
  closeLog();
  const panel = byId("task");
  show(panel, chosen !== "");
  panel.replaceChildren();
  inSight();
  if (!chosen) return;
  panel.append(
    el("div", { class: "head" }, el("h3", { id: "task-title" }), el("span"), el("span", { class: "push" }),
      el("button", { type: "button", on: { click: close } }, "Close")),
    el("p", { class: "buttons" }),
    el("p"),
    el("div", { class: "scroll", role: "region", "aria-label": "Attempts", tabindex: 0 }, el("table", {}, el("caption", {}, "Attempts"),
      el("thead", {}, el("tr", {}, ...["No.", "Node", "State", "Began", "Took"].map((one) => el("th", { scope: "col" }, one)))), el("tbody"))),
    logOf(theId(), row("tasks", chosen)),
  );
  detail();
  panel.scrollIntoView({ block: "nearest" });
}

function close() {
  const key = chosen;
  choose(key);
  (rows.find((made) => made.dataset.key === key)?.querySelector("button") ?? frame).focus();
}

function detail() {
  const it = row("tasks", chosen);
  if (!it) return;
  const [head, buttons, why, attempts] = byId("task").children;
  say(head.children[0], it.id);
  state(head.children[1], it.state);
  say(why, [it.exit_code == null ? "" : `exit code ${it.exit_code}`, it.error ?? ""].filter(Boolean).join(": "));
  if (buttons.dataset.state !== it.state) {
    buttons.dataset.state = it.state;
    const [job, task] = [theId(), it.id];
    buttons.replaceChildren(
      ...(it.state === "succeeded" ? [] : [el("button", { type: "button", on: { click: () => explain(job, task) } }, "Why?")]),
      ...(it.state === "failed" ? [button("Retry", { what: "retry", job, tasks: [task] })] : []),
    );
  }
  const list = attempts.querySelector("tbody");
  list.replaceChildren(...(it.tries ?? []).map(([node, how, start, end, from], at) =>
    el("tr", {}, el("th", { scope: "row" }, String(at + 1)), el("td", {}, node + (from ? ` (from ${from})` : "")),
      el("td", {}, state(el("span"), how)), el("td", {}, clock(start)), el("td", {}, start && end ? span(end - start) : "–"))));
}
