// Requests that change something: JSON with the page's CSRF token. Returns {ok, status, data}.
export const token = document.querySelector("meta[name=csrf-token]").content;

export const post = (url, body) => send("POST", url, body);
export const remove = (url) => send("DELETE", url, {});

// A request that the page then shows the outcome of; a refusal is said in `line`
export async function told(request, line) {
  const { ok, data } = await request;
  if (ok) location.reload();
  else line.textContent = data.error;
}

let sending = 0;
const show = (more) => document.body.toggleAttribute("data-sending", (sending += more) > 0); // see the style sheet

async function send(method, url, body) {
  show(1);
  try {
    const answer = await fetch(url, {
      method,
      headers: { "content-type": "application/json", "x-csrf-token": token },
      body: JSON.stringify(body),
    });
    const data = await answer.json().catch(() => ({ error: `the server answered ${answer.status}` }));
    return { ok: answer.ok, status: answer.status, data };
  } catch {
    return { ok: false, status: 0, data: { error: "the explorer cannot be reached: is it still running?" } };
  } finally {
    show(-1);
  }
}
