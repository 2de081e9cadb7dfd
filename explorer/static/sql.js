// The SQL page: Ctrl-Enter runs, Cancel stops what runs, queries are kept.
import "./copy.js";
import { post, remove, told, token } from "./request.js";

const byId = (id) => document.getElementById(id);
const form = byId("ask");

byId("sql").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    form.requestSubmit();
  }
});
// The answer is fetched, so that it can be given up: the server stops a query that nobody waits for
let waiting = null;

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  waiting?.abort();
  const own = (waiting = new AbortController());
  const url = `/sql?${new URLSearchParams(new FormData(form))}`;
  byId("cancel").hidden = false;
  byId("told").textContent = "running";
  try {
    const answer = await fetch(url, { signal: own.signal, headers: { "x-csrf-token": token } });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const found = page.getElementById("answer") ?? page.querySelector(".message");
    byId("answer").replaceChildren(...(found.id ? found.childNodes : [found]));
    history.pushState(null, "", url);
    byId("told").textContent = "";
  } catch (error) {
    if (own === waiting) byId("told").textContent = error.name === "AbortError" ? "stopped" : "the explorer does not answer";
  }
  if (own === waiting) byId("cancel").hidden = true;
});
byId("cancel").addEventListener("click", () => waiting?.abort());
addEventListener("popstate", () => location.reload());

byId("save").addEventListener("click", () => {
  told(post("/api/queries", { name: byId("name").value.trim(), sql: byId("sql").value }), byId("told"));
});
byId("saved").addEventListener("click", (event) => {
  const button = event.target.closest(".forget");
  if (button) told(remove(`/api/queries/${encodeURIComponent(button.dataset.name)}`), byId("told"));
});
