// Parts of pages that come later, or that a job changes, as the server words them: actions, labelling others, adapting.
import { element, post } from "./page.js";

// box: an element for all of it, url: of what is said, onDone: called when a job has ended. A button (data-start) starts
// one, with what its form holds; data-running tells that one runs.
export function jobPart(box, url, onDone = () => {}) {
  const say = (text) => {
    const line = box.querySelector("[role=status]") ?? box.appendChild(element("p", { className: "bad", role: "status" }));
    line.textContent = text;
  };

  // Asked again each second; a reload of the page goes on with it
  async function load(wasRunning = false) {
    const answer = await fetch(url).catch(() => null);
    if (answer?.ok) box.innerHTML = await answer.text();
    else if (!box.hidden) say(answer ? `This part could not be loaded: ${answer.status}.` : "The explorer cannot be reached: is it still running?");
    const isRunning = answer?.ok ? box.querySelector("[data-running]") !== null : wasRunning;
    box.hidden = !box.childElementCount;
    if (isRunning) setTimeout(load, answer?.ok ? 1000 : 3000, true);
    else if (wasRunning) onDone();
  }

  box.onclick = async ({ target }) => {
    if (!target.dataset.start) return;
    target.disabled = true;
    const { ok, data } = await post(target.dataset.start, target.form ? Object.fromEntries(new FormData(target.form)) : {});
    target.disabled = ok;
    if (ok) load(true);
    else say(data.error);
  };
  return load();
}

// Tasks are asked for anew with the run of each to label next, which takes seconds where they are large
for (const box of document.querySelectorAll(".label-others[data-from], #tasks"))
  jobPart(box, box.dataset.from, () => location.reload());

// Commands that the page runs: asked for once somebody opens them
for (const part of document.querySelectorAll(".exporting, .editor-adapt"))
  part.addEventListener("toggle", () => {
    const box = part.querySelector("[data-from]");
    if (!box.childElementCount) jobPart(box, box.dataset.from);
  });
