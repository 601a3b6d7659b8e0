package main

import (
	"context"
	"fmt"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	autonatv1 "github.com/libp2p/go-libp2p/p2p/host/autonat"
	"github.com/libp2p/go-libp2p/p2p/protocol/autonatv2"
	"github.com/multiformats/go-multiaddr"
)

// addAutonat lets a host test the addresses of others, and have its own tested (AutoNAT v2), on loopback too.
//
//	reachable MULTIADDR    asks a connected peer to dial this address of ours; the answer is Public, Private or Unknown
//	dial-back PEER         asks a peer by AutoNAT v1 to dial any address of ours; fails as it says
func addAutonat(host host.Host, commands map[string]command) error {
	// It dials back as somebody else, so that no connection that stands already is taken for the proof.
	dialler, err := libp2p.New(libp2p.NoListenAddrs, libp2p.DisableMetrics(), libp2p.ForceReachabilityPrivate())
	if err != nil {
		return fmt.Errorf("starting the host that dials back: %w", err)
	}
	nat, err := autonatv2.New(dialler, autonatv2.AllowPrivateAddrs)
	if err != nil {
		return fmt.Errorf("making AutoNAT: %w", err)
	}
	if err := nat.Start(host); err != nil {
		return fmt.Errorf("starting AutoNAT: %w", err)
	}
	first := autonatv1.NewAutoNATClient(host, nil, nil)
	commands["dial-back"] = func(ctx context.Context, args []string) (any, error) {
		server, err := peerID(args)
		if err != nil {
			return nil, err
		}
		return nil, first.DialBack(ctx, server)
	}
	commands["reachable"] = func(ctx context.Context, args []string) (any, error) {
		text, err := one(args)
		if err != nil {
			return nil, err
		}
		addr, err := multiaddr.NewMultiaddr(text)
		if err != nil {
			return nil, err
		}
		answer, err := nat.GetReachability(ctx, []autonatv2.Request{{Addr: addr, SendDialData: true}})
		if err != nil {
			return nil, err
		}
		return answer.Reachability.String(), nil
	}
	return nil
}
