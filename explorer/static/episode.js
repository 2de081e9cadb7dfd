// The page of an episode: one cursor over all tracks, values at it, switches of curves, keys, and all of it in the URL.
import { episode, player } from "./player.js";
import { $, onKeys } from "./page.js";
import { jobPart } from "./labelling.js";
import { drag, keys as timeKeys, timeline } from "./timeline.js";
import "./cameras.js";

const tracks = $("tracks");
const cursor = $("cursor");
const pointer = $("pointer");
const scrub = $("scrub");
const framesLike = $("frames-like"); // the link to frames like the one at the cursor
let recorded = []; // curves of actions, which the source alone has
let pointed = null; // the frame under the pointer, while it is over the tracks

const clock = (s) => `${Math.floor(s / 60)}:${(s % 60).toFixed(1).padStart(4, "0")}`;

// The value at a frame as the curve is drawn: between two known ones on the line from one to the other. Without frames
// it has a value for each
function valueAt({ frames, values }, frame) {
  const at = frames ? frames.findLastIndex((f) => f <= frame) : frame;
  const [value, next] = [values[at] ?? null, frames ? (values[at + 1] ?? null) : null];
  if (value === null || next === null) return value;
  return value + ((next - value) * (frame - frames[at])) / (frames[at + 1] - frames[at]);
}

const shownValue = (value) => (value === null ? "–" : Math.abs(value) < 1000 ? value.toFixed(3) : value.toPrecision(5));

function drawValues() {
  const frame = pointed ?? player.frame;
  for (const output of tracks.querySelectorAll("output[data-curve]")) {
    const { of, curve } = output.dataset;
    output.textContent = shownValue(valueAt((episode.charts[of] ?? recorded)[curve], frame));
  }
}

function place(line, frame) {
  const box = timeline.box;
  const share = timeline.share(frame);
  line.hidden = share < 0 || share > 1;
  line.style.left = `${box.left - tracks.getBoundingClientRect().left + box.width * share}px`;
}

// Where the cursor has not left the start, or is at the end, a run that failed did so at no moment
function drawEnding() {
  const moment = player.frame > 0 && player.frame < episode.num_frames - 1;
  const words = document.querySelector("#outcome [data-outcome=failed] span");
  $("outcome").dataset.frame = moment ? player.frame : "";
  if (words) words.textContent = moment ? `Failed from ${(player.frame / player.fps).toFixed(1)} s` : "Failed";
}

function draw() {
  place(cursor, player.frame);
  if (pointed === null) pointer.hidden = true;
  else place(pointer, pointed);
  scrub.value = player.frame;
  $("clock").textContent = `${clock(player.frame / player.fps)}, frame ${player.frame}`;
  drawValues();
  drawEnding();
  if (framesLike) framesLike.search = `?frame=${player.frame}`;
  for (const list of document.querySelectorAll(".reasoning")) {
    const now = [...list.children].findLast((item) => Number(item.dataset.frame) <= player.frame);
    for (const item of list.children) item.classList.toggle("now", item === now);
  }
}

// The address holds the moment, what is shown of the time axis, the range, and the curves that were switched

const inSeconds = (a, b) => `${(a / player.fps).toFixed(2)}-${(b / player.fps).toFixed(2)}`;
const ofSeconds = (text) => (/^\d+(\.\d+)?-\d+(\.\d+)?$/.test(text ?? "") ? text.split("-").map((s) => Number(s) * player.fps) : null);
const nameOf = (box) => `${box.closest("li").querySelector("output").dataset.of}: ${box.parentElement.querySelector("span:last-child").title}`;

let writing = null;
function remember() {
  clearTimeout(writing);
  writing = setTimeout(() => {
    const url = new URL(location);
    const set = (name, value) => (value === null ? url.searchParams.delete(name) : url.searchParams.set(name, value));
    set("frame", null);
    set("t", player.frame ? (player.frame / player.fps).toFixed(2) : null);
    set("view", timeline.width < player.numFrames ? inSeconds(timeline.from, timeline.to) : null);
    set("range", timeline.range ? inSeconds(timeline.range.from, timeline.range.to) : null);
    set("loop", player.loop ? "1" : null);
    url.searchParams.delete("switch");
    for (const name of switched) url.searchParams.append("switch", name);
    history.replaceState(history.state, "", url);
  }, 150);
}

function recall() {
  const asked = new URL(location).searchParams;
  const [range, view] = [ofSeconds(asked.get("range")), ofSeconds(asked.get("view"))];
  if (range) timeline.select(...range);
  if (view) timeline.zoom(...view);
  if (asked.get("loop")) timeline.loop(true);
  const frame = Number(asked.get("frame") ?? Math.round(Number(asked.get("t")) * player.fps));
  player.seek(Number.isFinite(frame) ? frame : 0);
  recallSwitches();
}

// Curves that are switched: on that are off at first, off that are on

const switched = new Set(new URL(location).searchParams.getAll("switch"));

function recallSwitches() {
  for (const box of tracks.querySelectorAll("[data-line]")) {
    box.checked = box.defaultChecked !== switched.has(nameOf(box));
    show(box);
  }
}

function show(box) {
  const { of } = box.closest("li").querySelector("output").dataset;
  const chart = [...tracks.querySelectorAll("[data-chart]")].find((c) => c.dataset.chart === of);
  chart?.querySelectorAll("path")[box.dataset.line]?.classList.toggle("off", !box.checked);
}

tracks.addEventListener("change", (event) => {
  if (!event.target.matches("[data-line]")) return;
  show(event.target);
  if (event.target.checked !== event.target.defaultChecked) switched.add(nameOf(event.target));
  else switched.delete(nameOf(event.target));
  remember();
});

player.addEventListener("frame", (event) => {
  if (event.detail.from !== "pointer") pointed = null;
  draw();
  if (event.detail.from !== "video") remember();
});
timeline.addEventListener("changed", () => {
  draw();
  remember();
});
player.addEventListener("play", () => {
  $("play").textContent = player.playing ? "❚❚" : "▶";
  if (!player.playing) remember();
});

// Click anywhere on a track, or drag: everything goes there. Another part of the page may take a press for itself.
const seekTo = (event) => player.seek(timeline.frameAt(event.clientX) - 0.5, { from: "pointer" });
tracks.addEventListener("pointerdown", (event) => {
  if (event.defaultPrevented || event.button !== 0 || !event.target.closest(".track")) return;
  seekTo(event);
  drag(seekTo);
});
tracks.addEventListener("pointermove", (event) => {
  const over = event.target.closest(".track, .lane, #ruler");
  const frame = over ? Math.min(player.numFrames - 1, Math.max(0, Math.round(timeline.frameAt(event.clientX) - 0.5))) : null;
  if (frame === pointed) return;
  pointed = frame;
  draw();
});
tracks.addEventListener("pointerleave", () => {
  pointed = null;
  draw();
});
scrub.addEventListener("input", () => player.seek(Number(scrub.value)));
document.addEventListener("click", (event) => {
  const meant = event.target.closest(".seek, [data-key]");
  const { frame, key } = meant?.dataset ?? {};
  if (meant?.matches("a.seek")) event.preventDefault(); // it leads to the same moment where no script runs
  if (frame) player.seek(Number(frame));
  acts[key]?.(event); // a button that does what a key does
});
$("play").addEventListener("click", () => player.play());

// What a check found, in words, while its stretch is pointed at or has the focus
for (const name of ["pointerover", "focusin"]) {
  $("faults")?.addEventListener(name, ({ target }) => {
    const words = target.closest("[data-words]")?.dataset.words;
    if (words) $("fault-words").textContent = words;
  });
}

function boundaries() {
  const segments = episode.runs[0]?.segments ?? [];
  return [...new Set([0, ...segments.map((s) => s.start_frame), player.numFrames - 1])].sort((a, b) => a - b);
}

const goTo = (frameOf) => (event) => {
  if (player.playing) player.play(false);
  player.seek(frameOf(event.shiftKey ? Math.round(player.fps) : 1));
};
const acts = {
  " ": (event) => !event.target.closest("button, a, summary, [type=checkbox]") && player.play(),
  ArrowLeft: goTo((step) => player.frame - step),
  ArrowRight: goTo((step) => player.frame + step),
  ArrowUp: goTo(() => boundaries().findLast((b) => b < player.frame) ?? 0),
  ArrowDown: goTo(() => boundaries().find((b) => b > player.frame) ?? player.numFrames - 1),
  Home: goTo(() => 0),
  End: goTo(() => player.numFrames - 1),
  n: () => document.querySelector("a[rel=next]")?.click(),
  p: () => document.querySelector("a[rel=prev]")?.click(),
  Escape: () => (timeline.clear(), false), // it closes more on other pages
  "?": () => $("help").showModal(),
  ...timeKeys,
};
onKeys(acts);

player.addEventListener("renewed", () => {
  recallSwitches();
  draw();
});
player.addEventListener("drawn", drawValues); // the curve of what is edited
addEventListener("resize", draw);
timeline.draw();
recall();

// Names and actions are read from the source, which can take longer than a page should: once they come into sight
const told = $("actions");

function nameDimensions(names) {
  const dimensions = tracks.querySelectorAll('[data-chart="state"] path title');
  for (const output of tracks.querySelectorAll('output[data-of="state"]')) {
    const name = names[output.dataset.curve];
    if (!name) continue;
    const label = output.parentElement.querySelector("label span:last-child");
    label.textContent = label.title = dimensions[output.dataset.curve].textContent = name;
  }
}

async function showActions() {
  await jobPart(told, told.dataset.from);
  const { names, curves } = JSON.parse(told.querySelector(".recorded")?.textContent ?? '{"names": [], "curves": []}');
  recorded = curves;
  nameDimensions(names);
  player.dispatchEvent(new Event("renewed"));
}

if (told) {
  const sight = new IntersectionObserver((seen) => {
    if (!seen.some((of) => of.isIntersecting)) return;
    sight.disconnect();
    showActions();
  }, { rootMargin: "200px" });
  sight.observe([...tracks.querySelectorAll(".track")].at(-1) ?? tracks); // its own rows have no box yet
}
