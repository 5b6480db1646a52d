//! A server of the test's own, to be killed and started again.

use std::path::{Path, PathBuf};
use std::process::Command;

use corecast_backends::store::*;
use corecast_proto::ids::RoomId;

use super::Database;
use crate::store::{OWNER, all_messages, frame, rows_of, seeded, send, seqs};
use crate::support::eventually;

/// A MariaDB, or the engine asked for, in a folder of its own; gone at the end, however the test ends.
pub(super) struct Server {
    folder: PathBuf,
    /// Loaded into the server when it is started again.
    preload: Option<PathBuf>,
    pub(super) url: String,
}

impl Server {
    /// `None` where the engines are not wanted, which is said.
    pub(super) fn start() -> Option<Self> {
        if std::env::var("CORECAST_TEST_MYSQL").is_err() {
            println!("not run: CORECAST_TEST_MYSQL names no server");
            return None;
        }
        let folder = tempfile::Builder::new().prefix("corecast-mariadb").tempdir().expect("folder").keep();
        let port = corecast_ports::free();
        let server = Self { folder, preload: None, url: format!("mysql://root@127.0.0.1:{port}/mysql") };
        server.script("start", &[&port.to_string()]);
        Some(server)
    }

    fn script(&self, verb: &str, arguments: &[&str]) {
        let engine = std::env::var("CORECAST_TEST_MYSQL_ENGINE").unwrap_or_else(|_| "mariadb".to_owned());
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/middleware");
        let mut command = Command::new(scripts.join(engine));
        if let Some(library) = &self.preload {
            command.env("LD_PRELOAD", library);
        }
        let done = command.arg(verb).arg(&self.folder).args(arguments).status().expect("the script runs");
        assert!(done.success(), "{verb}: {done}");
    }

    /// From its next start on, each of its waits for the disk takes 20 ms longer.
    pub(super) fn slow_down(&mut self) {
        let library = self.folder.join("slow_disk.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/contract/store/mysql/slow_disk.c");
        let mut compile = Command::new("cc");
        let done = compile.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).arg("-ldl").status();
        assert!(done.expect("cc, which building the Kafka client needs too").success());
        self.preload = Some(library);
    }

    pub(super) async fn kill(&self) {
        self.blocking("kill").await;
    }

    pub(super) async fn restart(&self) {
        self.blocking("restart").await;
    }

    async fn blocking(&self, verb: &'static str) {
        tokio::task::block_in_place(|| self.script(verb, &[]));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.script("kill", &[]);
        // What is left lies in the folder for temporary files.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_while_the_pool_is_idle_fails_no_call() {
    let Some(server) = Server::start() else { return };
    let database = Database::on(server.url.clone()).await;
    let store = database.store();
    seeded(&store, &["a"]).await;
    // Several connections, all of them used just now.
    let sends = (0..8).map(|n| send(&store, frame("a", "u", &[(&format!("{n}"), "x")])).into_future());
    let frames: Vec<_> = sends.collect();
    futures::future::join_all(frames).await;
    server.kill().await;
    server.restart().await;
    let sent = send(&store, frame("a", "u", &[("after", "x")])).await;
    assert_eq!((sent[0].id.seq, sent[0].repeated), (9, false));
    assert_eq!(store.heads(&[RoomId::from("a")], false).await.expect("reads")[0].position.seq, 9);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_while_committing_loses_and_doubles_nothing() {
    let Some(server) = Server::start() else { return };
    let database = Database::on(server.url.clone()).await;
    let store = database.store();
    seeded(&store, &["a", "b"]).await;
    let stop = tokio_util::sync::CancellationToken::new();
    let senders: Vec<_> = (0..4)
        .map(|sender| {
            let (store, stop) = (store.clone(), stop.clone());
            tokio::spawn(async move {
                let mut acknowledged = Vec::new();
                for n in 0.. {
                    if stop.is_cancelled() {
                        break;
                    }
                    let room = ["a", "b"][n % 2];
                    let key = format!("{sender}-{n}");
                    // What is retried is retried with its key.
                    let stored = loop {
                        let sent = store.commit(vec![frame(room, "u", &[(&key, &key)])]).await;
                        match sent {
                            Ok(outcomes) => break crate::store::stored(&outcomes[0])[0],
                            Err(StoreError::Fatal(reason)) => panic!("{reason}"),
                            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
                        }
                    };
                    acknowledged.push((room, stored.id, key));
                }
                acknowledged
            })
        })
        .collect();
    let head =
        async || store.heads(&[RoomId::from("a")], false).await.map_or(0, |heads| heads[0].position.seq);
    for _ in 0..2 {
        let before = head().await;
        eventually("messages are stored", async || head().await > before + 20).await;
        server.kill().await;
        server.restart().await;
    }
    let before = head().await;
    eventually("messages are stored again", async || head().await > before + 20).await;
    stop.cancel();
    let mut acknowledged = 0;
    let mut all = std::collections::HashMap::new();
    for room in ["a", "b"] {
        let messages = all_messages(&store, room).await;
        assert_eq!(seqs(&messages), (1..=messages.len() as u64).collect::<Vec<_>>());
        assert!(messages.is_sorted_by_key(|message| message.id.ms));
        all.insert(room, messages);
    }
    for sender in senders {
        for (room, id, key) in sender.await.expect("no panic") {
            let message = all[room].get(id.seq as usize - 1);
            // Those of the last moment came after the list was read.
            assert!(message.is_none_or(|message| message.id == id && message.content == key));
            acknowledged += 1;
        }
    }
    assert!(acknowledged > 60);
    let mut contents: Vec<&str> = all.values().flatten().map(|message| message.content.as_str()).collect();
    let count = contents.len();
    contents.sort_unstable();
    contents.dedup();
    assert_eq!(contents.len(), count, "no key is stored twice");
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outbox_ids_are_not_used_again_after_a_crash() {
    let Some(server) = Server::start() else { return };
    let database = Database::on(server.url.clone()).await;
    let store = database.store();
    seeded(&store, &["a"]).await;
    let outcomes = store.commit(vec![frame("a", "u", &[("1", "x")])]).await.expect("commits");
    let id = rows_of(&outcomes[0])[0].id;
    store.delete_outbox(vec![id]).await.expect("deletes");
    server.kill().await;
    server.restart().await;
    let outcomes = store.commit(vec![frame("a", "u", &[("2", "x")])]).await.expect("commits");
    assert!(rows_of(&outcomes[0])[0].id > id);
    assert_eq!(store.outbox(OWNER, 0, 9).await.expect("reads").len(), 1);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_server_is_down_each_call_says_so_at_once_and_then_all_is_well() {
    let Some(server) = Server::start() else { return };
    let database = Database::on(server.url.clone()).await;
    let store = database.store();
    seeded(&store, &["a"]).await;
    send(&store, frame("a", "u", &[("1", "x")])).await;
    server.kill().await;
    let sent = store.commit(vec![frame("a", "u", &[("2", "x")])]).await;
    assert!(matches!(sent, Err(StoreError::Unavailable(_))), "{sent:?}");
    assert!(matches!(store.rooms().await, Err(StoreError::Unavailable(_))));
    server.restart().await;
    assert_eq!(send(&store, frame("a", "u", &[("2", "x")])).await[0].id.seq, 2);
    store.close().await;
}
