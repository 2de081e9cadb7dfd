// The one time axis: which frames the tracks show, the range that was selected, and the ruler above them.
//   timeline.frameAt(x), timeline.share(frame); timeline.zoom(from, to); timeline.range; "changed" tells of both
import { $ } from "./page.js";
import { player } from "./player.js";

const tracks = $("tracks");
const FEWEST = 8; // frames that the tracks show
const TICKS = [0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800]; // seconds between two
const STEP = 1.5; // of the zoom, by a key or a button

class Timeline extends EventTarget {
  from = 0;
  to = player.numFrames;
  range = null; // {from, to}, half-open

  get box() {
    return $("ruler").getBoundingClientRect();
  }

  get width() {
    return this.to - this.from;
  }

  // Where a frame's middle is, 0 to 1 of what is shown
  share(frame) {
    return (frame + 0.5 - this.from) / this.width;
  }

  // The frame, with its part, at a place on the screen
  frameAt(x) {
    const box = this.box;
    return this.from + ((x - box.left) / box.width) * this.width;
  }

  zoom(from, to) {
    const fewest = Math.min(FEWEST, player.numFrames);
    const width = Math.min(player.numFrames, Math.max(fewest, to - from));
    this.from = Math.min(player.numFrames - width, Math.max(0, from + (to - from - width) / 2));
    this.to = this.from + width;
    tracks.style.setProperty("--zoom", player.numFrames / width);
    tracks.style.setProperty("--shift", this.from / width);
    tracks.classList.toggle("zoomed", width < player.numFrames);
    this.changed();
  }

  // By a factor, so that a frame stays where it is
  zoomAt(frame, factor) {
    const width = Math.min(player.numFrames, Math.max(FEWEST, this.width / factor));
    const from = frame - ((frame - this.from) / this.width) * width;
    this.zoom(from, from + width);
  }

  move(frames) {
    this.zoom(this.from + frames, this.to + frames);
  }

  // The frame comes into sight
  show(frame) {
    if (frame >= this.from && frame + 1 <= this.to) return;
    this.move(frame - this.from - this.width * (player.playing ? 0.1 : 0.5));
  }

  select(from, to) {
    const [low, high] = [Math.max(0, Math.round(Math.min(from, to))), Math.min(player.numFrames, Math.round(Math.max(from, to)))];
    this.range = high - low >= 1 ? { from: low, to: high } : null;
    if (player.loop) this.loop(true);
    this.changed();
  }

  clear() {
    this.range = null;
    this.loop(false);
  }

  loop(on = !player.loop) {
    player.loop = on ? (this.range ?? { from: 0, to: player.numFrames - 1 }) : null;
    this.changed();
  }

  changed() {
    this.draw();
    this.dispatchEvent(new Event("changed"));
  }

  draw() {
    const place = (element, from, to) => {
      const box = this.box;
      const left = box.left - tracks.getBoundingClientRect().left;
      const [a, b] = [from, to].map((f) => Math.min(1, Math.max(0, (f - this.from) / this.width)));
      element.style.left = `${left + box.width * a}px`;
      element.style.width = `${box.width * (b - a)}px`;
      element.hidden = b <= a;
    };
    const { from, to } = this.range ?? { from: 0, to: 0 };
    place($("range"), from, to);
    $("range-zoom").hidden = $("range-none").hidden = !this.range;
    $("range-zoom").textContent = `${(from / player.fps).toFixed(2)} to ${(to / player.fps).toFixed(2)} s`;
    $("loop").setAttribute("aria-pressed", String(Boolean(player.loop)));
    const shown = $("window");
    shown.style.left = `${(100 * this.from) / player.numFrames}%`;
    shown.style.width = `${(100 * this.width) / player.numFrames}%`;
    this.drawRuler();
  }

  drawRuler() {
    const seconds = this.width / player.fps;
    const step = TICKS.find((t) => (seconds / t) * 70 <= this.box.width) ?? TICKS.at(-1);
    const digits = step < 0.1 ? 2 : step < 1 ? 1 : 0;
    const ticks = [];
    for (let t = Math.ceil(this.from / player.fps / step) * step; t <= this.to / player.fps && ticks.length < 200; t += step) {
      const tick = document.createElement("span");
      tick.style.left = `${(100 * (t * player.fps - this.from)) / this.width}%`;
      tick.textContent = t >= 60 ? `${Math.floor(t / 60)}:${(t % 60).toFixed(digits).padStart(digits ? 3 + digits : 2, "0")}` : `${t.toFixed(digits)} s`;
      ticks.push(tick);
    }
    $("ruler").replaceChildren(...ticks);
  }
}

export const timeline = new Timeline();

$("range-zoom").addEventListener("click", () => timeline.zoom(timeline.range.from, timeline.range.to));
$("range-none").addEventListener("click", () => timeline.clear());

export const keys = {
  "+": () => timeline.zoomAt(player.frame, STEP),
  "=": () => timeline.zoomAt(player.frame, STEP),
  "-": () => timeline.zoomAt(player.frame, 1 / STEP),
  0: () => timeline.zoom(0, player.numFrames),
  i: () => timeline.select(player.frame, timeline.range && timeline.range.to > player.frame ? timeline.range.to : player.numFrames),
  o: () => timeline.select(timeline.range && timeline.range.from <= player.frame ? timeline.range.from : 0, player.frame + 1),
  l: () => timeline.loop(),
};

// The wheel: with Ctrl (or a pinch), and over the ruler, it zooms at the pointer; with Shift, or sideways, it moves
tracks.addEventListener(
  "wheel",
  (event) => {
    const inAxis = event.clientX >= timeline.box.left;
    const sideways = event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY);
    if (inAxis && (event.ctrlKey || event.metaKey || event.target.closest("#ruler, .overview"))) {
      timeline.zoomAt(timeline.frameAt(event.clientX), 2 ** (-event.deltaY / 240));
    } else if (inAxis && sideways && timeline.width < player.numFrames) {
      timeline.move((((event.shiftKey && event.deltaY) || event.deltaX) / timeline.box.width) * timeline.width);
    } else return;
    event.preventDefault();
  },
  { passive: false },
);

// Follow the pointer until it is let go
export function drag(follow, end = () => {}) {
  const held = new AbortController();
  addEventListener("pointermove", follow, held);
  for (const name of ["pointerup", "pointercancel"]) addEventListener(name, () => (held.abort(), end()), held);
}

// A range: over the ruler, or over a track with Shift
tracks.addEventListener("pointerdown", (event) => {
  const onRuler = event.target.closest("#ruler");
  if (event.button !== 0 || event.defaultPrevented || !(onRuler || (event.shiftKey && event.target.closest(".track, .lane")))) return;
  event.preventDefault();
  const begun = timeline.frameAt(event.clientX);
  let moved = false;
  drag(
    (next) => {
      moved ||= Math.abs(next.clientX - event.clientX) > 3;
      if (moved) timeline.select(begun, timeline.frameAt(next.clientX));
    },
    () => moved || player.seek(begun - 0.5),
  );
});

player.addEventListener("frame", () => timeline.show(player.frame));
addEventListener("resize", () => timeline.draw());
