package main

import (
	"context"
	"fmt"

	"github.com/ipfs/go-cid"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// addDht makes a host a server of the DHT whose protocol is PREFIX/kad/1.0.0. The event routed names each peer that
// enters its routing table, which it does once it has answered a query.
//
//	table               who stands in the routing table
//	provide CID         tells the DHT that this host has it
//	providers CID       who has it, with their addresses; ends when the DHT names nobody more
//	find PEER           where a peer is
func addDht(host host.Host, prefix string, commands map[string]command) error {
	kad, err := dht.New(host, dht.Mode(dht.ModeServer), dht.ProtocolPrefix(protocol.ID(prefix)))
	if err != nil {
		return fmt.Errorf("starting the DHT: %w", err)
	}
	table := kad.RoutingTable()
	added := table.PeerAdded
	table.PeerAdded = func(peer peer.ID) {
		added(peer)
		emit(map[string]any{"event": "routed", "peer": peer})
	}
	commands["table"] = func(context.Context, []string) (any, error) {
		return table.ListPeers(), nil
	}
	commands["provide"] = func(ctx context.Context, args []string) (any, error) {
		key, err := cidOf(args)
		if err != nil {
			return nil, err
		}
		return nil, kad.Provide(ctx, key, true)
	}
	commands["providers"] = func(ctx context.Context, args []string) (any, error) {
		key, err := cidOf(args)
		if err != nil {
			return nil, err
		}
		found := []any{}
		for provider := range kad.FindProvidersAsync(ctx, key, 0) {
			found = append(found, info(provider))
		}
		return found, ctx.Err()
	}
	commands["find"] = func(ctx context.Context, args []string) (any, error) {
		wanted, err := peerID(args)
		if err != nil {
			return nil, err
		}
		found, err := kad.FindPeer(ctx, wanted)
		if err != nil {
			return nil, err
		}
		return info(found), nil
	}
	return nil
}

func cidOf(args []string) (cid.Cid, error) {
	text, err := one(args)
	if err != nil {
		return cid.Undef, err
	}
	return cid.Decode(text)
}
