//! The `User-Agent` of the programs.

/// The `User-Agent` of a program of this version, in kubectl's form: `sentinel/0.1.0 (linux/amd64)`. An API server also
/// uses the part before `/` as the field manager of a write that names none.
///
/// Source: `DefaultKubernetesUserAgent` in k8s.io/client-go.
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
    fn user_agent_has_version_and_platform() {
        let agent = user_agent("sentinel");
        let (product, platform) = agent.split_once(' ').unwrap();
        assert_eq!(product, concat!("sentinel/", env!("CARGO_PKG_VERSION")));
        assert!(platform.starts_with("(linux/"), "{agent}");
    }
}
