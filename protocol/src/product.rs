//! How our programs name themselves to servers.

/// The `User-Agent` of a program of this version, in the form that kubectl has: `sentinel/0.1.0 (linux/amd64)`.
/// Source: `DefaultKubernetesUserAgent` of k8s.io/client-go; an API server also takes the part before `/` for the
/// field manager of a write that names none.
pub fn user_agent(program: &str) -> String {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("{program}/{} ({}/{architecture})", env!("CARGO_PKG_VERSION"), std::env::consts::OS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_named_with_its_version_and_platform() {
        let agent = user_agent("sentinel");
        let (product, platform) = agent.split_once(' ').unwrap();
        assert_eq!(product, concat!("sentinel/", env!("CARGO_PKG_VERSION")));
        assert!(platform.starts_with("(linux/"), "{agent}");
    }
}
