// Orders and questions to the agent. They need the key that stands in the page that answered the link; it is
// kept in this tab's own storage, which other ports of this machine can't read.

import { byId, el, say } from "./dom.js";

const KEPT = "meshpeer-key";
const given = document.querySelector("meta[name=meshpeer-key]");
if (given) sessionStorage.setItem(KEPT, given.content);
export const key = () => sessionStorage.getItem(KEPT) ?? "";
export const mayOrder = () => key() !== "";

const SAID_MS = 12000;
let forgetting = 0;
export function tell(text, bad = false) {
  const said = byId("said");
  say(said, text);
  said.className = bad ? "bad" : "";
  clearTimeout(forgetting);
  forgetting = setTimeout(() => say(said, ""), SAID_MS);
}

export async function ask(query) {
  const answer = await fetch("why?" + new URLSearchParams(query), { headers: { "x-meshpeer-key": key() } });
  return read(answer);
}

export async function order(what) {
  tell("…");
  try {
    const answer = await fetch("orders", {
      method: "POST",
      headers: { "content-type": "application/json", "x-meshpeer-key": key() },
      body: JSON.stringify(what),
    });
    tell((await read(answer)).said);
  } catch (fault) {
    tell(fault.message, true);
  }
}

async function read(answer) {
  const text = await answer.text();
  if (answer.ok) return JSON.parse(text);
  let said = text.trim();
  if (answer.status === 409) {
    const fault = JSON.parse(text);
    said = fault.hint ? `${fault.error}: ${fault.hint}` : fault.error;
  }
  throw new Error(said);
}

// A button for an order; ``sure`` is what to ask before, where it can't be taken back.
export function button(label, what, sure = "") {
  const title = mayOrder() ? null : "open the link of `meshpeer dashboard` in this tab to give orders";
  return el("button", { type: "button", disabled: !mayOrder(), title, on: { click: () => press(what, sure) } }, label);
}

async function press(what, sure) {
  if (!sure || (await isSure(sure))) await order(typeof what === "function" ? what() : what);
}

function isSure(question) {
  const dialog = byId("sure");
  say(byId("sure-what"), question);
  return new Promise((go) => {
    const end = (answer) => {
      dialog.close();
      byId("sure-yes").onclick = byId("sure-no").onclick = dialog.oncancel = null;
      go(answer);
    };
    byId("sure-yes").onclick = () => end(true);
    byId("sure-no").onclick = () => end(false);
    dialog.oncancel = () => end(false);
    dialog.showModal();
    byId("sure-no").focus();
  });
}
