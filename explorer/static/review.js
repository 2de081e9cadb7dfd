// The review queue: a row at a time, by mouse or keyboard.
import { $, author, isKnown, judge as judged, onKeys, post, remember } from "./page.js";
import "./pictures.js";

const rows = () => [...document.querySelectorAll("#queue tbody tr")];
const state = $("review-state");
const form = $("reviewer");
if (form && !isKnown) form.author.value = author();
form?.addEventListener("submit", (event) => event.preventDefault());
form?.addEventListener("change", () => remember(form.author.value));
// Whoever starts from here starts to count anew
for (const stored of Object.keys(sessionStorage)) if (stored.startsWith("queue ")) sessionStorage.removeItem(stored);

const current = () => document.activeElement.closest("#queue tbody tr");
const select = (i) => rows().at(Math.min(rows().length - 1, Math.max(0, i)))?.querySelector("a").focus();

// What came of what was said of a row; one that is done with leaves the list
function tell(row, { ok, data }, words, isDone) {
  const { dataset, episode } = row.dataset;
  state.textContent = ok ? `${dataset} ${episode}: ${words}.` : data.error;
  state.classList.toggle("bad", !ok);
  const i = rows().indexOf(row);
  if (ok && isDone) row.remove();
  if (!rows().length) location.reload();
  else if (isDone) select(i);
  return ok;
}

async function judge(row, act) {
  if (!form.reportValidity()) return;
  remember(form.author.value);
  row.inert = true;
  const of = act === "keep" ? { ...row.dataset, run: row.querySelector("[data-old]").dataset.old } : row.dataset;
  const answer = await judged(of, act === "keep" ? "accept" : act);
  row.inert = false;
  return tell(row, answer, { accept: "accepted", reject: "rejected", keep: "the old label is accepted" }[act], true);
}

// How a run ended. Where the queue asks just that, it is answered and leaves the list
async function end(row, outcome) {
  if (!form.reportValidity()) return;
  remember(form.author.value);
  const { dataset, episode, ended, follows, recording } = row.dataset;
  const url = `/api/outcomes/${encodeURIComponent(dataset)}/${episode}`;
  const answer = await post(url, { outcome, follows: ended || null, follows_correction: follows || null, recording: recording || null });
  if (answer.ok) row.dataset.ended = answer.data.saved;
  for (const button of answer.ok ? row.querySelectorAll("[data-outcome]") : []) button.setAttribute("aria-pressed", String(button.dataset.outcome === outcome));
  tell(row, answer, outcome, answer.ok && ["unfinished", "doubtful"].includes(state.dataset.kind));
}

document.querySelector("main").addEventListener("click", async ({ target }) => {
  const ended = target.closest("#queue [data-outcome]")?.dataset.outcome;
  if (ended) return end(target.closest("tr"), ended);
  const act = target.closest("#queue [data-act]")?.dataset.act;
  if (act && act !== "fix") return judge(target.closest("tr"), act);
  if (!target.matches("[data-all], [data-ticked]")) return;
  const several = rows().filter((row) => "all" in target.dataset || row.querySelector(".tick").checked);
  for (const row of several) if (!(await judge(row, "accept"))) return;
});

const ofRow = (act) => () => void (current() && act(current()));
onKeys({
  enter: ({ target }) => !target.closest("a, button, summary") && $("start")?.click(),
  j: () => select(rows().indexOf(current()) + 1),
  k: () => select(rows().indexOf(current()) - 1),
  a: ofRow((row) => form && judge(row, "accept")),
  x: ofRow((row) => form && judge(row, "reject")),
  g: ofRow((row) => row.querySelector("[data-outcome=succeeded]")?.click()),
  b: ofRow((row) => row.querySelector("[data-outcome=failed]")?.click()),
  u: ofRow((row) => row.querySelector("[data-outcome=unfinished]")?.click()),
  f: ofRow((row) => (row.querySelector("[data-act=fix]") ?? row.querySelector("a")).click()),
});
