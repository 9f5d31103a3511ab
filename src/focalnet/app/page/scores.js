// Scores from logits.

export const sigmoid = (x) => 1 / (1 + Math.exp(-x));

export function softmax(logits) {
  const most = logits.reduce((one, other) => Math.max(one, other), -Infinity);
  const shares = Float64Array.from(logits, (logit) => Math.exp(logit - most));
  const sum = shares.reduce((one, other) => one + other, 0);
  return shares.map((share) => share / sum);
}
