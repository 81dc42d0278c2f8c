// Bars for readouts and, where bound to the state, frequencies under the hand.
VIEWS.bars = (view, context) => {
  const holder = html("div", { class: "ex-view ex-bars" });
  let nodes = [], plot = null;
  const set = (k, value) => {
    const p = [...context.state[view.bind]], others = p.reduce((a, b) => a + b, 0) - p[k];
    const share = clamp(Math.round(value * 1e3) / 1e3, 0.01, 0.99);
    context.set({ [view.bind]: p.map((v, i) => (i === k ? share : others > 0 ? (v / others) * (1 - share) : (1 - share) / (p.length - 1))) });
  };
  const build = (data, range) => {
    plot = chart(view, [0, data.values.length], range, { grid: false, xNames: data.labels });
    nodes = data.values.map((_, k) => {
      const node = svg("rect", { x: plot.x(k + 0.15), width: plot.x(0.7) - plot.x(0) });
      if (view.bind) {
        fill(node, { tabindex: 0, role: "slider", "aria-label": `${view.title}: ${data.labels[k]}`, class: "ex-grab" }, []);
        onDrag(node, () => plot.root, ([, py]) => set(k, plot.y.invert(py)));
        onArrows(node, (dx, dy) => set(k, context.state[view.bind][k] + 0.01 * (dx + dy)));
      }
      plot.marks.append(node);
      return node;
    });
    holder.replaceChildren(plot.root);
  };
  const draw = (frame, state) => {
    const data = context.bars(view, frame, state);
    for (const v of data.values) if (!Number.isFinite(v)) throw new Error(`"${view.title}" has a value that is not a finite number`);
    const range = view.range ?? [Math.min(0, ...data.values), Math.max(1e-9, ...data.values)];
    if (nodes.length !== data.values.length || !view.range) build(data, range);
    data.values.forEach((value, k) => {
      const [a, b] = [plot.y(clamp(Math.max(value, 0), range[0], range[1])), plot.y(clamp(Math.min(value, 0), range[0], range[1]))];
      fill(nodes[k], { y: a, height: Math.max(1, b - a), fill: data.colors?.[k] ?? context.color(k), "aria-valuenow": value,
        "aria-valuetext": format(value), "data-value": value }, []);
    });
  };
  return { holder, draw };
};
