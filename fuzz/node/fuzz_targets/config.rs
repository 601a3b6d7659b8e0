#![no_main]
//! The config: a file, and the environment. What is taken is within its bounds, and its values written as TOML are read
//! again as they were.

use std::{collections::BTreeMap, fs, sync::LazyLock};

use dagmesh::config::{Loaded, Sources};
use tempfile::TempDir;

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a folder"));

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (file, env) = text.split_once("\n---\n").unwrap_or((text, ""));
    let env: BTreeMap<_, _> = env
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (format!("DAGMESH_{key}"), value.to_owned()))
        .collect();
    let path = FOLDER.path().join("config.toml");
    fs::write(&path, file).expect("writes");
    let Ok(loaded) = Loaded::load(&Sources { file: Some(path.clone()), env, ..Sources::default() }) else { return };
    assert!(loaded.config.problems().is_empty());
    for origin in loaded.origins() {
        assert!(!origin.source.is_empty());
    }
    // All its values as one file.
    let all = toml(&loaded);
    fs::write(&path, &all).expect("writes");
    let again = Loaded::load(&Sources { file: Some(path), ..Sources::default() });
    let again = again.unwrap_or_else(|error| panic!("{error}\n{all}"));
    assert_eq!(again.config, loaded.config, "{all}");
});

fn toml(loaded: &Loaded) -> String {
    let mut text = String::new();
    for origin in loaded.origins() {
        if !origin.value.is_null() {
            // What JSON and TOML write alike: texts, numbers, lists of texts.
            text.push_str(&format!("{} = {}\n", origin.key, origin.value));
        }
    }
    text
}
