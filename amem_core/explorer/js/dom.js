// Small helpers shared by the views: elements, numbers, scales, axes, handles.
const NS = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined) node.setAttribute(key, value);
  }
  node.append(...children);
  return node;
}
const html = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes = {}, ...children) => fill(document.createElementNS(NS, tag), attributes, children);

function format(value, digits = 4) {
  if (typeof value !== "number") return String(value);
  if (!Number.isFinite(value)) throw new Error("a value is not a finite number");
  const size = Math.abs(value);
  const text = size !== 0 && (size < 1e-3 || size >= 1e5)
    ? value.toExponential(2).replace("e+", "e") : String(Number(value.toPrecision(digits)));
  return text.replace("-", "\u2212");
}
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

// A monotone map between data and picture, with its inverse and its ticks.
function scale([low, high], [from, to], log = false) {
  const f = log ? Math.log10 : (v) => v, inverse = log ? (v) => 10 ** v : (v) => v;
  const [a, b] = [f(low), f(high)], span = b - a || 1;
  const map = (v) => from + ((f(v) - a) / span) * (to - from);
  map.invert = (px) => inverse(a + ((px - from) / (to - from)) * span);
  map.ticks = () => {
    if (log) {
      const step = Math.max(1, Math.ceil((Math.floor(b) - Math.ceil(a)) / 4)), first = Math.ceil(a - 1e-9);
      const out = Array.from({ length: Math.floor((b + 1e-9 - first) / step) + 1 }, (_, k) => 10 ** (first + k * step));
      const fine = [-1, 0, 1].flatMap((k) => [1, 2, 5].map((m) => m * 10 ** (first + k))).filter((v) => v >= low && v <= high);
      if (out.length > 1 || fine.length > 1) return out.length > 1 ? out : fine;
    }
    const raw = (high - low) / 4, power = 10 ** Math.floor(Math.log10(raw || 1));
    const step = power * ([1, 2, 5].find((m) => m * power >= raw) ?? 10), out = [];
    for (let v = Math.ceil(low / step - 1e-9) * step; v <= high + 1e-9 * step; v += step)
      out.push(Math.abs(v) < 1e-9 * step ? 0 : v);
    return out;
  };
  return map;
}

// A titled frame with its layers and two scales. An axis shows round numbers, or names in the middle of its units.
const BOX = { width: 360, height: 250, left: 46, right: 10, top: 24, bottom: 36 };
function chart(view, xRange, yRange, { logX = false, logY = false, grid = true, xNames = null, yNames = null } = {}) {
  const { width, left, right, top, bottom } = BOX, height = Math.max(BOX.height, top + bottom + 10.5 * (yNames?.length ?? 0));
  const x = scale(xRange, [left, width - right], logX), y = scale(yRange, [height - bottom, top], logY);
  const power = (v, log) => log && (v < 1e-2 || v > 1e3) && Number.isInteger(Number(Math.log10(v).toFixed(9)));
  const label = (v, log) => power(v, log)
    ? ["10", svg("tspan", { dy: -4, "font-size": 8 }, format(Math.log10(v)))] : [format(v)];
  const texts = (s, log, names) => !names ? s.ticks().map((v) => [s(v), label(v, log)])
    : names.flatMap((name, k) => (k % Math.ceil(names.length / 24) ? [] : [[s(k + 0.5), [svg("tspan", { class: "ex-tick" }, name)]]]));
  const axes = svg("g", { class: "ex-axes" });
  for (const [px, text] of texts(x, logX, xNames)) {
    if (grid) axes.append(svg("line", { x1: px, x2: px, y1: top, y2: height - bottom }));
    axes.append(svg("text", { x: px, y: height - bottom + 14, "text-anchor": "middle" }, ...text));
  }
  for (const [py, text] of texts(y, logY, yNames)) {
    if (grid) axes.append(svg("line", { y1: py, y2: py, x1: left, x2: width - right }));
    axes.append(svg("text", { x: left - 5, y: py + 3.5, "text-anchor": "end" }, ...text));
  }
  const middle = { "text-anchor": "middle", class: "ex-label" }, turned = `translate(11 ${(top + height - bottom) / 2}) rotate(-90)`;
  axes.append(svg("text", { x: (left + width - right) / 2, y: height - 5, ...middle }, view.x ?? ""),
    svg("text", { x: left, y: 14, class: "ex-title" }, view.title), svg("text", { transform: turned, ...middle }, view.y ?? ""));
  const marks = svg("g");
  const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": view.alt ?? view.title });
  root.append(axes, marks);
  return { root, marks, x, y, box: { x0: left, x1: width - right, y0: top, y1: height - bottom } };
}

// Mouse, pen and touch drags: `move(point)` from press to release. The listeners stay on the
// element, which redraws replace the content of, so that a drag survives a redraw.
function onDrag(element, root, move, touch = "none") {
  element.style.touchAction = touch; // which parts of an svg ignore, hence the listener
  if (touch === "none") element.addEventListener("touchstart", (e) => e.preventDefault(), { passive: false });
  element.addEventListener("pointerdown", (event) => {
    event.preventDefault();
    element.focus?.({ preventScroll: true });
    const press = new AbortController(), { signal } = press;
    const follow = (e) => { // the pointer in the coordinates of the svg's viewBox
      const box = root().getBoundingClientRect(), { width, height } = root().viewBox.baseVal;
      move([((e.clientX - box.left) / box.width) * width, ((e.clientY - box.top) / box.height) * height]);
    };
    window.addEventListener("pointermove", follow, { signal });
    for (const end of ["pointerup", "pointercancel"]) window.addEventListener(end, () => press.abort(), { signal });
    follow(event);
  });
}
// Arrow keys: `nudge(dx, dy)` in steps; with Shift ten times as far.
function onArrows(element, nudge) {
  const directions = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
  element.addEventListener("keydown", (event) => {
    const direction = directions[event.key];
    if (direction) { event.preventDefault(); nudge(...direction.map((v) => v * (event.shiftKey ? 10 : 1))); }
  });
}
const VIEWS = {};
