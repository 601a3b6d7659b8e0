package main

import (
	"flag"
	"fmt"
	"os"
	"strings"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/pnet"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	tls "github.com/libp2p/go-libp2p/p2p/security/tls"
	quic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/libp2p/go-libp2p/p2p/transport/websocket"
)

const agent = "dagmesh-interop-go"

// hostOptions say what a host speaks. It listens on loopback alone unless told otherwise, on a free port of each
// transport.
type hostOptions struct {
	ip         string
	transports string
	security   string
	psk        string
	// Whether it serves AutoNAT v1, which go-libp2p does only where it takes itself for reachable.
	dialsBack bool
	// Its identity; a new one where there is none.
	key crypto.PrivKey
}

func (o *hostOptions) flags(flags *flag.FlagSet) {
	flags.StringVar(&o.ip, "ip", "127.0.0.1", "the IPv4 address to listen on")
	flags.StringVar(&o.transports, "transports", "tcp,quic,ws", "some of tcp, quic, ws")
	flags.StringVar(&o.security, "security", "tls,noise", "tls, noise or both, the preferred one first")
	flags.StringVar(&o.psk, "psk", "", "a file with the key of a private network; needs -transports tcp")
}

// start gives a host that listens and tells its events.
func (o *hostOptions) start() (host.Host, error) {
	options := []libp2p.Option{
		libp2p.UserAgent(agent),
		libp2p.DisableMetrics(),
		libp2p.Muxer(yamux.ID, yamux.DefaultTransport),
	}
	if o.dialsBack {
		options = append(options, libp2p.ForceReachabilityPublic(), libp2p.EnableNATService())
	} else {
		// Nobody asks the tests' peers to be reachable from elsewhere.
		options = append(options, libp2p.ForceReachabilityPrivate())
	}
	for _, name := range strings.Split(o.transports, ",") {
		switch name {
		case "tcp":
			options = append(options, libp2p.Transport(tcp.NewTCPTransport), libp2p.ListenAddrStrings("/ip4/"+o.ip+"/tcp/0"))
		case "quic":
			options = append(options, libp2p.Transport(quic.NewTransport), libp2p.ListenAddrStrings("/ip4/"+o.ip+"/udp/0/quic-v1"))
		case "ws":
			options = append(options, libp2p.Transport(websocket.New), libp2p.ListenAddrStrings("/ip4/"+o.ip+"/tcp/0/ws"))
		default:
			return nil, fmt.Errorf("there is no transport %q", name)
		}
	}
	for _, name := range strings.Split(o.security, ",") {
		switch name {
		case "tls":
			options = append(options, libp2p.Security(tls.ID, tls.New))
		case "noise":
			options = append(options, libp2p.Security(noise.ID, noise.New))
		default:
			return nil, fmt.Errorf("there is no security %q", name)
		}
	}
	if o.psk != "" {
		file, err := os.Open(o.psk)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		key, err := pnet.DecodeV1PSK(file)
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", o.psk, err)
		}
		options = append(options, libp2p.PrivateNetwork(key))
	}
	if o.key != nil {
		options = append(options, libp2p.Identity(o.key))
	}
	host, err := libp2p.New(options...)
	if err != nil {
		return nil, err
	}
	return host, tellEvents(host)
}

// tellEvents prints what happens to connections, and who peers say they are.
func tellEvents(host host.Host) error {
	host.Network().Notify(&network.NotifyBundle{
		ConnectedF:    func(_ network.Network, conn network.Conn) { emit(connection("connected", conn)) },
		DisconnectedF: func(_ network.Network, conn network.Conn) { emit(connection("disconnected", conn)) },
	})
	identified, err := host.EventBus().Subscribe(
		[]any{new(event.EvtPeerIdentificationCompleted), new(event.EvtPeerIdentificationFailed)},
		eventbus.BufSize(256),
	)
	if err != nil {
		return err
	}
	go func() {
		for next := range identified.Out() {
			switch told := next.(type) {
			case event.EvtPeerIdentificationCompleted:
				emit(map[string]any{
					"event": "identified", "peer": told.Peer, "agent": told.AgentVersion,
					"protocol_version": told.ProtocolVersion, "protocols": told.Protocols, "addrs": told.ListenAddrs,
				})
			case event.EvtPeerIdentificationFailed:
				emit(map[string]any{"event": "not_identified", "peer": told.Peer, "error": told.Reason.Error()})
			}
		}
	}()
	return nil
}

// connection tells a connection: with whom, over what, and who began.
func connection(name string, conn network.Conn) map[string]any {
	state := conn.ConnState()
	return map[string]any{
		"event": name, "peer": conn.RemotePeer(), "addr": conn.RemoteMultiaddr(), "transport": state.Transport,
		"security": state.Security, "muxer": state.StreamMultiplexer,
		"direction": strings.ToLower(conn.Stat().Direction.String()), "relayed": conn.Stat().Limited,
	}
}

// fullAddrs gives where a host listens, each with its peer id.
func fullAddrs(host host.Host) []string {
	addrs := []string{}
	for _, addr := range host.Network().ListenAddresses() {
		// A host that can be reached through relays lists this one, whether it has a place at one or not.
		if addr.String() == "/p2p-circuit" {
			continue
		}
		addrs = append(addrs, fmt.Sprintf("%s/p2p/%s", addr, host.ID()))
	}
	return addrs
}

// info tells a peer and its addresses.
func info(found peer.AddrInfo) map[string]any {
	return map[string]any{"peer": found.ID, "addrs": found.Addrs}
}
