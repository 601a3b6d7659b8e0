//! `ipni`: chains of advertisements, our own and those of others.

use std::path::PathBuf;

use cid::Cid;

use super::{
    Backend, Context, Outcome, cid, existing,
    output::{count, fields},
    progress::Bar,
};
use crate::{
    error::{ErrorKind, NodeError},
    ticket::Target,
    types::{
        Follow, IpniAd, IpniAdRequest, IpniAdsRequest, IpniAnnounceRequest, IpniAnnounced, IpniEntries,
        IpniFollowRequest, IpniPublishRequest, IpniPublished, SyncRequest,
    },
};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Advertises the multihashes of a list or CAR: appends to our chain, and announces it.
    Publish {
        /// A CAR, or a list with a CID or multihash a line.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// What we call these entries, at most 64 bytes; their CID where absent.
        #[arg(long, value_name = "TEXT")]
        context_id: Option<String>,
        /// How the content is fetched, in hexadecimal, at most 1,024 bytes. Public indexers want it.
        #[arg(long, value_name = "HEX", default_value = "")]
        metadata: String,
        /// Moves the head without announcing it.
        #[arg(long)]
        no_announce: bool,
    },
    /// Advertises that we no longer have what we once called so.
    Remove {
        /// What we called the entries.
        #[arg(value_name = "TEXT")]
        context_id: String,
        /// Moves the head without announcing it.
        #[arg(long)]
        no_announce: bool,
    },
    /// Advertisements that are held.
    #[command(subcommand)]
    Ad(Ad),
    /// Follows the chain of a publisher.
    Follow {
        /// Whom: peer id or multiaddr, one of HTTP too: /dns/example.com/https/p2p/12D3...
        #[arg(value_name = "PEER|MULTIADDR")]
        target: Target,
        /// In which network; that of the config where absent.
        #[arg(long, value_name = "NAME")]
        network: Option<String>,
        /// Most advertisements that the first sync takes.
        #[arg(long, value_name = "N")]
        depth: Option<u64>,
        /// Keeps the entries of the newest N advertisements; 0 keeps the chain alone.
        #[arg(long, value_name = "N")]
        keep: Option<u64>,
        /// Returns when in sync.
        #[arg(long)]
        wait: bool,
    },
    /// Syncs a chain once, without following it.
    Sync {
        /// With whom: peer id or multiaddr, one of HTTP too.
        #[arg(value_name = "PEER|MULTIADDR")]
        target: Target,
        /// In which network; that of the config where absent.
        #[arg(long, value_name = "NAME", default_value = "")]
        network: String,
        /// From this advertisement; the publisher's newest where absent.
        #[arg(long, value_name = "CID", value_parser = cid)]
        head: Option<Cid>,
        /// Down to this link, which is not fetched.
        #[arg(long, value_name = "CID", value_parser = cid)]
        stop: Option<Cid>,
        /// Most advertisements.
        #[arg(long, value_name = "N")]
        depth: Option<u64>,
        /// Most blocks of a segment.
        #[arg(long, value_name = "N")]
        segment: Option<u64>,
        /// Walks the whole chain again.
        #[arg(long)]
        resync: bool,
    },
    /// Tells an indexer of our head over HTTP.
    Announce {
        /// The indexer: http://... or https://...; the path /announce where it has none.
        #[arg(long, value_name = "URL")]
        to: String,
        /// As CBOR, and not as JSON.
        #[arg(long)]
        cbor: bool,
        /// Another advertisement than our newest.
        #[arg(value_parser = cid)]
        cid: Option<Cid>,
    },
}

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Ad {
    /// Shows one.
    Get {
        /// Which; our newest where absent.
        #[arg(value_parser = cid)]
        cid: Option<Cid>,
    },
    /// Lists a chain, the newest first, as far as it is held.
    List {
        /// Whose; our own where absent.
        #[arg(value_name = "PEER|MULTIADDR")]
        target: Option<Target>,
        /// In which network; that of the config where absent.
        #[arg(long, value_name = "NAME")]
        network: Option<String>,
        /// How many, at most 10,000.
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,
    },
    /// Lists the multihashes that one is about, as far as they are held.
    Entries {
        /// Which; our newest where absent.
        #[arg(value_parser = cid)]
        cid: Option<Cid>,
        /// How many, at most 100,000.
        #[arg(long, value_name = "N", default_value_t = 1000)]
        limit: usize,
    },
    /// Checks the signatures of one; exit code 7 where they do not hold.
    Verify {
        /// Which; our newest where absent.
        #[arg(value_parser = cid)]
        cid: Option<Cid>,
    },
}

pub(super) async fn run<B: Backend>(context: &mut Context<'_, B>, command: Command) -> Outcome {
    match command {
        Command::Publish { file, context_id, metadata, no_announce } => {
            let path = Some(existing(&file)?);
            publish(context, IpniPublishRequest { path, context_id, metadata, remove: false, no_announce }).await
        }
        Command::Remove { context_id, no_announce } => {
            let ask =
                IpniPublishRequest { context_id: Some(context_id), remove: true, no_announce, ..Default::default() };
            publish(context, ask).await
        }
        Command::Ad(Ad::Get { cid }) => {
            let ad: IpniAd = context.client()?.call("ipni/ad", &IpniAdRequest { cid, entries: None }).await?;
            context.output.result(&ad, ad_text)
        }
        Command::Ad(Ad::Entries { cid, limit }) => {
            let ask = IpniAdRequest { cid, entries: Some(limit) };
            let entries: IpniEntries = context.client()?.call("ipni/entries", &ask).await?;
            context.output.result(&entries, |entries| entries.multihashes.join("\n"))
        }
        Command::Ad(Ad::List { target, network, limit }) => {
            let ask = IpniAdsRequest { target, network, limit: Some(limit) };
            let ads: Vec<IpniAd> = context.client()?.call("ipni/ads", &ask).await?;
            for ad in &ads {
                match context.output.json {
                    true => context.output.object(ad)?,
                    false => context.output.line(ad_line(ad))?,
                }
            }
            Ok(())
        }
        Command::Ad(Ad::Verify { cid }) => {
            let ad: IpniAd = context.client()?.call("ipni/ad", &IpniAdRequest { cid, entries: None }).await?;
            if let Some(problem) = &ad.problem {
                return Err(NodeError::new(ErrorKind::Verification, format!("{}: {problem}", ad.cid)).into());
            }
            context.output.result(&ad, |ad| {
                let signer = ad.signer.map(|signer| signer.to_string()).unwrap_or_default();
                let mut text = format!("{} is signed by {signer}, for the provider {}", ad.cid, ad.provider);
                if !ad.unproven.is_empty() {
                    text.push_str(&format!("; not signed by themselves: {}", ad.unproven.join(", ")));
                }
                text
            })
        }
        Command::Follow { target, network, depth, keep, wait } => {
            let ask = IpniFollowRequest { target, network, depth, keep, wait };
            let client = context.client()?;
            let follow: Follow = client.call_watched("ipni/follow", &ask, &mut Bar::new(&context.output)).await?;
            context.output.result(&follow, super::follow::follow_text)
        }
        Command::Sync { target, network, head, stop, depth, segment, resync } => {
            let ipni = Some(network);
            super::follow::sync(context, SyncRequest { target, feed: None, head, stop, depth, segment, resync, ipni })
                .await
        }
        Command::Announce { to, cbor, cid } => {
            let ask = IpniAnnounceRequest { to, cid, cbor };
            let announced: IpniAnnounced = context.client()?.call("ipni/announce", &ask).await?;
            context.output.result(&announced, |told| format!("{} was told of {}", told.to, told.head))
        }
    }
}

async fn publish<B: Backend>(context: &mut Context<'_, B>, ask: IpniPublishRequest) -> Outcome {
    let client = context.client()?;
    let published: IpniPublished = client.call_watched("ipni/publish", &ask, &mut Bar::new(&context.output)).await?;
    context.output.result(&published, |published| {
        fields(&[
            ("advertisement", format!("{} (number {})", published.ad, published.ads)),
            ("entries", published.entries.to_string()),
            ("multihashes", format!("{} in {}", published.multihashes, count(published.chunks, "chunk"))),
            ("announced to", count(published.announced_to as u64, "peer")),
        ])
    })
}

fn ad_text(ad: &IpniAd) -> String {
    let mut lines = vec![
        ("advertisement", ad.cid.to_string()),
        ("previous", ad.previous.map_or("none".into(), |cid| cid.to_string())),
        ("provider", ad.provider.clone()),
        ("addresses", ad.addresses.join(" ")),
        ("entries", ad.entries.to_string()),
        ("context id", ad.context_id.clone()),
        ("metadata", ad.metadata.clone()),
        ("removes", if ad.is_rm { "yes" } else { "no" }.into()),
        ("signature", signature_text(ad)),
    ];
    if !ad.extended.is_empty() {
        lines.push(("extended", ad.extended.join(" ")));
    }
    if !ad.unproven.is_empty() {
        lines.push(("unproven", ad.unproven.join(" ")));
    }
    fields(&lines)
}

fn ad_line(ad: &IpniAd) -> String {
    let what = if ad.is_rm { "removes" } else { "has" };
    format!("{} {} {what} {} {}", ad.cid, ad.provider, ad.entries, signature_text(ad))
}

fn signature_text(ad: &IpniAd) -> String {
    match (&ad.signer, &ad.problem) {
        (Some(signer), _) if signer.to_string() == ad.provider => "holds".into(),
        (Some(signer), _) => format!("holds, by {signer}"),
        (None, Some(problem)) => format!("does not hold: {problem}"),
        (None, None) => "none".into(),
    }
}
