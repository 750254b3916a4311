//! An authority of a test's own, the certificates that it signs, and clients that trust it.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    version::{TLS12, TLS13},
};
use tempfile::TempDir;

use super::wire::Wire;

/// A folder with the authority's own certificate, `authority.pem`, and those that it has signed.
pub(super) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

pub(super) type Encrypted = Wire<StreamOwned<ClientConnection, TcpStream>>;

impl Authority {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "authority of a test");
        let key = KeyPair::generate().expect("there is randomness");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("it can sign itself");
        let folder = tempfile::tempdir().expect("there is a place for files");
        fs::write(folder.path().join("authority.pem"), issuer.pem()).expect("the place is ours");
        Self { issuer, folder }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes `FILE.pem` and `FILE.key` for these names; the first is also what the certificate calls itself.
    pub(super) fn sign(&self, file: &str, names: &[&str]) {
        let all: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(all).expect("these are names");
        params.distinguished_name.push(DnType::CommonName, names[0]);
        let key = KeyPair::generate().expect("there is randomness");
        let signed = params.signed_by(&key, &self.issuer).expect("an authority signs");
        self.write(&format!("{file}.pem"), signed.pem().as_bytes());
        self.write(&format!("{file}.key"), key.serialize_pem().as_bytes());
    }

    /// As tools do that renew certificates: the file is there at once, whole.
    pub(super) fn write(&self, file: &str, bytes: &[u8]) {
        let fresh = self.path(&format!("{file}.new"));
        fs::write(&fresh, bytes).expect("the place is ours");
        fs::rename(&fresh, self.path(file)).expect("the place is ours");
    }

    /// `tls = […]` of a listener with these files.
    pub(super) fn listener(&self, files: &[&str]) -> String {
        let entry = |file: &&str| {
            let (chain, key) = (self.path(&format!("{file}.pem")), self.path(&format!("{file}.key")));
            format!("{{ certificate = {chain:?}, key = {key:?} }}")
        };
        format!("tls = [{}]\n", files.iter().map(entry).collect::<Vec<_>>().join(", "))
    }

    /// A client that trusts this authority, and shows a certificate where a file of one is named.
    pub(super) fn client(&self, versions: Versions, own: Option<&str>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(read(&self.path("authority.pem")).remove(0)).expect("an authority can be trusted");
        let provider = Arc::new(aws_lc_rs::default_provider());
        let versions = match versions {
            Versions::Tls12 => &[&TLS12][..],
            Versions::Tls13 => &[&TLS13],
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("both versions are there")
            .with_root_certificates(roots);
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some(file) => {
                let chain = read(&self.path(&format!("{file}.pem")));
                let key = PrivateKeyDer::from_pem_file(self.path(&format!("{file}.key"))).expect("a key");
                builder.with_client_auth_cert(chain, key).expect("they belong together")
            }
        };
        config.enable_early_data = true;
        Arc::new(config)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Versions {
    Tls12,
    Tls13,
}

/// Connects and shakes hands.
pub(super) fn connect(config: &Arc<ClientConfig>, to: SocketAddr, name: &str) -> std::io::Result<Encrypted> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(Duration::from_secs(15)))?;
    let name = name.to_owned().try_into().expect("a name of a server");
    let mut connection = ClientConnection::new(Arc::clone(config), name).map_err(std::io::Error::other)?;
    while connection.is_handshaking() {
        connection.complete_io(&mut stream)?;
    }
    Ok(Wire::over(StreamOwned::new(connection, stream)))
}

/// Which certificate a connection was shown.
pub(super) fn shown(wire: &Encrypted) -> CertificateDer<'static> {
    let chain = wire.stream.conn.peer_certificates().expect("the server has shown one");
    chain[0].clone().into_owned()
}

/// The certificates in a file.
pub(super) fn read(path: &Path) -> Vec<CertificateDer<'static>> {
    let all = CertificateDer::pem_file_iter(path).expect("the file is there");
    all.collect::<Result<_, _>>().expect("it is PEM")
}
