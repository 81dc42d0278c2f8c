// The plane of v = W^T(u_1 - u_2): level lines of the loss, regions of the 0-1 loss, trajectory,
// and under the hand the start and the embeddings.
VIEWS.plane = (view, context) => {
  const R = view.radius ?? 6, size = 360, pad = 22;
  const x = scale([-R, R], [pad, size - pad]), y = scale([-R, R], [size - pad, pad]);
  const arrow = 0.55 * R; // length at which a unit embedding is drawn
  const layers = Object.fromEntries(["regions", "levels", "axes", "path", "handles"].map((n) => [n, svg("g", { class: `ex-${n}` })]));
  const clip = `clip-${Math.random().toString(36).slice(2)}`;
  const clipped = svg("g", { "clip-path": `url(#${clip})` }, layers.regions, layers.levels, layers.path);
  const root = svg("svg", { viewBox: `0 0 ${size} ${size}`, role: "group", "aria-label": view.alt ?? view.title },
    svg("clipPath", { id: clip }, svg("rect", { x: pad, y: pad, width: size - 2 * pad, height: size - 2 * pad })),
    clipped, layers.axes, layers.handles);
  const holder = html("div", { class: "ex-view ex-plane" }, root);
  layers.axes.append(
    svg("line", { x1: pad, x2: size - pad, y1: y(0), y2: y(0) }), svg("line", { y1: pad, y2: size - pad, x1: x(0), x2: x(0) }),
    svg("text", { x: pad, y: 14, class: "ex-title" }, view.title),
    svg("text", { x: size - pad, y: y(0) + 14, "text-anchor": "end", class: "ex-label" }, view.x),
    svg("text", { x: x(0) + 6, y: pad + 8, class: "ex-label" }, view.y));
  const handle = (label, color, shape, move, nudge) => {
    const node = svg("g", { tabindex: 0, role: "slider", "aria-label": label, "aria-valuenow": 0, class: "ex-handle" },
      svg("circle", { r: 14, fill: "transparent" }), shape(color));
    onDrag(node, () => root, ([px, py]) => move(x.invert(px), y.invert(py)));
    onArrows(node, nudge);
    layers.handles.append(node);
    return { node, place: (a, b, text) => fill(node, { transform: `translate(${x(a)} ${y(b)})`, "aria-valuetext": text }, []) };
  };
  const round = (v) => Math.round(v * 1e4) / 1e4;
  const bound = (v) => round(clamp(v, -R, R));
  const dot = (color) => svg("circle", { r: 6, fill: color, class: "ex-dot" });
  const start = handle("start of the descent", "currentColor", dot,
    (a, b) => context.set({ start: [bound(a), bound(b)] }),
    (dx, dy) => { const s = context.state.start; context.set({ start: [bound(s[0] + 0.1 * dx), bound(s[1] + 0.1 * dy)] }); });
  const sign = (k) => (context.state.targets[k] === 0 ? 1 : -1);
  let tips = [], drawn = "";
  const turn = (k, angle) => context.set({ angles: context.state.angles.map((a, i) => (i === k ? round(angle) : a)) });
  const makeTips = (state) => {
    for (const t of tips) { t.node.remove(); t.stem.remove(); }
    tips = state.angles.map((_, k) => {
      const color = context.color(k), stem = svg("line", { stroke: color, "stroke-width": 2.5 });
      layers.handles.prepend(stem);
      const tip = handle(`embedding of token ${k + 1}`, color, dot,
        (a, b) => turn(k, Math.atan2(sign(k) * b, sign(k) * a)), (dx, dy) => turn(k, context.state.angles[k] + 0.02 * (dy - dx)));
      tip.node.append(svg("text", { x: 9, y: -7, class: "ex-label" }, view.tips?.[k] ?? ""));
      return { ...tip, stem };
    });
  };
  const levelLines = (problem, grid = 48) => {
    const n = grid + 1, at = (k) => -R + (2 * R * k) / grid, d = view.levels.map(() => "");
    const value = Float64Array.from({ length: n * n }, (_, k) => planarLoss(problem, [at(k % n), at(Math.floor(k / n))]));
    const corner = [0, 1, n + 1, n];
    for (let j = 0; j < grid; j++) for (let i = 0; i < grid; i++) {
      const k = j * n + i, low = Math.min(value[k], value[k + 1], value[k + n], value[k + n + 1]);
      const high = Math.max(value[k], value[k + 1], value[k + n], value[k + n + 1]);
      view.levels.forEach((level, l) => {
        if (level <= low || level > high) return; // nearly always
        let pen = "M";
        for (let s = 0; s < 4; s++) {
          const p = k + corner[s], q = k + corner[(s + 1) % 4];
          if (value[p] < level === value[q] < level) continue;
          const f = (level - value[p]) / (value[q] - value[p]), mix = (u, v) => at(u + f * (v - u));
          d[l] += `${pen}${x(mix(p % n, q % n)).toFixed(1)} ${y(mix(Math.floor(p / n), Math.floor(q / n))).toFixed(1)}`;
          pen = pen === "M" ? "L" : "M";
        }
      });
    }
    return d.map((path, l) => svg("path", { d: path, "data-level": view.levels[l] }));
  };
  const sectors = (problem, optimum) => planarArcs(problem).map(({ from, to, share }) => {
    const rim = [0, 0.25, 0.5, 0.75, 1].map((f) => from + f * (to - from)), far = 1.5 * R;
    const points = [[x(0), y(0)], ...rim.map((t) => [x(far * Math.cos(t)), y(far * Math.sin(t))])];
    const best = optimum && share < optimum.least + 1e-9 ? "ex-best" : null; // several where frequencies tie
    return svg("polygon", { points: points.join(" "), "fill-opacity": (0.42 * (1 - share)).toFixed(3), class: best });
  });
  const draw = (frame, state) => {
    const problem = planarProblem(state), key = JSON.stringify([state.angles, state.p, state.targets]);
    if (tips.length !== state.angles.length) makeTips(state);
    if (key !== drawn) {
      layers.regions.replaceChildren(...sectors(problem, frame.optimum));
      layers.levels.replaceChildren(...levelLines(problem));
      drawn = key;
    }
    const until = Math.round(state.cursor * (frame.trajectory.length - 1));
    const points = frame.trajectory.map(([a, b]) => `${x(clamp(a, -9 * R, 9 * R)).toFixed(1)},${y(clamp(b, -9 * R, 9 * R)).toFixed(1)}`);
    layers.path.replaceChildren(svg("polyline", { points: points.slice(0, until + 1).join(" ") }),
      ...points.slice(1, until + 1).map((p) => svg("circle", { cx: p.split(",")[0], cy: p.split(",")[1], r: 2.2 })));
    const v = frame.optimum?.v?.map((c) => clamp(c, -R, R));
    if (v) layers.path.append(svg("path", { d: "M-6 -6L6 6M-6 6L6 -6", transform: `translate(${x(v[0])} ${y(v[1])})`, class: "ex-minimiser" }));
    start.place(clamp(state.start[0], -R, R), clamp(state.start[1], -R, R), state.start.map((v) => format(v)).join(", "));
    tips.forEach((tip, k) => {
      const [a, b] = problem.signed[k].map((c) => c * arrow);
      fill(tip.stem, { x1: x(0), y1: y(0), x2: x(a), y2: y(b) }, []);
      tip.place(a, b, `${format((state.angles[k] * 180) / Math.PI)} degrees`);
    });
  };
  return { holder, draw };
};
