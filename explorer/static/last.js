// What was judged last in this tab, and the way to take it back: on the page that came after it.
import { $, element, onKeys, post } from "./page.js";

const KEY = "last judgement";
const bar = $("queue");
const last = JSON.parse(sessionStorage.getItem(KEY) ?? "null");

// undo: the address and what to send
export const keepLast = (what, undo) => sessionStorage.setItem(KEY, JSON.stringify({ what, undo }));

if (last && bar) {
  const button = element("button", { type: "button" }, "Undo ", element("kbd", { textContent: "Z" }));
  const line = element("span", { className: "quiet", id: "last" }, `${last.what} `, button);
  line.setAttribute("role", "status");
  const undo = async () => {
    button.disabled = true;
    const { ok, data } = await post(...last.undo);
    sessionStorage.removeItem(KEY);
    const [dataset, number] = last.what.split(": ")[0].split(" ");
    const link = element("a", { href: `/episode/${encodeURIComponent(dataset)}/${number}`, textContent: "open it" });
    line.replaceChildren(ok ? `${last.what}: taken back, ` : `${data.error}, `, link);
  };
  button.addEventListener("click", undo);
  bar.append(line);
  onKeys({ z: (event) => !event.target.closest("#editor") && button.isConnected && void undo() });
}
