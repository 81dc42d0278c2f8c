// One explorer: parameters, presets, linked views, a readout, play/step/reset, state in the URL.
// `model` is anywidget's in a live notebook, a stand-in with the same five methods in a static page.
function render({ model, el }) {
  const spec = model.get("spec"), initial = { ...structuredClone(spec.state), cursor: 1 };
  const state = structuredClone(initial), live = !model.static, frames = spec.frames;
  const root = html("div", { class: "ex", role: "group", "aria-label": spec.title });
  const message = html("p", { class: "ex-message", role: "alert", hidden: "" });
  const say = (text) => { message.textContent = text; message.toggleAttribute("hidden", !text); };
  const parameters = Object.fromEntries(spec.parameters.map((q) => [q.name, q]));

  // ---- state ----
  const snap = (q, value) => (q.continuous ? clamp(value, q.values[0], q.values.at(-1))
    : q.values.reduce((a, b) => (Math.abs(place(q, b) - place(q, value)) < Math.abs(place(q, a) - place(q, value)) ? b : a)));
  const place = (q, v) => (q.log ? Math.log(v) : v);
  const derived = { // parameters that are functions of the planar state
    alpha: [(s) => Number(Math.cos(s.angles[1] - s.angles[0]).toFixed(12)), (s, v) => { s.angles = [s.angles[0], s.angles[0] + Math.acos(clamp(v, -1, 1))]; }],
    p1: [(s) => s.p[0] / s.p.reduce((a, b) => a + b, 0), (s, v) => { s.p = [v, 1 - v]; }],
  };
  const read = (name) => (spec.planar && derived[name] ? derived[name][0](state) : state[name]);
  const write = (name, value) => (spec.planar && derived[name] ? derived[name][1](state, value) : Object.assign(state, { [name]: value }));
  const context = {
    state, color: (k) => spec.palette[k % spec.palette.length],
    series: (view, frame, s) => view.source ? planarSeries(view, frame, s) : frame[view.id].series,
    bars: (view, frame, s) => view.bind ? { labels: s[view.bind].map((_, k) => String(k + 1)), values: s[view.bind] } : frame[view.id],
    set: (changes) => { for (const [k, v] of Object.entries(changes)) write(k, parameters[k] ? snap(parameters[k], v) : v); changed(); },
    nudge: (name, steps) => {
      const q = parameters[name], at = q.values.indexOf(snap({ ...q, continuous: false }, read(name)));
      if (steps) context.set({ [name]: q.values[clamp(at + steps, 0, q.values.length - 1)] });
    },
    setCursor: (c) => { state.cursor = clamp(c, 0, 1); draw(); },
    stepCursor: (n) => context.setCursor(state.cursor + n / length()),
    redraw: () => draw(),
  };
  const planarSeries = (view, frame, s) => {
    const names = view.names ?? [view.title], values = Array.isArray(frame[view.source][0]) ? frame[view.source] : [frame[view.source]];
    const x = values[0].map((_, t) => t * (view.in_time ? s.rate : 1));
    return values.map((y, k) => ({ name: names[k] ?? `token ${k + 1}`, x, y, color: values.length > 1 ? context.color(k) : spec.palette[4] }));
  };

  // ---- computing: the table or the planar step here, amem_core where a kernel lives ----
  let frame = null, asked = 0, timer = 0;
  const key = () => spec.parameters.map((q) => q.values.indexOf(snap({ ...q, continuous: false }, state[q.name]))).join(",");
  const compute = () => {
    frame = spec.planar ? planarRun(state) : frames[key()] ?? frame;
    if (!frame) throw new Error("no values for these parameters");
    if (live) { model.set("request", { state: structuredClone(state), number: ++asked }); model.save_changes(); }
  };
  model.on?.("change:reply", () => {
    const reply = model.get("reply");
    if (reply.number !== asked) return; // an older question's answer
    if (reply.error) return say(reply.error);
    frame = reply.frame;
    draw();
  });
  const length = () => Math.max(1, spec.steps ? state.steps ?? spec.steps : 60);

  // ---- page ----
  const views = spec.views.map((view) => VIEWS[view.type](view, context));
  const controls = html("div", { class: "ex-controls" }), inputs = {};
  for (const q of spec.parameters) {
    const id = `${spec.name}-${q.name}`, last = q.continuous ? 1000 : q.values.length - 1;
    const [a, b] = [place(q, q.values[0]), place(q, q.values.at(-1))];
    const value = (k) => q.continuous ? Number((q.log ? Math.exp : (v) => v)(a + ((b - a) * k) / last).toPrecision(4)) : q.values[k];
    const input = html("input", { type: "range", min: 0, max: last, step: 1, id, oninput: () => context.set({ [q.name]: value(+input.value) }) });
    const stops = q.ticks.map(([text, at]) => html("button", { type: "button", "data-at": at, onclick: () => context.set({ [q.name]: at }) }, text));
    const output = html("output", { for: id }), ticks = html("div", { class: "ex-ticks" }, ...stops);
    const choice = !q.continuous && q.ticks.length === q.values.length; // every value has a button: no slider
    inputs[q.name] = { show: (v) => {
      for (const stop of stops) stop.setAttribute("aria-pressed", String(Math.abs(stop.dataset.at - v) < 1e-9));
      input.value = q.continuous ? Math.round(((place(q, v) - a) / (b - a)) * last) : q.values.indexOf(snap(q, v));
      output.textContent = format(v, 3);
      input.setAttribute("aria-valuetext", `${q.label}: ${format(v, 3)}`);
    } };
    controls.append(choice ? html("div", { class: "ex-control", role: "group", "aria-label": q.label }, html("span", {}, q.label), ticks)
      : html("div", { class: "ex-control" }, html("label", { for: id }, q.label), output, input, ticks));
  }
  const presets = html("div", { class: "ex-presets", role: "group", "aria-label": "presets" });
  const watched = [...Object.keys(parameters), "start", parameters.alpha ? "" : "angles", parameters.p1 ? "" : "p"].filter((k) => read(k) !== undefined);
  const opening = Object.fromEntries(watched.map((k) => [k, read(k)])), near = (a, b) => [a].flat().every((v, i) => Math.abs(v - [b].flat()[i]) < 1e-6);
  const chosen = (values) => watched.every((k) => near(read(k), values[k] ?? opening[k]));
  for (const [name, values] of Object.entries(spec.presets))
    presets.append(html("button", { type: "button", onclick: () => { Object.assign(state, structuredClone(initial)); context.set(structuredClone(values)); } }, name));
  let playing = false, before = 0;
  const play = html("button", { type: "button", class: "ex-play", onclick: () => {
    playing = !playing;
    if (playing && state.cursor >= 1) state.cursor = 0;
    play.textContent = playing ? "❚❚ pause" : "▶ play";
    if (playing) requestAnimationFrame(tick);
  } }, "▶ play");
  const stop = () => { playing = false; play.textContent = "▶ play"; };
  const tick = (now) => {
    if (!playing || !root.isConnected) return stop();
    if (now - before > 40) { before = now; context.stepCursor(1); }
    if (state.cursor >= 1) stop(); else requestAnimationFrame(tick);
  };
  const buttons = html("div", { class: "ex-buttons", role: "group", "aria-label": "time" }, play,
    html("button", { type: "button", onclick: () => { stop(); context.stepCursor(state.cursor >= 1 ? -length() : 1); } }, "step"),
    html("button", { type: "button", onclick: () => { stop(); say(""); Object.assign(state, structuredClone(initial)); changed(); } }, "reset"));
  if (!spec.steps) for (const node of [...buttons.children].slice(0, 2)) node.remove();
  const regime = html("p", { class: "ex-regime" }), list = html("dl", { class: "ex-readout" }), readout = html("div", { class: "ex-said", "aria-live": "polite" }, regime, list);
  root.append(html("p", { class: "ex-name" }, spec.title), html("div", { class: "ex-head" }, presets, buttons), message,
    html("div", { class: "ex-views" }, ...views.map((v) => v.holder)), controls, readout);

  const symbol = (text) => text.split("_").map((part, k) => (k ? html("sub", {}, part) : part)); // m_1: 1 below m
  const draw = () => {
    try {
      views.forEach((view) => view.draw(frame, state));
      for (const q of spec.parameters) inputs[q.name].show(read(q.name));
      Object.values(spec.presets).forEach((values, k) => presets.children[k].setAttribute("aria-pressed", String(chosen(values))));
      regime.textContent = spec.planar ? planarRegime(frame, state) : frame.regime ?? "";
      const rows = spec.planar ? planarReadout(frame, Math.round(state.cursor * (frame.loss.length - 1))) : frame.readout ?? [];
      list.replaceChildren(...rows.map(([name, value]) => html("div", {}, html("dt", {}, ...symbol(name)), html("dd", {}, format(value)))));
      root.dataset.drawn = String(Number(root.dataset.drawn ?? 0) + 1);
    } catch (error) { say(`This cannot be drawn: ${error.message}.`); }
  };

  // ---- state in the URL: #name?key=value&..., read once and kept up to date ----
  const spell = () => Object.entries(state).filter(([k, v]) => k !== "cursor" && JSON.stringify(v) !== JSON.stringify(initial[k]))
    .map(([k, v]) => `${k}=${[v].flat().map((w) => (typeof w === "number" ? Number(w.toPrecision(6)) : w)).join(",")}`).join("&");
  const keep = () => {
    clearTimeout(timer);
    timer = setTimeout(() => { const text = spell(); history.replaceState(null, "", text ? `#${spec.name}?${text}` : `${location.pathname}${location.search}`); }, 250);
  };
  const restore = () => {
    const [name, query] = decodeURIComponent(location.hash.slice(1)).split("?");
    if (name !== spec.name || !query) return false;
    for (const [k, text] of new URLSearchParams(query)) {
      const list = Array.isArray(initial[k]), values = text.split(",").map(Number);
      const range = parameters[k] ? [parameters[k].values[0], parameters[k].values.at(-1)] : spec.limits[k];
      if (!(k in initial) || !values.every(Number.isFinite) || (!list && values.length !== 1) || (list && values.length !== initial[k].length)
        || (range && values.some((v) => v < range[0] || v > range[1]))) {
        say(`The address asks for ${k} = ${text}, which is not possible here; the rest is shown.`);
        continue;
      }
      state[k] = list ? values : parameters[k] ? snap(parameters[k], values[0]) : values[0];
    }
    return true;
  };
  const refresh = () => { try { compute(); } catch (error) { return say(`This cannot be computed: ${error.message}.`); } draw(); };
  const changed = () => { say(""); refresh(); if (!live) keep(); };
  el.replaceChildren(root);
  const asked_for = !live && restore();
  refresh();
  if (asked_for) el.scrollIntoView({ block: "center" });
  if (!live) window.addEventListener("hashchange", () => { if (restore()) refresh(); });
  root.explorer = { context, state, frame: () => frame };
}
