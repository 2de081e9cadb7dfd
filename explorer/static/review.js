// The review queue: a row at a time, by mouse or keyboard.
import { judge as judged, reviewer } from "./judging.js";
import "./pictures.js";

const rows = () => [...document.querySelectorAll("#queue tbody tr")];
const state = document.getElementById("review-state");
const form = document.getElementById("reviewer");
const author = form?.author;
const isKnown = author && "known" in author.dataset;
if (author) author.value = reviewer(isKnown, author.value);
form?.addEventListener("submit", (event) => event.preventDefault());
author?.addEventListener("change", () => isKnown || localStorage.setItem("author", author.value));
// Whoever starts from here starts to count anew
for (const stored of Object.keys(sessionStorage)) if (stored.startsWith("queue ")) sessionStorage.removeItem(stored);

let at = -1;

function select(i) {
  const all = rows();
  if (!all.length) return;
  at = Math.min(all.length - 1, Math.max(0, i));
  all.forEach((row, k) => row.setAttribute("aria-selected", String(k === at)));
  all[at].querySelector("a").focus();
}

async function judge(row, act) {
  if (!form.reportValidity()) return;
  const { dataset, episode } = row.dataset;
  row.inert = true;
  const of = act === "keep" ? { ...row.dataset, run: row.querySelector("[data-old]").dataset.old } : row.dataset;
  const { ok, data } = await judged(of, act === "keep" ? "accept" : act, author.value);
  row.inert = false;
  if (!isKnown) localStorage.setItem("author", author.value);
  state.textContent = ok ? `${dataset} ${episode}: ${act === "reject" ? "rejected" : act === "keep" ? "the old label is accepted" : "accepted"}.` : data.error;
  state.classList.toggle("bad", !ok);
  if (!ok) return false;
  const i = rows().indexOf(row);
  row.remove();
  if (rows().length) select(i);
  else location.reload();
  return true;
}

document.querySelector("main").addEventListener("click", async ({ target }) => {
  if (!target.matches("[data-all], [data-ticked]")) return;
  const several = rows().filter((row) => "all" in target.dataset || row.querySelector(".tick").checked);
  for (const row of several) if (!(await judge(row, "accept"))) return;
});

document.getElementById("queue")?.addEventListener("click", (event) => {
  const act = event.target.closest("[data-act]")?.dataset.act;
  if (act && act !== "fix") judge(event.target.closest("tr"), act);
});

document.addEventListener("keydown", (event) => {
  if (event.target.closest("input, select, textarea") || event.ctrlKey || event.metaKey || event.altKey) return;
  const key = event.key.toLowerCase();
  if (key === "enter" && at < 0) document.getElementById("start")?.click();
  else if (key === "j") select(at + 1);
  else if (key === "k") select(at - 1);
  else if (at >= 0 && form && key === "a") judge(rows()[at], "accept");
  else if (at >= 0 && form && key === "x") judge(rows()[at], "reject");
  else if (at >= 0 && key === "f") (rows()[at].querySelector("[data-act=fix]") ?? rows()[at].querySelector("a")).click();
  else return;
  event.preventDefault();
});
