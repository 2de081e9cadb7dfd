// The SQL page: Ctrl-Enter runs, Cancel stops what runs (the server sees that nobody waits any more), queries are kept.
import "./copy.js";

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

async function send(url, options) {
  const answer = await fetch(url, options);
  const found = await answer.json();
  byId("told").textContent = answer.ok ? "saved" : found.error;
  if (answer.ok) location.reload();
}

byId("save").addEventListener("click", () => {
  const body = JSON.stringify({ name: byId("name").value.trim(), sql: byId("sql").value });
  send("/api/queries", { method: "POST", headers: { "Content-Type": "application/json" }, body });
});
byId("saved").addEventListener("click", (event) => {
  const button = event.target.closest(".forget");
  if (button) send(`/api/queries/${encodeURIComponent(button.dataset.name)}`, { method: "DELETE" });
});
