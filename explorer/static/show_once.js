// Labelling by showing, of a dataset: which run to label next, and how far the others are labelled like it.
import { labelPanel } from "./labelling.js";
import { element, get } from "./page.js";

for (const box of document.querySelectorAll(".label-others[data-dataset]"))
  labelPanel(box, box.dataset.dataset, null, () => location.reload());

// The error of progress that the others' labels are expected to have once this one is labelled, too
function expected(next) {
  const then = next.expected?.find((e) => e.references === next.references.length + 1);
  return then ? ` Expected error of progress then: ${then.error.toFixed(3)}.` : "";
}

// Computed when it is asked for, which takes seconds on large tasks
const section = document.querySelector(".show-once");
if (section) {
  const dataset = encodeURIComponent(section.dataset.dataset);
  const { data } = await get(`/api/labelling/${dataset}/suggestions`);
  for (const row of section.querySelectorAll("tr[data-task]")) {
    const cell = row.querySelector(".next");
    const next = data.suggestions?.find((s) => (s.task ?? "") === row.dataset.task);
    if (cell.textContent !== "…") continue;
    if (!next) cell.textContent = data.error ?? "any run";
    else if (next.label_next === null) cell.textContent = next.why;
    else cell.replaceChildren(element("a", { className: "button main", href: `/episode/${dataset}/${next.label_next}#editor`, textContent: `Episode ${next.label_next}` }), ` ${[next.why, ...(next.caveats ?? [])].map((said) => said.replace(/\.?$/, ". ")).join("")}${expected(next)}`);
  }
}
