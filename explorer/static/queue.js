// An episode of a queue: accept, fix, reject or skip by a key, and the next one comes; how many are left.
import { keepLast } from "./last.js";
import { $, author, judge, onKeys } from "./page.js";
import { player } from "./player.js";

const bar = $("queue");
const { kind, after, number, total, dataset, episode } = bar.dataset;
if ($("queue-author")) $("queue-author").textContent = author();

// This tab remembers how many there were when it began, and when each episode came
const LONGEST_GAP_S = 300; // longer ones are breaks
const FEWEST = 10; // judgements, before they tell how long the rest takes
const stored = `queue ${kind}`;
let sitting = JSON.parse(sessionStorage.getItem(stored) ?? "null");
if (!sitting || Number(total) > sitting.total) sitting = { total: Number(total), seen: [] };
const here = `${dataset} ${episode}`;
if (sitting.seen.at(-1)?.[0] !== here) sitting.seen.push([here, Date.now()]);
sitting.seen = sitting.seen.slice(-30);
sessionStorage.setItem(stored, JSON.stringify(sitting));

const judged = sitting.total - Number(total);
if (number) $("place").textContent = `${judged + Number(number)} of ${sitting.total}`;
const gaps = sitting.seen.slice(1).map(([, at], k) => (at - sitting.seen[k][1]) / 1000).filter((s) => s < LONGEST_GAP_S).sort((a, b) => a - b);
const each = gaps.length < FEWEST ? null : gaps[gaps.length >> 1];
const lasts = (s) => (s < 90 ? `${Math.max(1, Math.round(s))} s` : s < 5400 ? `${Math.round(s / 60)} min` : `${(s / 3600).toFixed(1)} h`);
const left = `${Number(total).toLocaleString("en")} left`;
$("queue-pace").textContent = each ? `${left}, ${lasts(each)} each: about ${lasts(each * Number(total))}` : left;

// What corrects a label stays folded away until it is wanted: the curves are in sight
const editor = $("editor");
if (location.hash === "#editor") editor?.classList.add("open");
editor?.addEventListener("focusin", () => editor.classList.add("open"));

let isBusy = false;
async function say(act) {
  if (isBusy || !number) return;
  if (act === "fix") {
    player.play(false);
    editor.classList.add("open");
    return (await import("./editor.js")).comeHere();
  }
  isBusy = true;
  const { ok, data } = await judge(bar.dataset, act);
  if (ok) {
    const undo = [`/api/corrections/${encodeURIComponent(dataset)}/${episode}/undo`, { correction_id: data.saved, follows: data.saved, brief: true }];
    keepLast(`${dataset} ${episode}: ${act === "accept" ? "accepted" : "rejected"}`, undo);
    return location.replace(after);
  }
  isBusy = false;
  $("queue-state").textContent = `${data.error} `;
}

bar.addEventListener("click", (event) => {
  const act = event.target.closest("button[data-act]")?.dataset.act;
  if (act) say(act);
});
// In the editor keys mean something else, or nothing
const press = (act) => (event) => !event.target.closest("#editor") && void (event.repeat || act());
const skip = () => bar.querySelector("[data-act=skip]").click();
onKeys({ a: press(() => say("accept")), f: press(() => say("fix")), x: press(() => say("reject")), s: press(skip), Escape: () => (editor?.classList.remove("open"), editor?.querySelector(":focus")?.blur()) });
