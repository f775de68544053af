// npm's bittorrent-dht, another implementation of BEP 5 and BEP 44, as a program for tests.
//
//   node bittorrent_dht.mjs MODULES get PORT TARGET SALT         the item under TARGET (hex), verified
//   node bittorrent_dht.mjs MODULES put PORT SEED SALT SEQ VALUE [SIGNER]
//                                                                store VALUE (hex) under the key of SEED (hex), signed by
//                                                                SIGNER's key instead if given
//   node bittorrent_dht.mjs MODULES serve PORT                   a node of that network, until standard input ends
//
// PORT is one of 127.0.0.1, or ADDRESS:PORT. Answers one JSON object on standard output.
import crypto from 'node:crypto'

const [modules, command, port, ...rest] = process.argv.slice(2)
const { Client } = await import(`${modules}/bittorrent-dht/index.js`)

const privateKey = seed =>
  crypto.createPrivateKey({
    key: Buffer.concat([Buffer.from('302e020100300506032b657004220420', 'hex'), Buffer.from(seed, 'hex')]),
    format: 'der',
    type: 'pkcs8'
  })
const publicBytes = seed =>
  Buffer.from(crypto.createPublicKey(privateKey(seed)).export({ format: 'jwk' }).x, 'base64url')
const verify = (signature, message, key) => {
  const der = Buffer.concat([Buffer.from('302a300506032b6570032100', 'hex'), key])
  return crypto.verify(null, message, crypto.createPublicKey({ key: der, format: 'der', type: 'spki' }), signature)
}
const print = value => console.log(JSON.stringify(value))

const isElsewhere = port.includes(':')
const host = isElsewhere ? '0.0.0.0' : '127.0.0.1'
const dht = new Client({ bootstrap: [isElsewhere ? port : `127.0.0.1:${port}`], host, verify })

if (command === 'serve') {
  dht.listen(0, host, () => print({ port: dht.address().port }))
  process.stdin.on('end', () => process.exit(0)).resume()
} else {
  dht.listen(0, host)
  dht.on('ready', () => {
    if (command === 'get') {
      const [target, salt] = rest
      dht.get(target, { salt: Buffer.from(salt), cache: false }, (error, item) => {
        print(item ? { v: item.v.toString('hex'), k: item.k.toString('hex'), seq: item.seq } : { error: String(error) })
        dht.destroy()
      })
    } else {
      const [seed, salt, seq, value, signer] = rest
      const options = {
        k: publicBytes(seed),
        salt: Buffer.from(salt),
        seq: Number(seq),
        v: Buffer.from(value, 'hex'),
        sign: message => crypto.sign(null, message, privateKey(signer ?? seed))
      }
      dht.put(options, (error, target, count) => {
        print({ error: error ? String(error.message) : null, target: target?.toString('hex'), count })
        dht.destroy()
      })
    }
  })
}
