// What the agent has sent: tables of rows by key, brought in step by its differences.

export const tables = new Map();
const listeners = [];
const standing = [];
let changed = new Map();
let whole = false;
let waiting = false;
let source = null;
const UNSEEN_MS = 250;
let wanted = "";

const nothing = new Map();
export const table = (name) => tables.get(name) ?? nothing;
export const row = (name, key) => table(name).get(key);

// Forgets tables that are of something else than what is shown from now on.
export function drop(...names) {
  for (const name of names) tables.delete(name);
}

// Calls back once a frame with what changed: a map of tables to sets of keys, and whether all is new.
export const onChange = (listener) => listeners.push(listener);
export const onStanding = (listener) => standing.push(listener);

// A tab that nobody sees for a while lets go of its stream: a browser has six connections to one place.
const REST_MS = 60000;
let resting = 0;
let asleep = null;
document.addEventListener("visibilitychange", () => {
  clearTimeout(resting);
  if (document.hidden) {
    resting = setTimeout(() => {
      source?.close();
      [source, asleep] = [null, last];
    }, REST_MS);
  } else if (asleep) {
    follow(...asleep);
  }
});

let last = ["", false];
const AGAIN_MS = 5000;
export function follow(job, narrow) {
  last = [job, narrow];
  asleep = null;
  const query = new URLSearchParams();
  if (job) query.set("job", job);
  if (narrow) query.set("narrow", "1");
  const address = "events" + (query.size ? "?" + query : "");
  if (source && address === wanted) return;
  if (source) source.close();
  wanted = address;
  source = new EventSource(address);
  source.addEventListener("start", () => {
    tables.clear();
    whole = true;
  });
  source.addEventListener("message", (event) => {
    for (const listener of standing) listener("following");
    apply(JSON.parse(event.data));
  });
  source.addEventListener("error", () => {
    for (const listener of standing) listener("lost");
    // A browser gives up for good where the answer is no stream (the session is over, or too many follow).
    if (source.readyState === EventSource.CLOSED) {
      const lost = source;
      setTimeout(() => {
        if (source !== lost) return;
        source = null;
        follow(job, narrow);
      }, AGAIN_MS);
    }
  });
}

function apply(changes) {
  const began = performance.now();
  for (const [what, name, key, value] of changes) {
    let rows = tables.get(name);
    if (!rows) tables.set(name, (rows = new Map()));
    if (what === "put") rows.set(key, value);
    else rows.delete(key);
    let keys = changed.get(name);
    if (!keys) changed.set(name, (keys = new Set()));
    keys.add(key);
  }
  spent += performance.now() - began;
  if (!waiting) {
    waiting = true;
    // Frames come only to tabs that are seen; others are drawn all the same, more seldom.
    const frame = requestAnimationFrame(() => (clearTimeout(late), flush()));
    const late = setTimeout(() => (cancelAnimationFrame(frame), flush()), UNSEEN_MS);
  }
}

let spent = 0;
function flush() {
  const began = performance.now();
  const [now, all] = [changed, whole];
  changed = new Map();
  whole = waiting = false;
  for (const listener of listeners) listener(now, all);
  // What one update costs, for who measures: applying it, and drawing.
  if (performance.getEntriesByName("update").length > 200) performance.clearMeasures("update");
  performance.measure("update", { start: began - spent, end: performance.now() });
  spent = 0;
}
