//! Our daemon beside peers that others wrote: go-libp2p with its gossipsub and its Kademlia, Kubo and js-libp2p, real
//! processes on loopback.
//!
//! These need Go and npm with their packages, and build for a while where nothing is cached. So they run where
//! `DAGMESH_INTEROP=1` is set (`just interop`); elsewhere each says that it is skipped, and why. What the peers are made
//! of, and what they can be told, stands in `tests/interop/`.

#![allow(clippy::indexing_slicing, reason = "a test that finds another shape than it expects has failed")]

mod autonat;
mod go;
mod gossip;
mod ipni;
mod ipns;
mod js;
mod kademlia;
mod kubo;
mod private;
mod relay;
mod support;
mod transports;
