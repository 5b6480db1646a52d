//! Compiles the .proto files with protox: no protoc to install.

use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["comet.proto", "job.proto", "push.proto", "logic.proto"];
    for file in files.iter().chain(&["protocol.proto"]) {
        println!("cargo:rerun-if-changed=proto/{file}");
    }
    let descriptors = protox::compile(files, ["proto"])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    // Served by gRPC reflection.
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
