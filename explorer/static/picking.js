// Single episodes of the gallery that are picked, over its pages: tagged, assigned, or shown alone.
import { $, post, snapshot, told } from "./page.js";

const bar = $("picked");
const STORED = "picked runs";
// "dataset number" of each, the assignment that was seen of it, and in which state of the corpus
const picked = new Map(JSON.parse(sessionStorage.getItem(STORED) ?? "[]"));
const cards = [...document.querySelectorAll(".gallery li")];
const keyOf = (card) => `${card.dataset.dataset} ${card.dataset.episode}`;

function draw() {
  sessionStorage.setItem(STORED, JSON.stringify([...picked]));
  bar.hidden = !picked.size;
  $("num-picked").textContent = picked.size;
  for (const card of cards) card.querySelector(".pick").checked = picked.has(keyOf(card));
}

function pick(card, on) {
  if (on) picked.set(keyOf(card), [card.dataset.assignment || null, snapshot]);
  else picked.delete(keyOf(card));
}

document.querySelector(".gallery").addEventListener("change", (event) => {
  if (!event.target.matches(".pick")) return;
  pick(event.target.closest("li"), event.target.checked);
  draw();
});

const acts = {
  page: () => cards.forEach((card) => pick(card, true)),
  none: () => picked.clear(),
  only: () => location.assign(`/episodes?${new URLSearchParams([...picked.keys()].map((key) => ["pick", key]))}`),
};
bar.addEventListener("click", ({ target }) => {
  acts[target.dataset.do]?.();
  draw();
});
// A form for each kind: Enter does what its first button does
bar.addEventListener("submit", async (event) => {
  event.preventDefault();
  const { name: kind, value } = event.target.querySelector("input");
  const episodes = [...picked].map(([key, [seen]]) => {
    const [dataset, number] = key.split(/ (?=\d+$)/);
    return [dataset, Number(number), seen];
  });
  const oldest = Math.min(...[...picked.values()].map(([, shown]) => shown));
  const answer = await post("/api/marks", { kind, value: value.trim(), on: event.submitter.value === "on", episodes, snapshot: oldest });
  // What was picked is done with; the page shows what became of it
  if (answer.ok) picked.clear();
  draw();
  told(answer, $("picked-state"));
});
// What was seen of cards on this page is as new as the page
for (const card of cards) if (picked.has(keyOf(card))) pick(card, true);
draw();
