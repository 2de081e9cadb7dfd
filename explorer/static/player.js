// The one clock of an episode's page: which frame is shown. Everything else listens to it, or tells it to seek.
//   player.frame, player.numFrames, player.fps; player.seek(frame); player.addEventListener("frame", ...)
//   "renewed": what `episode` holds was read again
export const episode = JSON.parse(document.getElementById("episode-data").textContent);

class Player extends EventTarget {
  frame = 0;
  playing = false;
  loop = null; // {from, to}: the frames that are played again and again
  numFrames = Math.max(1, episode.num_frames ?? 1);
  fps = episode.fps || 10;

  seek(frame, { from = "user" } = {}) {
    const next = Math.min(this.numFrames - 1, Math.max(0, Math.round(frame)));
    if (next === this.frame && from === "video") return;
    this.frame = next;
    this.dispatchEvent(new CustomEvent("frame", { detail: { from } }));
  }

  play(on = !this.playing) {
    const [first, last] = [this.loop?.from ?? 0, (this.loop?.to ?? this.numFrames) - 1];
    if (on && (this.frame >= last || (this.loop && this.frame < first))) this.seek(first);
    this.playing = on;
    this.dispatchEvent(new Event("play"));
  }
}

export const player = new Player();
