//! The part of job that decides. No I/O, no runtime, no clock: time arrives as an
//! argument, and a test below scans these files for names that would break that.
//!
//! | module | decides |
//! |---|---|
//! | [`plan`] | what a record asks for, or why nobody can read it |
//! | [`window`] | which offset of a partition is safe to record as done |
//! | [`duty`] | what one gateway is owed, what it gets next, when waiting for it ends |
//! | [`interest`] | which pushes a gateway wants at all |
//! | [`retry`] | when to knock again |
//! | [`ledger`] | all windows and all duties together: the one state of a job |

pub mod duty;
pub mod interest;
pub mod ledger;
pub mod plan;
pub mod retry;
pub mod window;

#[cfg(test)]
mod model_test;

use std::time::Duration;

/// A moment: time since the job started. The shell measures it, the core compares it.
pub type Time = Duration;

#[cfg(test)]
mod tests {
    /// The core stays a calculation only as long as nothing in it can wait, look at a
    /// clock or open anything.
    #[test]
    fn core_names_no_runtime_no_clock_and_no_socket() {
        let forbidden = [
            "tokio",
            "tonic",
            "axum",
            "std::net",
            "std::fs",
            "std::thread",
            "Instant",
            "SystemTime",
            "tracing::",
        ];
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/core");
        let mut scanned = 0;
        for entry in std::fs::read_dir(folder).expect("the core's folder") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
            if name == "mod.rs" || name.ends_with("_test.rs") {
                continue; // this list, and tests that read a seed or tell one
            }
            let text = std::fs::read_to_string(&path).expect("a source file");
            for name in forbidden {
                assert!(!text.contains(name), "{}: the core must not name {name}", path.display());
            }
            scanned += 1;
        }
        assert!(scanned >= 5, "only {scanned} files scanned");
    }
}
