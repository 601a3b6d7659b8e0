// IPNS as npm's `ipns` has it: the commands of main.js that make, judge, put and get its records. Keys and records are
// written in hexadecimal, a name as a peer id.

import { generateKeyPair, privateKeyFromProtobuf, privateKeyToProtobuf } from '@libp2p/crypto/keys'
import { peerIdFromPrivateKey, peerIdFromString } from '@libp2p/peer-id'
import { createIPNSRecord, marshalIPNSRecord, multihashToIPNSRoutingKey, unmarshalIPNSRecord } from 'ipns'
import { ipnsSelector } from 'ipns/selector'
import { ipnsValidator } from 'ipns/validator'

// What a DHT needs to keep such records.
export const ipnsInDht = { validators: { ipns: ipnsValidator }, selectors: { ipns: ipnsSelector } }

export const ipnsCommands = dht => ({
  // ipns-key TYPE: makes a key (Ed25519, secp256k1, RSA)
  'ipns-key': async (_, type) => {
    const key = await generateKeyPair(type)
    return { peer: peerIdFromPrivateKey(key).toString(), key: hex(privateKeyToProtobuf(key)) }
  },
  // ipns-make KEY VALUE SEQUENCE LIFETIME_MS: signs a record
  'ipns-make': async (_, key, value, sequence, lifetime) => {
    const pair = privateKeyFromProtobuf(bytes(key))
    return hex(marshalIPNSRecord(await createIPNSRecord(pair, value, BigInt(sequence), Number(lifetime))))
  },
  // ipns-check NAME RECORD: what a record says that holds under a name now
  'ipns-check': async (_, name, record) => {
    await ipnsValidator(routingKey(name), bytes(record))
    return said(bytes(record))
  },
  // ipns-select NAME RECORD RECORD: which of the two is the newer, 0 or 1
  'ipns-select': async (_, name, first, second) => ipnsSelector(routingKey(name), [bytes(first), bytes(second)]),
  // ipns-put NAME RECORD: puts it to the DHT; tells who has acknowledged it
  'ipns-put': async (signal, name, record) => {
    const holders = []
    for await (const event of dht.put(routingKey(name), bytes(record), { signal })) {
      if (event.name === 'PEER_RESPONSE' && event.record != null) holders.push(event.from.toString())
    }
    return holders
  },
  // ipns-get NAME: the newest record in the DHT, and what it says; it holds, or the DHT would not hand it out
  'ipns-get': async (signal, name) => {
    for await (const event of dht.get(routingKey(name), { signal })) {
      if (event.name === 'VALUE') return { record: hex(event.value), ...said(event.value) }
    }
    throw new Error(`there is no record of ${name}`)
  }
})

function said (record) {
  const { value, sequence, validity, ttl } = unmarshalIPNSRecord(record)
  return { value, seq: Number(sequence), validity, ttl_ns: Number(ttl) }
}

function routingKey (name) {
  return multihashToIPNSRoutingKey(peerIdFromString(name).toMultihash())
}

function hex (data) {
  return Buffer.from(data).toString('hex')
}

function bytes (text) {
  return Uint8Array.from(Buffer.from(text, 'hex'))
}
