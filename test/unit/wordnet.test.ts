import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import {
  incomingEdges,
  readSynset,
  readWordnet,
  type Wordnet,
} from '../../examples/wordnet/wordnet.mjs'

t.test('all synsets and pointers of the installed WordNet', async (t) => {
  const wordnet = readWordnet()
  t.equal(wordnet.synsetCount, 117_791)
  t.equal(wordnet.edgeCount, 378_203)
  t.equal(wordnet.edgeTargets.length, wordnet.edgeCount)
  t.equal(wordnet.edgeOffsets.length, wordnet.synsetCount + 1)
  t.equal(wordnet.edgeOffsets[wordnet.synsetCount], wordnet.edgeCount)
  t.ok(wordnet.edgeOffsets.every((offset, s) => s === 0 || offset >= wordnet.edgeOffsets[s - 1]))
  t.ok(wordnet.edgeTargets.every((target) => target < wordnet.synsetCount))
  t.strictSame(
    wordnet.files.map(({ partOfSpeech, byteOffsets }) => [partOfSpeech, byteOffsets.length]),
    [
      ['noun', 82_192],
      ['verb', 13_789],
      ['adj', 18_185],
      ['adv', 3_625],
    ],
  )

  t.test('a synset is read with its words, gloss and pointers', async (t) => {
    t.strictSame(readSynset(wordnet, 0), {
      partOfSpeech: 'noun',
      words: ['entity'],
      gloss:
        'that which is perceived or known or inferred to have its own distinct existence ' +
        '(living or nonliving)',
    })
    const narrower = ['physical entity', 'abstraction', 'abstract entity', 'thing']
    t.strictSame(targetWords(wordnet, 0), narrower)
    t.strictSame(readSynset(wordnet, wordnet.synsetCount - 1), {
      partOfSpeech: 'adv',
      words: ['voluminously'],
      gloss: 'in a voluminous manner',
    })
    // Lexical pointers count, and lead to other parts of speech.
    t.ok(targetWords(wordnet, wordnet.synsetCount - 1).includes('voluminous'))
  })

  t.test('a synset that does not exist is refused', async (t) => {
    for (const synset of [-1, wordnet.synsetCount, 0.5, NaN]) {
      t.throws(() => readSynset(wordnet, synset), RangeError)
    }
  })

  t.test('the incoming edges are the same edges', async (t) => {
    const { offsets, sources } = incomingEdges(wordnet)
    t.equal(offsets.length, wordnet.synsetCount + 1)
    t.equal(sources.length, wordnet.edgeCount)
    const nextEdges = wordnet.edgeOffsets.slice()
    const strays = []
    // Taken in the order of targets, each source's edges come in the order of its sorted targets.
    const sorted = sortedRows(wordnet)
    for (let s = 0; s < wordnet.synsetCount; s++) {
      for (const source of sources.subarray(offsets[s], offsets[s + 1])) {
        if (sorted[nextEdges[source]++] !== s) strays.push([source, s])
      }
    }
    t.strictSame(strays, [])
    t.ok(nextEdges.every((next, s) => next === (wordnet.edgeOffsets[s + 1] ?? next)))
  })
})

t.test('a limit keeps the first synsets and the edges among them', async (t) => {
  const wordnet = readWordnet({ limit: 500 })
  t.equal(wordnet.synsetCount, 500)
  t.ok(wordnet.edgeCount > 500)
  t.ok(wordnet.edgeTargets.every((target) => target < 500))
  t.strictSame(readSynset(wordnet, 0).words, ['entity'])
  t.throws(() => readSynset(wordnet, 500), RangeError)

  const withVerbs = readWordnet({ limit: 82_193 })
  t.equal(withVerbs.synsetCount, 82_193)
  t.ok(readSynset(withVerbs, 82_192).words.includes('breathe'))
})

const licence = '  1 This software\n'
const own = String(licence.length).padStart(8, '0')

t.test('words are shown as people write them', async (t) => {
  const line = `${own} 00 a 02 ready_to_hand(p) 0 Sept. a 001 & ${own} a 0000 | at hand; "now"  \n`
  const wordnet = readWordnet({ directory: makeDictionary(t, { adj: licence + line }) })
  t.strictSame([wordnet.synsetCount, wordnet.edgeCount], [4, 1])
  t.strictSame([...wordnet.edgeTargets], [2])
  t.strictSame(readSynset(wordnet, 2), {
    partOfSpeech: 'adj',
    words: ['ready to hand', 'Sept.'],
    gloss: 'at hand; "now"',
  })
})

t.test('a gloss longer than any buffer is read whole', async (t) => {
  const gloss = 'long '.repeat(3000).trim()
  const noun = `${licence}${own} 00 n 01 x 0 000 | ${gloss}\n`
  const wordnet = readWordnet({ directory: makeDictionary(t, { noun }) })
  t.equal(readSynset(wordnet, 0).gloss, gloss)
})

t.test('damaged files are named, with the place', async (t) => {
  // The offsets of the fields in a line whose one word is one letter long.
  const [lineAt, pointerCountAt, pointerAt] = [0, 21, 27].map((at) => licence.length + at)
  const cases = {
    'cut off': [`${licence}${own} 00 n 01 x 0 000 | x`, lineAt, 'the last line is cut off'],
    empty: [licence, 0, 'no synset'],
    'not at its offset': [`${licence}00000099 00 n 01 x 0 000 | x\n`, lineAt, 'byte 99'],
    'no number': [`${licence}${own} 00 n 01 x 0 0xy | x\n`, pointerCountAt, 'the pointer count'],
    'too few words': [`${licence}${own} 00 n 09 x 0 000 | x\n`, pointerAt, 'a field is missing'],
    'too few pointers': [`${licence}${own} 00 n 01 x 0 001 | x\n`, pointerAt, "a pointer's target"],
    'a pointer to nowhere': [
      `${licence}${own} 00 n 01 x 0 001 @ 00000007 n 0000 | x\n`,
      pointerAt,
      'leads to 7 n, where no synset begins',
    ],
    'an unknown part of speech': [
      `${licence}${own} 00 n 01 x 0 001 @ ${own} z 0000 | x\n`,
      pointerAt,
      `leads to ${licence.length} z`,
    ],
  } as const
  for (const [name, [noun, byteOffset, message]] of Object.entries(cases)) {
    const directory = makeDictionary(t, { noun })
    const place = `${join(directory, 'data.noun')}: byte ${byteOffset}: `
    let caught: unknown
    try {
      readWordnet({ directory })
    } catch (error) {
      caught = error
    }
    t.type(caught, Error, name)
    const text = (caught as Error).message
    t.equal(text.slice(0, place.length), place, name)
    t.ok(text.includes(message), `${name}: ${text}`)
  }
  t.throws(() => readWordnet({ directory: t.testdir() }), { code: 'ENOENT' })
})

/** A dictionary folder of one synset per file, except for what is given. */
function makeDictionary(t: Test, files: Partial<Record<'noun' | 'adj', string>>): string {
  const directory = t.testdir()
  for (const [part, letter] of Object.entries({ noun: 'n', verb: 'v', adj: 'a', adv: 'r' })) {
    const synset = `${licence}${own} 00 ${letter} 01 x 0 000 | a gloss  \n`
    writeFileSync(join(directory, `data.${part}`), files[part as 'noun'] ?? synset)
  }
  return directory
}

/** The words of the synsets that one synset points to. */
function targetWords(wordnet: Wordnet, synset: number): string[] {
  const { edgeOffsets, edgeTargets } = wordnet
  const targets = edgeTargets.subarray(edgeOffsets[synset], edgeOffsets[synset + 1])
  return [...targets].flatMap((target) => readSynset(wordnet, target).words)
}

/** The edges' targets, in ascending order within each row. */
function sortedRows({ synsetCount, edgeOffsets, edgeTargets }: Wordnet): Uint32Array {
  const sorted = edgeTargets.slice()
  for (let s = 0; s < synsetCount; s++) {
    sorted.subarray(edgeOffsets[s], edgeOffsets[s + 1]).sort()
  }
  return sorted
}
