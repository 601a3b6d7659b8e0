//! `key`: named keys. They are files in the home, so no daemon is needed, and one that runs sees them at once.

use std::path::PathBuf;

use dagmesh_core::limits::MAX_KEY_FILE_BYTES;
use serde_json::json;

use super::{
    Backend, Context, Outcome, absolute, input,
    output::{fields, table},
};
use crate::{
    config::write_private,
    error::NodeError,
    keys::Keyring,
    types::{KeyExported, KeyInfo, KeyName, PrivateKey},
};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Makes an Ed25519 key, to sign records and names with.
    Gen {
        /// How it is called: 1 to 128 of the letters A-Z a-z 0-9 . _ -, the first neither a dot nor a dash.
        name: KeyName,
    },
    /// Lists the keys; `self` is the node's own.
    Ls,
    /// Writes a private key in libp2p's protobuf encoding, as `ipfs key export` does and `ipfs key import` reads it.
    ///
    /// Whoever has it can point its name and put records under it.
    Export {
        /// Which.
        name: KeyName,
        /// To this file, which must not exist yet, for its owner alone; else to standard output, unless it is a terminal.
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Takes a private key that was exported here or by `ipfs key export`: Ed25519, secp256k1, ECDSA or RSA.
    Import {
        /// How it is called here.
        name: KeyName,
        /// Its file; `-` reads it from standard input.
        file: String,
    },
}

pub(super) async fn run<B: Backend>(context: &mut Context<'_, B>, command: Command) -> Outcome {
    match command {
        Command::Gen { name } => {
            context.home.create()?;
            let made = Keyring::of_home(&context.home)?.generate(&name)?;
            context.output.essential(&made, |made| made.ipns.clone(), info_text)
        }
        Command::Ls => {
            let keys = Keyring::of_home(&context.home)?.list()?;
            context.output.result(&keys, |keys| list_text(keys))
        }
        Command::Export { name, output } => export(context, name, output),
        Command::Import { name, file } => {
            let key = PrivateKey(input::read(&file, MAX_KEY_FILE_BYTES, "the key").await?);
            context.home.create()?;
            let taken = Keyring::of_home(&context.home)?.import(&name, &key)?;
            context.output.essential(&taken, |taken| taken.ipns.clone(), info_text)
        }
    }
}

fn export<B>(context: &mut Context<'_, B>, name: KeyName, output: Option<PathBuf>) -> Outcome {
    if output.is_none() && context.output.streams.out_is_terminal {
        return Err(
            NodeError::usage("a private key is not shown on a terminal; write it to a file with -o FILE").into()
        );
    }
    let key = Keyring::of_home(&context.home)?.export(&name)?;
    let Some(path) = output else {
        if context.output.json {
            return context.output.object(&KeyExported::new(name, key));
        }
        context.output.bytes(&key.0)?;
        return Ok(context.output.streams.out.flush()?);
    };
    let path = absolute(&path)?;
    write_private(&path, &key.0, false).map_err(|error| NodeError::file("create", &path, &error))?;
    let written = json!({ "name": name, "file": path });
    context.output.result(&written, |_| format!("{name} is in {}; whoever reads it can sign with it", path.display()))
}

fn info_text(info: &KeyInfo) -> String {
    fields(&[
        ("name", info.name.to_string()),
        ("type", info.kind.clone()),
        ("peer id", info.peer_id.to_string()),
        ("IPNS name", info.ipns.clone()),
    ])
}

fn list_text(keys: &[KeyInfo]) -> String {
    if keys.is_empty() {
        return "there is no key yet; `dagmesh init` makes the node's own, `dagmesh key gen NAME` another".into();
    }
    let mut rows = vec![["NAME", "TYPE", "PEER ID", "IPNS NAME"].map(String::from).to_vec()];
    for info in keys {
        let name = if info.own { format!("{} (the node)", info.name) } else { info.name.to_string() };
        rows.push(vec![name, info.kind.clone(), info.peer_id.to_string(), info.ipns.clone()]);
    }
    table(&rows)
}
