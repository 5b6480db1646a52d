//! The embedded store after a crash: a killed process, and a copy of the files taken while
//! others write.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use corecast_backends::store::sqlite::SqliteStore;
use corecast_backends::store::*;

use super::{OWNER, all_messages, frame, push_of, seeded, send, seqs};

/// Set for the process that is to be killed: the folder of its store.
const VICTIM: &str = "CORECAST_CONTRACT_VICTIM";

/// Whatever else happened: no gaps, and one row per number since nothing was deleted.
async fn assert_whole(store: &SqliteStore, room: &str) -> u64 {
    let head = store.room(room).await.expect("reads").expect("exists").head.seq;
    assert_eq!(seqs(&all_messages(store, room).await), (1..=head).collect::<Vec<_>>());
    let mut covered = 0;
    for row in store.outbox(OWNER, 0, u32::MAX).await.expect("reads") {
        let push = push_of(&row);
        assert_eq!(push.first_seq as u64, covered + 1, "each message has its row");
        covered += push.count as u64;
    }
    assert_eq!(covered, head);
    head
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_process_loses_nothing_it_acknowledged() {
    let path = std::env::var_os(VICTIM);
    if let Some(folder) = path {
        return send_until_killed(Path::new(&folder)).await;
    }
    let folder = tempfile::tempdir().expect("temporary folder");
    let mut victim = Command::new(std::env::current_exe().expect("own path"))
        .args([
            "--exact",
            "store::sqlite_crash::a_killed_process_loses_nothing_it_acknowledged",
            "--nocapture",
        ])
        .env(VICTIM, folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("starts itself");
    let output = BufReader::new(victim.stdout.take().expect("a pipe"));
    let mut acknowledged = Vec::new();
    let mut lines = output.lines().map_while(Result::ok);
    for line in &mut lines {
        acknowledged.extend(acknowledged_in(&line));
        if acknowledged.len() >= 300 {
            break;
        }
    }
    victim.kill().expect("kills it");
    victim.wait().expect("it is gone");
    // What it said before it died counts too.
    acknowledged.extend(lines.filter_map(|line| acknowledged_in(&line)));
    assert!(acknowledged.len() >= 300, "the victim ended early: {acknowledged:?}");

    let store = SqliteStore::open(folder.path().join("store.db")).await.expect("opens after a kill");
    let head = assert_whole(&store, "a").await;
    let highest = acknowledged.iter().map(|(_, seq)| *seq).max().expect("some");
    assert!(head >= highest, "head {head}, acknowledged {highest}");
    for (key, seq) in acknowledged {
        let again = send(&store, frame("a", "u", &[(&key, "x")])).await;
        assert_eq!((again[0].repeated, again[0].id.seq), (true, seq), "key {key}");
    }
    store.close().await;
}

async fn send_until_killed(folder: &Path) {
    let store = SqliteStore::open(folder.join("store.db")).await.expect("opens");
    seeded(&store, &["a"]).await;
    let tasks = (0..4).map(|task| {
        let store = store.clone();
        tokio::spawn(async move {
            // Ends by itself should nobody kill it.
            for n in 0..100_000 {
                let key = format!("{task}-{n}");
                let seq = send(&store, frame("a", "u", &[(&key, "x")])).await[0].id.seq;
                println!("\nacknowledged {key} {seq}");
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.expect("no panic");
    }
}

fn acknowledged_in(line: &str) -> Option<(String, u64)> {
    let (key, seq) = line.strip_prefix("acknowledged ")?.split_once(' ')?;
    // The last line may be torn by the kill.
    Some((key.to_owned(), seq.parse().ok()?))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_the_files_under_load_opens_at_a_commit() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let store = SqliteStore::open(folder.path().join("store.db")).await.expect("opens");
    seeded(&store, &["a"]).await;
    let writer = tokio::spawn({
        let store = store.clone();
        async move {
            for n in 0..200 {
                send(&store, frame("a", "u", &[(&n.to_string(), "x")])).await;
            }
        }
    });
    let mut heads = Vec::new();
    while !writer.is_finished() {
        let answered = store.room("a").await.expect("reads").expect("exists").head.seq;
        // What a dying process leaves on the disk: the file and the log, the end perhaps torn.
        let image = tempfile::tempdir().expect("temporary folder");
        for name in ["store.db", "store.db-wal"] {
            std::fs::copy(folder.path().join(name), image.path().join(name)).expect("copies");
        }
        let copy = SqliteStore::open(image.path().join("store.db")).await.expect("the image opens");
        let head = assert_whole(&copy, "a").await;
        assert!(head >= answered, "head {head}, answered before the copy {answered}");
        heads.push(head);
        copy.close().await;
    }
    writer.await.expect("no panic");
    assert!(!heads.is_empty(), "at least one image was taken");
    assert_eq!(assert_whole(&store, "a").await, 200);
    store.close().await;
}

#[tokio::test]
async fn dropping_every_handle_gives_the_folder_free() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("store.db");
    for n in 1..=3 {
        let store = SqliteStore::open(&path).await.expect("opens though the last one just went");
        seeded(&store, &["a"]).await;
        let seq = send(&store, frame("a", "u", &[(&n.to_string(), "x")])).await[0].id.seq;
        assert_eq!(seq, n);
        drop(store);
    }
}
