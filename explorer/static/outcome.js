// How a run ended, said with a click or a key: succeeded, failed (from the moment at the cursor), unfinished.
import { keepLast } from "./last.js";
import { $, element, onKeys, post } from "./page.js";
import { episode, player } from "./player.js";

const root = $("outcome");
const { dataset, episode: number } = root.dataset;
const url = `/api/outcomes/${encodeURIComponent(dataset)}/${number}`;
const line = root.querySelector("[role=status]");
const failed = root.querySelector("[data-outcome=failed] span");
const takeBack = root.querySelector("[data-take-back]");
const bar = $("queue");
let isBusy = false;

// Where the cursor has not left the start, or is at the end, no moment is meant
const moment = () => (player.frame > 0 && player.frame < episode.num_frames - 1 ? player.frame : null);

function draw() {
  if (failed) failed.textContent = moment() === null ? "Failed" : `Failed from ${(player.frame / player.fps).toFixed(1)} s`;
}
player.addEventListener("frame", draw);
draw();

async function send(path, body) {
  if (isBusy) return null;
  isBusy = true;
  line.textContent = "";
  const { ok, data } = await post(path, body);
  isBusy = false;
  if (!ok) line.textContent = data.error;
  return ok ? data : null;
}

async function say(outcome) {
  const frame = outcome === "failed" ? moment() : null;
  const { follows, correction } = root.dataset;
  const body = { outcome, frame, follows: follows || null, follows_correction: correction || null };
  const said = await send(url, body);
  if (!said) return;
  const words = frame === null ? outcome : `${outcome} from ${(frame / player.fps).toFixed(1)} s`;
  keepLast(`${dataset} ${number}: ${words}`, [`${url}/undo`, { import_id: said.saved, correction_id: said.correction }]);
  if (bar?.dataset.number && ("goesOn" in root.dataset || said.correction)) return location.replace(bar.dataset.after);
  if (said.correction) return location.reload();
  root.dataset.follows = said.saved;
  $("outcome-words").replaceChildren(element("b", { className: outcome === "succeeded" ? "good" : "bad", textContent: words }), "; labels follow with the next build");
  takeBack.hidden = false;
}

async function undo() {
  if (await send(`${url}/undo`, { import_id: root.dataset.follows })) location.reload();
}

root.addEventListener("click", ({ target }) => {
  const outcome = target.closest("[data-outcome]")?.dataset.outcome;
  if (outcome) say(outcome);
  if (target === takeBack) undo();
});
const press = (outcome) => (event) => !event.target.closest("#editor") && takeBack !== null && void (event.repeat || say(outcome));
onKeys({ g: press("succeeded"), b: press("failed"), u: press("unfinished") });
