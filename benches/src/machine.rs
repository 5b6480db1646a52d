//! Where and with what a result was made.

use std::fs::read_to_string;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;
use corecast_benches::procfs::{busy_ns, first_line};
use corecast_benches::subject::Setup;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit of open files to what is allowed. A refusal shows as connections that
/// do not open.
pub(crate) fn raise_nofile() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

/// The head of a report.
pub(crate) fn describe(setup: &Setup, words: &[String]) -> String {
    let cpus = read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let count = cpus.lines().filter(|line| line.starts_with("processor")).count();
    let sysctl = |name: &str| first_line(read_to_string(format!("/proc/sys/{name}")));
    let dirty =
        if git(&["status", "--porcelain", "--untracked-files=no"]) == "unknown" { "" } else { ", changed" };
    let nofile =
        getrlimit(Resource::Nofile).current.map_or("unlimited".to_owned(), |limit| limit.to_string());
    let config = if setup.sets.is_empty() { "default".to_owned() } else { setup.sets.join(", ") };
    format!(
        "# corecast-bench {words}\n\n\
         | | |\n|---|---|\n\
         | date | {date} |\n\
         | commit | {commit}{dirty} |\n\
         | machine | {count} × {model} |\n\
         | kernel | {kernel} |\n\
         | cores | server on {server}, client on {client} |\n\
         | build | {build} |\n\
         | configuration | {config} |\n\
         | open files, somaxconn, tcp_wmem | {nofile}, {somaxconn}, {wmem} |\n\n\
         One process per server, started for each run and pinned to its core; rounds alternate. \
         CPU is the time on a core of the threads that own connections (`shard-*` of corecast, all of \
         the others), from /proc/<pid>/task/*/schedstat; \"process\" is the whole server. Medians over \
         the runs that count; a ratio is taken within a round, to the send(2) floor unless the table says \
         another reference. Latency counts from the intended moment.\n",
        words = words.join(" "),
        date = today(),
        commit = git(&["rev-parse", "--short", "HEAD"]),
        model = model.map_or("unknown", |(_, name)| name.trim()),
        kernel = sysctl("kernel/osrelease"),
        server = setup.server_core,
        client = setup.client_core,
        build = if cfg!(debug_assertions) { "debug: no figure below means anything" } else { "release" },
        somaxconn = sysctl("net/core/somaxconn"),
        wmem = sysctl("net/ipv4/tcp_wmem").replace('\t', " "),
    )
}

/// The head of a report that compares nothing: this command, commit, machine.
pub(crate) fn place() -> String {
    let cpus = read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let words: Vec<String> = std::env::args().skip(1).collect();
    format!(
        "# corecast-bench {words}\n\n\
         | | |\n|---|---|\n\
         | date | {date} |\n\
         | commit | {commit} |\n\
         | machine | {count} × {model} |\n\
         | kernel | {kernel} |\n",
        words = words.join(" "),
        date = today(),
        commit = git(&["rev-parse", "--short", "HEAD"]),
        count = cpus.lines().filter(|line| line.starts_with("processor")).count(),
        model = model.map_or("unknown", |(_, name)| name.trim()),
        kernel = first_line(read_to_string("/proc/sys/kernel/osrelease")),
    )
}

/// Waits until the cores have nothing to do for a moment, or the time is over.
pub(crate) fn wait_until_quiet(setup: &Setup, until: Instant) -> Result<()> {
    while Instant::now() < until {
        let before = busy_ns(&setup.cores())?;
        std::thread::sleep(LOOK);
        let busy = Duration::from_nanos(busy_ns(&setup.cores())? - before);
        if busy < LOOK / 10 {
            break;
        }
    }
    Ok(())
}

/// The date as `2026-01-31`, in UTC.
pub(crate) fn today() -> String {
    printed("date", &["-u", "+%Y-%m-%d"])
}

fn git(arguments: &[&str]) -> String {
    printed("git", arguments)
}

fn printed(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    first_line(output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()))
}

/// How long the cores are looked at.
const LOOK: Duration = Duration::from_millis(300);
