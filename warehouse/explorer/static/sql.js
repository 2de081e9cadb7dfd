// The SQL page: Ctrl-Enter runs, Cancel stops what runs (the server sees that nobody waits any more), queries are kept.
import "./copy.js";
import { post, remove } from "./request.js";

const byId = (id) => document.getElementById(id);
const form = byId("ask");

byId("sql").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    form.requestSubmit();
  }
});
form.addEventListener("submit", () => {
  byId("cancel").hidden = false;
  byId("told").textContent = "running";
});
byId("cancel").addEventListener("click", () => {
  window.stop();
  byId("cancel").hidden = true;
  byId("told").textContent = "stopped";
});
addEventListener("pageshow", () => (byId("cancel").hidden = true));

async function told(request) {
  const { ok, data } = await request;
  byId("told").textContent = ok ? "saved" : data.error;
  if (ok) location.reload();
}

byId("save").addEventListener("click", () => {
  told(post("/api/queries", { name: byId("name").value.trim(), sql: byId("sql").value }));
});
byId("saved").addEventListener("click", (event) => {
  const button = event.target.closest(".forget");
  if (button) told(remove(`/api/queries/${encodeURIComponent(button.dataset.name)}`));
});
