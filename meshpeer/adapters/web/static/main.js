// Which view is shown, and what is sent to it. Views are drawn when they are looked at, and then as rows change.

import { byId, count, plural, say, state } from "./dom.js";
import { drop, follow, onChange, onStanding, row } from "./state.js";
import { mayOrder, tell } from "./actions.js";
import * as mesh from "./mesh.js";
import * as map from "./map.js";
import * as jobs from "./jobs.js";
import * as graph from "./graph.js";
import * as tasks from "./tasks.js";
import * as timeline from "./timeline.js";
import * as story from "./story.js";

// The link's token has done its work: it is in no address, and so in no bookmark, from here on.
if (location.search) history.replaceState(null, "", location.pathname + location.hash);

const VIEWS = {
  mesh: [mesh.draw, map.draw],
  jobs: [jobs.drawList],
  job: [jobs.drawJob, graph.draw, timeline.draw, tasks.draw],
  capacity: [mesh.drawCapacity],
  story: [story.draw],
};
const TITLES = { mesh: "Mesh", jobs: "Jobs", job: "Job", capacity: "Capacity", story: "Story" };
const narrow = matchMedia("(max-width: 760px)");
let view = "";
let job = "";

function go() {
  const [name, which = ""] = location.hash.slice(1).split("/");
  if (name === "main") return;
  const next = name in VIEWS ? name : "mesh";
  const moved = view !== "" && next !== view;
  const other = decodeURIComponent(which);
  if (next === "job" && other !== job) {
    drop("job", "tasks", "graph", "edges");
    tasks.forget();
  }
  [view, job] = [next, next === "job" ? other : ""];
  for (const section of document.querySelectorAll(".view")) section.hidden = section.id !== "view-" + view;
  for (const link of document.querySelectorAll("nav a")) {
    const here = link.hash === "#" + (view === "job" ? "jobs" : view);
    if (here) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  jobs.choose(job);
  follow(job, narrow.matches);
  document.title = `${TITLES[view]} – meshpeer`;
  if (moved) {
    byId("main").focus({ preventScroll: true });
    scrollTo(0, 0);
  }
  for (const draw of VIEWS[view]) draw(new Map(), true);
}

function head() {
  const it = row("mesh", "mesh");
  if (!it) return;
  say(byId("node"), it.node);
  say(byId("in-mesh"), `in ${it.mesh}`);
  state(byId("health"), it.health);
  const states = it.states ?? {};
  const total = ["alive", "suspect", "dead"].reduce((sum, one) => sum + (states[one] ?? 0), 0);
  const others = ["suspect", "dead"].filter((one) => states[one]).map((one) => `, ${count(states[one])} ${one}`);
  say(byId("counts"), `${count(states.alive ?? 0)} alive of ${plural(total, "member")}${others.join("")}`);
}

onChange((changed, whole) => {
  if (whole || changed.has("mesh")) head();
  for (const draw of VIEWS[view]) draw(changed, whole);
});
onStanding((how) => {
  say(byId("following"), how === "following" ? "live" : "no answer, or this session is over: this is how it was");
  document.body.classList.toggle("stale", how !== "following");
});

const THEMES = ["system", "light", "dark"];
function theme(chosen) {
  if (chosen === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = chosen;
  say(byId("theme"), `Theme: ${chosen}`);
  timeline.recolour();
}
let chosen = localStorage.getItem("meshpeer-theme") ?? "system";
theme(THEMES.includes(chosen) ? chosen : "system");
byId("theme").addEventListener("click", () => {
  chosen = THEMES[(THEMES.indexOf(chosen) + 1) % THEMES.length];
  localStorage.setItem("meshpeer-theme", chosen);
  theme(chosen);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => timeline.recolour());
narrow.addEventListener("change", () => follow(job, narrow.matches));
addEventListener("hashchange", go);
if (!mayOrder()) tell("Looking only: to give orders and read logs, open the link of `meshpeer dashboard` in this tab.");
go();
