package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
)

// hostCommands are the commands that every subcommand has:
//
//	dial MULTIADDR       connects, and tells over what; the address ends with /p2p/PEER
//	ping PEER            the round trip in microseconds
//	close PEER           closes every connection with it
//	reserve MULTIADDR    asks a relay for a place, and tells where others then find us
//	usage                what this process has used: processor time, memory now and at its peak
func hostCommands(host host.Host) map[string]command {
	return map[string]command{
		"dial": func(ctx context.Context, args []string) (any, error) {
			to, err := addrInfo(args)
			if err != nil {
				return nil, err
			}
			if err := host.Connect(network.WithAllowLimitedConn(ctx, "told to"), *to); err != nil {
				return nil, err
			}
			conns := host.Network().ConnsToPeer(to.ID)
			if len(conns) == 0 {
				return nil, fmt.Errorf("the connection with %s is gone already", to.ID)
			}
			return connection("connected", conns[0]), nil
		},
		"ping": func(ctx context.Context, args []string) (any, error) {
			to, err := peerID(args)
			if err != nil {
				return nil, err
			}
			ctx, cancel := context.WithCancel(network.WithAllowLimitedConn(ctx, "told to"))
			defer cancel()
			answer := <-ping.Ping(ctx, host, to)
			if answer.Error != nil {
				return nil, answer.Error
			}
			return map[string]any{"rtt_us": answer.RTT.Microseconds()}, nil
		},
		"close": func(_ context.Context, args []string) (any, error) {
			peer, err := peerID(args)
			if err != nil {
				return nil, err
			}
			return nil, host.Network().ClosePeer(peer)
		},
		"reserve": func(ctx context.Context, args []string) (any, error) {
			relay, err := addrInfo(args)
			if err != nil {
				return nil, err
			}
			// A reservation lasts as long as the connection it was made over.
			if err := host.Connect(ctx, *relay); err != nil {
				return nil, err
			}
			place, err := client.Reserve(ctx, host, *relay)
			if err != nil {
				return nil, err
			}
			return map[string]any{"addrs": place.Addrs, "expires": place.Expiration.Unix()}, nil
		},
		"usage": func(context.Context, []string) (any, error) { return usage() },
	}
}

// usage reads the process's own accounts; the memory only where there is /proc.
func usage() (any, error) {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		return nil, err
	}
	told := map[string]any{"user_ms": used.Utime.Nano() / 1e6, "system_ms": used.Stime.Nano() / 1e6}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return told, nil
	}
	for _, line := range strings.Split(string(status), "\n") {
		var kib int64
		for field, name := range map[string]string{"VmRSS:": "rss_bytes", "VmHWM:": "peak_rss_bytes"} {
			if rest, ok := strings.CutPrefix(line, field); ok {
				if _, err := fmt.Sscanf(rest, "%d kB", &kib); err == nil {
					told[name] = kib << 10
				}
			}
		}
	}
	return told, nil
}

func addrInfo(args []string) (*peer.AddrInfo, error) {
	text, err := one(args)
	if err != nil {
		return nil, err
	}
	return peer.AddrInfoFromString(text)
}

func peerID(args []string) (peer.ID, error) {
	text, err := one(args)
	if err != nil {
		return "", err
	}
	return peer.Decode(text)
}
