// Views of the gallery kept by name; and its sliders, which say nothing where they stand at their ends.
import { post, remove, told } from "./request.js";

const state = document.getElementById("view-state");
document.getElementById("keep-view")?.addEventListener("submit", (event) => {
  event.preventDefault();
  told(post("/api/views", { name: document.getElementById("view-name").value, query: location.search }), state);
});
document.querySelector(".views").addEventListener("click", (event) => {
  const button = event.target.closest(".forget");
  if (button) told(remove(`/api/views/${encodeURIComponent(button.dataset.name)}`), state);
});

const form = document.querySelector(".search");
const sliders = [...form.querySelectorAll("input[type=range]")];
for (const slider of sliders) {
  slider.addEventListener("input", () => (slider.closest("label").querySelector("output").textContent = Number(slider.value)));
  slider.addEventListener("change", () => form.requestSubmit());
}
form.addEventListener("formdata", ({ formData }) => {
  for (const { name, value, dataset } of sliders) if (Number(value) === Number(dataset.rest)) formData.delete(name);
  if (!formData.get("q")) formData.delete("q");
});
