//! A baseline: ChronoSync as its authors' library (0.5) has it, on a network of named data.
//!
//! Source: Z. Zhu, A. Afanasyev, "Let's ChronoSync" (ICNP 2013), and the behaviour of the library of the name (named-data),
//! whose `Logic` is followed step by step in `logic`: one pending interest for the digest of now, answered by whoever
//! knows more; the digest log; one timer for whatever comes unknown, then recovery; a start resets everybody; a session
//! is the clock at each start and nothing is stored. `forwarder` is what the network does below: interests are
//! flooded and gathered, data goes back the way of the interests and each is used up by one, so that two publications at
//! one instant split the group.
//!
//! Not modelled: signatures and their checks (their bytes are counted), compression of replies, exclude filters (the
//! paper describes them, the library has them switched off), the periodic reset (off by default).

mod forwarder;
mod logic;
mod packet;

use std::{rc::Rc, time::Instant};

use dagmesh_core::Machine;
use dagmesh_simnet::{Boot, Delivery, Host, NodeId, Outbox};

use self::{
    forwarder::{Face, Forwarder},
    logic::{Logic, Wish},
    packet::Message,
};
use super::{Model, Number, World};

/// The machine: the library, and the forwarder of its node.
#[derive(Debug)]
pub struct Chrono {
    logic: Logic,
    forwarder: Forwarder,
}

/// What the machine is told.
#[derive(Debug)]
pub enum Input {
    /// Publish the next number.
    Publish,
    /// A packet has come from a neighbour.
    Heard(NodeId, Vec<u8>),
    /// There is a neighbour.
    Up(NodeId),
    /// There is none any more.
    Down(NodeId),
}

/// What the machine wants.
#[derive(Debug)]
pub enum Effect {
    /// Send this packet to a neighbour.
    Send(NodeId, Vec<u8>),
    /// This number of ours is published.
    Published(Number),
    /// The application is to be told this number.
    New(Number),
}

impl Chrono {
    /// What the library wants of the network, and what comes of it at once.
    fn carry(&mut self, now: Instant) {
        while let Some(wish) = self.logic.wish() {
            match wish {
                Wish::Express(name) => {
                    let nonce = self.logic.nonce();
                    self.hear(now, Face::Application, Message::Interest { name, nonce });
                }
                Wish::Put(name, leaves) => self.hear(now, Face::Application, Message::Data { name, leaves }),
            }
        }
    }

    fn hear(&mut self, now: Instant, face: Face, message: Message) {
        match self.forwarder.hear(now, face, message) {
            Some(Message::Interest { name, .. }) => self.logic.interest(now, name),
            Some(Message::Data { leaves, name }) => self.logic.data(now, name, leaves),
            None => {}
        }
    }
}

impl Machine for Chrono {
    type Input = Input;
    type Effect = Effect;

    fn handle(&mut self, now: Instant, input: Input) {
        match input {
            Input::Publish => self.logic.publish(now),
            Input::Heard(from, bytes) => {
                if let Some(message) = Message::decode(&bytes) {
                    self.hear(now, Face::Neighbour(from), message);
                }
            }
            Input::Up(node) => self.forwarder.up(node),
            Input::Down(node) => self.forwarder.down(node),
        }
        self.carry(now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.logic.timeout(now);
        self.carry(now);
    }

    fn poll_effect(&mut self) -> Option<Effect> {
        self.logic.told().or_else(|| self.forwarder.send().map(|(to, bytes)| Effect::Send(to, bytes)))
    }

    fn poll_timeout(&self) -> Option<Instant> {
        Some(self.logic.next())
    }
}

/// A member.
#[derive(Debug)]
pub struct Original {
    machine: Chrono,
}

impl Model for Original {
    const NAME: &'static str = "original";
    const STRICT: bool = false;

    fn boot(boot: Boot<'_>, world: &Rc<World>) -> Self {
        let own = (boot.node.0, world.unix_ms(boot.now) + u64::from(boot.restarts));
        let mut machine = Chrono { logic: Logic::new(boot.now, own, boot.seed), forwarder: Forwarder::default() };
        machine.logic.begin(boot.now);
        machine.carry(boot.now);
        Self { machine }
    }

    fn publication(_: &World, _: u32, _: u64) -> Input {
        Input::Publish
    }

    fn root(&self) -> [u8; 32] {
        self.machine.logic.root()
    }
}

impl Host for Original {
    type Machine = Chrono;
    type Event = Number;

    fn machine(&self) -> &Chrono {
        &self.machine
    }

    fn machine_mut(&mut self) -> &mut Chrono {
        &mut self.machine
    }

    fn carry_out(&mut self, effect: Effect, out: &mut Outbox<Number>) {
        match effect {
            Effect::Send(to, bytes) => out.send(to, packet::counted(bytes)),
            Effect::Published(number) => out.published(number),
            Effect::New(number) => out.delivered(number),
        }
    }

    fn arrive(&mut self, delivery: Delivery, _: &mut Outbox<Number>) -> Option<Input> {
        match delivery {
            Delivery::Message { from, packet } => Some(Input::Heard(from, packet.bytes().to_vec())),
            Delivery::PeerUp(node) => Some(Input::Up(node)),
            Delivery::PeerDown(node) => Some(Input::Down(node)),
            _ => None,
        }
    }
}
