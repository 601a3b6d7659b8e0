//! A chat in the terminal, on a group: several writers, no server, nobody's line lost or shown twice.
//!
//! `cargo run --example chat -- --name NICK --group NAME [--home DIR] [--connect MULTIADDR]`
//! `cargo run --example chat -- --name NICK --ticket TICKET [--home DIR]`
//!
//! Those on one local network find each other by themselves; anybody else needs an address or a ticket. Lines are read
//! from standard input; its end (Ctrl-D), or Ctrl-C, leaves. What was said before is shown first, marked as history.
//!
//! `cargo run --example chat` checks itself instead, with three members in one process: see `chat/check.rs`.
//!
//! A line travels as a text of the form `NICK: LINE`. A nick has 1 to 32 letters without a colon; it is a courtesy and
//! no proof, so the end of the writer's peer id is shown beside it.

use std::{
    io::{self, BufRead, IsTerminal, Write},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, bail};
use clap::Parser;
use dagmesh::{
    Api, Node,
    api::ProgressSink,
    config::{Config, Profile},
    ticket::GroupTarget,
    types::{
        ConnectRequest, GroupBody, GroupEntry, GroupEvent, GroupInfo, GroupJoinRequest, GroupPublishRequest,
        GroupPublished, GroupWatchRequest,
    },
};
use futures::StreamExt;
use libp2p::Multiaddr;
use tokio::sync::mpsc;

#[path = "chat/check.rs"]
mod check;

/// Lines that were typed and not sent yet; then the terminal waits.
const TYPED_LINES: usize = 64;
/// How long a chat whose input has ended waits for somebody to hear what it said.
const LINGER: Duration = Duration::from_secs(10);
/// How long what was said last may take onto the line, before the connection closes.
const FLUSH: Duration = Duration::from_secs(1);

#[derive(Parser)]
#[command(about = "A chat in the terminal, on a group. Without arguments it checks itself.")]
struct Args {
    /// What the others see before our lines.
    #[arg(long, value_name = "NICK", value_parser = nick)]
    name: String,
    /// The group.
    #[arg(long, value_name = "NAME", required_unless_present = "ticket", conflicts_with = "ticket")]
    group: Option<GroupTarget>,
    /// Leads to the group and to one of its members.
    #[arg(long, value_name = "TICKET")]
    ticket: Option<GroupTarget>,
    /// Keeps key and history there; without it, both go with the chat.
    #[arg(long, value_name = "DIR")]
    home: Option<PathBuf>,
    /// A member's address.
    #[arg(long, value_name = "MULTIADDR")]
    connect: Option<Multiaddr>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    if std::env::args_os().len() == 1 {
        return check::run().await;
    }
    let args = Args::parse();
    let target = args.group.or(args.ticket).context("--group NAME or --ticket TICKET says which group")?;
    let temporary = tempfile::tempdir()?;
    let home = args.home.as_deref().unwrap_or(temporary.path());
    let mut config = Config::of_profile(Profile::Lan);
    // Several chats may run on one machine.
    config.swarm.listen = vec!["/ip4/0.0.0.0/tcp/0".parse()?, "/ip4/0.0.0.0/udp/0/quic-v1".parse()?];
    let node = Node::builder().home(home).config(config).start().await?;
    let chat = async {
        if let Some(addr) = args.connect {
            node.connect(ConnectRequest { addr }).await?;
        }
        let joined = node.group_join(GroupJoinRequest { target, wait: false }).await?;
        chat(&node, &args.name, joined).await
    };
    let ended = tokio::select! {
        ended = chat => ended,
        _ = tokio::signal::ctrl_c() => Ok(()),
    };
    node.shutdown().await?;
    match ended {
        // Nobody reads our output any more (`| head`).
        Err(error) if is_broken_pipe(&error) => Ok(()),
        ended => ended,
    }
}

/// Shows what is said and sends what is typed, until the input ends.
async fn chat(node: &Node, nick: &str, joined: GroupInfo) -> anyhow::Result<()> {
    let group = joined.group.as_str();
    if !joined.writable {
        note(&format!("{group} is closed, and its owner has not let us write: we only listen"));
    }
    note(&format!("in {group} as {nick}; others join with --ticket {}", joined.ticket));
    let mut events = node.group_watch(GroupWatchRequest { name: group.to_owned(), from: Some(0) }).await?;
    let mut typed = read_lines();
    // What stood in our log before we came is history, and what others tell of the time before too.
    let mut screen = Screen { own: node.peer_id().to_string(), before: joined.entries, whole: false, unheard: false };
    let input_ended = loop {
        tokio::select! {
            event = events.next() => match event {
                Some(event) => {
                    screen.show(&event)?;
                    if event == GroupEvent::Initialized && peers(node, group).await? == 0 {
                        note("nobody else is here; what you say is kept, and told when somebody comes");
                    }
                }
                None => break false,
            },
            line = typed.recv() => match line {
                Some(line) => screen.unheard = send(node, group, nick, &line).await.unwrap_or(screen.unheard),
                None => break true,
            },
        }
    };
    if !input_ended {
        bail!("the group {group} was left");
    }
    // A pipe ends at once: what it said must still be heard, and what was said before still be shown.
    let lingering = tokio::time::timeout(LINGER, async {
        while !screen.whole || (screen.unheard && peers(node, group).await? == 0) {
            // A member that comes is no event of the group: it is looked for now and then.
            match tokio::time::timeout(FLUSH / 4, events.next()).await {
                Ok(Some(event)) => screen.show(&event)?,
                Ok(None) => break,
                Err(_) => {}
            }
        }
        while let Ok(Some(event)) = tokio::time::timeout(FLUSH, events.next()).await {
            screen.show(&event)?;
        }
        Ok::<_, anyhow::Error>(())
    });
    lingering.await.unwrap_or(Ok(()))?;
    if screen.unheard && peers(node, group).await? == 0 {
        note("nobody was here to hear it; start the chat with the same --home again, and it is told then");
    }
    Ok(())
}

async fn peers(node: &Node, group: &str) -> anyhow::Result<usize> {
    Ok(node.group_list().await?.iter().find(|info| info.group == group).map_or(0, |info| info.peers))
}

/// Sends a line; whether nobody was there to hear it. None where it was not sent.
async fn send(node: &Node, group: &str, nick: &str, line: &str) -> Option<bool> {
    if line.trim().is_empty() {
        return None;
    }
    match say(node, group, nick, line).await {
        Ok(published) => Some(published.peers == 0),
        Err(error) => {
            note(&format!("not sent: {error}"));
            None
        }
    }
}

/// Tells the group a line, in the form that this chat reads.
async fn say(node: &Node, group: &str, nick: &str, line: &str) -> dagmesh::api::Result<GroupPublished> {
    let body = GroupBody::Text(format!("{nick}: {line}"));
    node.group_publish(GroupPublishRequest { name: group.to_owned(), body }, ProgressSink::none()).await
}

/// Nick and line of a text; one of another form is a line of nobody's.
fn read(text: &str) -> (&str, &str) {
    match text.split_once(": ") {
        Some((name, line)) if nick(name).is_ok() => (name, line),
        _ => ("?", text),
    }
}

fn nick(text: &str) -> Result<String, String> {
    let fits = !text.is_empty() && text.chars().count() <= 32 && !text.contains(|c: char| c == ':' || c.is_control());
    if fits { Ok(text.to_owned()) } else { Err("a nick has 1 to 32 letters without a colon".to_owned()) }
}

/// Where lines are shown.
struct Screen {
    /// Whose new lines stand on the terminal already.
    own: String,
    /// Lines of the log before this place were said before we came.
    before: u64,
    /// We know what the others know.
    whole: bool,
    /// Nobody has been there since we said something.
    unheard: bool,
}

impl Screen {
    fn show(&mut self, event: &GroupEvent) -> io::Result<()> {
        let mut out = io::stdout().lock();
        match event {
            GroupEvent::Entry(entry) => {
                let history = entry.recovery || entry.index < self.before;
                let others = entry.producer.to_string() != self.own;
                self.unheard &= history || !others;
                if history || others {
                    writeln!(out, "{}", line_of(entry, history))?;
                }
            }
            GroupEvent::Gap { producer, first, last, .. } => {
                writeln!(out, "* lines {first} to {last} of {} cannot be had", short(&producer.to_string()))?;
            }
            GroupEvent::Equivocation { producer, .. } => {
                writeln!(out, "* {} has said two things as one", short(&producer.to_string()))?;
            }
            GroupEvent::Initialized => self.whole = true,
            _ => {}
        }
        out.flush()
    }
}

/// `18:30:05 nick (…x7Fd): line`, in UTC.
fn line_of(entry: &GroupEntry, history: bool) -> String {
    let (name, line) = match (&entry.text, &entry.head) {
        (Some(text), _) => read(text),
        (None, _) => ("?", ""),
    };
    let shared = entry.head.map(|head| format!("shares {head}")).unwrap_or_default();
    let second = entry.time / 1000 % 86_400;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let mark = if history { "(history) " } else { "" };
    let producer = entry.producer.to_string();
    let (name, line) = (visible(name), visible(line));
    format!("{mark}{hour:02}:{minute:02}:{second:02} {name} ({}): {line}{shared}", short(&producer))
}

/// The end of a peer id.
fn short(peer: &str) -> String {
    let skipped = peer.chars().count().saturating_sub(4);
    format!("…{}", peer.chars().skip(skipped).collect::<String>())
}

/// Somebody else's text, without what could steer a terminal.
fn visible(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect()
}

/// Tells the person beside the chat.
fn note(text: &str) {
    let _ = writeln!(io::stderr(), "* {}", visible(text));
}

/// What is typed, line by line, until the input ends. The thread that reads is left behind: a read cannot be called off.
fn read_lines() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(TYPED_LINES);
    if io::stdin().is_terminal() {
        note("type a line to say it; Ctrl-D leaves");
    }
    std::thread::spawn(move || {
        // Standard input that is closed reads as one that has ended.
        for line in io::stdin().lock().lines() {
            let sent = match line {
                Ok(line) => sender.blocking_send(line),
                Err(error) if error.kind() == io::ErrorKind::InvalidData => continue,
                Err(_) => break,
            };
            if sent.is_err() {
                break;
            }
        }
    });
    receiver
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
