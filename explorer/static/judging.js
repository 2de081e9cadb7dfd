// Labels judged, and how runs ended, by mouse or keyboard: a row of a queue's list at a time, or on an episode's page,
// where the next one follows. What was said last in this tab can be taken back on the page that came after it.
import { $, author, element, isKnown, onKeys, post, remember } from "./page.js";
import "./pictures.js";

const KEY = "last judgement";
const list = document.querySelector("#queue tbody");
const bar = list ? null : $("queue"); // of an episode in a queue
const ending = $("outcome"); // of an episode's page
const state = $("review-state");
const form = $("reviewer");
const editor = $("editor");
const rows = () => [...(list?.children ?? [])];
const current = () => document.activeElement.closest("#queue tbody tr");
const select = (i) => rows().at(Math.min(rows().length - 1, Math.max(0, i)))?.querySelector("a").focus();

// Something is said of a run: `of` is its row, or a bar of its page. Returns the answer; null: it was refused, which is shown
async function say(of, url, body) {
  if (of.inert || (form && !form.reportValidity())) return null;
  if (form) remember(form.author.value);
  of.inert = true;
  const { ok, data } = await post(url, body);
  of.inert = ok; // until the page goes on
  const line = state ?? of.querySelector("[role=status]");
  line.textContent = ok ? "" : `${data.error} `;
  line.classList.toggle("bad", !ok);
  return ok ? data : null;
}

// A row that is done with leaves the list; from a page one comes to the next. undo: the address and what to send
function goOn(of, words, undo, leaves) {
  const what = `${of.dataset.dataset} ${of.dataset.episode}: ${words}`;
  if (!list) sessionStorage.setItem(KEY, JSON.stringify({ what, undo }));
  else state.textContent = `${what}.`;
  of.inert = leaves;
  if (!leaves) return;
  if (!list) return location.replace(bar.dataset.after);
  const i = rows().indexOf(of);
  of.remove();
  if (rows().length) select(i);
  else location.reload();
}

const WORDS = { accept: "accepted", reject: "rejected", keep: "the old label is accepted" };

// A label, or a correction that waits
async function judge(of, act) {
  if (bar && !bar.dataset.number) return false;
  const { dataset, episode, run, correction, follows, recording } = of.dataset;
  const url = `/api/corrections/${encodeURIComponent(dataset)}/${episode}`;
  const what = correction && act === "reject" ? "undo" : act === "keep" ? "accept" : act;
  const label = act === "keep" ? of.querySelector("[data-old]").dataset.old : run;
  const about = correction ? { correction_id: correction } : { base_label_run: label };
  const said = await say(of, `${url}/${what}`, { follows: follows || null, ...about, ...(recording && { recording }) });
  if (said) goOn(of, WORDS[act], [`${url}/undo`, { correction_id: said.saved, follows: said.saved }], true);
  return said;
}

// A run succeeded, failed (from the moment at the cursor, where one is meant), or was left unfinished
async function end(of, outcome) {
  const { dataset, episode, ended, follows, recording, frame } = of.dataset;
  const moment = outcome === "failed" && frame ? Number(frame) : null;
  const url = `/api/outcomes/${encodeURIComponent(dataset)}/${episode}`;
  const body = { outcome, frame: moment, follows: ended || null, follows_correction: follows || null };
  const said = await say(of, url, { ...body, ...(recording && { recording }) });
  if (!said) return;
  const words = moment === null ? outcome : of.querySelector("[data-outcome=failed] span").textContent.toLowerCase();
  const undo = [`${url}/undo`, { import_id: said.saved, correction_id: said.correction }];
  of.dataset.ended = said.saved;
  for (const button of list ? of.querySelectorAll("[data-outcome]") : []) button.ariaPressed = button.dataset.outcome === outcome;
  const isAnswered = list ? ["unfinished", "doubtful"].includes(state.dataset.kind) : bar?.dataset.number && ("goesOn" in of.dataset || (moment !== null && said.correction));
  goOn(of, words, undo, Boolean(isAnswered));
  if (list || isAnswered) return;
  if (said.correction) return location.reload();
  $("outcome-words").replaceChildren(element("b", { className: outcome === "succeeded" ? "good" : "bad", textContent: words }), "; labels follow with the next build");
  of.querySelector("[data-take-back]").hidden = false;
}

async function takeBack() {
  const { dataset, episode, ended } = ending.dataset;
  if (await say(ending, `/api/outcomes/${encodeURIComponent(dataset)}/${episode}/undo`, { import_id: ended })) location.reload();
}

// The rest of a queue, or of a selection, part by part, after a sample of it was looked at
async function acceptOthers(button) {
  const [progress, body] = [$("bulk-progress"), JSON.parse(button.dataset.asked)];
  button.disabled = true;
  progress.hidden = false;
  for (let total = 0; ; ) {
    const { ok, data } = await post("/api/bulk", body);
    if (ok) total += data.accepted;
    progress.value = total;
    state.textContent = ok ? `${total} labels accepted by ${author()}, ${data.left} left. ${data.refused.slice(0, 3).join("; ")}` : data.error;
    state.classList.toggle("bad", !ok || data.refused.length > 0);
    if (!ok || !data.left || !data.accepted) return;
  }
}

async function fix() {
  const { player } = await import("./player.js");
  player.play(false);
  editor.classList.add("open");
  (await import("./editor.js")).comeHere();
}

document.querySelector("main").addEventListener("click", async ({ target }) => {
  const button = target.closest("button");
  if (!button) return;
  const { outcome, act } = button.dataset;
  const of = button.closest("#queue tbody tr");
  if (outcome) end(of ?? ending, outcome);
  else if (act === "fix") fix();
  else if (act) judge(of ?? bar, act);
  else if ("takeBack" in button.dataset) takeBack();
  else if (button.id === "accept-others") acceptOthers(button);
  if (!("all" in button.dataset || "ticked" in button.dataset)) return;
  const several = rows().filter((row) => "all" in button.dataset || row.querySelector(".tick").checked);
  for (const row of several) if (!(await judge(row, "accept"))) return;
});

// Of the row that has the focus, else of the page. In the editor keys mean something else, or nothing
const press = (act, bar) => (event) => {
  if (event.target.closest("#editor")) return false;
  const of = list ? current() : bar;
  if (of && !event.repeat) act(of);
};
const follow = (name) => (of) => (of.querySelector(`[data-act=${name}]`) ?? of.querySelector("a")).click();
if (!list || form) {
  for (const [key, outcome] of Object.entries({ g: "succeeded", b: "failed", u: "unfinished" }))
    onKeys({ [key]: press((of) => of.querySelector(`[data-outcome=${outcome}]`)?.click(), ending) });
  if (list || bar) onKeys({ a: press((of) => judge(of, "accept"), bar), x: press((of) => judge(of, "reject"), bar) });
}
if (list)
  onKeys({
    enter: ({ target }) => !target.closest("a, button, summary") && $("start")?.click(),
    j: () => select(rows().indexOf(current()) + 1),
    k: () => select(rows().indexOf(current()) - 1),
    f: press(follow("fix")),
  });

if (form) {
  if (!isKnown) form.author.value = author();
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("change", () => remember(form.author.value));
}
// Whoever starts from a list starts to count anew
if (state) for (const stored of Object.keys(sessionStorage)) if (stored.startsWith("queue ")) sessionStorage.removeItem(stored);

// Of a queue: how many are left, and at what pace; what was said last, and the way to take it back
if (bar) {
  const { kind, number, total, dataset, episode } = bar.dataset;
  if ($("queue-author")) $("queue-author").textContent = author();
  onKeys({ s: press(follow("skip"), bar), f: press(() => number && fix(), bar), Escape: () => (editor?.classList.remove("open"), editor?.querySelector(":focus")?.blur()) });
  // What corrects a label stays folded away until it is wanted: the curves are in sight
  if (location.hash === "#editor") editor?.classList.add("open");
  editor?.addEventListener("focusin", () => editor.classList.add("open"));

  // This tab remembers how many there were when it began, and when each episode came
  const LONGEST_GAP_S = 300; // longer ones are breaks
  const FEWEST = 10; // judgements, before they tell how long the rest takes
  const stored = `queue ${kind}`;
  let sitting = JSON.parse(sessionStorage.getItem(stored) ?? "null");
  if (!sitting || Number(total) > sitting.total) sitting = { total: Number(total), seen: [] };
  const here = `${dataset} ${episode}`;
  if (sitting.seen.at(-1)?.[0] !== here) sitting.seen.push([here, Date.now()]);
  sitting.seen = sitting.seen.slice(-30);
  sessionStorage.setItem(stored, JSON.stringify(sitting));
  if (number) $("place").textContent = `${sitting.total - Number(total) + Number(number)} of ${sitting.total}`;
  const gaps = sitting.seen.slice(1).map(([, at], k) => (at - sitting.seen[k][1]) / 1000).filter((s) => s < LONGEST_GAP_S).sort((a, b) => a - b);
  const each = gaps.length < FEWEST ? null : gaps[gaps.length >> 1];
  const lasts = (s) => (s < 90 ? `${Math.max(1, Math.round(s))} s` : s < 5400 ? `${Math.round(s / 60)} min` : `${(s / 3600).toFixed(1)} h`);
  const left = `${Number(total).toLocaleString("en")} left`;
  $("queue-pace").textContent = each ? `${left}, ${lasts(each)} each: about ${lasts(each * Number(total))}` : left;

  const last = JSON.parse(sessionStorage.getItem(KEY) ?? "null");
  if (last) {
    const button = element("button", { type: "button" }, "Undo ", element("kbd", { textContent: "Z" }));
    const line = element("span", { className: "quiet", id: "last", role: "status" }, `${last.what} `, button);
    const undo = async () => {
      button.disabled = true;
      const { ok, data } = await post(...last.undo);
      sessionStorage.removeItem(KEY);
      const [dataset, number] = last.what.split(": ")[0].split(" ");
      const link = element("a", { href: `/episode/${encodeURIComponent(dataset)}/${number}`, textContent: "open it" });
      line.replaceChildren(ok ? `${last.what}: taken back, ` : `${data.error}, `, link);
    };
    button.addEventListener("click", undo);
    bar.append(line);
    onKeys({ z: press(() => button.isConnected && undo(), bar) });
  }
}
