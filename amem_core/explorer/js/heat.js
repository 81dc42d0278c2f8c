// Heat map and matrix: cells of one colour ramp, a crosshair bound to two parameters.
const RAMP = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]]; // viridis
const DIVERGING = [[33, 102, 172], [146, 197, 222], [247, 247, 247], [244, 165, 130], [178, 24, 43]];
function ramp(stops, f) {
  const t = clamp(f, 0, 1) * (stops.length - 1), k = Math.min(Math.floor(t), stops.length - 2);
  return stops[k].map((c, i) => Math.round(c + (t - k) * (stops[k + 1][i] - c)));
}
function raster(z, low, high, stops) {
  const canvas = html("canvas", { width: z[0].length, height: z.length }), pen = canvas.getContext("2d");
  const image = pen.createImageData(z[0].length, z.length);
  z.forEach((row, j) => row.forEach((v, i) => {
    if (!Number.isFinite(v)) throw new Error("a cell is not a finite number");
    const at = 4 * ((z.length - 1 - j) * row.length + i); // first row at the bottom
    image.data.set([...ramp(stops, (v - low) / (high - low || 1)), 255], at);
  }));
  pen.putImageData(image, 0, 0);
  return canvas.toDataURL();
}
// Cells are centred on their values: the map reaches half a cell further on every side.
function edges(values, log) {
  if (!values) return null;
  const f = log ? Math.log : (v) => v, g = log ? Math.exp : (v) => v, [a, b] = [f(values[0]), f(values.at(-1))];
  const half = (b - a) / (values.length - 1) / 2;
  return [g(a - half), g(b + half)];
}
function cells(view, context, stops, flip) {
  const holder = html("div", { class: "ex-view ex-heat" });
  let plot = null, last = null, cross = null;
  const bind = view.bind; // { x: parameter, y: parameter }
  const draw = (frame, state) => {
    const data = frame[view.id], z = flip ? [...data.z].reverse() : data.z;
    if (data !== last) {
      const values = data.z.flat(), top = Math.max(...values.map(Math.abs));
      const [low, high] = view.range ?? (stops === DIVERGING ? [-top, top] : [Math.min(...values), Math.max(...values)]);
      plot = chart(view, edges(data.x, view.log_x) ?? [0, z[0].length], edges(data.y, view.log_y) ?? [0, z.length],
        { logX: view.log_x, logY: view.log_y, grid: false, xNames: data.labels, yNames: data.labels && [...data.labels].reverse() });
      const { x0, x1, y0, y1 } = plot.box;
      plot.marks.append(svg("image", { href: raster(z, low, high, stops), x: x0, y: y0, width: x1 - x0, height: y1 - y0,
        preserveAspectRatio: "none", style: "image-rendering:pixelated" }));
      cross = svg("g", { class: "ex-cross" });
      plot.marks.append(cross);
      holder.replaceChildren(plot.root, html("div", { class: "ex-legend" },
        html("span", {}, format(low)), html("i", { class: "ex-ramp", style: `background:linear-gradient(90deg,${stops.map((c) => `rgb(${c})`)})` }),
        html("span", {}, `${format(high)} ${view.unit ?? ""}`)));
      last = data;
    }
    if (bind) {
      const [px, py] = [plot.x(state[bind.x]), plot.y(state[bind.y])];
      cross.replaceChildren(svg("line", { x1: px, x2: px, y1: plot.box.y0, y2: plot.box.y1 }),
        svg("line", { x1: plot.box.x0, x2: plot.box.x1, y1: py, y2: py }), svg("circle", { cx: px, cy: py, r: 5 }));
      holder.setAttribute("aria-valuetext", `${format(state[bind.x])}, ${format(state[bind.y])}`);
    }
  };
  if (bind) {
    fill(holder, { tabindex: 0, role: "slider", "aria-label": view.title, "aria-valuenow": 0 }, []);
    onDrag(holder, () => plot.root, ([px, py]) => context.set({ [bind.x]: plot.x.invert(px), [bind.y]: plot.y.invert(py) }));
    onArrows(holder, (dx, dy) => { context.nudge(bind.x, dx); context.nudge(bind.y, dy); });
  }
  return { holder, draw };
}
VIEWS.heat = (view, context) => cells(view, context, RAMP, false);
VIEWS.matrix = (view, context) => cells(view, context, view.range?.[0] === 0 ? DIVERGING.slice(2) : DIVERGING, true);
