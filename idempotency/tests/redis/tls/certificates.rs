//! Certificates that only the tests trust.

use std::fs;

use probity_idempotency::StoreError;
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair};
use redis::{ClientTlsConfig, TlsCertificates};
use testkit::{TempDir, TlsFiles};

/// Signs certificates for 127.0.0.1, and for nothing else.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = params("authority of a test", &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// A certificate and its key, in PEM.
    fn sign(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = params("redis", &["127.0.0.1"]).signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// Files for a server, in `folder`.
    pub(crate) fn files(&self, folder: &TempDir) -> TlsFiles {
        let write = |name: &str, content: &str| {
            let file = folder.path().join(name);
            fs::write(&file, content).unwrap();
            file
        };
        let (certificate, key) = self.sign();
        TlsFiles {
            certificate: write("server.pem", &certificate),
            key: write("server-key.pem", &key),
            authority: write("authority.pem", &self.certificate),
        }
    }

    /// Returns the certificates of a client that trusts this authority.
    pub(crate) fn trusted(&self) -> TlsCertificates {
        TlsCertificates { root_cert: Some(self.certificate.clone().into_bytes()), client_tls: None }
    }

    /// The same, with a certificate of the client's own, signed by `signer`.
    pub(crate) fn trusted_by(&self, signer: &Authority) -> TlsCertificates {
        let (certificate, key) = signer.sign();
        let client = ClientTlsConfig { client_cert: certificate.into_bytes(), client_key: key.into_bytes() };
        TlsCertificates { client_tls: Some(client), ..self.trusted() }
    }
}

fn params(name: &str, addresses: &[&str]) -> CertificateParams {
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(addresses).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

/// Everything an error says, down to its cause.
pub(crate) fn reasons(error: &StoreError) -> String {
    let mut reasons = vec![error.to_string()];
    let mut next = std::error::Error::source(error);
    while let Some(error) = next {
        reasons.push(error.to_string());
        next = error.source();
    }
    reasons.join(": ")
}
