const ask = window.fetch;
window.fetch = async (url, how) => {
  // The curve of what is edited is asked for without a word: nobody waits for it
  if (!how?.method || how.method === "GET" || String(url).startsWith("/api/curves/")) return ask(url, how);
  await new Promise((go) => setTimeout(go, 500));
  const sent = JSON.parse(localStorage.getItem("sent") ?? "[]");
  sent.push([String(url), getComputedStyle(document.body, "::before").content]);
  localStorage.setItem("sent", JSON.stringify(sent));
  return ask(url, how);
};
