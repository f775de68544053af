// The Clique chain of @ethereumjs, as a second opinion. One JSON document on standard input, one on standard output.
//
//   node clique.mjs mine    { chainId, period, epoch, signers, blocks } -> { genesis, headers }
//   node clique.mjs judge   { chainId, period, epoch, genesis, headers } -> [{ signer } or { error }, ...]
//
// Headers are RLP in hexadecimal. Packages are found by NODE_PATH, as a module of tests is far from target/node.
import { createRequire } from 'node:module'
import { readFileSync } from 'node:fs'

const require = createRequire(import.meta.url)
const {
  Block,
  cliqueSigner,
  createBlock,
  createBlockHeader,
  createBlockHeaderFromRLP,
  createSealedCliqueBlockHeader,
} = require('@ethereumjs/block')
const { createBlockchain, CliqueConsensus } = require('@ethereumjs/blockchain')
const { createCustomCommon, Mainnet, Hardfork } = require('@ethereumjs/common')
const { bytesToHex, hexToBytes, privateToAddress, concatBytes, setLengthLeft, intToBytes } = require('@ethereumjs/util')

const input = JSON.parse(readFileSync(0, 'utf8'))
const common = commonOf(input)
const output = process.argv[2] === 'mine' ? await mine(input) : await judge(input)
process.stdout.write(JSON.stringify(output))

function commonOf({ chainId, period, epoch }) {
  const names = Mainnet.hardforks.map(({ name }) => name)
  const active = names.slice(0, names.indexOf('london') + 1).filter((name) => name !== 'dao')
  const hardforks = active.map((name) => ({ name, block: 0 }))
  const consensus = { type: 'poa', algorithm: 'clique', clique: { period, epoch } }
  const genesis = { gasLimit: 8_000_000, difficulty: 1, nonce: '0x0000000000000000', extraData: '0x' }
  const chain = { name: 'consortium', chainId, hardforks, consensus, genesis }
  return createCustomCommon(chain, Mainnet, { hardfork: Hardfork.London })
}

async function chainOn(genesis) {
  const consensusDict = { clique: new CliqueConsensus() }
  const genesisBlock = createBlock({ header: genesis }, { common })
  return createBlockchain({ common, consensusDict, genesisBlock, validateBlocks: true, validateConsensus: true })
}

// A block of nothing but its header: of a header alone the rules about its parent are not asked.
function bare(header) {
  return new Block(header, [], [], undefined, { common })
}

// Keys are the numbers from 1 on.
function signersOf(count) {
  const keys = Array.from({ length: count }, (_, place) => setLengthLeft(intToBytes(place + 1), 32))
  const signers = keys.map((key) => ({ key, address: bytesToHex(privateToAddress(key)) }))
  return signers.sort((one, other) => (one.address < other.address ? -1 : 1))
}

// Every block in turn, but each seventh, which the signer half a round away makes instead.
async function mine({ period, epoch, signers: count, blocks }) {
  const signers = signersOf(count)
  const listed = signers.map(({ address }) => hexToBytes(address))
  const first = 1_700_000_000
  const extra = (addresses) => concatBytes(new Uint8Array(32), ...addresses, new Uint8Array(65))
  const genesis = createBlockHeader(
    { timestamp: first, extraData: extra(listed), difficulty: 1, gasLimit: 8_000_000, baseFeePerGas: 1_000_000_000 },
    { common },
  )
  const chain = await chainOn(genesis)
  const headers = []
  let parent = genesis
  const limit = Math.floor(count / 2) + 1
  const last = new Map()
  for (let number = 1; number <= blocks; number++) {
    const free = (place) => number - (last.get(place) ?? -limit) >= limit
    const wanted = number % 7 === 0 ? (number + Math.floor(count / 2)) % count : number % count
    let place = wanted
    while (!free(place)) place = (place + 1) % count
    last.set(place, number)
    const header = createSealedCliqueBlockHeader(
      {
        number,
        parentHash: parent.hash(),
        timestamp: first + number * period,
        difficulty: place === number % count ? 2 : 1,
        gasLimit: parent.gasLimit,
        baseFeePerGas: parent.calcNextBaseFee(),
        stateRoot: new Uint8Array(32).fill(number % 256),
        extraData: extra(number % epoch === 0 ? listed : []),
      },
      signers[place].key,
      { common, freeze: false },
    )
    await chain.putBlock(bare(header))
    headers.push(header)
    parent = header
  }
  const text = (header) => bytesToHex(header.serialize())
  return { genesis: text(genesis), headers: headers.map(text) }
}

async function judge({ genesis, headers }) {
  const chain = await chainOn(createBlockHeaderFromRLP(hexToBytes(genesis), { common }))
  const verdicts = []
  for (const text of headers) {
    try {
      const header = createBlockHeaderFromRLP(hexToBytes(text), { common })
      await chain.putBlock(bare(header))
      verdicts.push({ signer: cliqueSigner(header).toString() })
    } catch (error) {
      verdicts.push({ error: String(error.message ?? error) })
    }
  }
  return verdicts
}
