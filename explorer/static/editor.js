// The editor of an episode's label: mouse and keyboard, undo and redo, saving. What a label is, is in label.js.
import { drawCurve } from "./curve.js";
import { episode, player } from "./player.js";
import { Label } from "./label.js";
import { $, author, element, get, isKnown, onKeys, post, remember } from "./page.js";
import { drag as follow, timeline } from "./timeline.js";
import { jobPart } from "./labelling.js";

const root = $("editor");
const url = `/api/corrections/${encodeURIComponent(episode.dataset)}/${episode.episode_index}`;
const numFrames = episode.num_frames;
const TASK_KEYS = { s: "split", m: "merge", c: "toggle", Delete: "remove", Backspace: "remove", "[": "start", "]": "end", x: "lost" };

let known; // what the server said last
let base; // {run, label}: what is edited
let label;
let chosen = 0;
let past = [];
let future = [];
let notice = ""; // what was just done
let sending = ""; // what is being done

// What the server says of the episode's corrections; their history as it words it
function learn(data) {
  known = { ...known, ...data };
  $("editor-history").hidden = !known.history.length;
  $("editor-history").querySelector("ol").innerHTML = known.listed;
}

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
const atCursor = () => label.segments.findIndex((s) => player.frame < s.end_frame);

function begin() {
  const found = basis();
  base = { ...found, label: new Label(found.json) };
  label = new Label(found.json);
  past = [];
  future = [];
  $("editor-conflict").hidden = true;
  $("editor-theirs").replaceChildren();
  draw();
}

// Every change goes through here, so it can be undone
function change(act) {
  if (known.why_read_only) return;
  const before = text(label);
  act();
  keep(before);
}

function keep(before) {
  if (before === text(label)) return;
  past.push(before);
  future = [];
  draw();
}

function step(from, to) {
  if (!from.length) return;
  to.push(text(label));
  label = new Label(JSON.parse(from.pop()));
  draw();
}

const acts = {
  undo: () => step(past, future),
  redo: () => step(future, past),
  split: () =>
    change(() => {
      chosen = atCursor();
      if (label.split(chosen, player.frame)) chosen += 1;
    }),
  merge: () => change(() => label.merge(chosen)),
  remove: () => change(() => label.remove(chosen)),
  toggle: () => $("editor-segment").completed.click(),
  start: () => chosen > 0 && change(() => label.move(chosen - 1, player.frame)),
  end: () => chosen < label.segments.length - 1 && change(() => label.move(chosen, player.frame)),
  lost: () => change(() => label.markLost(player.frame)),
  save: () => areMeant(newMoments()) && save(),
  discard: () => begin(),
  reject: () => send("reject", { base_label_run: base.run }, "Rejected: this label is no longer used."),
  compare: () => compare(),
};

// Saving

function save() {
  const body = { ...label.json(), base_label_run: base.run, base_content_hash: known.content_hash };
  return send("", body, "Saved. This label is active now.");
}

// Steps of one frame that the label did not have before: who saves them is asked
function newMoments() {
  const before = new Set(base.label.moments.map((s) => s.start_frame));
  return label.moments.filter((s) => !before.has(s.start_frame));
}

// Else the first of them is shown
function areMeant(moments) {
  if (!moments.length) return true;
  const names = moments.map((s) => `“${s.name}” at ${(s.start_frame / player.fps).toFixed(2)} s`).join(", ");
  if (confirm(`A single frame long: ${names}. OK saves the label all the same, Cancel shows it.`)) return true;
  choose(label.segments.indexOf(moments[0]));
  player.seek(label.segments[chosen].start_frame);
  back();
  return false;
}

async function send(what, body, done) {
  const form = $("editor-save");
  if (sending || !form.reportValidity()) return;
  $("editor-conflict").hidden = true;
  const sent = text(what ? base.label : label);
  sending = what ? "Sending…" : "Saving…";
  drawState();
  const said = { author: form.author.value, comment: form.comment.value, follows: known.newest };
  const answer = await post(what ? `${url}/${what}` : url, { ...body, ...said });
  remember(form.author.value);
  base = { ...base, label: answer.ok ? new Label(JSON.parse(sent)) : base.label };
  if (answer.ok && root.dataset.after) return location.replace(root.dataset.after);
  const unread = await learnAgain(answer.data.saved);
  sending = "";
  drawState();
  if (answer.status === 409) return conflict(answer.data.error);
  if (!answer.ok) return tell(answer.data.error, true);
  notice = `${done} ${unread}${known.pending.length ? " Samples and shards follow with the next build." : ""}${agreed()}`;
  const goesOn = text(label) !== sent; // something was changed while the answer was on its way
  base = { ...basis(), label: new Label(JSON.parse(sent)) };
  if (goesOn) draw();
  else begin();
  await renew();
  drawState();
  if (!$("label-others").hidden || what !== "reject") others();
}

// What is stored now, and not what was sent, is shown; what the label was made from stays. Returns why it cannot be
async function learnAgain(saved) {
  const { ok, data } = await get(url);
  learn(ok ? { ...data, content_hash: known.content_hash } : { newest: saved ?? known.newest });
  return ok ? "" : `This page cannot be read anew now: ${data.error}.`;
}

// The rows of labels, progress and segments show it, too: they are read again, and nothing else of the page moves
async function renew() {
  const answer = await fetch(location.href).catch(() => null);
  if (!answer?.ok) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const id of ["timeline", "progress", "labels"]) {
    const [here, there] = [$(id), page.getElementById(id)];
    if (here && there) here.replaceChildren(...there.childNodes);
  }
  Object.assign(episode, JSON.parse(page.getElementById("episode-data").textContent));
  player.dispatchEvent(new Event("renewed"));
}

const others = () => root.dataset.after || jobPart($("label-others"), `/labelling/${encodeURIComponent(episode.dataset)}/${episode.episode_index}`);

function conflict(error) {
  const box = $("editor-conflict");
  box.querySelector("p").textContent = error;
  box.hidden = false;
  box.querySelector("button").focus();
}

function compare() {
  const lane = $("editor-theirs");
  const theirs = new Label(basis().json);
  lane.replaceChildren(...theirs.segments.map((s) => part(document.createElement("span"), s, theirs)));
  const words = theirs.segments.map((s) => `${s.name} ${s.start_frame} to ${s.end_frame}`);
  lane.setAttribute("aria-label", `Theirs: ${words.join(", ")}`);
}

function tell(message, wrong = false) {
  const line = $("editor-state");
  line.textContent = message;
  line.classList.toggle("bad", wrong);
}

// Drawing

const at = (frame) => `${(100 * frame) / numFrames}%`;
const FEWEST_PX = 14; // of a place to click or to hold

function part(made, s, of) {
  const number = of.plan.indexOf(s.step);
  made.className = `editor-part ${s.kind === "step" ? `step${number % 8}` : s.kind}`;
  made.classList.toggle("failed", s.kind === "step" && !s.completed);
  made.style.left = at(s.start_frame);
  made.style.width = at(s.end_frame - s.start_frame);
  made.textContent = s.name;
  made.title = `${s.name}: frames ${s.start_frame} to ${s.end_frame}`;
  return made;
}

function segment(s, i) {
  const button = part(element("button", { type: "button" }), s, label);
  button.dataset.segment = i;
  const state = `${s.kind === "step" ? (s.completed ? ", completed" : ", failed") : `, ${s.kind}`}${s.pace ? `, ${s.pace}` : ""}`;
  button.ariaLabel = `${s.name}, frames ${s.start_frame} to ${s.end_frame}${state}`;
  button.ariaPressed = i === chosen;
  return button;
}

function edge(i) {
  const [low, high] = label.limits(i);
  const { end_frame: end, name } = label.segments[i];
  const handle = element("div", { className: "editor-edge", tabIndex: 0, role: "slider" });
  handle.dataset.edge = i;
  handle.ariaLabel = `Boundary between ${name} and ${label.segments[i + 1].name}`;
  [handle.ariaValueMin, handle.ariaValueMax, handle.ariaValueNow] = [low, high, end];
  handle.ariaValueText = `frame ${end}, ${(end / player.fps).toFixed(2)} s`;
  return handle;
}

// Each of some places, in order, gets a box of its own as near to it as can be; returns where each begins
function apart(places, size, most) {
  const lefts = [];
  for (const place of places) lefts.push(Math.max(place - size / 2, (lefts.at(-1) ?? -size) + size));
  for (let i = lefts.length - 1, end = most; i >= 0; end = lefts[i--]) lefts[i] = Math.min(lefts[i], end - size);
  return lefts;
}

// Narrow segments get a tab at the top, boundaries beside them a grip at the bottom: none of them covers another
function settle() {
  const lane = $("editor-lane");
  const px = lane.clientWidth / numFrames;
  const put = (all, place, begins) => {
    const size = Math.min(FEWEST_PX, lane.clientWidth / Math.max(1, all.length));
    apart(all.map(place), size, lane.clientWidth).forEach((left, k) => {
      all[k].style.left = `${left}px`;
      all[k].style.width = `${size}px`;
      all[k].style.setProperty("--at", `${begins(all[k]) - left}px`);
    });
  };
  const of = (made) => label.segments[made.dataset.segment ?? made.dataset.edge];
  const isNarrow = (s) => (s.end_frame - s.start_frame) * px < 2 * FEWEST_PX;
  const narrow = [...lane.querySelectorAll("[data-segment]")].filter((made) => {
    const s = of(made);
    [made.style.left, made.style.width] = [at(s.start_frame), at(s.end_frame - s.start_frame)];
    made.style.setProperty("--wide", `${(s.end_frame - s.start_frame) * px}px`);
    return made.classList.toggle("narrow", isNarrow(s));
  });
  put(narrow, (made) => ((of(made).start_frame + of(made).end_frame) / 2) * px, (made) => of(made).start_frame * px);
  const edges = [...lane.querySelectorAll("[data-edge]")];
  edges.forEach((made, i) => made.classList.toggle("low", isNarrow(label.segments[i]) || isNarrow(label.segments[i + 1])));
  put(edges, (made) => of(made).end_frame * px, (made) => of(made).end_frame * px);
}

function draw() {
  chosen = Math.min(chosen, label.segments.length - 1);
  const focused = document.activeElement?.dataset ?? {};
  const lane = $("editor-lane");
  const children = label.segments.flatMap((s, i) => (i ? [edge(i - 1), segment(s, i)] : [segment(s, i)]));
  if (label.lost !== null) {
    const mark = element("div", { className: "editor-lost", title: `The task fails for good at frame ${label.lost}` });
    mark.style.left = at(label.lost);
    children.push(mark);
  }
  lane.replaceChildren(...children);
  settle();
  // what had the focus was drawn anew: give it back
  if (focused.edge !== undefined) lane.querySelector(`[data-edge="${focused.edge}"]`)?.focus();
  else if (focused.segment !== undefined) lane.querySelector(`[data-segment="${chosen}"]`)?.focus();
  drawForm();
  drawPlan();
  drawState();
  drawCurve(changed() ? text(label) : null);
}

function drawForm() {
  const s = label.segments[chosen];
  const form = $("editor-segment");
  form.name.value = s.name;
  form.kind.value = s.kind;
  form.start.value = s.start_frame;
  form.end.value = s.end_frame;
  form.start.disabled = chosen === 0;
  form.end.disabled = chosen === label.segments.length - 1;
  form.completed.checked = s.completed;
  form.completed.disabled = s.kind !== "step";
  $("editor-rest").pace.value = s.pace ?? "";
  $("editor-steps").replaceChildren(...[...new Set(label.plan.map((p) => p.name))].map((name) => new Option(name)));
}

// Nothing stated: the slider stands where the stored curve ends
function drawFinal() {
  const form = $("editor-rest");
  const curve = episode.runs.find((r) => r.label_run === (base.mine ? `human/${episode.dataset}` : base.run))?.progress;
  const percent = Math.round(100 * (label.final ?? curve?.at(-1) ?? 1));
  form.stated.checked = label.final !== null;
  form.final.value = percent;
  form.final.disabled = label.final === null || Boolean(known.why_read_only);
  form.shown.value = label.final === null ? "from the segments" : `${percent} %`;
  root.querySelector('[data-do="lost"]').ariaPressed = label.lost !== null;
}

// A button in a list
function item(text, data, more) {
  const button = element("button", { type: "button", textContent: text, ...more });
  Object.assign(button.dataset, data);
  return element("li", {}, button);
}

function drawPlan() {
  const { step } = label.segments[chosen];
  const unreached = label.unreached.map((p) => item(`${p.name} ×`, { forget: label.plan.indexOf(p) }, { ariaLabel: `Take ${p.name} out of the plan` }));
  $("editor-planned").replaceChildren(...label.plan.map((p, k) => item(`${k + 1} ${p.name}`, { step: k }, { ariaPressed: p === step })));
  $("editor-unreached").replaceChildren(...(unreached.length ? unreached : [element("li", {}, "none")]));
}

function drawState() {
  const can = !known.why_read_only;
  for (const element of root.querySelectorAll("button, input, select"))
    if (!element.closest("#editor-lane, #editor-segment, #editor-history, #editor-adapt")) element.disabled = !can;
  for (const element of $("editor-segment").elements) element.disabled ||= !can;
  const tool = (name) => root.querySelector(`[data-do="${name}"]`);
  tool("undo").disabled = !past.length;
  tool("redo").disabled = !future.length;
  tool("discard").disabled = !changed();
  tool("reject").disabled = !can || !base.run || base.mine || base.rejected || changed();
  $("editor-save").querySelector(".main").disabled = !can || sending || (!changed() && base.mine === true);
  root.classList.toggle("changed", changed());
  drawFinal();
  if (changed()) notice = "";
  if (known.why_read_only) tell(`Read-only: ${known.why_read_only}.`);
  else if (sending) tell(sending);
  else if (changed()) tell("Changed, not saved yet.");
  else if (notice) tell(notice);
  else if (base.mine) tell(`The label that ${base.json.author} saved ${base.json.created_at.slice(0, 19).replace("T", " ")} counts${known.pending.length ? "; samples and shards follow with the next build" : ""}. Yours would replace it.${agreed()}`);
  else if (base.rejected) tell("This label was rejected and is not used. Correct it, or undo the rejection below.");
  else if (base.run) tell(`The label by ${base.json.annotator} (${base.run.slice(0, 8)}) counts. Save it to confirm.`);
  else tell("Nobody has labelled this episode yet.");
}

// At how many of the frames the label that counts and the newest one of each other person say the same
function agreed() {
  const gone = new Set(known.history.map((r) => r.rejects));
  const newest = Object.fromEntries(known.history.filter((r) => r.segments && !gone.has(r.correction_id)).map((r) => [r.author, r.segments]));
  const { author, segments } = known.current.find((c) => c.status === "accepted") ?? {};
  const isAlike = (s, t) => ["name", "kind", "completed"].every((said) => s[said] === t[said]);
  const shared = (s, t) => Math.max(0, Math.min(s.end_frame, t.end_frame) - Math.max(s.start_frame, t.start_frame));
  const others = Object.entries(newest).filter(([who]) => author && who !== author);
  return others.map(([who, theirs]) => {
    const both = segments.flatMap((s) => theirs.filter((t) => isAlike(s, t)).map((t) => shared(s, t)));
    return ` ${author} and ${who} agree at ${Math.round((100 * both.reduce((a, b) => a + b, 0)) / numFrames)} % of frames.`;
  }).join("");
}

// Mouse, keyboard, fields

function drag(handle, event) {
  if (known.why_read_only) return;
  event.preventDefault();
  const i = Number(handle.dataset.edge);
  const before = text(label);
  chooseBeside(i);
  const held = timeline.frameAt(event.clientX) - label.segments[i].end_frame; // a grip may stand beside its boundary
  // The video shows the first frame of the later segment, wherever the boundary is
  const move = (e) => {
    player.seek(label.move(i, timeline.frameAt(e.clientX) - held), { from: "pointer" });
    draw();
  };
  follow(move, () => keep(before));
  handle.focus();
}

// The fields show a segment that a boundary belongs to
function chooseBeside(edge) {
  if (chosen !== edge && chosen !== edge + 1) chosen = edge;
}

function edgeKey(handle, event) {
  const i = Number(handle.dataset.edge);
  const [low, high] = label.limits(i);
  const here = label.segments[i].end_frame;
  const to = { Home: low, End: high, ArrowLeft: here - (event.shiftKey ? 10 : 1), ArrowRight: here + (event.shiftKey ? 10 : 1) };
  to.ArrowDown = to.ArrowLeft;
  to.ArrowUp = to.ArrowRight;
  if (!(event.key in to)) return false;
  chooseBeside(i);
  change(() => player.seek(label.move(i, to[event.key])));
  return true;
}

function key(event) {
  const control = event.ctrlKey || event.metaKey;
  const typed = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (control && typed === "s") return acts.save(), true;
  if (["Enter", "Escape"].includes(typed) && event.target.closest("#editor-segment")) return event.target.blur(), back();
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
  return back();
}

// From a field, or from what was drawn anew, to the segment
function back() {
  $("editor-lane").querySelector(`[data-segment="${chosen}"]`)?.focus();
  return true;
}

root.addEventListener("keydown", (event) => key(event) && event.preventDefault());
root.addEventListener("click", (event) => {
  const name = event.target.closest("[data-do]")?.dataset.do;
  if (name) acts[name]();
  const { send: act, done, step, forget, ...body } = event.target.closest("[data-send], [data-step], [data-forget]")?.dataset ?? {};
  if (act) send(act, { ...body, base_content_hash: known.content_hash }, done);
  if (step) change(() => label.attempt(chosen, Number(step)));
  if (forget) change(() => label.forget(label.plan[forget]));
  const picked = event.target.closest(".editor-part[data-segment]");
  if (!picked) return;
  choose(Number(picked.dataset.segment));
  // A click with the pointer seeks where it was made
  if (event.detail) player.seek(timeline.frameAt(event.clientX) - 0.5);
});
$("editor-lane").addEventListener("focusin", (event) => {
  const at = event.target.dataset.segment;
  if (at !== undefined && Number(at) !== chosen) choose(Number(at));
});
$("editor-lane").addEventListener("pointerdown", (event) => {
  const handle = event.target.closest(".editor-edge");
  if (handle && event.button === 0) drag(handle, event);
});
const rest = $("editor-rest");
const final = () => (label.final = rest.stated.checked ? Number(rest.final.value) / 100 : null);
const fields = {
  name: ({ value }) => label.rename(chosen, value),
  kind: ({ value }) => label.setKind(chosen, value),
  start: ({ value }) => label.move(chosen - 1, Number(value)),
  end: ({ value }) => label.move(chosen, Number(value)),
  completed: ({ checked }) => (label.segments[chosen].completed = checked),
  pace: ({ value }) => (label.segments[chosen].pace = value || null),
  stated: final,
  final,
};
root.addEventListener("change", ({ target }) => {
  if (!fields[target.name]) return;
  change(() => fields[target.name](target));
  drawForm();
  if (target.name === "stated" && target.checked) rest.final.focus();
});
rest.final.addEventListener("input", () => (rest.shown.value = `${rest.final.value} %`));
root.addEventListener("submit", (event) => {
  event.preventDefault();
  if (event.target.id === "editor-save") acts.save();
  if (event.target.id !== "editor-plan") return;
  change(() => label.plannedToo(event.target.step.value));
  event.target.step.value = "";
});

function choose(i) {
  chosen = i;
  for (const button of root.querySelectorAll(".editor-part[data-segment]"))
    button.setAttribute("aria-pressed", String(Number(button.dataset.segment) === i));
  drawForm();
  drawPlan();
  drawState();
}

let wanted = location.hash === "#editor"; // before there is an editor

// To the segment at the cursor; at the end, where a run stops by itself, to the first one
export function comeHere() {
  wanted = root.dataset.ready !== "true";
  if (wanted) return;
  const lane = $("editor-lane").getBoundingClientRect();
  if (lane.top < 0 || lane.bottom > innerHeight) $("tracks").scrollIntoView({ block: "start" });
  const here = player.frame < numFrames - 1 ? atCursor() : 0;
  $("editor-lane").querySelector(`[data-segment="${here}"]`)?.focus({ preventScroll: true });
}

onKeys({ e: (event) => !event.target.closest("#editor") && comeHere() });

if (numFrames) {
  const { ok, data } = await get(url);
  if (ok) {
    learn(data);
    begin();
    const form = $("editor-save");
    form.author.value = author();
    form.author.readOnly = isKnown;
    addEventListener("beforeunload", (event) => changed() && event.preventDefault());
    new ResizeObserver(settle).observe($("editor-lane")); // shown, zoomed, in another window
    root.hidden = false;
    others();
    root.dataset.ready = "true";
    if (wanted) comeHere();
  }
}
