//! The id of a node that was given none: a UUID kept in the data folder, so that a
//! restarted logic node goes on with its own outbox rows and a gateway keeps its name.

use std::io::{ErrorKind, Write};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use uuid::Uuid;

/// The configured id, or the one kept in `<data_dir>/<tier>.id`, made there at first.
///
/// # Errors
/// The file cannot be read or written, or holds no id.
pub fn resolve(configured: Option<&str>, data_dir: &Path, tier: &str) -> Result<String> {
    if let Some(id) = configured {
        return Ok(id.to_owned());
    }
    let path = data_dir.join(format!("{tier}.id"));
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            let id = text.trim();
            ensure!(
                !id.is_empty() && id.len() <= 64,
                "{} holds no id: delete it for a new one",
                path.display()
            );
            Ok(id.to_owned())
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let id = Uuid::new_v4().to_string();
            make(&path, &id).with_context(|| format!("cannot write {}", path.display()))?;
            Ok(id)
        }
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Whole or not at all: half an id would be another node's.
fn make(path: &Path, id: &str) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let fresh = path.with_extension("id.new");
    let mut file = std::fs::File::create(&fresh)?;
    writeln!(file, "{id}")?;
    file.sync_all()?;
    std::fs::rename(fresh, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_is_made_once_and_kept_per_tier() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = folder.path().join("data");
        let first = resolve(None, &data_dir, "logic").unwrap();
        assert!(Uuid::parse_str(&first).is_ok());
        assert_eq!(resolve(None, &data_dir, "logic").unwrap(), first);
        assert_ne!(resolve(None, &data_dir, "gateway").unwrap(), first);
        assert_eq!(resolve(Some("mine"), &data_dir, "logic").unwrap(), "mine");
    }

    #[test]
    fn empty_id_file_is_an_error_and_not_a_new_name() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("logic.id"), "\n").unwrap();
        assert!(resolve(None, folder.path(), "logic").is_err());
    }
}
