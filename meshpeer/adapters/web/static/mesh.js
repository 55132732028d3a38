// Members: the table, one in detail, and what each has for tasks.

import { bar, byId, bytes, clock, count, el, Keyed, plural, say, show, state, trip } from "./dom.js";
import { row, table } from "./state.js";
import { ask, button, mayOrder } from "./actions.js";

let chosen = "";
const ranked = () => [...table("members").keys()].sort((one, other) => row("members", one).rank - row("members", other).rank);
const present = () => ranked().filter((key) => !["left", "revoked"].includes(row("members", key).state ?? "alive"));

const members = new Keyed(
  document.querySelector("#members tbody"),
  (key) => {
    const pick = el("button", { type: "button", class: "plain", on: { click: () => choose(key) } });
    const made = el("tr", {}, el("th", { scope: "row" }, pick));
    for (let at = 0; at < 7; at++) made.append(el("td", at === 2 ? { class: "number" } : {}));
    made.children[1].append(el("span"));
    return made;
  },
  (made, key) => {
    const it = row("members", key);
    const [name, alive, path, rtt, doubts, facts, region, address] = made.children;
    say(name.firstChild, it.name + (it.me ? " (this node)" : it.hub ? ` (${it.hub})` : ""));
    name.firstChild.setAttribute("aria-pressed", key === chosen);
    state(alive.firstChild, it.state ?? "alive");
    say(path, way(it));
    say(rtt, it.me ? "–" : trip(it.rtt_ms));
    say(doubts, (it.observers ?? []).join(", "));
    say(facts, it.me ? "" : agreement(it));
    say(region, it.region ?? "–");
    say(address, it.ipv4 || it.ipv6 || "–");
    made.className = it.me ? "me" : "";
  },
);

function way(it) {
  if (it.me || !it.path) return "–";
  return it.via ? `${it.path} by ${it.via}` : it.path === "link" ? "link only" : it.path;
}

function agreement(it) {
  const said = it.agreement ?? "agrees";
  return { agrees: "= agrees", differs: `≠ differs in ${(it.differs ?? []).join(", ")}`, travels: "≈ news on its way", unknown: "? not heard" }[said] ?? "";
}

export function draw(changed, whole) {
  if (whole || changed.has("members")) {
    members.patch(ranked(), whole ? null : changed.get("members"));
    if (chosen && (whole || changed.get("members").has(chosen))) detail();
  }
  const it = row("mesh", "mesh");
  if (!it || !(whole || changed.has("mesh"))) return;
  const warnings = byId("warnings");
  show(warnings, Boolean(it.warnings?.length));
  const said = it.warnings ?? [];
  if (warnings.dataset.said !== said.join("\n")) {
    warnings.replaceChildren(...said.map((one) => el("li", {}, one)));
    warnings.dataset.said = said.join("\n");
  }
  const parts = [`${it.mode} mesh`];
  if (it.agree_total) parts.push(`${count(it.agree)} of ${count(it.agree_total)} derive their plan from the same facts`);
  if (it.differ?.length) parts.push(`differ: ${it.differ.slice(0, 5).join("; ")}${it.differ.length > 5 ? "…" : ""}`);
  if (it.travels) parts.push(`${count(it.travels)} may have news on its way`);
  if (it.unknown?.length) parts.push(`not heard: ${it.unknown.slice(0, 5).join(", ")}${it.unknown.length > 5 ? "…" : ""}`);
  say(byId("agreement"), parts.join("; "));
}

export function choose(key) {
  const before = chosen;
  chosen = chosen === key ? "" : key;
  members.patch(ranked(), new Set([before, key]));
  show(byId("member"), chosen !== "");
  const panel = byId("member");
  panel.replaceChildren();
  if (!chosen) return;
  panel.append(
    el("div", { class: "head" }, el("h3", { id: "member-name" }), el("span"), el("span", { class: "push" }),
      el("button", { type: "button", on: { click: close } }, "Close")),
    el("dl"), el("p", { class: "buttons" }), el("div", { id: "why" }),
  );
  detail();
  panel.scrollIntoView({ block: "nearest" });
}

function close() {
  const key = chosen;
  choose(key);
  members.made.get(key)?.querySelector("button").focus();
}

function detail() {
  const panel = byId("member");
  const it = row("members", chosen);
  if (!it) return;
  const [head, facts, buttons] = panel.children;
  say(head.children[0], it.name);
  state(head.children[1], it.state ?? "alive");
  const known = [
    ["since", clock(it.since)], ["because", it.because], ["suspected by", (it.observers ?? []).join(", ")],
    ["path", it.me ? "this node" : `${way(it)}${it.rtt_ms == null ? "" : `, ${trip(it.rtt_ms)}`}`],
    ["control link", it.me ? "" : it.link + (it.link_via ? ` over ${it.link_via}` : "")],
    ["last handshake", clock(it.handshake_at)], ["endpoint", it.endpoint], ["facts", it.me ? "" : agreement(it)],
    ["region", it.region], ["roles", (it.roles ?? []).join(", ")], ["hub", it.hub], ["reported as a hub", it.reported],
    ["addresses", [it.ipv4, it.ipv6].filter(Boolean).join("  ")], ["leads to", (it.routes ?? []).join(", ")],
    ["MTU", it.mtu ? String(it.mtu) : ""], ["work", it.work], ["slots", it.slots ? `${it.busy ?? 0} busy of ${it.slots}` : ""],
    ["key", chosen],
  ].filter(([, value]) => value);
  const text = JSON.stringify(known);
  if (facts.dataset.said !== text) {
    facts.dataset.said = text;
    facts.replaceChildren(...known.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
  }
  const orders = [chosen, it.name, it.work].join();
  if (buttons.dataset.said !== orders) {
    buttons.dataset.said = orders;
    const drain = drainButton(it);
    const held = buttons.contains(document.activeElement);
    buttons.replaceChildren(...(it.me ? [] : [why(it.name)]), ...(drain ? [drain] : []));
    if (held) buttons.lastElementChild?.focus();
  }
}

function why(name) {
  return el("button", { type: "button", disabled: !mayOrder(), on: { click: () => explain(name) } }, "Why this path?");
}

async function explain(name) {
  const place = byId("why");
  try {
    const it = await ask({ to: name });
    const list = (title, lines) => (lines.length ? [el("h4", {}, title), el("ul", {}, ...lines.map((one) => el("li", {}, one)))] : []);
    place.replaceChildren(
      el("p", {}, it.answer),
      ...list("By these rules", it.rule.map((one) => one.text)),
      ...list("What to do", it.todo),
      ...list("Not known here", it.unknown),
    );
  } catch (fault) {
    place.replaceChildren(el("p", { class: "bad" }, fault.message));
  }
}

function drainButton(it) {
  if (it.work === "drained") return button("Let it take work", { what: "undrain", node: it.name });
  if (it.work !== "accepts") return null;
  return button("Drain", { what: "drain", node: it.name }, `Drain ${it.name}? It takes no new work; what it has goes on.`);
}

// --- capacity ---

const capacity = new Keyed(
  document.querySelector("#capacity tbody"),
  () => {
    const made = el("tr", {}, el("th", { scope: "row" }));
    for (let at = 0; at < 7; at++) made.append(el("td", [3, 4].includes(at) ? { class: "number" } : {}));
    made.children[1].append(el("span"));
    made.children[3].append(el("div"), el("span"));
    return made;
  },
  (made, key) => {
    const it = row("members", key);
    const [name, work, orders, slots, done, memory, resources, region] = made.children;
    say(name, it.name + (it.me ? " (this node)" : ""));
    state(work.firstChild, it.work || "unknown");
    const [busy, all] = [it.busy ?? 0, it.slots ?? 0];
    bar(slots.firstChild, [["running", Math.min(busy, all)]], all, `${busy} busy of ${all}`);
    say(slots.lastChild, all || busy ? `${busy} of ${all}` : "–");
    say(done, count(it.done ?? 0));
    say(memory, it.memory ? bytes(it.memory) : "–");
    say(resources, Object.entries(it.resources ?? {}).map(([one, number]) => `${one} ${number}`).join(", ") || "–");
    say(region, it.region ?? "–");
    const said = [it.name, it.work].join();
    if (orders.dataset.said !== said) {
      orders.dataset.said = said;
      const drain = drainButton(it);
      if (drain) drain.setAttribute("aria-label", `${drain.textContent}: ${it.name}`);
      const held = orders.contains(document.activeElement);
      orders.replaceChildren(...(drain ? [drain] : []));
      if (held) drain?.focus();
    }
  },
);

export function drawCapacity(changed, whole) {
  if (!whole && !changed.has("members") && !changed.has("mesh")) return;
  capacity.patch(present(), whole ? null : changed.get("members") ?? new Set());
  let [slots, busy, drained] = [0, 0, 0];
  for (const it of table("members").values()) {
    [slots, busy] = [slots + (it.slots ?? 0), busy + (it.busy ?? 0)];
    drained += it.work === "drained" ? 1 : 0;
  }
  say(byId("capacity-sum"), `${count(busy)} busy of ${plural(slots, "slot")}${drained ? `; ${plural(drained, "node")} drained` : ""}`);
  const it = row("mesh", "mesh");
  if (it) {
    const coming = it.files_coming ? `; ${plural(it.files_coming, "file")} on the way here` : "";
    say(byId("files"), `Files of jobs on this node: ${bytes(it.files ?? 0)} of ${bytes(it.files_max ?? 0)}${coming}`);
  }
}
