// The planar gradient step and both minimisers: two classes, two dimensions, up to 100 tokens. All numerics are here.
// v = W^T (u_1 - u_2); token x has the margin m_x = y_x <v, e_x>, with y_x = +1 for class 1, -1 for class 2;
// v <- v + rate * kappa * sum_x p_x y_x sigma(-m_x) e_x, with kappa = |u_1 - u_2|^2.
const softplus = (z) => Math.max(z, 0) + Math.log1p(Math.exp(-Math.abs(z))); // log(1 + e^z)
const sigmoid = (z) => (z >= 0 ? 1 / (1 + Math.exp(-z)) : Math.exp(z) / (1 + Math.exp(z)));
function planarProblem({ angles, targets, p, kappa = 2 }) {
  if (angles.length > 100) throw new Error("at most 100 tokens");
  if ([p, targets].some((list) => list.length !== angles.length)) throw new Error("angles, targets and p differ in length");
  for (const value of [...angles, ...p]) if (!Number.isFinite(value)) throw new Error("a value is not a finite number");
  const total = p.reduce((a, b) => a + b, 0);
  if (!(total > 0) || p.some((v) => v < 0)) throw new Error("frequencies must be non-negative, with a positive sum");
  const signed = angles.map((a, k) => [Math.cos(a), Math.sin(a)].map((c) => (targets[k] === 0 ? c : -c)));
  return { signed, p: p.map((v) => v / total), kappa };
}
const planarLoss = ({ signed, p }, [a, b]) => p.reduce((sum, q, k) => sum + q * softplus(-(signed[k][0] * a + signed[k][1] * b)), 0);
// The tokens that v does not recall (ties are errors), numbered from 1, and their share.
const planarLost = ({ signed }, [a, b], tie) => signed.flatMap(([x, y], k) => (x * a + y * b > tie * Math.hypot(a, b) ? [] : [k + 1]));
const planarShare = ({ p }, tokens) => tokens.reduce((sum, k) => sum + p[k - 1], 0);
// The 0-1 loss depends on the direction of v alone: arcs between the lines <v, e_x> = 0, with what each loses.
function planarArcs(problem) {
  const ends = problem.signed.map(([a, b]) => [Math.atan2(a, -b), Math.atan2(-a, b)].map((t) => (t + 2 * Math.PI) % (2 * Math.PI)));
  const cuts = ends.filter((_, k) => problem.p[k] > 0).flat().sort((a, b) => a - b);
  return cuts.map((from, k) => {
    const to = cuts[k + 1] ?? cuts[0] + 2 * Math.PI, middle = (from + to) / 2;
    const lost = planarLost(problem, [Math.cos(middle), Math.sin(middle)], 1e-14);
    return { from, to, lost, share: planarShare(problem, lost) };
  }).filter(({ from, to }) => to - from > 6e-14); // tokens on one line have one cut
}
// Minimiser of the loss by Newton's method: a step of length s is shortened to log(1 + s), which converges
// from everywhere. There is none where a line has all tokens on one side.
function planarMinimiser({ signed, p }) {
  const used = signed.filter((_, k) => p[k] > 0), sides = used.flatMap(([a, b]) => [[a, b], [-b, a], [b, -a]]);
  const along = sides.map(([a, b]) => used.map(([x, y]) => x * a + y * b));
  if (along.some((m) => Math.min(...m) > -1.5e-14 && Math.max(...m) > 1.5e-14)) return null;
  let v = [0, 0], size = 1;
  for (let k = 0; k < 200 && size > 1e-15; k++) {
    let g = 0, h = 0, A = 0, B = 0, C = 0; // minus the gradient, and the Hessian
    signed.forEach(([x, y], i) => {
      const m = x * v[0] + y * v[1], q = p[i] * sigmoid(-m), w = q * sigmoid(m);
      g += q * x; h += q * y; A += w * x * x; B += w * x * y; C += w * y * y;
    });
    const det = A * C - B * B, line = det < 1e-14 * (A + C) ** 2; // all tokens on one line
    const step = line ? [g / (A + C), h / (A + C)] : [(C * g - B * h) / det, (A * h - B * g) / det];
    size = Math.hypot(...step);
    v = v.map((c, i) => c + step[i] * (size > 0 ? Math.log1p(size) / size : 0));
  }
  return v;
}
function planarOptimum(problem) {
  const v = planarMinimiser(problem), forgotten = v && planarLost(problem, v, 1e-12), arcs = planarArcs(problem);
  const least = Math.min(...arcs.map((arc) => arc.share)), wide = ({ from, to }) => to - from;
  const best = arcs.filter((arc) => arc.share < least + 1e-12).reduce((a, b) => (wide(b) > wide(a) + 1e-12 ? b : a));
  return { v, forgotten, zero_one: v && planarShare(problem, forgotten), given_up: best.lost, least: best.share };
}
function planarRun(state) {
  const problem = planarProblem(state), { signed, p, kappa } = problem;
  if (![...state.start, state.rate].every(Number.isFinite) || state.rate < 0) throw new Error("start and rate must be finite, the rate at least 0");
  let v = state.start;
  const frame = { trajectory: [], loss: [], accuracy: [], margins: p.map(() => []) };
  for (let t = 0; t <= state.steps; t++) {
    const margins = signed.map(([x, y]) => x * v[0] + y * v[1]);
    frame.trajectory.push(v);
    frame.loss.push(planarLoss(problem, v));
    frame.accuracy.push(margins.reduce((sum, m, k) => (m > 0 ? sum + p[k] : sum), 0));
    margins.forEach((m, k) => frame.margins[k].push(m));
    const write = margins.map((m, k) => p[k] * sigmoid(-m));
    v = v.map((c, i) => c + state.rate * kappa * write.reduce((sum, q, k) => sum + q * signed[k][i], 0));
  }
  return state.minimisers ? { ...frame, optimum: planarOptimum(problem) } : frame;
}
// What happened, in words, and in numbers at step t.
function planarRegime({ loss, accuracy, margins, optimum }, { p }) {
  if (optimum) return planarForgetting(margins, optimum, p);
  const rises = loss.filter((v, t) => t > 0 && v > loss[t - 1] * (1 + 1e-12)).length;
  const missed = accuracy.findLastIndex((a) => a < 1 - 1e-9), last = accuracy.length - 1;
  const fall = rises === 0 ? "The loss only falls" : `The loss rises ${rises} time${rises === 1 ? "" : "s"}`;
  if (missed < last) return `${fall}; everything is recalled from step ${missed + 1} on.`;
  return `${fall}; ${accuracy.some((a) => a > 1 - 1e-9) ? "everything was recalled once, then lost" : "not everything is recalled"}.`;
}
function planarForgetting(margins, { v, forgotten, zero_one, given_up, least }, p) {
  const name = (k) => k + (p[k - 1] === Math.max(...p) ? " (the most frequent)" : "");
  const list = (tokens) => `token${tokens.length > 1 ? "s" : ""} ${tokens.map(name).join(", ")}`;
  const lost = margins.flatMap((m, k) => [m.findLastIndex((value) => value > 0)] // the last step at which it is recalled
    .filter((t) => t >= 0 && t < m.length - 1).map((t) => `token ${k + 1} (until step ${t})`));
  const better = zero_one > least + 1e-9 ? `forgetting only ${list(given_up)} would cost less` : "no direction forgets less";
  const none = `No minimiser: ${least > 0 ? "the loss falls for ever" : "separable"}.`;
  return (v ? `The minimiser of the loss forgets ${list(forgotten)}; ${better}.` : none) + (lost.length ? ` Recalled, then lost: ${lost.join(", ")}.` : "");
}
const planarReadout = ({ loss, accuracy, margins, optimum }, t) => [["t", t], ["loss", loss[t]], ["accuracy", accuracy[t]],
  ...margins.slice(0, 4).map((m, k) => [`m_${k + 1}`, m[t]]),
  ...(optimum?.v ? [["0-1 loss at the minimiser", optimum.zero_one], ["excess", optimum.zero_one - optimum.least]] : []),
  ...(optimum ? [["least 0-1 loss", optimum.least]] : [])];
