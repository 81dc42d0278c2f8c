// A text under the cursor: each character is tinted by the root of what the one under the cursor pays it of attention,
// as a part of the most it pays. Underlines: a trigger solid, its output dotted, in the trigger's colour. The legend
// names up to five that are read, and none of those that are read as much as one left out.
VIEWS.sequence = (view, context) => {
  const text = html("div", { class: "ex-text", tabindex: 0, role: "slider", "aria-label": view.title, "aria-valuemin": 1 });
  const legend = html("div", { class: "ex-reads" }), holder = html("div", { class: "ex-view" }, html("p", { class: "ex-caption" }, view.title), text, legend);
  let cells = [], drawn = null;
  const choose = (event) => { // a finger keeps its first target: ask what lies under it now
    const k = cells.indexOf(document.elementFromPoint(event.clientX, event.clientY));
    if (k >= 0) context.setCursor(k / (cells.length - 1));
  };
  for (const name of ["pointermove", "pointerdown"]) text.addEventListener(name, choose);
  onArrows(text, (dx, dy) => context.stepCursor(dx - dy));
  const build = ({ tokens, marks }) => {
    cells = tokens.map((token, k) => html("span", marks[k] && { style: `border-bottom: ${marks[k] > 0 ? "3px solid" : "2px dotted"} ${context.color(Math.abs(marks[k]) - 1)}` }, token));
    fill(text, { "aria-valuemax": tokens.length }, []).replaceChildren(...cells);
  };
  const draw = (frame, state) => {
    holder.hidden = !frame[view.id]; // a layer that this model does not have
    if (holder.hidden) return;
    const { tokens, marks, reads, predicted } = frame[view.id], at = Math.round(state.cursor * (tokens.length - 1));
    const pairs = reads[at]; // position, share in percent
    const key = tokens.join("") + marks;
    if (key !== drawn) { drawn = key; build(frame[view.id]); }
    if (!pairs.every(([j, share]) => j in cells && j <= at && Number.isFinite(share) && share >= 0)) throw new Error("attention is not a share of an earlier character");
    const tint = new Map(pairs), most = Math.max(1, ...tint.values()), left = pairs[5]?.[1] ?? -1;
    const named = pairs.slice(0, 5).filter(([, share]) => share > left), rest = 100 - named.reduce((sum, [, share]) => sum + share, 0);
    cells.forEach((cell, j) => {
      cell.style.backgroundColor = tint.has(j) ? `color-mix(in srgb, ${context.color(0)} ${Math.round(15 + 45 * Math.sqrt(tint.get(j) / most))}%, transparent)` : "";
      cell.classList.toggle("ex-here", j === at);
    });
    const words = named.map(([j, share]) => `“${tokens[j]}” at ${j + 1} (${share}%)`).join(", ") || `no character with more than ${most}%`;
    legend.textContent = `“${tokens[at]}” at ${at + 1} reads ${words}${rest > 0 && named.length ? `; others ${rest}%` : ""}.${predicted?.[at] ? ` Next: “${predicted[at]}”.` : ""}`;
    fill(text, { "aria-valuenow": at + 1, "aria-valuetext": legend.textContent }, []);
  };
  return { holder, draw };
};
