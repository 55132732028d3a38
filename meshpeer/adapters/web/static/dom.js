// Elements, made of text alone: nothing here parses markup.

export const byId = (id) => document.getElementById(id);

export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "on") for (const [kind, listener] of Object.entries(value)) made.addEventListener(kind, listener);
    else if (value !== false && value != null) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((one) => one != null && one !== ""));
  return made;
}

const SVG = "http://www.w3.org/2000/svg";
export function svg(tag, attributes = {}) {
  return set(document.createElementNS(SVG, tag), attributes);
}

export function set(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value == null) element.removeAttribute(name);
    else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
  }
  return element;
}

export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
  return element;
}

export function show(element, shown) {
  if (element.hidden === shown) element.hidden = !shown;
}

// Keeps children in step with keys in order: each is made once, then brought in step.
export class Keyed {
  constructor(parent, make, update) {
    [this.parent, this.make, this.update, this.made] = [parent, make, update, new Map()];
  }
  patch(keys, touched) {
    const wanted = new Set(keys);
    for (const [key, element] of this.made) {
      if (wanted.has(key)) continue;
      element.remove();
      this.made.delete(key);
    }
    let before = this.parent.firstElementChild;
    for (const key of keys) {
      let element = this.made.get(key);
      const fresh = !element;
      if (fresh) this.made.set(key, (element = this.make(key)));
      if (fresh || !touched || touched.has(key)) this.update(element, key);
      if (element === before) before = before.nextElementSibling;
      else this.parent.insertBefore(element, before);
    }
  }
}

// Signs of states, so that colour is never the only one.
const SIGNS = {
  alive: "●", ok: "●", suspect: "◐", degraded: "◐", alone: "◐", dead: "✕", left: "○", revoked: "⊘",
  succeeded: "✓", failed: "✕", running: "▶", ready: "◇", granted: "◇", waiting: "·", pending: "·", paused: "‖",
  skipped: "–", cancelled: "⊘", lost: "?", unknown: "?", agrees: "=", differs: "≠", travels: "≈",
  accepts: "●", drained: "‖", none: "–",
};
const TONES = {
  alive: "good", ok: "good", succeeded: "good", agrees: "good", accepts: "good",
  running: "busy", pending: "busy", ready: "busy", granted: "busy",
  suspect: "doubt", degraded: "doubt", alone: "doubt", paused: "doubt", drained: "doubt", differs: "doubt", lost: "doubt",
  dead: "bad", failed: "bad", revoked: "bad",
};
export const tone = (state) => TONES[state] ?? "gone";
export const sign = (state) => SIGNS[state] ?? "?";

// Shows a state in an element: sign, word and colour.
export function state(element, word) {
  const name = "state " + tone(word);
  if (element.className !== name) element.className = name;
  return say(element, word ? `${sign(word)} ${word}` : "");
}

export const count = (number) => number.toLocaleString("en");
export function plural(number, word) {
  return `${count(number)} ${word}${number === 1 ? "" : "s"}`;
}

export function bytes(number) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  while (number >= 1024 && at < units.length - 1) [number, at] = [number / 1024, at + 1];
  return `${at && number < 10 ? number.toFixed(1) : Math.round(number)} ${units[at]}`;
}

export function span(seconds) {
  if (seconds < 10) return `${Math.max(0, seconds).toFixed(1)} s`;
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${Math.round(seconds % 60)} s`;
  if (minutes < 1440) return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  return `${Math.floor(minutes / 1440)} d ${Math.floor((minutes % 1440) / 60)} h`;
}

export function trip(ms) {
  return ms == null ? "–" : `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
}

// Times as this browser's user reads them, the day where it is not today's.
export function clock(stamp) {
  if (!stamp) return "";
  const at = new Date(typeof stamp === "number" ? stamp * 1000 : stamp);
  const time = at.toTimeString().slice(0, 8);
  const day = `${at.getFullYear()}-${String(at.getMonth() + 1).padStart(2, "0")}-${String(at.getDate()).padStart(2, "0")}`;
  return at.toDateString() === new Date().toDateString() ? time : `${day} ${time}`;
}

export const STATES = ["succeeded", "failed", "running", "ready", "waiting", "skipped", "cancelled"];
export function counted(counts) {
  return STATES.filter((one) => counts[one]).map((one) => `${count(counts[one])} ${one}`).join(", ");
}

// A bar of shares, said in words to who can't see it.
export function bar(element, shares, total, words) {
  set(element, { class: "bar", role: "img", "aria-label": words });
  while (element.children.length > shares.length) element.lastElementChild.remove();
  shares.forEach(([name, part], at) => {
    let piece = element.children[at];
    if (!piece) element.append((piece = document.createElement("span")));
    const kind = "fill " + name;
    if (piece.className !== kind) piece.className = kind;
    const width = total ? `${((100 * part) / total).toFixed(2)}%` : "0";
    if (piece.style.width !== width) piece.style.width = width;
  });
  return element;
}
