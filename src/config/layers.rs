//! File < environment < `--set`, merged key by key.
//!
//! Every layer is checked against the known keys before it is merged, so that a misspelt key
//! is found whichever way it came, and names the right one. The known keys are those of the
//! serialised default: there is no second list to keep.

use std::collections::BTreeMap;
use std::path::Path;

use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::{Config, ConfigError};

/// Begins the name of an environment variable; two underscores stand between levels.
pub const ENV_PREFIX: &str = "CORECAST__";

/// Where the configuration comes from.
#[derive(Clone, Debug, Default)]
pub struct Sources<'a> {
    /// TOML file.
    pub file: Option<&'a Path>,
    /// Name and value; only names with [`ENV_PREFIX`] are looked at.
    pub env: Vec<(String, String)>,
    /// `key=value`, the later one wins.
    pub sets: Vec<String>,
}

/// Reads, merges and checks.
///
/// # Errors
/// See [`ConfigError`].
pub fn load(sources: &Sources) -> Result<Config, ConfigError> {
    let known = Known::new();
    let mut figment = Figment::from(known.layer());
    if let Some(path) = sources.file {
        figment = figment.merge(known.file(path)?);
    }
    let mut env: Vec<_> = sources.env.iter().filter(|(name, _)| name.starts_with(ENV_PREFIX)).collect();
    env.sort();
    for (name, raw) in env {
        let key = name[ENV_PREFIX.len()..].to_lowercase().replace("__", ".");
        figment = figment.merge(known.single(&key, raw, format!("environment variable {name}"))?);
    }
    for set in &sources.sets {
        let origin = format!("--set {set}");
        let Some((key, raw)) = set.split_once('=') else {
            return Err(ConfigError::Syntax { origin, reason: "expected key=value".into() });
        };
        figment = figment.merge(known.single(key.trim(), raw, origin)?);
    }
    let config: Config = figment.extract().map_err(|error| bad_value(&figment, &error))?;
    config.validate()?;
    Ok(config)
}

/// The known keys with their defaults.
struct Known(BTreeMap<String, Value>);

impl Known {
    fn new() -> Self {
        let mut leaves = BTreeMap::new();
        flatten(&mut leaves, String::new(), defaults());
        Self(leaves)
    }

    /// The defaults as the lowest layer, so that half a section in a file is no question.
    fn layer(&self) -> Layer {
        Layer { origin: "the defaults".into(), values: without_empty(defaults()) }
    }

    fn file(&self, path: &Path) -> Result<Layer, ConfigError> {
        let read = |source| ConfigError::Read { path: path.to_owned(), source };
        let text = std::fs::read_to_string(path).map_err(read)?;
        let origin = path.display().to_string();
        let table: toml::Table = toml::from_str(&text)
            .map_err(|error| ConfigError::Syntax { origin: origin.clone(), reason: error.to_string() })?;
        let values = serialized(&table);
        let mut leaves = BTreeMap::new();
        flatten(&mut leaves, String::new(), values.clone());
        for (key, value) in leaves {
            // An empty section is no key.
            let is_empty = matches!(&value, Value::Dict(_, empty) if empty.is_empty());
            if is_empty && self.is_section(&key) {
                continue;
            }
            self.check(&key, &origin)?;
        }
        Ok(Layer { origin, values })
    }

    fn single(&self, key: &str, raw: &str, origin: String) -> Result<Layer, ConfigError> {
        let default = self.check(key, &origin)?;
        let value = typed(raw, default)
            .map_err(|reason| ConfigError::Value(format!("{key} = {raw:?} ({origin}): {reason}")))?;
        let mut names = key.rsplit('.');
        let last = names.next().unwrap_or(key);
        let innermost = Dict::from([(last.to_owned(), value)]);
        let values = names.fold(innermost, |inner, name| Dict::from([(name.to_owned(), inner.into())]));
        Ok(Layer { origin, values })
    }

    fn check(&self, key: &str, origin: &str) -> Result<&Value, ConfigError> {
        if self.is_section(key) {
            let reason = "is a section, not a value: set the keys in it";
            return Err(ConfigError::Value(format!("{key} ({origin}): {reason}")));
        }
        self.0.get(key).ok_or_else(|| ConfigError::UnknownKey {
            key: key.to_owned(),
            origin: origin.to_owned(),
            nearest: self.nearest(key).to_owned(),
        })
    }

    fn is_section(&self, key: &str) -> bool {
        let within = format!("{key}.");
        self.0.keys().any(|known| known.starts_with(&within))
    }

    /// Looks at whole paths, and a little less at the last names alone: a key that is right
    /// but stands in the wrong section is found too.
    fn nearest(&self, key: &str) -> &str {
        let last = |path: &'_ str| path.rsplit('.').next().unwrap_or_default().to_owned();
        let likeness = |known: &str| {
            let whole = strsim::normalized_damerau_levenshtein(key, known);
            let name = strsim::normalized_damerau_levenshtein(&last(key), &last(known));
            whole.max(0.85 * name)
        };
        let mut best = ("", -1.0);
        for known in self.0.keys() {
            let score = likeness(known);
            if score > best.1 {
                best = (known, score);
            }
        }
        best.0
    }
}

#[cfg(test)]
pub(super) fn known_keys() -> Vec<String> {
    Known::new().0.into_keys().collect()
}

/// One source, named in error messages.
struct Layer {
    origin: String,
    values: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.origin.clone())
    }

    fn data(&self) -> figment::error::Result<Map<Profile, Dict>> {
        Ok(Profile::Default.collect(self.values.clone()))
    }
}

fn defaults() -> Dict {
    serialized(&Config::default())
}

fn serialized(value: &impl serde::Serialize) -> Dict {
    let value = Value::serialize(value).expect("keys and plain values");
    value.into_dict().expect("a table")
}

fn flatten(leaves: &mut BTreeMap<String, Value>, path: String, values: Dict) {
    for (name, value) in values {
        let path = if path.is_empty() { name } else { format!("{path}.{name}") };
        match value {
            Value::Dict(_, inner) if !inner.is_empty() => flatten(leaves, path, inner),
            leaf => drop(leaves.insert(path, leaf)),
        }
    }
}

/// Absent options stay absent.
fn without_empty(values: Dict) -> Dict {
    let keep = |(name, value)| match value {
        Value::Empty(..) => None,
        Value::Dict(tag, inner) => Some((name, Value::Dict(tag, without_empty(inner)))),
        value => Some((name, value)),
    };
    values.into_iter().filter_map(keep).collect()
}

/// Text of the environment or a flag as the type its default has: an id of digits stays
/// text. An absent option is text, too; a list may come as TOML or with commas. An address
/// may begin like a list, `[::]:50052`, but does not end like one.
fn typed(raw: &str, default: &Value) -> Result<Value, String> {
    let list = raw.trim_start().starts_with('[') && raw.trim_end().ends_with(']');
    match default {
        Value::Bool(..) => raw.parse::<bool>().map(Value::from).map_err(|_| "must be true or false".into()),
        Value::Num(..) => raw.parse::<i64>().map(Value::from).map_err(|_| "must be a whole number".into()),
        _ if list => {
            let table: toml::Table =
                toml::from_str(&format!("value = {raw}")).map_err(|_| "is no list in TOML".to_owned())?;
            serialized(&table).remove("value").ok_or_else(|| "is no list in TOML".into())
        }
        Value::Array(..) => {
            let parts = raw.split(',').map(str::trim).filter(|part| !part.is_empty());
            Ok(Value::from(parts.map(Value::from).collect::<Vec<_>>()))
        }
        _ => Ok(Value::from(raw)),
    }
}

fn bad_value(figment: &Figment, error: &figment::Error) -> ConfigError {
    let key = error.path.join(".");
    let origin = error.metadata.as_ref().map_or("the configuration", |metadata| metadata.name.as_ref());
    let value = figment.find_value(&key).ok().map(|value| match value {
        Value::String(_, text) => format!(" = {text:?}"),
        Value::Num(_, number) => number.to_i128().map_or_else(String::new, |number| format!(" = {number}")),
        Value::Bool(_, flag) => format!(" = {flag}"),
        _ => String::new(),
    });
    ConfigError::Value(format!("{key}{} ({origin}): {}", value.unwrap_or_default(), error.kind))
}
