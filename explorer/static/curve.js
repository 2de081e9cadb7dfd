// The progress of the label while it is edited, over the stored curves. The server has the one formula: it is asked after
// each change, at most one question is on its way, and only the newest label is asked about.
import { element, get, token } from "./page.js";
import { episode, player } from "./player.js";

const rows = document.getElementById("progress");
const url = `/api/curves/${encodeURIComponent(episode.dataset)}/${episode.episode_index}`;
const headers = { "content-type": "application/json", "x-csrf-token": token };
let wanted = null; // the label to draw, as JSON; null: nothing is edited
let isAsking = false;
let drawn = new Map(); // {path, values, item} of each line by its name

export function drawCurve(label) {
  wanted = label;
  if (label === null) clear();
  else if (!isAsking && rows?.querySelector("svg")) ask(); // a run beside its reference shows no curves
}

async function ask() {
  isAsking = true;
  for (let asked = null; wanted !== null && wanted !== asked; ) {
    asked = wanted;
    const { ok, data } = await get(url, { method: "POST", headers, body: asked });
    if (wanted !== null) show(ok ? data : { lines: [], why: data.error });
  }
  isAsking = false;
}

function show({ lines, why }) {
  const problem = rows.querySelector(".no-curve") ?? rows.querySelector(".legend").appendChild(element("li", { className: "no-curve doubt" }));
  problem.textContent = why && `No curve: ${why}`;
  for (const line of lines) {
    if (!drawn.has(line.name)) drawn.set(line.name, added(line));
    const { path, values } = drawn.get(line.name);
    path.setAttribute("d", parsed(line).getAttribute("d"));
    values.splice(0, Infinity, ...line.values);
  }
  for (const { path } of drawn.values()) path.classList.toggle("stale", !lines.length);
  player.dispatchEvent(new Event("drawn"));
}

function parsed({ path }) {
  const group = document.createElementNS("http://www.w3.org/2000/svg", "g");
  group.innerHTML = path;
  return group.firstElementChild;
}

// A path in the chart, its values for the cursor, and its switch in the legend, as the other lines have them
function added(line) {
  const number = episode.charts.progress.length;
  const values = [];
  episode.charts.progress.push({ frames: null, values });
  const path = rows.querySelector("svg").appendChild(parsed(line));
  const box = element("input", { type: "checkbox", checked: line.shown, defaultChecked: line.shown });
  box.dataset.line = number;
  const output = element("output", { textContent: "–" });
  Object.assign(output.dataset, { of: "progress", curve: number });
  const name = element("span", { title: line.name, textContent: line.name });
  const label = element("label", { className: "switch" }, box, element("span", { className: `swatch ${line.kind}` }), name);
  const item = rows.querySelector(".legend").appendChild(element("li", {}, label, output));
  return { path, values, item };
}

function clear() {
  rows?.querySelector(".no-curve")?.remove();
  for (const { path, item } of drawn.values()) {
    path.remove();
    item.remove();
    episode.charts.progress.pop();
  }
  drawn = new Map();
}

player.addEventListener("renewed", () => (drawn = new Map())); // the rows were read again, without these lines
