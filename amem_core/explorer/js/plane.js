// The plane of v = W^T(u_1 - u_2): level lines of the loss, regions of the 0-1 loss, trajectory,
// and under the hand the start and the embeddings.
VIEWS.plane = (view, context) => {
  const holder = html("div", { class: "ex-view ex-plane" });
  const R = view.radius ?? 6, size = 360, pad = 22;
  const x = scale([-R, R], [pad, size - pad]), y = scale([-R, R], [size - pad, pad]);
  const arrow = 0.55 * R; // length at which a unit embedding is drawn
  const layers = Object.fromEntries(["regions", "levels", "axes", "path", "handles"].map((n) => [n, svg("g", { class: `ex-${n}` })]));
  const clip = `clip-${Math.random().toString(36).slice(2)}`;
  const clipped = svg("g", { "clip-path": `url(#${clip})` }, layers.regions, layers.levels, layers.path);
  const root = svg("svg", { viewBox: `0 0 ${size} ${size}`, role: "group", "aria-label": view.alt ?? view.title },
    svg("clipPath", { id: clip }, svg("rect", { x: pad, y: pad, width: size - 2 * pad, height: size - 2 * pad })),
    clipped, layers.axes, layers.handles);
  holder.append(root);
  layers.axes.append(
    svg("line", { x1: pad, x2: size - pad, y1: y(0), y2: y(0) }), svg("line", { y1: pad, y2: size - pad, x1: x(0), x2: x(0) }),
    svg("text", { x: pad, y: 14, class: "ex-title" }, view.title),
    svg("text", { x: size - pad, y: y(0) + 14, "text-anchor": "end", class: "ex-label" }, view.x),
    svg("text", { x: x(0) + 6, y: pad + 8, class: "ex-label" }, view.y));

  const handle = (label, color, shape, move, nudge) => {
    const node = svg("g", { tabindex: 0, role: "slider", "aria-label": label, class: "ex-handle" },
      svg("circle", { r: 14, fill: "transparent" }), shape(color));
    onDrag(node, () => root, ([px, py]) => move(x.invert(px), y.invert(py)));
    onArrows(node, nudge);
    layers.handles.append(node);
    return { node, place: (a, b, text) => {
      node.setAttribute("transform", `translate(${x(a)} ${y(b)})`);
      node.setAttribute("aria-valuetext", text);
      node.setAttribute("aria-valuenow", "0");
    } };
  };
  const round = (v) => Math.round(v * 1e4) / 1e4;
  const bound = (v) => round(clamp(v, -R, R));
  const dot = (color) => svg("circle", { r: 6, fill: color, class: "ex-dot" });
  const start = handle("start of the descent", "currentColor", dot,
    (a, b) => context.set({ start: [bound(a), bound(b)] }),
    (dx, dy) => { const s = context.state.start; context.set({ start: [bound(s[0] + 0.1 * dx), bound(s[1] + 0.1 * dy)] }); });
  let tips = [];
  const turn = (k, angle) => {
    const angles = [...context.state.angles];
    angles[k] = round(angle);
    context.set({ angles });
  };
  const makeTips = (state) => {
    for (const t of tips) { t.node.remove(); t.stem.remove(); }
    tips = state.angles.map((_, k) => {
      const color = context.color(k), sign = state.targets[k] === 0 ? 1 : -1;
      const stem = svg("line", { stroke: color, "stroke-width": 2.5 });
      layers.handles.prepend(stem);
      const tip = handle(`embedding of token ${k + 1}`, color, dot,
        (a, b) => turn(k, Math.atan2(sign * b, sign * a)), (dx, dy) => turn(k, context.state.angles[k] + 0.02 * (dy - dx)));
      tip.node.append(svg("text", { x: 9, y: -7, class: "ex-label" }, view.tips?.[k] ?? ""));
      return { ...tip, stem, sign };
    });
  };
  const levelLines = (problem, grid = 48) => {
    const at = (k) => -R + (2 * R * k) / grid, value = [];
    for (let j = 0; j <= grid; j++) { value.push([]); for (let i = 0; i <= grid; i++) value[j].push(planarLoss(problem, [at(i), at(j)])); }
    const paths = [];
    for (const level of view.levels) {
      let d = "";
      for (let j = 0; j < grid; j++) for (let i = 0; i < grid; i++) {
        const corners = [[i, j], [i + 1, j], [i + 1, j + 1], [i, j + 1]], cut = [];
        for (let s = 0; s < 4; s++) {
          const [a, b] = [corners[s], corners[(s + 1) % 4]], [va, vb] = [value[a[1]][a[0]], value[b[1]][b[0]]];
          if (va < level !== vb < level) { const f = (level - va) / (vb - va); cut.push([a[0] + f * (b[0] - a[0]), a[1] + f * (b[1] - a[1])]); }
        }
        for (let s = 0; s + 1 < cut.length; s += 2)
          d += `M${x(at(cut[s][0])).toFixed(1)} ${y(at(cut[s][1])).toFixed(1)}L${x(at(cut[s + 1][0])).toFixed(1)} ${y(at(cut[s + 1][1])).toFixed(1)}`;
      }
      paths.push(svg("path", { d, "data-level": level }));
    }
    return paths;
  };
  // The 0-1 loss depends on the direction of v alone: sectors between the lines <v, e_x> = 0.
  const sectors = (problem) => {
    const cuts = problem.signed.flatMap(([a, b]) => { const t = Math.atan2(b, a); return [t + Math.PI / 2, t - Math.PI / 2]; })
      .map((t) => (t + 4 * Math.PI) % (2 * Math.PI)).sort((a, b) => a - b);
    return cuts.map((from, k) => {
      const to = k + 1 < cuts.length ? cuts[k + 1] : cuts[0] + 2 * Math.PI, middle = (from + to) / 2, far = 1.5 * R;
      const good = planarAccuracy(problem, [Math.cos(middle), Math.sin(middle)]);
      const points = [[0, 0], ...[0, 0.25, 0.5, 0.75, 1].map((f) => [far * Math.cos(from + f * (to - from)), far * Math.sin(from + f * (to - from))])];
      return svg("polygon", { points: points.map(([a, b]) => `${x(a)},${y(b)}`).join(" "), "fill-opacity": (0.42 * good).toFixed(3) });
    });
  };
  let drawn = "";
  const draw = (frame, state) => {
    const problem = planarProblem(state), key = JSON.stringify([state.angles, state.p, state.targets]);
    if (tips.length !== state.angles.length) makeTips(state);
    if (key !== drawn) {
      layers.regions.replaceChildren(...sectors(problem));
      layers.levels.replaceChildren(...levelLines(problem));
      drawn = key;
    }
    const until = Math.round(state.cursor * (frame.trajectory.length - 1));
    const points = frame.trajectory.map(([a, b]) => `${x(clamp(a, -9 * R, 9 * R)).toFixed(1)},${y(clamp(b, -9 * R, 9 * R)).toFixed(1)}`);
    layers.path.replaceChildren(svg("polyline", { points: points.slice(0, until + 1).join(" ") }),
      ...points.slice(1, until + 1).map((p) => svg("circle", { cx: p.split(",")[0], cy: p.split(",")[1], r: 2.2 })));
    start.place(clamp(state.start[0], -R, R), clamp(state.start[1], -R, R), state.start.map((v) => format(v)).join(", "));
    tips.forEach((tip, k) => {
      const [a, b] = [tip.sign * Math.cos(state.angles[k]) * arrow, tip.sign * Math.sin(state.angles[k]) * arrow];
      fill(tip.stem, { x1: x(0), y1: y(0), x2: x(a), y2: y(b) }, []);
      tip.place(a, b, `${format((state.angles[k] * 180) / Math.PI)} degrees`);
    });
  };
  return { holder, draw };
};
