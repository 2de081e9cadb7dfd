// An episode of a review queue: accept, fix, reject or skip by a key, and the next one comes; how many are left.
import { judge, reviewer } from "./judging.js";

const bar = document.getElementById("queue");
const { kind, after, number, total, dataset, episode } = bar.dataset;
const author = reviewer("known" in bar.dataset, bar.dataset.author);
const name = document.getElementById("queue-author");
if (name) name.textContent = author;

// This tab remembers how many there were when it began, and when each episode came
const LONGEST_GAP_S = 300; // longer ones are breaks
const stored = `queue ${kind}`;
let sitting = JSON.parse(sessionStorage.getItem(stored) ?? "null");
if (!sitting || Number(total) > sitting.total) sitting = { total: Number(total), seen: [] };
const here = `${dataset} ${episode}`;
if (sitting.seen.at(-1)?.[0] !== here) sitting.seen.push([here, Date.now()]);
sitting.seen = sitting.seen.slice(-30);
sessionStorage.setItem(stored, JSON.stringify(sitting));

const judged = sitting.total - Number(total);
if (number) document.getElementById("place").textContent = `${judged + Number(number)} of ${sitting.total}`;
const gaps = sitting.seen.slice(1).map(([, at], k) => (at - sitting.seen[k][1]) / 1000).filter((s) => s < LONGEST_GAP_S).sort((a, b) => a - b);
const each = gaps[gaps.length >> 1];
const lasts = (s) => (s < 90 ? `${Math.max(1, Math.round(s))} s` : s < 5400 ? `${Math.round(s / 60)} min` : `${(s / 3600).toFixed(1)} h`);
const left = `${Number(total).toLocaleString("en")} left`;
document.getElementById("queue-pace").textContent = each ? `${left}, ${lasts(each)} each: about ${lasts(each * Number(total))}` : left;

// What corrects a label stays folded away until it is wanted: the curves are in sight
const editor = document.getElementById("editor");
if (location.hash === "#editor") editor.classList.add("open");
editor.addEventListener("focusin", () => editor.classList.add("open"));

let isBusy = false;
async function say(act) {
  if (isBusy || !number) return;
  if (act === "fix") return (await import("./editor.js")).comeHere();
  isBusy = true;
  const { ok, data } = await judge(bar.dataset, act, author);
  if (ok) return location.replace(after);
  isBusy = false;
  document.getElementById("queue-state").textContent = `${data.error} `;
}

const KEYS = { a: "accept", f: "fix", x: "reject", s: "skip" };
const press = (act) => (act === "skip" ? bar.querySelector("[data-act=skip]").click() : say(act));
bar.addEventListener("click", (event) => {
  const act = event.target.closest("button[data-act]")?.dataset.act;
  if (act) press(act);
});
document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.repeat || document.querySelector("dialog[open]")) return;
  if (event.target.closest("input:not([type=range], [type=checkbox]), select, textarea")) return;
  const act = KEYS[event.key.toLowerCase()];
  if (!act) return;
  event.preventDefault();
  press(act);
});
