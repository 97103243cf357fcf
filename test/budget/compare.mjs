/**
 * What one thing costs: instructions in all, and by function where that says something.
 * @typedef {{ instructions: number, functions?: Record<string, number> }} Figure
 */

/** Functions with a smaller share than this are not written down. */
const leastShare = 0.01
const mostNamed = 5

/**
 * @param {Map<string, number>} costs of all that was counted
 * @param {number} count how many times it was done
 * @returns {Figure}
 */
export function figureOf(costs, count) {
  const total = [...costs.values()].reduce((sum, cost) => sum + cost, 0)
  const largest = [...costs]
    .filter(([, cost]) => cost >= leastShare * total)
    .sort(([, one], [, other]) => other - one)
    .map(([name, cost]) => [name, Math.round(cost / count)])
  return { instructions: Math.round(total / count), functions: Object.fromEntries(largest) }
}

/**
 * @param {string} name
 * @param {Figure} figure
 * @param {Figure | undefined} budget
 * @param {number} tolerance as a fraction
 * @returns {{ ok: boolean, lines: string[] }}
 */
export function compare(name, figure, budget, tolerance) {
  const now = figure.instructions
  if (budget === undefined) {
    const lines = [`${name}: ${now} instructions, and there is no budget for these tools here`]
    return { ok: false, lines }
  }
  const grown = now / budget.instructions - 1
  const percent = `${grown < 0 ? '−' : '+'}${(100 * Math.abs(grown)).toFixed(1)} %`
  const line = `${name}: ${now} instructions, the budget is ${budget.instructions} (${percent})`
  if (grown > tolerance) return { ok: false, lines: [line, ...whatGrew(figure, budget)] }
  if (grown < -tolerance) return { ok: true, lines: [`${line}: --update keeps the gain`] }
  return { ok: true, lines: [line] }
}

/**
 * @param {Figure} figure
 * @param {Figure} budget
 */
function whatGrew(figure, budget) {
  return Object.entries(figure.functions ?? {})
    .map(([name, cost]) => ({ name, cost, before: budget.functions?.[name] ?? 0 }))
    .filter(({ cost, before }) => cost > before)
    .sort((one, other) => other.cost - other.before - (one.cost - one.before))
    .slice(0, mostNamed)
    .map(({ name, cost, before }) => `  grew from ${before} to ${cost}: ${name}`)
}
