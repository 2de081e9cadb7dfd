// The gallery: arrow keys from one episode to the next, and what its form needs.
import "./copy.js";
import "./pictures.js";
import "./picking.js";
import "./views.js";

document.getElementById("sort").addEventListener("change", (event) => event.target.form.requestSubmit());

document.addEventListener("keydown", (event) => {
  if (event.target.closest("input:not([type=checkbox], [type=range]), select, textarea") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "/") {
    event.preventDefault();
    document.getElementById("q").focus();
  }
  const links = [...document.querySelectorAll(".gallery li > a")];
  const at = links.indexOf(document.activeElement);
  if (event.target.matches("[type=range]")) return;
  if (event.key === "ArrowRight" && links.length) links[Math.min(links.length - 1, at + 1)].focus();
  else if (event.key === "ArrowLeft" && at > 0) links[at - 1].focus();
  else if (event.key === "x" && at >= 0) links[at].parentElement.querySelector(".pick").click();
  else if (event.key === "t") {
    event.preventDefault();
    document.querySelector("#picked [name=tag]")?.focus();
  }
});
if (matchMedia("(max-width: 50rem)").matches) document.querySelector(".facets").open = false;
