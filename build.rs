//! Compiles proto/ into Rust and into a descriptor set. Reads proto/, writes OUT_DIR; needs no protoc.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

const PROTOS: [&str; 3] = [
    "inventory_sentinel/v1/inventory_sentinel.proto",
    "inventory_sentinel/v1/inventory_admin.proto",
    "inventory_sentinel/v1/inventory_events.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_source_info(true).include_imports(true);
    let descriptors = compiler.open_files(PROTOS)?.file_descriptor_set();

    // Served by reflection, so without the comments.
    let mut served = descriptors.clone();
    for file in &mut served.file {
        file.source_code_info = None;
    }
    fs::write(out.join("inventory_sentinel.bin"), served.encode_to_vec())?;

    tonic_prost_build::configure().build_transport(false).compile_fds(descriptors)?;
    Ok(())
}
