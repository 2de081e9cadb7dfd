// What the theme leaves without a name, or out of a keyboard's reach; it makes parts of the page later.
function mend() {
  document.querySelector(".md-search")?.setAttribute("aria-label", "Search");
  for (const box of document.querySelectorAll(".md-typeset__scrollwrap")) box.tabIndex = 0;
  document.querySelectorAll(".md-code__nav").forEach((bar, k) => bar.setAttribute("aria-label", `Code ${k + 1}`));
}
new MutationObserver(mend).observe(document.body, { childList: true, subtree: true });
mend();
