//! Carries out what one put or get wants.

use std::{collections::BTreeSet, future::Future, sync::Arc, time::Instant};

use dagmesh_core::{Machine, limits::MAX_RECORD_PEERS};
use dagmesh_records::{Answer, Code, Effect, Input, RecordBytes, Request, Source, Verified, net};
use futures::{
    FutureExt, StreamExt,
    future::{BoxFuture, Shared},
    stream::FuturesUnordered,
};
use libp2p::PeerId;
use tokio::sync::oneshot;

use super::Records;
use crate::swarm::FoundRecords;

/// A walk of plain Kademlia, made once for all that are asked.
type Walk = Shared<BoxFuture<'static, Option<Arc<FoundRecords>>>>;

/// What came of a request: the input of the machine, and whether by plain Kademlia.
struct Came {
    input: Input,
    peer: Option<PeerId>,
    plain: bool,
}

impl Records {
    /// Runs a machine to its result; it goes on to correct holders by itself. `None` where the node stops. Dropped before
    /// the result, the call is given up.
    pub(super) async fn drive<M, T>(&self, machine: M) -> Option<T>
    where
        M: Machine<Input = Input, Effect = Effect<T>> + Send + 'static,
        T: Send + 'static,
    {
        let (reply, result) = oneshot::channel();
        let this = self.clone();
        self.context.spawn(async move { this.run(machine, reply).await });
        result.await.ok()
    }

    async fn run<M, T>(&self, mut machine: M, reply: oneshot::Sender<T>)
    where
        M: Machine<Input = Input, Effect = Effect<T>>,
    {
        let mut reply = Some(reply);
        let mut calls = FuturesUnordered::<BoxFuture<'static, Came>>::new();
        let mut walk = None::<Walk>;
        let mut plain = BTreeSet::new();
        let mut last = None;
        loop {
            while let Some(effect) = machine.poll_effect() {
                match effect {
                    Effect::FindClosest(key) => calls.push(self.closest(key).boxed()),
                    Effect::Send { peer, request } => {
                        let walk = walk.get_or_insert_with(|| self.walk(&request)).clone();
                        calls.push(self.send(peer, request, walk).boxed());
                    }
                    Effect::Newer(record) => self.learnt(last, *record),
                    // A peer of plain Kademlia need not check what it keeps: it may have been deceived.
                    Effect::Fault(fault) if !plain.contains(&fault.peer) => self.book.report(fault.peer, &fault.why),
                    Effect::Fault(_) => {}
                    Effect::Result(result) => drop(reply.take().map(|reply| reply.send(result))),
                    Effect::Done => return,
                }
            }
            let due = machine.poll_timeout().unwrap_or_else(|| Instant::now() + super::WRITE);
            let given_up = async {
                match &mut reply {
                    Some(reply) => reply.closed().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(Came { input, peer, plain: by_kad }) = calls.next() => {
                    last = peer;
                    plain.extend(peer.filter(|_| by_kad));
                    machine.handle(Instant::now(), input);
                }
                () = tokio::time::sleep_until(due.into()) => machine.handle_timeout(Instant::now()),
                () = given_up => return,
            }
        }
    }

    fn closest(&self, key: Vec<u8>) -> impl Future<Output = Came> + Send + 'static {
        let swarm = self.context.swarm.clone();
        async move {
            let found = swarm.closest_peers(key, MAX_RECORD_PEERS).await;
            let found = found.inspect_err(|error| tracing::debug!(%error, "no closest peers")).unwrap_or_default();
            Came { input: Input::Closest(found), peer: None, plain: false }
        }
    }

    /// Not begun before somebody waits for it.
    fn walk(&self, request: &Request) -> Walk {
        let swarm = self.context.swarm.clone();
        let key = match request {
            Request::Get { key } | Request::Put { key, .. } => key.to_vec(),
        };
        async move { swarm.find_records(key).await.ok().map(Arc::new) }.boxed().shared()
    }

    fn send(&self, peer: PeerId, request: Request, walk: Walk) -> impl Future<Output = Came> + Send + 'static {
        let (swarm, mut streams) = (self.context.swarm.clone(), self.context.swarm.streams());
        async move {
            // What is sent is under way before the peer has said that it knows the protocol. One that does not may reset the
            // stream, as go-libp2p does, which shows no reason; so what it said by identify counts, and whoever is dialled
            // for this has said it by then.
            let knows_none = async || matches!(swarm.speaks(peer, net::PROTOCOL).await, Ok(Some(false)));
            let asked = match knows_none().await {
                true => None,
                false => match net::ask(&mut streams, peer, &request).await {
                    Err(error) if error.is_unsupported() || knows_none().await => None,
                    asked => Some(asked),
                },
            };
            let (answer, plain) = match (asked, request) {
                (Some(Ok(answer)), _) => (Some(answer), false),
                (Some(Err(error)), _) => {
                    tracing::debug!(%error, "a request about a record failed");
                    (None, false)
                }
                (None, Request::Put { key, record }) => {
                    let put = swarm.put_record_to(peer, key.into_inner(), record.into_inner()).await;
                    (put.ok().map(put_answer), true)
                }
                (None, Request::Get { .. }) => (walk.await.and_then(|found| answer_of(&found, &peer)), true),
            };
            let input = answer.map_or(Input::Failed(peer), |answer| Input::Answered { peer, answer });
            Came { input, peer: Some(peer), plain }
        }
    }

    /// A newer record than ours has come up.
    fn learnt(&self, peer: Option<PeerId>, newer: Verified) {
        let Some(peer) = peer else { return };
        let wanted = self.pubsub.as_ref().is_some_and(|pubsub| pubsub.listens_to(newer.key()));
        if !wanted && self.book.get(newer.key()).is_none() {
            // Whoever reads holds nothing by it, but is not told anything older any more.
            return self.book.saw(peer, &newer);
        }
        if let Err(error) = self.book.put(Source::Peer(peer), newer) {
            tracing::debug!(%error, "a newer record is not kept");
        }
    }
}

fn put_answer(acknowledged: bool) -> Answer {
    match acknowledged {
        true => Answer::Stored { news: true },
        false => Answer::error(Code::Internal, "the PUT was not acknowledged"),
    }
}

/// What a walk says of one peer; `None` where it was not reached.
fn answer_of(found: &FoundRecords, peer: &PeerId) -> Option<Answer> {
    if let Some((_, value)) = found.found.iter().find(|(holder, _)| holder == peer) {
        return RecordBytes::new(value.as_slice()).ok().map(Answer::Record);
    }
    found.without.contains(peer).then_some(Answer::Absent)
}
