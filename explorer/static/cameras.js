// Cameras: videos that follow the one clock. Where a video cannot be played, the stored pictures stand in for it.
import { $ } from "./page.js";
import { episode, player } from "./player.js";

const speed = $("speed");

// frame: of this video, at the player's moment
export class Camera {
  constructor(figure, about, frame = () => player.frame) {
    this.about = about;
    this.frame = frame;
    this.figure = figure;
    this.video = figure.querySelector("video");
    this.still = figure.querySelector(".still");
    this.message = figure.querySelector(".message");
    this.works = false;
    this.converted = false; // is the video one that the server made for this browser?
    this.still?.addEventListener("load", () => this.shape(this.still.naturalWidth, this.still.naturalHeight));
    if (!this.video) this.fall(about.problem ?? "This camera has no video of its own");
    else {
      this.video.addEventListener("error", () => this.failed());
      this.video.addEventListener("loadedmetadata", () => this.ready());
      if (this.video.error) this.failed();
      else if (this.video.readyState >= 1) this.ready();
      // Where rows leave out pictures of the file, only a video that the server makes has theirs; an error is a page
      const answer = fetch(`${about.video.url}/in_order`).then((response) => response.json());
      answer.then((inOrder) => inOrder || this.converted || this.convert(), () => {});
    }
  }

  // The box has the picture's own shape: no bars
  shape(width, height) {
    if (width && height) this.figure.style.setProperty("--shape", width / height);
  }

  ready() {
    this.works = true;
    this.message.hidden = true;
    this.shape(this.video.videoWidth, this.video.videoHeight);
    this.show(this.frame());
    if (player.playing) this.play(true, Number(speed.value)); // it began before there was a video
  }

  async failed() {
    this.works = false;
    let why = "This browser cannot play the video";
    try {
      const url = this.about.video.url;
      const answer = await fetch(this.converted ? `${url}/h264` : url, { headers: { Range: "bytes=0-0" } });
      if (answer.ok && !this.converted) return this.convert();
      if (!answer.ok) why = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector(".message").textContent;
    } catch {
      why = "The video could not be fetched";
    }
    this.fall(why);
  }

  // A codec that this browser does not know, or pictures that have no row: the server makes the episode's part anew
  convert() {
    this.converted = true;
    this.message.textContent = "The video is being converted for this browser; this takes a moment.";
    this.message.hidden = false;
    this.video.src = `${this.about.video.url}/h264`;
  }

  fall(why) {
    if (this.video) this.video.hidden = true;
    this.figure.querySelector(".screen").hidden = !this.still;
    this.message.textContent = `${why}. ${this.still ? "Stored pictures are shown." : "No picture is stored, either."}`;
    this.message.hidden = false;
    if (this.still) this.still.hidden = false;
    this.show(this.frame());
  }

  // Seconds in the file of a frame's middle: the browser then shows that very frame
  time(frame) {
    return (this.firstFrame + frame + 0.5) / this.about.video.fps;
  }

  frameAt(time) {
    return Math.floor(time * this.about.video.fps - this.firstFrame + 1e-6);
  }

  // The frame of the file at which the episode begins: a converted one holds nothing else
  get firstFrame() {
    return this.converted ? 0 : this.about.video.start_frame;
  }

  show(frame) {
    if (this.works) {
      if (player.playing && Math.abs(this.frameAt(this.video.currentTime) - frame) <= 2) return;
      this.video.currentTime = this.time(frame);
    } else if (this.still) {
      const stored = this.about.keyframes;
      const at = stored.findLast((k) => k.frame_index <= frame) ?? stored[0];
      if (at && !this.still.src.endsWith(at.url)) this.still.src = at.url;
    }
  }

  play(on, rate) {
    if (!this.works) return;
    this.video.playbackRate = rate;
    if (on) {
      this.video.currentTime = this.time(player.frame);
      this.video.play().catch(() => player.play(false));
    } else this.video.pause();
  }
}

const cameras = [...document.querySelectorAll(".camera")].flatMap((figure) => {
  const about = episode.cameras[figure.dataset.camera];
  return about ? [new Camera(figure, about)] : []; // another part of the page has cameras of its own
});
let begun = null;

// While it plays, the first video that works is the clock; without one, time itself
function tick(now) {
  if (!player.playing) return;
  const leader = cameras.find((c) => c.works && (c.video.ended || !c.video.paused) && !c.video.seeking);
  let frame = player.frame;
  if (leader) {
    frame = leader.frameAt(leader.video.currentTime);
    begun = null;
  } else if (!cameras.some((c) => c.works)) {
    begun ??= { now, frame: player.frame };
    frame = begun.frame + Math.floor(((now - begun.now) / 1000) * player.fps * Number(speed.value));
  }
  if (player.loop && frame >= Math.min(player.loop.to, player.numFrames - 1)) player.seek(player.loop.from);
  else if (frame > player.frame) player.seek(frame, { from: "video" });
  if (player.loop || frame < player.numFrames - 1) requestAnimationFrame(tick);
  else player.play(false);
}

player.addEventListener("play", () => {
  begun = null;
  for (const camera of cameras) camera.play(player.playing, Number(speed.value));
  if (player.playing) requestAnimationFrame(tick);
  else for (const camera of cameras) camera.show(player.frame);
});
player.addEventListener("frame", (event) => {
  if (event.detail.from !== "video") begun = null;
  for (const camera of cameras) camera.show(player.frame);
});
speed.addEventListener("change", () => player.playing && cameras.forEach((c) => c.works && (c.video.playbackRate = Number(speed.value))));
