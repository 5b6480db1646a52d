//! Setup: the sources of `src/domain`. Claim: they name no runtime, socket, file, thread or
//! clock. Why it matters: what they decide can be read and tested without a machine.
#![allow(clippy::unwrap_used, reason = "a test panics where it meets the unexpected")]

const FORBIDDEN: [&str; 14] = [
    "tokio",
    "std::net",
    "std::fs",
    "std::io",
    "std::env",
    "std::process",
    "std::thread",
    "Instant::now",
    "SystemTime",
    "tracing::",
    "async ",
    "rand::",
    "new_v4",
    "reqwest",
];

#[test]
fn the_domain_names_no_machine() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/domain");
    let mut files = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        files += 1;
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for name in FORBIDDEN {
                assert!(
                    !code.contains(name),
                    "{}:{}: {name:?} has no place in the domain: it decides, the service does",
                    path.display(),
                    number + 1
                );
            }
        }
    }
    assert!(files >= 7, "only {files} files were looked at");
}
