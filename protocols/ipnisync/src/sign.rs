//! Signatures of advertisements.
//!
//! Source: go-libipni 0.7, `ingest/schema/envelope.go`.

use dagmesh_core::frame;
use dagmesh_dag::HashCode;
use libp2p_identity::{Keypair, PeerId};

use crate::{
    Advertisement, ExtendedProvider, IpniError, Provider,
    envelope::{open, seal},
};

const AD: &str = "signature of an advertisement";
const AD_TYPE: &str = "/indexer/ingest/adSignature";
const EXTENDED: &str = "signature of an extended provider";
const EXTENDED_TYPE: &str = "/indexer/ingest/extendedProviderSignature";
/// Code of SHA2-256 and length of its digest: what a multihash begins with.
const MULTIHASH_HEAD: [u8; 2] = [HashCode::Sha2_256 as u8, 32];
/// A payload of any other length is of the old form.
const PAYLOAD_BYTES: usize = 34;

/// Who has signed an advertisement, and whose signatures stand at its extended providers, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signers {
    /// Who has signed the advertisement: its provider, or a publisher on behalf of it. Whether that publisher may do so
    /// is for the reader to decide; nothing in the advertisement says it.
    pub advertisement: PeerId,
    /// Who has signed at each extended provider.
    pub extended: Vec<PeerId>,
}

impl Signers {
    /// The extended providers of `ad` that have not signed for themselves, so that only the publisher says that they have
    /// the content. The provider of the advertisement may be signed for by whoever signed that.
    ///
    /// The original takes them unseen: it checks that the signatures hold, not whose they are.
    pub fn unproven<'a>(&self, ad: &'a Advertisement) -> impl Iterator<Item = &'a Provider> {
        let entries = ad.extended_provider.as_ref().map(|extended| &extended.providers[..]).unwrap_or_default();
        entries.iter().zip(&self.extended).filter_map(move |(entry, signer)| {
            let itself = entry.peer_id() == Some(*signer);
            let by_publisher = entry.id == ad.provider && *signer == self.advertisement;
            (!itself && !by_publisher).then_some(entry)
        })
    }
}

impl Advertisement {
    /// Signs the advertisement, as its provider or on behalf of it. Refused where there are extended providers: see
    /// [`Advertisement::sign_with_extended`].
    pub fn sign(&mut self, key: &Keypair) -> Result<(), IpniError> {
        if self.extended_provider.is_some() {
            return Err(IpniError::NotAlone);
        }
        self.signature = seal(key, AD_TYPE, self.payload())?;
        Ok(())
    }

    /// Signs the advertisement with `key`, and for each extended provider with that of `keys` whose peer id it has. Where
    /// the advertisement's provider stands among them, `key` signs for it.
    ///
    /// Leaves the advertisement as it was where it fails.
    pub fn sign_with_extended(&mut self, key: &Keypair, keys: &[Keypair]) -> Result<(), IpniError> {
        let signature = seal(key, AD_TYPE, self.payload())?;
        let mut signatures = Vec::new();
        if let Some(extended) = &self.extended_provider {
            self.check_extended(extended)?;
            for entry in &extended.providers {
                let of_entry = |key: &&Keypair| entry.peer_id() == Some(key.public().to_peer_id());
                let key = match entry.id == self.provider {
                    true => key,
                    false => keys.iter().find(of_entry).ok_or_else(|| IpniError::NoKey(entry.id.clone()))?,
                };
                signatures.push(seal(key, EXTENDED_TYPE, self.extended_payload(entry, extended.overrides))?);
            }
        }
        self.signature = signature;
        let entries = self.extended_provider.iter_mut().flat_map(|extended| &mut extended.providers);
        entries.zip(signatures).for_each(|(entry, signature)| entry.signature = signature);
        Ok(())
    }

    /// Checks all signatures and says whose they are. Takes the old form too, which signs the text itself and not its
    /// hash.
    ///
    /// What is covered: previous and entries, provider and its addresses, metadata, removal; by an extended provider's
    /// signature also the context id, its own id, addresses and metadata, and whether it overrides.
    pub fn verify(&self) -> Result<Signers, IpniError> {
        let (advertisement, payload) = open(AD, AD_TYPE, &self.signature)?;
        let expected = if payload.len() == PAYLOAD_BYTES { self.payload() } else { self.old_payload() };
        if payload != expected {
            return Err(IpniError::OtherContent { what: "advertisement", signer: advertisement });
        }
        let mut signers = Signers { advertisement, extended: Vec::new() };
        let Some(extended) = &self.extended_provider else { return Ok(signers) };
        self.check_extended(extended)?;
        for entry in &extended.providers {
            let (signer, payload) = open(EXTENDED, EXTENDED_TYPE, &entry.signature)?;
            if payload != self.extended_payload(entry, extended.overrides) {
                return Err(IpniError::OtherContent { what: "extended provider", signer });
            }
            signers.extended.push(signer);
        }
        Ok(signers)
    }

    fn check_extended(&self, extended: &ExtendedProvider) -> Result<(), IpniError> {
        if extended.providers.is_empty() {
            return Ok(());
        }
        if self.is_rm {
            return Err(IpniError::RemovalExtended);
        }
        match extended.providers.iter().any(|entry| entry.id == self.provider) {
            true => Ok(()),
            false => Err(IpniError::ProviderMissing(self.provider.clone())),
        }
    }

    fn payload(&self) -> Vec<u8> {
        multihash(&self.signed_text())
    }

    /// The old form claims to be a multihash as well, with the whole text for its digest.
    fn old_payload(&self) -> Vec<u8> {
        let mut payload = vec![HashCode::Sha2_256 as u8];
        frame::append(&mut payload, &[&self.signed_text()]);
        payload
    }

    fn signed_text(&self) -> Vec<u8> {
        let mut text = self.signed_links();
        text.extend_from_slice(self.provider.as_bytes());
        self.addresses.iter().for_each(|address| text.extend_from_slice(address.as_bytes()));
        text.extend_from_slice(&self.metadata);
        text.push(self.is_rm.into());
        text
    }

    fn extended_payload(&self, entry: &Provider, overrides: bool) -> Vec<u8> {
        let mut text = self.signed_links();
        text.extend_from_slice(self.provider.as_bytes());
        text.extend_from_slice(&self.context_id);
        text.extend_from_slice(entry.id.as_bytes());
        entry.addresses.iter().for_each(|address| text.extend_from_slice(address.as_bytes()));
        text.extend_from_slice(&entry.metadata);
        text.push(overrides.into());
        multihash(&text)
    }

    fn signed_links(&self) -> Vec<u8> {
        let mut text = self.previous_id.map(|cid| cid.to_bytes()).unwrap_or_default();
        text.extend_from_slice(&self.entries.to_bytes());
        text
    }
}

fn multihash(text: &[u8]) -> Vec<u8> {
    let digest = HashCode::Sha2_256.digest(text);
    let digest = digest.as_ref().map(|hash| hash.digest()).unwrap_or_default();
    [&MULTIHASH_HEAD[..], digest].concat()
}

#[cfg(test)]
mod tests;
