// The page of an episode: one cursor over all tracks, keys, and the moment in the URL.
import { episode, player } from "./player.js";
import "./cameras.js";

const byId = (id) => document.getElementById(id);
const tracks = byId("tracks");
const cursor = byId("cursor");
const scrub = byId("scrub");
const legend = [...document.querySelectorAll("[data-curve]")];
const words = [...document.querySelectorAll(".reasoning")];

const clock = (s) => `${Math.floor(s / 60)}:${(s % 60).toFixed(1).padStart(4, "0")}`;

// The value at a frame as the curve is drawn: between two known ones on the line from one to the other
function valueAt(curve, frame) {
  let low = 0, high = curve.frames.length - 1, at = -1;
  while (low <= high) {
    const middle = (low + high) >> 1;
    if (curve.frames[middle] <= frame) {
      at = middle;
      low = middle + 1;
    } else high = middle - 1;
  }
  const [value, next] = [curve.values[at] ?? null, curve.values[at + 1] ?? null];
  if (value === null || next === null) return value;
  const share = (frame - curve.frames[at]) / (curve.frames[at + 1] - curve.frames[at]);
  return value + (next - value) * share;
}

function draw() {
  const box = tracks.querySelector(".track")?.getBoundingClientRect() ?? scrub.getBoundingClientRect();
  const share = (player.frame + 0.5) / player.numFrames;
  cursor.style.left = `${box.left - tracks.getBoundingClientRect().left + box.width * share}px`;
  scrub.value = player.frame;
  byId("clock").textContent = `${clock(player.frame / player.fps)}, frame ${player.frame}`;
  for (const output of legend) {
    const value = valueAt(episode.curves[output.dataset.curve], player.frame);
    output.textContent = value === null ? "–" : value.toFixed(3);
  }
  for (const list of words) {
    const now = [...list.children].findLast((item) => Number(item.dataset.frame) <= player.frame);
    for (const item of list.children) item.classList.toggle("now", item === now);
  }
}

let writing = null;
function remember() {
  clearTimeout(writing);
  writing = setTimeout(() => {
    const url = new URL(location);
    if (player.frame) url.searchParams.set("t", (player.frame / player.fps).toFixed(2));
    else url.searchParams.delete("t");
    history.replaceState(null, "", url);
  }, 150);
}

player.addEventListener("frame", (event) => {
  draw();
  if (event.detail.from !== "video") remember();
});
player.addEventListener("play", () => {
  byId("play").textContent = player.playing ? "❚❚" : "▶";
  if (!player.playing) remember();
});

// Click anywhere on a track, or drag: everything goes there. Another part of the page may take a press for itself.
function seekTo(event) {
  const track = event.target.closest(".track") ?? tracks.querySelector(".track");
  const box = track.getBoundingClientRect();
  player.seek(((event.clientX - box.left) / box.width) * player.numFrames - 0.5);
}
tracks.addEventListener("pointerdown", (event) => {
  if (event.defaultPrevented || event.button !== 0 || !event.target.closest(".track")) return;
  tracks.setPointerCapture(event.pointerId);
  seekTo(event);
  const move = (next) => seekTo(next);
  tracks.addEventListener("pointermove", move);
  const end = () => tracks.removeEventListener("pointermove", move);
  tracks.addEventListener("pointerup", end, { once: true });
  tracks.addEventListener("pointercancel", end, { once: true });
});
scrub.addEventListener("input", () => player.seek(Number(scrub.value)));
document.addEventListener("click", (event) => {
  const button = event.target.closest(".seek");
  if (button) player.seek(Number(button.dataset.frame));
});
byId("play").addEventListener("click", () => player.play());
byId("back").addEventListener("click", () => player.seek(player.frame - 1));
byId("forth").addEventListener("click", () => player.seek(player.frame + 1));
byId("keys").addEventListener("click", () => byId("help").showModal());

const segments = episode.runs[0]?.segments ?? [];
const boundaries = [...new Set([0, ...segments.map((s) => s.start_frame), player.numFrames - 1])].sort((a, b) => a - b);

document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || byId("help").open) return;
  if (event.target.closest("input:not([type=range]), select, textarea, [contenteditable]")) return;
  if (event.key === " " && event.target.closest("button, a, summary")) return;
  const step = event.shiftKey ? Math.round(player.fps) : 1;
  const actions = {
    " ": () => player.play(),
    ArrowLeft: () => player.seek(player.frame - step),
    ArrowRight: () => player.seek(player.frame + step),
    ArrowUp: () => player.seek(boundaries.findLast((b) => b < player.frame) ?? 0),
    ArrowDown: () => player.seek(boundaries.find((b) => b > player.frame) ?? player.numFrames - 1),
    Home: () => player.seek(0),
    End: () => player.seek(player.numFrames - 1),
    n: () => document.querySelector("a[rel=next]")?.click(),
    p: () => document.querySelector("a[rel=prev]")?.click(),
    "?": () => byId("help").showModal(),
  };
  if (!actions[event.key]) return;
  event.preventDefault();
  if (player.playing && event.key !== " ") player.play(false);
  actions[event.key]();
});

addEventListener("resize", draw);
const asked = Number(new URL(location).searchParams.get("t"));
player.seek(Number.isFinite(asked) ? Math.round(asked * player.fps) : 0);

// Actions are read from the source, which can take longer than a page should
const told = byId("actions");
if (told) {
  fetch(told.dataset.from)
    .then((answer) => (answer.ok ? answer.text() : Promise.reject(new Error(answer.status))))
    .then((html) => (told.innerHTML = html))
    .catch((e) => (told.textContent = `The actions could not be had: ${e.message}.`));
}
