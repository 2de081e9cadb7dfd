// The gallery: keys, sliders, and what else its form needs.
import "./buttons.js";
import { $, onKeys } from "./page.js";
import "./pictures.js";
import "./picking.js";
import "./labelling.js";

const form = document.querySelector(".search");
const sliders = [...form.querySelectorAll("input[type=range]")];
for (const slider of sliders) slider.addEventListener("input", () => (slider.closest("label").querySelector("output").textContent = Number(slider.value)));
form.addEventListener("change", (event) => event.target.matches("[type=range], #sort") && form.requestSubmit());
// A slider that stands at its end says nothing
form.addEventListener("formdata", ({ formData }) => {
  for (const { name, value, dataset } of sliders) if (Number(value) === Number(dataset.rest)) formData.delete(name);
  if (!formData.get("q")) formData.delete("q");
});

const links = [...document.querySelectorAll(".gallery li > a")];
const move = (step) => (event) => {
  const to = links.indexOf(document.activeElement) + step;
  if (event.target.matches("[type=range]") || to < 0) return false;
  links[Math.min(links.length - 1, to)]?.focus();
};
onKeys({
  "/": () => $("q").focus(),
  t: () => document.querySelector("#picked [name=tag]")?.focus(),
  x: () => document.activeElement.closest(".gallery li")?.querySelector(".pick").click(),
  ArrowRight: move(1),
  ArrowLeft: move(-1),
});
if (matchMedia("(max-width: 50rem)").matches) document.querySelector(".facets").open = false;
