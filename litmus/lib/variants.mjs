import { saysAccess, straddled, withAccess } from './catalogue.mjs'
import { compiledOutcomes, sequentialOutcomes } from './models.mjs'

/** @typedef {import('./catalogue.mjs').Program} Program */

/**
 * How a program is run.
 * @typedef {object} Variant
 * @property {'multi-page' | 'same-page' | 'straddling'} layout each variable on a page of its own,
 *   all on one page, or each across the border of two pages
 * @property {'Atomics' | 'plain' | 'as written'} access
 * @property {'members' | 'one member'} place each thread in a member of its own, or all as workers
 *   of one
 */

/** @type {Variant[]} */
const uniform = [
  { layout: 'multi-page', access: 'Atomics', place: 'members' },
  { layout: 'same-page', access: 'Atomics', place: 'members' },
  { layout: 'multi-page', access: 'plain', place: 'members' },
  { layout: 'same-page', access: 'plain', place: 'members' },
  { layout: 'straddling', access: 'plain', place: 'members' },
  { layout: 'same-page', access: 'Atomics', place: 'one member' },
  { layout: 'same-page', access: 'plain', place: 'one member' },
]

/** @type {Variant[]} */
const asWritten = [
  { layout: 'multi-page', access: 'as written', place: 'members' },
  { layout: 'same-page', access: 'as written', place: 'members' },
  { layout: 'same-page', access: 'as written', place: 'one member' },
]

/** @param {Program} program @returns {Variant[]} */
export function variantsOf(program) {
  if (saysAccess(program)) return asWritten
  const adds = program.threads.flat().some(({ kind }) => kind === 'add')
  return uniform.filter(({ layout }) => !(adds && layout === 'straddling'))
}

/** The program as its threads carry it out. @param {Program} program @param {Variant} variant */
export function programOf(program, { access }) {
  return access === 'as written' ? program : withAccess(program, access)
}

/**
 * What may come out. What is not `allowed` is forbidden; what is allowed and not `sequential` is
 * what a compiler may make of plain accesses.
 * @param {Program} program
 * @param {Variant} variant
 */
export function outcomesOf(program, variant) {
  const accessed = programOf(program, variant)
  const { layout } = variant
  return {
    sequential: sequentialOutcomes(accessed),
    allowed: compiledOutcomes(layout === 'straddling' ? straddled(accessed) : accessed),
  }
}

/** @param {Variant} variant */
export function describeVariant({ layout, access, place }) {
  return `${layout}, ${access}${place === 'members' ? '' : `, ${place}`}`
}
