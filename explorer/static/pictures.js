// Small pictures of episodes: a contact sheet, where there is one, while the pointer or the focus is on a picture, and
// a plain word where no picture can be had.
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
  if (!image || !box.dataset.sheet || box.classList.contains("sheet")) return;
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

for (const link of document.querySelectorAll(".gallery a, #queue a:has(.picture)")) {
  const box = link.querySelector(".picture");
  const hide = () => box.classList.remove("sheet", "wanted");
  for (const name of ["pointerenter", "focus"]) link.addEventListener(name, () => show(box));
  for (const name of ["pointerleave", "blur"]) link.addEventListener(name, hide);
  box.addEventListener("pointermove", (event) => {
    const sheet = sheets.get(box);
    if (!sheet?.naturalWidth) return;
    const share = Math.min(1, Math.max(0, (event.clientX - box.getBoundingClientRect().left) / box.clientWidth));
    const spare = sheet.clientWidth - box.clientWidth;
    sheet.style.transform = `translateX(${-spare * share}px)`;
  });
}
