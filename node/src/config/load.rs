//! Reads the config from its layers and says of each value where it came from.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use figment::{
    Figment, Metadata, Provider,
    providers::{Format, Toml},
    value::{Dict, Map, Value},
};
use serde::Serialize;

use super::{ApiAddr, Config, Home, Profile};
use crate::error::NodeError;

/// Names of environment variables that set something start with this; sections end with two underscores.
const ENV_PREFIX: &str = "DAGMESH_";

/// Flags of the command line that set a value of the config. Absent ones set nothing.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// `--profile`
    pub profile: Option<Profile>,
    /// `--listen`
    pub listen: Vec<String>,
    /// `--bootstrap`
    pub bootstrap: Vec<String>,
    /// `--external`
    pub external: Vec<String>,
    /// `--network`
    pub network: Option<String>,
    /// `--api`
    pub api: Option<ApiAddr>,
    /// `--ipni-http`
    pub ipni_http: Option<std::net::SocketAddr>,
}

/// All places a config comes from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The command line.
    pub flags: Flags,
    /// The environment; what does not start with `DAGMESH_` is passed over.
    pub env: BTreeMap<String, String>,
    /// The file named with `--config`; it must exist.
    pub file: Option<PathBuf>,
    /// The user's file; it need not exist.
    pub user_file: Option<PathBuf>,
}

impl Sources {
    /// The command line, this process' environment, `file`, and the user's file in `home`.
    pub fn new(flags: Flags, file: Option<PathBuf>, home: &Home) -> Self {
        let env = std::env::vars_os()
            .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self { flags, env, file, user_file: Some(home.config_file().to_owned()) }
    }
}

/// A config, and where each value came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The config.
    pub config: Config,
    figment: Figment,
}

/// One value of the config and where it came from.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Origin {
    /// Its full name, such as `swarm.listen`.
    pub key: String,
    /// The value.
    pub value: serde_json::Value,
    /// `command line`, an environment variable, a file, `profile <name>` or `default`.
    pub source: String,
}

impl Loaded {
    /// Reads all layers and checks the whole.
    ///
    /// Errors, all of the kind usage, name key and source: a key that does not exist (with the nearest one that does),
    /// a value of the wrong kind, a file that is no TOML, values that do not go together.
    pub fn load(sources: &Sources) -> Result<Self, NodeError> {
        if let Some(file) = &sources.file
            && !file.is_file()
        {
            return Err(NodeError::not_found(format!("--config {}: there is no such file", file.display())));
        }
        let user = upper_layers(sources)?;
        refuse_unknown_keys(&user)?;
        let profile: Profile = match user.find_value("swarm.profile") {
            Ok(_) => user.extract_inner("swarm.profile").map_err(explain)?,
            Err(_) => Profile::default(),
        };
        let figment =
            Figment::from(Layer::new("default", &Config::default())?).merge(Layer::of_profile(profile)?).merge(user);
        let config: Config = figment.extract().map_err(explain)?;
        let problems = config.problems();
        if !problems.is_empty() {
            return Err(NodeError::usage(format!("the config cannot work: {}", problems.join("; "))));
        }
        Ok(Self { config, figment })
    }

    /// Each value with its origin, in the order of the sections.
    pub fn origins(&self) -> Vec<Origin> {
        let mut origins = Vec::new();
        if let Ok(serde_json::Value::Object(sections)) = serde_json::to_value(&self.config) {
            for (section, values) in sections {
                let serde_json::Value::Object(values) = values else { continue };
                for (name, value) in values {
                    let key = format!("{section}.{name}");
                    let source = self.figment.find_metadata(&key).map_or_else(|| "default".into(), source_of);
                    origins.push(Origin { key, value, source });
                }
            }
        }
        origins
    }
}

/// All layers above the profile: what a person has set.
fn upper_layers(sources: &Sources) -> Result<Figment, NodeError> {
    let mut figment = Figment::new();
    let user_file = sources.user_file.as_ref().filter(|file| file.exists());
    for file in [user_file, sources.file.as_ref()].into_iter().flatten() {
        figment = figment.merge(Toml::file_exact(file));
    }
    for (name, text) in &sources.env {
        if let Some(layer) = env_layer(name, text)? {
            figment = figment.merge(layer);
        }
    }
    Ok(figment.merge(flag_layer(&sources.flags)))
}

/// One variable of the environment. Those of others (a container platform sets `DAGMESH_PORT` for a service of that
/// name) are passed over; one that lacks an underscore is an error, since it would do nothing.
fn env_layer(name: &str, text: &str) -> Result<Option<Layer>, NodeError> {
    let Some(rest) = name.strip_prefix(ENV_PREFIX) else { return Ok(None) };
    let lower = rest.to_lowercase();
    let Some((section, key)) = lower.split_once("__") else {
        return match known_keys().iter().find(|key| key.replace('.', "_") == lower) {
            Some(key) => {
                Err(NodeError::usage(format!("the environment variable {name} sets nothing: write {}", env_name(key))))
            }
            None => Ok(None),
        };
    };
    // Only what is no text by nature is read as something else: a network may well be called `5`.
    let default = default_values().into_iter().find(|(known, _)| *known == format!("{section}.{key}"));
    let is_text = matches!(default, Some((_, serde_json::Value::String(_) | serde_json::Value::Null)))
        || matches!(default, Some((_, serde_json::Value::Array(_))) if !text.starts_with('['));
    let value = match is_text {
        true => Value::from(text),
        false => text.parse::<Value>().unwrap_or_else(|never| match never {}),
    };
    let dict = Dict::from([(section.to_owned(), Dict::from([(key.to_owned(), value)]).into())]);
    Ok(Some(Layer { name: format!("environment variable {name}"), dict }))
}

fn env_name(key: &str) -> String {
    format!("{ENV_PREFIX}{}", key.replace('.', "__").to_uppercase())
}

fn flag_layer(flags: &Flags) -> Layer {
    let mut swarm = Dict::new();
    let texts = |items: &[String]| items.iter().map(|item| Value::from(item.as_str())).collect::<Vec<_>>();
    if let Some(profile) = flags.profile {
        swarm.insert("profile".into(), profile.to_string().into());
    }
    if let Some(network) = &flags.network {
        swarm.insert("network".into(), network.as_str().into());
    }
    for (key, items) in [("listen", &flags.listen), ("bootstrap", &flags.bootstrap), ("external", &flags.external)] {
        if !items.is_empty() {
            swarm.insert(key.into(), texts(items).into());
        }
    }
    let mut dict = Dict::from([("swarm".to_owned(), swarm.into())]);
    if let Some(api) = &flags.api {
        dict.insert("api".into(), Dict::from([("listen".to_owned(), api.to_string().into())]).into());
    }
    if let Some(addr) = &flags.ipni_http {
        dict.insert("ipni".into(), Dict::from([("http".to_owned(), addr.to_string().into())]).into());
    }
    Layer { name: "command line".into(), dict }
}

/// Values with a name.
struct Layer {
    name: String,
    dict: Dict,
}

impl Layer {
    fn new(name: &str, config: &Config) -> Result<Self, NodeError> {
        let value = Value::serialize(config).map_err(explain)?;
        Ok(Self { name: name.into(), dict: value.into_dict().unwrap_or_default() })
    }

    /// Only what the profile sets otherwise than the default.
    fn of_profile(profile: Profile) -> Result<Self, NodeError> {
        let default = Self::new("", &Config::default())?.dict;
        let mut layer = Self::new(&format!("profile {profile}"), &Config::of_profile(profile))?;
        for (section, values) in &mut layer.dict {
            if let (Value::Dict(_, values), Some(Value::Dict(_, unset))) = (values, default.get(section)) {
                values.retain(|key, value| unset.get(key) != Some(value) || key == "profile");
            }
        }
        Ok(layer)
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> figment::error::Result<Map<figment::Profile, Dict>> {
        Ok(figment::Profile::Default.collect(self.dict.clone()))
    }
}

/// Names every key that no section has. The walk is ours because serde's own error knows neither file nor path.
fn refuse_unknown_keys(figment: &Figment) -> Result<(), NodeError> {
    let top: BTreeMap<String, serde::de::IgnoredAny> = figment.extract().map_err(explain)?;
    let known = known_keys();
    let is_section = |name: &str| known.iter().any(|key| key.split('.').next() == Some(name));
    let mut unknown = Vec::new();
    for section in top.keys() {
        match figment.find_value(section).map_err(explain)? {
            Value::Dict(_, values) if is_section(section) => {
                for (name, value) in values {
                    let key = format!("{section}.{name}");
                    if !known.contains(&key) {
                        unknown.push((key, value.tag()));
                    }
                }
            }
            // A section that does not exist is named by its first key, so that the nearest one can be found.
            Value::Dict(tag, values) => unknown.push(match values.into_iter().next() {
                Some((name, value)) => (format!("{section}.{name}"), value.tag()),
                None => (section.clone(), tag),
            }),
            value => unknown.push((section.clone(), value.tag())),
        }
    }
    if unknown.is_empty() {
        return Ok(());
    }
    let lines = unknown.into_iter().map(|(key, tag)| {
        let source = figment.get_metadata(tag).map_or_else(|| "the config".into(), source_of);
        let advice = nearest(&key, &known).map_or_else(
            || "`dagmesh config schema` lists all".to_owned(),
            |nearest| format!("did you mean `{nearest}`?"),
        );
        format!("unknown key `{key}` in {source}; {advice}")
    });
    Err(NodeError::usage(lines.collect::<Vec<_>>().join("\n")))
}

/// The full name of every key.
fn known_keys() -> Vec<String> {
    default_values().into_iter().map(|(key, _)| key).collect()
}

/// Every key with its default.
fn default_values() -> Vec<(String, serde_json::Value)> {
    let mut values = Vec::new();
    if let Ok(serde_json::Value::Object(sections)) = serde_json::to_value(Config::default()) {
        for (section, fields) in sections {
            if let serde_json::Value::Object(fields) = fields {
                values.extend(fields.into_iter().map(|(name, value)| (format!("{section}.{name}"), value)));
            }
        }
    }
    values
}

/// The known key that `key` was most likely meant to be, if any is near.
fn nearest(key: &str, known: &[String]) -> Option<String> {
    let name = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let likeness = |candidate: &String| {
        let whole = strsim::jaro_winkler(key, candidate);
        // The right name in the wrong section, or in none, is near too.
        if name(key) == name(candidate) { whole.max(0.95) } else { whole }
    };
    let best = known.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(best) > 0.75).then(|| best.clone())
}

fn source_of(metadata: &Metadata) -> String {
    match metadata.source.as_ref().and_then(|source| source.file_path()) {
        Some(path) => display(path),
        None => metadata.name.to_string(),
    }
}

fn display(path: &Path) -> String {
    path.display().to_string()
}

fn explain(error: figment::Error) -> NodeError {
    let lines = error.into_iter().map(|error| {
        let source = error.metadata.as_ref().map(source_of);
        let place = match (error.path.is_empty(), source) {
            (false, Some(source)) => format!("`{}` in {source}: ", error.path.join(".")),
            (false, None) => format!("`{}`: ", error.path.join(".")),
            (true, Some(source)) => format!("{source}: "),
            (true, None) => String::new(),
        };
        format!("{place}{}", error.kind)
    });
    NodeError::usage(format!("the config cannot be read: {}", lines.collect::<Vec<_>>().join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(folder: &Path, name: &str, content: &str) -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, content).expect("writes");
        path
    }

    fn origin(loaded: &Loaded, key: &str) -> String {
        loaded.origins().into_iter().find(|origin| origin.key == key).map(|origin| origin.source).expect("a key")
    }

    #[test]
    fn each_layer_gives_way_to_the_one_above_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut sources = Sources::default();
        let network = |sources: &Sources| {
            let loaded = Loaded::load(sources).expect("a config");
            (loaded.config.swarm.network.clone(), origin(&loaded, "swarm.network"))
        };
        assert_eq!(network(&sources), ("mainnet".into(), "default".into()));
        sources.user_file = Some(file(folder.path(), "user.toml", "[swarm]\nprofile = 'test'"));
        assert_eq!(network(&sources), ("test".into(), "profile test".into()));
        let user = file(folder.path(), "user.toml", "[swarm]\nprofile = 'test'\nnetwork = 'user'");
        assert_eq!(network(&sources), ("user".into(), display(&user)));
        sources.file = Some(file(folder.path(), "named.toml", "swarm.network = 'file'"));
        assert_eq!(network(&sources), ("file".into(), display(&folder.path().join("named.toml"))));
        sources.env.insert("DAGMESH_SWARM__NETWORK".into(), "env".into());
        assert_eq!(network(&sources), ("env".into(), "environment variable DAGMESH_SWARM__NETWORK".into()));
        sources.flags.network = Some("flag".into());
        assert_eq!(network(&sources), ("flag".into(), "command line".into()));
        let loaded = Loaded::load(&sources).expect("a config");
        assert_eq!(loaded.config.swarm.profile, Profile::Test, "what upper layers leave alone stays");
        assert_eq!(origin(&loaded, "swarm.profile"), display(&user));
    }

    #[test]
    fn the_environment_gives_texts_numbers_and_lists() {
        let listen = "/ip4/127.0.0.1/tcp/1, /ip4/127.0.0.1/tcp/2";
        let env = BTreeMap::from([
            ("DAGMESH_SWARM__LISTEN".to_owned(), listen.to_owned()),
            ("DAGMESH_SYNC__MAX_SYNCS".to_owned(), "3".to_owned()),
            ("DAGMESH_SWARM__NETWORK".to_owned(), "5".to_owned()),
            ("DAGMESH_SWARM__EXTERNAL".to_owned(), "[\"/ip4/127.0.0.1/tcp/3\"]".to_owned()),
            ("DAGMESH_PORT".to_owned(), "tcp://10.0.0.1:4101".to_owned()),
        ]);
        let loaded = Loaded::load(&Sources { env, ..Default::default() }).expect("a config");
        let swarm = &loaded.config.swarm;
        assert_eq!((swarm.listen.len(), swarm.external.len(), loaded.config.sync.max_syncs), (2, 1, 3));
        assert_eq!(swarm.network, "5");
    }

    #[test]
    fn an_unknown_key_is_named_with_its_file_and_the_nearest_one() {
        let folder = tempfile::tempdir().expect("a folder");
        for (content, key, nearest) in [
            ("[swarm]\nlisten_on = []", "swarm.listen_on", "swarm.listen"),
            ("[swarm]\nbotstrap = []", "swarm.botstrap", "swarm.bootstrap"),
            ("[swam]\nlisten = []", "swam.listen", "swarm.listen"),
            ("max_syncs = 1", "max_syncs", "sync.max_syncs"),
        ] {
            let path = file(folder.path(), "config.toml", content);
            let sources = Sources { user_file: Some(path.clone()), ..Default::default() };
            let error = Loaded::load(&sources).expect_err(content);
            let expected = format!("unknown key `{key}` in {}; did you mean `{nearest}`?", path.display());
            assert_eq!((error.message, error.kind.exit_code()), (expected, 2));
        }
        let env = BTreeMap::from([("DAGMESH_SWARM__LISEN".to_owned(), "x".to_owned())]);
        let error = Loaded::load(&Sources { env, ..Default::default() }).expect_err("unknown");
        assert!(error.message.contains("environment variable DAGMESH_SWARM__LISEN"), "{error}");
        let env = BTreeMap::from([("DAGMESH_SWARM_LISTEN".to_owned(), "x".to_owned())]);
        let error = Loaded::load(&Sources { env, ..Default::default() }).expect_err("one underscore short");
        assert!(error.message.contains("write DAGMESH_SWARM__LISTEN"), "{error}");
    }

    #[test]
    fn a_wrong_value_is_named_with_its_key_and_file() {
        let folder = tempfile::tempdir().expect("a folder");
        for (content, part) in [
            ("[sync]\nmax_syncs = 'many'", "`sync.max_syncs` in "),
            ("[swarm]\nlisten = ['/ip4/x']", "/ip4/x"),
            ("[swarm]\nprofile = 'tset'", "`swarm.profile` in "),
            ("[swarm\n", "config.toml"),
            ("[sync]\nmax_syncs = 0", "sync.max_syncs: 0"),
            ("[records]\nrepublish_secs = 0", "records.republish_secs: 0"),
        ] {
            let path = file(folder.path(), "config.toml", content);
            let error =
                Loaded::load(&Sources { user_file: Some(path), ..Default::default() }).expect_err("a wrong value");
            assert!(error.message.contains(part), "{content}: {error}");
        }
        let missing = Sources { file: Some("/no/such.toml".into()), ..Default::default() };
        assert_eq!(Loaded::load(&missing).expect_err("missing").kind.exit_code(), 4);
    }
}
