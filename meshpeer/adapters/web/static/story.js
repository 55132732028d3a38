// What changed, and why, the newest first.

import { byId, clock, el, Keyed, say, show } from "./dom.js";
import { row, table } from "./state.js";

const KINDS = ["member", "path", "hub", "agreement", "mesh", "work", "job", "log"];
const choice = byId("story-kind");
choice.append(el("option", { value: "" }, "everything"), ...KINDS.map((one) => el("option", {}, one)));
choice.addEventListener("change", () => draw(new Map(), true));

const lines = new Keyed(
  byId("story"),
  () => el("li", {}, el("time"), el("span", { class: "kind" }), el("span"), el("small")),
  (made, key) => {
    const it = row("story", key);
    const [time, kind, text, because] = made.children;
    time.dateTime = new Date(it.at * 1000).toISOString();
    say(time, clock(it.at));
    say(kind, it.kind);
    say(text, it.text);
    text.className = it.tone ?? "";
    say(because, it.because ?? "");
  },
);

export function draw(changed, whole) {
  if (!whole && !changed.has("story")) return;
  const wanted = choice.value;
  const keys = [...table("story").keys()].filter((key) => !wanted || row("story", key).kind === wanted);
  // By time: what the agent logged comes in before the look that saw what it led to.
  keys.sort((one, other) => row("story", other).at - row("story", one).at || other - one);
  lines.patch(keys, whole ? null : changed.get("story"));
  show(byId("no-story"), keys.length === 0);
}
