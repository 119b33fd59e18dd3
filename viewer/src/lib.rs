//! The web page as it is served: the files of `page/`, made by the build script, and the policy that they obey.
//!
//! The page has no data of its own, so every client that can connect may load it; what it shows comes from the API,
//! with the reader's token. This crate does no I/O: [`assets`] are a part of the program.
//!
//! Invariants, each with a test in `tests/`:
//!
//! * no file refers to another host, and no page has an inline script or style ([`POLICY`]);
//! * the content of an asset decides its name, so a browser may keep it forever;
//! * scripts are small: `scripts_are_small` has the limits, and prints what each view needs.

mod base_path;

pub use base_path::{BasePath, InvalidBasePath};

/// The Content-Security-Policy of every answer of the page.
pub const POLICY: &str = "default-src 'self'; object-src 'none'; base-uri 'self'; frame-ancestors 'none'; \
     form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// The folder of the assets, below the base path.
pub const ASSETS_FOLDER: &str = "assets";

/// The first segments of the addresses of pages; the empty one is `/`.
pub const PLACES: [&str; 5] = ["", "tasks", "fleet", "history", "login"];

/// A file that the page loads, at `assets/NAME` below the base path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asset {
    /// Its name, which has its hash: `main.3f2a….js`.
    pub name: &'static str,
    /// The file in `page/` that it was made from.
    pub source: &'static str,
    /// The first 64 bits of the SHA-256 of its content, in hexadecimal digits.
    pub hash: &'static str,
    /// Its media type.
    pub media_type: &'static str,
    /// Its content.
    pub bytes: &'static [u8],
    /// Its content, compressed with gzip.
    pub gzip: &'static [u8],
}

/// The page for a base path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The HTML.
    pub html: String,
    /// Changes with the HTML: an entity tag, without its quotes.
    pub tag: String,
}

include!(concat!(env!("OUT_DIR"), "/assets.rs"));

/// All assets, sorted by name.
pub fn assets() -> &'static [Asset] {
    ASSETS
}

/// The asset of that name; `None` when no file has it, such as one of an earlier build.
pub fn find(name: &str) -> Option<&'static Asset> {
    let at = ASSETS.binary_search_by(|asset| asset.name.cmp(name)).ok()?;
    ASSETS.get(at)
}

/// The page, whose addresses are below that base path. It is the same for every address.
pub fn page(base: &BasePath) -> Page {
    let [before, after] = INDEX;
    Page { html: format!("{before}<base href=\"{base}/\">{after}"), tag: format!("{INDEX_HASH}{base}") }
}
