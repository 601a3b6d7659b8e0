// Command interop is a peer that others wrote: a go-libp2p host, told by a test what to do.
//
// Usage: interop host|gossip|dht|relay|autonat|autonat-v1|ipni-publisher|ipni-subscriber [flags]
//
// A line on standard input is a command and its arguments, and is answered in order by one line of JSON on standard
// output: {"event":"done","command":...,"result":...} or {"event":"failed","command":...,"error":...}. What happens by
// itself (ready, connected, identified, message, ...) is a line of its own, at any time. The end of standard input ends
// the program. Every subcommand is a host with the commands of commands.go; the others add their own.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
)

// How long one command may take unless it is told otherwise: longer than any deadline of libp2p, shorter than a test
// waits.
const commandDeadline = 40 * time.Second

// A command takes its arguments and gives what is to stand under "result".
type command func(ctx context.Context, args []string) (any, error)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "interop:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("which subcommand? host, gossip, dht, relay, autonat, autonat-v1, ipni-publisher or ipni-subscriber")
	}
	name := args[0]
	var options hostOptions
	var publisher publisherOptions
	var subscriber subscriberOptions
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	options.flags(flags)
	deadline := flags.Duration("deadline", commandDeadline, "how long one command may take")
	prefix := flags.String("prefix", "/dagmesh/test", "dht: what stands before /kad/1.0.0")
	switch name {
	case "ipni-publisher":
		publisher.flags(flags)
	case "ipni-subscriber":
		subscriber.flags(flags)
	}
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	options.dialsBack = name == "autonat-v1"
	if name == "ipni-publisher" {
		var err error
		if options.key, err = publisher.key(); err != nil {
			return err
		}
	}

	host, err := options.start()
	if err != nil {
		return fmt.Errorf("starting the host: %w", err)
	}
	defer host.Close()
	commands := hostCommands(host)
	ready := map[string]any{"event": "ready", "peer": host.ID(), "addrs": fullAddrs(host)}
	switch name {
	case "host", "autonat-v1":
	case "gossip":
		err = addGossip(host, commands)
	case "dht":
		err = addDht(host, *prefix, commands)
	case "relay":
		err = addRelay(host)
	case "autonat":
		err = addAutonat(host, commands)
	case "ipni-publisher":
		err = publisher.add(host, commands, ready)
	case "ipni-subscriber":
		err = subscriber.add(host, commands, ready)
	default:
		err = fmt.Errorf("there is no subcommand %q", name)
	}
	if err != nil {
		return err
	}
	emit(ready)
	return serve(commands, *deadline)
}

// serve carries out commands, one at a time, until the input ends.
func serve(commands map[string]command, deadline time.Duration) error {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		if len(words) == 0 {
			continue
		}
		result, err := carryOut(commands, words, deadline)
		if err != nil {
			emit(map[string]any{"event": "failed", "command": lines.Text(), "error": err.Error()})
		} else {
			emit(map[string]any{"event": "done", "command": lines.Text(), "result": result})
		}
	}
	return lines.Err()
}

func carryOut(commands map[string]command, words []string, deadline time.Duration) (any, error) {
	do, ok := commands[words[0]]
	if !ok {
		return nil, fmt.Errorf("there is no command %q", words[0])
	}
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	return do(ctx, words[1:])
}

// one gives the only argument of a command.
func one(args []string) (string, error) {
	if len(args) != 1 {
		return "", fmt.Errorf("one argument expected, %d given", len(args))
	}
	return args[0], nil
}

var output sync.Mutex

// emit prints one line, whole, from whichever goroutine.
func emit(event any) {
	line, err := json.Marshal(event)
	if err != nil {
		panic(err)
	}
	output.Lock()
	defer output.Unlock()
	// Nobody reads any more: the end of the input follows.
	_, _ = os.Stdout.Write(append(line, '\n'))
}
