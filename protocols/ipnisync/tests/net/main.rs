//! Publishers of the IPNI network over HTTP: real sockets and real Swarms on loopback, honest and hostile.

mod support;

mod hostile_clients;
mod hostile_publishers;
mod serving;
mod syncing;
