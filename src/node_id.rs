//! The id of a node that was given none: a UUID kept in the data folder, so that a
//! restarted logic node goes on with its own outbox rows and a gateway keeps its name.
//!
//! The file is locked while the node runs: two processes in one folder would be one node to
//! all others, and each would take the other's rows and pushes for its own.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use uuid::Uuid;

/// How long a start waits for a predecessor that is ending.
const LOCK_WAIT: Duration = Duration::from_secs(1);
const LOCK_RETRY: Duration = Duration::from_millis(20);

/// Who a node is. Nobody else gets the kept id while this lives.
#[derive(Debug)]
pub struct NodeId {
    id: String,
    _kept: Option<File>,
}

impl NodeId {
    /// The id.
    pub fn as_str(&self) -> &str {
        &self.id
    }
}

/// The configured id, or the one kept in `<data_dir>/<tier>.id`, made there at first.
///
/// # Errors
/// The file cannot be read or written, holds no id, or another process runs under it.
pub fn resolve(configured: Option<&str>, data_dir: &Path, tier: &str) -> Result<NodeId> {
    if let Some(id) = configured {
        return Ok(NodeId { id: id.to_owned(), _kept: None });
    }
    let path = data_dir.join(format!("{tier}.id"));
    std::fs::create_dir_all(data_dir).with_context(|| format!("cannot make {}", data_dir.display()))?;
    let mut options = File::options();
    let opened = options.read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = opened.with_context(|| format!("cannot open {}", path.display()))?;
    if !lock(&file).with_context(|| format!("cannot lock {}", path.display()))? {
        bail!(
            "{} is the id of another {tier} that runs: give this one a data_dir or {tier}.id of its own",
            path.display()
        );
    }
    let id = read(&mut file).with_context(|| format!("cannot use {}", path.display()))?;
    ensure!((1..=64).contains(&id.len()), "{} holds no id: delete it for a new one", path.display());
    Ok(NodeId { id, _kept: Some(file) })
}

/// Takes the file, or `false`: somebody else has it.
fn lock(file: &File) -> std::io::Result<bool> {
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if Instant::now() >= deadline => return Ok(false),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_RETRY),
        }
    }
}

/// The id in the file; a file that was made just now, or by a process that ended before it
/// wrote a whole line, gets one.
fn read(file: &mut File) -> std::io::Result<String> {
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    if text.ends_with('\n') {
        return Ok(text.trim().to_owned());
    }
    // Nobody has used half an id: it is used once its line is on the disk.
    let id = Uuid::new_v4().to_string();
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{id}")?;
    file.sync_all()?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_is_made_once_and_kept_per_tier() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = folder.path().join("data");
        let first = resolve(None, &data_dir, "logic").unwrap();
        assert!(Uuid::parse_str(first.as_str()).is_ok());
        let kept = first.as_str().to_owned();
        drop(first);
        let again = resolve(None, &data_dir, "logic").unwrap();
        assert_eq!(again.as_str(), kept);
        assert_ne!(resolve(None, &data_dir, "gateway").unwrap().as_str(), kept);
        assert_eq!(resolve(Some("mine"), &data_dir, "logic").unwrap().as_str(), "mine");
    }

    #[test]
    fn a_second_process_in_the_folder_is_refused_until_the_first_ends() {
        let folder = tempfile::tempdir().unwrap();
        let first = resolve(None, folder.path(), "logic").unwrap();
        let refused = resolve(None, folder.path(), "logic").unwrap_err().to_string();
        assert!(refused.contains("logic.id"), "{refused}");
        let id = first.as_str().to_owned();
        drop(first);
        assert_eq!(resolve(None, folder.path(), "logic").unwrap().as_str(), id);
    }

    #[test]
    fn half_an_id_is_not_used_and_an_empty_line_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logic.id");
        std::fs::write(&path, "1234-half").unwrap();
        let id = resolve(None, folder.path(), "logic").unwrap();
        assert!(Uuid::parse_str(id.as_str()).is_ok());
        drop(id);
        std::fs::write(&path, "\n").unwrap();
        assert!(resolve(None, folder.path(), "logic").is_err());
    }
}
