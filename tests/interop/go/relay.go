package main

import (
	"fmt"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	"github.com/multiformats/go-multiaddr"
)

// addRelay makes a host a relay (circuit v2) that hands out its addresses of loopback too: by default go-libp2p names
// public ones alone, and a place without an address is of no use.
func addRelay(host host.Host) error {
	anywhere := relay.WithReservationAddressFilter(func(multiaddr.Multiaddr) bool { return true })
	if _, err := relay.New(host, anywhere); err != nil {
		return fmt.Errorf("starting the relay: %w", err)
	}
	return nil
}
