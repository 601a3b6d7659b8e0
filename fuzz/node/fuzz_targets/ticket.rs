#![no_main]
//! Whom a command is about: a ticket, a peer id, an address. What is read is written, and read again as it was. The
//! bytes are read as text, and as the payload of a ticket with its checksum put right.

use dagmesh::{
    dag::HashCode,
    ticket::{Target, Ticket},
};
use data_encoding::BASE32_NOPAD;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        check(text);
    }
    check(&sealed(data));
});

fn check(text: &str) {
    let Ok(target) = text.parse::<Target>() else { return };
    let again = target.to_string();
    assert_eq!(again.parse::<Target>().as_ref(), Ok(&target), "{again}");
    if let Target::Ticket(ticket) = &target {
        assert!(ticket.addrs().len() <= 32 && again.len() <= 8 * 1024);
        assert_eq!(Ticket::new(ticket.peer(), ticket.addrs(), ticket.feed().clone()).as_ref(), Ok(ticket));
    }
}

/// The ticket of this payload.
fn sealed(payload: &[u8]) -> String {
    let digest = HashCode::Sha2_256.digest(&[b"dagmesh1", payload].concat()).expect("a digest");
    format!("dagmesh1{}", BASE32_NOPAD.encode(&[payload, &digest.digest()[..4]].concat()).to_lowercase())
}
