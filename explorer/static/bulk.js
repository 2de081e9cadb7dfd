// The rest of a queue, or of a selection, is accepted, part by part, after a sample of it was looked at.
import { $, author, post } from "./page.js";

const button = $("accept-others");
const state = $("review-state");

button?.addEventListener("click", async () => {
  const bar = $("bulk-progress");
  const body = JSON.parse(button.dataset.asked);
  button.disabled = true;
  bar.hidden = false;
  let total = 0;
  for (;;) {
    const { ok, data } = await post("/api/bulk", body);
    if (ok) total += data.accepted;
    bar.value = total;
    state.textContent = ok ? `${total} labels accepted by ${author()}, ${data.left} left. ${data.refused.slice(0, 3).join("; ")}` : data.error;
    state.classList.toggle("bad", !ok || data.refused.length > 0);
    if (!ok || !data.left || !data.accepted) return;
  }
});
