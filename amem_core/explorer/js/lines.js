// Time series: several runs, theory beside simulation, linear or logarithmic axes, a shared cursor.
VIEWS.lines = (view, context) => {
  const logs = { x: !!view.log_x, y: !!view.log_y };
  const stage = html("div", { class: "ex-lines" }), legend = html("div", { class: "ex-legend" });
  const holder = html("div", { class: "ex-view" }, stage, legend);
  let current = null;
  const nearest = (xs, target) => xs.reduce((best, v, k) => (Math.abs(v - target) < Math.abs(xs[best] - target) ? k : best), 0);
  const cursorAt = (px, xs) => context.setCursor(nearest(xs, current.x.invert(px)) / Math.max(1, xs.length - 1));
  if (view.cursor !== false) {
    fill(stage, { tabindex: 0, role: "slider", "aria-label": `${view.title}: time` }, []);
    onDrag(stage, () => current.root, ([px]) => cursorAt(px, current.series[0].x), "pan-y");
    onArrows(stage, (dx) => context.stepCursor(dx));
  }
  const range = (values, log, fixed) => {
    if (fixed) return fixed;
    const shown = values.filter((v) => Number.isFinite(v) && (!log || v > 0)), low = Math.min(...shown), high = Math.max(...shown);
    if (!(low <= high)) throw new Error(`nothing to draw in "${view.title}"`);
    if (log) return [Math.max(low, high * 1e-12), high === low ? low * 10 : high];
    const pad = 0.05 * (high - low || 1);
    return [low - pad, high + pad];
  };
  const path = (s, x, y, log) => {
    let d = "", pen = "M";
    for (let k = 0; k < s.x.length; k++) {
      if (!Number.isFinite(s.y[k])) throw new Error(`"${s.name}" has a value that is not a finite number`);
      if ((logs.x && s.x[k] <= 0) || (log && s.y[k] <= 0)) { pen = "M"; continue; }
      d += `${pen}${x(s.x[k]).toFixed(1)} ${y(s.y[k]).toFixed(1)}`;
      pen = "L";
    }
    return d;
  };
  const draw = (frame, state) => {
    const series = context.series(view, frame, state);
    const xs = series.flatMap((s) => s.x).filter((v) => !logs.x || v > 0);
    const xRange = [Math.min(...xs), Math.max(...xs)];
    const yRange = range(series.flatMap((s) => s.y), logs.y, logs.y ? null : view.range);
    const plot = chart(view, xRange, yRange, { logX: logs.x, logY: logs.y });
    current = { ...plot, series };
    for (const s of series)
      plot.marks.append(svg("path", { d: path(s, plot.x, plot.y, logs.y), fill: "none", stroke: s.color,
        "stroke-width": s.dash ? 1.4 : 2, "stroke-dasharray": s.dash ? "5 4" : null, "data-series": s.name }));
    if (view.cursor !== false) {
      const at = series[0].x[Math.round(state.cursor * (series[0].x.length - 1))];
      if (!logs.x || at > 0) plot.marks.append(svg("line",
        { class: "ex-cursor", x1: plot.x(at), x2: plot.x(at), y1: plot.box.y0, y2: plot.box.y1 }));
      for (const s of series) {
        const k = nearest(s.x, at); // curves on one axis are compared at one place
        if ((!logs.x || s.x[k] > 0) && (!logs.y || s.y[k] > 0))
          plot.marks.append(svg("circle", { cx: plot.x(s.x[k]), cy: plot.y(s.y[k]), r: 3.5, fill: s.color }));
      }
      stage.setAttribute("aria-valuetext", `${view.x ?? "t"} = ${format(at)}`);
      stage.setAttribute("aria-valuenow", at);
    }
    legend.replaceChildren();
    if (series.length > 1) for (const s of series)
      legend.append(html("span", {}, html("i", { style: `border-top:3px ${s.dash ? "dashed" : "solid"} ${s.color}` }), s.name));
    for (const axis of view.toggles ?? []) legend.append(html("button", { type: "button", "aria-pressed": String(logs[axis]),
      onclick: () => { logs[axis] = !logs[axis]; context.redraw(); } }, `log ${axis}`));
    stage.replaceChildren(plot.root);
  };
  return { holder, draw };
};
