// A run beside its reference: one cursor, two videos. What is said of it, and what comes next: queue.js.
import { Camera } from "./cameras.js";
import { $ } from "./page.js";
import { episode, player } from "./player.js";

const { beside } = episode;
const { frames, reference_frames: shown, follows } = beside.aligned;
const WATCHED_S = 6; // that a run is watched for, at the speed it begins with

// The looked-at frame at or before a frame
const placeOf = (frame) => Math.max(0, frames.findLastIndex((f) => f <= frame));

// Which frame of the reference this one is like: between two looked-at ones on the line, where both follow it
function like(frame) {
  const k = placeOf(frame);
  const goes = follows[k] && follows[k + 1] && Math.abs(shown[k + 1] - shown[k]) <= 2 * (frames[k + 1] - frames[k]) + 2;
  const share = goes ? Math.max(0, frame - frames[k]) / (frames[k + 1] - frames[k]) : 0;
  return Math.round(shown[k] + share * ((shown[k + 1] ?? shown[k]) - shown[k]));
}

// The reference's video is never played: it goes to the moment that is like the run's, as quickly as it can
class Follower extends Camera {
  show() {
    if (!this.works) return super.show(this.frame());
    if (!this.video.seeking) this.video.currentTime = this.time(this.frame());
  }

  play() {}

  ready() {
    this.video.addEventListener("seeked", () => this.frameAt(this.video.currentTime) !== this.frame() && this.show());
    super.ready();
  }
}

const stepAt = (segments, frame) => segments.find((s) => s.start_frame <= frame && frame < s.end_frame)?.name ?? "";
const [own, other] = document.querySelectorAll(".beside .now");
const figure = document.querySelector("[data-camera=reference]");
const follower = figure && new Follower(figure, beside.camera, () => like(player.frame));

function draw() {
  const away = !follows[placeOf(player.frame)];
  if (own) own.textContent = stepAt(episode.runs[0].segments, player.frame);
  if (!figure) return;
  const at = like(player.frame);
  other.textContent = away ? "shows nothing like this" : `${stepAt(beside.segments, at)}, ${(at / (beside.fps || player.fps)).toFixed(1)} s`;
  figure.classList.toggle("detour", away);
  follower.show();
}
player.addEventListener("frame", draw);
draw();

// It begins to play by itself, so fast that nobody waits
const speed = $("speed");
const lasts = player.numFrames / player.fps;
speed.value = [...speed.options].map((o) => Number(o.value)).find((s) => s >= 1 && lasts / s <= WATCHED_S) ?? 8;
if (!matchMedia("(prefers-reduced-motion: reduce)").matches && !player.frame) player.play(true);
