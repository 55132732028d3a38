"use strict";
// The link's token has done its work: it is in no address, and so in no bookmark, from here on.
if (location.search) history.replaceState(null, "", location.pathname);
const content = document.getElementById("content");
const events = new EventSource("events");
events.onmessage = (event) => {
  content.innerHTML = JSON.parse(event.data); // escaped by the agent, and no script runs but this one
  document.body.classList.remove("stale");
};
events.onerror = () => document.body.classList.add("stale");
