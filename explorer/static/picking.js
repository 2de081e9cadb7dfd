// Single episodes of the gallery that are picked, over its pages: tagged, assigned, or shown alone.
import { $, post } from "./page.js";

const bar = $("picked");
const STORED = "picked";
// "dataset number" of each, and the assignment that was seen of it
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
  if (on) picked.set(keyOf(card), card.dataset.assignment || null);
  else picked.delete(keyOf(card));
}

document.querySelector(".gallery").addEventListener("change", (event) => {
  if (!event.target.matches(".pick")) return;
  pick(event.target.closest("li"), event.target.checked);
  draw();
});

async function mark(kind, on) {
  const field = bar.elements[kind];
  const value = field.value.trim();
  if (!value) return field.focus();
  const episodes = [...picked].map(([key, seen]) => {
    const [dataset, number] = key.split(/ (?=\d+$)/);
    return [dataset, Number(number), seen];
  });
  const { ok, data } = await post("/api/marks", { kind, value, on, episodes });
  if (!ok) return void ($("picked-state").textContent = data.error);
  // What was picked is done with; the page shows what became of it
  picked.clear();
  draw();
  location.reload();
}

const acts = {
  page: () => (cards.forEach((card) => pick(card, true)), draw()),
  none: () => (picked.clear(), draw()),
  only: () => location.assign(`/episodes?${new URLSearchParams([...picked.keys()].map((key) => ["pick", key]))}`),
  tag: () => mark("tag", true),
  untag: () => mark("tag", false),
  assign: () => mark("assigned", true),
  unassign: () => mark("assigned", false),
};
bar.addEventListener("click", (event) => {
  const act = event.target.closest("[data-do]")?.dataset.do;
  if (act && event.target.type !== "submit") acts[act]();
});
// Enter in a field does what stands beside it
bar.addEventListener("submit", (event) => {
  event.preventDefault();
  acts[document.activeElement?.name === "assigned" ? "assign" : "tag"]();
});
// What was seen of cards on this page is as new as the page
for (const card of cards) if (picked.has(keyOf(card))) pick(card, true);
draw();
