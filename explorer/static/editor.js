// The editor of an episode's label: mouse and keyboard, undo and redo, saving. What a label is, is in label.js.
import { episode, player } from "./player.js";
import { Label } from "./label.js";
import { post } from "./request.js";
import { adaptPanel } from "./adapt.js";
import { drag as follow, timeline } from "./timeline.js";
import { labelPanel } from "./labelling.js";

const $ = (id) => document.getElementById(id);
const root = $("editor");
const url = `/api/corrections/${encodeURIComponent(episode.dataset)}/${episode.episode_index}`;
const numFrames = episode.num_frames;
// Keys of the page that mean the same while the lane has the focus
const PAGE_KEYS = new Set(["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End", "n", "p", "i", "o", "l", "+", "=", "-", "0", "?"]);
const TASK_KEYS = { s: "split", m: "merge", c: "toggle", Delete: "remove", Backspace: "remove", "[": "start", "]": "end", x: "lost" };

let known; // what the server said last
let base; // {run, label}: what is edited
let label;
let chosen = 0;
let past = [];
let future = [];
let notice = ""; // what was just done

// What counts: a person's word, else the label of the corpus, else nothing yet

function basis() {
  const accepted = known.current.find((c) => c.status === "accepted");
  if (accepted) return { run: accepted.base_label_run, mine: true, json: accepted };
  const rejected = known.current.filter((c) => c.status === "rejected").map((c) => c.base_label_run);
  const annotators = episode.runs.filter((r) => !r.label_run.startsWith("human/") && r.segments.length);
  const run = annotators.find((r) => !rejected.includes(r.label_run)) ?? annotators[0];
  if (run) return { run: run.label_run, rejected: rejected.includes(run.label_run), json: run };
  const whole = { name: "New step", start_frame: 0, end_frame: numFrames, kind: "step", completed: true, step: 0 };
  return { run: null, json: { plan: ["New step"], segments: [whole] } };
}

const text = (value) => JSON.stringify(value.json());
const changed = () => text(label) !== text(base.label);

function begin() {
  const found = basis();
  base = { ...found, label: new Label(found.json) };
  label = new Label(found.json);
  chosen = Math.min(chosen, label.segments.length - 1);
  past = [];
  future = [];
  $("editor-conflict").hidden = true;
  showTheirs(false);
  draw();
}

// Every change goes through here, so it can be undone
function change(act) {
  if (known.why_read_only) return;
  const before = text(label);
  act();
  const after = text(label);
  if (before === after) return;
  past.push(before);
  future = [];
  draw();
}

function step(from, to) {
  if (!from.length) return;
  to.push(text(label));
  label = new Label(JSON.parse(from.pop()));
  chosen = Math.min(chosen, label.segments.length - 1);
  draw();
}

const acts = {
  undo: () => step(past, future),
  redo: () => step(future, past),
  split: () =>
    change(() => {
      chosen = label.segments.findIndex((s) => player.frame < s.end);
      if (label.split(chosen, player.frame)) chosen += 1;
    }),
  merge: () => change(() => label.merge(chosen)),
  remove: () =>
    change(() => {
      label.remove(chosen);
      chosen = Math.min(chosen, label.segments.length - 1);
    }),
  toggle: () => change(() => label.setCompleted(chosen, !label.segments[chosen].completed)),
  start: () => chosen > 0 && change(() => label.move(chosen - 1, player.frame)),
  end: () => chosen < label.segments.length - 1 && change(() => label.move(chosen, player.frame)),
  lost: () => change(() => label.markLost(player.frame)),
  save: () => save(),
  discard: () => begin(),
  reject: () => send("reject", { base_label_run: base.run }, "Rejected: this label is no longer used."),
  reload: () => load(),
  compare: () => compare(),
  "on-top": () => {
    $("editor-conflict").hidden = true;
    save();
  },
};

// Saving

function said() {
  const form = $("editor-save");
  return { author: form.author.value, comment: form.comment.value, follows: known.newest };
}

function save() {
  if (!$("editor-save").reportValidity()) return;
  const body = { ...label.json(), base_label_run: base.run, base_content_hash: known.content_hash };
  return send("", body, "Saved. This label is active now.");
}

async function send(what, body, done) {
  if (!$("editor-save").reportValidity()) return;
  const answer = await post(what ? `${url}/${what}` : url, { ...body, ...said() });
  if (!known.author_is_known) localStorage.setItem("author", $("editor-save").author.value);
  if (answer.status === 409) return conflict(answer.data);
  if (!answer.ok) return tell(answer.data.error, true);
  base.label = label; // nothing is unsaved any more
  notice = `${done}${answer.data.pending ? " Samples and shards follow with the next build." : ""}`;
  if (root.dataset.after) return location.replace(root.dataset.after);
  Object.assign(known, answer.data);
  await renew();
  begin();
  if (!$("label-others").hidden || what !== "reject") others();
}

// The rows of labels, progress and segments show it, too: they are read again, and nothing else of the page moves
async function renew() {
  const answer = await fetch(location.pathname);
  if (!answer.ok) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const id of ["timeline", "progress", "labels"]) {
    const [here, there] = [$(id), page.getElementById(id)];
    if (here && there) here.replaceChildren(...there.childNodes);
  }
  Object.assign(episode, JSON.parse(page.getElementById("episode-data").textContent));
  player.dispatchEvent(new Event("renewed"));
}

const others = () => root.dataset.after || labelPanel($("label-others"), episode.dataset, episode.episode_index);

function conflict(data) {
  Object.assign(known, data);
  const box = $("editor-conflict");
  box.querySelector("p").textContent = data.error;
  box.hidden = false;
  box.querySelector("button").focus();
  drawHistory();
}

function compare() {
  const lane = $("editor-theirs");
  const theirs = new Label(basis().json);
  lane.replaceChildren(...theirs.segments.map((s) => part(document.createElement("span"), s, theirs)));
  const words = theirs.segments.map((s) => `${s.name} ${s.start} to ${s.end}`);
  lane.setAttribute("aria-label", `Theirs: ${words.join(", ")}`);
  showTheirs(true);
}

function showTheirs(on) {
  for (const element of root.querySelectorAll(".theirs-name, .theirs-lane")) element.hidden = !on;
}

function tell(message, wrong = false) {
  const line = $("editor-state");
  line.textContent = message;
  line.classList.toggle("bad", wrong);
}

// Drawing

const at = (frame) => `${(100 * frame) / numFrames}%`;

function part(element, s, of) {
  const number = of.plan.indexOf(s.step);
  element.className = `editor-part ${s.kind === "step" ? `step${number % 8}` : `kind-${s.kind}`}`;
  element.classList.toggle("failed", s.kind === "step" && !s.completed);
  element.style.left = at(s.start);
  element.style.width = at(s.end - s.start);
  element.textContent = s.name;
  element.title = `${s.name}: frames ${s.start} to ${s.end}`;
  return element;
}

function segment(s, i) {
  const button = part(document.createElement("button"), s, label);
  button.type = "button";
  button.dataset.segment = i;
  const state = `${s.kind === "step" ? (s.completed ? ", completed" : ", failed") : `, ${s.kind}`}${s.pace ? `, ${s.pace}` : ""}`;
  button.setAttribute("aria-label", `${s.name}, frames ${s.start} to ${s.end}${state}`);
  button.setAttribute("aria-pressed", String(i === chosen));
  return button;
}

function edge(i) {
  const [low, high] = label.limits(i);
  const handle = document.createElement("div");
  handle.className = "editor-edge";
  handle.dataset.edge = i;
  handle.tabIndex = 0;
  handle.role = "slider";
  handle.style.left = at(label.segments[i].end);
  for (const [name, value] of [
    ["aria-label", `Boundary between ${label.segments[i].name} and ${label.segments[i + 1].name}`],
    ["aria-valuemin", low],
    ["aria-valuemax", high],
    ["aria-valuenow", label.segments[i].end],
    ["aria-valuetext", `frame ${label.segments[i].end}, ${(label.segments[i].end / player.fps).toFixed(2)} s`],
  ])
    handle.setAttribute(name, value);
  return handle;
}

function lostMark() {
  const mark = document.createElement("div");
  mark.className = "editor-lost";
  mark.style.left = at(label.lost);
  mark.title = `The task fails for good at frame ${label.lost}`;
  return mark;
}

function draw() {
  const focused = document.activeElement?.dataset ?? {};
  const lane = $("editor-lane");
  const children = [];
  label.segments.forEach((s, i) => {
    children.push(segment(s, i));
    if (i < label.segments.length - 1) children.push(edge(i));
  });
  if (label.lost !== null) children.push(lostMark());
  lane.replaceChildren(...children);
  // what had the focus was drawn anew: give it back
  if (focused.edge !== undefined) lane.querySelector(`[data-edge="${focused.edge}"]`)?.focus();
  else if (focused.segment !== undefined) lane.querySelector(`[data-segment="${chosen}"]`)?.focus();
  drawForm();
  drawPlan();
  drawState();
  drawHistory();
}

function drawForm() {
  const s = label.segments[chosen];
  const form = $("editor-segment");
  form.name.value = s.name;
  form.kind.value = s.kind;
  form.start.value = s.start;
  form.end.value = s.end;
  form.start.disabled = chosen === 0;
  form.end.disabled = chosen === label.segments.length - 1;
  form.completed.checked = s.completed;
  form.completed.disabled = s.kind !== "step";
  form.pace.value = s.pace ?? "";
  $("editor-steps").replaceChildren(...[...new Set(label.plan.map((p) => p.name))].map((name) => new Option(name)));
}

// Nothing stated: the slider stands where the stored curve ends
function drawFinal() {
  const form = $("editor-final");
  const curve = episode.runs.find((r) => r.label_run === (base.mine ? `human/${episode.dataset}` : base.run))?.progress;
  const percent = Math.round(100 * (label.final ?? curve?.at(-1) ?? 1));
  form.stated.checked = label.final !== null;
  form.final.value = percent;
  form.final.disabled = label.final === null || Boolean(known.why_read_only);
  form.shown.value = label.final === null ? "from the segments" : `${percent} %`;
  const button = root.querySelector('[data-do="lost"]');
  button.setAttribute("aria-pressed", String(label.lost !== null));
}

function drawPlan() {
  $("editor-planned").replaceChildren(
    ...label.plan.map((p, k) => {
      const item = document.createElement("li");
      const button = document.createElement("button");
      button.type = "button";
      button.dataset.step = k;
      button.textContent = `${k + 1} ${p.name}`;
      button.setAttribute("aria-pressed", String(label.segments[chosen].step === p));
      item.append(button);
      return item;
    }),
  );
  const list = $("editor-unreached");
  const items = label.unreached.map((p) => {
    const item = document.createElement("li");
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = `${p.name} ×`;
    button.setAttribute("aria-label", `Take ${p.name} out of the plan`);
    button.addEventListener("click", () => change(() => label.notPlanned(p)));
    item.append(button);
    return item;
  });
  const none = document.createElement("li");
  none.textContent = "none";
  list.replaceChildren(...(items.length ? items : [none]));
}

function drawState() {
  const can = !known.why_read_only;
  for (const element of root.querySelectorAll("button, input, select"))
    if (!element.closest("details, #editor-lane, #editor-segment")) element.disabled = !can;
  for (const element of $("editor-segment").elements) element.disabled ||= !can;
  const tool = (name) => root.querySelector(`[data-do="${name}"]`);
  tool("undo").disabled = !past.length;
  tool("redo").disabled = !future.length;
  tool("discard").disabled = !changed();
  tool("reject").disabled = !can || !base.run || base.mine || base.rejected || changed();
  $("editor-save").querySelector(".main").disabled = !can || (!changed() && base.mine === true);
  root.classList.toggle("changed", changed());
  drawFinal();
  if (changed()) notice = "";
  if (known.why_read_only) tell(`Read-only: ${known.why_read_only}.`);
  else if (changed()) tell("Changed, not saved yet.");
  else if (notice) tell(notice);
  else if (base.mine) tell(`A person's label is active${known.pending ? "; samples and shards follow with the next build" : ""}.`);
  else if (base.rejected) tell("This label was rejected and is not used. Correct it, or undo the rejection below.");
  else if (base.run) tell(`The label of ${base.run} is active. Looks right? Save to confirm.`);
  else tell("Nobody has labelled this episode yet.");
}

function drawHistory() {
  const box = $("editor-history");
  box.hidden = !known.history.length;
  const gone = new Set(known.history.map((r) => r.rejects));
  const counts = new Set(known.current.map((r) => r.correction_id));
  const items = known.history.toReversed().map((r) => {
    const item = document.createElement("li");
    const what = r.rejects
      ? `took back ${r.rejects}`
      : r.status === "rejected"
        ? `rejected the label of ${r.base_label_run}`
        : `saved ${r.segments.length} segments`;
    const words = document.createElement("span");
    words.textContent = `${r.created_at.slice(0, 19).replace("T", " ")} ${r.author} ${what} (${r.correction_id})${r.comment ? `: ${r.comment}` : ""} `;
    words.classList.toggle("gone", gone.has(r.correction_id));
    item.append(words);
    const current = known.current.find((c) => c.correction_id === r.correction_id);
    if (current?.status === "review") words.append("– waits for review, the episode has changed ");
    if (counts.has(r.correction_id) && !known.why_read_only) {
      item.append(action("Undo it", "undo", { correction_id: r.correction_id }, "Undone."));
      if (current.status === "review")
        item.append(
          action("It still fits", "accept", { correction_id: r.correction_id, base_content_hash: known.content_hash, base_label_run: r.base_label_run }, "Accepted."),
        );
    }
    return item;
  });
  box.querySelector("ol").replaceChildren(...items);
}

function action(name, what, body, done) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = name;
  button.addEventListener("click", () => send(what, body, done));
  return button;
}

// Mouse, keyboard, fields

function drag(handle, event) {
  if (known.why_read_only) return;
  event.preventDefault();
  const i = Number(handle.dataset.edge);
  const before = text(label);
  // The video shows the first frame of the later segment, wherever the boundary is
  const move = (e) => {
    player.seek(label.move(i, timeline.frameAt(e.clientX)), { from: "pointer" });
    draw();
  };
  follow(move, () => {
    if (before === text(label)) return;
    past.push(before);
    future = [];
    draw();
  });
  handle.focus();
}

function edgeKey(handle, event) {
  const i = Number(handle.dataset.edge);
  const [low, high] = label.limits(i);
  const here = label.segments[i].end;
  const to = { Home: low, End: high, ArrowLeft: here - (event.shiftKey ? 10 : 1), ArrowRight: here + (event.shiftKey ? 10 : 1) };
  to.ArrowDown = to.ArrowLeft;
  to.ArrowUp = to.ArrowRight;
  if (!(event.key in to)) return false;
  change(() => player.seek(label.move(i, to[event.key])));
  return true;
}

function key(event) {
  const control = event.ctrlKey || event.metaKey;
  const typed = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (control && typed === "s") return acts.save(), true;
  const field = event.target.closest("input, select");
  if (field && field.type !== "checkbox") return false;
  if (control && typed === "z") return (event.shiftKey ? acts.redo : acts.undo)(), true;
  if (control && typed === "y") return acts.redo(), true;
  if (control || event.altKey) return false;
  const handle = event.target.closest(".editor-edge");
  if (handle) return edgeKey(handle, event);
  if (!event.target.closest(".editor-part")) return false;
  if (typed === "Enter") return $("editor-segment").name.select(), true;
  if (typed === " ") return player.play(), true;
  if (/^[1-9]$/.test(typed)) change(() => label.attempt(chosen, Number(typed) - 1));
  else if (typed in TASK_KEYS) acts[TASK_KEYS[typed]]();
  else return false;
  $("editor-lane").querySelector(`[data-segment="${chosen}"]`)?.focus();
  return true;
}

function listen() {
  root.addEventListener("keydown", (event) => {
    if (key(event)) {
      event.preventDefault();
      event.stopPropagation();
    } else if (event.target.closest("#editor-lane") && !PAGE_KEYS.has(event.key)) {
      event.stopPropagation(); // the page's other keys are not meant here
    }
  });
  root.addEventListener("click", (event) => {
    const name = event.target.closest("[data-do]")?.dataset.do;
    if (name) acts[name]();
    const planned = event.target.closest("#editor-planned [data-step]");
    if (planned) change(() => label.attempt(chosen, Number(planned.dataset.step)));
    const picked = event.target.closest(".editor-part[data-segment]");
    if (!picked) return;
    choose(Number(picked.dataset.segment));
    if (event.detail) {
      // a click with the pointer seeks where it was made
      player.seek(timeline.frameAt(event.clientX) - 0.5);
    }
  });
  $("editor-lane").addEventListener("focusin", (event) => {
    const at = event.target.dataset.segment;
    if (at !== undefined && Number(at) !== chosen) choose(Number(at));
  });
  $("editor-lane").addEventListener("pointerdown", (event) => {
    const handle = event.target.closest(".editor-edge");
    if (handle && event.button === 0) drag(handle, event);
  });
  $("editor-segment").addEventListener("submit", (event) => event.preventDefault());
  $("editor-segment").addEventListener("change", (event) => {
    const { name, value, checked } = event.target;
    if (name === "name") change(() => label.rename(chosen, value));
    if (name === "kind") change(() => label.setKind(chosen, value));
    if (name === "start") change(() => label.move(chosen - 1, Number(value)));
    if (name === "end") change(() => label.move(chosen, Number(value)));
    if (name === "completed") change(() => label.setCompleted(chosen, checked));
    if (name === "pace") change(() => label.setPace(chosen, value));
    drawForm();
  });
  $("editor-final").addEventListener("submit", (event) => event.preventDefault());
  $("editor-final").addEventListener("change", (event) => {
    const form = $("editor-final");
    change(() => (label.final = form.stated.checked ? Number(form.final.value) / 100 : null));
    if (event.target.name === "stated" && form.stated.checked) form.final.focus();
  });
  $("editor-final").addEventListener("input", () => ($("editor-final").shown.value = `${$("editor-final").final.value} %`));
  $("editor-plan").addEventListener("submit", (event) => {
    event.preventDefault();
    change(() => label.plannedToo(event.target.step.value));
    event.target.step.value = "";
  });
  $("editor-save").addEventListener("submit", (event) => {
    event.preventDefault();
    save();
  });
  addEventListener("beforeunload", (event) => {
    if (changed()) event.preventDefault();
  });
}

function choose(i) {
  chosen = i;
  for (const button of root.querySelectorAll(".editor-part[data-segment]"))
    button.setAttribute("aria-pressed", String(Number(button.dataset.segment) === i));
  drawForm();
  drawPlan();
  drawState();
}

let wanted = location.hash === "#editor"; // before there is an editor

export function comeHere() {
  wanted = root.dataset.ready !== "true";
  if (wanted) return;
  const lane = $("editor-lane").getBoundingClientRect();
  if (lane.top < 0 || lane.bottom > innerHeight) $("tracks").scrollIntoView({ block: "start" });
  $("editor-lane").querySelector(".editor-part")?.focus({ preventScroll: true });
}

document.addEventListener("keydown", (event) => {
  if (event.key !== "e" || event.ctrlKey || event.metaKey || event.altKey) return;
  if (!event.target.closest("input:not([type=range], [type=checkbox]), select, textarea, #editor")) comeHere();
});

async function load() {
  const answer = await fetch(url);
  if (!answer.ok) return;
  known = await answer.json();
  begin();
}

if (numFrames) {
  await load();
  if (known) {
    const form = $("editor-save");
    form.author.value = known.author_is_known ? known.author : (localStorage.getItem("author") ?? known.author);
    form.author.readOnly = known.author_is_known;
    listen();
    root.hidden = false;
    adaptPanel($("editor-adapt"), episode);
    others();
    root.dataset.ready = "true";
    if (wanted) comeHere();
  }
}
