// A box that scrolls sideways must be reachable by keyboard: it gets a tab stop while it is too wide.
"use strict";

const BOXES = [
  "span.math", "div.math mjx-container", ".highlight pre", "div.cell_output .output",
  ".pst-scrollable-table-container", ".amem-scroll",
].map((name) => `.bd-article ${name}`).join(",");

function markScrollable() {
  for (const box of document.querySelectorAll(BOXES)) {
    const folded = box.closest("details:not([open])"); // not laid out: whether it is wide shows when it opens
    const wide = folded || box.scrollWidth > box.clientWidth + 1 || box.scrollHeight > box.clientHeight + 1;
    if (wide && !box.hasAttribute("tabindex")) {
      box.tabIndex = 0;
      box.dataset.amemScroll = "";
    } else if (!wide && "amemScroll" in box.dataset) {
      box.removeAttribute("tabindex");
      delete box.dataset.amemScroll;
    }
  }
}

let waiting = 0;
function later() {
  cancelAnimationFrame(waiting);
  waiting = requestAnimationFrame(markScrollable);
}

window.addEventListener("load", () => {
  const typeset = window.MathJax && window.MathJax.startup && window.MathJax.startup.promise;
  Promise.resolve(typeset).then(later);
  document.addEventListener("toggle", later, true); // a folded solution opens
  document.addEventListener("click", later); // hidden cells and tabs
});
window.addEventListener("resize", later);
