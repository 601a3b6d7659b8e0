package main

import (
	"context"
	"encoding/hex"
	"fmt"

	"github.com/ipfs/go-cid"
	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
)

// addGossip lets a host speak gossipsub as go-libp2p-pubsub does by default, strictly signed.
//
//	subscribe TOPIC      takes part in a topic; then come the events joined, left, grafted, message
//	publish TOPIC HEX    sends these bytes to a topic it takes part in
func addGossip(host host.Host, commands map[string]command) error {
	ctx := context.Background()
	signed := pubsub.WithMessageSignaturePolicy(pubsub.StrictSign)
	gossip, err := pubsub.NewGossipSub(ctx, host, signed, pubsub.WithEventTracer(tracer{}))
	if err != nil {
		return fmt.Errorf("starting gossipsub: %w", err)
	}
	topics := map[string]*pubsub.Topic{}
	commands["subscribe"] = func(_ context.Context, args []string) (any, error) {
		name, err := one(args)
		if err != nil {
			return nil, err
		}
		topic, err := gossip.Join(name)
		if err != nil {
			return nil, err
		}
		topics[name] = topic
		events, err := topic.EventHandler()
		if err != nil {
			return nil, err
		}
		subscription, err := topic.Subscribe()
		if err != nil {
			return nil, err
		}
		go tellMembers(ctx, name, events)
		go tellMessages(ctx, host.ID(), subscription)
		return nil, nil
	}
	commands["publish"] = func(ctx context.Context, args []string) (any, error) {
		if len(args) != 2 {
			return nil, fmt.Errorf("a topic and bytes in hex expected")
		}
		topic, ok := topics[args[0]]
		if !ok {
			return nil, fmt.Errorf("not subscribed to %s", args[0])
		}
		data, err := hex.DecodeString(args[1])
		if err != nil {
			return nil, err
		}
		return nil, topic.Publish(ctx, data)
	}
	return nil
}

func tellMembers(ctx context.Context, topic string, events *pubsub.TopicEventHandler) {
	for {
		next, err := events.NextPeerEvent(ctx)
		if err != nil {
			return
		}
		name := "joined"
		if next.Type == pubsub.PeerLeave {
			name = "left"
		}
		emit(map[string]any{"event": name, "topic": topic, "peer": next.Peer})
	}
}

// tellMessages prints what others said, and the CID where the bytes begin as an announcement of the IPNI network does.
func tellMessages(ctx context.Context, own peer.ID, subscription *pubsub.Subscription) {
	for {
		message, err := subscription.Next(ctx)
		if err != nil {
			return
		}
		if message.ReceivedFrom == own {
			continue
		}
		event := map[string]any{
			"event": "message", "topic": message.GetTopic(), "from": message.GetFrom(),
			"received_from": message.ReceivedFrom, "signed": len(message.GetSignature()) > 0,
			"data": hex.EncodeToString(message.GetData()),
		}
		if head, items, ok := announced(message.GetData()); ok {
			event["cid"], event["items"] = head.String(), items
		}
		emit(event)
	}
}

// announced reads how an announcement begins: a CBOR array of few items, the first of them a CID (tag 42 on a byte
// string that begins with a zero).
func announced(data []byte) (head cid.Cid, items int, ok bool) {
	const array, tag42, bytes8 = 0x80, "\xd8\x2a", 0x58
	if len(data) < 6 || data[0] < array || data[0] > array+23 || string(data[1:3]) != tag42 || data[3] != bytes8 {
		return cid.Undef, 0, false
	}
	end := 5 + int(data[4])
	if end > len(data) || data[5] != 0 {
		return cid.Undef, 0, false
	}
	head, err := cid.Cast(data[6:end])
	return head, int(data[0] - array), err == nil
}

// tracer tells what the router itself decides.
type tracer struct{}

func (tracer) Trace(event *pb.TraceEvent) {
	switch event.GetType() {
	case pb.TraceEvent_GRAFT:
		emit(map[string]any{
			"event": "grafted", "topic": event.GetGraft().GetTopic(), "peer": peer.ID(event.GetGraft().GetPeerID()),
		})
	case pb.TraceEvent_REJECT_MESSAGE:
		emit(map[string]any{
			"event": "rejected", "topic": event.GetRejectMessage().GetTopic(),
			"reason": event.GetRejectMessage().GetReason(),
			"peer":   peer.ID(event.GetRejectMessage().GetReceivedFrom()),
		})
	}
}
