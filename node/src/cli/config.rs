//! `config show|validate|schema`.

use super::{Context, Outcome, output::table};
use crate::{config::Config, error::NodeError};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Prints each value and where it came from.
    Show,
    /// Checks the config; exit code 2 where something is wrong.
    Validate,
    /// Prints the JSON schema of the config.
    Schema,
}

pub(super) fn run<B>(context: &mut Context<'_, B>, command: Command) -> Outcome {
    match command {
        Command::Show => {
            let origins = context.config()?.origins();
            context.output.result(&origins, |origins| {
                // Values can be long; where each comes from stands before it.
                let rows = origins
                    .iter()
                    .map(|origin| vec![origin.source.clone(), format!("{} = {}", origin.key, origin.value)]);
                table(&rows.collect::<Vec<_>>())
            })
        }
        Command::Validate => {
            context.config()?;
            context.output.result(&serde_json::json!({ "valid": true }), |_| "the config is right".into())
        }
        Command::Schema => {
            let schema = schemars::schema_for!(Config);
            if context.output.json {
                return context.output.object(&schema);
            }
            let text = serde_json::to_string_pretty(&schema).map_err(|error| NodeError::other(error.to_string()))?;
            context.output.line(text)
        }
    }
}
