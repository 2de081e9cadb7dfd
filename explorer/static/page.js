// What scripts of several pages need: elements, keys, who one is, and requests.
export const $ = (id) => document.getElementById(id);

// A new element with its properties and what is in it.
export function element(name, properties, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

// What keys of the page do: not where one types, with Ctrl, Alt or Cmd, or below a dialog; false leaves a key to others.
export function onKeys(acts) {
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (event.target.closest("input:not([type=range], [type=checkbox]), select, textarea")) return;
    const act = acts[event.key] ?? acts[event.key.toLowerCase()];
    if (act && act(event) !== false) event.preventDefault();
  });
}

// Who judges: the name that a proxy gives, which is known, else the one that was last given in this browser.
const begun = document.querySelector("meta[name=author]");
export const isKnown = "known" in begun.dataset;
export const author = () => (isKnown ? begun.content : (localStorage.getItem("author") ?? begun.content));
export const remember = (name) => isKnown || localStorage.setItem("author", name);

// Requests: {ok, status, data}. Those that change something bring JSON with the page's CSRF token, and say whose they are.
export const token = document.querySelector("meta[name=csrf-token]").content;
// The recording that a page of one episode shows: what is said there is of no other that has its number later
const shown = document.querySelector("meta[name=recording]");
const isShown = (url) => shown && `${url}/`.includes(`/${shown.dataset.place}/`);
// The state of the corpus that the page shows: a number is that recording's which had it then
export const snapshot = Number($("snapshot")?.textContent);
const seen = { ...(snapshot && { snapshot }) };
export const post = (url, body) => send("POST", url, { author: author(), ...seen, ...(isShown(url) && { recording: shown.content || null }), ...body });
export const remove = (url) => send("DELETE", url, {});

// A request that the page then shows the outcome of; a refusal is said in `line`
export async function told(request, line) {
  const { ok, data } = await request;
  if (ok) location.reload();
  else line.textContent = data.error;
}

// A form that says something: its address (data-say) gets its fields, with what it says besides (data-said)
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (!form.dataset.say) return;
  event.preventDefault();
  const fields = Object.fromEntries([...new FormData(form)].map(([name, value]) => [name, value.trim()]));
  const line = form.closest(":has([role=status])").querySelector("[role=status]"); // its own, or the nearest around it
  told(post(form.dataset.say, { ...JSON.parse(form.dataset.said ?? "{}"), ...fields }), line);
});

export async function get(url, how) {
  try {
    const answer = await fetch(url, how);
    const data = await answer.json().catch(() => ({ error: `the server answered ${answer.status}` }));
    return { ok: answer.ok, status: answer.status, data };
  } catch {
    return { ok: false, status: 0, data: { error: "the explorer cannot be reached: is it still running?" } };
  }
}

let sending = 0;
const show = (more) => document.body.toggleAttribute("data-sending", (sending += more) > 0); // see the style sheet

async function send(method, url, body) {
  show(1);
  const headers = { "content-type": "application/json", "x-csrf-token": token };
  const answer = await get(url, { method, headers, body: JSON.stringify(body) });
  show(-1);
  return answer;
}
