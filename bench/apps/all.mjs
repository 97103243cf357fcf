import { jacobi } from './jacobi.mjs'
import { kMeans } from './k-means.mjs'
import { multiply } from './multiply.mjs'
import { pagerank } from './pagerank.mjs'
import { sort } from './sort.mjs'

const all = [jacobi, pagerank, multiply, sort, kMeans]

/** By their names. @type {Record<string, import('./application.mjs').Application>} */
export const applications = Object.fromEntries(all.map((each) => [each.name, each]))
