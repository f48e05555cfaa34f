//! TLS for Redis servers: a second port, and the files it needs. We ourselves keep to the first, which is in the clear.

use std::path::PathBuf;

use crate::port::free_port;

/// The PEM files of a server that speaks TLS. Who needs them makes them: certificates differ from test to test.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The certificate of the server. It must name 127.0.0.1, and permit servers and clients: Redis servers show it to
    /// each other too.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The certificate of who signed it, and who must have signed those of clients, if the server asks for them.
    pub authority: PathBuf,
}

/// A port that speaks TLS.
#[derive(Debug)]
pub(super) struct TlsPort {
    number: u16,
    files: TlsFiles,
}

impl TlsPort {
    pub(super) fn free(files: &TlsFiles) -> TlsPort {
        TlsPort { number: free_port(), files: files.clone() }
    }

    pub(super) fn number(&self) -> u16 {
        self.number
    }

    pub(super) fn url(&self) -> String {
        format!("rediss://127.0.0.1:{}/", self.number)
    }

    /// The settings of the server. Servers speak TLS among each other too, and so tell clients these ports.
    pub(super) fn settings(&self) -> [(&'static str, String); 7] {
        let path = |file: &PathBuf| file.display().to_string();
        [
            ("tls-port", self.number.to_string()),
            ("tls-cert-file", path(&self.files.certificate)),
            ("tls-key-file", path(&self.files.key)),
            ("tls-ca-cert-file", path(&self.files.authority)),
            ("tls-auth-clients", "no".into()),
            ("tls-replication", "yes".into()),
            ("tls-cluster", "yes".into()),
        ]
    }
}
