//! Own chains of advertisements: the newest one of each network, and publishing as one step.

use cid::Cid;
use dagmesh_core::cbor;
use dagmesh_dag::Block;
use dagmesh_ipnisync::Advertisement;
use serde::{Deserialize, Serialize};

use super::{Batch, Error, Store, error::bad_row};

/// What the keys of their rows begin with; the network's name follows.
const PREFIX: &str = "ipni/chain/";

/// Where an own chain stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnChain {
    /// Its newest advertisement.
    pub head: Cid,
    /// How many advertisements it has.
    pub ads: u64,
}

impl Store {
    /// Appends an advertisement to the chain of a network: on the disk, with the head at it, when it returns; both or
    /// neither. What it links to has to be durable already.
    ///
    /// It must link to the chain's newest one, so of two calls at once the later one gets [`Error::Publish`].
    pub fn publish_ad(&self, network: &str, ad: &Block) -> Result<OwnChain, Error> {
        self.transaction(|batch| batch.publish_ad(network, ad))
    }

    /// Where the own chain of a network stands; `None` before its first advertisement.
    pub fn own_chain(&self, network: &str) -> Result<Option<OwnChain>, Error> {
        self.kv_get(&key(network))?.map(|row| decode(&row)).transpose()
    }

    /// Where each own chain stands, by network.
    pub fn own_chains(&self) -> Result<Vec<(String, OwnChain)>, Error> {
        let rows = self.kv_list(PREFIX)?.into_iter();
        rows.map(|(key, row)| Ok((key.trim_start_matches(PREFIX).to_owned(), decode(&row)?))).collect()
    }
}

impl Batch<'_> {
    /// See [`Store::publish_ad`].
    pub fn publish_ad(&mut self, network: &str, ad: &Block) -> Result<OwnChain, Error> {
        let refuse = |reason| Err(Error::Publish { feed: format!("of network {network}"), reason });
        let Ok(content) = Advertisement::from_block(ad) else { return refuse("the block is no advertisement") };
        let last = self.kv_get(&key(network))?.map(|row| decode(&row)).transpose()?;
        if content.previous_id != last.map(|last: OwnChain| last.head) {
            return refuse("the advertisement does not link to the chain's last one");
        }
        self.put_blocks(std::slice::from_ref(ad))?;
        let chain = OwnChain { head: *ad.cid(), ads: last.map_or(0, |last| last.ads).saturating_add(1) };
        self.kv_put(&key(network), &cbor::to_vec(&chain)?)?;
        self.roots(|| [chain.head]);
        Ok(chain)
    }
}

fn key(network: &str) -> String {
    format!("{PREFIX}{network}")
}

fn decode(row: &[u8]) -> Result<OwnChain, Error> {
    cbor::from_slice(row).map_err(|error| bad_row("kv", error).into())
}
