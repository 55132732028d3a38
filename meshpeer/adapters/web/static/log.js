// What a task prints, as it comes. It is read by fetch, since it needs the key, which an EventSource can't send.

import { el, say } from "./dom.js";
import { key, mayOrder } from "./actions.js";

const LETTERS_MAX = 256 * 1024;
let reading = null;

export function closeLog() {
  reading?.abort();
  reading = null;
}

// Returns the part of a task's panel that shows its output.
export function logOf(job, task) {
  const text = el("pre", { id: "log", tabindex: 0, role: "log", "aria-label": `Output of ${task.id}` });
  const how = el("span", { class: "soft", id: "log-how" });
  const choice = el("select", { id: "log-stream" }, el("option", {}, "stdout"), el("option", {}, "stderr"));
  const begin = () => {
    closeLog();
    if (!mayOrder()) return say(how, "open the link of `meshpeer dashboard` in this tab to read it");
    reading = new AbortController();
    say(text, "");
    const kept = (choice.value === "stdout" ? task.out : task.err) ?? 0;
    read({ job, task: task.id, stream: choice.value, from: Math.max(0, kept - LETTERS_MAX) }, reading.signal, text, how);
  };
  choice.addEventListener("change", begin);
  const made = el("div", {}, el("p", { class: "filters" }, el("label", {}, "Output ", choice), " ", how), text);
  begin();
  return made;
}

async function read(query, signal, text, how) {
  const shown = (kind, it) => {
    if (kind === "text") {
      if (it.again) say(text, "");
      append(text, it.text);
      say(how, `live, from ${it.node}`);
    } else if (kind === "fault") {
      say(how, it.hint ? `${it.what}: ${it.hint}` : it.what);
    } else if (kind === "end") {
      say(how, `all of it${it.node ? `, from ${it.node}` : ""}${text.textContent ? "" : ": it printed nothing"}`);
    }
  };
  say(how, "reading");
  try {
    const answer = await fetch("log?" + new URLSearchParams(query), { headers: { "x-meshpeer-key": key() }, signal });
    if (!answer.ok) return say(how, (await answer.text()).trim());
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      rest += value;
      const events = rest.split("\n\n");
      rest = events.pop();
      for (const one of events) {
        const [, kind, data] = /^event: (\w+)\ndata: (.*)$/s.exec(one) ?? [];
        if (kind) shown(kind, JSON.parse(data));
      }
    }
  } catch (fault) {
    if (fault.name !== "AbortError") say(how, "the agent does not answer");
  }
}

// Appends without sequences for terminals; follows the end where that was in sight.
function append(text, piece) {
  const atEnd = text.scrollTop + text.clientHeight >= text.scrollHeight - 4;
  const plain = piece.replace(/\u001b(?:\[[0-?]*[ -/]*[@-~]|\][^\u0007\u001b]*(?:\u0007|\u001b\\)|.)/g, "").replace(/\r(?!\n)/g, "\n");
  text.append(plain);
  while (text.textContent.length > LETTERS_MAX && text.childNodes.length > 1) text.firstChild.remove();
  if (atEnd) text.scrollTop = text.scrollHeight;
}
