//! What the kernel says of a process: CPU of each thread, memory of its own.
//!
//! CPU is the first number of `/proc/<pid>/task/<tid>/schedstat`, nanoseconds on a core. On
//! a kernel without `CONFIG_IRQ_TIME_ACCOUNTING` it contains the packet path that loopback
//! runs inside the sender's system call; with it, that part would be missing, for floor,
//! baseline and gateway alike.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

/// Nanoseconds on a core, by thread.
#[derive(Clone, Debug, Default)]
pub struct Cpu {
    threads: BTreeMap<u32, (String, u64)>,
}

impl Cpu {
    /// Reads all threads of a process.
    ///
    /// # Errors
    /// The process is gone.
    pub fn of(pid: u32) -> Result<Self> {
        let folder = PathBuf::from(format!("/proc/{pid}/task"));
        let mut threads = BTreeMap::new();
        for entry in fs::read_dir(&folder).with_context(|| format!("process {pid} is gone"))? {
            let entry = entry?;
            let read = |file: &str| fs::read_to_string(entry.path().join(file));
            // A thread may end between the listing and the reading.
            let (Ok(name), Ok(stat)) = (read("comm"), read("schedstat")) else { continue };
            let ns = stat.split_whitespace().next().and_then(|ns| ns.parse().ok()).unwrap_or(0);
            let tid = entry.file_name().to_string_lossy().parse().unwrap_or(0);
            threads.insert(tid, (name.trim().to_owned(), ns));
        }
        Ok(Self { threads })
    }

    /// Nanoseconds since `earlier` of the threads whose name begins with `prefix`.
    pub fn since(&self, earlier: &Self, prefix: &str) -> u64 {
        let threads = self.threads.iter().filter(|(_, (name, _))| name.starts_with(prefix));
        threads
            .map(|(tid, (_, ns))| {
                ns.saturating_sub(earlier.threads.get(tid).map_or(0, |(_, before)| *before))
            })
            .sum()
    }

    /// Is there a thread with such a name?
    pub fn has(&self, prefix: &str) -> bool {
        self.threads.values().any(|(name, _)| name.starts_with(prefix))
    }
}

/// Nanoseconds that some cores were busy, with whatever it was, since the machine started; in
/// steps of ten milliseconds.
///
/// # Errors
/// There is no such core.
pub fn busy_ns(cores: &[usize]) -> Result<u64> {
    let stat = fs::read_to_string("/proc/stat")?;
    let mut ticks = 0;
    for core in cores {
        let name = format!("cpu{core} ");
        let line = stat.lines().find_map(|line| line.strip_prefix(&name));
        let fields = line.with_context(|| format!("no core {core}"))?.split_whitespace();
        let numbers: Vec<u64> = fields.filter_map(|field| field.parse().ok()).collect();
        // user nice system IDLE IOWAIT irq softirq steal; guests are in user already.
        ticks += numbers
            .iter()
            .take(8)
            .enumerate()
            .filter(|(at, _)| !(3..5).contains(at))
            .map(|(_, n)| n)
            .sum::<u64>();
    }
    Ok(ticks * 1_000_000_000 / TICKS_PER_SECOND)
}

/// Bytes of anonymous memory that are resident: heap and stacks, without files.
///
/// # Errors
/// The process is gone, or the kernel is older than 4.5.
pub fn rss_anon(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib: u64 = line
        .and_then(|line| line.split_whitespace().next()?.parse().ok())
        .context("no RssAnon in /proc/<pid>/status")?;
    Ok(kib << 10)
}

/// Descriptors that a process has open.
///
/// # Errors
/// The process is gone, or another user's.
pub fn open_files(pid: u32) -> Result<usize> {
    let folder = fs::read_dir(format!("/proc/{pid}/fd")).with_context(|| format!("descriptors of {pid}"))?;
    Ok(folder.count())
}

/// First line of a file, or of what a program prints; "unknown" when there is none.
pub fn first_line(text: std::io::Result<String>) -> String {
    let line = text.ok().and_then(|text| text.lines().next().map(str::to_owned));
    line.unwrap_or_else(|| "unknown".to_owned())
}

/// `USER_HZ`, the same on every Linux that runs this.
const TICKS_PER_SECOND: u64 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_of_a_named_thread_is_seen_and_told_apart() {
        let pid = std::process::id();
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let (tell, done) = std::sync::mpsc::channel();
        let named = std::thread::Builder::new().name("busy-7".into()).spawn(move || {
            let start = std::time::Instant::now();
            while start.elapsed().as_millis() < 50 {
                std::hint::spin_loop();
            }
            tell.send(()).unwrap();
            // Alive until it was looked at.
            let _ = wait.recv();
        });
        let before = Cpu::default();
        done.recv().unwrap();
        // Off the core, so that its last slice is counted.
        std::thread::sleep(std::time::Duration::from_millis(5));
        let after = Cpu::of(pid).unwrap();
        assert!(after.has("busy-") && !after.has("lazy-"));
        let ns = after.since(&before, "busy-");
        assert!(ns > 1_000_000, "{ns} ns");
        assert_eq!(after.since(&before, "lazy-"), 0);
        drop(go);
        named.unwrap().join().unwrap();
    }

    #[test]
    fn memory_that_is_written_is_resident() {
        let pid = std::process::id();
        let before = rss_anon(pid).unwrap();
        let block = std::hint::black_box(vec![1u8; 32 << 20]);
        let after = rss_anon(pid).unwrap();
        assert!(after >= before + (24 << 20), "{before} then {after} with {} more", block.len());
    }
}
