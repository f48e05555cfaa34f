//! The place of the workspace, and the crates of it that are published.

use std::io::BufReader;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use cargo_metadata::{Artifact, Message, Metadata, MetadataCommand};

/// The crates on crates.io, in the order in which they can be published.
pub(crate) const PUBLISHED: [&str; 3] = ["probity-txn", "probity-idempotency", "probity-saga"];

/// The workspace's root folder.
pub(crate) fn root() -> PathBuf {
    let xtask = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().map(PathBuf::from).unwrap_or(xtask)
}

/// The folder of a published crate: its name without that of the family.
pub(crate) fn folder(name: &str) -> &str {
    name.trim_start_matches("probity-")
}

/// `cargo`, the one that runs us, in the workspace's root.
pub(crate) fn cargo() -> Command {
    command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// A program that runs in the workspace's root.
pub(crate) fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root());
    command
}

/// Runs a command of cargo that builds, with its complaints shown, and gives what it made.
pub(crate) fn build(mut command: Command) -> Result<Vec<Artifact>, String> {
    command.args(["--message-format", "json-render-diagnostics"]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("failed to run cargo: {error}"))?;
    let output = child.stdout.take().ok_or("cargo has no output")?;
    let mut made = Vec::new();
    for message in Message::parse_stream(BufReader::new(output)) {
        let message = message.map_err(|error| format!("failed to read what cargo says: {error}"))?;
        if let Message::CompilerArtifact(artifact) = message {
            made.push(artifact);
        }
    }
    let status = child.wait().map_err(|error| format!("failed to wait for cargo: {error}"))?;
    match status.success() {
        true => Ok(made),
        false => Err(format!("it does not build ({status}); the messages above say why")),
    }
}

/// Runs a command without a word. Tells whether it succeeded.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// The packages of the workspace, without what they depend on.
pub(crate) fn metadata() -> Result<Metadata, String> {
    let mut command = MetadataCommand::new();
    command.current_dir(root()).no_deps();
    command.exec().map_err(|error| format!("failed to ask cargo about the workspace: {error}"))
}

/// Each published crate with each of its features.
pub(crate) fn published_features(metadata: &Metadata) -> Vec<(&'static str, &str)> {
    let features = |name: &'static str| {
        let package = metadata.packages.iter().filter(move |package| package.name == name);
        package.flat_map(move |package| package.features.keys().map(move |feature| (name, feature.as_str())))
    };
    PUBLISHED.iter().copied().flat_map(features).filter(|(_, feature)| *feature != "default").collect()
}

/// Names of the examples: the packages in the folder `examples`.
pub(crate) fn examples(metadata: &Metadata) -> Vec<String> {
    let folder = metadata.workspace_root.join("examples");
    let packages = metadata.packages.iter().filter(|package| package.manifest_path.starts_with(&folder));
    packages.map(|package| package.name.to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_published_is_known_with_each_feature_but_the_default() {
        let metadata = metadata().expect("this workspace");
        let features = published_features(&metadata);
        assert!(features.contains(&("probity-idempotency", "redis-tls")), "{features:?}");
        assert!(PUBLISHED.iter().all(|name| features.contains(&(*name, "sqlite"))), "{features:?}");
        assert!(features.iter().all(|(_, feature)| *feature != "default"));
    }
}
