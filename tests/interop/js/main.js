// A peer of js-libp2p: a host told by lines what to do, as the one in ../go is.
//
// Usage: node main.js [--prefix /dagmesh/test]
//
// It listens on loopback over TCP and WebSocket, takes part in gossipsub, strictly signed, and serves the DHT whose
// protocol is PREFIX/kad/1.0.0. A line on standard input is a command and its arguments, and is answered in order by one
// line of JSON: {"event":"done","command":...,"result":...} or {"event":"failed","command":...,"error":...}. What happens
// by itself (ready, connected, identified, joined, grafted, message, routed) is a line of its own. The end of standard
// input ends it.

import { createInterface } from 'node:readline'
import { parseArgs } from 'node:util'
import { gossipsub } from '@libp2p/gossipsub'
import { identify } from '@libp2p/identify'
import { kadDHT, passthroughMapper } from '@libp2p/kad-dht'
import { noise } from '@libp2p/noise'
import { peerIdFromString } from '@libp2p/peer-id'
import { ping } from '@libp2p/ping'
import { tcp } from '@libp2p/tcp'
import { webSockets } from '@libp2p/websockets'
import { yamux } from '@libp2p/yamux'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'
import { CID } from 'multiformats/cid'
import { ipnsCommands, ipnsInDht } from './ipns.js'

// How long one command may take: longer than any deadline of libp2p, shorter than a test waits.
const COMMAND_DEADLINE_MS = 40_000

const { values: flags } = parseArgs({ options: { prefix: { type: 'string', default: '/dagmesh/test' } } })

const host = await createLibp2p({
  start: false,
  addresses: { listen: ['/ip4/127.0.0.1/tcp/0', '/ip4/127.0.0.1/tcp/0/ws'] },
  transports: [tcp(), webSockets()],
  connectionEncrypters: [noise()],
  streamMuxers: [yamux()],
  nodeInfo: { userAgent: 'dagmesh-interop-js' },
  services: {
    identify: identify(),
    ping: ping(),
    pubsub: gossipsub({ globalSignaturePolicy: 'StrictSign' }),
    // Loopback counts as an address like any other.
    dht: kadDHT({
      protocol: `${flags.prefix}/kad/1.0.0`,
      clientMode: false,
      peerInfoMapper: passthroughMapper,
      ...ipnsInDht
    })
  }
})
const { dht, pubsub } = host.services

const commands = {
  // dial MULTIADDR: connects, and tells over what; the address ends with /p2p/PEER
  dial: async (signal, addr) => connection('connected', await host.dial(multiaddr(addr), { signal })),
  // ping PEER: the round trip in milliseconds
  ping: async (signal, peer) => ({ rtt_ms: await host.services.ping.ping(peerIdFromString(peer), { signal }) }),
  // close PEER: closes every connection with it
  close: async (signal, peer) => { await host.hangUp(peerIdFromString(peer), { signal }) },
  // subscribe TOPIC: takes part in a topic
  subscribe: async (_, topic) => { pubsub.subscribe(topic) },
  // publish TOPIC HEX: sends these bytes to a topic; tells to whom
  publish: async (_, topic, hex) => {
    const { recipients } = await pubsub.publish(topic, Buffer.from(hex, 'hex'))
    return recipients.map(String)
  },
  // provide CID: tells the DHT that this host has it
  provide: async (signal, cid) => {
    for await (const _ of dht.provide(CID.parse(cid), { signal })) { /* until it has told all it will tell */ }
  },
  // providers CID: who has it, with their addresses; ends when the DHT names nobody more
  providers: async (signal, cid) => {
    const found = new Map()
    for await (const event of dht.findProviders(CID.parse(cid), { signal })) {
      if (event.name === 'PROVIDER') {
        for (const provider of event.providers) found.set(provider.id.toString(), info(provider))
      }
    }
    return [...found.values()]
  },
  // find PEER: where a peer is
  find: async (signal, peer) => info(await host.peerRouting.findPeer(peerIdFromString(peer), { signal })),
  ...ipnsCommands(dht)
}

host.addEventListener('connection:open', ({ detail }) => emit(connection('connected', detail)))
host.addEventListener('connection:close', ({ detail }) => emit(connection('disconnected', detail)))
host.addEventListener('peer:identify', ({ detail }) => emit({
  event: 'identified',
  peer: detail.peerId.toString(),
  agent: detail.agentVersion,
  protocol_version: detail.protocolVersion,
  protocols: detail.protocols,
  addrs: detail.listenAddrs.map(String)
}))
pubsub.addEventListener('subscription-change', ({ detail }) => {
  for (const { topic, subscribe } of detail.subscriptions) {
    emit({ event: subscribe ? 'joined' : 'left', topic, peer: detail.peerId.toString() })
  }
})
pubsub.addEventListener('gossipsub:graft', ({ detail }) => {
  emit({ event: 'grafted', topic: detail.topic, peer: detail.peerId, direction: detail.direction })
})
pubsub.addEventListener('gossipsub:message', ({ detail: { msg, propagationSource } }) => emit({
  event: 'message',
  topic: msg.topic,
  from: msg.from?.toString(),
  received_from: propagationSource.toString(),
  signed: msg.type === 'signed',
  data: Buffer.from(msg.data).toString('hex'),
  ...announced(msg.data)
}))
dht.routingTable.addEventListener('peer:add', ({ detail }) => emit({ event: 'routed', peer: detail.toString() }))

await host.start()
emit({ event: 'ready', peer: host.peerId.toString(), addrs: host.getMultiaddrs().map(String) })

for await (const line of createInterface({ input: process.stdin })) {
  const [name, ...args] = line.split(/\s+/).filter(word => word !== '')
  if (name === undefined) continue
  try {
    if (!Object.hasOwn(commands, name)) throw new Error(`there is no command "${name}"`)
    if (args.length !== commands[name].length - 1) throw new Error(`${commands[name].length - 1} arguments expected`)
    const result = await commands[name](AbortSignal.timeout(COMMAND_DEADLINE_MS), ...args)
    emit({ event: 'done', command: line, result: result ?? null })
  } catch (error) {
    emit({ event: 'failed', command: line, error: `${error.name}: ${error.message}` })
  }
}
process.exit(0)

// connection tells a connection: with whom, over what, and who began.
function connection (event, opened) {
  return {
    event,
    peer: opened.remotePeer.toString(),
    addr: opened.remoteAddr.toString(),
    security: opened.encryption,
    muxer: opened.multiplexer,
    direction: opened.direction,
    relayed: opened.limits != null
  }
}

// info tells a peer and its addresses.
function info ({ id, multiaddrs }) {
  return { peer: id.toString(), addrs: multiaddrs.map(String) }
}

// announced reads how an announcement begins: a CBOR array of few items, the first of them a CID (tag 42 on a byte
// string that begins with a zero).
function announced (data) {
  if (data.length < 6 || data[0] < 0x80 || data[0] > 0x97 || data[1] !== 0xd8 || data[2] !== 0x2a || data[3] !== 0x58) {
    return {}
  }
  const end = 5 + data[4]
  if (end > data.length || data[5] !== 0) return {}
  return { cid: CID.decode(data.subarray(6, end)).toString(), items: data[0] - 0x80 }
}

function emit (event) {
  process.stdout.write(`${JSON.stringify(event)}\n`)
}
