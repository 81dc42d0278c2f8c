// The planar gradient step: two classes, two dimensions, up to 100 tokens. The only numerics here.
// v = W^T (u_1 - u_2); token x has the margin m_x = y_x <v, e_x>, with y_x = +1 for class 1, -1 for class 2;
// v <- v + rate * kappa * sum_x p_x y_x sigma(-m_x) e_x, with kappa = |u_1 - u_2|^2.
const softplus = (z) => Math.max(z, 0) + Math.log1p(Math.exp(-Math.abs(z))); // log(1 + e^z)
const sigmoid = (z) => (z >= 0 ? 1 / (1 + Math.exp(-z)) : Math.exp(z) / (1 + Math.exp(z)));

function planarProblem({ angles, targets, p, kappa = 2 }) {
  if (angles.length > 100) throw new Error("at most 100 tokens");
  if (angles.length !== p.length || angles.length !== targets.length)
    throw new Error("angles, targets and p differ in length");
  for (const value of [...angles, ...p]) if (!Number.isFinite(value)) throw new Error("a value is not a finite number");
  const total = p.reduce((a, b) => a + b, 0);
  if (!(total > 0) || p.some((v) => v < 0)) throw new Error("frequencies must be non-negative, with a positive sum");
  const signed = angles.map((a, k) => {
    const y = targets[k] === 0 ? 1 : -1;
    return [y * Math.cos(a), y * Math.sin(a)];
  });
  return { signed, p: p.map((v) => v / total), kappa };
}
function planarLoss({ signed, p }, [a, b]) {
  let sum = 0;
  for (let k = 0; k < p.length; k++) sum += p[k] * softplus(-(signed[k][0] * a + signed[k][1] * b));
  return sum;
}
const planarAccuracy = ({ signed, p }, [a, b]) =>
  signed.reduce((sum, [x, y], k) => (x * a + y * b > 0 ? sum + p[k] : sum), 0);
function planarRun(state) {
  const problem = planarProblem(state), { signed, p, kappa } = problem;
  if (!Number.isFinite(state.rate) || state.rate < 0) throw new Error("the rate must be finite and at least 0");
  if (!state.start.every(Number.isFinite)) throw new Error("the start is not a pair of finite numbers");
  let v = [...state.start];
  const frame = { trajectory: [], loss: [], accuracy: [], margins: p.map(() => []) };
  for (let t = 0; t <= state.steps; t++) {
    const margins = signed.map(([x, y]) => x * v[0] + y * v[1]);
    frame.trajectory.push(v);
    frame.loss.push(planarLoss(problem, v));
    frame.accuracy.push(planarAccuracy(problem, v));
    margins.forEach((m, k) => frame.margins[k].push(m));
    const write = margins.map((m, k) => p[k] * sigmoid(-m));
    v = v.map((c, i) => c + state.rate * kappa * write.reduce((sum, q, k) => sum + q * signed[k][i], 0));
  }
  return frame;
}
// What happened, in words.
function planarRegime({ loss, accuracy }) {
  const rises = loss.filter((v, t) => t > 0 && v > loss[t - 1] * (1 + 1e-12)).length;
  const missed = accuracy.findLastIndex((a) => a < 1 - 1e-9), last = accuracy.length - 1;
  const fall = rises === 0 ? "The loss only falls" : `The loss rises ${rises} time${rises === 1 ? "" : "s"}`;
  if (missed < last) return `${fall}; everything is recalled from step ${missed + 1} on.`;
  return `${fall}; ${accuracy.some((a) => a > 1 - 1e-9) ? "everything was recalled once, then lost" : "not everything is recalled"}.`;
}
