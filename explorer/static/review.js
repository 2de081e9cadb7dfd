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

async function judge(row, act) {
  if (!form.reportValidity()) return;
  remember(form.author.value);
  const { dataset, episode } = row.dataset;
  row.inert = true;
  const of = act === "keep" ? { ...row.dataset, run: row.querySelector("[data-old]").dataset.old } : row.dataset;
  const { ok, data } = await judged(of, act === "keep" ? "accept" : act);
  row.inert = false;
  state.textContent = ok ? `${dataset} ${episode}: ${act === "reject" ? "rejected" : act === "keep" ? "the old label is accepted" : "accepted"}.` : data.error;
  state.classList.toggle("bad", !ok);
  const i = rows().indexOf(row);
  if (ok) row.remove();
  if (rows().length) select(i);
  else location.reload();
  return ok;
}

// How a run ended. Where the queue asks just that, it is answered and leaves the list
async function end(row, outcome) {
  if (!form.reportValidity()) return;
  remember(form.author.value);
  const { dataset, episode, ended, follows, recording } = row.dataset;
  const url = `/api/outcomes/${encodeURIComponent(dataset)}/${episode}`;
  const { ok, data } = await post(url, { outcome, follows: ended || null, follows_correction: follows || null, recording: recording || null });
  state.textContent = ok ? `${dataset} ${episode}: ${outcome}.` : data.error;
  state.classList.toggle("bad", !ok);
  if (!ok) return;
  row.dataset.ended = data.saved;
  for (const button of row.querySelectorAll("[data-outcome]")) button.setAttribute("aria-pressed", String(button.dataset.outcome === outcome));
  if (!["unfinished", "doubtful"].includes(state.dataset.kind)) return;
  const i = rows().indexOf(row);
  row.remove();
  if (rows().length) select(i);
  else location.reload();
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
