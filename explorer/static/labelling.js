// How the other runs of a task are labelled like those that were shown: as the server words it, also while a build runs.
import { element, post } from "./page.js";

// box: an element for all of it, url: of what is said, onDone: called when a build has ended
export function labelPanel(box, url, onDone = () => {}) {
  let isRunning = false;
  const say = (text) => box.replaceChildren(element("p", { className: "bad", textContent: text }));

  // Asked again each second; a reload of the page goes on with it
  async function load() {
    const answer = await fetch(url).catch(() => null);
    const wasRunning = isRunning;
    if (answer?.ok) box.innerHTML = await answer.text();
    else if (wasRunning) say("The explorer cannot be reached: is it still running?");
    isRunning = answer?.ok ? box.querySelector("progress") !== null : wasRunning;
    box.hidden = !box.childElementCount;
    if (isRunning) setTimeout(load, answer?.ok ? 1000 : 3000);
    else if (wasRunning) onDone();
  }

  box.onclick = async ({ target }) => {
    if (!target.dataset.start) return;
    target.disabled = true;
    const { ok, data } = await post(target.dataset.start, {});
    isRunning = ok;
    if (ok) return load();
    say(data.error);
    box.append(target);
    target.disabled = false;
  };
  return load();
}

for (const box of document.querySelectorAll(".label-others[data-from]")) labelPanel(box, box.dataset.from, () => location.reload());

// Which run to label next is computed when it is asked for, which takes seconds on large tasks
const tasks = document.getElementById("tasks");
if (tasks) {
  const answer = await fetch(tasks.dataset.from).catch(() => null);
  if (answer?.ok) tasks.innerHTML = await answer.text();
}
