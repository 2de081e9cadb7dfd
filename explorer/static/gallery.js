// The gallery: a contact sheet while the pointer or the focus is on a picture, a plain word where none can be had,
// and arrow keys from one episode to the next.
import "./copy.js";

for (const image of document.querySelectorAll(".picture img")) {
  const missing = () => {
    const box = image.parentElement;
    box.classList.add("missing");
    box.textContent = "no picture";
  };
  image.addEventListener("error", missing);
  if (image.complete && image.naturalWidth === 0 && image.getAttribute("loading") !== "lazy") missing();
}

const sheets = new Map();

function show(box) {
  const image = box.querySelector("img");
  if (!image || box.classList.contains("sheet")) return;
  const sheet = sheets.get(box) ?? new Image();
  sheets.set(box, sheet);
  sheet.alt = "";
  sheet.className = "contact";
  sheet.onload = () => box.matches(".wanted") && box.classList.add("sheet");
  box.classList.add("wanted");
  if (!sheet.src) {
    sheet.src = box.dataset.sheet;
    box.append(sheet);
  } else if (sheet.complete && sheet.naturalWidth) box.classList.add("sheet");
}

for (const link of document.querySelectorAll(".gallery a")) {
  const box = link.querySelector(".picture");
  const hide = () => box.classList.remove("sheet", "wanted");
  link.addEventListener("pointerenter", () => show(box));
  link.addEventListener("focus", () => show(box));
  link.addEventListener("pointerleave", hide);
  link.addEventListener("blur", hide);
  box.addEventListener("pointermove", (event) => {
    const sheet = sheets.get(box);
    if (!sheet?.naturalWidth) return;
    const share = Math.min(1, Math.max(0, (event.clientX - box.getBoundingClientRect().left) / box.clientWidth));
    const spare = sheet.clientWidth - box.clientWidth;
    sheet.style.transform = `translateX(${-spare * share}px)`;
  });
}

document.getElementById("sort").addEventListener("change", (event) => event.target.form.requestSubmit());

document.addEventListener("keydown", (event) => {
  if (event.target.closest("input, select, textarea") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "/") {
    event.preventDefault();
    document.getElementById("q").focus();
  }
  const links = [...document.querySelectorAll(".gallery a")];
  const at = links.indexOf(document.activeElement);
  if (event.key === "ArrowRight" && links.length) links[Math.min(links.length - 1, at + 1)].focus();
  else if (event.key === "ArrowLeft" && at > 0) links[at - 1].focus();
});
if (matchMedia("(max-width: 50rem)").matches) document.querySelector(".facets").open = false;
