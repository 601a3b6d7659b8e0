use cid::Cid;
use dagmesh_dag::BlockError;
use libp2p_identity::PeerId;

/// Why something of the IPNI network is not taken, or cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IpniError {
    /// A block, or a head, of a codec that the network does not use.
    #[error("codec 0x{0:x} is neither dag-json nor dag-cbor")]
    Codec(u64),
    /// Over a cap.
    #[error("{what}: {len} where at most {max} may stand")]
    OverCap {
        /// What was counted, with its unit.
        what: &'static str,
        /// How many there were.
        len: usize,
        /// The cap.
        max: usize,
    },
    /// The bytes are not what they should be.
    #[error("no {what}: {reason}")]
    Form {
        /// What was expected.
        what: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A value that cannot be written.
    #[error("{what} cannot be written: {reason}")]
    Encode {
        /// What it is.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// The block cannot be made.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// A signature that does not hold.
    #[error("the signature of {what} by {signer} does not hold")]
    Signature {
        /// What was signed.
        what: &'static str,
        /// Whose key stands beside the signature.
        signer: PeerId,
    },
    /// A signature that holds, over something else.
    #[error("{signer} has signed another {what}")]
    OtherContent {
        /// What should have been signed.
        what: &'static str,
        /// Who signed.
        signer: PeerId,
    },
    /// The provider of the advertisement is not among its extended providers.
    #[error("the extended providers of an advertisement lack its provider {0:?}")]
    ProviderMissing(String),
    /// A removal that names extended providers: nobody can sign for that.
    #[error("an advertisement that removes names extended providers")]
    RemovalExtended,
    /// Extended providers need their own signatures.
    #[error("an advertisement with extended providers is not signed by its publisher alone")]
    NotAlone,
    /// No key for an extended provider.
    #[error("there is no key to sign for the extended provider {0:?}")]
    NoKey(String),
    /// The key cannot sign.
    #[error("the key cannot sign: {0}")]
    Signing(String),
    /// A head without a CID that a chain could begin with.
    #[error("the chain begins with {0}, which is of no codec of the network")]
    Head(Box<Cid>),
}
