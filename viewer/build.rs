//! Makes the files that are served from `page/`, and a table of them for `src/lib.rs`. Needs neither Node nor a network.
//!
//! What it does to them is in [`bundle`]; `README.md` describes it for authors of pages.
#![allow(clippy::print_stdout, reason = "this is how a build script talks to cargo")]

#[path = "build/bundle.rs"]
mod bundle;
#[path = "build/chunks.rs"]
mod chunks;
#[path = "build/module.rs"]
mod module;
#[path = "build/script.rs"]
mod script;
#[path = "build/source.rs"]
mod source;
#[path = "build/style.rs"]
mod style;

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use bundle::Bundle;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=page");
    let page = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("page");
    let bundle = Bundle::make(&source::read(&page)?)?;
    write(&bundle, &PathBuf::from(env::var("OUT_DIR")?))
}

/// Writes the files and the table, without those of an earlier build.
fn write(bundle: &Bundle, out: &Path) -> Result<(), Box<dyn Error>> {
    let folder = out.join("assets");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir(&folder)?;
    let mut table = "static ASSETS: &[Asset] = &[\n".to_owned();
    for asset in &bundle.assets {
        fs::write(folder.join(&asset.name), &asset.bytes)?;
        fs::write(folder.join(format!("{}.gz", asset.name)), &asset.gzip)?;
        let include = |end: &str| format!("include_bytes!({:?})", format!("assets/{}{end}", asset.name));
        writeln!(
            table,
            "    Asset {{ name: {:?}, source: {:?}, hash: {:?}, media_type: {:?}, bytes: {}, gzip: {} }},",
            asset.name,
            asset.source,
            asset.hash,
            asset.media_type,
            include(""),
            include(".gz"),
        )?;
    }
    table.push_str("];\n");
    let index = &bundle.index;
    writeln!(table, "static INDEX: [&str; 2] = [{:?}, {:?}];", index.before, index.after)?;
    writeln!(table, "static INDEX_HASH: &str = {:?};", index.hash)?;
    fs::write(out.join("assets.rs"), table)?;
    Ok(())
}
