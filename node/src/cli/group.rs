//! `group`: groups of several writers.

use dagmesh_core::limits;
use libp2p::PeerId;

use super::{
    Backend, Context, Outcome,
    feeds::content_of,
    input,
    output::{clock, count, fields, table, visible},
    progress::Bar,
};
use crate::{
    api::Result,
    error::NodeError,
    ticket::GroupTarget,
    types::{
        Done, GroupBody, GroupCreateRequest, GroupEntry, GroupEvent, GroupInfo, GroupJoinRequest, GroupLogRequest,
        GroupMembers, GroupMembersRequest, GroupPublishRequest, GroupPublished, GroupRequest, GroupState,
        GroupWatchRequest,
    },
};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Makes a group and takes part in it.
    Create {
        /// Its name: 1 to 128 bytes.
        name: String,
        /// Only those on a list that we sign may write; everybody may read.
        #[arg(long)]
        closed: bool,
        /// Who is on the list beside us.
        #[arg(long = "member", value_name = "PEER", requires = "closed")]
        members: Vec<PeerId>,
    },
    /// Takes part in a group, over restarts too.
    Join {
        /// The name of an open group, or a ticket from one of its members.
        #[arg(value_name = "NAME|TICKET")]
        target: GroupTarget,
        /// Returns when we know what the others know.
        #[arg(long)]
        wait: bool,
    },
    /// Takes part no longer, and forgets the log.
    Leave {
        /// Which group.
        name: String,
    },
    /// Lists the groups that we take part in.
    Ls,
    /// Tells a group of a file, folder or DAG, which every member then fetches.
    Publish {
        /// Which group.
        name: String,
        /// File or folder, or the CID of what is held already. A path that reads as a CID is written `./...`.
        #[arg(value_name = "PATH|CID")]
        content: String,
    },
    /// Tells a group a text of at most 16 KiB.
    Send {
        /// Which group.
        name: String,
        /// The text; `-` reads it from standard input, without its last line end.
        text: String,
    },
    /// Prints what was told, in the order in which we learnt it.
    Log {
        /// Which group.
        name: String,
        /// From this place in our log on; the newest where absent.
        #[arg(long, value_name = "INDEX")]
        from: Option<u64>,
        /// How many, at most 10,000.
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,
    },
    /// Prints who is in a group; the owner of a closed one changes who may write.
    Members {
        /// Which group.
        name: String,
        /// Lets this peer write.
        #[arg(long, value_name = "PEER")]
        add: Vec<PeerId>,
        /// Lets this peer write no more.
        #[arg(long, value_name = "PEER")]
        remove: Vec<PeerId>,
    },
    /// Prints the state of a group: its digest, and how far each writer is.
    State {
        /// Which group.
        name: String,
    },
    /// Prints what happens in a group, as it happens.
    Watch {
        /// Which group.
        name: String,
        /// First what stands in our log from this place on.
        #[arg(long, value_name = "INDEX")]
        from: Option<u64>,
    },
    /// Prints one string that leads others to a group.
    Ticket {
        /// Which group.
        name: String,
    },
}

pub(super) async fn run<B: Backend>(context: &mut Context<'_, B>, command: Command) -> Outcome {
    match command {
        Command::Create { name, closed, members } => {
            let ask = GroupCreateRequest { name, closed, members };
            let info: GroupInfo = context.client()?.call("group/create", &ask).await?;
            context.output.essential(&info, |info| info.ticket.clone(), info_text)
        }
        Command::Join { target, wait } => {
            let ask = GroupJoinRequest { target, wait };
            let info: GroupInfo = context.client()?.call("group/join", &ask).await?;
            if info.peers == 0 && !context.output.json {
                context.output.note("no member is connected yet; one of them can print a ticket with its address");
            }
            context.output.result(&info, info_text)
        }
        Command::Leave { name } => {
            let info: GroupInfo = context.client()?.call("group/leave", &GroupRequest { name }).await?;
            context
                .output
                .result(&info, |info| format!("left {}; `dagmesh gc` frees what only it held", visible(&info.group)))
        }
        Command::Ls => {
            let groups = list(context).await?;
            context.output.result(&groups, |groups| list_text(groups))
        }
        Command::Publish { name, content } => {
            let body = GroupBody::Content(content_of(&content)?);
            publish(context, GroupPublishRequest { name, body }).await
        }
        Command::Send { name, text } => {
            let text = match text.as_str() {
                "-" => stdin().await?,
                _ => text,
            };
            check_text(text.as_bytes())?;
            publish(context, GroupPublishRequest { name, body: GroupBody::Text(text) }).await
        }
        Command::Log { name, from, limit } => {
            let ask = GroupLogRequest { name, from, limit };
            let entries: Vec<GroupEntry> = context.client()?.call("group/log", &ask).await?;
            context
                .output
                .result(&entries, |entries| entries.iter().map(|entry| entry_text(entry) + "\n").collect::<String>())
        }
        Command::Members { name, add, remove } => {
            let ask = GroupMembersRequest { name, add, remove };
            let members: GroupMembers = context.client()?.call("group/members", &ask).await?;
            context.output.result(&members, members_text)
        }
        Command::State { name } => {
            let state: GroupState = context.client()?.call("group/state", &GroupRequest { name }).await?;
            context.output.result(&state, state_text)
        }
        Command::Watch { name, from } => watch(context, GroupWatchRequest { name, from }).await,
        Command::Ticket { name } => {
            let groups = list(context).await?;
            let info = groups.into_iter().find(|info| info.group == name).ok_or_else(|| {
                NodeError::not_found(format!("we take no part in a group {name:?}; `dagmesh group join` begins"))
            })?;
            let ticket = serde_json::json!({ "group": info.group, "ticket": info.ticket });
            context.output.essential(&ticket, |_| info.ticket.clone(), |_| info.ticket.clone())
        }
    }
}

async fn list<B>(context: &Context<'_, B>) -> Result<Vec<GroupInfo>> {
    context.client()?.call("group/list", &Done {}).await
}

async fn publish<B: Backend>(context: &mut Context<'_, B>, ask: GroupPublishRequest) -> Outcome {
    let client = context.client()?;
    let published: GroupPublished = client.call_watched("group/publish", &ask, &mut Bar::new(&context.output)).await?;
    context.output.result(&published, |published| {
        let content = published.head.map(|head| format!("{head} as ")).unwrap_or_default();
        let told = match published.peers {
            0 => "told as soon as a member is connected".into(),
            peers => format!("told to {}", count(peers as u64, "member")),
        };
        format!("{content}number {} in {}, {told}", published.seq, visible(&published.group))
    })
}

async fn watch<B: Backend>(context: &mut Context<'_, B>, ask: GroupWatchRequest) -> Outcome {
    let client = context.client()?;
    let output = &mut context.output;
    client
        .lines("group/watch", &ask, |line| {
            if output.json {
                return output.object(&line);
            }
            match serde_json::from_value::<GroupEvent>(line.clone()) {
                Ok(event) => output.line(event_text(&event)),
                // An event of a newer daemon.
                Err(_) => output.line(line),
            }
        })
        .await
}

/// At most one text's worth of standard input, without the line end that ends it.
async fn stdin() -> Result<String> {
    // Room for the line end, and for a byte over the cap, which shows that there is more.
    let mut text = input::read_up_to("-", limits::MAX_GROUP_TEXT_BYTES + 3).await?;
    let line = text.strip_suffix(b"\n").map(|line| line.strip_suffix(b"\r").unwrap_or(line)).map(<[u8]>::len);
    text.truncate(line.unwrap_or(text.len()));
    check_text(&text)?;
    String::from_utf8(text).map_err(|error| NodeError::other(format!("cannot read standard input: {error}")))
}

fn check_text(text: &[u8]) -> Result<()> {
    let max = limits::MAX_GROUP_TEXT_BYTES;
    if text.len() > max {
        return Err(NodeError::usage(format!(
            "the text has more than {max} bytes; put it into a file and tell the group with `dagmesh group publish`"
        )));
    }
    if text.is_empty() { Err(NodeError::usage("there is no text to send")) } else { Ok(()) }
}

fn standing(initialized: bool) -> &'static str {
    if initialized { "knows what the others know" } else { "still learning what the others know" }
}

fn info_text(info: &GroupInfo) -> String {
    let kind = match (&info.owner, info.writable) {
        (None, _) => "open to all".to_owned(),
        (Some(owner), true) => format!("closed; {owner} says who may write, and we may"),
        (Some(owner), false) => format!("closed; {owner} says who may write, and we may not"),
    };
    fields(&[
        ("group", visible(&info.group)),
        ("kind", kind),
        ("state", format!("{}, {}", standing(info.initialized), count(info.entries, "publication"))),
        ("members", format!("{} connected", info.peers)),
        ("ticket", info.ticket.clone()),
    ])
}

fn list_text(groups: &[GroupInfo]) -> String {
    if groups.is_empty() {
        return "we take part in no group; `dagmesh group create NAME` makes one".into();
    }
    let mut rows = vec![["GROUP", "KIND", "CONNECTED", "PUBLICATIONS", "STATE"].map(String::from).to_vec()];
    for info in groups {
        let kind = match (info.closed, info.writable) {
            (false, _) => "open",
            (true, true) => "closed",
            (true, false) => "closed, read only",
        };
        let (peers, entries) = (info.peers.to_string(), info.entries.to_string());
        rows.push(vec![visible(&info.group), kind.into(), peers, entries, standing(info.initialized).into()]);
    }
    table(&rows)
}

/// One publication; the lines of its text after the first stand below it.
fn entry_text(entry: &GroupEntry) -> String {
    let said = match (&entry.text, &entry.head) {
        (Some(text), _) => text.lines().map(visible).collect::<Vec<_>>().join("\n    "),
        (None, Some(head)) => format!("published {head}"),
        (None, None) => String::new(),
    };
    let history = if entry.recovery { "(history) " } else { "" };
    format!("{:<6} {}  {}  {history}{said}", entry.index, clock(entry.time), entry.producer)
}

fn members_text(members: &GroupMembers) -> String {
    let mut rows = vec![["PEER", "WRITES", "CONNECTED", "SESSION", "NEWEST"].map(String::from).to_vec()];
    for member in &members.members {
        let yes = |yes| if yes { "yes" } else { "no" }.to_owned();
        let (session, newest) = match member.session {
            Some(session) => (clock(session), member.seq.to_string()),
            None => ("-".into(), "-".into()),
        };
        rows.push(vec![member.producer.to_string(), yes(member.writer), yes(member.connected), session, newest]);
    }
    let version = if members.version > 0 { format!("list number {}\n", members.version) } else { String::new() };
    version + &table(&rows)
}

fn state_text(state: &GroupState) -> String {
    let mut lines = vec![
        ("group", visible(&state.group)),
        ("root", state.root.clone()),
        (
            "holds",
            format!(
                "{} of {} from {}",
                count(state.sum, "publication"),
                count(state.leaves, "session"),
                count(state.members, "producer")
            ),
        ),
        ("state", standing(state.initialized).to_owned()),
        ("members", format!("{} connected", state.peers)),
    ];
    if state.missing > 0 {
        lines.push(("waiting for", format!("the blocks of {}", count(state.missing, "publication"))));
    }
    lines.extend(state.ahead.iter().map(|peer| ("ahead of us", peer.to_string())));
    let mut rows = vec![["PRODUCER", "SESSION", "NEWEST", "IN OUR LOG"].map(String::from).to_vec()];
    for head in &state.heads {
        let numbers = [head.seq, head.told].map(|number| number.to_string());
        rows.push([vec![head.producer.to_string(), clock(head.session)], numbers.to_vec()].concat());
    }
    let heads = if rows.len() > 1 { table(&rows) } else { String::new() };
    fields(&lines) + &heads
}

fn event_text(event: &GroupEvent) -> String {
    match event {
        GroupEvent::Entry(entry) => entry_text(entry),
        GroupEvent::Fetched { index, head } => format!("* {head} of {index} is whole"),
        GroupEvent::Gap { producer, first, last, reason, .. } => {
            format!("* {first} to {last} of {producer} cannot be had: {}", visible(reason))
        }
        GroupEvent::Initialized => "* we know what the others know".into(),
        GroupEvent::MemberSeen { producer } => format!("* {producer} is here"),
        GroupEvent::MembersChanged { version } => format!("* the list of who may write has changed: number {version}"),
        GroupEvent::MembersEquivocation { version } => {
            format!("* the owner has signed two lists of number {version} of who may write")
        }
        GroupEvent::NotFetched { index, head, reason } => {
            format!("* {head} of {index} is not fetched: {}", visible(reason))
        }
        GroupEvent::Equivocation { producer, seq, entries, .. } => {
            let entries = entries.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ");
            format!("* {producer} has signed two publications of number {seq}: {entries}")
        }
    }
}
