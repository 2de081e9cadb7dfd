// Buttons that copy a text (data-copy), and that delete what was kept by name (data-forget: its address).
import { $, remove, told } from "./page.js";

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy], [data-forget]");
  if (button?.dataset.forget) return told(remove(button.dataset.forget), $("told"));
  if (!button) return;
  try {
    await navigator.clipboard.writeText(button.dataset.copy);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(button.previousElementSibling);
    button.textContent = "Press Ctrl-C";
  }
  setTimeout(() => (button.textContent = "Copy"), 2000);
});
