// Looks through a page for what keeps people from using it; returns what it found, in words. By WCAG 2.2: names
// of controls (4.1.2), names of pictures (1.1.1), contrast of text (1.4.3), size of targets (2.5.8), reflow
// (1.4.10), order of headings and headers of tables (1.3.1), language and title (3.1.1, 2.4.2), ids (4.1.1).
const found = [];
const seen = (one) => one.getClientRects().length > 0 && getComputedStyle(one).visibility !== "hidden";
const shown = (one) => `${one.tagName.toLowerCase()}${one.id ? "#" + one.id : ""} ${(one.textContent || "").trim().slice(0, 30)}`;

function nameOf(one) {
  const by = one.getAttribute("aria-labelledby");
  if (by) return by.split(" ").map((id) => document.getElementById(id)?.textContent ?? "").join(" ").trim();
  const label = one.getAttribute("aria-label") ?? "";
  const around = one.labels?.length ? [...one.labels].map((each) => each.textContent).join(" ") : "";
  return (label || around || (["INPUT", "SELECT"].includes(one.tagName) ? "" : one.textContent)).trim();
}

// --- names and structure ---
for (const one of document.querySelectorAll("button, a[href], select, input, dialog")) {
  if (seen(one) && !nameOf(one)) found.push(`no name: ${shown(one)}`);
}
for (const one of document.querySelectorAll("[role=img], [role=region], [role=log], nav, section.panel")) {
  if (seen(one) && !(one.getAttribute("aria-label") || one.getAttribute("aria-labelledby"))) found.push(`no label: ${shown(one)}`);
}
for (const one of document.querySelectorAll("[aria-labelledby]")) {
  for (const id of one.getAttribute("aria-labelledby").split(" ")) {
    if (seen(one) && !document.getElementById(id)) found.push(`${shown(one)} is labelled by #${id}, which is not there`);
  }
}
const ids = [...document.querySelectorAll("[id]")].map((one) => one.id);
for (const id of new Set(ids.filter((one, at) => ids.indexOf(one) !== at))) found.push(`twice: #${id}`);
let level = 0;
for (const one of document.querySelectorAll("h1, h2, h3, h4, h5, h6")) {
  if (!seen(one)) continue;
  const its = Number(one.tagName[1]);
  if (its > level + 1) found.push(`heading ${shown(one)} follows one of level ${level}`);
  level = its;
}
for (const one of document.querySelectorAll("table")) {
  if (!seen(one)) continue;
  if (!one.caption) found.push(`no caption: ${shown(one)}`);
  if ([...one.querySelectorAll("th")].some((each) => !each.scope)) found.push(`a header without scope: ${shown(one)}`);
}
for (const one of document.querySelectorAll(".scroll")) {
  if (seen(one) && one.scrollWidth > one.clientWidth + 1 && one.tabIndex < 0) found.push(`scrolls, and no key gets there: ${shown(one)}`);
}
if (!document.documentElement.lang) found.push("no language");
if (!document.title) found.push("no title");
if (!document.querySelector("main")) found.push("no main");
if (document.documentElement.scrollWidth > innerWidth) found.push(`wider than the window: ${document.documentElement.scrollWidth} px`);

// --- sizes of targets ---
for (const one of document.querySelectorAll("button, select, input")) {
  const box = one.getBoundingClientRect();
  if (seen(one) && !one.classList.contains("skip") && (box.height < 24 || box.width < 16)) found.push(`small: ${shown(one)}, ${box.width} by ${box.height}`);
}

// --- contrast ---
const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
function rgba(colour) {
  canvas.clearRect(0, 0, 1, 1);
  canvas.fillStyle = colour;
  canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data];
}
function over(top, below) {
  const share = top[3] / 255;
  return [0, 1, 2].map((at) => top[at] * share + below[at] * (1 - share)).concat(255);
}
function ground(one) {
  const layers = [];
  for (let at = one; at; at = at.parentElement) {
    const colour = rgba(getComputedStyle(at).backgroundColor);
    if (colour[3]) layers.push(colour);
    if (colour[3] === 255) break;
  }
  return layers.reverse().reduce((below, top) => over(top, below), rgba("Canvas"));
}
function luminance([r, g, b]) {
  const [x, y, z] = [r, g, b].map((one) => (one / 255 <= 0.04045 ? one / 255 / 12.92 : ((one / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * x + 0.7152 * y + 0.0722 * z;
}
function contrast(one, other) {
  const [light, dark] = [luminance(one), luminance(other)].sort((a, b) => b - a);
  return (light + 0.05) / (dark + 0.05);
}
const judged = new Set();
for (const one of document.querySelectorAll("body *")) {
  const text = [...one.childNodes].some((each) => each.nodeType === 3 && each.textContent.trim());
  if (!text || !seen(one) || one.disabled) continue;
  const style = getComputedStyle(one);
  const drawn = one instanceof SVGElement;
  const behind = drawn ? rgba(getComputedStyle(document.querySelector(".scroll, .panel") ?? document.body).backgroundColor) : ground(one);
  const colour = over(rgba(drawn ? style.fill : style.color), behind);
  const ratio = contrast(colour, behind);
  const kind = `${one.tagName}.${one.getAttribute("class") ?? ""}`;
  if (ratio < 4.5 && !judged.has(kind)) {
    judged.add(kind);
    found.push(`contrast ${ratio.toFixed(1)}: ${shown(one)} (${kind})`);
  }
}
return found;
