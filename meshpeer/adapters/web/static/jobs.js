// The list of jobs, and the head of the one that is looked at: how far it is, and its buttons.

import { bar, byId, clock, count, counted, el, Keyed, plural, say, show, span, state, STATES } from "./dom.js";
import { row, table } from "./state.js";
import { ask, button, mayOrder } from "./actions.js";

const DURABILITY = { this_node: "on one node", replicated: "by replicas", blocked: "blocked: no quorum" };
let chosen = "";
export const choose = (job) => (chosen = job);
export const theJob = () => table("job").values().next().value;
export const theId = () => table("job").keys().next().value;
const open = (it) => ["pending", "running", "paused"].includes(it.state);
const shares = (it) => STATES.filter((one) => !["ready", "waiting"].includes(one)).map((one) => [one, it[one] ?? 0]);
const ended = (it) => ["succeeded", "failed", "skipped", "cancelled"].reduce((sum, one) => sum + (it[one] ?? 0), 0);

const list = new Keyed(
  document.querySelector("#jobs tbody"),
  (key) => {
    const made = el("tr", {}, el("th", { scope: "row" }, el("a", { href: `#job/${encodeURIComponent(key)}` }), " ", el("small", {}, key.slice(0, 8))));
    for (let at = 0; at < 6; at++) made.append(el("td", at === 2 ? { class: "number" } : {}));
    made.children[1].append(el("span"));
    made.children[2].append(el("div"), el("span"));
    return made;
  },
  (made, key) => {
    const it = row("jobs", key);
    const [name, is, tasks, running, owner, kept, submitted] = made.children;
    say(name.firstChild, it.name);
    state(is.firstChild, it.state);
    const words = `${count(ended(it))}/${count(it.total ?? 0)}${it.failed ? `, ${count(it.failed)} failed` : ""}`;
    bar(tasks.firstChild, shares(it), it.total, counted(it));
    say(tasks.lastChild, words);
    say(running, count(it.running ?? 0));
    say(owner, it.owner);
    say(kept, DURABILITY[it.durability] ?? it.durability);
    say(submitted, clock(it.submitted));
  },
);

export function drawList(changed, whole) {
  if (whole || changed.has("jobs")) {
    const keys = [...table("jobs").keys()].sort((one, other) => (row("jobs", one).submitted < row("jobs", other).submitted ? 1 : -1));
    list.patch(keys, whole ? null : changed.get("jobs"));
    show(byId("no-jobs"), keys.length === 0);
  }
  const it = row("mesh", "mesh");
  if (it) {
    const silent = it.silent?.length ? `; no answer from ${it.silent.slice(0, 3).join(", ")}${it.silent.length > 3 ? "…" : ""}` : "";
    say(byId("jobs-of"), it.jobs_as_of ? `of this node live, of others as of ${clock(it.jobs_as_of)}${silent}` : "of this node");
  }
}

// Takes away what was said of a job and what could be done with it: it may have been another one.
function blank() {
  for (const id of ["job-state", "job-counts", "job-bar", "job-facts", "job-buttons", "job-why"]) byId(id).replaceChildren();
  for (const name of ["class", "role", "aria-label"]) byId("job-bar").removeAttribute(name);
  byId("job-state").className = "";
  delete byId("job-buttons").dataset.offered;
  show(byId("job-why"), false);
}

export function drawJob(changed, whole) {
  if (!whole && !changed.has("job")) return;
  const it = theJob() ?? row("jobs", chosen);
  if (!it) {
    blank();
    say(byId("job-name"), "Job");
    return;
  }
  if (it.trouble) {
    blank();
    say(byId("job-name"), chosen);
    state(byId("job-state"), it.state);
    say(byId("job-counts"), it.trouble);
    return;
  }
  say(byId("job-name"), it.name);
  state(byId("job-state"), it.state);
  say(byId("job-counts"), `${count(ended(it))} of ${plural(it.total ?? 0, "task")} ended: ${counted(it) || "none yet"}`);
  bar(byId("job-bar"), shares(it), it.total, counted(it));
  const facts = [theId() ?? chosen, `owned by ${it.owner}`, `kept ${DURABILITY[it.durability] ?? it.durability}`, `submitted ${clock(it.submitted)}`];
  if (it.finished) facts.push(`ended ${clock(it.finished)}, after ${span((Date.parse(it.finished) - Date.parse(it.submitted)) / 1000)}`);
  if (it.priority) facts.push(`priority ${it.priority}`);
  if (it.as_of) facts.push(`its owner is away: as of ${clock(it.as_of)}`);
  say(byId("job-facts"), facts.join("; "));
  const place = byId("job-buttons");
  const offered = [open(it), it.state === "paused", Boolean(it.failed) && it.state !== "cancelled", theId() ?? chosen].join();
  if (place.dataset.offered === offered) return;
  place.dataset.offered = offered;
  show(byId("job-why"), false);
  const job = theId() ?? chosen;
  const held = document.activeElement?.parentElement === place;
  place.replaceChildren(
    el("button", { type: "button", disabled: !mayOrder(), on: { click: () => explain(job, "") } }, "Why?"),
    ...(open(it) ? [it.state === "paused" ? button("Go on", { what: "resume", job }) : button("Pause", { what: "pause", job })] : []),
    ...(it.failed && it.state !== "cancelled" ? [button("Retry what failed", { what: "retry", job })] : []),
    ...(open(it) ? [button("Cancel", { what: "cancel", job }, `Cancel ${it.name}? What runs is stopped, and it can't be taken back.`)] : []),
  );
  if (held) place.firstElementChild.focus();
}

export async function explain(job, task) {
  const place = byId("job-why");
  const asked = chosen;
  show(place, true);
  try {
    const it = await ask({ job, task });
    if (asked !== chosen) return;
    const lines = it.reasons.map((one) => `${plural(one.count, "task")} ${one.state}: ${one.text} (${one.tasks.slice(0, 3).join(", ")}${one.count > 3 ? ", …" : ""})`);
    place.replaceChildren(el("ul", {}, ...(lines.length ? lines : ["All that could run has succeeded."]).map((one) => el("li", {}, one))));
  } catch (fault) {
    if (asked === chosen) place.replaceChildren(el("p", { class: "bad" }, fault.message));
  }
}
