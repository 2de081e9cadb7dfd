// "Frames like this one" on the page of an episode: the link leads to the frames like the one at the cursor.
import { player } from "./player.js";

const link = document.getElementById("frames-like");

function follow() {
  const url = new URL(link.href);
  url.searchParams.set("frame", player.frame);
  link.href = url;
}

player.addEventListener("frame", follow);
follow();
