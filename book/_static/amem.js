// A box that scrolls sideways must be reachable by keyboard: it gets a tab stop while it is too wide.
"use strict";

const BOXES = [
  "span.math", "div.math mjx-container", ".highlight pre", "div.cell_output .output",
  ".pst-scrollable-table-container", ".amem-figure", ".amem-scroll",
].map((name) => `.bd-article ${name}`).join(",");

// What is seen of a formula in a line is its container: the hidden MathML beside it may be wider.
function content(box) {
  const formula = box.matches("span.math") && box.querySelector("mjx-container");
  return formula ? formula.getBoundingClientRect().width : box.scrollWidth;
}

// Whether there is more to the right: the style sheet fades that edge.
function ended(box) {
  const left = content(box) - box.clientWidth - box.scrollLeft;
  box.dataset.amemScroll = left > 4 ? "more" : "";
}

function mark(box) {
  // wider than its place now, or than the column of a phone, to which the window may be turned at any time
  const width = Math.max(content(box), box.getBoundingClientRect().width);
  const scrolls = box.clientWidth > 0 && content(box) > box.clientWidth + 1;
  const high = !box.matches("span.math") && box.scrollHeight > box.clientHeight + 1;
  const wide = width > 240 || scrolls || high;
  if (wide) {
    box.tabIndex = 0; // the theme, too, sets it, later
    if (!("amemScroll" in box.dataset)) box.addEventListener("scroll", () => ended(box), { passive: true });
    ended(box);
  } else if (!wide && "amemScroll" in box.dataset) {
    box.removeAttribute("tabindex");
    delete box.dataset.amemScroll;
  }
}

// A box changes its size when the window does, and when the fold it lies in is opened.
const sizes = new ResizeObserver((entries) => entries.forEach(({ target }) => mark(target)));
window.addEventListener("load", async () => {
  await (window.MathJax && window.MathJax.startup && window.MathJax.startup.promise);
  for (const box of document.querySelectorAll(BOXES)) sizes.observe(box);
});
