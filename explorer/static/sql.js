// The SQL page: Ctrl-Enter runs, Cancel stops what runs, queries are kept.
import "./buttons.js";
import { $, post, token, told } from "./page.js";

const form = $("ask");
$("sql").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
});
// The answer is fetched, so that it can be given up: the server stops a query that nobody waits for
let waiting = null;

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  waiting?.abort();
  const own = (waiting = new AbortController());
  const url = `/sql?${new URLSearchParams(new FormData(form))}`;
  $("cancel").hidden = false;
  $("told").textContent = "running";
  try {
    const answer = await fetch(url, { signal: own.signal, headers: { "x-csrf-token": token } });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const found = page.getElementById("answer") ?? page.querySelector(".message");
    $("answer").replaceChildren(...(found.id ? found.childNodes : [found]));
    history.pushState(null, "", url);
    $("told").textContent = "";
  } catch (error) {
    if (own === waiting) $("told").textContent = error.name === "AbortError" ? "stopped" : "the explorer does not answer";
  }
  if (own === waiting) $("cancel").hidden = true;
});
$("cancel").addEventListener("click", () => waiting?.abort());
addEventListener("popstate", () => location.reload());
$("save").addEventListener("click", () => told(post("/api/queries", { name: $("name").value.trim(), sql: $("sql").value }), $("told")));
