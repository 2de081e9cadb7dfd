// Small pictures of episodes: a plain word where none can be had; and which part of a contact sheet the pointer shows.
for (const image of document.querySelectorAll(".picture img:not(.contact)")) {
  const missing = () => image.parentElement.replaceChildren("no picture");
  image.addEventListener("error", missing);
  if (image.complete && image.naturalWidth === 0 && image.getAttribute("loading") !== "lazy") missing();
}

for (const sheet of document.querySelectorAll(".contact"))
  sheet.parentElement.addEventListener("pointermove", (event) => {
    const box = sheet.parentElement.getBoundingClientRect();
    const share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    sheet.style.transform = `translateX(${(box.width - sheet.clientWidth) * share}px)`;
  });
