// What a hostile page tries against the agent's port; run with: base (an origin), token (of a call-back that
// is waited for, which no page can know: the page is given it all the same), done (takes the outcomes).
const [base, token, done] = arguments;
const outcomes = {};
const good = JSON.stringify({ status: "succeeded", result: "stolen" });
const json = { "content-type": "application/json" };
const callback = "/v1/callbacks/" + token;

function within(work) {
  return Promise.race([work, new Promise((go) => setTimeout(() => go("nothing came"), 2500))]);
}
async function attempt(name, work) {
  try {
    outcomes[name] = String(await within(work()));
  } catch (error) {
    outcomes[name] = "refused by the browser: " + error.name;
  }
}
async function read(path, options) {
  const answer = await fetch(base + path, { credentials: "include", ...options });
  return `${answer.status} ${answer.type} ${(await answer.text()).slice(0, 2000)}`;
}
function post(options) {
  return read(callback, { method: "POST", body: good, ...options });
}
function beacon(type) {
  return navigator.sendBeacon(base + callback, new Blob([good], { type })) ? "queued" : "not queued";
}
function element(kind, attributes) {
  return new Promise((go) => {
    const one = Object.assign(document.createElement(kind), attributes);
    one.onload = () => go("loaded");
    one.onerror = () => go("error");
    document.body.append(one);
  });
}
function look(inside) {
  try {
    return "read: " + inside().body.innerText;
  } catch (error) {
    return "opaque";
  }
}
function frame(path) {
  return new Promise((go) => {
    const one = document.createElement("iframe");
    one.src = base + path;
    one.onload = () => go(look(() => one.contentDocument));
    document.body.append(one);
  });
}
function opened(path) {
  const other = window.open(base + path);
  return new Promise((go) => setTimeout(() => {
    go(other ? look(() => other.document) : "no window");
    if (other) other.close();
  }, 1000));
}
function form(enctype, name, value) {
  const hole = document.createElement("iframe");
  hole.name = "hole" + Math.random();
  const one = document.createElement("form");
  Object.assign(one, { method: "POST", action: base + callback, enctype, target: hole.name });
  const field = Object.assign(document.createElement("textarea"), { name, value });
  one.append(field);
  document.body.append(hole, one);
  return new Promise((go) => {
    hole.onload = () => go(look(() => hole.contentDocument));
    one.submit();
  });
}
function follow() {
  return new Promise((go) => {
    const events = new EventSource(base + "/dashboard/events", { withCredentials: true });
    events.onmessage = (event) => go("read: " + event.data);
    events.onerror = () => {
      events.close();
      go("error");
    };
  });
}
function socket() {
  return new Promise((go) => {
    const one = new WebSocket(base.replace("http", "ws") + "/dashboard/events");
    one.onopen = () => go("open");
    one.onmessage = (event) => go("read: " + event.data);
    one.onerror = () => go("error");
  });
}

(async () => {
  for (const path of ["/dashboard/", "/dashboard/events", "/dashboard/?token=guess", "/metrics", "/v1/status"]) {
    await attempt("fetch " + path, () => read(path, {}));
    await attempt("fetch no-cors " + path, () => read(path, { mode: "no-cors" }));
  }
  await attempt("call back, JSON", () => post({ headers: json }));
  await attempt("call back, text", () => post({}));
  await attempt("call back, no-cors", () => post({ mode: "no-cors" }));
  await attempt("beacon, text", async () => beacon("text/plain"));
  await attempt("beacon, JSON", async () => beacon("application/json"));
  await attempt("form, urlencoded", () => form("application/x-www-form-urlencoded", "status", "succeeded"));
  await attempt("form, text", () => form("text/plain", '{"status":"succeeded","x":"', '"}'));
  await attempt("form, multipart", () => form("multipart/form-data", "status", good));
  const order = JSON.stringify({ what: "cancel", job: "hooks" });
  const orders = (options) => read("/dashboard/orders", { method: "POST", body: order, ...options });
  await attempt("order, JSON", () => orders({ headers: json }));
  await attempt("order, text", () => orders({}));
  await attempt("order, no-cors", () => orders({ mode: "no-cors" }));
  await attempt("order, a guessed key", () => orders({ headers: { ...json, "x-meshpeer-key": token } }));
  await attempt("log", () => read("/dashboard/log?job=hooks&task=speech&stream=stdout", {}));
  await attempt("events", follow);
  await attempt("web socket", socket);
  await attempt("script /metrics", () => element("script", { src: base + "/metrics" }));
  await attempt("script main.js", () => element("script", { src: base + "/dashboard/main.js" }));
  await attempt("image /dashboard/", () => element("img", { src: base + "/dashboard/" }));
  await attempt("style style.css", () => element("link", { rel: "stylesheet", href: base + "/dashboard/style.css" }));
  await attempt("frame /dashboard/", () => frame("/dashboard/"));
  await attempt("frame /metrics", () => frame("/metrics"));
  await attempt("window /dashboard/", () => opened("/dashboard/"));
  done(outcomes);
})();
