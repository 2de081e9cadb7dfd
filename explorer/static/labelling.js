// "Label the other 47 runs of this task like this one": the button, how far it is, and what came of it.
import { element, get, post } from "./page.js";

const NAMES = { segments: "cuts", embeddings: "pictures", transfer: "labels", progress: "progress", samples: "samples", shards: "shards" };
const several = (n, one, many = `${one}s`) => `${n} ${n === 1 ? one : many}`;

const link = (textContent, href) => element("a", { className: "button", textContent, href });

// The sentence on a build that runs; what is not known yet is not said
function progressLine(job) {
  const passed = `${Math.round(job.seconds)} s`;
  if (!job.stages) return `Planning the build of ${job.dataset}. ${passed}`;
  const last = job.last ? `, the last: ${NAMES[job.last] ?? job.last}` : "";
  return `Labelling ${job.dataset}: ${job.done} of ${several(job.stages, "stage")} done${last}. ${passed}${job.now && `; ${job.now}`}`;
}

// box: an element for all of it. dataset, and episode or null: for what. onDone: called when a build has ended.
export function labelPanel(box, dataset, episode, onDone = () => {}) {
  const url = `/api/labelling/${encodeURIComponent(dataset)}`;
  const words = element("p", { role: "status" });
  const bar = element("progress", { max: 1, hidden: true, ariaLabel: "Progress of the build" });
  const acts = element("p", { className: "label-acts" });
  box.replaceChildren(words, bar, acts);

  async function load() {
    const { ok, data: state } = await get(episode === null ? url : `${url}/${episode}`);
    if (!ok) return;
    const shown = state.tasks.filter((t) => t.references.length);
    const tasks = shown.filter((t) => t.others);
    box.hidden = !state.job.running && (!shown.length || (episode !== null && (!state.reference || !tasks.length)));
    if (box.hidden) return;
    if (state.job.running) return follow(state.job);
    // What people said counts at once; samples and shards are made by a build
    const unbuilt = state.unbuilt ? [start(`Bring samples and shards up to date with ${several(state.unbuilt, "label")}`)] : [];
    const failed = state.waiting && state.job.dataset === dataset && state.job.error;
    if (state.why_not) say(`The other runs cannot be labelled from here: ${state.why_not}.`);
    else if (failed) say(`The build failed: ${state.job.error}. Finished work is kept. To see everything, run in a terminal: ${state.job.command}`, true, start("Try again"));
    else if (state.waiting && tasks.length) offer(tasks);
    else if (tasks.length) result(tasks);
    else say(`All ${several(shown.reduce((sum, t) => sum + t.runs, 0), "run")} are labelled by people.`, false, ...unbuilt);
  }

  function offer(tasks) {
    const others = tasks.reduce((sum, t) => sum + t.others, 0);
    const shown = tasks.reduce((sum, t) => sum + t.references.length, 0);
    const like = shown === 1 ? (episode === null ? `like episode ${tasks[0].references[0]}` : "like this one") : `like these ${shown}`;
    const what = tasks.length === 1 ? "of this task" : `of ${tasks.length} tasks`;
    say("", false, start(`Label the other ${several(others, "run")} ${what} ${like}`));
  }

  function result(tasks) {
    const followed = tasks.reduce((sum, t) => sum + t.followed, 0);
    const none = tasks.flatMap((t) => t.no_fit);
    const shown = tasks.flatMap((t) => t.references).sort((a, b) => a - b);
    const like = shown.length === 1 ? `episode ${shown[0]}` : `episodes ${shown.slice(0, 10).join(", ")}${shown.length > 10 ? ", ..." : ""}`;
    const rest = none.length ? ` ${several(none.length, "run follows", "runs follow")} none and ${none.length === 1 ? "keeps its" : "keep their"} own labels: label one of them, too.` : "";
    const next = followed ? [link("Old and new labels, where they differ most", `/review?kind=changed&dataset=${encodeURIComponent(dataset)}`), link("Check them, the doubtful ones first", `/review/beside/${encodeURIComponent(dataset)}`)] : [];
    const alone = none.slice(0, 5).map((e) => link(`Episode ${e}`, `/episode/${encodeURIComponent(dataset)}/${e}#editor`));
    say(`${several(followed, "run is", "runs are")} labelled like ${like}.${rest}`, false, ...next, ...alone);
  }

  function start(text) {
    const button = element("button", { type: "button", className: "main", textContent: text });
    button.addEventListener("click", async () => {
      button.disabled = true;
      const { ok, data } = await post(url, {});
      if (ok) follow(data.job);
      else say(data.error, true, start("Try again"));
    });
    return button;
  }

  // Asked again each second; a reload of the page goes on with it
  async function follow(job) {
    if (!job.running) {
      await load();
      return onDone();
    }
    say(progressLine(job));
    bar.hidden = false;
    if (job.stages) bar.value = job.done / job.stages;
    setTimeout(async () => {
      const { ok, data } = await get("/api/labelling");
      if (ok) return follow(data.job);
      say(data.error, true);
      setTimeout(() => follow(job), 3000);
    }, 1000);
  }

  function say(text, wrong = false, ...buttons) {
    words.textContent = text;
    words.hidden = !text;
    words.classList.toggle("bad", wrong);
    bar.hidden = true;
    acts.replaceChildren(...buttons);
    acts.hidden = !buttons.length;
  }

  return load();
}
