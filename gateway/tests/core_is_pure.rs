//! Setup: the sources of `src/core`. Claim: they name no runtime, socket, file, thread or
//! clock. Why it matters: what they decide can be read, tested and fuzzed without a machine.
//! The descriptor of a socket passes through as a value (`OwnedFd`), nothing is done with it.

use std::path::Path;

const FORBIDDEN: [&str; 16] = [
    "tokio",
    "glommio",
    "libc::",
    "rustix",
    "socket2",
    "TcpStream",
    "std::fs",
    "TcpListener",
    "std::env",
    "std::process",
    "std::thread",
    "Instant::now",
    "SystemTime",
    "tracing::",
    "async ",
    "rand::",
];

#[test]
fn the_core_names_no_machine() {
    let mut files = 0;
    look(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/core"), &mut files);
    assert!(files >= 20, "only {files} files were looked at");
}

fn look(folder: &Path, files: &mut u32) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            look(&path, files);
            continue;
        }
        *files += 1;
        let text = std::fs::read_to_string(&path).expect("a source");
        // Tests may draw seeds.
        let shipped = if path.ends_with("tests.rs") {
            ""
        } else {
            text.split("#[cfg(test)]").next().unwrap_or_default()
        };
        for (number, line) in shipped.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for name in FORBIDDEN {
                assert!(
                    !code.contains(name),
                    "{}:{}: {name:?} has no place in the core: it decides, the shell does",
                    path.display(),
                    number + 1
                );
            }
        }
    }
}
