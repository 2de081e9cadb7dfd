// Tags of an episode, who has it, and what checks found in it that is known.
import { $, post } from "./page.js";

const form = $("marks");
const { dataset, episode, assignment, person } = form.dataset;

async function mark(kind, value, on) {
  const { ok, data } = await post("/api/marks", { kind, value, on, episodes: [[dataset, Number(episode), assignment || null]] });
  if (!ok) form.querySelector("[role=status]").textContent = data.error;
  return ok;
}

form.addEventListener("click", async (event) => {
  const tag = event.target.closest("[data-untag]")?.dataset.untag;
  if (tag && (await mark("tag", tag, false))) location.reload();
});
form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const [tag, wanted] = [form.elements.tag.value.trim(), form.elements.assigned.value.trim()];
  if (tag && !(await mark("tag", tag, true))) return;
  if (wanted !== person && !(await mark("assigned", wanted || person, Boolean(wanted)))) return;
  location.reload();
});

for (const finding of document.querySelectorAll("form.finding")) {
  finding.addEventListener("submit", async (event) => {
    event.preventDefault();
    const { check, undo, whole } = finding.dataset;
    const said = { dataset, check, on: undo === undefined, why: finding.elements.why?.value ?? "" };
    const isWhole = whole !== undefined || Boolean(finding.elements.whole?.checked);
    const { ok, data } = await post("/api/acceptances", { ...said, episode_index: isWhole ? null : Number(episode) });
    if (ok) location.reload();
    else finding.querySelector("[role=status]").textContent = data.error;
  });
}
