// Recordings in review: a person decides which one an episode is.
import { $, post, told } from "./page.js";

document.querySelector("main").addEventListener("click", ({ target }) => {
  const same = target.closest("[data-same]")?.dataset.same;
  if (!same) return;
  const { address } = target.closest("section").dataset;
  told(post(`/api/recordings${address}`, { is_same: same === "true" }), $("recordings-state"));
});
