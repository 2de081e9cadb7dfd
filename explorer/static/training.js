// Curves of training runs: their values at the pointer, the same step in all charts; runs are switched on and off.
const sections = [...document.querySelectorAll("#curves section")].map((box) => ({
  track: box.querySelector(".track"),
  at: box.querySelector(".at"),
  outputs: [...box.querySelectorAll("output[data-line]")],
  paths: [...box.querySelectorAll("path")],
  ...JSON.parse(box.querySelector(".points").textContent),
}));

// The value of the newest point at or before a step
const valueAt = ({ frames, values }, step) => values[frames.findLastIndex((f) => f <= step)] ?? null;
const shown = (value) => (value === null ? "–" : String(Number(value.toPrecision(4))));

function draw(step) {
  for (const { at, outputs, lines } of sections) {
    at.textContent = step === null ? "" : `step ${step}`;
    for (const output of outputs) output.textContent = step === null ? output.dataset.last : shown(valueAt(lines[output.dataset.line], step));
  }
}

for (const { track, steps } of sections) {
  track.addEventListener("pointermove", (event) => {
    const box = track.getBoundingClientRect();
    draw(Math.min(steps - 1, Math.max(0, Math.floor(((event.clientX - box.left) / box.width) * steps))));
  });
  track.addEventListener("pointerleave", () => draw(null));
}

document.addEventListener("change", (event) => {
  const run = event.target.dataset.run;
  if (run === undefined) return;
  for (const { paths } of sections) paths[run]?.classList.toggle("off", !event.target.checked);
});
