// A run beside its reference: one cursor, two videos; accept, fix or skip, and the next one comes by itself.
import { Camera } from "./cameras.js";
import { episode, player } from "./player.js";
import { post } from "./request.js";

const $ = (id) => document.getElementById(id);
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

const editor = $("beside-editor");
if (editor) {
  const author = $("editor-save").author;
  const name = () => ($("by").textContent = author.value || "nobody yet");
  author.addEventListener("input", name);
  new MutationObserver(name).observe($("editor"), { attributes: true, attributeFilter: ["data-ready"] });

  const tell = (text) => {
    $("beside-state").textContent = text;
    $("beside-state").hidden = false;
    $("beside-state").classList.add("bad");
  };
  const fix = (on = true) => {
    player.play(false);
    editor.hidden = !on;
    $("beside-acts").hidden = on;
    if (on) atCursor()?.focus();
  };
  // The step at the cursor is chosen; at the end of the run, where it stops by itself, the first one
  const atCursor = () => {
    const segments = episode.runs[0].segments;
    const here = player.frame < player.numFrames - 1 ? segments.findIndex((s) => player.frame < s.end_frame) : 0;
    return $("editor-lane").querySelector(`[data-segment="${here}"]`) ?? $("editor-lane").querySelector(".editor-part");
  };
  const accept = async () => {
    if (!author.value) return fix();
    $("accept").disabled = true;
    const url = `/api/corrections/${encodeURIComponent(episode.dataset)}/${episode.episode_index}/accept`;
    const { ok, data } = await post(url, { author: author.value, follows: beside.follows, base_label_run: beside.label_run });
    if (ok) return location.replace(beside.after);
    $("accept").disabled = false;
    tell(data.error);
  };
  $("accept").addEventListener("click", accept);
  $("fix").addEventListener("click", () => fix());
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input:not([type=range]), select, textarea")) return;
    if (!editor.hidden) return void (event.key === "Escape" && fix(false));
    const act = { a: accept, f: fix, s: () => $("skip").click() }[event.key.toLowerCase()];
    if (!act) return;
    event.preventDefault();
    act();
  });
}
